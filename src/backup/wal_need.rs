//! Which archived WAL the kept backups need. Pure.

use super::manifest::Moment;
use crate::model::{Lsn, Timeline, WalFile, WalSegment};

/// The WAL that one kept backup needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// Where recovery from it begins.
    start: (Timeline, Lsn),
    /// Where the need ends; `None`: every moment since can be gone back to.
    stop: Option<(Timeline, Lsn)>,
}

impl Need {
    /// Of a backup from which all later moments are reached.
    pub fn from(start: &Moment) -> Need {
        Need { start: (start.timeline, start.lsn), stop: None }
    }

    /// Of a backup that only has to become consistent: one that is kept although the moments after it are not promised any more.
    pub fn between(start: &Moment, stop: &Moment) -> Need {
        Need { start: (start.timeline, start.lsn), stop: Some((stop.timeline, stop.lsn)) }
    }

    /// Whether it needs this segment. A timeline's number is higher than that of every timeline it comes from: so those below the start's are
    /// behind the backup, and whatever lies at or after its position on its own or a higher one may be on the way from it.
    pub fn has(&self, segment: WalSegment, size: u64) -> bool {
        // What has a name that no segment has is none of ours to remove.
        let Some(begin) = segment.ordinal(size).map(|ordinal| ordinal * size) else { return true };
        let after_start = segment.timeline >= self.start.0 && begin.saturating_add(size) > self.start.1.0;
        let before_stop = self.stop.is_none_or(|(timeline, lsn)| segment.timeline <= timeline && begin <= lsn.0);
        after_start && before_stop
    }
}

/// Whether nobody needs the file. Histories are always needed: they are small, and without them no path leads to a timeline.
pub fn is_dispensable(file: WalFile, needs: &[Need], segment_size: u64) -> bool {
    match file {
        WalFile::History(_) => false,
        WalFile::Segment(segment) | WalFile::Partial(segment) | WalFile::BackupNote(segment, _) => {
            // Without a backup WAL leads nowhere; but then something is wrong, and it is no time to remove anything.
            !needs.is_empty() && !needs.iter().any(|need| need.has(segment, segment_size))
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    const SIZE: u64 = 16 << 20;

    /// Within this segment.
    fn at(timeline: u32, segment: u64) -> Moment {
        Moment { time: Timestamp::UNIX_EPOCH, lsn: Lsn(segment * SIZE + 0x28), timeline: Timeline(timeline) }
    }

    /// The numbers of those segments of the timeline that may go.
    fn dispensable(timeline: u32, needs: &[Need]) -> Vec<u32> {
        let segment = |number| WalSegment { timeline: Timeline(timeline), log: 0, number };
        (1..10).filter(|number| is_dispensable(WalFile::Segment(segment(*number)), needs, SIZE)).collect()
    }

    #[test]
    fn what_comes_before_the_oldest_kept_backup_may_go() {
        let needs = [Need::from(&at(2, 7)), Need::from(&at(2, 4))];
        assert_eq!(dispensable(2, &needs), [1, 2, 3]);
        assert_eq!(dispensable(3, &needs), [1, 2, 3], "later timelines are on the way from it");
        assert_eq!(dispensable(1, &needs), (1..10).collect::<Vec<_>>(), "earlier ones are not, not even what they wrote past the fork");
    }

    #[test]
    fn a_segment_that_the_start_lies_at_the_border_of_is_the_later_one() {
        let border = Moment { lsn: Lsn(4 * SIZE), ..at(1, 4) };
        assert_eq!(dispensable(1, &[Need::from(&border)]), [1, 2, 3]);
    }

    #[test]
    fn a_pinned_backup_keeps_what_makes_it_consistent() {
        let needs = [Need::between(&at(1, 2), &at(2, 4)), Need::from(&at(3, 7))];
        assert_eq!(dispensable(1, &needs), [1, 5, 6, 7, 8, 9]);
        assert_eq!(dispensable(2, &needs), [1, 5, 6, 7, 8, 9]);
        assert_eq!(dispensable(3, &needs), [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn what_no_segment_is_called_like_stays() {
        let foreign = WalFile::Segment(WalSegment { timeline: Timeline(1), log: u32::MAX, number: u32::MAX });
        assert!(!is_dispensable(foreign, &[Need::from(&at(1, 9))], SIZE));
        let last = WalFile::Segment(WalSegment { timeline: Timeline(1), log: u32::MAX, number: 255 });
        assert!(!is_dispensable(last, &[Need::from(&at(1, 9))], SIZE));
    }

    #[test]
    fn histories_stay_and_without_a_backup_everything_does() {
        assert!(!is_dispensable("00000001.history".parse().unwrap(), &[Need::from(&at(9, 9))], SIZE));
        assert_eq!(dispensable(1, &[]), [0; 0]);
        let note = "000000010000000000000002.00000028.backup".parse().unwrap();
        assert!(is_dispensable(note, &[Need::from(&at(1, 3))], SIZE));
        assert!(!is_dispensable(note, &[Need::from(&at(1, 2))], SIZE));
    }
}
