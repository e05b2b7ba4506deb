//! The store that a configuration names, whichever driver it takes.

use std::path::Path;

use bytes::Bytes;
use jiff::Timestamp;

use super::{Claim, FileStore, Object, ObjectName, ObjectStore, S3Store, StoreConfig, StoreError, StoreUrl};

/// A store of any kind.
#[derive(Clone)]
pub enum Store {
    /// In a directory.
    File(FileStore),
    /// In a bucket.
    S3(S3Store),
}

impl Store {
    /// Opens the store, which has to be there.
    ///
    /// # Errors
    /// When there is none, or it cannot be reached.
    pub async fn open(config: &StoreConfig) -> Result<Store, StoreError> {
        match &config.url {
            StoreUrl::File(root) => apart(root, FileStore::open).await.map(Store::File),
            StoreUrl::S3 { .. } => S3Store::open(config).await.map(Store::S3),
        }
    }

    /// Makes the store if there is none yet, and opens it.
    ///
    /// # Errors
    /// When something else is in its place, or it cannot be reached.
    pub async fn init(config: &StoreConfig) -> Result<Store, StoreError> {
        match &config.url {
            StoreUrl::File(root) => apart(root, FileStore::init).await.map(Store::File),
            StoreUrl::S3 { .. } => S3Store::init(config).await.map(Store::S3),
        }
    }
}

/// Does that to the directory where it may take its time: a file server that hangs holds up nothing else.
async fn apart(root: &Path, work: fn(&Path) -> Result<FileStore, StoreError>) -> Result<FileStore, StoreError> {
    let place = root.to_owned();
    let done = tokio::task::spawn_blocking(move || work(&place)).await;
    done.unwrap_or_else(|error| Err(StoreError::Unavailable { object: root.display().to_string(), why: error.to_string() }))
}

/// The same question to whichever driver it is.
macro_rules! driver {
    ($store:expr, $driver:ident => $ask:expr) => {
        match $store {
            Store::File($driver) => $ask,
            Store::S3($driver) => $ask,
        }
    };
}

impl ObjectStore for Store {
    async fn create(&self, name: &ObjectName, content: Bytes) -> Result<Claim, StoreError> {
        driver!(self, driver => driver.create(name, content).await)
    }

    async fn replace(&self, name: &ObjectName, content: Bytes) -> Result<(), StoreError> {
        driver!(self, driver => driver.replace(name, content).await)
    }

    async fn read(&self, name: &ObjectName) -> Result<Option<Bytes>, StoreError> {
        driver!(self, driver => driver.read(name).await)
    }

    async fn read_range(&self, name: &ObjectName, offset: u64, length: u64) -> Result<Option<Bytes>, StoreError> {
        driver!(self, driver => driver.read_range(name, offset, length).await)
    }

    async fn size(&self, name: &ObjectName) -> Result<Option<u64>, StoreError> {
        driver!(self, driver => driver.size(name).await)
    }

    async fn written(&self, name: &ObjectName) -> Result<Option<Timestamp>, StoreError> {
        driver!(self, driver => driver.written(name).await)
    }

    async fn list(&self, folder: &ObjectName) -> Result<Vec<Object>, StoreError> {
        driver!(self, driver => driver.list(folder).await)
    }

    async fn remove(&self, name: &ObjectName) -> Result<(), StoreError> {
        driver!(self, driver => driver.remove(name).await)
    }
}
