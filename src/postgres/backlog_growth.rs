//! How fast WAL that waits for being archived grows.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::model::DiskForecast;

/// Over this time the growth is measured.
const SPAN: Duration = Duration::from_secs(600);

/// What was seen for less says nothing of a rate: one segment more or less is 16 MB.
const SHORTEST: Duration = Duration::from_secs(30);

/// How many bytes waited, and when, since nothing did.
#[derive(Debug, Clone, Default)]
pub struct BacklogGrowth(VecDeque<(Instant, u64)>);

impl BacklogGrowth {
    /// So much waits now.
    pub fn sample(&mut self, now: Instant, bytes: u64) {
        if bytes == 0 {
            // Whoever has caught up begins anew: what comes then is no growth of what was before.
            self.0.clear();
        }
        self.0.push_back((now, bytes));
        while self.0.front().is_some_and(|(at, _)| now.duration_since(*at) > SPAN) {
            self.0.pop_front();
        }
    }

    /// Bytes a second by which it grows; `None`: it does not, or nobody knows yet.
    pub fn rate(&self) -> Option<u64> {
        let ((first, before), (last, now)) = (self.0.front()?, self.0.back()?);
        let seen = Some(last.duration_since(*first)).filter(|seen| *seen >= SHORTEST)?;
        let growth = now.checked_sub(*before).filter(|growth| *growth > 0)?;
        Some((growth as f64 / seen.as_secs_f64()).ceil() as u64)
    }

    /// How long the free room lasts at that rate.
    pub fn forecast(&self, free_bytes: Option<u64>) -> Option<DiskForecast> {
        DiskForecast::of(free_bytes?, self.rate()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: u64 = 16 << 20;

    /// What waits at these seconds, in segments.
    fn growth(samples: &[(u64, u64)]) -> BacklogGrowth {
        let (begin, mut growth) = (Instant::now(), BacklogGrowth::default());
        samples.iter().for_each(|(second, segments)| growth.sample(begin + Duration::from_secs(*second), segments * SEGMENT));
        growth
    }

    #[test]
    fn a_backlog_that_grows_fills_the_disk_at_its_rate() {
        let growth = growth(&[(0, 0), (16, 1), (32, 2), (64, 4)]);
        assert_eq!(growth.rate(), Some(1 << 20));
        assert_eq!(growth.forecast(Some(3600 << 20)).unwrap().seconds_until_full, 3600);
        assert_eq!(growth.forecast(None), None, "how much is free is not known");
    }

    #[test]
    fn nothing_is_foretold_of_what_shrinks_stands_still_or_was_only_just_seen() {
        for samples in [&[][..], &[(0, 7)], &[(0, 7), (60, 7)], &[(0, 7), (60, 3)], &[(0, 0), (60, 0)], &[(0, 0), (20, 3)]] {
            assert_eq!(growth(samples).rate(), None, "{samples:?}");
        }
    }

    #[test]
    fn whoever_has_caught_up_begins_anew() {
        assert_eq!(growth(&[(0, 1), (60, 50), (120, 0), (140, 3)]).rate(), None);
        assert_eq!(growth(&[(0, 1), (60, 50), (120, 0), (184, 4)]).rate(), Some(1 << 20));
    }

    #[test]
    fn what_was_long_ago_does_not_count() {
        assert_eq!(growth(&[(0, 1), (100, 2), (700, 39)]).rate(), growth(&[(0, 2), (600, 39)]).rate());
    }
}
