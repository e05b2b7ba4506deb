//! The only proof that a backup can be restored: it is restored into a directory that is thrown away, a server of its own recovers it, and what is
//! in it is read.
//!
//! Nothing of it touches the running server or anybody outside: the server listens on nothing but a socket in that directory, archives nothing,
//! loads no libraries, starts no jobs and subscribes to nothing, whatever the restored configuration says.

mod checks;
mod scratch;
mod server;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

pub use scratch::{Scratch, remove_left};

use self::server::{NotRecovered, ThrowAway};
use super::{
    BackupId,
    archive::{Archive, ArchiveError},
    manifest::Header,
    restore::{self, Limits, NoWay, Recovery, RestoreError, Space, Start, TargetAction, Way, Wish},
};
use crate::{
    model::{RecoveryTarget, TargetTimeline},
    storage::ObjectStore,
    sys::files,
};

/// What a starting server writes beside the data: WAL of recovery and of a checkpoint.
const RESERVE: u64 = 1 << 30;

/// A drill.
#[derive(Debug, Clone)]
pub struct Request {
    /// The backup; without it the newest.
    pub backup: Option<BackupId>,
    /// The directory in which the throw-away one is made.
    pub scratch: PathBuf,
    /// Directory of PostgreSQL's programs.
    pub bin_dir: PathBuf,
    /// What gets WAL from the archive, for PostgreSQL to run.
    pub restore_command: String,
    /// Recovery goes to the end of the archive, and not only until the data are consistent.
    pub to_end: bool,
    /// A superuser of the restored cluster.
    pub user: String,
    /// The database that `checks` are asked in.
    pub database: String,
    /// Each has to answer `true`.
    pub checks: Vec<String>,
    /// Every row of every table is counted.
    pub count_rows: bool,
    /// How long recovery may take.
    pub patience: Duration,
    /// What the restore may use.
    pub limits: Limits,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The backup.
    pub backup: Header,
    /// What is wrong with it. Nothing: it is proven.
    pub problems: Vec<String>,
    /// What was seen, and what was not looked at and why.
    pub notes: Vec<String>,
    /// From the beginning until the server answered; `None`: it never did.
    pub recovery: Option<Duration>,
    /// The restore alone.
    pub restored_in: Option<Duration>,
}

/// Why nothing was found out. That is no verdict on the backup.
#[derive(Debug, thiserror::Error)]
pub enum DrillError {
    /// The store, what it has, or a file on this machine.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The restore could not be tried here.
    #[error(transparent)]
    Restore(RestoreError),
    /// There is no backup to try.
    #[error(transparent)]
    NoBackup(NoWay),
    /// The archive did not say what WAL it has.
    #[error("recovery did not get to its end, because the archive did not answer: {0}")]
    NoWal(String),
    /// This machine cannot do it.
    #[error("no test restore here: {why}")]
    Unfit {
        /// Why not.
        why: String,
        /// What to do.
        hint: String,
    },
}

impl DrillError {
    fn file(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> DrillError {
        let told = ArchiveError::file(action, path);
        move |source| told(source).into()
    }

    fn unfit(why: impl Into<String>, hint: impl Into<String>) -> DrillError {
        DrillError::Unfit { why: why.into(), hint: hint.into() }
    }
}

/// With its causes.
fn in_full(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {}", in_full(cause)))
}

/// Tries it. When this returns, nothing of it is left.
///
/// # Errors
/// When it could not be tried: see [`DrillError`].
pub async fn drill<S: ObjectStore>(archive: &Archive<S>, request: &Request, tell: &dyn Fn(&str)) -> Result<Report, DrillError> {
    let begun = Instant::now();
    let scratch = Scratch::make(&request.scratch)?;
    server::check_socket(&scratch)?;
    let way = find(archive, request).await?;
    let mut report =
        Report { backup: way.backup.clone(), problems: Vec::new(), notes: way.doubts.clone(), recovery: None, restored_in: None };
    server::check_version(&request.bin_dir, way.backup.server_version).await?;
    has_room(&scratch, &way.backup)?;
    tell(&format!("restoring backup {}", way.backup.id));
    match restore_into(archive, &scratch, &way, request).await {
        Ok(()) => report.restored_in = Some(begun.elapsed()),
        Err(RestoreError::Archive(ArchiveError::Damaged { object, why })) => report.problems.push(format!("'{object}' is damaged: {why}")),
        Err(error) => return Err(DrillError::Restore(error)),
    }
    if report.problems.is_empty() {
        try_server(&scratch, request, begun, &mut report, tell).await?;
    }
    // What was found out counts, whatever is left of how.
    if let Err(error) = scratch.remove() {
        report.notes.push(in_full(&error));
    }
    Ok(report)
}

/// How far recovery goes.
fn target(request: &Request) -> RecoveryTarget {
    if request.to_end { RecoveryTarget::End } else { RecoveryTarget::Immediate }
}

/// The way to the target. That there is none because WAL is missing is told by the look at the backup, which names what is missing.
async fn find<S: ObjectStore>(archive: &Archive<S>, request: &Request) -> Result<Way, DrillError> {
    let on = |timeline| Wish { target: target(request), timeline, backup: request.backup.clone() };
    let found = match request.to_end {
        true => restore::find_way(archive, &on(TargetTimeline::Latest)).await,
        // To be consistent it needs no later timeline, to which it may not lead; unless its own was left in its last segment.
        false => match restore::find_way(archive, &on(TargetTimeline::Current)).await {
            Err(RestoreError::NoWay(_)) => restore::find_way(archive, &on(TargetTimeline::Latest)).await,
            found => found,
        },
    };
    found.map_err(|error| match error {
        RestoreError::NoWay(error @ (NoWay::NoBackup(_) | NoWay::UnknownBackup { .. })) => DrillError::NoBackup(error),
        error => DrillError::Restore(error),
    })
}

fn has_room(scratch: &Scratch, backup: &Header) -> Result<(), DrillError> {
    let needed = backup.size.saturating_add(backup.size / 10).saturating_add(RESERVE);
    let free = files::free_space(scratch.root()).map_err(DrillError::file("look at", scratch.root()))?;
    if free >= needed {
        return Ok(());
    }
    let why = format!("'{}' has {} MB free, and {} MB are needed", scratch.root().display(), free >> 20, needed >> 20);
    Err(DrillError::unfit(why, "name another directory with --scratch"))
}

async fn restore_into<S: ObjectStore>(archive: &Archive<S>, scratch: &Scratch, way: &Way, request: &Request) -> Result<(), RestoreError> {
    let start = Start::Recovers(Recovery {
        target: target(request),
        exclusive: false,
        timeline: way.timeline,
        action: TargetAction::Promote,
        restore_command: request.restore_command.clone(),
        keep_archiving: false,
    });
    // Nothing may go to where the tablespaces of the running server are.
    let moved = |space: &super::manifest::Tablespace| Space { oid: space.oid, location: scratch.tablespace(space.oid) };
    let restore = restore::Request {
        directory: scratch.data_dir(),
        delta: false,
        moved: way.backup.tablespaces.iter().map(moved).collect(),
        limits: request.limits,
    };
    restore::restore(archive, way, &start, &restore, &Arc::default()).await.map(|_| ())
}

async fn try_server(
    scratch: &Scratch,
    request: &Request,
    begun: Instant,
    report: &mut Report,
    tell: &dyn Fn(&str),
) -> Result<(), DrillError> {
    tell("recovering");
    let mut server = ThrowAway::start(scratch, request, report.backup.server_version).await?;
    let ended = match server.recovered(request).await {
        Ok(session) => {
            report.recovery = Some(begun.elapsed());
            tell("looking at what is in it");
            checks::look(&session, &server, request, report).await;
            Ok(())
        }
        Err(NotRecovered::Fails(why)) => {
            report.problems.push(format!("PostgreSQL does not recover it: {why}"));
            Ok(())
        }
        Err(NotRecovered::NoVerdict(error)) => Err(error),
    };
    server.stop().await;
    ended
}
