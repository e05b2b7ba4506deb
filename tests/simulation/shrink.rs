//! Makes a failing schedule as small as it goes: fewer faults, then fewer members, then less time.

use crate::{invariants::Class, mutations::Mutation, runner::run, schedule::Schedule};

/// Runs that a shrinking may take.
const RUNS: usize = 600;

struct Shrinker {
    class: Class,
    mutation: Option<Mutation>,
    runs: usize,
}

impl Shrinker {
    fn still_fails(&mut self, schedule: &Schedule) -> bool {
        self.runs += 1;
        self.runs <= RUNS && run(schedule, self.mutation, false).violation.is_some_and(|v| v.class == self.class)
    }

    fn drop_faults(&mut self, mut schedule: Schedule) -> Schedule {
        let mut size = schedule.faults.len().div_ceil(2).max(1);
        loop {
            let mut from = 0;
            while from < schedule.faults.len() {
                let mut fewer = schedule.clone();
                fewer.faults.drain(from..(from + size).min(schedule.faults.len()));
                if self.still_fails(&fewer) {
                    schedule = fewer;
                } else {
                    from += size;
                }
            }
            if size == 1 {
                return schedule;
            }
            size = size.div_ceil(2);
        }
    }

    fn drop_members(&mut self, mut schedule: Schedule) -> Schedule {
        while schedule.members > 2 {
            let fewer = Schedule { members: schedule.members - 1, ..schedule.clone() };
            if !self.still_fails(&fewer) {
                break;
            }
            schedule = fewer;
        }
        schedule
    }

    fn drop_time(&mut self, mut schedule: Schedule) -> Schedule {
        let last = schedule.faults.last().map_or(0, |(at, _)| *at);
        for heal in [last + 500, last + 3_000, last + 8_000] {
            let shorter = Schedule { heal, ..schedule.clone() };
            if heal < schedule.heal && self.still_fails(&shorter) {
                schedule = shorter;
                break;
            }
        }
        schedule
    }
}

/// The smallest schedule found that breaks the same promise.
pub fn shrink(schedule: Schedule, class: Class, mutation: Option<Mutation>) -> Schedule {
    let mut shrinker = Shrinker { class, mutation, runs: 0 };
    let fewer_faults = shrinker.drop_faults(schedule);
    let fewer_members = shrinker.drop_members(fewer_faults);
    let shorter = shrinker.drop_time(fewer_members);
    shrinker.drop_faults(shorter)
}

/// A schedule as text: what it is, then one fault a line.
pub fn text(schedule: &Schedule) -> String {
    let head = Schedule { faults: Vec::new(), ..schedule.clone() };
    let faults: Vec<String> = schedule.faults.iter().map(line).collect();
    std::iter::once(line(&head)).chain(faults).collect::<Vec<_>>().join("\n")
}

/// The schedule that [`text`] wrote.
pub fn parse(text: &str) -> Option<Schedule> {
    let mut lines = text.lines().filter(|l| !l.trim().is_empty() && !l.starts_with('#'));
    let mut schedule: Schedule = serde_json::from_str(lines.next()?).ok()?;
    schedule.faults = lines.map(serde_json::from_str).collect::<Result<_, _>>().ok()?;
    Some(schedule)
}

fn line<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("plain data")
}
