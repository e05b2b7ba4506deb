//! Which WAL an archive has, as a graph: timelines fork off one another, and along each path through them WAL is whole or has holes. Pure:
//! from the names of what is archived, the size of a segment, and the content of the histories.
//!
//! A parent's WAL beyond the place where the path leaves it does not count: it is another history. The segment in which a timeline was left is
//! there twice, and the new timeline's has everything of the old one's up to the fork.

use std::{collections::BTreeMap, fmt, ops::RangeInclusive};

use super::timeline_path::{Stretch, TimelinePath};
use crate::model::{HistoryLine, Lsn, Timeline, WalFile, WalSegment};

/// Segments this near to the newest one may be on their way to the archive.
const ON_THE_WAY: u64 = 64;

/// What an archive has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalGraph {
    segment_size: u64,
    /// Numbers of whole segments, as ranges in order, with room between any two.
    runs: BTreeMap<Timeline, Vec<RangeInclusive<u64>>>,
    partials: Vec<WalSegment>,
    histories: BTreeMap<Timeline, Vec<HistoryLine>>,
    strange: Vec<WalFile>,
}

/// Segments of a timeline, one after the other, that are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Gap {
    /// The first of them.
    pub first: WalSegment,
    /// The last of them.
    pub last: WalSegment,
    /// How many.
    pub count: u64,
}

/// How far WAL is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// All up to here is there.
    pub end: Lsn,
    /// What is missing there, although there is more behind it.
    pub hole: Option<Gap>,
}

/// What an archive has of one timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelineWal {
    /// The timeline.
    pub timeline: Timeline,
    /// Which timeline it forked off, and where. `None`: the archive does not know, or it is the first one.
    pub parent: Option<(Timeline, Lsn)>,
    /// Its oldest segment.
    pub first: Option<WalSegment>,
    /// Its newest segment.
    pub last: Option<WalSegment>,
    /// How many segments there are.
    pub segments: u64,
}

/// The archive has no such timeline.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the archive has nothing of timeline {0}, neither a history nor a segment")]
pub struct NoSuchTimeline(pub Timeline);

impl WalGraph {
    /// The graph of these files. A history that says nothing (only a comment: it holds a number's place) makes no timeline.
    pub fn new(
        segment_size: u32,
        files: impl IntoIterator<Item = WalFile>,
        histories: impl IntoIterator<Item = (Timeline, Vec<HistoryLine>)>,
    ) -> WalGraph {
        let size = u64::from(segment_size);
        let histories = histories.into_iter().filter(|(_, lines)| !lines.is_empty()).collect();
        let mut graph = WalGraph { segment_size: size, runs: BTreeMap::new(), partials: Vec::new(), histories, strange: Vec::new() };
        let mut numbers: BTreeMap<Timeline, Vec<u64>> = BTreeMap::new();
        for file in files {
            match file {
                WalFile::Segment(segment) => match segment.ordinal(size) {
                    Some(ordinal) => numbers.entry(segment.timeline).or_default().push(ordinal),
                    None => graph.strange.push(file),
                },
                WalFile::Partial(segment) => graph.partials.push(segment),
                WalFile::BackupNote(..) | WalFile::History(_) => {}
            }
        }
        graph.runs = numbers.into_iter().map(|(timeline, numbers)| (timeline, runs(numbers))).collect();
        graph.partials.sort();
        graph
    }

    /// How large its segments are.
    pub fn segment_size(&self) -> u64 {
        self.segment_size
    }

    /// Segments that were archived as the unfinished end of a timeline. Recovery never asks for them.
    pub fn partials(&self) -> &[WalSegment] {
        &self.partials
    }

    /// Names that no segment of this size can have.
    pub fn strange(&self) -> &[WalFile] {
        &self.strange
    }

    /// Every timeline of which there is a history or a segment.
    pub fn timelines(&self) -> Vec<TimelineWal> {
        let mut known: Vec<Timeline> = self.runs.keys().chain(self.histories.keys()).copied().collect();
        known.sort();
        known.dedup();
        known.into_iter().map(|timeline| self.timeline(timeline)).collect()
    }

    fn timeline(&self, timeline: Timeline) -> TimelineWal {
        let runs = self.runs_of(timeline);
        let named = |ordinal: &u64| WalSegment::nth(timeline, *ordinal, self.segment_size);
        let parent = self.path(timeline).ok().and_then(|path| {
            let [.., parent, _] = path.stretches() else { return None };
            Some((parent.timeline, parent.end?))
        });
        TimelineWal {
            timeline,
            parent,
            first: runs.first().map(|run| named(run.start())),
            last: runs.last().map(|run| named(run.end())),
            segments: runs.iter().map(|run| run.end() - run.start() + 1).sum(),
        }
    }

    /// The way that leads to the end of `timeline`. Without a history in the archive it begins with that timeline: of a cluster that was
    /// archived from then on.
    ///
    /// # Errors
    /// When nothing of it is archived.
    pub fn path(&self, timeline: Timeline) -> Result<TimelinePath, NoSuchTimeline> {
        let history = match self.histories.get(&timeline) {
            Some(history) => history.as_slice(),
            None if timeline == Timeline(1) || self.runs.contains_key(&timeline) => &[],
            None => return Err(NoSuchTimeline(timeline)),
        };
        Ok(TimelinePath::new(history, timeline))
    }

    /// The newest timeline that goes on from `position` of `timeline`: recovery to the end of everything ends there. One of which only the
    /// history was archived leads nowhere.
    pub fn newest_from(&self, timeline: Timeline, position: Lsn) -> Timeline {
        let leads_on = |candidate: &Timeline| self.path(*candidate).is_ok_and(|path| path.contains(timeline, position));
        self.runs.keys().rev().copied().find(leads_on).filter(|newest| *newest > timeline).unwrap_or(timeline)
    }

    /// The way to the newest timeline that has any WAL: the one that is written, as far as the archive knows. `None`: there is no WAL.
    pub fn newest_path(&self) -> Option<TimelinePath> {
        self.runs.keys().next_back().and_then(|newest| self.path(*newest).ok())
    }

    /// What is missing between two positions of a path. Empty: recovery gets from one to the other.
    pub fn missing(&self, path: &TimelinePath, from: Lsn, to: Lsn) -> Vec<Gap> {
        let needed = self.needed_runs(path, from, to);
        needed.into_iter().flat_map(|(timeline, run)| self.holes(timeline, run)).collect()
    }

    /// The segments that recovery reads between two positions of a path, whether they are there or not.
    pub fn needed(&self, path: &TimelinePath, from: Lsn, to: Lsn) -> impl Iterator<Item = WalSegment> + use<> {
        let (needed, size) = (self.needed_runs(path, from, to), self.segment_size);
        needed.into_iter().flat_map(move |(timeline, run)| run.map(move |ordinal| WalSegment::nth(timeline, ordinal, size)))
    }

    fn needed_runs(&self, path: &TimelinePath, from: Lsn, to: Lsn) -> Vec<(Timeline, RangeInclusive<u64>)> {
        let mut runs = Vec::new();
        for (at, stretch) in path.stretches().iter().enumerate() {
            let (low, high) = (stretch.begin.max(from), stretch.end.map_or(to, |end| end.min(to)));
            if low >= high {
                continue;
            }
            let (first, mut last) = (self.ordinal(low), self.ordinal(Lsn(high.0 - 1)));
            let later = &path.stretches()[at + 1..];
            // The segment in which the path leaves this timeline is needed of the next one, which has this one's beginning of it.
            let shared = later.iter().any(|next| self.ordinal(next.begin) == last && (next.begin < to || self.has(next.timeline, last)));
            if shared {
                if first == last {
                    continue;
                }
                last -= 1;
            }
            runs.push((stretch.timeline, first..=last));
        }
        runs
    }

    /// How far recovery along the path gets from a position on.
    pub fn reach(&self, path: &TimelinePath, from: Lsn) -> Reach {
        let newest = path.stretches().iter().filter_map(|stretch| self.last_position(stretch)).max().unwrap_or(from).max(from);
        match self.missing(path, from, newest).first() {
            None => Reach { end: newest, hole: None },
            Some(gap) => {
                let begin = Lsn(gap.first.begin(self.segment_size)).max(from);
                // Where a timeline's first segment is missing, its beginning may still be in the segment of the timeline before.
                let end = if self.missing(path, from, begin).is_empty() { begin } else { from };
                Reach { end, hole: Some(*gap) }
            }
        }
    }

    /// Everything that is missing along the path, from its oldest segment to its newest.
    pub fn gaps(&self, path: &TimelinePath) -> Vec<Gap> {
        let on_it = |stretch: &Stretch| self.positions(stretch).map(|(first, _)| first);
        let Some(oldest) = path.stretches().iter().filter_map(on_it).min() else { return Vec::new() };
        let newest = path.stretches().iter().filter_map(|stretch| self.last_position(stretch)).max().unwrap_or(oldest);
        self.missing(path, oldest, newest)
    }

    /// Everything that is missing, whichever timeline one wants to get to. Holes of a timeline behind the last place where another one forked
    /// off it are no loss to anybody.
    pub fn all_gaps(&self) -> Vec<Gap> {
        let known = self.timelines();
        let parents: Vec<Timeline> = known.iter().filter_map(|timeline| Some(timeline.parent?.0)).collect();
        let ends = known.into_iter().map(|known| known.timeline).filter(|timeline| !parents.contains(timeline));
        let mut gaps: Vec<Gap> = ends.filter_map(|end| self.path(end).ok()).flat_map(|path| self.gaps(&path)).collect();
        gaps.sort();
        gaps.dedup();
        gaps
    }

    /// Whether something is missing so near a timeline's newest segment that it may be on its way.
    pub fn is_unsettled(&self) -> bool {
        let newest = |timeline| self.runs_of(timeline).last().map_or(0, |run| *run.end());
        let near = |gap: &Gap| gap.last.ordinal(self.segment_size).is_some_and(|last| last + ON_THE_WAY >= newest(gap.first.timeline));
        self.all_gaps().iter().any(near)
    }

    /// The same graph without the holes that a later look did not find. What is newer than all that was seen at first does not count: there may
    /// be holes in it too.
    pub fn filled(mut self, later: &WalGraph) -> WalGraph {
        for (timeline, known) in &mut self.runs {
            let Some(newest) = known.last().map(|run| *run.end()) else { continue };
            let came =
                later.runs_of(*timeline).iter().filter(|run| *run.start() <= newest).map(|run| *run.start()..=newest.min(*run.end()));
            *known = joined(known.iter().cloned().chain(came).collect());
        }
        self
    }

    /// Where the WAL of a stretch begins and ends that the archive has.
    fn positions(&self, stretch: &Stretch) -> Option<(Lsn, Lsn)> {
        let end = stretch.end.unwrap_or(Lsn(u64::MAX));
        let position = |ordinal: u64| Lsn(ordinal * self.segment_size);
        let of_it = |run: &&RangeInclusive<u64>| position(run.end() + 1) > stretch.begin && position(*run.start()) < end;
        let runs: Vec<_> = self.runs_of(stretch.timeline).iter().filter(of_it).collect();
        let (first, last) = (runs.first()?.start(), runs.last()?.end() + 1);
        Some((position(*first).max(stretch.begin), position(last).min(end)))
    }

    fn last_position(&self, stretch: &Stretch) -> Option<Lsn> {
        self.positions(stretch).map(|(_, last)| last)
    }

    fn ordinal(&self, position: Lsn) -> u64 {
        position.0 / self.segment_size
    }

    fn runs_of(&self, timeline: Timeline) -> &[RangeInclusive<u64>] {
        self.runs.get(&timeline).map_or(&[], Vec::as_slice)
    }

    /// Whether the archive has the segment.
    pub fn is_there(&self, segment: WalSegment) -> bool {
        segment.ordinal(self.segment_size).is_some_and(|ordinal| self.has(segment.timeline, ordinal))
    }

    fn has(&self, timeline: Timeline, ordinal: u64) -> bool {
        self.runs_of(timeline).iter().any(|run| run.contains(&ordinal))
    }

    /// What of these segments is not there.
    fn holes(&self, timeline: Timeline, wanted: RangeInclusive<u64>) -> Vec<Gap> {
        let named = |ordinal| WalSegment::nth(timeline, ordinal, self.segment_size);
        let mut gaps = Vec::new();
        let mut add = |first: u64, behind: u64| {
            if first < behind {
                gaps.push(Gap { first: named(first), last: named(behind - 1), count: behind - first });
            }
        };
        let (mut next, behind) = (*wanted.start(), wanted.end() + 1);
        for run in self.runs_of(timeline) {
            if *run.start() >= behind {
                break;
            }
            add(next, *run.start());
            next = next.max(run.end() + 1);
        }
        add(next, behind);
        gaps
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.count {
            1 => write!(f, "{}", self.first),
            count => write!(f, "{} to {} ({count} segments)", self.first, self.last),
        }
    }
}

impl Gap {
    /// The segments that are missing, where segments have `size` bytes.
    pub fn segments(&self, size: u64) -> impl Iterator<Item = WalSegment> + use<> {
        let (timeline, first, count) = (self.first.timeline, self.first.ordinal(size), self.count);
        first.into_iter().flat_map(move |first| first..first + count).map(move |ordinal| WalSegment::nth(timeline, ordinal, size))
    }

    /// The segments before and behind it.
    pub fn neighbours(&self, size: u64) -> impl Iterator<Item = WalSegment> + use<> {
        let before = self.first.ordinal(size).and_then(|first| first.checked_sub(1));
        let behind = self.last.ordinal(size).map(|last| last + 1);
        let timeline = self.first.timeline;
        before.into_iter().chain(behind).map(move |ordinal| WalSegment::nth(timeline, ordinal, size))
    }
}

/// Numbers as ranges.
fn runs(numbers: Vec<u64>) -> Vec<RangeInclusive<u64>> {
    joined(numbers.into_iter().map(|number| number..=number).collect())
}

/// Ranges in order, with room between any two.
fn joined(mut ranges: Vec<RangeInclusive<u64>>) -> Vec<RangeInclusive<u64>> {
    ranges.sort_unstable_by_key(|range| *range.start());
    let mut runs: Vec<RangeInclusive<u64>> = Vec::new();
    for range in ranges {
        match runs.last_mut() {
            Some(run) if *range.start() <= run.end() + 1 => *run = *run.start()..=*run.end().max(range.end()),
            _ => runs.push(range),
        }
    }
    runs
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::parse_history;

    const SIZE: u32 = 16 << 20;

    /// A position in the given segment.
    fn at(ordinal: u64, offset: u64) -> Lsn {
        Lsn(ordinal * u64::from(SIZE) + offset)
    }

    /// A graph with these segments and histories.
    pub fn graph(segments: &[(u32, RangeInclusive<u64>)], histories: &[(u32, &str)]) -> WalGraph {
        let names = segments.iter().flat_map(|(timeline, run)| {
            let timeline = Timeline(*timeline);
            run.clone().map(move |ordinal| WalFile::Segment(WalSegment::nth(timeline, ordinal, u64::from(SIZE))))
        });
        WalGraph::new(SIZE, names, histories.iter().map(|(number, text)| (Timeline(*number), parse_history(text).unwrap())))
    }

    fn names(gaps: &[Gap]) -> Vec<String> {
        gaps.iter().map(Gap::to_string).collect()
    }

    /// Timeline 2 left timeline 1 inside of segment 5, timeline 3 left timeline 2 at the very end of segment 8.
    const SECOND: (u32, &str) = (2, "1\t0/5000100\tx\n");
    const THIRD: (u32, &str) = (3, "1\t0/5000100\tx\n2\t0/9000000\tx\n");

    #[test]
    fn wal_is_whole_along_a_path_when_each_timeline_has_its_part() {
        let graph = graph(&[(1, 1..=4), (2, 5..=8), (3, 9..=12)], &[SECOND, THIRD]);
        let path = graph.path(Timeline(3)).unwrap();
        assert_eq!(path.stretches().len(), 3);
        assert_eq!(graph.missing(&path, at(1, 7), at(13, 0)), []);
        assert_eq!(graph.reach(&path, at(1, 7)), Reach { end: at(13, 0), hole: None });
        assert_eq!(graph.all_gaps(), []);
        assert_eq!(names(&graph.missing(&path, at(1, 7), at(13, 1))), ["00000003000000000000000D"], "the end of the archive");
        assert_eq!(names(&graph.missing(&path, at(0, 7), at(2, 0))), ["000000010000000000000000"]);
    }

    #[test]
    fn what_the_parent_wrote_behind_the_fork_does_not_count() {
        let graph = graph(&[(1, 1..=20), (2, 6..=8)], &[SECOND]);
        let second = graph.path(Timeline(2)).unwrap();
        assert_eq!(
            names(&graph.missing(&second, at(1, 0), at(9, 0))),
            ["000000020000000000000005"],
            "the segment of the fork is the child's"
        );
        assert_eq!(graph.missing(&second, at(1, 0), at(5, 0x100)), [], "up to the fork both have the same");
        assert_eq!(names(&graph.missing(&second, at(1, 0), at(5, 0x101))), ["000000020000000000000005"]);
        assert_eq!(names(&graph.missing(&second, at(1, 0), at(10, 0))), ["000000020000000000000005", "000000020000000000000009"]);
        let first = graph.path(Timeline(1)).unwrap();
        assert_eq!(graph.reach(&first, at(1, 0)), Reach { end: at(21, 0), hole: None });
    }

    #[test]
    fn before_the_fork_the_childs_copy_of_the_segment_is_as_good() {
        let graph = graph(&[(1, 1..=4), (2, 5..=5)], &[SECOND]);
        let second = graph.path(Timeline(2)).unwrap();
        assert_eq!(graph.missing(&second, at(1, 0), at(5, 0x50)), []);
        let first = graph.path(Timeline(1)).unwrap();
        assert_eq!(
            names(&graph.missing(&first, at(1, 0), at(5, 0x50))),
            ["000000010000000000000005"],
            "but not on the way to the parent's end"
        );
    }

    #[test]
    fn a_fork_between_two_segments_needs_both() {
        let whole = graph(&[(1, 1..=4), (2, 5..=8), (3, 9..=9)], &[SECOND, THIRD]);
        let path = whole.path(Timeline(3)).unwrap();
        assert_eq!(whole.missing(&path, at(1, 0), at(10, 0)), []);
        let without = graph(&[(1, 1..=4), (2, 5..=7), (3, 9..=9)], &[SECOND, THIRD]);
        assert_eq!(names(&without.missing(&path, at(1, 0), at(10, 0))), ["000000020000000000000008"]);
    }

    #[test]
    fn two_forks_in_one_segment_need_it_of_the_last_timeline() {
        let histories = [(2, "1\t0/5000100\tx\n"), (3, "1\t0/5000100\tx\n2\t0/5000200\tx\n")];
        let graph = graph(&[(1, 1..=4), (3, 5..=6)], &histories);
        let path = graph.path(Timeline(3)).unwrap();
        assert_eq!(graph.missing(&path, at(1, 0), at(7, 0)), []);
        assert_eq!(graph.missing(&path, at(1, 0), at(5, 0x180)), [], "it has the part of timeline 2 too");
    }

    #[test]
    fn a_hole_ends_the_reach_and_is_named() {
        let graph = graph(&[(1, 1..=3), (1, 7..=9)], &[]);
        let path = graph.path(Timeline(1)).unwrap();
        let hole = "000000010000000000000004 to 000000010000000000000006 (3 segments)";
        let reach = graph.reach(&path, at(2, 5));
        assert_eq!((reach.end, names(reach.hole.as_slice())), (at(4, 0), vec![hole.to_owned()]));
        assert_eq!(names(&graph.all_gaps()), [hole]);
        assert_eq!(graph.reach(&path, at(8, 0)).hole, None);
        assert_eq!(graph.reach(&path, at(5, 3)).end, at(5, 3), "from inside a hole nobody gets anywhere");
        assert_eq!(graph.reach(&path, at(30, 3)), Reach { end: at(30, 3), hole: None });
    }

    #[test]
    fn a_hole_near_the_end_may_be_a_segment_on_its_way() {
        let first = graph(&[(1, 1..=3), (1, 5..=6), (1, 8..=9)], &[]);
        assert!(first.is_unsettled() && !graph(&[(1, 1..=9)], &[]).is_unsettled());
        assert!(!graph(&[(1, 1..=3), (1, 5..=100)], &[]).is_unsettled(), "that one would have come long ago");
        let later = graph(&[(1, 3..=6), (1, 8..=12), (1, 14..=15), (2, 5..=5)], &[SECOND]);
        let filled = first.filled(&later);
        assert_eq!(names(&filled.all_gaps()), ["000000010000000000000007"]);
        assert_eq!(filled, graph(&[(1, 1..=6), (1, 8..=9)], &[]));
    }

    #[test]
    fn a_missing_child_segment_lets_nobody_go_on_with_the_parents() {
        let graph = graph(&[(1, 1..=9), (2, 7..=8)], &[SECOND]);
        let reach = graph.reach(&graph.path(Timeline(2)).unwrap(), at(1, 0));
        assert_eq!(
            (reach.end, names(reach.hole.as_slice())),
            (at(5, 0), vec!["000000020000000000000005 to 000000020000000000000006 (2 segments)".to_owned()])
        );
    }

    #[test]
    fn what_recovery_reads_is_listed_of_the_timelines_that_it_reads_it_of() {
        let graph = graph(&[(1, 1..=9), (2, 5..=8)], &[SECOND]);
        let path = graph.path(Timeline(2)).unwrap();
        let read: Vec<String> = graph.needed(&path, at(3, 7), at(6, 1)).map(|segment| segment.to_string()).collect();
        assert_eq!(read, ["000000010000000000000003", "000000010000000000000004", "000000020000000000000005", "000000020000000000000006"]);
    }

    #[test]
    fn old_wal_that_was_expired_is_no_gap() {
        let graph = graph(&[(2, 7..=8), (3, 9..=9)], &[SECOND, THIRD]);
        assert_eq!(graph.all_gaps(), []);
    }

    #[test]
    fn holes_of_a_timeline_that_was_left_before_are_nobodys_loss() {
        let graph = graph(&[(1, 1..=4), (1, 9..=9), (2, 5..=8)], &[SECOND]);
        assert_eq!(graph.all_gaps(), []);
        let abandoned = graph.path(Timeline(1)).unwrap();
        assert_eq!(graph.gaps(&abandoned).len(), 1, "but whoever wants to go there is told");
    }

    #[test]
    fn recovery_to_the_end_takes_the_newest_timeline_that_leads_on() {
        let fourth = (4, "1\t0/3000000\tx\n");
        let graph = graph(&[(1, 1..=4), (2, 5..=8), (3, 9..=12), (4, 3..=3)], &[SECOND, THIRD, fourth, (5, "1\t0/4000000\tx\n")]);
        assert_eq!(graph.newest_from(Timeline(1), at(2, 0)), Timeline(4), "5 has only a history");
        assert_eq!(graph.newest_from(Timeline(1), at(3, 0)), Timeline(4), "at the fork itself");
        assert_eq!(graph.newest_from(Timeline(1), at(3, 1)), Timeline(3), "4 had left before");
        assert_eq!(graph.newest_from(Timeline(2), at(8, 0)), Timeline(3));
        assert_eq!(graph.newest_from(Timeline(3), at(8, 0)), Timeline(3));
        assert_eq!(graph.newest_from(Timeline(4), at(3, 0)), Timeline(4));
    }

    #[test]
    fn a_timeline_without_a_history_is_known_by_its_segments() {
        let graph = graph(&[(7, 3..=4)], &[(8, "# place held\n")]);
        assert_eq!(graph.path(Timeline(7)).unwrap().stretches().len(), 1);
        assert_eq!(graph.path(Timeline(8)), Err(NoSuchTimeline(Timeline(8))), "its number is held, and that is all");
        assert!(graph.path(Timeline(9)).is_err());
    }

    #[test]
    fn timelines_say_what_there_is_of_them() {
        let partial = WalSegment::nth(Timeline(1), 5, u64::from(SIZE));
        let files = [
            "000000010000000000000003",
            "000000010000000000000004",
            "0000000100000000000001FF",
            "000000010000000000000003.00000028.backup",
        ];
        let files = files.iter().map(|name| name.parse().unwrap()).chain([WalFile::Partial(partial)]);
        let graph = WalGraph::new(SIZE, files, [(Timeline(2), parse_history(SECOND.1).unwrap())]);
        let [first, second] = graph.timelines().try_into().unwrap();
        assert_eq!((first.segments, first.last.map(|last| last.to_string())), (2, Some("000000010000000000000004".to_owned())));
        assert_eq!((second.segments, second.parent), (0, Some((Timeline(1), at(5, 0x100)))));
        assert_eq!(graph.partials(), [partial]);
        assert_eq!(graph.strange().len(), 1, "segments of 16 MB end with FF");
    }
}
