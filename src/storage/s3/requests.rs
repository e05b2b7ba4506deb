//! How many requests were sent, by verb: what S3 is paid by, and what a benchmark compares.

use std::sync::atomic::{AtomicU64, Ordering};

/// What is asked of S3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// PutObject.
    Put,
    /// GetObject.
    Get,
    /// HeadObject.
    Head,
    /// ListObjectsV2.
    List,
    /// DeleteObject.
    Delete,
}

/// How many requests of each verb were sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Requests {
    /// PutObject.
    pub put: u64,
    /// GetObject.
    pub get: u64,
    /// HeadObject.
    pub head: u64,
    /// ListObjectsV2.
    pub list: u64,
    /// DeleteObject.
    pub delete: u64,
}

impl Requests {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.put + self.get + self.head + self.list + self.delete
    }
}

/// Counts them.
#[derive(Debug, Default)]
pub struct Counters([AtomicU64; 5]);

impl Counters {
    pub fn count(&self, verb: Verb) {
        self.0[verb as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub fn read(&self) -> Requests {
        let [put, get, head, list, delete] = [0, 1, 2, 3, 4].map(|verb: usize| self.0[verb].load(Ordering::Relaxed));
        Requests { put, get, head, list, delete }
    }
}
