//! When a disk is full of WAL that nobody archives.

use std::fmt;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use super::length_in_words;

/// How long the disk lasts if what waits for being archived goes on growing as it does. There is one only while it grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DiskForecast {
    /// What is free on the disk that WAL lies on.
    pub free_bytes: u64,
    /// How fast what waits grows.
    pub bytes_per_second: u64,
    /// How long that lasts.
    pub seconds_until_full: u64,
}

impl DiskForecast {
    /// The forecast; `None`: nothing grows.
    pub fn of(free_bytes: u64, bytes_per_second: u64) -> Option<DiskForecast> {
        let seconds_until_full = free_bytes.checked_div(bytes_per_second)?;
        Some(DiskForecast { free_bytes, bytes_per_second, seconds_until_full })
    }
}

impl fmt::Display for DiskForecast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = SignedDuration::from_secs(i64::try_from(self.seconds_until_full).unwrap_or(i64::MAX));
        write!(f, "at this rate the disk is full in {}", length_in_words(length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_grow_fills_no_disk() {
        assert_eq!(DiskForecast::of(1 << 40, 0), None);
        let forecast = DiskForecast::of(10 << 30, 1 << 20).unwrap();
        assert_eq!((forecast.seconds_until_full, forecast.to_string().as_str()), (10_240, "at this rate the disk is full in 2 h"));
        assert_eq!(DiskForecast::of(0, 1).unwrap().to_string(), "at this rate the disk is full in 0 s");
    }
}
