//! A random walk: faults one after the other and two at a time, under clients that write all the time. A short one with a fixed seed runs
//! as any other test; `make soak SECONDS=3600 SEED=7` runs a long one, and without SEED one that was never run before.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::{
    cluster::Cluster,
    fault::{Damage, Fault, Random},
    memory::Memory,
    writer::Writer,
};
use crate::support::wait_until;

/// How long everything may take to be well again once nothing disturbs it any more.
const HEALING: Duration = Duration::from_secs(90);

/// The short walk's length in seconds, and its seed.
const SHORT: (u64, u64) = (75, 20_261_121);

struct Soak {
    cluster: Cluster,
    random: Random,
    damage: Damage,
    memory: Memory,
    started: Instant,
    rounds: u32,
    /// Rounds in which only replicas were hurt and the leader changed all the same.
    needless: Vec<String>,
    slowest_healing: Duration,
    /// Rows that were found on the leader in an earlier round.
    checked: usize,
}

impl Soak {
    fn new(cluster: Cluster, seed: u64) -> Soak {
        Soak {
            cluster,
            random: Random(seed),
            damage: Damage::default(),
            memory: Memory::default(),
            started: Instant::now(),
            rounds: 0,
            needless: Vec::new(),
            slowest_healing: Duration::ZERO,
            checked: 0,
        }
    }

    /// The leader more often than anybody else: that is where it hurts.
    fn victim(&mut self) -> usize {
        let leader = self.cluster.leader().map(|l| l.name.clone());
        let leads = self.cluster.nodes.iter().position(|n| Some(&n.name) == leader.as_ref());
        match leads {
            Some(index) if self.random.below(10) < 6 => index,
            _ => self.random.below(self.cluster.nodes.len()),
        }
    }

    /// Does something to somebody; returns what was done, in words, and whether only `spared` was out of its reach.
    fn strike(&mut self, fault: Fault, spared: &str) -> (String, bool) {
        let index = self.victim();
        let name = self.cluster.nodes[index].name.clone();
        let done = self.damage.strike(fault, &mut self.cluster, index, &mut self.random);
        let words = format!("{fault:?} {} {name}", if done { "on" } else { "not possible on" });
        (words, !done || fault.concerns_its_victim_only() && name != spared)
    }

    /// One or two faults, a while, and then everything has to be well again with every acknowledged row.
    fn round(&mut self, writer: &Writer) {
        let leader = self.cluster.leader().expect("it was well").name.clone();
        let first = Fault::ALL[self.random.below(Fault::ALL.len())];
        let (mut what, mut spares) = self.strike(first, &leader);
        let mut longest = if matches!(first, Fault::FreezeEtcdBriefly) { 2000 } else { 9000 };
        if self.random.below(2) == 0 {
            std::thread::sleep(self.random.millis(0, 2500));
            let second = Fault::ALL[self.random.below(Fault::ALL.len())];
            let (words, spares_too) = self.strike(second, &leader);
            what = format!("{what}, {words}");
            spares &= spares_too;
            longest = 12000;
        }
        self.say(&what);
        std::thread::sleep(self.random.millis(100, longest));
        self.damage.heal(&mut self.cluster);
        self.expect_well(writer, &what);
        if spares && self.cluster.leader().is_some_and(|now| now.name != leader) {
            self.say("  the leader changed, and had not been hurt");
            self.needless.push(what);
        }
        self.rounds += 1;
    }

    fn expect_well(&mut self, writer: &Writer, what: &str) {
        let healed = wait_until(&format!("healthy after {what}"), HEALING, || self.cluster.is_healthy());
        writer.wait_for_more();
        self.slowest_healing = self.slowest_healing.max(healed);
        self.say(&format!("  well after {:.1} s", healed.as_secs_f64()));
        self.memory.sample(&self.cluster);
        let rows = writer.rows(self.checked);
        let lost = writer.missing_of(&rows, self.cluster.leader().expect("it is healthy"));
        assert!(lost.is_empty(), "{} acknowledged rows are lost after {what}: {lost:?}", lost.len());
        // With some of the rows before, so that a change just before them is seen.
        writer.expect_one_at_a_time(self.checked.saturating_sub(1000));
        self.checked += rows.len();
    }

    fn say(&self, what: &str) {
        eprintln!("{:>6.1} {what}", self.started.elapsed().as_secs_f64());
    }

    fn summary(&self, rows: usize) -> String {
        let (grown, who) = self.memory.growth();
        format!(
            "{} rounds in {:.0} s, {rows} rows acknowledged, 0 lost, 0 by two members at once, 0 stuck nodes, healed within {:.1} s at most, \
             {} needless changes of leader; guard and agent at most {:.1} MB, grown by {grown} kB at most ({who}, of {} watched)",
            self.rounds,
            self.started.elapsed().as_secs_f64(),
            self.slowest_healing.as_secs_f64(),
            self.needless.len(),
            Duration::from_millis(self.memory.largest()).as_secs_f64(),
            self.memory.judged(),
        )
    }
}

#[test]
fn soak_random_faults_lose_nothing_and_heal() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap_or_else(|e| panic!("{name}='{text}': {e}")));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (seconds, seed) = match (number("SPILO_SOAK_SECONDS"), number("SPILO_SOAK_SEED")) {
        (None, seed) => (SHORT.0, seed.unwrap_or(SHORT.1)),
        (Some(seconds), seed) => (seconds, seed.unwrap_or(now)),
    };
    eprintln!("soak: SECONDS={seconds} SEED={seed}");
    let Some(cluster) = Cluster::start() else { return };
    let writer = Writer::start_with_witnesses(&cluster);
    let mut soak = Soak::new(cluster, seed);
    while soak.started.elapsed() < Duration::from_secs(seconds) {
        soak.round(&writer);
    }
    let rows = writer.rows(0).len();
    writer.check(&soak.cluster);
    eprintln!("soak: {}", soak.summary(rows));
    soak.memory.check();
    assert!(soak.needless.is_empty(), "the leader changed though only replicas were hurt: {:?}", soak.needless);
}
