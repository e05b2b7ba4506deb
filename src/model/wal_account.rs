//! What the WAL service of a node has done, in numbers, and what it could not do because the archive has something else.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What a WAL service has done since it was started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WalAccount {
    /// Files that are in the archive by its doing, or that it found there.
    pub archived: u64,
    /// Bytes that were sent for them, packed.
    pub stored_bytes: u64,
    /// Attempts to archive a file that failed.
    pub failures: u64,
    /// Files that came from the archive, those that were fetched ahead and never asked for among them.
    pub fetched: u64,
    /// How large they are, unpacked.
    pub fetched_bytes: u64,
    /// How many files wait for being archived of which the archive has another content.
    pub conflicting: u64,
    /// The first of these.
    pub conflicts: Vec<WalConflict>,
    /// Why the last attempt to archive something failed, if it did.
    pub failing: Option<WalFailure>,
}

/// Why nothing gets into the archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalFailure {
    /// Since when nothing does.
    pub since: Timestamp,
    /// What the last attempt failed with.
    pub why: String,
    /// It does not pass by itself: the store refuses, or a key does not fit.
    pub refused: bool,
}

/// A WAL file that cannot be archived, because the archive has another content under its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalConflict {
    /// The file.
    pub file: String,
    /// Since when that is known.
    pub since: Timestamp,
    /// The object that this content was kept as.
    pub aside: String,
}
