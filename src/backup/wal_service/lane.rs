//! How much is done at once: so many files, so many bytes of memory, so many compressors.

use std::rc::Rc;

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
}

impl Lanes {
    /// With this many processors for compressing.
    pub fn new(processors: usize) -> Rc<Lanes> {
        Rc::new(Lanes { bytes: Semaphore::new(units(BUDGET) as usize), processors: Semaphore::new(processors.max(1)) })
    }

    /// Waits for the memory that a file of this size takes.
    pub async fn memory(&self, size: u64) -> SemaphorePermit<'_> {
        // The file and what it is packed into, which may be no smaller.
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

/// The level of zstd for a file behind which so many others wait: who is behind packs less well and faster.
pub fn level(waiting: usize) -> i32 {
    match waiting {
        0..=1 => 3,
        2..=15 => 1,
        _ => -3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_that_is_larger_than_the_budget_goes_alone() {
        let lanes = Lanes::new(1);
        let large = lanes.memory(1 << 30).await;
        assert!(tokio::time::timeout(std::time::Duration::from_millis(20), lanes.memory(1)).await.is_err());
        drop(large);
        let eight: Vec<_> = (0..8).map(|_| lanes.bytes.try_acquire_many(units(32 << 20))).collect();
        assert!(eight.iter().all(Result::is_ok), "eight lanes of the usual size fit");
        assert!(lanes.bytes.try_acquire().is_err());
    }
}
