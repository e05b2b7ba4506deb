//! A cluster's part of a store: the same options for every command that works with its backups or its WAL.

use super::{CommandError, ErrorKind, store_arguments::StoreArgs};
use crate::{
    backup::{Archive, catalog},
    model::{ClusterName, InvalidObjectName, ObjectName, SystemId},
    storage::Store,
};

/// A cluster's part of a store.
#[derive(Debug, Clone, clap::Args)]
pub struct ClusterStoreArgs {
    /// The store.
    #[command(flatten)]
    pub place: StoreArgs,
    /// Whose backups and WAL
    #[arg(long, value_name = "NAME")]
    pub cluster: ClusterName,
}

impl ClusterStoreArgs {
    /// Opens the store.
    pub async fn open(&self) -> Result<Store, CommandError> {
        Store::open(&self.place.config()).await.map_err(|error| CommandError::new(ErrorKind::Failed, error))
    }

    /// What every object of the cluster begins with.
    pub fn root(&self) -> Result<ObjectName, CommandError> {
        self.cluster.as_str().parse().map_err(|error: InvalidObjectName| CommandError::new(ErrorKind::Usage, error))
    }

    /// Whose archive is meant: what was said, or the only one that there are backups of.
    pub async fn system(&self, store: &Store, said: Option<SystemId>) -> Result<SystemId, CommandError> {
        if let Some(system) = said {
            return Ok(system);
        }
        let found = catalog::systems(store, &self.root()?).await.map_err(|error| CommandError::new(ErrorKind::Failed, error))?;
        match found.as_slice() {
            [system] => Ok(*system),
            [] => {
                let none = CommandError::new(ErrorKind::NotFound, format!("the store has no backup of '{}'", self.cluster));
                Err(none.hint("is --store right? WAL without a backup is found with --system NUMBER"))
            }
            several => {
                let names: Vec<String> = several.iter().map(ToString::to_string).collect();
                let told = format!("the store has backups of {} systems called '{}': {}", several.len(), self.cluster, names.join(", "));
                Err(CommandError::new(ErrorKind::Usage, told).hint("choose one with --system NUMBER"))
            }
        }
    }

    /// The cluster's archive of this system.
    pub fn archive(&self, store: Store, system: SystemId) -> Result<Archive<Store>, CommandError> {
        Ok(Archive::new(store, self.root()?, system))
    }
}
