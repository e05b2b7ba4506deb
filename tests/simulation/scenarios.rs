//! Schedules around one course of events each, with its times and circumstances drawn anew for every seed. Random faults reach what needs
//! two or three of them in the right order once in thousands of schedules; these are about that order.

use fastrand::Rng;
use serde_json::json;

use crate::{
    faults::{Fault, What, Who},
    schedule::Schedule,
};

/// A course of events, by name.
pub struct Scenario {
    pub name: &'static str,
    /// The faults, with times in milliseconds after the cluster has formed, and changes of the configuration.
    make: fn(&mut Rng, &mut Schedule) -> Vec<(u64, Fault)>,
}

/// All of them.
pub const SCENARIOS: &[Scenario] = &[
    Scenario { name: "answers come late, then the leader is alone", make: late_answers_then_alone },
    Scenario { name: "the leader dies while its successors do not see each other", make: successors_apart },
    Scenario { name: "guard and agent of the leader stand still, PostgreSQL goes on", make: nobody_stops_the_primary },
    Scenario { name: "one election is broken off, the next one is needed", make: two_elections },
    Scenario { name: "the store forgets, and the leader is gone", make: forgotten_with_the_leader },
    Scenario { name: "the store forgets under a primary that is cut off", make: forgotten_beside_the_leader },
    Scenario { name: "voters change while one lags, and the leader dies", make: voters_change_before_the_end },
    Scenario { name: "a clean end, then a dirty one", make: clean_then_dirty },
    Scenario { name: "nobody streams without synchronous replication, and the leader dies", make: laggard },
    Scenario { name: "the key is deleted while the leader cannot see it", make: key_deleted },
    Scenario { name: "the leader comes back at once, with an empty disk", make: leader_without_data },
];

/// Between the forming of the cluster and the first fault.
const FORMED: u64 = 12_000;

impl Scenario {
    /// This course of events with the circumstances of a seed.
    pub fn schedule(&self, seed: u64) -> Schedule {
        let mut rng = Rng::with_seed(seed ^ 0x5ce7_a210);
        let (ttl, wait, retry) = [(5, 1, 2), (5, 1, 2), (10, 2, 4)][rng.usize(0..3)];
        let mut schedule = Schedule::of(seed);
        schedule.members = 3;
        schedule.slots = true;
        schedule.config = json!({
            "ttl": ttl, "loop_wait": wait, "retry_timeout": retry, "synchronous_mode": "quorum", "synchronous_node_count": 1,
            "maximum_lag_on_failover": 1_048_576, "postgresql": { "use_pg_rewind": true, "use_slots": true },
        });
        (schedule.slow_start, schedule.slow_promote) = (1, 1);
        let faults = (self.make)(&mut rng, &mut schedule);
        schedule.faults = faults.into_iter().map(|(at, fault)| (FORMED + at, fault)).collect();
        schedule.faults.sort_by_key(|(at, _)| *at);
        let last = schedule.faults.last().map_or(FORMED, |(at, _)| *at);
        schedule.heal = last + rng.u64(2..5) * ttl * 1000;
        schedule.patience = 45_000 + 4_000 * ttl;
        schedule
    }
}

fn lease(schedule: &Schedule) -> u64 {
    schedule.config["ttl"].as_u64().expect("set above") * 1000
}

fn late_answers_then_alone(rng: &mut Rng, schedule: &mut Schedule) -> Vec<(u64, Fault)> {
    if rng.bool() {
        schedule.config["synchronous_mode"] = json!("off");
    }
    let after = lease(schedule) / 5 + rng.u64(0..lease(schedule) / 5);
    let span = rng.u64(after + 500..2 * after + 2000);
    let cut = rng.u64(after..span + 300);
    let late = Fault::StoreSlow { before: 0, after, span };
    vec![(0, late), (cut, Fault::Isolate { who: Who::Leader, span: 4 * lease(schedule) })]
}

fn successors_apart(rng: &mut Rng, schedule: &mut Schedule) -> Vec<(u64, Fault)> {
    schedule.members = rng.usize(3..6);
    schedule.config["synchronous_mode"] = json!(["off", "quorum"][rng.usize(0..2)]);
    let slow = Fault::StoreSlow { before: rng.u64(0..400), after: rng.u64(0..200), span: 3 * lease(schedule) };
    let apart = Fault::Cut { a: Who::Standby(0), b: Who::Standby(1), span: 4 * lease(schedule) };
    let end = if rng.bool() {
        Fault::PowerOff { who: Who::Leader, span: 3 * lease(schedule) }
    } else {
        Fault::Crash(Who::Leader, What::Container)
    };
    vec![(0, apart), (rng.u64(0..2000), slow), (2000, end)]
}

fn nobody_stops_the_primary(rng: &mut Rng, schedule: &mut Schedule) -> Vec<(u64, Fault)> {
    let span = rng.u64(lease(schedule) * 2..lease(schedule) * 5);
    let freeze = |what| Fault::Freeze { who: Who::Leader, what, span };
    schedule.members = [3, 3, 5][rng.usize(0..3)];
    // A voter that has voted and hears no more of it goes on streaming, unless it has cut itself off before.
    let voter = Fault::Freeze { who: Who::Standby(rng.usize(0..2)), what: What::Agent, span: lease(schedule) };
    let voted = lease(schedule) - 1000 + rng.u64(0..1800);
    vec![(0, freeze(What::Guard)), (rng.u64(0..50), freeze(What::Agent)), (voted, voter)]
}

fn two_elections(rng: &mut Rng, schedule: &mut Schedule) -> Vec<(u64, Fault)> {
    let lease = lease(schedule);
    let freeze = |what| Fault::Freeze { who: Who::Leader, what, span: 4 * lease };
    // The first election is begun by a silence that ends; the votes that were given then are old ones in the next.
    let first = Fault::CutFromStore { who: Who::Leader, up: true, down: true, span: lease + rng.u64(0..2000) };
    let second = lease * 2 + rng.u64(0..lease);
    schedule.members = [3, 5][rng.usize(0..2)];
    let apart = Fault::Cut { a: Who::Standby(0), b: Who::Standby(1), span: rng.u64(500..lease * 2) };
    vec![(0, first), (rng.u64(0..lease), apart), (second, freeze(What::Guard)), (second + 20, freeze(What::Agent))]
}

fn forgotten_with_the_leader(rng: &mut Rng, schedule: &mut Schedule) -> Vec<(u64, Fault)> {
    let lease = lease(schedule);
    schedule.members = [3, 5][rng.usize(0..2)];
    let lag = Fault::Cut { a: Who::Leader, b: Who::Standby(1), span: rng.u64(500..3000) };
    let end = match rng.u32(0..3) {
        0 => Fault::PowerOff { who: Who::Leader, span: 2 * lease },
        1 => Fault::Isolate { who: Who::Leader, span: 2 * lease },
        _ => Fault::Freeze { who: Who::Leader, what: What::Host, span: 2 * lease },
    };
    let wipe = rng.u64(800..4000);
    vec![(0, lag), (600, end), (wipe, Fault::Wipe)]
}

fn forgotten_beside_the_leader(rng: &mut Rng, schedule: &mut Schedule) -> Vec<(u64, Fault)> {
    let lease = lease(schedule);
    if rng.bool() {
        schedule.config["synchronous_mode"] = json!("off");
    }
    let away = Fault::CutFromStore { who: Who::Leader, up: true, down: true, span: rng.u64(lease..3 * lease) };
    let alone = Fault::Isolate { who: Who::Leader, span: rng.u64(lease..3 * lease) };
    let wipe = rng.u64(0..3 * lease);
    vec![(0, if rng.bool() { away } else { alone }), (wipe, Fault::Wipe)]
}

fn voters_change_before_the_end(rng: &mut Rng, schedule: &mut Schedule) -> Vec<(u64, Fault)> {
    let lease = lease(schedule);
    schedule.members = rng.usize(3..6);
    schedule.slow_reload = [4, 300, 3000][rng.usize(0..3)] * crate::world::MILLI;
    let apart = Fault::Cut { a: Who::Leader, b: Who::Standby(rng.usize(0..3)), span: rng.u64(1000..6000) };
    let change = Fault::SetSync { mode: "quorum".to_owned(), count: rng.u64(1..3), strict: false };
    let back = rng.u64(4000..7000);
    vec![(0, apart), (rng.u64(0..6000), change), (back, Fault::PowerOff { who: Who::Leader, span: 2 * lease })]
}

fn clean_then_dirty(rng: &mut Rng, schedule: &mut Schedule) -> Vec<(u64, Fault)> {
    let lease = lease(schedule);
    schedule.config["synchronous_mode"] = json!(["off", "quorum"][rng.usize(0..2)]);
    let lag = Fault::Cut { a: Who::Leader, b: Who::Standby(0), span: 3 * lease };
    let dirty = 4000 + rng.u64(0..4000);
    vec![(0, Fault::Switchover { candidate: None }), (3000, lag), (dirty, Fault::PowerOff { who: Who::Leader, span: 3 * lease })]
}

fn laggard(rng: &mut Rng, schedule: &mut Schedule) -> Vec<(u64, Fault)> {
    let lease = lease(schedule);
    schedule.config["synchronous_mode"] = json!("off");
    schedule.config["maximum_lag_on_failover"] = json!(2000);
    schedule.write_pause = 60 * crate::world::MILLI;
    let lag = |n| Fault::Cut { a: Who::Leader, b: Who::Standby(n), span: 6 * lease };
    let dirty = 3000 + rng.u64(0..4000);
    vec![(0, lag(0)), (rng.u64(0..500), lag(1)), (dirty, Fault::PowerOff { who: Who::Leader, span: 3 * lease })]
}

fn key_deleted(rng: &mut Rng, schedule: &mut Schedule) -> Vec<(u64, Fault)> {
    let lease = lease(schedule);
    schedule.members = rng.usize(3..6);
    schedule.config["synchronous_mode"] = json!(["off", "quorum"][rng.usize(0..2)]);
    let away = Fault::CutFromStore { who: Who::Leader, up: true, down: true, span: 3 * lease };
    // Before the lease ends: nobody can keep a hand from taking the key from a successor in the midst of its promotion.
    vec![(0, away), (rng.u64(10..lease * 2 / 3), Fault::DropLeaderKey)]
}

fn leader_without_data(rng: &mut Rng, schedule: &mut Schedule) -> Vec<(u64, Fault)> {
    let lease = lease(schedule);
    schedule.members = rng.usize(3..6);
    vec![(0, Fault::LoseLeader { span: rng.u64(10..lease) })]
}
