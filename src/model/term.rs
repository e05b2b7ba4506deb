//! Terms: how often somebody has taken the leader key.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The number of a term: it grows with each claim of the leader key, and nothing else changes it. 0: nobody has led yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Term(pub u64);

impl Term {
    /// The term that a claim begins after this one.
    pub fn next(self) -> Term {
        Term(self.0.saturating_add(1))
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
