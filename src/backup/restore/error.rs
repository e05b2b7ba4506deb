//! Why a backup was not restored.

use std::{io, path::Path};

use tokio::task::JoinError;

use super::choose::NoWay;
use crate::{
    backup::ArchiveError,
    model::{InvalidObjectName, ObjectName},
    storage::StoreError,
};

/// Why a backup was not restored. Whatever it was, the directory cannot be started, and the same request again goes on.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The store, what it has, or a file on this machine.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// There is no way from any backup to the target.
    #[error(transparent)]
    NoWay(#[from] NoWay),
    /// The place is not one to restore to. Nothing was changed.
    #[error("nothing was restored: {why}")]
    Refused {
        /// Why.
        why: String,
        /// What to do.
        hint: String,
    },
}

impl RestoreError {
    /// What a file could not be used for.
    pub(super) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RestoreError {
        let told = ArchiveError::file(action, path);
        move |source| told(source).into()
    }

    /// What the store has is not what was backed up: what is wrong with it, and which file cannot be restored.
    pub(super) fn damaged(object: &ObjectName, why: impl Into<String>) -> RestoreError {
        ArchiveError::Damaged { object: object.clone(), why: why.into() }.into()
    }

    /// A thread of ours came to an end that it should not.
    pub(super) fn thread(error: &JoinError) -> RestoreError {
        ArchiveError::Thread(error.to_string()).into()
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
