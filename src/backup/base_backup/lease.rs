//! Who is at work on a backup: an object that is written before anything else of it, renewed as long as the work goes on, and removed when the
//! manifest is there. What has neither a manifest nor somebody at work is garbage, of which the next backup uses what it can.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::error::BackupError;
use crate::{
    backup::{Archive, ArchiveError, BackupId},
    storage::{ObjectName, ObjectStore, StoreError},
    sys::process_table,
};

/// How often it is renewed.
pub const RENEWED_EVERY: Duration = Duration::from_secs(20);

/// Whoever has not renewed it for so long is not at work any more. Clocks may differ by some of it.
pub const STALE_AFTER: Duration = Duration::from_secs(300);

/// What a lease says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The backup.
    pub backup: BackupId,
    /// The member that does it.
    pub member: String,
    /// The machine, or the container, that it runs on.
    pub host: String,
    /// The process there.
    pub pid: i32,
    /// When that process was started, in ticks since the machine was: numbers are used again.
    pub pid_started: u64,
    /// When the work began.
    pub begun: Timestamp,
    /// When it was last known to go on.
    pub renewed: Timestamp,
    /// Backups whose packs are being used: nobody may remove them now.
    pub uses: Vec<BackupId>,
    /// The work has ended without a backup.
    pub given_up: bool,
}

impl Lease {
    /// Of this process, for work that begins now.
    pub fn new(backup: BackupId, member: &str, now: Timestamp) -> Lease {
        let pid = std::process::id().cast_signed();
        Lease {
            backup,
            member: member.to_owned(),
            host: host(),
            pid,
            pid_started: started(pid).unwrap_or(0),
            begun: now,
            renewed: now,
            uses: Vec::new(),
            given_up: false,
        }
    }

    /// Whether somebody is, or may be, at work.
    pub fn is_held(&self, now: Timestamp) -> bool {
        let ended_here = self.host == host() && started(self.pid) != Some(self.pid_started);
        let silent = now.duration_since(self.renewed).unsigned_abs() > STALE_AFTER;
        !self.given_up && !ended_here && !silent
    }

    /// Writes it.
    ///
    /// # Errors
    /// When the store does not take it.
    pub async fn write<S: ObjectStore>(&self, archive: &Archive<S>) -> Result<(), BackupError> {
        let json = serde_json::to_vec(self).expect("it has only texts, numbers and lists");
        Ok(archive.store.replace(&archive.lease(&self.backup)?, Bytes::from(json)).await?)
    }

    /// Renews it for ever. A store that does not answer for a while is no reason to end: what counts is that all packs are there at the end.
    pub async fn keep<S: ObjectStore>(&mut self, archive: &Archive<S>) -> BackupError {
        loop {
            tokio::time::sleep(RENEWED_EVERY).await;
            self.renewed = Timestamp::now();
            match self.write(archive).await {
                Err(BackupError::Archive(ArchiveError::Store(StoreError::Unavailable { .. }))) | Ok(()) => {}
                Err(error) => return error,
            }
        }
    }
}

/// Every lease of a cluster. One that cannot be read is passed over, with its name.
///
/// # Errors
/// When the store does not say.
pub async fn all<S: ObjectStore>(archive: &Archive<S>) -> Result<(Vec<Lease>, Vec<ObjectName>), ArchiveError> {
    let (mut leases, mut unreadable) = (Vec::new(), Vec::new());
    for object in archive.store.list(&archive.leases()?).await? {
        let Some(content) = archive.store.read(&object.name).await? else { continue };
        match serde_json::from_slice(&content) {
            Ok(lease) => leases.push(lease),
            Err(_) => unreadable.push(object.name),
        }
    }
    Ok((leases, unreadable))
}

fn host() -> String {
    let name = rustix::system::uname();
    name.nodename().to_string_lossy().into_owned()
}

/// When a process was started, if it is there.
fn started(pid: i32) -> Option<u64> {
    process_table::started(pid)
}
