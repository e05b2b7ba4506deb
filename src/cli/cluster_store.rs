//! A cluster's part of a store: the same options for every command that works with its backups or its WAL.

use std::{borrow::Cow, path::Path};

use super::{CommandError, ErrorKind, store_arguments::StoreArgs};
use crate::{
    backup::{Archive, catalog},
    model::{ClusterName, InvalidObjectName, ObjectName, SystemId},
    storage::{Store, StoreUrl},
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
    /// The same options as a command line.
    pub fn words(&self) -> Vec<String> {
        let place = &self.place;
        let mut words = vec!["--store".to_owned(), place.store.to_string(), "--cluster".to_owned(), self.cluster.to_string()];
        let credentials = place.store_credentials.as_ref().map(|file| file.to_string_lossy().into_owned());
        for (option, value) in
            [("--store-endpoint", &place.store_endpoint), ("--store-region", &place.store_region), ("--store-credentials", &credentials)]
        {
            words.extend(value.iter().flat_map(|value| [option.to_owned(), value.clone()]));
        }
        words
    }

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

    /// What PostgreSQL is to run to get WAL from there, without any service.
    ///
    /// # Errors
    /// When a path cannot be written on a command line.
    pub fn restore_command(&self, program: &Path) -> Result<String, CommandError> {
        let place = &self.place;
        let store = match &place.store {
            StoreUrl::File(directory) => directory.display().to_string(),
            s3 => s3.to_string(),
        };
        let mut words = vec![program.display().to_string(), "wal".to_owned(), "fetch".to_owned(), "--store".to_owned(), store];
        let credentials = place.store_credentials.as_ref().map(|file| file.display().to_string());
        let options =
            [("--store-endpoint", &place.store_endpoint), ("--store-region", &place.store_region), ("--store-credentials", &credentials)];
        for (option, value) in options {
            words.extend(value.iter().flat_map(|value| [option.to_owned(), value.clone()]));
        }
        words.extend(["--cluster".to_owned(), self.cluster.to_string()]);
        let quoted: Result<Vec<Cow<'_, str>>, _> = words.iter().map(|word| shlex::try_quote(word)).collect();
        let line = quoted.map_err(|error| CommandError::new(ErrorKind::Usage, error))?.join(" ");
        // PostgreSQL puts something in the place of a percent sign.
        Ok(format!("{} %f %p", line.replace('%', "%%")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn postgresql_gets_wal_from_where_the_backup_came_from() {
        let place = |store: StoreUrl, endpoint: Option<&str>| StoreArgs {
            store,
            store_endpoint: endpoint.map(str::to_owned),
            store_region: None,
            store_credentials: endpoint.map(|_| "/etc/it's".into()),
        };
        let command = |place| ClusterStoreArgs { place, cluster: "orders".parse().unwrap() }.restore_command(Path::new("/opt/a b/spilo"));
        let file = command(place(StoreUrl::File("/srv/100%".into()), None)).unwrap();
        assert_eq!(file, "'/opt/a b/spilo' wal fetch --store '/srv/100%%' --cluster orders %f %p");
        let s3 = command(place("s3://backups/pg".parse().unwrap(), Some("https://s3.example:9000"))).unwrap();
        let options = "--store s3://backups/pg --store-endpoint https://s3.example:9000 --store-credentials \"/etc/it's\"";
        assert_eq!(s3, format!("'/opt/a b/spilo' wal fetch {options} --cluster orders %f %p"));
    }
}
