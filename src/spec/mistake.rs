//! What is wrong with a spec: every mistake at once, each with its place.

use std::fmt;

use serde::Serialize;

/// Who wrote something: that decides whether it may name commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Somebody over the network: whoever may change the configuration may not run commands on every member.
    Network,
    /// Whoever owns a member's configuration file.
    File,
}

/// One mistake: where, what stands there, what would be possible.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mistake {
    /// Dotted path of the key, such as `postgres.parameters.max_connections`.
    pub path: String,
    /// What stands there, as JSON; absent for a key that is missing or unknown.
    pub value: Option<String>,
    /// What is wrong and what is allowed.
    pub problem: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "'{}: {value}': {}", self.path, self.problem),
            None => write!(f, "'{}': {}", self.path, self.problem),
        }
    }
}

/// A spec with at least one mistake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
pub struct InvalidSpec {
    /// All of them, in the order of the file.
    pub mistakes: Vec<Mistake>,
}

impl fmt::Display for InvalidSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mistakes.as_slice() {
            [only] => write!(f, "the spec has a mistake: {only}"),
            many => {
                write!(f, "the spec has {} mistakes:", many.len())?;
                many.iter().try_for_each(|mistake| write!(f, "\n  {mistake}"))
            }
        }
    }
}
