//! The keeper: a process on each node that takes backups, looks at them, restores them for a test and lets old ones go, when it is time and when no
//! other node is at it. What is due is decided by [`crate::backup::schedule`]; each job is a process of its own, so that what it takes of memory
//! goes with it, and nothing it does ends the keeper.

mod archived;
mod claim;
mod cluster;
mod job;
mod seen;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, Instant},
};

use jiff::Timestamp;

pub use claim::{Claim, Claimed, Claims};
pub use job::Commands;

use self::{cluster::Cluster, seen::Store as StoreView};
use crate::{
    api::backup_status::{BackupStatus, Running},
    backup::{
        Archive, ArchiveError, drill,
        encryption::SealedStore,
        schedule::{self, Job, Next},
    },
    model::{ObjectName, SystemId},
    postgres::{backlog_growth::BacklogGrowth, control_data},
    spec::backup_policy::BackupPolicy,
    storage::{Store, StoreConfig},
    sys::{causes, files, process::ProcessError},
};

/// How often the cluster is asked.
const BEAT: Duration = Duration::from_secs(20);

/// How often the status is written when nothing has changed.
const WRITE_EVERY: Duration = Duration::from_secs(60);

/// How long the store may be left alone when nothing is due.
const LOOK_EVERY: Duration = Duration::from_secs(120);

/// What a test restore has to leave beside half of what it takes: the running server may be on the same disk.
const DRILL_RESERVE: u64 = 2 << 30;

/// With less than this free a test restore is ended.
const LEAST_ROOM: u64 = 1 << 30;

/// What the keeper of a node is told.
#[derive(Debug, Clone)]
pub struct KeeperConfig {
    /// This member.
    pub member: String,
    /// Its data directory.
    pub data_dir: PathBuf,
    /// The local agent: `http://127.0.0.1:8008`.
    pub agent: String,
    /// The store.
    pub store: StoreConfig,
    /// What every object of the cluster begins with.
    pub root: ObjectName,
    /// Where a test restore may write; `None`: nowhere, and there is none.
    pub scratch: Option<PathBuf>,
    /// How jobs are run.
    pub commands: Commands,
}

/// What the keeper remembers from one turn to the next.
struct Keeper {
    config: KeeperConfig,
    claims: Claims,
    since: Timestamp,
    expired: Option<Timestamp>,
    failures: BTreeMap<schedule::Kind, (u32, Timestamp)>,
    failure: Option<String>,
    opened: Option<SealedStore<Store>>,
    store: Option<StoreView>,
    look_at: Instant,
    written: Option<(BackupStatus, Instant)>,
    said: Option<String>,
    /// Why what a test restore has left cannot be removed.
    left: Option<String>,
    growth: BacklogGrowth,
}

/// Keeps on until the process ends. Whatever fails is told and tried again.
pub async fn keep(config: KeeperConfig) {
    let now = Instant::now();
    let mut keeper = Keeper {
        config,
        claims: Claims::default(),
        since: Timestamp::now(),
        expired: None,
        failures: BTreeMap::new(),
        failure: None,
        opened: None,
        store: None,
        look_at: now,
        written: None,
        said: None,
        left: None,
        growth: BacklogGrowth::default(),
    };
    loop {
        let trouble = keeper.turn().await.err().map(|error| error.to_string());
        // An agent that is not there, or a store, is not complained of every time.
        if let Some(trouble) = trouble.as_ref().filter(|_| trouble != keeper.said) {
            tracing::warn!("{trouble}");
        }
        keeper.said = trouble;
        tokio::time::sleep(BEAT).await;
    }
}

/// Why a turn came to nothing.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("the local agent does not say how the cluster is: {0}")]
    Agent(String),
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error("the data directory does not say whose it is: {0}")]
    NoData(std::io::Error),
    #[error("the status cannot be written: {0}")]
    Status(std::io::Error),
}

impl Keeper {
    async fn turn(&mut self) -> Result<(), Trouble> {
        self.clear_scratch();
        let (cluster, archive) = match self.surroundings().await {
            Ok(found) => found,
            Err(error) => {
                // What was known stays known; that nobody has asked the store since is told by its time.
                self.publish(None, None)?;
                return Err(error);
            }
        };
        if Instant::now() >= self.look_at || self.store.is_none() {
            self.look(&archive).await.inspect_err(|_| {
                let _ = self.publish(Some(&cluster), None);
            })?;
        }
        self.publish(Some(&cluster), None)?;
        match self.next(&cluster) {
            Some(Next::Do(job)) => self.try_job(&archive, &cluster, job).await,
            Some(Next::Wait(until)) => {
                let wait = until.duration_since(Timestamp::now()).unsigned_abs();
                self.look_at = self.look_at.min(Instant::now() + wait.max(BEAT));
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// A test restore that was killed has left as much as a whole database. None runs here now.
    /// What cannot be removed keeps nobody from backing up.
    fn clear_scratch(&mut self) {
        let left = self.config.scratch.as_ref().filter(|scratch| scratch.exists());
        let failed = left.and_then(|scratch| drill::remove_left(scratch).err()).map(|error| causes::in_one_line(&error));
        if let Some(why) = failed.as_ref().filter(|_| failed != self.left) {
            tracing::warn!("{why}");
        }
        self.left = failed;
    }

    /// The cluster as the agent sees it, and the archive of its data.
    async fn surroundings(&mut self) -> Result<(Cluster, Archive<Store>), Trouble> {
        let cluster = Cluster::ask(&self.config.agent).await.map_err(Trouble::Agent)?;
        let system: SystemId = control_data::system_id(&self.config.data_dir).map_err(Trouble::NoData)?;
        let store = match &self.opened {
            Some(store) => store.clone(),
            None => self.opened.insert(SealedStore::open(&self.config.store, self.config.root.clone()).await?).clone(),
        };
        Ok((cluster, Archive::of(store, system)))
    }

    async fn look(&mut self, archive: &Archive<Store>) -> Result<(), Trouble> {
        let looked = StoreView::look(archive, self.store.as_ref()).await;
        self.look_at = Instant::now() + LOOK_EVERY;
        match looked {
            Ok(view) => {
                self.store = Some(view);
                Ok(())
            }
            Err(error) => {
                // Another one may be mounted in its place by now.
                self.opened = None;
                self.look_at = Instant::now();
                Err(error.into())
            }
        }
    }

    fn seen(&self, cluster: &Cluster) -> Option<schedule::Seen> {
        let view = self.store.as_ref()?;
        Some(schedule::Seen {
            backups: view.backups.clone(),
            me: self.config.member.clone(),
            nodes: cluster.nodes.clone(),
            room: self.has_room(view.largest),
            expired: self.expired,
            since: self.since,
            failures: self.failures.clone(),
        })
    }

    fn next(&self, cluster: &Cluster) -> Option<Next> {
        let seen = self.seen(cluster)?;
        Some(schedule::next(&seen, &cluster.policy, Timestamp::now()))
    }

    /// Whether the newest backup fits beside what is there.
    fn has_room(&self, size: u64) -> bool {
        let needed = size.saturating_add(size / 2).saturating_add(DRILL_RESERVE);
        self.free().is_some_and(|free| free > needed)
    }

    /// The running server comes before every test restore.
    fn is_short_of_room(&self) -> bool {
        self.free().is_some_and(|free| free < LEAST_ROOM)
    }

    fn free(&self) -> Option<u64> {
        // It is made by the first test restore.
        let there = self.config.scratch.as_ref().and_then(|scratch| scratch.ancestors().find(|path| path.exists()));
        there.and_then(|path| files::free_space(path).ok())
    }

    /// Claims the cluster's job, looks whether it is still to be done, and does it.
    async fn try_job(&mut self, archive: &Archive<Store>, cluster: &Cluster, job: Job) -> Result<(), Trouble> {
        let claim = match self.claims.claim(archive, &self.config.member, &job, Timestamp::now(), Instant::now()).await? {
            Claimed::Won(claim) => claim,
            Claimed::Held { node, job } => {
                tracing::debug!("'{node}' is at the {job}");
                return Ok(());
            }
        };
        // Another node may have done it just before.
        self.look(archive).await?;
        if self.next(cluster) == Some(Next::Do(job.clone())) {
            self.do_job(archive, cluster, job, claim).await
        } else {
            Ok(claim.end(archive).await?)
        }
    }

    async fn do_job(&mut self, archive: &Archive<Store>, cluster: &Cluster, job: Job, mut claim: Claim) -> Result<(), Trouble> {
        tracing::info!("{job}: begun");
        let begun = Instant::now();
        let running = Running { job: job.to_string(), since: Timestamp::now() };
        self.show(cluster, &running);
        let ended = {
            let config = self.config.clone();
            let work = async { config.commands.run(&job, &config, archive.system(), cluster).await };
            tokio::pin!(work);
            loop {
                tokio::select! {
                    ended = &mut work => break ended,
                    () = tokio::time::sleep(BEAT) => {}
                }
                self.show(cluster, &running);
                if matches!(job, Job::Drill(_)) && self.is_short_of_room() {
                    let (program, status, output) = (job.to_string(), "ended".to_owned(), "the disk is nearly full".to_owned());
                    break Err(ProcessError::Failed { program, status, output });
                }
                // While the store does not answer the work goes on: whoever takes over then finds what came of it.
                match claim.renew(archive).await {
                    Ok(true) => self.answered(),
                    Ok(false) => {
                        tracing::warn!("{job}: another node has taken over");
                        return Ok(());
                    }
                    Err(error) => tracing::debug!("{job}: the claim could not be renewed: {error}"),
                }
            }
        };
        self.note(&job, &ended, begun.elapsed());
        self.look_at = Instant::now();
        Ok(claim.end(archive).await?)
    }

    /// The store has answered, whatever it was asked.
    fn answered(&mut self) {
        if let Some(view) = &mut self.store {
            view.answered(Timestamp::now());
        }
    }

    /// A status that cannot be written ends no work.
    fn show(&mut self, cluster: &Cluster, running: &Running) {
        if let Err(error) = self.publish(Some(cluster), Some(running.clone())) {
            tracing::warn!("{error}");
        }
    }

    fn note(&mut self, job: &Job, ended: &Result<(), ProcessError>, took: Duration) {
        if *job == Job::Expire {
            self.expired = Some(Timestamp::now());
        }
        match ended {
            Ok(()) => {
                tracing::info!("{job}: done in {:.0} s", took.as_secs_f64());
                self.failures.remove(&job.kind());
                self.failure = None;
            }
            Err(error) => {
                tracing::warn!("{job}: {error}");
                let failed = self.failures.entry(job.kind()).or_insert((0, Timestamp::now()));
                *failed = (failed.0.saturating_add(1), Timestamp::now());
                self.failure = Some(format!("{job}: {error}"));
            }
        }
    }

    /// Writes what is known for the agent to show.
    fn publish(&mut self, cluster: Option<&Cluster>, running: Option<Running>) -> Result<(), Trouble> {
        let now = Timestamp::now();
        let mut status = self.store.as_ref().unwrap_or(&StoreView::default()).status(self.since, now);
        let policy = cluster.map_or_else(BackupPolicy::default, |cluster| cluster.policy.clone());
        if let Some(seen) = cluster.and_then(|cluster| self.seen(cluster)) {
            status.overdue.extend(schedule::overdue(&seen, &policy, now));
        }
        status.running = running;
        status.room = self.has_room(self.store.as_ref().map_or(0, |view| view.largest));
        status.failure.clone_from(&self.failure);
        status.wal_service = archived::account(&self.config.data_dir);
        match archived::waiting(&self.config.data_dir) {
            Ok(waiting) => {
                self.growth.sample(Instant::now(), waiting.bytes);
                let free = files::free_space(&self.config.data_dir.join("pg_wal")).ok();
                status.wal_waiting = waiting.filling(self.growth.forecast(free), now);
            }
            Err(error) => status.overdue.push(format!("what waits to be archived cannot be seen: {error}")),
        }
        let same = |known: &BackupStatus| BackupStatus { updated: now, seen: status.seen, ..known.clone() } == status;
        if self.written.as_ref().is_some_and(|(known, at)| at.elapsed() < WRITE_EVERY && same(known)) {
            return Ok(());
        }
        status.write(&self.config.data_dir).map_err(Trouble::Status)?;
        self.written = Some((status, Instant::now()));
        Ok(())
    }
}
