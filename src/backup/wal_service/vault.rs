//! The way to the archive: the store, opened when it is first needed, and whose WAL is in the data directory.

use std::{cell::RefCell, path::PathBuf};

use crate::{
    backup::{
        archive::{Archive, ArchiveError},
        encryption::SealedStore,
    },
    model::ClusterName,
    postgres::control_data,
    storage::{ObjectName, Store, StoreConfig, StoreUrl},
};

/// Where the archive of a data directory is.
pub struct Vault {
    config: StoreConfig,
    cluster: ClusterName,
    /// The data directory.
    pub data_dir: PathBuf,
    store: RefCell<Option<SealedStore<Store>>>,
}

impl Vault {
    /// Nothing is asked yet: a service runs before its store, and before there is a server.
    pub fn new(config: StoreConfig, cluster: ClusterName, data_dir: PathBuf) -> Vault {
        Vault { config, cluster, data_dir, store: RefCell::new(None) }
    }

    /// Where the store is.
    pub fn url(&self) -> &StoreUrl {
        &self.config.url
    }

    /// Whose archive it is.
    pub fn cluster(&self) -> &ClusterName {
        &self.cluster
    }

    /// The archive of what is in the data directory now: that may be another system's than a minute ago.
    pub async fn archive(&self) -> Result<Archive<Store>, ArchiveError> {
        let system = control_data::system_id(&self.data_dir);
        let path = self.data_dir.display().to_string();
        let system = system.map_err(|source| ArchiveError::File { action: "find out whose data are in", path, source })?;
        let root: ObjectName = self.cluster.as_str().parse()?;
        let opened = self.store.borrow().clone();
        let store = match opened {
            Some(store) => store,
            None => {
                let store = SealedStore::open(&self.config, root).await?;
                self.store.replace(Some(store.clone()));
                store
            }
        };
        Ok(Archive::of(store, system))
    }
}
