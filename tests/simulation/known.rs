//! Promises that are known not to be kept yet, each with the circumstances in which it breaks. Whatever fails outside of them fails the run,
//! and whatever is kept again is to be struck off here.

use crate::{
    invariants::{Class, Violation},
    schedule::Schedule,
};

/// A weakness that is known.
pub struct Known {
    class: Class,
    when: fn(&Schedule) -> bool,
    /// What happens, in words.
    why: &'static str,
}

/// All of them.
pub const KNOWN: &[Known] = &[];

/// What is known of a promise that breaks.
pub fn why(class: Class) -> &'static str {
    KNOWN.iter().find(|known| known.class == class).map_or("", |known| known.why)
}

/// Whether it is known that this schedule breaks this promise.
pub fn is_known(schedule: &Schedule, violation: &Violation) -> bool {
    KNOWN.iter().any(|known| known.class == violation.class && (known.when)(schedule))
}
