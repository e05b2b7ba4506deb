//! The agent's decisions in a world of our own: many members, a store, a network and clocks that fail in every way we could think of, all of
//! it driven by one number. `make sim SEEDS=n` runs n of them; `SEED=n TRACE=1` shows one.

#![allow(clippy::print_stdout, reason = "a report on standard output is what these tests are for")]

mod agent;
mod counters;
mod dcs_client;
mod dcs_model;
mod exec;
mod faults;
mod guard_model;
mod invariants;
mod known;
mod mutations;
mod network;
mod perform;
mod postgres_model;
mod replication;
mod runner;
mod scenarios;
mod schedule;
mod shrink;
mod signals;
mod tasks;
mod wal;
mod world;

use std::collections::BTreeMap;

use crate::{mutations::Mutation, runner::Report, scenarios::SCENARIOS, schedule::Schedule};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// The one schedule that was asked for: by its number, or as a file that shrinking has left.
fn chosen() -> Option<Schedule> {
    if let Ok(path) = std::env::var("SCHEDULE") {
        let text = std::fs::read_to_string(&path).expect("SCHEDULE names a file");
        return Some(shrink::parse(&text).expect("SCHEDULE is a schedule"));
    }
    let seed = number("SEED")?;
    let Some(number) = number("SCENARIO") else { return Some(Schedule::of(seed)) };
    let scenario = SCENARIOS.get(number as usize).expect("SCENARIO is the number of one, from 0 on");
    Some(scenario.schedule(seed))
}

/// Seeds that once failed.
fn remembered() -> Vec<u64> {
    let lines = include_str!("seeds.txt").lines().filter(|l| !l.starts_with('#'));
    lines.filter_map(|l| l.split_whitespace().next()?.parse().ok()).collect()
}

fn print(report: &Report) {
    let seconds = report.took.as_secs_f64();
    println!(
        "{} schedules in {seconds:.1} s ({:.0} a second), {:.1} h of virtual time, {} events, {} acknowledged commits",
        report.seeds,
        report.seeds as f64 / seconds,
        report.virtual_time as f64 / 3.6e12,
        report.counters.events,
        report.acknowledged
    );
    for (kind, failures) in [("known", &report.known), ("FAILED", &report.failures)] {
        let mut classes: BTreeMap<_, (u64, u64, String)> = BTreeMap::new();
        for (seed, violation) in failures {
            let text = format!("{} (at {:.3} s)", violation.text, violation.at as f64 / 1e9);
            classes.entry(violation.class).or_insert((0, *seed, text)).0 += 1;
        }
        for (class, (count, seed, text)) in classes {
            println!("{kind}: {class:?} {count} times, first with SEED={seed}: {text}");
            if kind == "known" {
                println!("       {}", known::why(class));
            }
        }
    }
}

/// Shows one schedule; true when it was asked for.
fn shown() -> bool {
    let Some(schedule) = chosen() else { return false };
    let mutation = std::env::var("MUTANT").ok();
    let mutation = mutation.map(|name| *Mutation::ALL.iter().find(|m| format!("{m:?}") == name).expect("MUTANT names a planted bug"));
    let outcome = runner::run(&schedule, mutation, true);
    let wanted = if number("TRACE").is_some() { usize::MAX } else { 60 };
    println!("{}", shrink::text(&schedule));
    outcome.lines.iter().skip(outcome.lines.len().saturating_sub(wanted)).for_each(|line| println!("{line}"));
    println!("{:?}, history {:x}", outcome.violation, outcome.hash);
    if let (Some(violation), Some(_)) = (outcome.violation, number("SHRINK")) {
        println!("{}", shrink::text(&shrink::shrink(schedule, violation.class, None)));
    }
    true
}

/// A run of this many schedules has to have seen everything.
const LONG: u64 = 20_000;

#[test]
fn schedules_keep_every_promise() {
    if shown() {
        return;
    }
    let (from, seeds) = (number("FROM").unwrap_or(0), number("SEEDS").unwrap_or(1000));
    let mut failures = Vec::new();
    for seed in remembered() {
        failures.extend(runner::run_all(seed..seed + 1, Schedule::of, None, 1).failures);
    }
    let report = runner::run_all(from..from + seeds, Schedule::of, None, 100);
    print(&report);
    if number("COUNTERS").is_some() {
        report.counters.seen.iter().for_each(|((kind, what), count)| println!("{kind:8} {what:24} {count}"));
    }
    failures.extend(report.failures);
    if let Some((seed, violation)) = failures.first() {
        let smaller = shrink::shrink(Schedule::of(*seed), violation.class, None);
        println!("SEED={seed} in short:\n{}", shrink::text(&smaller));
        let lines = runner::run(&smaller, None, true).lines;
        lines.iter().skip(lines.len().saturating_sub(60)).for_each(|line| println!("{line}"));
    }
    assert!(failures.is_empty(), "{} schedules break a promise: {failures:?}", failures.len());
    assert_eq!(report.unstable, [0; 0], "these did not happen twice in the same way");
    if seeds < LONG {
        return;
    }
    let mut counters = report.counters;
    SCENARIOS.iter().for_each(|s| counters.add(&runner::run_all(0..VARIATIONS, |seed| s.schedule(seed), None, 1).counters));
    let missing = counters.missing();
    assert!(missing.is_empty(), "this never occurred: {missing:?}");
}

/// How often each course of events is run.
const VARIATIONS: u64 = 150;

#[test]
fn scenarios_keep_every_promise() {
    let mut failures = Vec::new();
    for scenario in SCENARIOS.iter() {
        let report = runner::run_all(0..number("VARIATIONS").unwrap_or(VARIATIONS), |seed| scenario.schedule(seed), None, 10);
        println!("{}: {} acknowledged commits in {} variations", scenario.name, report.acknowledged, report.seeds);
        if let Some((seed, violation)) = report.failures.first() {
            let smaller = shrink::shrink(scenario.schedule(*seed), violation.class, None);
            println!("{seed} in short:\n{}", shrink::text(&smaller));
            failures.extend(report.failures.into_iter().map(|failure| (scenario.name, failure)));
        }
    }
    assert!(failures.is_empty(), "{} variations break a promise: {failures:?}", failures.len());
}

#[test]
fn a_seed_always_tells_the_same_story() {
    for seed in [3, 11, 42] {
        let (first, second) = (runner::run(&Schedule::of(seed), None, false), runner::run(&Schedule::of(seed), None, true));
        assert_eq!((first.hash, first.acknowledged), (second.hash, second.acknowledged), "seed {seed}");
    }
}

#[test]
fn a_schedule_reads_back_what_it_says() {
    for seed in 0..20 {
        let schedule = Schedule::of(seed);
        let read = shrink::parse(&shrink::text(&schedule)).expect("just written");
        assert_eq!(shrink::text(&read), shrink::text(&schedule));
    }
}

/// So many of the planted bugs have to be found, or the world has become blind.
const FOUND: usize = 25;

/// The first schedule that is broken by the bug and not without it, in words.
fn finding(mutation: Mutation, most: u64) -> Option<String> {
    let is_sound = |schedule: &Schedule| runner::run(schedule, None, false).violation.is_none();
    let find = |name: &str, seeds: std::ops::Range<u64>, schedule: &(dyn Fn(u64) -> Schedule + Sync)| {
        let report = runner::run_all(seeds, schedule, Some(mutation), 3);
        let found = report.failures.iter().find(|(seed, _)| is_sound(&schedule(*seed)));
        found.map(|(seed, violation)| format!("{name}, seed {seed}: {:?}", violation.class))
    };
    // What is about an order of events finds it soonest; the random ones are many.
    find("random faults", 0..most.min(100), &Schedule::of)
        .or_else(|| SCENARIOS.iter().find_map(|s| find(s.name, 0..VARIATIONS.min(most), &|seed| s.schedule(seed))))
        .or_else(|| find("random faults", 100..most.max(100), &Schedule::of))
}

#[test]
fn planted_bugs_are_found() {
    let most = number("MUTANTS").unwrap_or(700);
    let mut hidden = Vec::new();
    let chosen = std::env::var("MUTANT").ok();
    for mutation in Mutation::ALL.iter().filter(|m| chosen.as_ref().is_none_or(|name| *name == format!("{m:?}"))) {
        match finding(*mutation, most) {
            Some(found) => println!("{mutation:?}: {found}"),
            None => hidden.push(*mutation),
        }
    }
    println!("not found: {hidden:?}");
    let found = Mutation::ALL.len() - hidden.len();
    assert!(chosen.is_some() || found >= FOUND, "only {found} planted bugs were found");
}
