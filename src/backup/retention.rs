//! Which base backups may go. Pure: what is known and the time in, a verdict for each backup out.

use std::{collections::BTreeSet, fmt};

use jiff::{SignedDuration, Timestamp};

use super::{BackupId, manifest::Moment};

/// What has been promised to the users of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// So many of the newest backups are kept, at least one.
    pub keep: usize,
    /// Every moment of so long ago until now can be gone back to.
    pub window: Option<SignedDuration>,
}

impl Default for Policy {
    /// A week of moments, and never fewer than two backups.
    fn default() -> Policy {
        Policy { keep: 2, window: Some(SignedDuration::from_hours(7 * 24)) }
    }
}

/// What is known of a complete backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Its name.
    pub id: BackupId,
    /// Where recovery from it begins.
    pub start: Moment,
    /// From where on it is consistent.
    pub stop: Moment,
    /// Somebody wants it kept.
    pub pinned: bool,
    /// When all of it was last seen to be whole.
    pub proven: Option<Timestamp>,
    /// A later look has found it damaged, or WAL that it needs is missing.
    pub broken: bool,
    /// Since when it is to go.
    pub condemned: Option<Timestamp>,
}

/// What is to become of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It stays.
    Keep(Why),
    /// It may go.
    Expire,
}

/// Why a backup stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It is one of so many of the newest that were promised.
    Newest,
    /// A moment of the window is reached from it.
    Window,
    /// It is pinned.
    Pinned,
    /// No newer backup has been proven to be whole.
    NothingNewerIsProven,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Why::Newest => "one of the newest that are kept",
            Why::Window => "needed for the window of time",
            Why::Pinned => "pinned",
            Why::NothingNewerIsProven => "no newer backup has been verified",
        })
    }
}

/// Judges every backup, in the order of `catalog`. Backups are ordered by when they were complete, never by their names or timelines: those
/// of a cluster that went back in time have lower positions than older ones.
///
/// A broken backup is no point to go back to: it neither counts towards a promise nor is it kept by one. One that is to go is judged like any
/// other: as long as it has its manifest all of it is there, and it may be needed again, because of what has happened to newer ones.
pub fn judge(catalog: &[Known], policy: Policy, now: Timestamp) -> Vec<Verdict> {
    let mut good: Vec<&Known> = catalog.iter().filter(|backup| !backup.broken).collect();
    good.sort_by(|a, b| (b.stop.time, &b.id).cmp(&(a.stop.time, &a.id)));
    let newest: BTreeSet<&BackupId> = good.iter().take(policy.keep.max(1)).map(|backup| &backup.id).collect();
    let window = policy.window.map(|length| in_window(&good, length, now)).unwrap_or_default();
    let proven = good.iter().find(|backup| backup.proven.is_some()).map(|backup| backup.stop.time);
    let verdict = |backup: &Known| {
        if backup.pinned {
            Verdict::Keep(Why::Pinned)
        } else if newest.contains(&backup.id) {
            Verdict::Keep(Why::Newest)
        } else if window.contains(&backup.id) {
            Verdict::Keep(Why::Window)
        } else if proven.is_none_or(|proven| proven <= backup.stop.time) {
            Verdict::Keep(Why::NothingNewerIsProven)
        } else {
            Verdict::Expire
        }
    };
    catalog.iter().map(verdict).collect()
}

/// Those that were complete within the window, and the newest before it: the moments at its beginning are reached from that one.
fn in_window<'a>(newest_first: &[&'a Known], length: SignedDuration, now: Timestamp) -> BTreeSet<&'a BackupId> {
    // A window that begins before all time has everything in it.
    let begin = now.checked_sub(length).unwrap_or(Timestamp::MIN);
    let before = newest_first.iter().position(|backup| backup.stop.time <= begin);
    let needed = before.map_or(newest_first.len(), |position| position + 1);
    newest_first[..needed].iter().map(|backup| &backup.id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Lsn, Timeline};

    const DAY: i64 = 86_400;
    const NOW: i64 = 1_795_000_000;

    /// A proven backup of so many days ago.
    fn backup(days_ago: i64) -> Known {
        let time = Timestamp::from_second(NOW - days_ago * DAY).unwrap();
        let at = |lsn| Moment { time, lsn: Lsn(lsn), timeline: Timeline(1) };
        let id = BackupId::new(time, 7);
        Known { id, start: at(1), stop: at(2), pinned: false, proven: Some(time), broken: false, condemned: None }
    }

    /// The days ago of those that stay.
    fn kept(catalog: &[Known], keep: usize, window_days: Option<i64>) -> Vec<i64> {
        let now = Timestamp::from_second(NOW).unwrap();
        let policy = Policy { keep, window: window_days.map(|days| SignedDuration::from_hours(24 * days)) };
        let verdicts = judge(catalog, policy, now);
        let stays = catalog.iter().zip(verdicts).filter(|(_, verdict)| *verdict != Verdict::Expire);
        stays.map(|(backup, _)| (NOW - backup.stop.time.as_second()) / DAY).collect()
    }

    fn days(days: &[i64]) -> Vec<Known> {
        days.iter().copied().map(backup).collect()
    }

    #[test]
    fn so_many_of_the_newest_stay() {
        assert_eq!(kept(&days(&[9, 1, 5, 3]), 2, None), [1, 3]);
        assert_eq!(kept(&days(&[9, 1]), 3, None), [9, 1]);
        assert_eq!(kept(&days(&[9, 1]), 0, None), [1], "one always stays");
        assert_eq!(kept(&[], 2, Some(7)), [0; 0]);
    }

    #[test]
    fn every_moment_of_the_window_can_be_gone_back_to() {
        assert_eq!(kept(&days(&[1, 4, 6, 9, 12]), 1, Some(7)), [1, 4, 6, 9], "moments of 7 days ago are reached from the one of 9");
        assert_eq!(kept(&days(&[1, 7, 9]), 1, Some(7)), [1, 7]);
        assert_eq!(kept(&days(&[20, 30, 40]), 1, Some(7)), [20], "moments since then need no other");
        assert_eq!(kept(&days(&[1, 400]), 1, Some(i64::from(i32::MAX))), [1, 400]);
    }

    #[test]
    fn a_pinned_backup_stays_and_takes_no_other_ones_place() {
        let mut catalog = days(&[1, 5, 9]);
        catalog[2].pinned = true;
        assert_eq!(kept(&catalog, 1, None), [1, 9]);
        catalog[2].condemned = Some(Timestamp::UNIX_EPOCH);
        assert_eq!(kept(&catalog, 1, None), [1, 9], "also when it was pinned after it had been condemned");
    }

    #[test]
    fn a_broken_backup_counts_for_nothing() {
        let mut catalog = days(&[1, 5, 9, 12]);
        catalog[1].broken = true;
        assert_eq!(kept(&catalog, 2, None), [1, 9]);
        catalog[0].broken = true;
        assert_eq!(kept(&catalog, 2, None), [1, 5, 9, 12], "those are gone over again before anything newer is proven");
    }

    #[test]
    fn nothing_goes_for_a_newer_one_that_nobody_has_verified() {
        let mut catalog = days(&[1, 5, 9, 12]);
        catalog[0].proven = None;
        assert_eq!(kept(&catalog, 1, None), [1, 5], "5 is proven: 9 and 12 may go, and 5 itself may not");
        catalog[1].proven = None;
        catalog[2].proven = None;
        catalog[3].proven = None;
        assert_eq!(kept(&catalog, 1, None), [1, 5, 9, 12]);
    }

    #[test]
    fn a_condemned_backup_is_judged_like_any_other() {
        let mut catalog = days(&[1, 5, 9]);
        catalog[0].condemned = Some(Timestamp::UNIX_EPOCH);
        assert_eq!(kept(&catalog, 1, None), [1]);
        catalog[1].condemned = Some(Timestamp::UNIX_EPOCH);
        assert_eq!(kept(&catalog, 1, None), [1]);
        catalog[0].broken = true;
        assert_eq!(kept(&catalog, 1, None), [1, 5], "what it was to make room for is worth nothing");
    }

    #[test]
    fn there_are_never_fewer_points_than_promised() {
        let mut chance = fastrand::Rng::with_seed(7);
        for _ in 0..5_000 {
            let mut catalog: Vec<Known> = (0..chance.usize(0..12)).map(|_| backup(chance.i64(0..40))).collect();
            for known in &mut catalog {
                known.pinned = chance.u8(0..8) == 0;
                known.broken = chance.u8(0..4) == 0;
                known.proven = known.proven.filter(|_| chance.bool());
                known.condemned = chance.bool().then_some(Timestamp::UNIX_EPOCH);
            }
            let (keep, window) = (chance.usize(0..5), chance.i64(0..30));
            let good = |days: &[i64]| {
                let mut found: Vec<i64> = catalog.iter().filter(|b| !b.broken).map(|b| (NOW - b.stop.time.as_second()) / DAY).collect();
                found.retain(|day| days.contains(day));
                found.sort_unstable();
                found
            };
            let (all, left) = (good(&(0..40).collect::<Vec<_>>()), good(&kept(&catalog, keep, Some(window))));
            assert!(left.len() >= keep.max(1).min(all.len()), "{catalog:?}");
            assert_eq!(left.first(), all.first(), "the newest always stays");
            let reaches = |found: &[i64], day: i64| found.iter().find(|taken| **taken >= day).copied();
            for day in 0..=window {
                assert_eq!(reaches(&left, day), reaches(&all, day), "the moment of {day} days ago, {catalog:?}");
            }
        }
    }
}
