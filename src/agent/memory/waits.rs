//! What is not tried again at once.

use std::time::Duration;

use super::Memory;
use crate::{agent::view::Task, sys::clock::Moment};

/// Pause after a task or a start that failed.
pub const RETRY: Duration = Duration::from_secs(1);

impl Memory {
    /// What failed before is tried again without a wait: somebody asks for it.
    pub fn try_at_once(&mut self) {
        (self.retry_at, self.act_again_at, self.begin_again_at) = (None, None, None);
    }

    /// How long to sleep when nothing happens: not past `recheck`, `loop_wait`, or the moment at which what failed may be begun again.
    pub fn pause(&self, recheck: Option<Duration>, loop_wait: Duration, now: Moment) -> Duration {
        let pause = recheck.unwrap_or(loop_wait).min(loop_wait);
        let until_retry =
            [self.retry_at, self.act_again_at, self.begin_again_at].into_iter().flatten().map(|at| at.since(now)).filter(|d| !d.is_zero());
        until_retry.fold(pause, Duration::min)
    }

    /// True while a server should not be started yet, because that or what comes before it has just failed.
    pub fn has_to_wait(&self, now: Moment) -> bool {
        self.retry_at.is_some_and(|at| now < at)
    }

    /// True while such a task should not be begun yet, because one like it has just failed.
    pub fn has_to_wait_for(&self, kind: Task, now: Moment) -> bool {
        if kind.needs_others() { self.has_to_wait(now) } else { self.act_again_at.is_some_and(|at| now < at) }
    }
}
