//! How far a backup or a restore has come, for whoever looks on from another thread.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

/// Counts that only grow, and the phase that it is in.
#[derive(Debug, Default)]
pub struct Progress<P> {
    phase: Mutex<P>,
    total: AtomicU64,
    done: AtomicU64,
    spared: AtomicU64,
    moved: AtomicU64,
    files: AtomicU64,
}

/// The counts at a moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen<P> {
    /// What it is at.
    pub phase: P,
    /// Bytes of all files, or about so many.
    pub total: u64,
    /// Bytes of files that are dealt with.
    pub done: u64,
    /// Bytes of content that did not have to be moved, because they were where they go.
    pub spared: u64,
    /// Bytes that went into the store, or came out of it.
    pub moved: u64,
    /// Files that are dealt with.
    pub files: u64,
}

impl<P: Copy> Progress<P> {
    /// What has been done so far.
    pub fn seen(&self) -> Seen<P> {
        let [total, done, spared, moved, files] =
            [&self.total, &self.done, &self.spared, &self.moved, &self.files].map(|count| count.load(Ordering::Relaxed));
        Seen { phase: *self.phase.lock().unwrap_or_else(PoisonError::into_inner), total, done, spared, moved, files }
    }

    pub(super) fn enter(&self, phase: P) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
    }

    pub(super) fn expect(&self, bytes: u64) {
        self.total.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn has_done(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn has_spared(&self, bytes: u64) {
        self.spared.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn has_moved(&self, bytes: u64) {
        self.moved.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn has_files(&self, count: u64) {
        self.files.fetch_add(count, Ordering::Relaxed);
    }
}
