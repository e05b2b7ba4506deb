//! Promises that are known not to be kept yet, each with the circumstances in which it breaks. Whatever fails outside of them fails the run,
//! and whatever is kept again is to be struck off here.

use crate::{
    faults::Fault,
    invariants::{Class, Violation},
    schedule::Schedule,
    world::MILLI,
};

/// A weakness that is known.
pub struct Known {
    class: Class,
    when: fn(&Schedule) -> bool,
    /// What happens, in words.
    why: &'static str,
}

fn wiped(schedule: &Schedule) -> bool {
    schedule.faults.iter().any(|(_, fault)| *fault == Fault::Wipe)
}

fn busy_checkpointer(schedule: &Schedule) -> bool {
    schedule.slow_reload > 10 * MILLI
}

/// All of them.
pub const KNOWN: &[Known] = &[
    Known {
        class: Class::AcknowledgedCommitLost,
        when: wiped,
        why: "who may succeed the leader is remembered by running agents only: a store that loses its content while an agent is started \
              again leaves a member that knows of no voters",
    },
    Known {
        class: Class::TimelineChosenTwice,
        when: wiped,
        why: "numbers of timelines that were taken are remembered by running agents only",
    },
    Known { class: Class::StreamsAnotherHistory, when: wiped, why: "follows from a number that was taken twice" },
    Known { class: Class::InitialisedBesideData, when: wiped, why: "that others have data is remembered by running agents only" },
    Known {
        class: Class::QuorumsDoNotMeet,
        when: busy_checkpointer,
        why: "a promotion goes on although the checkpointer was too busy to tell commits that they have to wait",
    },
];

/// What is known of a promise that breaks.
pub fn why(class: Class) -> &'static str {
    KNOWN.iter().find(|known| known.class == class).map_or("", |known| known.why)
}

/// Whether it is known that this schedule breaks this promise.
pub fn is_known(schedule: &Schedule, violation: &Violation) -> bool {
    KNOWN.iter().any(|known| known.class == violation.class && (known.when)(schedule))
}
