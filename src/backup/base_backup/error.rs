//! Why there is no backup.

use std::{io, path::Path, time::Duration};

use crate::{
    backup::ArchiveError,
    model::WalFile,
    postgres::PostgresError,
    storage::{InvalidObjectName, ObjectName, StoreError},
};

/// Why there is no backup. Whatever it is, no manifest was written.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The archive did not do what it was asked for, or a file of this machine.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The server did not do what it was asked for.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// Something about the server or the request makes a backup impossible.
    #[error("{0}")]
    Refused(String),
    /// The session in which the server was told of the backup is gone, and with it the backup.
    #[error("the backup is void: {0}")]
    SessionLost(String),
    /// A thread ended without a word.
    #[error("the backup ended by a mistake of ours: {0}")]
    Broken(&'static str),
    /// The archive does not have the WAL that belongs to the backup.
    #[error("the archive still lacks '{missing}' after {} s, without which the backup is worth nothing: does archiving work?", waited.as_secs())]
    WalMissing {
        /// The first that is missing.
        missing: WalFile,
        /// How long was waited for it.
        waited: Duration,
    },
    /// Somebody has removed what this backup needs.
    #[error("'{0}' is gone from the store, though the backup needs it: somebody else removes packs")]
    PackGone(ObjectName),
    /// The end was asked for.
    #[error("interrupted")]
    Interrupted,
}

impl BackupError {
    /// Wraps an I/O error with what was done to which file.
    pub fn file(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> BackupError {
        let told = ArchiveError::file(action, path);
        move |source| told(source).into()
    }
}

impl From<StoreError> for BackupError {
    fn from(error: StoreError) -> BackupError {
        BackupError::Archive(error.into())
    }
}

impl From<InvalidObjectName> for BackupError {
    fn from(error: InvalidObjectName) -> BackupError {
        BackupError::Archive(error.into())
    }
}
