//! From which backup, and along which timelines, a target is reached. Pure: everything that is known in, the way or why there is none out.

use crate::{
    backup::{
        BackupId,
        catalog::Catalog,
        manifest::Header,
        postgres_manifest::WalRange,
        timeline_path::{Stretch, TimelinePath},
        wal_graph::{Gap, NoSuchTimeline, WalGraph},
    },
    model::{Lsn, RecoveryTarget, TargetTimeline, Timeline},
};

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// Where recovery is to end.
    pub target: RecoveryTarget,
    /// On which timeline.
    pub timeline: TargetTimeline,
    /// From which backup; without it the newest that leads there.
    pub backup: Option<BackupId>,
}

/// The way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// The backup.
    pub backup: Header,
    /// The timeline on which recovery ends.
    pub timeline: Timeline,
    /// How far WAL is whole along it.
    pub end: Lsn,
    /// WAL that makes the backup consistent.
    pub needed: Vec<WalRange>,
    /// What speaks against it, and does not forbid it.
    pub doubts: Vec<String>,
}

/// Why there is no way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoWay {
    /// There is nothing to restore.
    #[error("there is no backup{}", also(.0))]
    NoBackup(Vec<String>),
    /// The backup that was named is none.
    #[error("there is no backup '{id}'{}", also(.unreadable))]
    UnknownBackup {
        /// The backup.
        id: BackupId,
        /// Manifests that cannot be read.
        unreadable: Vec<String>,
    },
    /// The timeline that was named is none.
    #[error(transparent)]
    UnknownTimeline(#[from] NoSuchTimeline),
    /// No backup leads there.
    #[error("no backup leads to {target} on timeline {timeline}: {why}")]
    NoneLeads {
        /// The target.
        target: RecoveryTarget,
        /// The timeline.
        timeline: Timeline,
        /// Why none does.
        why: String,
    },
    /// WAL is missing that the backup needs to be consistent.
    #[error("backup '{id}' cannot be restored: the archive lacks WAL that it needs to be consistent: {}", list(.missing))]
    Incomplete {
        /// The backup.
        id: BackupId,
        /// What is missing.
        missing: Vec<Gap>,
    },
    /// WAL is missing before the target.
    #[error("recovery would not get to {target}: it would end at {end}, because the archive lacks {}", list(.missing))]
    Hole {
        /// The target.
        target: RecoveryTarget,
        /// How far WAL is whole.
        end: Lsn,
        /// What is missing.
        missing: Vec<Gap>,
    },
    /// The target lies behind everything that was archived.
    #[error("recovery would not get to {target}: the archived WAL ends at {end} on timeline {timeline}")]
    BehindTheEnd {
        /// The target.
        target: RecoveryTarget,
        /// Where WAL ends.
        end: Lsn,
        /// The timeline.
        timeline: Timeline,
    },
}

/// Finds the way.
///
/// # Errors
/// When there is none: nothing has to be written to find that out.
pub fn choose(catalog: &Catalog, graph: &WalGraph, wish: &Wish) -> Result<Way, NoWay> {
    let unreadable = || catalog.unreadable.iter().map(|found| format!("'{}': {}", found.object, found.why)).collect::<Vec<_>>();
    let named =
        wish.backup.as_ref().map(|id| catalog.find(id).ok_or_else(|| NoWay::UnknownBackup { id: id.clone(), unreadable: unreadable() }));
    let named = named.transpose()?;
    if catalog.backups.is_empty() {
        return Err(NoWay::NoBackup(unreadable()));
    }
    let path = path(catalog, graph, wish, named)?;
    let backup = match named {
        Some(backup) => leads(backup, &path, &wish.target).map(|()| backup),
        None => newest(catalog, &path, &wish.target),
    };
    let backup = backup.map_err(|why| NoWay::NoneLeads { target: wish.target.clone(), timeline: path.timeline(), why })?;
    let (end, mut doubts) = continuity(graph, &path, backup, &wish.target)?;
    if wish.backup.is_none() {
        doubts.extend(unreadable().into_iter().map(|told| format!("a manifest cannot be read, and may be of a better backup: {told}")));
    }
    if backup.bad_page_count > 0 {
        doubts.push(format!("{} pages had a wrong checksum when backup '{}' was made", backup.bad_page_count, backup.id));
    }
    Ok(Way { backup: backup.clone(), timeline: path.timeline(), end, needed: needed(&path, backup), doubts })
}

/// What of the path the backup itself needs.
fn needed(path: &TimelinePath, backup: &Header) -> Vec<WalRange> {
    let of_stretch = |stretch: &Stretch| WalRange {
        timeline: stretch.timeline,
        start: stretch.begin.max(backup.start.lsn),
        end: stretch.end.map_or(backup.stop.lsn, |end| end.min(backup.stop.lsn)),
    };
    path.stretches().iter().map(of_stretch).filter(|range| range.start < range.end).collect()
}

/// The way through timelines that is wished for.
fn path(catalog: &Catalog, graph: &WalGraph, wish: &Wish, named: Option<&Header>) -> Result<TimelinePath, NoWay> {
    let timeline = match (wish.timeline, named) {
        (TargetTimeline::Number(timeline), _) => timeline,
        (TargetTimeline::Current, Some(backup)) => backup.stop.timeline,
        (TargetTimeline::Current, None) => {
            let before = catalog.backups.iter().rev().find(|backup| is_before(backup, &wish.target));
            before.or(catalog.backups.last()).map_or(Timeline(1), |backup| backup.stop.timeline)
        }
        (TargetTimeline::Latest, _) => newest_timeline(catalog, graph),
    };
    Ok(graph.path(timeline)?)
}

/// The newest timeline that somebody has written WAL on. One that was only begun has nothing to recover.
fn newest_timeline(catalog: &Catalog, graph: &WalGraph) -> Timeline {
    let written = graph.timelines().into_iter().filter(|known| known.segments > 0).map(|known| known.timeline);
    let copied = catalog.backups.iter().map(|backup| backup.stop.timeline);
    written.chain(copied).max().unwrap_or(Timeline(1))
}

/// The newest backup from which the target is reached.
fn newest<'a>(catalog: &'a Catalog, path: &TimelinePath, target: &RecoveryTarget) -> Result<&'a Header, String> {
    let mut on_it = catalog.backups.iter().rev().filter(|backup| lies_on(backup, path)).peekable();
    if on_it.peek().is_none() {
        return Err("every backup lies on another history".to_owned());
    }
    on_it.find(|backup| is_before(backup, target)).ok_or_else(|| {
        let oldest = catalog.backups.iter().find(|backup| lies_on(backup, path));
        oldest.map_or_else(String::new, |oldest| format!("the oldest, '{}', was complete at {} only", oldest.id, moment(oldest, target)))
    })
}

fn leads(backup: &Header, path: &TimelinePath, target: &RecoveryTarget) -> Result<(), String> {
    if !lies_on(backup, path) {
        Err(format!("backup '{}' lies on another history", backup.id))
    } else if !is_before(backup, target) {
        Err(format!("backup '{}' was complete at {} only", backup.id, moment(backup, target)))
    } else {
        Ok(())
    }
}

fn lies_on(backup: &Header, path: &TimelinePath) -> bool {
    path.contains(backup.start.timeline, backup.start.lsn) && path.contains(backup.stop.timeline, backup.stop.lsn)
}

/// Whether the data of the backup are consistent before the target is reached, as far as that can be known.
fn is_before(backup: &Header, target: &RecoveryTarget) -> bool {
    match target {
        RecoveryTarget::Time(time) => backup.stop.time <= *time,
        RecoveryTarget::Lsn(lsn) => backup.stop.lsn <= *lsn,
        RecoveryTarget::End | RecoveryTarget::Immediate | RecoveryTarget::Xid(_) | RecoveryTarget::Name(_) => true,
    }
}

fn moment(backup: &Header, target: &RecoveryTarget) -> String {
    if matches!(target, RecoveryTarget::Lsn(_)) { backup.stop.lsn.to_string() } else { backup.stop.time.to_string() }
}

/// How far WAL is whole, and what is doubtful about the target.
fn continuity(graph: &WalGraph, path: &TimelinePath, backup: &Header, target: &RecoveryTarget) -> Result<(Lsn, Vec<String>), NoWay> {
    let missing = graph.missing(path, backup.start.lsn, backup.stop.lsn);
    if !missing.is_empty() {
        return Err(NoWay::Incomplete { id: backup.id.clone(), missing });
    }
    let reach = graph.reach(path, backup.start.lsn);
    let behind = || NoWay::BehindTheEnd { target: target.clone(), end: reach.end, timeline: path.timeline() };
    let hole = |gap: Gap| NoWay::Hole { target: target.clone(), end: reach.end, missing: vec![gap] };
    match (target, reach.hole) {
        (RecoveryTarget::Immediate, _) | (_, None) if !matches!(target, RecoveryTarget::Lsn(lsn) if *lsn >= reach.end) => {
            Ok((reach.end, Vec::new()))
        }
        (RecoveryTarget::Lsn(lsn), _) if *lsn < reach.end => Ok((reach.end, Vec::new())),
        (RecoveryTarget::Lsn(_) | RecoveryTarget::End, Some(gap)) => Err(hole(gap)),
        (_, None) => Err(behind()),
        (_, Some(gap)) => {
            let doubt = format!("WAL is whole to {} only, the archive lacks {gap}: recovery fails if {target} lies behind that", reach.end);
            Ok((reach.end, vec![doubt]))
        }
    }
}

fn list(gaps: &[Gap]) -> String {
    gaps.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn also(unreadable: &[String]) -> String {
    if unreadable.is_empty() { String::new() } else { format!(" that can be read: {}", unreadable.join("; ")) }
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};

    use super::*;
    use crate::backup::{
        catalog::{Unreadable, tests::header},
        manifest::Moment,
        wal_graph::tests::graph,
    };

    const SEGMENT: u64 = 16 << 20;

    /// Timeline 2 left 1 in segment 5, timeline 3 left 2 in segment 8.
    const HISTORIES: [(u32, &str); 2] = [(2, "1\t0/5000100\tx\n"), (3, "1\t0/5000100\tx\n2\t0/8000100\tx\n")];

    fn whole() -> WalGraph {
        graph(&[(1, 1..=6), (2, 5..=9), (3, 8..=12)], &HISTORIES)
    }

    fn begin() -> Timestamp {
        "2026-11-21T20:00:00Z".parse().unwrap()
    }

    fn minutes(count: i64) -> Timestamp {
        begin() + SignedDuration::from_mins(count)
    }

    /// A backup of the timeline, within this segment, complete so many minutes after the beginning.
    fn backup(timeline: u32, segment: u64, minute: i64) -> Header {
        let moment = |offset, minute| Moment { time: minutes(minute), lsn: Lsn(segment * SEGMENT + offset), timeline: Timeline(timeline) };
        let mut header = header(0, u32::try_from(minute).unwrap());
        (header.start, header.stop) = (moment(0x28, minute - 1), moment(0x80, minute));
        header
    }

    fn catalog(backups: &[Header]) -> Catalog {
        Catalog { backups: backups.to_vec(), unreadable: Vec::new() }
    }

    fn three() -> Catalog {
        catalog(&[backup(1, 2, 10), backup(2, 6, 20), backup(3, 9, 30)])
    }

    fn wish(target: RecoveryTarget, timeline: TargetTimeline) -> Wish {
        Wish { target, timeline, backup: None }
    }

    fn time(minute: i64) -> RecoveryTarget {
        RecoveryTarget::Time(minutes(minute))
    }

    /// Minute of the backup's end, and the timeline.
    fn chosen(target: RecoveryTarget, timeline: TargetTimeline) -> (i64, u32) {
        let way = choose(&three(), &whole(), &wish(target, timeline)).unwrap();
        assert_eq!(way.doubts, Vec::<String>::new());
        (way.backup.stop.time.duration_since(begin()).as_mins(), way.timeline.0)
    }

    #[test]
    fn the_newest_backup_before_the_target_on_its_history_is_taken() {
        use TargetTimeline::{Current, Latest, Number};
        assert_eq!(chosen(RecoveryTarget::End, Latest), (30, 3));
        assert_eq!(chosen(RecoveryTarget::Immediate, Latest), (30, 3));
        assert_eq!(chosen(RecoveryTarget::Xid(700), Latest), (30, 3));
        assert_eq!(chosen(time(30), Latest), (30, 3));
        assert_eq!(chosen(time(29), Latest), (20, 3));
        assert_eq!(chosen(time(15), Latest), (10, 3));
        assert_eq!(chosen(time(15), Current), (10, 1));
        assert_eq!(chosen(time(25), Number(Timeline(2))), (20, 2));
        assert_eq!(chosen(time(25), Number(Timeline(1))), (10, 1));
        assert_eq!(chosen(RecoveryTarget::Lsn(Lsn(9 * SEGMENT + 0x80)), Latest), (30, 3));
        assert_eq!(chosen(RecoveryTarget::Lsn(Lsn(9 * SEGMENT + 0x7f)), Latest), (20, 3));
        assert_eq!(
            chosen(RecoveryTarget::Lsn(Lsn(6 * SEGMENT)), Number(Timeline(1))),
            (10, 1),
            "what the old primary wrote behind the fork"
        );
    }

    #[test]
    fn a_backup_that_was_made_through_a_promotion_needs_wal_of_both_timelines() {
        let mut crossed = backup(2, 6, 20);
        crossed.start = backup(1, 2, 10).start;
        let way = choose(&catalog(&[crossed]), &whole(), &wish(RecoveryTarget::End, TargetTimeline::Latest)).unwrap();
        let range = |timeline, start, end| WalRange { timeline: Timeline(timeline), start: Lsn(start), end: Lsn(end) };
        assert_eq!(way.needed, [range(1, 0x200_0028, 0x500_0100), range(2, 0x500_0100, 0x600_0080)]);
    }

    fn told(catalog: &Catalog, graph: &WalGraph, wish: &Wish) -> String {
        choose(catalog, graph, wish).unwrap_err().to_string()
    }

    #[test]
    fn a_target_before_every_backup_is_refused_with_the_first_one_that_is_possible() {
        let told = told(&three(), &whole(), &wish(time(9), TargetTimeline::Latest));
        assert!(told.contains("20:09:00") && told.contains("20:10:00") && told.contains(three().backups[0].id.as_str()), "{told}");
    }

    #[test]
    fn a_backup_of_another_history_is_not_taken() {
        let only = catalog(&[backup(1, 6, 10)]);
        let latest = wish(RecoveryTarget::End, TargetTimeline::Latest);
        assert!(told(&only, &whole(), &latest).contains("another history"), "timeline 1 was left before");
        assert_eq!(choose(&only, &whole(), &wish(RecoveryTarget::End, TargetTimeline::Current)).unwrap().timeline, Timeline(1));
        let named = Wish { backup: Some(only.backups[0].id.clone()), ..latest };
        assert!(told(&only, &whole(), &named).contains("another history"));
    }

    #[test]
    fn the_named_backup_is_taken_or_it_is_said_why_not() {
        let catalog = three();
        let named = |at: usize, target| Wish { backup: Some(catalog.backups[at].id.clone()), ..wish(target, TargetTimeline::Latest) };
        assert_eq!(choose(&catalog, &whole(), &named(0, RecoveryTarget::End)).unwrap().backup, catalog.backups[0]);
        assert!(told(&catalog, &whole(), &named(2, time(25))).contains("20:30:00"));
        let unknown = Wish { backup: Some("20261121T204500Z-ffffffff".parse().unwrap()), ..named(0, RecoveryTarget::End) };
        assert!(told(&catalog, &whole(), &unknown).contains("ffffffff"));
    }

    #[test]
    fn wal_that_is_missing_is_found_before_anything_is_written() {
        let latest = |target| wish(target, TargetTimeline::Latest);
        let incomplete = graph(&[(1, 1..=6), (2, 5..=9), (3, 8..=8), (3, 10..=12)], &HISTORIES);
        let said = told(&three(), &incomplete, &latest(RecoveryTarget::Immediate));
        assert!(said.contains("000000030000000000000009") && said.contains("consistent"), "{said}");
        let hole = graph(&[(1, 1..=6), (2, 5..=9), (3, 8..=10), (3, 12..=12)], &HISTORIES);
        let said = told(&three(), &hole, &latest(RecoveryTarget::End));
        assert!(said.contains("00000003000000000000000B") && said.contains("0/B000000"), "{said}");
        assert!(choose(&three(), &hole, &latest(RecoveryTarget::Immediate)).is_ok());
        assert!(choose(&three(), &hole, &latest(RecoveryTarget::Lsn(Lsn(11 * SEGMENT - 1)))).is_ok());
        assert!(told(&three(), &hole, &latest(RecoveryTarget::Lsn(Lsn(11 * SEGMENT)))).contains("00000003000000000000000B"));
        let doubtful = choose(&three(), &hole, &latest(time(40))).unwrap();
        assert!(doubtful.doubts[0].contains("00000003000000000000000B"), "{:?}", doubtful.doubts);
        let said = told(&three(), &whole(), &latest(RecoveryTarget::Lsn(Lsn(13 * SEGMENT))));
        assert!(said.contains("ends at 0/D000000"), "{said}");
    }

    #[test]
    fn nothing_to_restore_is_said_with_what_cannot_be_read() {
        let mut none = Catalog::default();
        let end = wish(RecoveryTarget::End, TargetTimeline::Latest);
        assert_eq!(told(&none, &whole(), &end), "there is no backup");
        none.unreadable.push(Unreadable { object: "orders/backup/7/x/manifest".parse().unwrap(), why: "broken".to_owned() });
        assert!(told(&none, &whole(), &end).contains("orders/backup/7/x/manifest': broken"));
        let some = Catalog { unreadable: none.unreadable, ..three() };
        assert!(choose(&some, &whole(), &end).unwrap().doubts[0].contains("broken"), "it may be a better backup");
        let nowhere = wish(RecoveryTarget::End, TargetTimeline::Number(Timeline(9)));
        assert!(told(&three(), &whole(), &nowhere).contains("timeline 9"));
    }
}
