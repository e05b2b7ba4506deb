//! A long random walk: faults one after the other and two at a time, under a client that writes all the time. Run it with
//! `SPILO_SOAK_SECONDS=600 cargo test --test real -- --ignored soak`; `SPILO_SOAK_SEED` repeats the faults of an earlier run.

use std::{
    time::Instant,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::process::Signal;
use serde_json::json;

use super::{
    cluster::{Cluster, descendants, send},
    writer::Writer,
};
use crate::support::wait_until;

/// How long everything may take to be well again once nothing disturbs it any more.
const HEALING: Duration = Duration::from_secs(90);

/// What goes wrong.
#[derive(Debug, Clone, Copy)]
enum Fault {
    KillAgent,
    StopAgent,
    KillGuard,
    StopGuard,
    /// Nobody is left who could stop PostgreSQL when the lease ends.
    StopGuardAndAgent,
    KillPostmaster,
    StopPostmaster,
    /// Every process of the server hangs.
    StopServer,
    /// The whole machine hangs, and goes on later as if nothing had happened.
    StopHost,
    LoseHost,
    LoseHostAndData,
    EndAndStart,
    LoseEverybody,
    FreezeEtcdBriefly,
    FreezeEtcdBeyondTheLease,
    RestartEtcd,
    Switchover,
}

const FAULTS: [Fault; 17] = [
    Fault::KillAgent,
    Fault::StopAgent,
    Fault::KillGuard,
    Fault::StopGuard,
    Fault::StopGuardAndAgent,
    Fault::KillPostmaster,
    Fault::StopPostmaster,
    Fault::StopServer,
    Fault::StopHost,
    Fault::LoseHost,
    Fault::LoseHostAndData,
    Fault::EndAndStart,
    Fault::LoseEverybody,
    Fault::FreezeEtcdBriefly,
    Fault::FreezeEtcdBeyondTheLease,
    Fault::RestartEtcd,
    Fault::Switchover,
];

/// SplitMix64: the same faults from the same seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(limit).unwrap()).unwrap()
    }

    fn millis(&mut self, from: usize, to: usize) -> Duration {
        Duration::from_millis(u64::try_from(from + self.below(to - from)).unwrap())
    }
}

struct Soak {
    cluster: Cluster,
    random: Random,
    /// Processes that hang until they are healed.
    stopped: Vec<i32>,
    etcd_hangs: bool,
    started: Instant,
}

impl Soak {
    /// The leader more often than anybody else: that is where it hurts.
    fn victim(&mut self) -> usize {
        let leader = self.cluster.leader().map(|l| l.name.clone());
        let leads = self.cluster.nodes.iter().position(|n| Some(&n.name) == leader.as_ref());
        match leads {
            Some(index) if self.random.below(10) < 6 => index,
            _ => self.random.below(self.cluster.nodes.len()),
        }
    }

    fn stop(&mut self, pids: Vec<i32>) {
        pids.iter().for_each(|pid| send(*pid, Signal::STOP));
        self.stopped.extend(pids);
    }

    /// Does it to somebody; returns what was done, in words.
    fn strike(&mut self, fault: Fault) -> String {
        let index = self.victim();
        let node = &self.cluster.nodes[index];
        let name = node.name.clone();
        if !node.is_running() {
            return format!("{fault:?}: {name} is down already");
        }
        let (guard, agent) = (node.guard_pid(), node.agent_pid_if_any());
        let server = node.postmaster_pid().map(|p| descendants(p).into_iter().chain([p]).collect::<Vec<_>>()).unwrap_or_default();
        match fault {
            Fault::KillAgent => agent.into_iter().for_each(|pid| send(pid, Signal::KILL)),
            Fault::StopAgent => self.stop(agent.into_iter().collect()),
            Fault::KillGuard => {
                // An agent that hangs too would keep its port for ever, which only a machine without containers can see.
                self.heal_processes();
                self.cluster.nodes[index].kill_guard();
            }
            Fault::StopGuard => self.stop(vec![guard]),
            Fault::StopGuardAndAgent => self.stop(agent.into_iter().chain([guard]).collect()),
            Fault::KillPostmaster => node.postmaster_pid().into_iter().for_each(|pid| send(pid, Signal::KILL)),
            Fault::StopPostmaster => self.stop(node.postmaster_pid().into_iter().collect()),
            Fault::StopServer => self.stop(server),
            Fault::StopHost => self.stop(agent.into_iter().chain([guard]).chain(server).collect()),
            Fault::LoseHost => self.cluster.nodes[index].lose_host(),
            Fault::LoseHostAndData => {
                // Only a replica's, and only of a cluster that is well: the last good copy is not to be lost.
                if !self.cluster.is_healthy() || self.cluster.leader().is_none_or(|l| l.name == name) {
                    return format!("{fault:?}: not of {name}");
                }
                self.cluster.nodes[index].lose_host();
                self.cluster.nodes[index].lose_data();
            }
            Fault::EndAndStart => {
                self.heal_processes();
                self.cluster.nodes[index].stop();
            }
            Fault::LoseEverybody => self.cluster.nodes.iter_mut().for_each(super::cluster::Node::lose_host),
            Fault::FreezeEtcdBriefly | Fault::FreezeEtcdBeyondTheLease => {
                self.cluster.etcd.freeze();
                self.etcd_hangs = true;
            }
            Fault::RestartEtcd => {
                self.cluster.etcd.kill();
                std::thread::sleep(self.random.millis(0, 4000));
                self.cluster.etcd.run();
                self.etcd_hangs = false;
            }
            Fault::Switchover => {
                let candidate = self.cluster.nodes[self.random.below(3)].name.clone();
                let body = json!({"leader": name, "candidate": candidate});
                let api = node.api.clone();
                // Its answer comes when it comes; what matters is what becomes of the cluster.
                std::thread::spawn(move || super::cluster::request(&api, "POST", "/switchover", Some(&body)));
            }
        }
        format!("{fault:?} on {name}")
    }

    fn heal_processes(&mut self) {
        self.stopped.drain(..).for_each(|pid| send(pid, Signal::CONT));
    }

    fn heal(&mut self) {
        self.heal_processes();
        if std::mem::take(&mut self.etcd_hangs) {
            self.cluster.etcd.thaw();
        }
        for node in self.cluster.nodes.iter_mut().filter(|n| !n.is_running()) {
            node.start();
        }
    }

    /// One or two faults, a while, and then everything has to be well again with every acknowledged row.
    fn round(&mut self, writer: &Writer) {
        let first = FAULTS[self.random.below(FAULTS.len())];
        let mut what = self.strike(first);
        let mut longest = if matches!(first, Fault::FreezeEtcdBriefly) { 2000 } else { 9000 };
        if self.random.below(2) == 0 {
            std::thread::sleep(self.random.millis(0, 2500));
            let second = FAULTS[self.random.below(FAULTS.len())];
            what = format!("{what}, {}", self.strike(second));
            longest = 12000;
        }
        eprintln!("{:>6.1} {what}", self.started.elapsed().as_secs_f64());
        std::thread::sleep(self.random.millis(100, longest));
        self.heal();
        let healed = Instant::now();
        wait_until(&format!("healthy after {what}"), HEALING, || self.cluster.is_healthy());
        writer.wait_for_more();
        let lost = writer.missing_on(self.cluster.leader().expect("it is healthy"));
        eprintln!("{:>6.1}   well after {:.1} s", self.started.elapsed().as_secs_f64(), healed.elapsed().as_secs_f64());
        assert!(lost.is_empty(), "{} acknowledged rows are lost after {what}: {lost:?}", lost.len());
    }
}

#[test]
#[ignore = "runs as long as SPILO_SOAK_SECONDS says, two minutes otherwise"]
fn soak_random_faults_lose_nothing_and_heal() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (seed, seconds) = (number("SPILO_SOAK_SEED").unwrap_or(now), number("SPILO_SOAK_SECONDS").unwrap_or(120));
    eprintln!("SPILO_SOAK_SEED={seed}");
    let Some(cluster) = Cluster::start() else { return };
    let writer = Writer::start(&cluster);
    let mut soak = Soak { cluster, random: Random(seed), stopped: Vec::new(), etcd_hangs: false, started: Instant::now() };
    let mut rounds = 0;
    while soak.started.elapsed() < Duration::from_secs(seconds) {
        soak.round(&writer);
        rounds += 1;
    }
    eprintln!("{rounds} rounds, {} acknowledged rows", writer.count());
    writer.check(&soak.cluster);
}
