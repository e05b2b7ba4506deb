//! How fast a backup may read, so that the server's users do not notice.

use std::time::{Duration, Instant};

/// A little may be read ahead of time, so that the average is met although every wait is a bit too long.
const AHEAD: Duration = Duration::from_millis(50);

/// Spreads reading over time.
pub struct ReadLimit {
    bytes_per_second: Option<u64>,
    /// When everything that was read up to now should have been.
    due: Option<Instant>,
}

impl ReadLimit {
    /// So fast, or as fast as it goes.
    pub fn new(bytes_per_second: Option<u64>) -> ReadLimit {
        ReadLimit { bytes_per_second, due: None }
    }

    /// How long to wait at `now` before so many bytes are read. Time that passed without reading is not made up for.
    pub fn wait(&mut self, bytes: u64, now: Instant) -> Duration {
        let Some(rate) = self.bytes_per_second else { return Duration::ZERO };
        let begin = self.due.map_or(now, |due| due.max(now.checked_sub(AHEAD).unwrap_or(now)));
        let takes = Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
        self.due = Some(begin + takes);
        begin.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_is_spread_over_time() {
        let (mut limit, begin) = (ReadLimit::new(Some(1_000_000)), Instant::now());
        let mut now = begin;
        for _ in 0..100 {
            now += limit.wait(50_000, now);
        }
        let took = now - begin;
        assert!((4_800..=5_000).contains(&took.as_millis()), "{took:?}");
        now += Duration::from_secs(60);
        assert_eq!(limit.wait(50_000, now), Duration::ZERO);
        assert!(limit.wait(50_000, now) <= Duration::from_millis(50) && limit.wait(1, now) > Duration::ZERO, "a pause is not made up for");
    }

    #[test]
    fn without_a_limit_nobody_waits() {
        let mut limit = ReadLimit::new(None);
        assert_eq!(limit.wait(u64::MAX, Instant::now()), Duration::ZERO);
    }
}
