//! A base backup, from the first look at the store to the manifest.
//!
//! Order is what makes it safe: somebody is known to be at work before there is anything of it; files are read only while the server knows of
//! it; the manifest, which makes a backup of it, comes after every pack and every segment of WAL that it needs. Whatever ends before that
//! leaves packs that nobody takes for a backup, and the next backup uses their chunks.

mod budget;
mod control_file;
mod data_files;
mod error;
mod file_memory;
mod known_chunks;
pub mod lease;
mod leftovers;
mod packer;
mod page_checksum;
mod page_sums;
mod parent;
mod piece;
mod prepare;
mod progress;
mod read_limit;
mod reader;
mod refuse;
mod relation_file;
mod seal;
mod stretch;
mod tablespaces;
mod transfer;
mod upload;
mod wal_wait;

use std::{
    io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;

pub use error::BackupError;
pub use lease::Lease;
pub use progress::{Phase, Progress, Seen};

use self::{file_memory::MemoryWriter, prepare::Prepared, transfer::Sources};
use crate::{
    backup::{
        Archive, BackupId,
        manifest::{Header, Moment},
        marks,
    },
    model::Timeline,
    postgres::{
        Address, Credentials,
        backup_mode::{BackupMode, CopiedServer},
        timelines,
    },
    storage::ObjectStore,
};

/// With less than this a single pack in the making leaves no room for what is read.
pub const LEAST_MEMORY: u64 = 96 << 20;

/// What is to be backed up, and how.
#[derive(Debug, Clone)]
pub struct Request {
    /// The cluster, as its users call it.
    pub cluster: String,
    /// The member whose files are read.
    pub member: String,
    /// Its data directory.
    pub data_dir: PathBuf,
    /// Its server, on this machine.
    pub address: Address,
    /// A role that may call `pg_backup_start`.
    pub role: Credentials,
    /// Where the primary is, if the member is a standby: it is asked to archive the last segment.
    pub primary: Option<Address>,
    /// A role that may do that there, if it is not the one that backs up.
    pub primary_role: Option<Credentials>,
    /// Nothing of earlier backups is used.
    pub full: bool,
    /// Every file is read, also those that nobody has written to since the backup before.
    pub read_all: bool,
    /// Bytes that may be read in a second.
    pub rate: Option<u64>,
    /// Bytes of data that may be in memory at the same time.
    pub memory: u64,
    /// Threads that read and compress.
    pub threads: usize,
    /// A remark, kept in `backup_label`.
    pub label: String,
    /// How long the last WAL may take into the archive.
    pub wal_patience: Duration,
}

/// What somebody should hear while it goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// Good to know.
    Note(String),
    /// Something is wrong, though not so much that there is no backup.
    Warning(String),
}

/// A backup that is complete.
#[derive(Debug, Clone)]
pub struct Report {
    /// The header of its manifest.
    pub header: Header,
    /// Bytes of content that were in the store already.
    pub reused: u64,
    /// Of these, bytes of files that were not read, because nobody has written to them since the backup before.
    pub unread: u64,
    /// How long it took.
    pub took: Duration,
}

/// Makes a backup. When this returns well, it is complete, and so is the WAL that it needs.
///
/// # Errors
/// Whatever went wrong: there is no backup then.
pub async fn create<S: ObjectStore>(
    archive: &Archive<S>,
    request: &Request,
    progress: &Arc<Progress>,
    tell: &dyn Fn(Told),
) -> Result<Report, BackupError> {
    let begun = Instant::now();
    let session = BackupMode::connect(&request.address, &request.role).await?;
    let server = session.describe().await?;
    refuse::refuse(archive, request, &server)?;
    let now = Timestamp::now();
    let id = BackupId::new(now, chance()?);
    let lease = Lease::new(id, &request.member, now);
    lease.write(archive).await?;
    // From the first look at earlier backups until the manifest is there: who is silent meanwhile is taken for dead.
    let made = tokio::select! {
        made = make(archive, request, session, &server, &lease, progress, tell) => made,
        error = lease.keep(archive) => Err(error),
    };
    match made {
        Ok((header, unread)) => {
            // Whoever condemned what looked given up may have done so after that was last looked at.
            if let Err(error) = upload::patiently(async || marks::remove_tomb(archive, &header.id).await).await {
                tell(Told::Warning(format!("whether the backup is marked as one that is to go was not found out: {error}")));
            }
            // The backup is there; a lease that stays is only in nobody's way.
            if let Err(error) = archive.store.remove(&archive.lease(&header.id)?).await {
                tell(Told::Warning(format!("the lease was not removed: {error}")));
            }
            Ok(Report { reused: progress.seen().spared, unread, took: begun.elapsed(), header })
        }
        Err(error) => {
            // Without that note the next one only waits a little longer before it uses what this one has stored.
            let _ = tokio::time::timeout(Duration::from_secs(5), lease.give_up(archive)).await;
            Err(error)
        }
    }
}

async fn make<S: ObjectStore>(
    archive: &Archive<S>,
    request: &Request,
    session: BackupMode,
    server: &CopiedServer,
    lease: &Lease,
    progress: &Arc<Progress>,
    tell: &dyn Fn(Told),
) -> Result<(Header, u64), BackupError> {
    let prepared = prepare::prepare(archive, request, &lease.backup, server, tell).await?;
    let (id, parent) = (lease.backup.clone(), prepared.parent_id.clone());
    let mut copied = copy(archive, request, session, server, &id, prepared, progress, tell).await?;
    progress.enter(Phase::Finishing);
    // Nobody removes packs while somebody is known to use them; the store may just have been away for a while.
    upload::patiently(async || lease.write(archive).await).await?;
    let (unread, memory) = (copied.packed.unread, std::mem::replace(&mut copied.packed.memory, Err(io::ErrorKind::Other.into())));
    let header = seal::seal(archive, request, server, id, parent, copied).await?;
    // Only now there is a backup for the next one to be compared with.
    if let Err(error) = memory.and_then(MemoryWriter::keep) {
        let beside = request.data_dir.display();
        tell(Told::Note(format!("the next backup reads all files: what this one knows of them cannot be kept beside '{beside}': {error}")));
    }
    Ok((header, unread))
}

/// What is known when everything was copied.
struct Copied {
    packed: packer::Packed,
    start: Moment,
    stop: Moment,
    label: String,
    tablespace_map: String,
}

#[allow(clippy::too_many_arguments, reason = "all that it took to get here")]
async fn copy<S: ObjectStore>(
    archive: &Archive<S>,
    request: &Request,
    mut session: BackupMode,
    server: &CopiedServer,
    id: &BackupId,
    prepared: Prepared,
    progress: &Arc<Progress>,
    tell: &dyn Fn(Told),
) -> Result<Copied, BackupError> {
    progress.enter(Phase::Checkpoint);
    let begun = Timestamp::now();
    let start = session.start(&request.label).await?;
    progress.enter(Phase::Reading);
    let sources = Sources { request, server, start };
    let packed = tokio::select! {
        packed = transfer::transfer(archive, &sources, id, prepared, progress) => packed?,
        why = session.ended() => return Err(BackupError::SessionLost(why)),
    };
    for path in &packed.strange {
        let path = path.escape_ascii();
        tell(Told::Warning(format!("'{path}' is neither a file nor a directory: it is not in the backup")));
    }
    let stopped = session.stop().await?;
    let start = Moment { time: begun, lsn: start, timeline: start_timeline(&stopped.label)? };
    let past = timelines::lineage(&request.data_dir, stopped.timeline).unwrap_or_default();
    let timeline = stretch::timeline_of(stopped.lsn, stopped.timeline, &past);
    let stop = Moment { time: Timestamp::now(), lsn: stopped.lsn, timeline };
    let segments = stretch::segments(&start, &stop, &past, u64::from(server.wal_segment_size)).ok_or_else(|| {
        let (from, to) = (start.timeline, stop.timeline);
        BackupError::Refused(if from == to {
            format!("the server says that the backup begins at {} and ends at {}, which is not behind it", start.lsn, stop.lsn)
        } else {
            format!("the member went from timeline {from} to {to}, which does not come of it, while its files were read")
        })
    })?;
    progress.enter(Phase::WaitingForWal);
    switch_wal(request, server, tell).await;
    wal_wait::wait(archive, &segments, request.wal_patience, |file| tell(Told::Note(format!("waiting for '{file}' in the archive"))))
        .await?;
    Ok(Copied { packed, start, stop, label: stopped.label, tablespace_map: stopped.tablespace_map })
}

/// A primary ends its segment with the backup. A standby cannot, and on an idle primary the segment may last for days.
async fn switch_wal(request: &Request, server: &CopiedServer, tell: &dyn Fn(Told)) {
    if !server.in_recovery {
        return;
    }
    let Some(primary) = &request.primary else {
        return tell(Told::Note(
            "a standby was read: the backup is complete when the primary has archived its present WAL segment".to_owned(),
        ));
    };
    let role = request.primary_role.as_ref().unwrap_or(&request.role);
    let switched = async { BackupMode::connect(primary, role).await?.switch_wal().await };
    if let Err(error) = switched.await {
        tell(Told::Warning(format!("the primary was not told to archive its present WAL segment: {error}")));
    }
}

/// The timeline that `backup_label` names.
fn start_timeline(label: &str) -> Result<Timeline, BackupError> {
    let told = label.lines().find_map(|line| line.strip_prefix("START TIMELINE: "));
    let timeline = told.and_then(|number| number.trim().parse().ok()).map(Timeline);
    timeline.ok_or_else(|| BackupError::Refused("the server's backup_label names no timeline".to_owned()))
}

fn chance() -> Result<u32, BackupError> {
    let mut chance = [0; 4];
    getrandom::fill(&mut chance).map_err(|error| BackupError::Refused(format!("there is no chance to name a backup by: {error}")))?;
    Ok(u32::from_le_bytes(chance))
}
