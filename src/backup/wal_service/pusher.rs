//! Archiving ahead: PostgreSQL asks for one file at a time, and while it does, the files behind that one are on their way already. What was
//! archived is remembered only here; asked for again by nobody who remembers, a file is compared with what the archive has.

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet, VecDeque},
    path::{Path, PathBuf},
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::{
    health::Health,
    lane::{LANES, Lanes},
    left_behind,
    vault::Vault,
};
use crate::{
    backup::{
        archive::ArchiveError,
        wal_push::{Identity, Parcel, Pushed, Target, on_a_thread},
        wal_wire::Answer,
    },
    model::WalFile,
    postgres::archive_status,
    sys::causes,
};

/// PostgreSQL is told to ask again after this long: its archiver must not hang for ever, and goes on with the same file. A server that is being
/// stopped waits for its archiver, which asks three times: a hand-over must not wait for a slow store.
const PATIENCE: Duration = Duration::from_secs(20);

/// The same while nothing gets into the store. What is on its way goes on without somebody who waits for it.
const PATIENCE_WHILE_FAILING: Duration = Duration::from_secs(2);

/// Files that were archived and that PostgreSQL has not asked for. With more, it does not get on, and neither do we.
const AHEAD: usize = 64;

/// How many files are remembered.
const REMEMBERED: usize = 2048;

/// Pauses between attempts at a store that does not answer.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// For so long a file that cannot be archived is not tried again, unless PostgreSQL asks for it.
const GIVEN_UP: Duration = Duration::from_secs(60);

/// Archives what PostgreSQL asks for, and what it will ask for next.
pub struct Pusher {
    vault: Rc<Vault>,
    health: Rc<Health>,
    lanes: Rc<Lanes>,
    pub(super) patience: Duration,
    state: RefCell<State>,
}

/// How a file fared: nothing yet, archived, or why not.
type Outcome = Option<Result<(), String>>;

/// A file on its way.
struct Job {
    identity: Identity,
    asked: bool,
    outcome: watch::Receiver<Outcome>,
}

#[derive(Default)]
struct State {
    jobs: HashMap<WalFile, Job>,
    /// What is durable in the archive.
    settled: HashMap<WalFile, Identity>,
    /// The same, the oldest first.
    order: VecDeque<WalFile>,
    /// Of these, what PostgreSQL has not asked for.
    unasked: HashSet<WalFile>,
    /// What waits and was not begun.
    queue: VecDeque<WalFile>,
    given_up: HashMap<WalFile, Instant>,
    scanning: bool,
    /// Somebody has asked for a file since the last scan.
    scan_due: bool,
}

impl Pusher {
    /// One that has not archived anything yet.
    pub fn new(vault: Rc<Vault>, health: Rc<Health>, lanes: Rc<Lanes>) -> Rc<Pusher> {
        Rc::new(Pusher::alone(vault, health, lanes))
    }

    pub(super) fn alone(vault: Rc<Vault>, health: Rc<Health>, lanes: Rc<Lanes>) -> Pusher {
        Pusher { vault, health, lanes, patience: PATIENCE, state: RefCell::default() }
    }

    /// Answers when the file is durable in the archive, or cannot be archived now.
    pub async fn push(self: &Rc<Self>, file: WalFile, path: PathBuf) -> Answer {
        let identity = match Identity::of(&path) {
            Ok(identity) => identity,
            Err(error) => return Answer::Again(format!("'{}' cannot be read: {error}", path.display())),
        };
        let job = self.asked_for(file, path, identity);
        self.look_ahead();
        let Some(mut job) = job else { return Answer::Done };
        let failing = self.health.why_failing().is_some();
        let patience = if failing { self.patience.min(PATIENCE_WHILE_FAILING) } else { self.patience };
        let waited = tokio::time::timeout(patience, job.wait_for(Option::is_some)).await;
        match waited.map(|outcome| outcome.ok().and_then(|outcome| outcome.clone())) {
            Ok(Some(Ok(()))) => {
                self.state.borrow_mut().unasked.remove(&file);
                Answer::Done
            }
            Ok(Some(Err(why))) => Answer::Again(why),
            Ok(None) => Answer::Again("the WAL service lost track of it".to_owned()),
            Err(_) => Answer::Again(self.health.why_failing().unwrap_or_else(|| "the store takes its time".to_owned())),
        }
    }

    /// Archives a file of `pg_wal` that PostgreSQL does not ask for, however long it takes.
    ///
    /// # Errors
    /// Why it cannot be archived.
    pub async fn archive_now(self: &Rc<Self>, file: WalFile) -> Result<(), String> {
        let path = archive_status::path_of(&self.vault.data_dir, file);
        let identity = Identity::of(&path).map_err(|error| format!("'{}' cannot be read: {error}", path.display()))?;
        let Some(mut job) = self.asked_for(file, path, identity) else { return Ok(()) };
        let outcome = job.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone());
        outcome.unwrap_or_else(|| Err(format!("'{file}' was lost track of")))
    }

    /// The job of a file that PostgreSQL asks for; `None`: it is archived.
    fn asked_for(self: &Rc<Self>, file: WalFile, path: PathBuf, identity: Identity) -> Option<watch::Receiver<Outcome>> {
        let mut state = self.state.borrow_mut();
        state.scan_due = true;
        if state.settled.get(&file) == Some(&identity) {
            state.unasked.remove(&file);
            return None;
        }
        if let Some(job) = state.jobs.get_mut(&file).filter(|job| job.identity == identity) {
            job.asked = true;
            return Some(job.outcome.clone());
        }
        drop(state);
        Some(self.begin(file, path, identity, true))
    }

    fn begin(self: &Rc<Self>, file: WalFile, path: PathBuf, identity: Identity, asked: bool) -> watch::Receiver<Outcome> {
        let (tell, outcome) = watch::channel(None);
        let job = Job { identity, asked, outcome: outcome.clone() };
        self.state.borrow_mut().jobs.insert(file, job);
        let pusher = self.clone();
        tokio::task::spawn_local(async move {
            let ended = pusher.archive(file, &path, identity).await;
            pusher.ended(file, identity, ended.is_ok());
            tell.send_replace(Some(ended));
            pusher.look_ahead();
        });
        outcome
    }

    /// Brings one file into the archive, however long the store is away; what the store refuses, or what the file is not, ends it at once.
    async fn archive(&self, file: WalFile, path: &Path, identity: Identity) -> Result<(), String> {
        let mut pause = FIRST_PAUSE;
        let mut parcel = None;
        let _memory = self.lanes.memory(identity.size).await;
        loop {
            let error = match self.attempt(file, path, &mut parcel).await {
                Ok(pushed) => {
                    let size = parcel.as_ref().map_or(0, Parcel::size);
                    self.health.archived(file, &pushed, size);
                    return Ok(());
                }
                Err(error) => error,
            };
            self.health.failed(file, &error);
            let passes = error.is_unavailable();
            if !passes || Identity::of(path).ok() != Some(identity) {
                return Err(causes::in_one_line(&error));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn attempt(&self, file: WalFile, path: &Path, parcel: &mut Option<Parcel>) -> Result<Pushed, ArchiveError> {
        let archive = self.vault.archive().await?;
        if parcel.as_ref().is_none_or(|parcel| parcel.system() != archive.system) {
            let _processor = self.lanes.processor().await;
            let target = Target::of(&archive, file).await?;
            let (path, level) = (path.to_owned(), self.lanes.level(self.state.borrow().queue.len()));
            *parcel = Some(on_a_thread(move || Parcel::of(&path, target, level)).await?);
        }
        let _upload = self.lanes.upload();
        parcel.as_ref().expect("just packed").store(&archive).await
    }

    fn ended(&self, file: WalFile, identity: Identity, archived: bool) {
        let mut state = self.state.borrow_mut();
        let asked = match state.jobs.get(&file) {
            Some(job) if job.identity == identity => state.jobs.remove(&file).is_some_and(|job| job.asked),
            // A file of the same name has come since.
            _ => return,
        };
        if !archived {
            state.given_up.insert(file, Instant::now());
            return;
        }
        state.given_up.remove(&file);
        if state.settled.insert(file, identity).is_none() {
            state.order.push_back(file);
        }
        if !asked {
            state.unasked.insert(file);
        }
        while state.order.len() > REMEMBERED {
            let Some(oldest) = state.order.pop_front() else { break };
            state.settled.remove(&oldest);
            state.unasked.remove(&oldest);
        }
    }

    /// Begins with the files that come next, as many as there are lanes.
    fn look_ahead(self: &Rc<Self>) {
        while let Some(file) = self.next() {
            let path = archive_status::path_of(&self.vault.data_dir, file);
            if let Ok(identity) = Identity::of(&path) {
                self.begin(file, path, identity, false);
            }
        }
        let mut state = self.state.borrow_mut();
        if state.queue.is_empty() && state.scan_due && !state.scanning {
            (state.scan_due, state.scanning) = (false, true);
            tokio::task::spawn_local(self.clone().scan());
        }
    }

    /// The next file to begin with; `None`: enough is on its way, or nothing waits.
    fn next(&self) -> Option<WalFile> {
        let mut state = self.state.borrow_mut();
        while state.jobs.len() < LANES && state.unasked.len() < AHEAD {
            let file = state.queue.pop_front()?;
            let known = state.settled.contains_key(&file) || state.jobs.contains_key(&file) || state.given_up.contains_key(&file);
            if !known && archive_status::waits(&self.vault.data_dir, file) {
                return Some(file);
            }
        }
        None
    }

    async fn scan(self: Rc<Self>) {
        let data_dir = self.vault.data_dir.clone();
        let found = tokio::task::spawn_blocking(move || archive_status::waiting(&data_dir)).await;
        let mut state = self.state.borrow_mut();
        state.scanning = false;
        state.given_up.retain(|_, since| since.elapsed() < GIVEN_UP);
        match found {
            Ok(Ok(found)) => {
                // PostgreSQL does not want them any more, and so was told of them.
                let still: HashSet<WalFile> = found.iter().copied().collect();
                state.unasked.retain(|file| still.contains(file));
                state.queue = found.into_iter().filter(|file| !state.settled.contains_key(file)).collect();
            }
            Ok(Err(error)) => tracing::warn!("what waits to be archived cannot be seen: {error}"),
            Err(error) => tracing::warn!("what waits to be archived cannot be seen: {error}"),
        }
        let more = !state.queue.is_empty();
        drop(state);
        if more {
            self.look_ahead();
        }
    }

    /// Waits until nothing that PostgreSQL has asked for is on its way.
    pub async fn at_rest(&self) {
        while self.state.borrow().jobs.values().any(|job| job.asked) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Sees how the backlog grows, and whether a store that has refused still does: PostgreSQL asks only once a minute.
    pub fn look(self: Rc<Self>) {
        tokio::task::spawn_local(async move {
            let Some(file) = self.health.look(&self.vault).await else { return };
            // What a former primary has not archived is its successor's to archive.
            if left_behind::is_primary(&self.vault.data_dir) && !self.state.borrow().jobs.contains_key(&file) {
                let path = archive_status::path_of(&self.vault.data_dir, file);
                if let Ok(identity) = Identity::of(&path) {
                    self.begin(file, path, identity, false);
                }
            }
        });
    }
}
