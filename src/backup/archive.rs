//! Where a cluster's WAL lies in a store.

use std::{io, path::Path};

use super::{
    BackupId,
    encryption::{KeyError, SealedStore},
    pack,
};
use crate::{
    model::{SystemId, Timeline, WalFile, WalSegment},
    storage::{InvalidObjectName, KmsError, ObjectName, StoreError},
};

/// The WAL of one database cluster in a store. Everything lies below its system identifier, so a cluster that is created again under an old
/// name never comes near the old one's WAL.
pub struct Archive<S> {
    pub(super) store: SealedStore<S>,
    pub(super) system: SystemId,
}

/// Why something was not archived, or not restored.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The store did not do what it was asked for.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Names do not fit into the store.
    #[error(transparent)]
    Name(#[from] InvalidObjectName),
    /// The archive cannot be read or written for its key's sake.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A file on this machine could not be read or written.
    #[error("cannot {action} '{path}'")]
    File {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The file is not what its name says.
    #[error("'{file}' is not archived: {why}")]
    Unfit {
        /// Its name.
        file: WalFile,
        /// What is wrong with it.
        why: String,
    },
    /// The archive has the file with another content. Both are kept.
    #[error("'{file}' is in the archive with another content; this one was put aside as '{aside}': two servers have written the same WAL")]
    Conflict {
        /// Its name.
        file: WalFile,
        /// Where this content is now.
        aside: ObjectName,
    },
    /// A thread of ours came to an end that it should not.
    #[error("a thread ended abnormally: {0}")]
    Thread(String),
    /// What the archive has is not what was put there.
    #[error("'{object}' is damaged: {why}")]
    Damaged {
        /// The object.
        object: ObjectName,
        /// What is wrong with it.
        why: String,
    },
}

impl ArchiveError {
    /// Nobody has said no: the store, or the KMS that has the key, does not answer, and the same may work later.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, ArchiveError::Store(StoreError::Unavailable { .. }) | ArchiveError::Key(KeyError::Kms(KmsError::Unavailable { .. })))
    }

    /// Wraps an I/O error with what was done to which file.
    pub fn file(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> ArchiveError {
        let path = path.as_ref().display().to_string();
        move |source| ArchiveError::File { action, path, source }
    }
}

impl<S> Archive<S> {
    /// The archive of this database cluster.
    pub fn of(store: SealedStore<S>, system: SystemId) -> Archive<S> {
        Archive { store, system }
    }

    /// The same below `root` of a store, not encrypted.
    #[cfg(test)]
    pub fn new(store: S, root: ObjectName, system: SystemId) -> Archive<S> {
        Archive::of(SealedStore::over(store, root, None), system)
    }

    /// Where a segment lies, with others of its timeline: those that begin with the same half of a position.
    ///
    /// # Errors
    /// When the root is too long, as for all names here.
    pub fn folder(&self, segment: WalSegment) -> Result<ObjectName, InvalidObjectName> {
        self.timeline(segment.timeline)?.join(&format!("{:08X}", segment.log))
    }

    /// Where all segments of a timeline lie.
    ///
    /// # Errors
    /// When the root is too long, as for all names here.
    pub fn timeline(&self, timeline: Timeline) -> Result<ObjectName, InvalidObjectName> {
        self.wal()?.join(&format!("{:08X}", timeline.0))
    }

    /// The one name that the file has: a second one, such as for another compression, would let two different contents be archived.
    ///
    /// # Errors
    /// When root and name together are too long.
    pub fn object(&self, file: WalFile) -> Result<ObjectName, InvalidObjectName> {
        let folder = match file {
            WalFile::History(_) => self.wal()?.join("history")?,
            WalFile::Segment(segment) | WalFile::Partial(segment) | WalFile::BackupNote(segment, _) => self.folder(segment)?,
        };
        folder.join(&format!("{file}.zst"))
    }

    /// The way to its objects.
    pub fn store(&self) -> &SealedStore<S> {
        &self.store
    }

    /// Whose archive it is.
    pub fn system(&self) -> SystemId {
        self.system
    }

    /// Where all WAL lies.
    pub fn wal(&self) -> Result<ObjectName, InvalidObjectName> {
        self.root().join("wal")?.join(&self.system.to_string())
    }

    /// Where contents lie that came second under a name.
    pub fn conflicts(&self) -> Result<ObjectName, InvalidObjectName> {
        self.root().join("conflict")?.join(&self.system.to_string())
    }

    /// What every object of this cluster's name begins with.
    pub fn root(&self) -> &ObjectName {
        self.store.root()
    }

    /// Where all base backups lie.
    ///
    /// # Errors
    /// When the root is too long, as for all names here.
    pub fn backups(&self) -> Result<ObjectName, InvalidObjectName> {
        self.root().join("backup")?.join(&self.system.to_string())
    }

    /// The manifest of a base backup: it is there when the backup is complete.
    pub fn manifest(&self, backup: &BackupId) -> Result<ObjectName, InvalidObjectName> {
        self.backups()?.join(backup.as_str())?.join("manifest")
    }

    /// Where the packs lie that a base backup has stored.
    pub fn packs(&self, backup: &BackupId) -> Result<ObjectName, InvalidObjectName> {
        self.backups()?.join(backup.as_str())?.join("pack")
    }

    /// One of them.
    pub fn pack(&self, backup: &BackupId, number: u32) -> Result<ObjectName, InvalidObjectName> {
        pack::name(&self.packs(backup)?, number)
    }

    /// Where it is said who is at work on what.
    pub fn leases(&self) -> Result<ObjectName, InvalidObjectName> {
        self.root().join("lease")?.join(&self.system.to_string())
    }

    /// Who is at work on this base backup.
    pub fn lease(&self, backup: &BackupId) -> Result<ObjectName, InvalidObjectName> {
        self.leases()?.join(backup.as_str())
    }

    /// Where it is said what was found when backups were looked at.
    pub fn all_verified(&self) -> Result<ObjectName, InvalidObjectName> {
        self.root().join("verified")?.join(&self.system.to_string())
    }

    /// What was found when this base backup was looked at.
    pub fn verified(&self, backup: &BackupId) -> Result<ObjectName, InvalidObjectName> {
        self.all_verified()?.join(backup.as_str())
    }

    /// Where a content goes that has lost against another one of the same name.
    pub(super) fn aside(&self, file: WalFile, digest: &str) -> Result<ObjectName, InvalidObjectName> {
        self.conflicts()?.join(&format!("{file}.{digest}.zst"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_one_place() {
        let archive = Archive::new((), "orders".parse().unwrap(), SystemId(7_300_000_000_000_000_001));
        let object = |text: &str| archive.object(text.parse().unwrap()).unwrap().to_string();
        let wal = "orders/wal/7300000000000000001";
        assert_eq!(object("000000020000000A000000FF"), format!("{wal}/00000002/0000000A/000000020000000A000000FF.zst"));
        assert_eq!(object("000000020000000A000000FF.partial"), format!("{wal}/00000002/0000000A/000000020000000A000000FF.partial.zst"));
        assert_eq!(object("00000002.history"), format!("{wal}/history/00000002.history.zst"));
    }

    #[test]
    fn a_backup_has_one_place() {
        let archive = Archive::new((), "orders".parse().unwrap(), SystemId(7_300_000_000_000_000_001));
        let id: BackupId = "20261121T204500Z-1a2b3c4d".parse().unwrap();
        let folder = format!("orders/backup/7300000000000000001/{id}");
        assert_eq!(archive.manifest(&id).unwrap().as_str(), format!("{folder}/manifest"));
        assert_eq!(archive.pack(&id, 17).unwrap().as_str(), format!("{folder}/pack/00000017"));
        assert_eq!(archive.lease(&id).unwrap().as_str(), format!("orders/lease/7300000000000000001/{id}"));
        assert_eq!(archive.verified(&id).unwrap().as_str(), format!("orders/verified/7300000000000000001/{id}"));
    }
}
