//! Restoring ahead: while PostgreSQL replays a segment, the next ones are on their way. Each is checked before it is offered, and handed over
//! by renaming it.

use std::{
    cell::RefCell,
    collections::HashMap,
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::{health, health::Health, vault::Vault};
use crate::{
    backup::{
        archive::ArchiveError,
        wal_fetch::fetch_with,
        wal_silence::{ends_nothing, is_never_there},
        wal_wire::Answer,
    },
    model::{WalFile, WalSegment},
    storage::StoreError,
    sys::files,
};

/// At most so many segments are fetched ahead, and so many bytes of them; one in any case.
const AHEAD: u32 = 16;
const AHEAD_BYTES: u64 = 256 << 20;

/// So much has to stay free on the volume.
const LEFT_FREE: u64 = 1 << 30;

/// After so many segments in a row it is a recovery, and not somebody who looks for something.
const IN_A_ROW: u32 = 2;

/// That the store has no such segment is believed for so long, by a standby, which asks again.
const BELIEVED: Duration = Duration::from_secs(1);

/// The same of a history. A standby that cannot stream asks for the next one ten times a second, and is only seen to be cut off from its last
/// leader between two questions: answers that take long would keep it from voting.
const BELIEVED_OF_HISTORY: Duration = Duration::from_millis(500);

/// A segment that was fetched ahead and that nobody wants makes room after this time.
const KEPT: Duration = Duration::from_secs(300);

/// How long PostgreSQL waits for an answer. A standby asks again by itself, and may be about to be promoted; nothing else does.
const STANDBY: Duration = Duration::from_secs(3);
const RECOVERY: Duration = Duration::from_secs(60);

/// A standby waits no longer than this for a store that has just failed to answer.
const FAILED: Duration = Duration::from_millis(100);
const FAILED_LATELY: Duration = Duration::from_secs(10);

/// Between two questions to a store that did not answer.
const PAUSE: Duration = Duration::from_millis(500);

/// Restores what PostgreSQL asks for, and what it will ask for next.
pub struct Fetcher {
    vault: Rc<Vault>,
    health: Rc<Health>,
    /// Where segments wait until they are asked for.
    folder: PathBuf,
    window: RefCell<Window>,
}

/// How a segment fared.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    /// It is in our folder, and has this many bytes.
    Here(u64),
    /// The store says that there is none.
    Absent,
    /// Nobody knows; it may pass.
    Unknown(String),
    /// What the archive has cannot be used.
    Unfit(String),
}

type Job = watch::Receiver<Option<Outcome>>;

#[derive(Default)]
struct Window {
    jobs: HashMap<WalSegment, Job>,
    /// What waits in our folder, since when, and how large it is.
    here: HashMap<WalSegment, (Instant, u64)>,
    absent: HashMap<WalSegment, Instant>,
    /// The history that was asked for last and is not there.
    without_history: Option<(WalFile, Instant)>,
    last: Option<WalSegment>,
    /// How many segments were asked for one after the other.
    row: u32,
    failed: Option<Instant>,
}

impl Fetcher {
    /// One that has fetched nothing yet. What an earlier one has left is removed.
    pub fn new(vault: Rc<Vault>, health: Rc<Health>) -> Rc<Fetcher> {
        let folder = files::beside(&vault.data_dir, ".wal-fetch");
        if let Err(error) = files::remove_dir(&folder) {
            tracing::warn!("'{}' cannot be removed: {error}", folder.display());
        }
        Rc::new(Fetcher { vault, health, folder, window: RefCell::default() })
    }

    /// Answers when the file is in its place, or the store says that there is none, or nobody knows.
    pub async fn fetch(self: &Rc<Self>, name: &str, destination: &Path) -> Answer {
        let file = match name.parse::<WalFile>() {
            Ok(file) => file,
            // PostgreSQL asks for nothing else, and no archive has it.
            Err(error) => return Answer::Again(error.to_string()),
        };
        let data = destination.parent().and_then(Path::parent).unwrap_or(&self.vault.data_dir);
        let standby = data.join("standby.signal").exists();
        let until = Instant::now() + self.patience(ends_nothing(data, Some(file)));
        if is_never_there(file) {
            return Answer::Absent;
        }
        match file {
            WalFile::Segment(segment) => self.segment(segment, destination, standby, until).await,
            _ => self.other(file, destination, standby, until).await,
        }
    }

    fn patience(&self, silence_is_harmless: bool) -> Duration {
        let failed = self.window.borrow().failed.is_some_and(|at| at.elapsed() < FAILED_LATELY);
        match (silence_is_harmless, failed) {
            (true, true) => FAILED,
            (true, false) => STANDBY,
            (false, _) => RECOVERY,
        }
    }

    /// A history, or what else is small. Where timelines are looked at, what was not there a moment ago may be there now.
    async fn other(&self, file: WalFile, destination: &Path, standby: bool, until: Instant) -> Answer {
        self.window.borrow_mut().absent.clear();
        let believed = |window: &Window| window.without_history.is_some_and(|(of, at)| of == file && at.elapsed() < BELIEVED_OF_HISTORY);
        if standby && believed(&self.window.borrow()) {
            return Answer::Absent;
        }
        loop {
            let destination = destination.to_owned();
            let write = move |content: &[u8]| {
                let written = files::replace(&destination, content, 0o600);
                written.map_err(|source| ArchiveError::File { action: "write", path: destination.display().to_string(), source })
            };
            let asked = async { fetch_with(&self.vault.archive().await?, file, write).await };
            let error = match tokio::time::timeout_at(until.into(), asked).await {
                Ok(Ok(Some(()))) => {
                    self.succeeded();
                    return Answer::Done;
                }
                Ok(Ok(None)) => {
                    self.window.borrow_mut().without_history = Some((file, Instant::now()));
                    self.answered();
                    return Answer::Absent;
                }
                Ok(Err(error)) if !passes(&error) => return self.gave_up(file, health::told(&error)),
                Ok(Err(error)) => health::told(&error),
                Err(_) => "the store did not answer in time".to_owned(),
            };
            if Instant::now() + PAUSE >= until {
                return self.gave_up(file, error);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn segment(self: &Rc<Self>, segment: WalSegment, destination: &Path, standby: bool, until: Instant) -> Answer {
        let file = WalFile::Segment(segment);
        loop {
            match self.hand_over(segment, destination) {
                Some(Ok(size)) => {
                    self.look_ahead(segment, size);
                    return Answer::Done;
                }
                Some(Err(error)) => return self.gave_up(file, format!("it cannot be put to '{}': {error}", destination.display())),
                None => {}
            }
            let believed = self.window.borrow().absent.get(&segment).is_some_and(|at| at.elapsed() < BELIEVED);
            if standby && believed {
                return Answer::Absent;
            }
            let mut job = self.job(segment);
            let waited = tokio::time::timeout_at(until.into(), job.wait_for(Option::is_some)).await;
            let why = match waited.map(|outcome| outcome.ok().and_then(|outcome| outcome.clone())) {
                Ok(Some(Outcome::Here(_))) => continue,
                Ok(Some(Outcome::Absent)) => return Answer::Absent,
                Ok(Some(Outcome::Unfit(why))) => return self.gave_up(file, why),
                Ok(Some(Outcome::Unknown(why))) => why,
                Ok(None) => "the WAL service lost track of it".to_owned(),
                Err(_) => "the store did not answer in time".to_owned(),
            };
            if Instant::now() + PAUSE >= until {
                return self.gave_up(file, why);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The job that fetches the segment, begun if need be.
    fn job(self: &Rc<Self>, segment: WalSegment) -> Job {
        if let Some(job) = self.window.borrow().jobs.get(&segment) {
            return job.clone();
        }
        let (tell, job) = watch::channel(None);
        self.window.borrow_mut().jobs.insert(segment, job.clone());
        let fetcher = self.clone();
        tokio::task::spawn_local(async move {
            let outcome = fetcher.bring(segment).await;
            let mut window = fetcher.window.borrow_mut();
            window.jobs.remove(&segment);
            match &outcome {
                Outcome::Here(size) => drop(window.here.insert(segment, (Instant::now(), *size))),
                Outcome::Absent => drop(window.absent.insert(segment, Instant::now())),
                Outcome::Unknown(_) => window.failed = Some(Instant::now()),
                Outcome::Unfit(_) => {}
            }
            drop(window);
            match &outcome {
                Outcome::Here(_) => fetcher.succeeded(),
                Outcome::Absent => fetcher.answered(),
                _ => {}
            }
            tell.send_replace(Some(outcome));
        });
        job
    }

    async fn bring(&self, segment: WalSegment) -> Outcome {
        let path = self.path_of(segment);
        let write = move |content: &[u8]| {
            let written = write(&path, content).map(|()| content.len() as u64);
            written.map_err(|source| ArchiveError::File { action: "write", path: path.display().to_string(), source })
        };
        let brought = async { fetch_with(&self.vault.archive().await?, WalFile::Segment(segment), write).await };
        match brought.await {
            Ok(Some(size)) => Outcome::Here(size),
            Ok(None) => Outcome::Absent,
            Err(error) if passes(&error) => Outcome::Unknown(health::told(&error)),
            Err(error) => Outcome::Unfit(health::told(&error)),
        }
    }

    fn path_of(&self, segment: WalSegment) -> PathBuf {
        self.folder.join(segment.to_string())
    }

    /// Puts a segment that is here into its place; returns its size. `None`: it is not here.
    fn hand_over(&self, segment: WalSegment, destination: &Path) -> Option<io::Result<u64>> {
        let (_, size) = self.window.borrow_mut().here.remove(&segment)?;
        let path = self.path_of(segment);
        let placed = place(&path, destination).map(|()| size);
        if placed.is_err() {
            let _ = files::remove_file(&path);
        }
        Some(placed)
    }

    /// Begins with the segments that follow the one that was just handed over.
    fn look_ahead(self: &Rc<Self>, segment: WalSegment, size: u64) {
        let wanted = self.window.borrow_mut().wanted(segment, size);
        let unwanted: Vec<WalSegment> = self.window.borrow().here.keys().filter(|here| !wanted.contains(here)).copied().collect();
        unwanted.into_iter().for_each(|segment| self.drop_it(segment));
        if wanted.is_empty() || !files::free_space(&self.vault.data_dir).is_ok_and(|free| free > LEFT_FREE + 2 * AHEAD_BYTES) {
            return;
        }
        for segment in wanted {
            let window = self.window.borrow();
            let absent = window.absent.get(&segment).is_some_and(|at| at.elapsed() < BELIEVED);
            let known = window.here.contains_key(&segment) || window.jobs.contains_key(&segment);
            drop(window);
            if absent {
                return;
            }
            if !known {
                self.job(segment);
            }
        }
    }

    fn drop_it(&self, segment: WalSegment) {
        self.window.borrow_mut().here.remove(&segment);
        let _ = files::remove_file(&self.path_of(segment));
    }

    /// Makes room from what nobody asks for.
    pub fn tidy(&self) {
        let old: Vec<WalSegment> =
            self.window.borrow().here.iter().filter(|(_, (since, _))| since.elapsed() > KEPT).map(|(segment, _)| *segment).collect();
        old.into_iter().for_each(|segment| self.drop_it(segment));
    }

    fn succeeded(&self) {
        self.window.borrow_mut().failed = None;
        self.health.fetched();
    }

    fn answered(&self) {
        self.window.borrow_mut().failed = None;
        self.health.answered();
    }

    fn gave_up(&self, file: WalFile, why: String) -> Answer {
        self.window.borrow_mut().failed = Some(Instant::now());
        self.health.not_fetched(file, &why);
        Answer::Again(why)
    }
}

impl Window {
    /// The segments to fetch ahead, behind the one that was handed over.
    fn wanted(&mut self, segment: WalSegment, size: u64) -> Vec<WalSegment> {
        let Some(ordinal) = segment.ordinal(size) else { return Vec::new() };
        let before = self.last.replace(segment).and_then(|last| last.ordinal(size));
        // Timelines follow each other in a recovery; what counts is that positions do.
        self.row = match before {
            Some(before) if ordinal == before + 1 => self.row.saturating_add(1),
            Some(before) if ordinal == before => self.row,
            Some(_) => 0,
            None => 1,
        };
        if self.row < IN_A_ROW {
            return Vec::new();
        }
        // Slowly first: most of what is fetched ahead of somebody who stops soon is fetched for nothing.
        let most = u64::from(AHEAD.min(1 << self.row.min(8))).min(AHEAD_BYTES / size).max(1);
        (1..=most).map(|further| WalSegment::nth(segment.timeline, ordinal + further, size)).collect()
    }
}

/// What may pass by itself.
fn passes(error: &ArchiveError) -> bool {
    match error {
        // Its volume may not be mounted yet, and there may be no server in the data directory yet.
        ArchiveError::Store(StoreError::Unavailable { .. } | StoreError::Refused { .. }) | ArchiveError::File { .. } => true,
        _ => false,
    }
}

/// Writes a file that nobody looks at before it is complete. It need not be durable: it can be had again.
fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?.write_all(content)
}

/// Puts a complete file into its place, which may lie in another file system.
fn place(path: &Path, destination: &Path) -> io::Result<()> {
    match fs::rename(path, destination) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            let near = files::beside(destination, ".new");
            fs::copy(path, &near)?;
            fs::rename(&near, destination)?;
            files::remove_file(path)
        }
        renamed => renamed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timeline;

    const SIZE: u64 = 16 << 20;

    fn segment(timeline: u32, ordinal: u64) -> WalSegment {
        WalSegment::nth(Timeline(timeline), ordinal, SIZE)
    }

    #[test]
    fn who_reads_on_is_served_ahead_and_who_walks_backwards_is_not() {
        let mut window = Window::default();
        let ahead = |window: &mut Window, ordinal| window.wanted(segment(1, ordinal), SIZE).len();
        assert_eq!((ahead(&mut window, 254), ahead(&mut window, 255), ahead(&mut window, 256)), (0, 4, 8));
        assert_eq!(window.wanted(segment(1, 257), SIZE)[..2], [segment(1, 258), segment(1, 259)]);
        assert_eq!((ahead(&mut window, 256), ahead(&mut window, 255), ahead(&mut window, 254)), (0, 0, 0));
        assert_eq!((ahead(&mut window, 255), ahead(&mut window, 256)), (0, 4));
    }

    #[test]
    fn a_new_timeline_that_goes_on_where_the_last_one_ended_is_read_on_too() {
        let mut window = Window::default();
        window.wanted(segment(1, 7), SIZE);
        window.wanted(segment(1, 8), SIZE);
        assert_eq!(window.wanted(segment(2, 8), SIZE)[0], segment(2, 9));
        assert_eq!(window.wanted(segment(2, 9), SIZE)[0], segment(2, 10));
    }

    #[test]
    fn one_large_segment_is_fetched_ahead_and_not_sixteen() {
        let mut window = Window::default();
        let large = |ordinal| WalSegment::nth(Timeline(1), ordinal, 1 << 30);
        assert_eq!((1..=6).map(|ordinal| window.wanted(large(ordinal), 1 << 30).len()).max(), Some(1));
    }
}
