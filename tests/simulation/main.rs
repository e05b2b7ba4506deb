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
mod schedule;
mod shrink;
mod signals;
mod tasks;
mod wal;
mod world;

use std::collections::BTreeMap;

use crate::{runner::Report, schedule::Schedule};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// The one schedule that was asked for: by its number, or as a file that shrinking has left.
fn chosen() -> Option<Schedule> {
    if let Ok(path) = std::env::var("SCHEDULE") {
        let text = std::fs::read_to_string(&path).expect("SCHEDULE names a file");
        return Some(shrink::parse(&text).expect("SCHEDULE is a schedule"));
    }
    number("SEED").map(Schedule::of)
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
    let outcome = runner::run(&schedule, None, true);
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
        failures.extend(runner::run_many(seed..seed + 1, None, 1).failures);
    }
    let report = runner::run_many(from..from + seeds, None, 100);
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
    let missing = report.counters.missing();
    assert!(seeds < LONG || missing.is_empty(), "this never occurred: {missing:?}");
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
const FOUND: usize = 20;

#[test]
fn planted_bugs_are_found() {
    let most = number("MUTANTS").unwrap_or(700);
    let mut hidden = Vec::new();
    let chosen = std::env::var("MUTANT").ok();
    for mutation in mutations::Mutation::ALL.iter().filter(|m| chosen.as_ref().is_none_or(|name| *name == format!("{m:?}"))) {
        let report = runner::run_many(0..most, Some(*mutation), 10);
        // What breaks without the bug too has not found it.
        let is_sound = |seed: u64| runner::run(&Schedule::of(seed), None, false).violation.is_none();
        match report.failures.iter().find(|(seed, _)| is_sound(*seed)) {
            Some((seed, violation)) => println!("{mutation:?}: found with seed {seed} as {:?}", violation.class),
            None => hidden.push(*mutation),
        }
    }
    println!("not found within {most} schedules: {hidden:?}");
    let found = mutations::Mutation::ALL.len() - hidden.len();
    assert!(chosen.is_some() || found >= FOUND, "only {found} planted bugs were found");
}
