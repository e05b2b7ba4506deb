//! How much is done at once: so many files, so many bytes of memory, so many compressors.

use std::{cell::Cell, rc::Rc};

use tokio::sync::{Semaphore, SemaphorePermit};

/// Files that are on their way to the store at a time.
pub const LANES: usize = 8;

/// Bytes of files that are in memory, as they are and packed. One file that is larger than that goes alone.
const BUDGET: u64 = 256 << 20;

/// What the budget is counted in: a semaphore counts in 32 bits.
const UNIT: u64 = 64 << 10;

/// What files have to share.
pub struct Lanes {
    bytes: Semaphore,
    processors: Semaphore,
    /// Files that are packed and on their way.
    uploads: Cell<usize>,
    /// The level for all files, if somebody said so.
    level: Option<i32>,
}

/// A file that is on its way; it is not when this is gone.
pub struct Upload<'a>(&'a Lanes);

impl Drop for Upload<'_> {
    fn drop(&mut self) {
        self.0.uploads.set(self.0.uploads.get() - 1);
    }
}

impl Lanes {
    /// With this many processors for compressing, always at this level if there is one.
    pub fn new(processors: usize, level: Option<i32>) -> Rc<Lanes> {
        Rc::new(Lanes {
            bytes: Semaphore::new(units(BUDGET) as usize),
            processors: Semaphore::new(processors.max(1)),
            uploads: Cell::new(0),
            level,
        })
    }

    /// Takes note of a file that is on its way.
    pub fn upload(&self) -> Upload<'_> {
        self.uploads.set(self.uploads.get() + 1);
        Upload(self)
    }

    /// The level of zstd for a file behind which so many others wait. Who is behind packs less well and faster, unless what it waits for is the
    /// store: then fewer bytes are the faster ones.
    pub fn level(&self, waiting: usize) -> i32 {
        if let Some(level) = self.level {
            return level;
        }
        let store_is_slow = self.uploads.get() >= LANES / 2;
        match waiting {
            0..=1 => 3,
            _ if store_is_slow => 3,
            2..=15 => 1,
            _ => -7,
        }
    }

    /// Waits for the memory that a file of this size takes.
    pub async fn memory(&self, size: u64) -> SemaphorePermit<'_> {
        // The file and what it is packed into, which may be no smaller. One that is compared with what the archive has takes half as much
        // again for that time; that is rare, and to count it would leave five lanes of eight.
        let wanted = units(size.saturating_mul(2)).clamp(1, units(BUDGET));
        self.bytes.acquire_many(wanted).await.expect("the semaphore is never closed")
    }

    /// Waits for a processor.
    pub async fn processor(&self) -> SemaphorePermit<'_> {
        self.processors.acquire().await.expect("the semaphore is never closed")
    }
}

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_that_is_larger_than_the_budget_goes_alone() {
        let lanes = Lanes::new(1, None);
        let large = lanes.memory(1 << 30).await;
        assert!(tokio::time::timeout(std::time::Duration::from_millis(20), lanes.memory(1)).await.is_err());
        drop(large);
        let eight: Vec<_> = (0..8).map(|_| lanes.bytes.try_acquire_many(units(32 << 20))).collect();
        assert!(eight.iter().all(Result::is_ok), "eight lanes of the usual size fit");
        assert!(lanes.bytes.try_acquire().is_err());
    }

    #[test]
    fn who_is_behind_packs_faster_unless_the_store_is_what_holds_it_up() {
        let lanes = Lanes::new(2, None);
        assert!(lanes.level(0) > lanes.level(8) && lanes.level(8) > lanes.level(100));
        let uploads: Vec<_> = (0..LANES / 2).map(|_| lanes.upload()).collect();
        assert_eq!(lanes.level(100), lanes.level(0));
        drop(uploads);
        assert!(lanes.level(100) < 0);
        let told = Lanes::new(2, Some(9));
        assert_eq!((told.level(0), told.level(100)), (9, 9));
    }
}
