//! Small objects beside the backups that say what is to become of them: a tomb for one that is to go, a pin for one that stays.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    BackupId,
    archive::{Archive, ArchiveError},
    catalog::Unreadable,
};
use crate::{
    model::{InvalidObjectName, ObjectName},
    storage::ObjectStore,
};

/// Why and since when a backup is to go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tomb {
    /// Since when.
    pub since: Timestamp,
    /// Why, for people.
    pub why: String,
}

/// The tombs and pins of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Marks {
    /// What is to go.
    pub tombs: BTreeMap<BackupId, Tomb>,
    /// What stays.
    pub pins: BTreeSet<BackupId>,
    /// Tombs that say nothing.
    pub unreadable: Vec<Unreadable>,
}

impl Marks {
    /// Reads them.
    ///
    /// # Errors
    /// When the store does not say.
    pub async fn read<S: ObjectStore>(archive: &Archive<S>) -> Result<Marks, ArchiveError> {
        let mut marks = Marks::default();
        for object in archive.store.list(&tombs(archive)?).await? {
            let Ok(id) = object.name.last().parse::<BackupId>() else { continue };
            // One that is gone by now has been taken away by who wrote it.
            let tomb = match archive.store.read(&object.name).await {
                Ok(Some(content)) => serde_json::from_slice(&content).map_err(|error| format!("it is no tomb of ours: {error}")),
                Ok(None) => continue,
                Err(ArchiveError::Damaged { why, .. }) => Err(why),
                Err(error) => return Err(error),
            };
            match tomb {
                Ok(tomb) => drop(marks.tombs.insert(id, tomb)),
                Err(why) => marks.unreadable.push(Unreadable { object: object.name, why }),
            }
        }
        marks.pins = Marks::read_pins(archive).await?;
        Ok(marks)
    }

    /// The pins alone.
    ///
    /// # Errors
    /// When the store does not say.
    pub async fn read_pins<S: ObjectStore>(archive: &Archive<S>) -> Result<BTreeSet<BackupId>, ArchiveError> {
        let objects = archive.store.list(&pins(archive)?).await?;
        Ok(objects.iter().filter_map(|object| object.name.last().parse().ok()).collect())
    }
}

/// Says that the backup is to go; one that is to go already goes when it was to.
///
/// # Errors
/// When the store does not take it.
pub async fn condemn<S: ObjectStore>(archive: &Archive<S>, id: &BackupId, tomb: &Tomb) -> Result<(), ArchiveError> {
    let content = serde_json::to_vec(tomb).expect("a tomb is plain data");
    archive.store.create(&tombs(archive)?.join(id.as_str())?, Bytes::from(content)).await?;
    Ok(())
}

/// Takes a tomb away: all is gone that it was for, or it is not to go after all.
///
/// # Errors
/// When the store does not do it.
pub async fn remove_tomb<S: ObjectStore>(archive: &Archive<S>, id: &BackupId) -> Result<(), ArchiveError> {
    archive.store.remove(&tombs(archive)?.join(id.as_str())?).await
}

/// Whether the backup is to go.
///
/// # Errors
/// When the store does not say.
pub async fn is_condemned<S: ObjectStore>(archive: &Archive<S>, id: &BackupId) -> Result<bool, ArchiveError> {
    Ok(archive.store.size(&tombs(archive)?.join(id.as_str())?).await?.is_some())
}

/// Keeps the backup, whatever the policy says, until it is unpinned.
///
/// # Errors
/// When the store does not take it.
pub async fn pin<S: ObjectStore>(archive: &Archive<S>, id: &BackupId) -> Result<(), ArchiveError> {
    archive.store.replace(&pins(archive)?.join(id.as_str())?, Bytes::from_static(b"{}")).await
}

/// Leaves the backup to the policy again.
///
/// # Errors
/// When the store does not do it.
pub async fn unpin<S: ObjectStore>(archive: &Archive<S>, id: &BackupId) -> Result<(), ArchiveError> {
    archive.store.remove(&pins(archive)?.join(id.as_str())?).await
}

/// Whether the backup is pinned.
///
/// # Errors
/// When the store does not say.
pub async fn is_pinned<S: ObjectStore>(archive: &Archive<S>, id: &BackupId) -> Result<bool, ArchiveError> {
    Ok(archive.store.size(&pins(archive)?.join(id.as_str())?).await?.is_some())
}

fn tombs<S>(archive: &Archive<S>) -> Result<ObjectName, InvalidObjectName> {
    archive.root().join("tomb")?.join(&archive.system().to_string())
}

fn pins<S>(archive: &Archive<S>) -> Result<ObjectName, InvalidObjectName> {
    archive.root().join("pin")?.join(&archive.system().to_string())
}
