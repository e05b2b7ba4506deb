//! Runs schedules: one, or many on all cores.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    agent::start_agents,
    counters::Counters,
    exec::Sim,
    invariants::{Class, Violation},
    known::is_known,
    mutations::Mutation,
    schedule::Schedule,
    world::{MILLI, Nanos, World},
};

/// What came of a schedule.
pub struct Outcome {
    pub violation: Option<Violation>,
    pub hash: u64,
    pub counters: Counters,
    pub virtual_time: Nanos,
    pub acknowledged: u64,
    pub lines: Vec<String>,
}

/// How often the end of healing is looked for.
const LOOK: Nanos = 250 * MILLI;

/// Runs one schedule to its end, or to the first broken promise.
pub fn run(schedule: &Schedule, mutation: Option<Mutation>, traced: bool) -> Outcome {
    let sim = Sim::new(World::new(schedule.clone(), mutation, traced));
    {
        let mut world = sim.world();
        for id in 0..schedule.members {
            let delay = world.between(0, 2_000 * MILLI);
            world.at(delay, move |w| w.start_guard(id));
        }
        for (at, fault) in schedule.faults.clone() {
            world.at(at * MILLI, move |w| {
                if !w.healed {
                    w.inflict(&fault);
                }
            });
        }
        world.at(schedule.heal * MILLI, World::heal);
    }
    let healed = schedule.heal * MILLI;
    let end = healed + schedule.patience * MILLI;
    let mut look_at = healed + LOOK;
    loop {
        let went_on = sim.world().step(end);
        start_agents(&sim);
        sim.settle();
        let mut world = sim.world();
        if world.promises.violation.is_some() {
            break;
        }
        if !went_on {
            let complaint = world.complaint(healed).unwrap_or_else(|| "nothing happens any more".to_owned());
            world.broken(Class::DoesNotHeal, complaint);
            break;
        }
        if world.now >= look_at {
            look_at = world.now + LOOK;
            if world.complaint(healed).is_none() {
                break;
            }
        }
    }
    let mut world = sim.world();
    if world.promises.violation.is_none() && schedule.is_calm() && world.promises.role_changes > 1 {
        let changes = world.promises.role_changes;
        world.broken(Class::NeedlessChange, format!("{changes} servers have led"));
    }
    Outcome {
        violation: world.promises.violation.clone(),
        hash: world.trace.hash,
        counters: world.counters.clone(),
        virtual_time: world.now,
        acknowledged: world.promises.acknowledged,
        lines: world.trace.lines.iter().cloned().collect(),
    }
}

/// What came of many schedules.
#[derive(Default)]
pub struct Report {
    pub seeds: u64,
    pub virtual_time: u128,
    pub acknowledged: u64,
    pub counters: Counters,
    /// Failing seeds, in order.
    pub failures: Vec<(u64, Violation)>,
    /// Seeds that fail in a way that is known.
    pub known: Vec<(u64, Violation)>,
    /// Seeds that did not give the same history twice.
    pub unstable: Vec<u64>,
    pub took: Duration,
}

/// Names the seed when a run panics: the model itself was wrong.
struct Names(u64);

impl Drop for Names {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("seed {} panicked", self.0);
        }
    }
}

/// Runs the schedules of `seeds` on all cores; stops early when `enough` of them have failed.
pub fn run_all(
    seeds: std::ops::Range<u64>,
    schedule: impl Fn(u64) -> Schedule + Sync,
    mutation: Option<Mutation>,
    enough: usize,
) -> Report {
    let (next, report, started) = (AtomicU64::new(seeds.start), Mutex::new(Report::default()), Instant::now());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || report.lock().expect("no worker panics").failures.len() >= enough {
                        return;
                    }
                    let _names = Names(seed);
                    let schedule = schedule(seed);
                    let outcome = run(&schedule, mutation, false);
                    let unstable = seed % 1000 == 0 && run(&schedule, mutation, false).hash != outcome.hash;
                    let mut report = report.lock().expect("no worker panics");
                    report.seeds += 1;
                    report.virtual_time += u128::from(outcome.virtual_time);
                    report.acknowledged += outcome.acknowledged;
                    report.counters.add(&outcome.counters);
                    if let Some(violation) = outcome.violation {
                        let known = is_known(&schedule, &violation);
                        let list = if known { &mut report.known } else { &mut report.failures };
                        list.push((seed, violation));
                    }
                    report.unstable.extend(unstable.then_some(seed));
                }
            });
        }
    });
    let mut report = report.into_inner().expect("no worker panics");
    report.failures.sort_by_key(|(seed, _)| *seed);
    report.known.sort_by_key(|(seed, _)| *seed);
    report.took = started.elapsed();
    report
}
