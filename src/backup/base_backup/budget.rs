//! The memory that a backup may use for data: taken before anything is read, given back when it is in the store or needs not go there.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Bytes that may be in memory at the same time.
#[derive(Clone)]
pub struct Budget(Arc<Shared>);

struct Shared {
    free: Mutex<Free>,
    changed: Condvar,
}

struct Free {
    bytes: u64,
    closed: bool,
}

/// Bytes that were taken. Dropped, they are given back.
pub struct Held {
    budget: Budget,
    bytes: u64,
}

impl Budget {
    /// So many bytes.
    pub fn new(bytes: u64) -> Budget {
        Budget(Arc::new(Shared { free: Mutex::new(Free { bytes, closed: false }), changed: Condvar::new() }))
    }

    /// Waits until so many are free and takes them; `None` when the work is over. Whoever asks for more than there are waits for ever.
    pub fn take(&self, bytes: u64) -> Option<Held> {
        let mut free = self.lock();
        while free.bytes < bytes && !free.closed {
            free = self.0.changed.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        if free.closed {
            return None;
        }
        free.bytes -= bytes;
        Some(Held { budget: self.clone(), bytes })
    }

    /// The work is over: whoever waits does so no more.
    pub fn close(&self) {
        self.lock().closed = true;
        self.0.changed.notify_all();
    }

    /// Whether the work is over.
    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    fn give(&self, bytes: u64) {
        self.lock().bytes += bytes;
        self.0.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Free> {
        // Nothing is left half done under the lock.
        self.0.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Keeps only so many.
    pub fn shrink(&mut self, bytes: u64) {
        let given = self.bytes.saturating_sub(bytes);
        self.bytes -= given;
        self.budget.give(given);
    }

    /// Takes over what another holds.
    pub fn absorb(&mut self, mut other: Held) {
        self.bytes += std::mem::take(&mut other.bytes);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.budget.give(self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_gets_what_another_holds() {
        let budget = Budget::new(100);
        let mut first = budget.take(60).unwrap();
        let waiting = std::thread::spawn({
            let budget = budget.clone();
            move || budget.take(60).is_some()
        });
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(!waiting.is_finished());
        first.shrink(40);
        assert!(waiting.join().unwrap());
        let second = budget.take(60).unwrap();
        first.absorb(second);
        drop(first);
        assert!(budget.take(100).is_some());
    }

    #[test]
    fn the_end_of_the_work_ends_the_waiting() {
        let budget = Budget::new(10);
        let _held = budget.take(10).unwrap();
        let waiting = std::thread::spawn({
            let budget = budget.clone();
            move || budget.take(1).is_none()
        });
        std::thread::sleep(std::time::Duration::from_millis(20));
        budget.close();
        assert!(waiting.join().unwrap());
        assert!(budget.take(0).is_none() && budget.is_closed());
    }
}
