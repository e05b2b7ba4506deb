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

/// When the first round of promises begins whose proof would replace that of `proved`, the last renewal: later than a renewal that is only
/// a little late, and so early that a second round can follow. An agent that was started again does not know when that was, and asks the
/// store first.
pub fn first_round(proved: Option<Moment>, now: Moment, ttl: Duration, loop_wait: Duration) -> Moment {
    match proved {
        Some(sent) => sent + loop_wait.min(ttl / 2) + ttl.saturating_sub(loop_wait) / 4,
        None => now + ttl / 20,
    }
}

/// How long after a round has begun that succeeded the next one begins.
pub fn round_cadence(ttl: Duration) -> Duration {
    ttl / 4
}

/// How long a round waits for answers.
pub fn round_limit(ttl: Duration) -> Duration {
    ttl / 4
}

/// How long after a round that failed the next one begins.
pub fn round_pause(ttl: Duration) -> Duration {
    ttl / 40
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
    fn a_round_that_fails_leaves_time_for_another() {
        for (ttl, loop_wait) in [(3, 1), (5, 1), (10, 2), (30, 10), (30, 28)] {
            let (ttl, loop_wait, sent) = (Duration::from_secs(ttl), Duration::from_secs(loop_wait), Moment(5_000_000_000));
            let first = first_round(Some(sent), sent, ttl, loop_wait);
            let second = first + round_limit(ttl) + round_pause(ttl);
            assert!(second < deadline(sent, ttl), "{ttl:?}");
            let next = sent + round_cadence(ttl) + round_limit(ttl) + round_pause(ttl);
            assert!(next + round_limit(ttl) < deadline(sent, ttl), "and two rounds when it is rounds that are renewed, {ttl:?}");
        }
    }

    #[test]
    fn a_renewal_that_is_in_time_needs_no_round() {
        for (ttl, loop_wait) in [(3, 1), (5, 1), (10, 2), (30, 10)] {
            let (ttl, loop_wait, sent) = (Duration::from_secs(ttl), Duration::from_secs(loop_wait), Moment(5_000_000_000));
            assert!(first_round(Some(sent), sent, ttl, loop_wait) >= sent + loop_wait + Duration::from_millis(500), "{ttl:?}");
        }
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
