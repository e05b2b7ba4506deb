//! Whether the WAL that a store has is fit for recovery: holes, contents that contradict each other, what cannot be read.

use std::collections::BTreeSet;

use serde::Serialize;

use super::{
    BackupId,
    archived_wal::ArchivedWal,
    catalog::{Catalog, Unreadable},
    manifest::Header,
    wal_graph::{Gap, WalGraph},
    wal_need::{Need, is_dispensable},
};
use crate::model::{Lsn, Timeline, WalFile, WalSegment};

/// How it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Nothing is wrong.
    Healthy,
    /// Something is wrong that does not keep the newest backup from being recovered to the end of the WAL.
    Degraded,
    /// The newest backup cannot be recovered to the end of the WAL.
    Critical,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WalReport {
    /// How it is.
    pub verdict: Verdict,
    /// The timelines, the oldest first.
    pub timelines: Vec<TimelineLine>,
    /// What is missing on the ways to the end of some timeline, and matters to somebody.
    pub gaps: Vec<GapLine>,
    /// Where WAL is whole to from the newest backup on.
    pub reach: Option<ReachLine>,
    /// Contents that came second under a name: two servers have written the same WAL.
    pub conflicts: Vec<String>,
    /// Segments in which a timeline was left; recovery never asks for them.
    pub partials: Vec<String>,
    /// Objects that cannot be read, or have no business there.
    pub unreadable: Vec<UnreadableLine>,
    /// Bytes of all WAL in the store.
    pub stored: u64,
}

/// One timeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TimelineLine {
    /// The timeline.
    pub timeline: Timeline,
    /// Which one it left.
    pub parent: Option<Timeline>,
    /// Where it left it.
    pub fork: Option<String>,
    /// Its oldest segment.
    pub first: Option<String>,
    /// Its newest segment.
    pub last: Option<String>,
    /// How many there are.
    pub segments: u64,
}

/// What is missing in one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GapLine {
    /// The first segment.
    pub first: String,
    /// The last segment.
    pub last: String,
    /// How many.
    pub segments: u64,
}

/// How far recovery of the newest backup gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReachLine {
    /// The backup.
    pub backup: BackupId,
    /// The timeline that recovery to the end goes along.
    pub timeline: Timeline,
    /// Where it ends.
    pub end: String,
    /// There is more WAL, which it does not get to.
    pub cut_short: bool,
}

/// An object and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UnreadableLine {
    /// The object.
    pub object: String,
    /// What is wrong.
    pub why: String,
}

/// Judges what was found. `pins`: the backups that stay whatever the policy says.
pub fn check(wal: &ArchivedWal, catalog: &Catalog, pins: &BTreeSet<BackupId>) -> WalReport {
    let graph = &wal.graph;
    let newest = catalog.backups.last();
    let reach = newest.and_then(|backup| Some((backup, reach(graph, backup)?)));
    let expired = Expired::new(graph, catalog, pins);
    let gaps: Vec<Gap> = graph.all_gaps().into_iter().filter(|gap| !expired.has_made(gap)).collect();
    let unreadable: Vec<UnreadableLine> = wal.unreadable.iter().chain(&catalog.unreadable).map(UnreadableLine::of).collect();
    let strange = graph
        .strange()
        .iter()
        .map(|file| UnreadableLine { object: file.to_string(), why: "no segment of this size is called so".to_owned() });
    let unreadable: Vec<_> = unreadable.into_iter().chain(strange).collect();
    let lost = newest.is_some() && reach.as_ref().is_none_or(|(_, reach)| reach.cut_short);
    let fault = !gaps.is_empty() || !wal.conflicts.is_empty() || !unreadable.is_empty();
    WalReport {
        verdict: if lost {
            Verdict::Critical
        } else if fault {
            Verdict::Degraded
        } else {
            Verdict::Healthy
        },
        timelines: timelines(graph),
        gaps: gaps.iter().map(GapLine::of).collect(),
        reach: reach.map(|(_, reach)| reach),
        conflicts: wal.conflicts.iter().map(ToString::to_string).collect(),
        partials: graph.partials().iter().map(ToString::to_string).collect(),
        unreadable,
        stored: wal.stored,
    }
}

/// What retention may have removed from between backups.
struct Expired<'a> {
    graph: &'a WalGraph,
    /// What the backups need, if each that is pinned stays for its pin alone.
    least: Vec<Need>,
    /// What those would need if they were not.
    pinned: Vec<Need>,
}

impl Expired<'_> {
    fn new<'a>(graph: &'a WalGraph, catalog: &Catalog, pins: &BTreeSet<BackupId>) -> Expired<'a> {
        let is_pinned = |backup: &&Header| pins.contains(&backup.id);
        let least = |backup: &Header| {
            if is_pinned(&backup) { Need::between(&backup.start, &backup.stop) } else { Need::from(&backup.start) }
        };
        let pinned = catalog.backups.iter().filter(is_pinned).map(|backup| Need::from(&backup.start));
        Expired { graph, least: catalog.backups.iter().map(least).collect(), pinned: pinned.collect() }
    }

    /// Whether the gap is what retention leaves behind a backup that stays for its pin alone: it takes all that no other needs, up to what is
    /// needed. A hole with something dispensable beside it was not made so.
    fn has_made(&self, gap: &Gap) -> bool {
        let size = self.graph.segment_size();
        let spared = |segment: WalSegment| is_dispensable(WalFile::Segment(segment), &self.least, size);
        let behind_pinned = self.pinned.iter().any(|need| need.has(gap.first, size));
        behind_pinned && gap.segments(size).all(spared) && !gap.neighbours(size).any(|beside| self.graph.is_there(beside) && spared(beside))
    }
}

/// `None`: not even what makes the backup consistent is there.
fn reach(graph: &WalGraph, backup: &Header) -> Option<ReachLine> {
    let timeline = graph.newest_from(backup.stop.timeline, backup.stop.lsn);
    let path = graph.path(timeline).ok()?;
    let reach = graph.reach(&path, backup.start.lsn);
    let whole = graph.missing(&path, backup.start.lsn, backup.stop.lsn).is_empty();
    let end: Lsn = reach.end;
    whole.then(|| ReachLine { backup: backup.id.clone(), timeline, end: end.to_string(), cut_short: reach.hole.is_some() })
}

fn timelines(graph: &WalGraph) -> Vec<TimelineLine> {
    let line = |known: super::wal_graph::TimelineWal| TimelineLine {
        timeline: known.timeline,
        parent: known.parent.map(|(parent, _)| parent),
        fork: known.parent.map(|(_, fork)| fork.to_string()),
        first: known.first.map(|segment| segment.to_string()),
        last: known.last.map(|segment| segment.to_string()),
        segments: known.segments,
    };
    graph.timelines().into_iter().map(line).collect()
}

impl GapLine {
    fn of(gap: &Gap) -> GapLine {
        GapLine { first: gap.first.to_string(), last: gap.last.to_string(), segments: gap.count }
    }
}

impl UnreadableLine {
    fn of(found: &Unreadable) -> UnreadableLine {
        UnreadableLine { object: found.object.to_string(), why: found.why.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        backup::{manifest::Moment, wal_graph::tests::graph},
        model::WalSegment,
    };

    fn check(wal: &ArchivedWal, catalog: &Catalog) -> WalReport {
        super::check(wal, catalog, &BTreeSet::new())
    }

    fn wal(segments: &[(u32, std::ops::RangeInclusive<u64>)]) -> ArchivedWal {
        let graph = graph(segments, &[(2, "1\t0/5000100\tx\n")]);
        ArchivedWal { graph, unreadable: Vec::new(), conflicts: Vec::new(), stored: 7 }
    }

    /// One backup, from segment 2 to segment 3 of timeline 1.
    fn catalog() -> Catalog {
        let mut header = crate::backup::catalog::tests::header(0, 1);
        let moment = |ordinal: u64| Moment { lsn: Lsn((ordinal << 24) + 0x28), ..header.stop.clone() };
        (header.start, header.stop) = (moment(2), moment(3));
        Catalog { backups: vec![header], unreadable: Vec::new() }
    }

    #[test]
    fn whole_wal_is_healthy_and_says_how_far_it_gets() {
        let report = check(&wal(&[(1, 1..=4), (2, 5..=9)]), &catalog());
        assert_eq!(report.verdict, Verdict::Healthy);
        let reach = report.reach.unwrap();
        assert_eq!((reach.timeline, reach.end.as_str(), reach.cut_short), (Timeline(2), "0/A000000", false));
        assert_eq!((report.timelines.len(), report.timelines[1].fork.as_deref()), (2, Some("0/5000100")));
    }

    #[test]
    fn a_hole_behind_the_newest_backup_is_critical_and_one_before_it_is_not() {
        let critical = check(&wal(&[(1, 1..=4), (2, 5..=6), (2, 8..=9)]), &catalog());
        assert_eq!((critical.verdict, critical.gaps.len()), (Verdict::Critical, 1));
        assert_eq!(critical.gaps[0].first, WalSegment::nth(Timeline(2), 7, 16 << 20).to_string());
        let within_the_backup = check(&wal(&[(1, 1..=2), (1, 4..=4), (2, 5..=6)]), &catalog());
        assert_eq!((within_the_backup.verdict, within_the_backup.reach), (Verdict::Critical, None));
        let before = check(&wal(&[(1, 0..=0), (1, 2..=4), (2, 5..=9)]), &catalog());
        assert_eq!(before.verdict, Verdict::Degraded);
        assert_eq!(check(&wal(&[(1, 1..=1), (1, 3..=4)]), &Catalog::default()).verdict, Verdict::Degraded, "nobody knows of a backup");
    }

    #[test]
    fn what_retention_takes_behind_a_pinned_backup_is_no_gap() {
        let pinned = catalog().backups.remove(0);
        let mut newer = pinned.clone();
        newer.id = BackupId::new(newer.start.time, 9);
        let moment = |ordinal: u64| Moment { lsn: Lsn((ordinal << 24) + 0x28), timeline: Timeline(2), ..newer.stop.clone() };
        (newer.start, newer.stop) = (moment(8), moment(9));
        let catalog = Catalog { backups: vec![pinned.clone(), newer], unreadable: Vec::new() };
        let (pins, none) = (BTreeSet::from([pinned.id]), BTreeSet::new());
        let verdict = |segments: &[(u32, std::ops::RangeInclusive<u64>)], pins| super::check(&wal(segments), &catalog, pins).verdict;
        let expired = [(1, 2..=3), (2, 8..=12)];
        assert_eq!((verdict(&expired, &pins), verdict(&expired, &none)), (Verdict::Healthy, Verdict::Degraded));
        assert_eq!(verdict(&[(1, 2..=4), (2, 5..=5), (2, 7..=12)], &pins), Verdict::Degraded, "all would have been removed");
        assert_eq!(verdict(&[(1, 2..=2), (2, 8..=12)], &pins), Verdict::Degraded, "the pinned one itself needs that");
        assert_eq!(verdict(&[(1, 2..=3), (2, 8..=9), (2, 11..=12)], &pins), Verdict::Critical);
    }

    #[test]
    fn contradictions_and_what_cannot_be_read_degrade() {
        let mut conflicting = wal(&[(1, 1..=4), (2, 5..=9)]);
        conflicting.conflicts.push("orders/conflict/7/x.zst".parse().unwrap());
        assert_eq!(check(&conflicting, &catalog()).verdict, Verdict::Degraded);
        let mut unreadable = catalog();
        unreadable.unreadable.push(Unreadable { object: "orders/backup/7/x/manifest".parse().unwrap(), why: "broken".to_owned() });
        let report = check(&wal(&[(1, 1..=4), (2, 5..=9)]), &unreadable);
        assert_eq!((report.verdict, report.unreadable.len()), (Verdict::Degraded, 1));
        assert_eq!(check(&wal(&[]), &Catalog::default()).verdict, Verdict::Healthy, "nothing is missing of an empty archive");
    }
}
