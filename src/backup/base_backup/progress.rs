//! How far a backup has come.

use crate::backup::progress;

/// What a backup is at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Phase {
    /// It looks for what is there already.
    #[default]
    Preparing,
    /// The server writes a checkpoint, from which recovery is to begin.
    Checkpoint,
    /// Files are read and stored.
    Reading,
    /// The last WAL is on its way into the archive.
    WaitingForWal,
    /// The manifest is written.
    Finishing,
}

/// A backup's: `spared` is content that the store had already.
pub type Progress = progress::Progress<Phase>;

/// Its counts at a moment.
pub type Seen = progress::Seen<Phase>;
