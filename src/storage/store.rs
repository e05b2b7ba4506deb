//! The store that a configuration names, whichever driver it takes.

use std::{path::PathBuf, time::Duration};

use bytes::Bytes;
use jiff::Timestamp;

use super::{Claim, FileStore, Object, ObjectName, ObjectStore, S3Store, StoreError, StoreUrl};

/// Everything needed to reach a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// Where it is.
    pub url: StoreUrl,
    /// S3 only: the server to ask, such as `https://minio.example:9000`. Without it, AWS.
    pub endpoint: Option<String>,
    /// S3 only: the region of the bucket. Without it, what the SDK finds in environment and profile, or `us-east-1` where an endpoint is named.
    pub region: Option<String>,
    /// S3 only: a file in the form of `~/.aws/credentials`, whose profile `default` is used. Without it, the SDK looks where it always does.
    pub credentials_file: Option<PathBuf>,
}

impl StoreConfig {
    /// The store there, with nothing else said about it.
    pub fn new(url: StoreUrl) -> StoreConfig {
        StoreConfig { url, endpoint: None, region: None, credentials_file: None }
    }
}

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
            StoreUrl::File(root) => FileStore::open(root).map(Store::File),
            StoreUrl::S3 { .. } => S3Store::open(config).await.map(Store::S3),
        }
    }

    /// Makes the store if there is none yet, and opens it.
    ///
    /// # Errors
    /// When something else is in its place, or it cannot be reached.
    pub async fn init(config: &StoreConfig) -> Result<Store, StoreError> {
        match &config.url {
            StoreUrl::File(root) => FileStore::init(root).map(Store::File),
            StoreUrl::S3 { .. } => S3Store::init(config).await.map(Store::S3),
        }
    }

    /// The same store, whose calls ask again for so long before they give up; a directory is never asked again.
    pub fn with_patience(&self, patience: Duration) -> Store {
        match self {
            Store::File(store) => Store::File(store.clone()),
            Store::S3(store) => Store::S3(store.with_patience(patience)),
        }
    }
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
