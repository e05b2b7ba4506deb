//! A store in a directory and keys beside it, for tests of archives that are encrypted.

use std::{fs, path::PathBuf};

use super::{key_file::MasterKey, sealed_store::SealedStore};
use crate::storage::FileStore;

/// It is removed when this is dropped.
pub struct Place {
    pub directory: tempfile::TempDir,
    pub store: FileStore,
}

impl Place {
    pub fn new() -> Place {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("store")).unwrap();
        let store = FileStore::init(&directory.path().join("store")).unwrap();
        Place { directory, store }
    }

    /// The key of this name, made when it is first asked for.
    pub fn master(&self, name: &str) -> MasterKey {
        let path = self.directory.path().join(name);
        if path.exists() { MasterKey::read(&path).unwrap() } else { MasterKey::create(&path).unwrap() }
    }

    /// Where the file store keeps the object.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join("store").join(name)
    }

    /// The archive of the cluster 'orders', with the key of that name.
    pub fn opened(&self, key: Option<&str>) -> SealedStore<FileStore> {
        SealedStore::over(self.store.clone(), "orders".parse().unwrap(), key.map(|key| self.master(key)))
    }
}
