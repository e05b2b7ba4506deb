//! PostgreSQL's system identifier: which database cluster a data directory belongs to.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The number that initdb gives a database cluster; every physical copy carries the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SystemId(pub u64);

impl fmt::Display for SystemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The text is not a system identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a system identifier (a decimal number of at least ten digits)")]
pub struct InvalidSystemId(String);

impl FromStr for SystemId {
    type Err = InvalidSystemId;

    /// At least ten characters, all digits: the rule by which Patroni tells an identifier from a bootstrap in progress.
    fn from_str(text: &str) -> Result<SystemId, InvalidSystemId> {
        let plausible = text.len() >= 10 && text.bytes().all(|b| b.is_ascii_digit());
        let number = if plausible { text.parse().ok() } else { None };
        number.map(SystemId).ok_or_else(|| InvalidSystemId(text.to_owned()))
    }
}
