//! Where backups and WAL are kept: whole objects under names. An object is there completely or not at all, for every reader, and what has
//! been acknowledged outlives the machine it was written from.

mod attempts;
mod credentials;
mod file;
mod kms;
mod mark;
mod s3;
mod store;
mod unanswered;

use bytes::Bytes;
use jiff::Timestamp;

pub use file::FileStore;
pub use kms::{Kms, KmsError, Wrapped};
pub use s3::S3Store;
pub use store::Store;

pub use crate::model::{InvalidObjectName, InvalidStoreUrl, ObjectName, StoreConfig, StoreUrl};

/// Why a store did not do what it was asked for. Every message names the object.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store did not answer, or not with what was asked for: the same may work later. A write may or may not have happened.
    #[error("'{object}': the store is not available: {why}")]
    Unavailable {
        /// What it was about.
        object: String,
        /// What happened.
        why: String,
    },
    /// The store refused, and will refuse again until somebody changes something.
    #[error("'{object}': the store refused: {why}")]
    Refused {
        /// What it was about.
        object: String,
        /// Why, and what to do.
        why: String,
    },
}

impl StoreError {
    /// The same error, of that object.
    fn about(self, object: String) -> StoreError {
        match self {
            StoreError::Unavailable { why, .. } => StoreError::Unavailable { object, why },
            StoreError::Refused { why, .. } => StoreError::Refused { object, why },
        }
    }
}

/// What came of a write that must have one winner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// The object is there, with this content, by this request.
    Won,
    /// An object of this name was there before; nothing was changed. It may have the same content, even from an earlier attempt of ours whose
    /// answer got lost.
    Taken,
}

/// An object, without its content.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Object {
    /// Its name.
    pub name: ObjectName,
    /// Its size in bytes.
    pub size: u64,
}

/// A store of objects. `None` for an object always means that the store said so: whoever could not be asked is an error.
#[allow(async_fn_in_trait, reason = "one thread per process: no driver has to be Send")]
pub trait ObjectStore {
    /// Creates the object if there is none of this name. Of any number of writers at the same time exactly one wins. When this returns, the
    /// object is durable.
    async fn create(&self, name: &ObjectName, content: Bytes) -> Result<Claim, StoreError>;

    /// Writes the object over whatever has its name. When this returns, it is durable.
    async fn replace(&self, name: &ObjectName, content: Bytes) -> Result<(), StoreError>;

    /// Reads all of it.
    async fn read(&self, name: &ObjectName) -> Result<Option<Bytes>, StoreError>;

    /// Reads `length` bytes from `offset` on, or as many as there are.
    async fn read_range(&self, name: &ObjectName, offset: u64, length: u64) -> Result<Option<Bytes>, StoreError>;

    /// Its size.
    async fn size(&self, name: &ObjectName) -> Result<Option<u64>, StoreError>;

    /// When the object was last written, by the store's clock, to the second.
    async fn written(&self, name: &ObjectName) -> Result<Option<Timestamp>, StoreError>;

    /// Every object below `folder` (`wal/7` has `wal/7/a` and not `wal/70`), in the order of their names. All of them, or an error.
    async fn list(&self, folder: &ObjectName) -> Result<Vec<Object>, StoreError>;

    /// Removes the object; one that is not there is fine.
    async fn remove(&self, name: &ObjectName) -> Result<(), StoreError>;
}
