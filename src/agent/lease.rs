//! How long a leader may believe that it leads.

use std::time::Duration;

use crate::sys::clock::Moment;

/// The part of a lease that is not used: it covers the time from the guard's decision to the last backend's end, and a clock that runs
/// slower than the store's.
pub fn margin(ttl: Duration) -> Duration {
    (ttl / 10).clamp(Duration::from_millis(300), Duration::from_secs(3))
}

/// Least time that one operation of the DCS gets, however little of the lease is left.
const LEAST_BUDGET: Duration = Duration::from_millis(300);

/// How long one operation of the DCS may take: `retry_timeout`, but never so long that the lease would end meanwhile without our acting on it.
pub fn budget(retry_timeout: Duration, lease_until: Option<Moment>, now: Moment) -> Duration {
    lease_until.map_or(retry_timeout, |until| retry_timeout.min(until.since(now + LEAST_BUDGET)).max(LEAST_BUDGET))
}

/// When a lease ends whose renewal was *sent* at `sent` and confirmed later. The store cannot have begun to count before that moment, so
/// it cannot end the lease before `sent + ttl`; counting from the answer would add its travelling time to what we believe we have.
pub fn deadline(sent: Moment, ttl: Duration) -> Moment {
    sent + ttl.saturating_sub(margin(ttl))
}

/// What the guard is to be told: `Some(Some(deadline))` to stop the server then, `Some(None)` that there is nothing to stop. `None`: nothing,
/// because without a lease the guard keeps the deadline it has; only a renewal moves it.
pub fn guarding(writes: bool, lease_until: Option<Moment>) -> Option<Option<Moment>> {
    match (writes, lease_until) {
        (true, None) => None,
        (true, until) => Some(until),
        (false, _) => Some(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_of_the_store_ends_before_the_lease() {
        let (second, now) = (Duration::from_secs(1), Moment(7_000_000_000));
        assert_eq!(budget(10 * second, None, now), 10 * second);
        assert_eq!(budget(10 * second, Some(now + 3 * second), now), 3 * second - LEAST_BUDGET);
        assert_eq!(budget(10 * second, Some(now), now), LEAST_BUDGET);
    }

    #[test]
    fn the_deadline_comes_before_the_store_lets_go() {
        for seconds in [3, 5, 10, 30, 300] {
            let ttl = Duration::from_secs(seconds);
            let sent = Moment(5_000_000_000);
            assert!(deadline(sent, ttl) < sent + ttl);
            assert!(deadline(sent, ttl) > sent + ttl / 2);
        }
    }
}
