//! Restoring ahead: while PostgreSQL replays a segment, the next ones are on their way. Each is checked before it is offered, and handed over
//! by renaming it.

use std::{
    cell::RefCell,
    fs::{self, File},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::{
    health::Health,
    vault::Vault,
    window::{AHEAD_BYTES, Job, Outcome, Window},
};
use crate::{
    backup::{
        archive::{Archive, ArchiveError},
        wal_fetch::fetch_with,
        wal_silence::{ends_nothing, is_never_there},
        wal_wire::Answer,
    },
    model::{SystemId, WalFile, WalSegment},
    postgres::control_data,
    storage::{Store, StoreError},
    sys::{causes, files},
};

/// So much has to stay free on the volume.
const LEFT_FREE: u64 = 1 << 30;

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
        self.recognise();
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

    /// The data directory may have been replaced by another system's.
    fn recognise(&self) {
        let system = control_data::system_id(&self.vault.data_dir).ok();
        if self.window.borrow_mut().is_of(system)
            && let Err(error) = files::remove_dir(&self.folder)
        {
            tracing::warn!("'{}' cannot be removed: {error}", self.folder.display());
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
    pub(super) async fn other(self: &Rc<Self>, file: WalFile, destination: &Path, standby: bool, until: Instant) -> Answer {
        self.window.borrow_mut().absent.clear();
        let believed = |window: &Window| window.without_history.is_some_and(|(of, at)| of == file && at.elapsed() < BELIEVED_OF_HISTORY);
        if standby && believed(&self.window.borrow()) {
            return Answer::Absent;
        }
        loop {
            let why = match outcome(self.small_job(file), until).await {
                Outcome::Here(content) => {
                    return match put(&content, destination) {
                        Ok(()) => Answer::Done,
                        Err(error) => self.gave_up(file, format!("it cannot be put to '{}': {error}", destination.display())),
                    };
                }
                Outcome::Absent => return Answer::Absent,
                Outcome::Unfit(why) => return self.gave_up(file, why),
                Outcome::Unknown(why) => why,
            };
            if Instant::now() + PAUSE >= until {
                return self.gave_up(file, why);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The job that reads what is small. It goes on when nobody waits for it any more: a store that is slow, and is asked by somebody who
    /// cannot wait for long, would otherwise never be heard to answer.
    fn small_job(self: &Rc<Self>, file: WalFile) -> Job<Rc<[u8]>> {
        let mut window = self.window.borrow_mut();
        if let Some(job) = window.small.get(&file) {
            return job.clone();
        }
        let (tell, job) = watch::channel(None);
        window.small.insert(file, job.clone());
        let (fetcher, turn, system) = (self.clone(), window.turn, window.system);
        tokio::task::spawn_local(async move {
            let read = async { fetch_with(&fetcher.archive_of(system).await?, file, |content| Ok(content.to_vec())).await };
            let outcome = Outcome::of(read.await.map(|content| content.map(Rc::from)));
            if fetcher.window.borrow_mut().read(file, turn, &outcome) {
                fetcher.note(&outcome, |content| content.len() as u64);
            }
            tell.send_replace(Some(outcome));
        });
        job
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
            let why = match outcome(self.job(segment), until).await {
                Outcome::Here(_) => continue,
                Outcome::Absent => return Answer::Absent,
                Outcome::Unfit(why) => return self.gave_up(file, why),
                Outcome::Unknown(why) => why,
            };
            if Instant::now() + PAUSE >= until {
                return self.gave_up(file, why);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The job that fetches the segment, begun if need be.
    fn job(self: &Rc<Self>, segment: WalSegment) -> Job<u64> {
        let mut window = self.window.borrow_mut();
        if let Some(job) = window.jobs.get(&segment) {
            return job.clone();
        }
        let (tell, job) = watch::channel(None);
        window.jobs.insert(segment, job.clone());
        let (fetcher, turn, system) = (self.clone(), window.turn, window.system);
        tokio::task::spawn_local(async move {
            let path = fetcher.path_in(turn, segment);
            let outcome = fetcher.bring(segment, system, path.clone()).await;
            if fetcher.window.borrow_mut().brought(segment, turn, &outcome) {
                fetcher.note(&outcome, |size| *size);
            } else {
                let _ = files::remove_file(&path);
            }
            tell.send_replace(Some(outcome));
        });
        job
    }

    async fn bring(&self, segment: WalSegment, system: Option<SystemId>, path: PathBuf) -> Outcome<u64> {
        let write = move |content: &[u8]| {
            let written = write(&path, content).map(|()| content.len() as u64);
            written.map_err(|source| ArchiveError::File { action: "write", path: path.display().to_string(), source })
        };
        let brought = async { fetch_with(&self.archive_of(system).await?, WalFile::Segment(segment), write).await };
        Outcome::of(brought.await)
    }

    /// The archive, while the data directory is this system's.
    async fn archive_of(&self, system: Option<SystemId>) -> Result<Archive<Store>, ArchiveError> {
        let archive = self.vault.archive().await?;
        if system == Some(archive.system()) {
            return Ok(archive);
        }
        let source = io::Error::other("it is another system's by now");
        Err(ArchiveError::File { action: "go on with", path: self.vault.data_dir.display().to_string(), source })
    }

    /// Notes how the store fares.
    fn note<T>(&self, outcome: &Outcome<T>, bytes: impl Fn(&T) -> u64) {
        match outcome {
            Outcome::Here(content) => self.succeeded(bytes(content)),
            Outcome::Absent => self.answered(),
            Outcome::Unknown(_) => self.window.borrow_mut().failed = Some(Instant::now()),
            Outcome::Unfit(_) => {}
        }
    }

    fn path_of(&self, segment: WalSegment) -> PathBuf {
        self.path_in(self.window.borrow().turn, segment)
    }

    fn path_in(&self, turn: u64, segment: WalSegment) -> PathBuf {
        self.folder.join(turn.to_string()).join(segment.to_string())
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
        // The data directory itself may be a volume of its own.
        let place = self.folder.parent().unwrap_or(&self.folder);
        if wanted.is_empty() || !files::free_space(place).is_ok_and(|free| free > LEFT_FREE + 2 * AHEAD_BYTES) {
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

    fn succeeded(&self, bytes: u64) {
        self.window.borrow_mut().failed = None;
        self.health.fetched(bytes);
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

impl<T> Outcome<T> {
    fn of(fetched: Result<Option<T>, ArchiveError>) -> Outcome<T> {
        match fetched {
            Ok(Some(content)) => Outcome::Here(content),
            Ok(None) => Outcome::Absent,
            Err(error) if passes(&error) => Outcome::Unknown(causes::in_one_line(&error)),
            Err(error) => Outcome::Unfit(causes::in_one_line(&error)),
        }
    }
}

/// What comes of the job, as far as that is known by then.
async fn outcome<T: Clone>(mut job: Job<T>, until: Instant) -> Outcome<T> {
    let waited = tokio::time::timeout_at(until.into(), job.wait_for(Option::is_some)).await;
    match waited.map(|outcome| outcome.ok().and_then(|outcome| outcome.clone())) {
        Ok(Some(outcome)) => outcome,
        Ok(None) => Outcome::Unknown("the WAL service lost track of it".to_owned()),
        Err(_) => Outcome::Unknown("the store did not answer in time".to_owned()),
    }
}

/// What may pass by itself.
fn passes(error: &ArchiveError) -> bool {
    match error {
        // Its volume may not be mounted yet, and there may be no server in the data directory yet.
        // And whoever has configured another key may configure the right one: no recovery ends for that.
        ArchiveError::Store(StoreError::Unavailable { .. } | StoreError::Refused { .. })
        | ArchiveError::File { .. }
        | ArchiveError::Key(_) => true,
        _ => false,
    }
}

/// Writes a file that nobody looks at before it is complete. It need not be durable: it can be had again.
fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    write_file(path, content)
}

fn write_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    let written = files::write(&mut file, content);
    if written.is_err() {
        // On a disk that is full, half of it would take what somebody else needs.
        let _ = files::remove_file(path);
    }
    written
}

/// Puts what is small into its place. PostgreSQL makes it durable where it keeps it.
fn put(content: &[u8], destination: &Path) -> io::Result<()> {
    let near = files::beside(destination, ".new");
    write_file(&near, content)?;
    fs::rename(&near, destination)
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

    #[test]
    fn half_a_file_is_not_left_on_a_disk_that_is_full() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("000000010000000000000001");
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        assert_eq!(write_file(&path, b"WAL").unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert!(path.symlink_metadata().is_err());
    }
}
