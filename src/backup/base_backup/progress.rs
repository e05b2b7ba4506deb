//! How far a backup has come, for whoever looks on from another thread.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

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

/// Counts that only grow.
#[derive(Debug, Default)]
pub struct Progress {
    phase: Mutex<Phase>,
    /// Bytes of all files, as estimated at the beginning.
    total: AtomicU64,
    /// Bytes that were read.
    read: AtomicU64,
    /// Bytes that went into packs.
    stored: AtomicU64,
    /// Bytes of content that the store had already.
    reused: AtomicU64,
    /// Files that were read.
    files: AtomicU64,
}

/// The counts at a moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// What it is at.
    pub phase: Phase,
    /// Bytes of all files, as estimated at the beginning.
    pub total: u64,
    /// Bytes that were read.
    pub read: u64,
    /// Bytes that went into packs.
    pub stored: u64,
    /// Bytes of content that the store had already.
    pub reused: u64,
    /// Files that were read.
    pub files: u64,
}

impl Progress {
    /// What has been done so far.
    pub fn seen(&self) -> Seen {
        let [total, read, stored, reused, files] =
            [&self.total, &self.read, &self.stored, &self.reused, &self.files].map(|count| count.load(Ordering::Relaxed));
        Seen { phase: *self.phase.lock().unwrap_or_else(PoisonError::into_inner), total, read, stored, reused, files }
    }

    pub(super) fn enter(&self, phase: Phase) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
    }

    pub(super) fn expect(&self, bytes: u64) {
        self.total.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn has_read(&self, bytes: u64) {
        self.read.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn has_stored(&self, bytes: u64) {
        self.stored.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn has_reused(&self, bytes: u64) {
        self.reused.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn has_a_file(&self) {
        self.files.fetch_add(1, Ordering::Relaxed);
    }
}
