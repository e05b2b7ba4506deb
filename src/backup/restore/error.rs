//! Why a backup was not restored.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::choose::NoWay;
use crate::{
    backup::ArchiveError,
    model::{InvalidObjectName, ObjectName},
    storage::StoreError,
};

/// Why a backup was not restored. Whatever it was, the directory cannot be started, and the same request again goes on.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The store, or what it has.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// There is no way from any backup to the target.
    #[error(transparent)]
    NoWay(#[from] NoWay),
    /// A file on this machine.
    #[error("cannot {action} '{path}'")]
    File {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The place is not one to restore to. Nothing was changed.
    #[error("nothing was restored: {why}")]
    Refused {
        /// Why.
        why: String,
        /// What to do.
        hint: String,
    },
    /// What the store has is not what was backed up.
    #[error("'{object}' is damaged: {why}")]
    Damaged {
        /// The object.
        object: ObjectName,
        /// What is wrong with it, and which file cannot be restored.
        why: String,
    },
    /// A thread came to an end that it should not.
    #[error("a thread ended abnormally: {0}")]
    Thread(String),
}

impl RestoreError {
    /// What a file could not be used for.
    pub(super) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RestoreError {
        let path = path.to_owned();
        move |source| RestoreError::File { action, path, source }
    }

    /// The place is not one to restore to.
    pub(super) fn refused(why: impl Into<String>, hint: impl Into<String>) -> RestoreError {
        RestoreError::Refused { why: why.into(), hint: hint.into() }
    }
}

impl From<StoreError> for RestoreError {
    fn from(error: StoreError) -> RestoreError {
        RestoreError::Archive(error.into())
    }
}

impl From<InvalidObjectName> for RestoreError {
    fn from(error: InvalidObjectName) -> RestoreError {
        RestoreError::Archive(error.into())
    }
}
