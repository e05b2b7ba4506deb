//! How far a restore has come, for whoever looks on from another thread.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

/// What a restore is at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Phase {
    /// It looks for a backup and the WAL that it needs.
    #[default]
    Preparing,
    /// It looks at what is there, and fetches what is not.
    Writing,
    /// It waits for the disk, and makes the directory one that can be started.
    Finishing,
}

/// Counts that only grow.
#[derive(Debug, Default)]
pub struct Progress {
    phase: Mutex<Phase>,
    total: AtomicU64,
    done: AtomicU64,
    kept: AtomicU64,
    fetched: AtomicU64,
    files: AtomicU64,
}

/// The counts at a moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// What it is at.
    pub phase: Phase,
    /// Bytes of all files.
    pub total: u64,
    /// Bytes of files that are in their place.
    pub done: u64,
    /// Those of them that were there before.
    pub kept: u64,
    /// Bytes that were read from the store.
    pub fetched: u64,
    /// Files that are whole.
    pub files: u64,
}

impl Progress {
    /// What has been done so far.
    pub fn seen(&self) -> Seen {
        let [total, done, kept, fetched, files] =
            [&self.total, &self.done, &self.kept, &self.fetched, &self.files].map(|count| count.load(Ordering::Relaxed));
        Seen { phase: *self.phase.lock().unwrap_or_else(PoisonError::into_inner), total, done, kept, fetched, files }
    }

    pub(super) fn enter(&self, phase: Phase) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
    }

    pub(super) fn expect(&self, bytes: u64) {
        self.total.store(bytes, Ordering::Relaxed);
    }

    /// So many bytes are in their place.
    pub(super) fn has(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// So many of them were there before.
    pub(super) fn has_kept(&self, bytes: u64) {
        self.kept.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn has_fetched(&self, bytes: u64) {
        self.fetched.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn has_files(&self, count: u64) {
        self.files.fetch_add(count, Ordering::Relaxed);
    }
}
