//! When a request is sent again, and when that ends.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::storage::StoreError;

/// How soon to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pause {
    /// It may have been chance.
    Short,
    /// The server asks for less.
    Long,
}

impl Pause {
    /// Before the second attempt; doubled before each further one.
    fn first(self) -> Duration {
        match self {
            Pause::Short => Duration::from_millis(50),
            Pause::Long => Duration::from_millis(200),
        }
    }
}

/// However often it failed: a server that is back is noticed within this time.
const LONGEST: Duration = Duration::from_secs(4);

/// How long a call may go on from its first failure, and what it has seen until now.
#[derive(Debug)]
pub struct Patience {
    object: String,
    limit: Duration,
    /// When an attempt first failed. What went well until then may have taken long, as a large object does.
    since: Option<Instant>,
    /// Attempts that failed.
    failed: u32,
    /// Of them, those since something last went well.
    in_a_row: u32,
    last: String,
}

impl Patience {
    /// For a call about this object.
    pub fn new(object: String, limit: Duration) -> Patience {
        Patience { object, limit, since: None, failed: 0, in_a_row: 0, last: String::new() }
    }

    /// Part of it went well: what failed before does not count any more.
    pub fn renew(&mut self) {
        (self.since, self.in_a_row) = (None, 0);
    }

    /// Whether an attempt failed, whatever came of the next.
    pub fn had_trouble(&self) -> bool {
        self.failed > 0
    }

    /// An attempt failed, and the next one follows at once.
    pub fn note(&mut self, why: String) {
        self.failed += 1;
        self.last = why;
    }

    /// An attempt failed: returns when it is time for another one.
    ///
    /// # Errors
    /// When there has been time enough.
    pub async fn wait(&mut self, pause: Pause, why: String) -> Result<(), StoreError> {
        self.note(why);
        let spent = self.since.get_or_insert_with(Instant::now).elapsed();
        let Some(left) = self.limit.checked_sub(spent).filter(|left| !left.is_zero()) else { return Err(self.given_up(spent)) };
        let longest = pause.first().saturating_mul(1 << self.in_a_row.min(10)).min(LONGEST);
        self.in_a_row += 1;
        sleep(jittered(longest).min(left)).await;
        Ok(())
    }

    /// It is of no use to go on.
    pub fn refused(&self, why: String) -> StoreError {
        StoreError::Refused { object: self.object.clone(), why }
    }

    fn given_up(&self, spent: Duration) -> StoreError {
        let why = match self.failed {
            1 => self.last.clone(),
            times => format!("{} (asked {times} times in {} s)", self.last, spent.as_secs()),
        };
        StoreError::Unavailable { object: self.object.clone(), why }
    }
}

/// Between half of it and all of it: clients that were turned away together do not come back together.
fn jittered(longest: Duration) -> Duration {
    let chance = getrandom::u32().unwrap_or(u32::MAX / 2);
    longest.mul_f64(0.5 + 0.5 * f64::from(chance) / f64::from(u32::MAX))
}
