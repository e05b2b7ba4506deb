//! Starts of the server: those that failed, crashes, and what a server is brought up for.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Memory, waits::RETRY};
use crate::sys::clock::Moment;

/// The longest pause after a start that failed, in units of [`RETRY`].
const SLOWEST: u32 = 10;

/// A server that ran this long was started well.
pub const SETTLED: Duration = Duration::from_secs(10);

/// A server is brought up because somebody asked for it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BringingUp {
    /// Start time of the server that ran before; `None`: there was none.
    pub before: Option<String>,
    /// How long it may take; `None`: as long as `primary_start_timeout`.
    pub patience: Option<Duration>,
}

impl Memory {
    /// The server is stopped by this agent or its guard, so it is this agent's to start again, in a paused cluster too.
    pub fn stopped_by_us(&mut self, before: Option<String>) {
        self.bringing_up.get_or_insert(BringingUp { before, patience: None });
    }

    /// The server has ended, and nobody had asked it to.
    pub fn server_crashed(&mut self, now: Moment) {
        if std::mem::take(&mut self.primary_ran) {
            self.crashed_at = Some(now);
        }
    }

    /// After the crash of a primary the leader key is about to be given up, for a standby to take over.
    pub fn leaves_to_successor(&mut self, now: Moment) {
        self.left_at = Some(now);
    }

    /// After its crash this member has left the lead to others, or may have: the request to the DCS may be on its way still.
    pub fn has_left(&self) -> bool {
        self.crashed_at.is_some_and(|crashed| self.left_at.is_some_and(|left| left >= crashed))
    }

    /// The server could not be started, or ended a moment after; the next attempt comes a little later. `answered`: it had begun to work, so
    /// that the first time there is nothing to wait for.
    pub fn start_failed(&mut self, answered: bool, now: Moment) {
        self.failed_starts = self.failed_starts.saturating_add(1);
        self.ready_behind = None;
        self.recovery_failed = self.crashed_at.is_some() && !answered;
        if answered {
            // Parameters and libraries were fine.
            self.looked_into = self.failed_starts;
        }
        // What fails again and again is tried less often.
        let pauses = self.failed_starts.saturating_sub(1).clamp(u32::from(!answered), SLOWEST);
        self.retry_at = Some(now + RETRY * pauses);
    }

    /// True when a failed start has not been looked into yet.
    pub fn has_to_look_into_start(&self) -> bool {
        self.failed_starts > 0 && self.looked_into != self.failed_starts
    }

    /// A failed start was looked into.
    pub fn start_looked_into(&mut self, fault: Option<String>) {
        let was_wrong = self.start_fault.is_some() && fault.is_none();
        self.looked_into = self.failed_starts;
        self.start_fault = fault;
        if was_wrong {
            self.trouble_is_over();
        }
    }

    /// Starts that failed for another reason say nothing of the data.
    pub(super) fn trouble_is_over(&mut self) {
        self.failed_starts = 0;
        self.looked_into = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment(10_000_000_000_000);

    #[test]
    fn the_first_crash_soon_after_a_start_is_no_reason_to_wait() {
        let waits = |answered: bool, times: u32| {
            let mut memory = Memory::default();
            (0..times).for_each(|_| memory.start_failed(answered, NOW));
            memory.retry_at.unwrap().since(NOW).as_secs()
        };
        assert_eq!([1, 2, 3, 99].map(|times| waits(true, times)), [0, 1, 2, 10]);
        assert_eq!([1, 2, 3, 99].map(|times| waits(false, times)), [1, 1, 2, 10]);
        let mut memory = Memory::default();
        memory.start_failed(true, NOW);
        assert!(!memory.has_to_look_into_start(), "nor to look for a reason why it would not start");
        memory.start_failed(false, NOW);
        assert!(memory.has_to_look_into_start());
    }
}
