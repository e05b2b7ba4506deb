//! What goes wrong in a random walk.

use rustix::process::Signal;
use serde_json::json;

use super::cluster::{Cluster, Node, children_of, command_line, descendants, request, send};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
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
    /// One process of the server hangs: a session, or one that replicates, or the one that writes checkpoints.
    StopOneOfServer,
    /// PostgreSQL starts itself anew then.
    KillOneOfServer,
    /// The whole machine hangs, and goes on later as if nothing had happened.
    StopHost,
    LoseHost,
    LoseHostAndData,
    EndAndStart,
    LoseEverybody,
    FreezeEtcdBriefly,
    FreezeEtcdBeyondTheLease,
    RestartEtcd,
    /// It stays away until everything is healed.
    KillEtcd,
    Switchover,
    /// Two operators at once, or one who asks again because no answer came.
    SwitchoverTwice,
}

impl Fault {
    pub const ALL: [Fault; 21] = [
        Fault::KillAgent,
        Fault::StopAgent,
        Fault::KillGuard,
        Fault::StopGuard,
        Fault::StopGuardAndAgent,
        Fault::KillPostmaster,
        Fault::StopPostmaster,
        Fault::StopServer,
        Fault::StopOneOfServer,
        Fault::KillOneOfServer,
        Fault::StopHost,
        Fault::LoseHost,
        Fault::LoseHostAndData,
        Fault::EndAndStart,
        Fault::LoseEverybody,
        Fault::FreezeEtcdBriefly,
        Fault::FreezeEtcdBeyondTheLease,
        Fault::RestartEtcd,
        Fault::KillEtcd,
        Fault::Switchover,
        Fault::SwitchoverTwice,
    ];

    /// True when nothing but one member is hurt: where that is a replica, nobody else has a reason to lead.
    pub fn concerns_its_victim_only(self) -> bool {
        use Fault::{FreezeEtcdBeyondTheLease, FreezeEtcdBriefly, KillEtcd, LoseEverybody, RestartEtcd, Switchover, SwitchoverTwice};
        !matches!(
            self,
            LoseEverybody | FreezeEtcdBriefly | FreezeEtcdBeyondTheLease | RestartEtcd | KillEtcd | Switchover | SwitchoverTwice
        )
    }
}

/// SplitMix64: the same faults from the same seed.
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(limit).unwrap()).unwrap()
    }

    pub fn millis(&mut self, from: usize, to: usize) -> std::time::Duration {
        std::time::Duration::from_millis(u64::try_from(from + self.below(to - from)).unwrap())
    }
}

/// What was done and has to be undone.
#[derive(Default)]
pub struct Damage {
    /// Processes that hang until they are healed.
    stopped: Vec<i32>,
    etcd_hangs: bool,
    etcd_is_dead: bool,
}

impl Damage {
    fn stop(&mut self, pids: Vec<i32>) {
        pids.iter().for_each(|pid| send(*pid, Signal::STOP));
        self.stopped.extend(pids);
    }

    fn heal_processes(&mut self) {
        self.stopped.drain(..).for_each(|pid| send(pid, Signal::CONT));
    }

    pub fn heal(&mut self, cluster: &mut Cluster) {
        self.heal_processes();
        if std::mem::take(&mut self.etcd_hangs) {
            cluster.etcd.thaw();
        }
        if std::mem::take(&mut self.etcd_is_dead) {
            cluster.etcd.run();
        }
        for node in cluster.nodes.iter_mut().filter(|n| !n.is_running()) {
            node.start();
        }
    }

    /// Does it to this member; false when it was not possible.
    pub fn strike(&mut self, fault: Fault, cluster: &mut Cluster, index: usize, random: &mut Random) -> bool {
        let node = &cluster.nodes[index];
        if !node.is_running() {
            return false;
        }
        let (guard, agent) = (node.guard_pid(), node.agent_pid_if_any());
        let server = node.postmaster_pid().map(|p| descendants(p).into_iter().chain([p]).collect::<Vec<_>>()).unwrap_or_default();
        match fault {
            Fault::KillAgent => agent.into_iter().for_each(|pid| send(pid, Signal::KILL)),
            Fault::StopAgent => self.stop(agent.into_iter().collect()),
            Fault::KillGuard => {
                // An agent that hangs too would keep its port for ever, which only a machine without containers can see.
                self.heal_processes();
                cluster.nodes[index].kill_guard();
            }
            Fault::StopGuard => self.stop(vec![guard]),
            Fault::StopGuardAndAgent => self.stop(agent.into_iter().chain([guard]).collect()),
            Fault::KillPostmaster => node.postmaster_pid().into_iter().for_each(|pid| send(pid, Signal::KILL)),
            Fault::StopPostmaster => self.stop(node.postmaster_pid().into_iter().collect()),
            Fault::StopServer => self.stop(server),
            Fault::StopOneOfServer => self.stop(one_of_server(node, random).into_iter().collect()),
            Fault::KillOneOfServer => one_of_server(node, random).into_iter().for_each(|pid| send(pid, Signal::KILL)),
            Fault::StopHost => self.stop(agent.into_iter().chain([guard]).chain(server).collect()),
            Fault::LoseHost => cluster.nodes[index].lose_host(),
            Fault::LoseHostAndData => return self.stopped.is_empty() && lose_host_and_data(cluster, index),
            Fault::EndAndStart => {
                self.heal_processes();
                cluster.nodes[index].stop();
            }
            Fault::LoseEverybody => cluster.nodes.iter_mut().for_each(Node::lose_host),
            Fault::FreezeEtcdBriefly | Fault::FreezeEtcdBeyondTheLease | Fault::RestartEtcd | Fault::KillEtcd => {
                self.strike_etcd(fault, cluster, random);
            }
            Fault::Switchover => ask_for_switchover(cluster, index, random.below(3)),
            Fault::SwitchoverTwice => {
                ask_for_switchover(cluster, index, random.below(3));
                std::thread::sleep(random.millis(0, 300));
                ask_for_switchover(cluster, index, random.below(3));
            }
        }
        true
    }

    fn strike_etcd(&mut self, fault: Fault, cluster: &mut Cluster, random: &mut Random) {
        match fault {
            Fault::RestartEtcd => {
                cluster.etcd.kill();
                std::thread::sleep(random.millis(0, 4000));
                cluster.etcd.run();
                (self.etcd_hangs, self.etcd_is_dead) = (false, false);
            }
            Fault::KillEtcd => {
                cluster.etcd.kill();
                (self.etcd_hangs, self.etcd_is_dead) = (false, true);
            }
            _ if self.etcd_is_dead => {}
            _ => {
                cluster.etcd.freeze();
                self.etcd_hangs = true;
            }
        }
    }
}

/// Only a replica's, and only of a cluster that is well: the last good copy is not to be lost.
fn lose_host_and_data(cluster: &mut Cluster, index: usize) -> bool {
    let name = cluster.nodes[index].name.clone();
    if !cluster.is_healthy() || cluster.leader().is_none_or(|l| l.name == name) {
        return false;
    }
    cluster.nodes[index].lose_host();
    cluster.nodes[index].lose_data();
    true
}

/// One process of the member's PostgreSQL, of a kind that matters.
fn one_of_server(node: &Node, random: &mut Random) -> Option<i32> {
    let kinds = [
        "postgres: walreceiver",
        "postgres: walsender",
        "postgres: checkpointer",
        "postgres: walwriter",
        "postgres: startup",
        "postgres: postgres ",
    ];
    let mut found: Vec<i32> = children_of(node.postmaster_pid()?);
    found.retain(|pid| kinds.iter().any(|kind| command_line(*pid).contains(kind)));
    found.sort_unstable();
    if found.is_empty() { None } else { Some(found[random.below(found.len())]) }
}

fn ask_for_switchover(cluster: &Cluster, index: usize, candidate: usize) {
    let body = json!({"leader": cluster.nodes[index].name, "candidate": cluster.nodes[candidate].name});
    let api = cluster.nodes[index].api.clone();
    // Its answer comes when it comes; what matters is what becomes of the cluster.
    std::thread::spawn(move || request(&api, "POST", "/switchover", Some(&body)));
}
