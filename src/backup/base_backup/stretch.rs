//! The WAL that belongs to a backup: from where recovery begins to where the data are consistent.

use crate::{
    backup::manifest::Moment,
    model::{HistoryLine, Lsn, Timeline, WalSegment, timeline_at},
};

/// Every segment from start to stop. `past` is the history of the stop's timeline. `None`: the stop does not come after the start on that path.
pub fn segments(start: &Moment, stop: &Moment, past: &[HistoryLine], segment_size: u64) -> Option<Vec<WalSegment>> {
    if !is_ancestor(start, stop, past) || stop.lsn <= start.lsn || segment_size == 0 {
        return None;
    }
    let per_log = (1 << 32) / segment_size;
    let (first, last) = (start.lsn.0 / segment_size, (stop.lsn.0 - 1) / segment_size);
    let segment = |number: u64| {
        // The segment in which a timeline was left is whole only under the new one's name, and has all of the old one's.
        let end = Lsn(((number + 1) * segment_size).min(stop.lsn.0) - 1);
        let timeline = timeline_at(past, stop.timeline, end);
        let (log, number) = (u32::try_from(number / per_log).ok()?, u32::try_from(number % per_log).ok()?);
        Some(WalSegment { timeline, log, number })
    };
    (first..=last).map(segment).collect()
}

/// On which timeline a position lies, for a server that has come to `timeline` with this past.
pub fn timeline_of(position: Lsn, timeline: Timeline, past: &[HistoryLine]) -> Timeline {
    timeline_at(past, timeline, Lsn(position.0.saturating_sub(1)))
}

fn is_ancestor(start: &Moment, stop: &Moment, past: &[HistoryLine]) -> bool {
    start.timeline == stop.timeline || past.iter().any(|line| line.timeline == start.timeline && start.lsn < line.switch)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 16 << 20;

    fn at(timeline: u32, lsn: &str) -> Moment {
        Moment { time: "2026-11-21T20:45:00Z".parse().unwrap(), lsn: lsn.parse().unwrap(), timeline: Timeline(timeline) }
    }

    fn names(start: &Moment, stop: &Moment, past: &str) -> Option<Vec<String>> {
        let past = crate::model::parse_history(past).unwrap();
        Some(segments(start, stop, &past, SIZE)?.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn all_segments_with_a_byte_of_it_are_needed() {
        let names = |start, stop| names(&at(1, start), &at(1, stop), "").unwrap();
        assert_eq!(names("0/2000028", "0/2000100"), ["000000010000000000000002"]);
        assert_eq!(names("0/2000028", "0/3000000"), ["000000010000000000000002"], "a stop at a border lies before it");
        assert_eq!(names("0/2000000", "0/3000001"), ["000000010000000000000002", "000000010000000000000003"]);
        assert_eq!(names("0/FF000028", "1/1000000"), ["0000000100000000000000FF", "000000010000000100000000"]);
    }

    #[test]
    fn a_standby_may_have_come_to_a_new_timeline() {
        let past = "1\t0/3000500\tx\n";
        let found = names(&at(1, "0/2000028"), &at(2, "0/4000100"), past).unwrap();
        assert_eq!(found, ["000000010000000000000002", "000000020000000000000003", "000000020000000000000004"]);
        assert_eq!(timeline_of("0/3000500".parse().unwrap(), Timeline(2), &crate::model::parse_history(past).unwrap()), Timeline(1));
    }

    #[test]
    fn a_stop_that_is_not_on_the_way_is_none() {
        assert_eq!(names(&at(1, "0/3000600"), &at(2, "0/4000100"), "1\t0/3000500\tx\n"), None);
        assert_eq!(names(&at(1, "0/2000028"), &at(3, "0/4000100"), "2\t0/3000500\tx\n"), None);
        assert_eq!(names(&at(1, "0/2000028"), &at(1, "0/2000028"), ""), None);
    }
}
