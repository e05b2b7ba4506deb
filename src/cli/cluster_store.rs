//! A cluster's part of a store: the same options for every command that works with its backups or its WAL.

use super::{CommandError, ErrorKind, store_arguments::StoreArgs};
use crate::{
    backup::{Archive, catalog, encryption::SealedStore},
    model::{ClusterName, InvalidObjectName, ObjectName, SystemId},
    postgres::own_command,
    storage::Store,
};

/// For so many seconds a recovery waits for a store that cannot be reached: its end would be that of the recovery.
const RESTORE_PATIENCE: &str = "3600";

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
    pub fn options(&self) -> Vec<String> {
        let mut options = self.place.config().options();
        options.push(format!("--cluster={}", self.cluster));
        options
    }

    /// Opens the store, and the archive in it: that of the system which was said, or of the only one that there are backups of.
    ///
    /// # Errors
    /// When the store cannot be opened, and when it is not clear whose archive is meant.
    pub async fn opened(&self, said: Option<SystemId>) -> Result<Archive<Store>, CommandError> {
        let failed = |error| CommandError::new(ErrorKind::Failed, error);
        let store = SealedStore::open(&self.place.config(), self.root()?).await.map_err(failed)?;
        let system = match said {
            Some(system) => system,
            None => self.only_system(&store).await?,
        };
        Ok(Archive::of(store, system))
    }

    /// What every object of the cluster begins with.
    pub fn root(&self) -> Result<ObjectName, CommandError> {
        self.cluster.as_str().parse().map_err(|error: InvalidObjectName| CommandError::new(ErrorKind::Usage, error))
    }

    async fn only_system(&self, store: &SealedStore<Store>) -> Result<SystemId, CommandError> {
        let found = catalog::systems(store).await.map_err(|error| CommandError::new(ErrorKind::Failed, error))?;
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

    /// What PostgreSQL is to run to get WAL from there, without any service, whose cache is not to be filled with what only this needs.
    ///
    /// # Errors
    /// When that cannot be written on a command line.
    pub fn restore_command(&self) -> Result<String, CommandError> {
        let words = ["wal", "fetch", "--patience", RESTORE_PATIENCE].map(str::to_owned).into_iter().chain(self.options());
        let line = own_command::command(&words.collect::<Vec<_>>()).map_err(|error| CommandError::new(ErrorKind::Failed, error))?;
        Ok(format!("{line} \"%f\" \"%p\""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::StoreUrl;

    #[test]
    fn postgresql_gets_wal_from_where_the_backup_came_from() {
        let place = StoreArgs {
            store: StoreUrl::File("/srv/100%".into()),
            store_endpoint: None,
            store_region: None,
            store_credentials: Some("/etc/it's".into()),
            store_key: Some("/etc/orders.key".into()),
        };
        let command = ClusterStoreArgs { place, cluster: "orders".parse().unwrap() }.restore_command().unwrap();
        let words: Vec<String> = shlex::split(&command.replace("%%", "%")).unwrap();
        let expected = "wal fetch --patience 3600 --store=file:///srv/100% --store-credentials=/etc/it's --store-key=/etc/orders.key --cluster=orders %f %p";
        assert_eq!(words[1..].join(" "), expected);
        assert!(words[0].starts_with('/') && command.contains("100%%"), "{command}");
    }
}
