//! What a primary that is gone has not archived. A standby notes what it streams as archived, though it archives nothing, so after a promotion
//! PostgreSQL asks for none of it. The service of the new primary looks what the archive lacks of the way that led here, and archives it.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
    rc::Rc,
};

use serde_json::{Value, json};

use super::{pusher::Pusher, vault::Vault};
use crate::{
    backup::{
        archive::{Archive, ArchiveError},
        timeline_path::{Stretch, TimelinePath},
        wal_graph::WalGraph,
        wal_push::on_a_thread,
    },
    model::{Lsn, SystemId, Timeline, WalFile, WalSegment},
    postgres::{control_data, timelines},
    storage::{ObjectName, Store},
    sys::causes,
};

/// Segments that are archived at a time.
const AT_A_TIME: usize = 8;

/// Sees that nothing is left behind, once for each timeline that this server is the primary of.
pub struct LeftBehind {
    vault: Rc<Vault>,
    pusher: Rc<Pusher>,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    /// The newest timeline that PostgreSQL has wanted something archived of, and whose: until its first checkpoint, a server's control file
    /// names the timeline before.
    heard: Option<(SystemId, Timeline)>,
    done: Option<(SystemId, Timeline)>,
    running: bool,
    pushed: usize,
    error: Option<String>,
    /// WAL that neither the archive nor this server has.
    missing: Vec<String>,
}

impl LeftBehind {
    /// Nothing was looked at yet.
    pub fn new(vault: Rc<Vault>, pusher: Rc<Pusher>) -> Rc<LeftBehind> {
        Rc::new(LeftBehind { vault, pusher, state: RefCell::default() })
    }

    /// PostgreSQL wants this file archived. A history is the first that a new primary wants, and what its predecessor left must not wait: the
    /// next checkpoint may remove it.
    pub fn heard(self: &Rc<Self>, file: WalFile) {
        let timeline = match file {
            WalFile::History(timeline) => timeline,
            WalFile::Segment(segment) | WalFile::Partial(segment) | WalFile::BackupNote(segment, _) => segment.timeline,
        };
        let Ok(system) = control_data::system_id(&self.vault.data_dir) else { return };
        let mut state = self.state.borrow_mut();
        let newer = state.heard.is_none_or(|(before, heard)| before != system || heard < timeline);
        if newer {
            state.heard = Some((system, timeline));
        }
        drop(state);
        if newer {
            self.look();
        }
    }

    /// Looks whether there is anything to be done, and does it.
    pub fn look(self: &Rc<Self>) {
        let mut state = self.state.borrow_mut();
        let Some(primary) = primary(&self.vault.data_dir, state.heard) else { return };
        if state.running || state.done == Some(primary) {
            return;
        }
        state.running = true;
        drop(state);
        let this = self.clone();
        tokio::task::spawn_local(async move {
            let ended = this.fill(primary.1).await;
            let mut state = this.state.borrow_mut();
            state.running = false;
            match ended {
                Ok(()) => (state.done, state.error) = (Some(primary), None),
                Err(why) => {
                    if state.error.as_ref() != Some(&why) {
                        tracing::warn!("what was left behind before timeline {} is not archived yet: {why}", primary.1);
                    }
                    state.error = Some(why);
                }
            }
        });
    }

    async fn fill(&self, timeline: Timeline) -> Result<(), String> {
        let data_dir = self.vault.data_dir.clone();
        let past = timelines::lineage(&data_dir, timeline).ok_or_else(|| format!("there is no history of timeline {timeline}"))?;
        let path = TimelinePath::new(&past, timeline);
        let told = |error: ArchiveError| causes::in_one_line(&error);
        let archive = self.vault.archive().await.map_err(told)?;
        let way = path.clone();
        let held = on_a_thread(move || held(&data_dir, &way)).await.map_err(told)?;
        let mut there = There { archive, folders: BTreeMap::new() };
        let mut absent = Vec::new();
        for segment in &held.segments {
            if !there.has(*segment).await.map_err(told)? {
                absent.push(*segment);
            }
        }
        if !absent.is_empty() {
            tracing::warn!("{} segments that the last primary had not archived are archived now", absent.len());
        }
        for some in absent.chunks(AT_A_TIME) {
            let jobs = some.iter().map(|segment| self.pusher.archive_now(WalFile::Segment(*segment)));
            for archived in futures_util::future::join_all(jobs).await {
                archived?;
                self.state.borrow_mut().pushed += 1;
            }
        }
        let missing = match held.segment_size {
            Some(size) => there.missing(&path, size, &held).await.map_err(told)?,
            None => Vec::new(),
        };
        if let Some(first) = missing.first() {
            tracing::error!(
                "{} segments from '{first}' on are neither in the archive nor here: no recovery gets past them; take a base backup",
                missing.len()
            );
        }
        self.state.borrow_mut().missing = missing;
        Ok(())
    }

    /// How far it is, for people and programs.
    pub fn told(&self) -> Value {
        let state = self.state.borrow();
        let name = match (&state.error, state.running, state.done) {
            (_, true, _) => "running",
            (Some(_), ..) => "failing",
            (None, _, Some(_)) => "done",
            (None, _, None) => "not primary",
        };
        let timeline = state.done.map(|(_, timeline)| timeline.0);
        json!({"state": name, "timeline": timeline, "archived": state.pushed, "error": state.error, "missing": state.missing})
    }
}

/// A primary runs on the data directory.
pub fn is_primary(data_dir: &Path) -> bool {
    primary(data_dir, None).is_some()
}

/// Whose primary runs on the data directory, and on which timeline. `None`: there is none.
fn primary(data_dir: &Path, heard: Option<(SystemId, Timeline)>) -> Option<(SystemId, Timeline)> {
    if data_dir.join("standby.signal").exists() || data_dir.join("recovery.signal").exists() {
        return None;
    }
    let glimpse = control_data::glimpse(data_dir)?;
    let heard = heard.filter(|(system, _)| *system == glimpse.system).map(|(_, timeline)| timeline);
    glimpse.in_production.then(|| (glimpse.system, heard.map_or(glimpse.timeline, |heard| heard.max(glimpse.timeline))))
}

/// What `pg_wal` has of the path.
#[derive(Debug, Default)]
struct Held {
    /// How large its segments are; `None`: it has none at all.
    segment_size: Option<u64>,
    /// The whole ones that PostgreSQL does not want archived, in their order.
    segments: Vec<WalSegment>,
    /// Those that it will ask for.
    waiting: Vec<WalSegment>,
}

impl Held {
    /// Where WAL may be missing: before the first of these positions, and between the two. Behind the second there is what this server has,
    /// and what PostgreSQL keeps until it is archived.
    fn doubtful(&self, path: &TimelinePath, size: u64) -> (Lsn, Lsn) {
        let first = self.segments.first().map(|first| Lsn(first.begin(size)));
        // The segment in which a timeline begins has the end of the one before. The first timeline of all has none before it.
        let own = path.stretches().last().filter(|own| own.begin > Lsn(0)).map(|own| Lsn(own.begin.0 / size * size));
        let (some, other) = (first.or(own).unwrap_or(Lsn(0)), own.or(first).unwrap_or(Lsn(0)));
        (some.min(other), some.max(other))
    }
}

fn held(data_dir: &Path, path: &TimelinePath) -> Result<Held, ArchiveError> {
    let folder = data_dir.join("pg_wal");
    let list = || -> io::Result<Held> {
        let mut held = Held::default();
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let Some(Ok(WalFile::Segment(segment))) = entry.file_name().to_str().map(str::parse) else { continue };
            // PostgreSQL may have removed it by now.
            let Ok(size) = entry.metadata().map(|found| found.len()) else { continue };
            if !(1 << 20..=1 << 30).contains(&size) || !size.is_power_of_two() {
                continue;
            }
            held.segment_size = Some(size);
            let note = |kind: &str| folder.join(format!("archive_status/{segment}.{kind}")).exists();
            if note("ready") {
                held.waiting.push(segment);
            } else if belongs(path, segment, size) && (segment.timeline != path.timeline() || note("done")) {
                held.segments.push(segment);
            }
        }
        held.segments.sort_by_key(|segment| (segment.log, segment.number, segment.timeline));
        Ok(held)
    };
    list().map_err(|source| ArchiveError::File { action: "read", path: folder.display().to_string(), source })
}

/// True when all of the segment lies on the path, on its own timeline. Files that are kept for later use have names beyond it.
fn belongs(path: &TimelinePath, segment: WalSegment, size: u64) -> bool {
    if segment.ordinal(size).is_none() {
        return false;
    }
    let end = Lsn(segment.begin(size) + size);
    path.stretches()
        .iter()
        .any(|stretch| stretch.timeline == segment.timeline && end > stretch.begin && stretch.end.is_none_or(|fork| end <= fork))
}

/// What the archive has, by folders: those near a fork are few.
struct There {
    archive: Archive<Store>,
    folders: BTreeMap<(Timeline, u32), BTreeSet<WalSegment>>,
}

impl There {
    async fn has(&mut self, segment: WalSegment) -> Result<bool, ArchiveError> {
        Ok(self.folder(segment).await?.contains(&segment))
    }

    /// The segments of the same folder.
    async fn folder(&mut self, segment: WalSegment) -> Result<&BTreeSet<WalSegment>, ArchiveError> {
        let key = (segment.timeline, segment.log);
        if !self.folders.contains_key(&key) {
            let segments = self.segments(&self.archive.folder(segment)?).await?;
            self.folders.insert(key, segments.into_iter().collect());
        }
        Ok(&self.folders[&key])
    }

    async fn segments(&self, folder: &ObjectName) -> Result<Vec<WalSegment>, ArchiveError> {
        let objects = self.archive.store().list(folder).await?;
        let names = objects.iter().filter_map(|object| object.name.last().strip_suffix(".zst")?.parse().ok());
        Ok(names.filter_map(|file| if let WalFile::Segment(segment) = file { Some(segment) } else { None }).collect())
    }

    /// What is missing of the path behind the last segment that the archive has of it, whichever timeline that is of. Nothing, where it has
    /// none at all: then archiving began here.
    async fn missing(&self, path: &TimelinePath, size: u64, held: &Held) -> Result<Vec<String>, ArchiveError> {
        let (begin, until) = held.doubtful(path, size);
        for before in [begin, until] {
            let mut known: Vec<WalSegment> = held.segments.iter().chain(&held.waiting).copied().collect();
            let mut last = None;
            for stretch in path.stretches().iter().rev().filter(|stretch| stretch.begin < until) {
                let archived = self.segments(&self.archive.timeline(stretch.timeline)?).await?;
                last = last_end(stretch, &archived, size, before);
                known.extend(archived);
                if last.is_some() {
                    break;
                }
            }
            if let Some(from) = last {
                return Ok(names(path, size, known, (from, until)));
            }
        }
        Ok(Vec::new())
    }
}

/// Where the last of these segments ends that the stretch has before this position.
fn last_end(stretch: &Stretch, segments: &[WalSegment], size: u64, before: Lsn) -> Option<Lsn> {
    let limit = stretch.end.map_or(before, |fork| fork.min(before));
    let end = |segment: &WalSegment| Lsn(segment.begin(size).saturating_add(size));
    let on_it = |segment: &&WalSegment| segment.begin(size) < limit.0 && end(segment) > stretch.begin;
    segments.iter().filter(on_it).max().map(|last| end(last).min(limit))
}

/// The segments between two positions of the path that are not among the `known` ones.
fn names(path: &TimelinePath, size: u64, known: Vec<WalSegment>, (from, until): (Lsn, Lsn)) -> Vec<String> {
    let Ok(segment_size) = u32::try_from(size) else { return Vec::new() };
    let graph = WalGraph::new(segment_size, known.into_iter().map(WalFile::Segment), []);
    graph.missing(path, from, until).iter().flat_map(|gap| gap.segments(size)).map(|segment| segment.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::parse_history;

    const SIZE: u64 = 1 << 20;

    fn path() -> TimelinePath {
        // Timeline 1 ends in the middle of segment 5, timeline 2 at the end of segment 7.
        TimelinePath::new(&parse_history("1\t0/580000\tx\n2\t0/800000\tx\n").unwrap(), Timeline(3))
    }

    fn segment(timeline: u32, ordinal: u64) -> WalSegment {
        WalSegment::nth(Timeline(timeline), ordinal, SIZE)
    }

    #[test]
    fn only_whole_segments_of_the_way_that_led_here_belong_to_it() {
        let of = |timeline| (1..12).filter(|ordinal| belongs(&path(), segment(timeline, *ordinal), SIZE)).collect::<Vec<u64>>();
        assert_eq!((of(1), of(2), of(3), of(4)), (vec![1, 2, 3, 4], vec![5, 6, 7], vec![8, 9, 10, 11], vec![]));
    }

    #[test]
    fn what_postgresql_will_ask_for_itself_is_left_to_it() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("pg_wal/archive_status")).unwrap();
        for (timeline, ordinal, note) in
            [(1, 3, "done"), (1, 4, ""), (1, 5, "done"), (2, 6, "ready"), (2, 7, "done"), (3, 8, "done"), (3, 9, ""), (3, 10, "ready")]
        {
            let name = segment(timeline, ordinal).to_string();
            fs::File::create(dir.path().join("pg_wal").join(&name)).unwrap().set_len(SIZE).unwrap();
            if !note.is_empty() {
                fs::write(dir.path().join(format!("pg_wal/archive_status/{name}.{note}")), "").unwrap();
            }
        }
        let found = held(dir.path(), &path()).unwrap();
        assert_eq!(found.segments, [segment(1, 3), segment(1, 4), segment(2, 7), segment(3, 8)]);
        assert_eq!((found.waiting.len(), found.segment_size), (2, Some(SIZE)));
    }

    #[test]
    fn wal_may_be_missing_before_what_is_held_and_before_the_timeline_itself() {
        let doubtful = |segments: &[WalSegment], path: &TimelinePath| {
            let held = Held { segments: segments.to_vec(), ..Held::default() };
            let (begin, until) = held.doubtful(path, SIZE);
            (begin.0 / SIZE, until.0 / SIZE)
        };
        assert_eq!(doubtful(&[], &path()), (8, 8));
        assert_eq!((doubtful(&[segment(1, 3)], &path()), doubtful(&[segment(3, 20)], &path())), ((3, 8), (8, 20)));
        let first = TimelinePath::new(&[], Timeline(1));
        assert_eq!((doubtful(&[], &first), doubtful(&[segment(1, 3)], &first)), ((0, 0), (3, 3)));
    }
}
