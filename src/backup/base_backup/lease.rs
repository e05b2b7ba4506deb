//! Who is at work on a backup: an object that is written before anything else of it, renewed as long as the work goes on, and removed when the
//! manifest is there. What has neither a manifest nor somebody at work is garbage, of which the next backup uses what it can.

use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::error::BackupError;
use crate::{
    backup::{Archive, ArchiveError, BackupId},
    storage::{ObjectName, ObjectStore, StoreError},
    sys::{machine, process_table},
};

/// How often it is renewed.
pub const RENEWED_EVERY: Duration = Duration::from_secs(20);

/// Whoever has not renewed it for so long, by the store's clock, is not at work any more.
pub const STALE_AFTER: SignedDuration = SignedDuration::from_mins(5);

/// What a lease says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The backup.
    pub backup: BackupId,
    /// The member that does it.
    pub member: String,
    /// The machine, or the container, that it runs on.
    pub host: String,
    /// Where the process number means something; empty where the system does not tell.
    pub space: String,
    /// The process there.
    pub pid: i32,
    /// When that process was started, in ticks since the machine was: numbers are used again.
    pub pid_started: u64,
    /// When the work began.
    pub begun: Timestamp,
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
            host: machine::name(),
            space: machine::process_space(),
            pid,
            pid_started: process_table::started(pid).unwrap_or(0),
            begun: now,
            given_up: false,
        }
    }

    /// Whether its process was one of this machine, and is gone. A name proves nothing: two machines may have the same one.
    fn has_ended(&self) -> bool {
        let here = !self.space.is_empty() && self.space == machine::process_space();
        here && process_table::started(self.pid) != Some(self.pid_started)
    }

    /// Writes it.
    ///
    /// # Errors
    /// When the store does not take it.
    pub async fn write<S: ObjectStore>(&self, archive: &Archive<S>) -> Result<(), BackupError> {
        let json = serde_json::to_vec(self).expect("it has only texts, numbers and lists");
        Ok(archive.store.replace(&archive.lease(&self.backup)?, Bytes::from(json)).await?)
    }

    /// Says that the work has ended without a backup. Where nothing was stored there is nothing to say.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn give_up<S: ObjectStore>(mut self, archive: &Archive<S>) -> Result<(), BackupError> {
        if archive.store.list(&archive.packs(&self.backup)?).await?.is_empty() {
            return Ok(archive.store.remove(&archive.lease(&self.backup)?).await?);
        }
        self.given_up = true;
        self.write(archive).await
    }

    /// Renews it for ever. A store that does not answer for a while is no reason to end: what counts is that all packs are there at the end.
    pub async fn keep<S: ObjectStore>(&self, archive: &Archive<S>) -> BackupError {
        loop {
            tokio::time::sleep(RENEWED_EVERY).await;
            match self.write(archive).await {
                Err(BackupError::Archive(ArchiveError::Store(StoreError::Unavailable { .. }))) | Ok(()) => {}
                Err(error) => return error,
            }
        }
    }
}

/// A lease as it lies in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredLease {
    /// What it says.
    pub lease: Lease,
    /// When it was last renewed, by the store's clock: nobody else's can be compared with another machine's.
    pub written: Timestamp,
}

impl StoredLease {
    /// Whether somebody is, or may be, at work. `now` is the store's time, or differs from it by no more than this.
    pub fn is_held(&self, now: Timestamp, skew: SignedDuration) -> bool {
        let silent = now.duration_since(self.written) > STALE_AFTER + skew;
        !self.lease.given_up && !self.lease.has_ended() && !silent
    }
}

/// Every lease of a cluster. One that cannot be read is passed over, with its name.
///
/// # Errors
/// When the store does not say.
pub async fn all<S: ObjectStore>(archive: &Archive<S>) -> Result<(Vec<StoredLease>, Vec<ObjectName>), ArchiveError> {
    let (mut leases, mut unreadable) = (Vec::new(), Vec::new());
    for object in archive.store.list(&archive.leases()?).await? {
        let content = match archive.store.read(&object.name).await {
            Ok(Some(content)) => content,
            Ok(None) => continue,
            Err(ArchiveError::Damaged { .. }) => {
                unreadable.push(object.name);
                continue;
            }
            Err(error) => return Err(error),
        };
        // Gone meanwhile: whoever was at work has ended.
        let Some(written) = archive.store.written(&object.name).await? else { continue };
        match serde_json::from_slice(&content) {
            Ok(lease) => leases.push(StoredLease { lease, written }),
            Err(_) => unreadable.push(object.name),
        }
    }
    Ok((leases, unreadable))
}
