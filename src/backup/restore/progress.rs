//! How far a restore has come.

use crate::backup::progress;

/// What a restore is at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Phase {
    /// It looks for a backup and the WAL that it needs.
    #[default]
    Preparing,
    /// It removes what does not belong there.
    Sweeping,
    /// It looks at what is there, and fetches what is not.
    Writing,
    /// It waits for the disk, and makes the directory one that can be started.
    Finishing,
}

/// A restore's: `spared` is what was in its place before.
pub type Progress = progress::Progress<Phase>;

/// Its counts at a moment.
pub type Seen = progress::Seen<Phase>;
