//! Whose archive a command works with: that of a cluster on this machine, whose node runs the command, or a part of a store that is reached from
//! here.

use std::path::PathBuf;

use super::{
    CommandError, ErrorKind,
    cluster_store::ClusterStoreArgs,
    store_arguments::{StoreArgs, parse_file, parse_store},
};
use crate::{
    backup::BackupId,
    model::{ClusterName, StoreUrl, SystemId},
};

const DIRECTLY: &str = "Without a cluster on this machine";

/// Tells a command that a node runs for whom it does.
pub const ASKED_FOR: &str = "SPILO_ASKED_FOR";

/// A cluster of this machine, or a part of a store.
#[derive(Debug, Clone, clap::Args)]
pub struct WhichArchive {
    /// The cluster
    #[arg(required_unless_present = "store", conflicts_with = "store")]
    pub name: Option<ClusterName>,

    /// The store: file:///DIRECTORY or s3://BUCKET/PREFIX
    #[arg(help_heading = DIRECTLY, long, value_name = "STORE", value_parser = parse_store, requires = "cluster")]
    pub store: Option<StoreUrl>,

    /// Where S3 answers, if that is not Amazon's
    #[arg(help_heading = DIRECTLY, long, value_name = "URL", requires = "store")]
    pub store_endpoint: Option<String>,

    /// The bucket's region
    #[arg(help_heading = DIRECTLY, long, value_name = "REGION", requires = "store")]
    pub store_region: Option<String>,

    /// File with the key to the bucket, in the form of ~/.aws/credentials
    #[arg(help_heading = DIRECTLY, long, value_name = "FILE", requires = "store")]
    pub store_credentials: Option<PathBuf>,

    /// File with the key that backups and WAL are encrypted with
    #[arg(help_heading = DIRECTLY, long, value_name = "FILE", requires = "store", value_parser = parse_file)]
    pub store_key: Option<PathBuf>,

    /// Whose backups and WAL
    #[arg(help_heading = DIRECTLY, long, value_name = "NAME", requires = "store")]
    pub cluster: Option<ClusterName>,

    /// Which database cluster of this name, by its system identifier
    #[arg(help_heading = DIRECTLY, long, value_name = "NUMBER", requires = "store")]
    pub system: Option<SystemId>,

    /// Whoever asks has named this cluster, and a node of it looks into its store: hints are for whoever asks.
    #[arg(long, hide = true, env = ASKED_FOR, hide_env = true, value_name = "NAME")]
    pub asked_for: Option<ClusterName>,
}

/// One of an archive's backups.
#[derive(Debug, Clone, clap::Args)]
pub struct WhichBackup {
    /// Whose.
    #[command(flatten)]
    pub archive: WhichArchive,

    /// The backup; without it the newest, which pin and unpin do not take for granted
    #[arg(value_name = "BACKUP", conflicts_with = "store")]
    pub id: Option<BackupId>,

    /// With --store: the backup
    #[arg(help_heading = DIRECTLY, long, value_name = "BACKUP", requires = "store")]
    pub backup: Option<BackupId>,
}

impl WhichBackup {
    /// The one that was named.
    pub fn id(&self) -> Option<&BackupId> {
        self.id.as_ref().or(self.backup.as_ref())
    }

    /// What is told instead of a verdict on a backup that was there when the look at it began, and is not any more.
    pub fn removed_meanwhile(&self, id: &BackupId) -> CommandError {
        let what = format!("backup '{id}' was removed while it was looked at, so nothing can be said of it");
        CommandError::new(ErrorKind::NotFound, what).hint(self.archive.command("backup list", None, ""))
    }

    /// The same choice for a command inside a node.
    pub fn option(&self) -> Vec<String> {
        self.id().map(|id| format!("--backup={id}")).into_iter().collect()
    }
}

/// What it comes to.
#[derive(Debug, Clone)]
pub enum Whose {
    /// A cluster of this machine.
    OfCluster(ClusterName),
    /// A part of a store.
    InStore(Box<ClusterStoreArgs>),
}

impl WhichArchive {
    /// What it comes to.
    ///
    /// # Errors
    /// When nothing was named, which the argument parser sees to.
    pub fn whose(&self) -> Result<Whose, CommandError> {
        match (&self.store, &self.cluster, &self.name) {
            (Some(store), Some(cluster), _) => {
                let place = StoreArgs {
                    store: store.clone(),
                    store_endpoint: self.store_endpoint.clone(),
                    store_region: self.store_region.clone(),
                    store_credentials: self.store_credentials.clone(),
                    store_key: self.store_key.clone(),
                };
                Ok(Whose::InStore(Box::new(ClusterStoreArgs { place, cluster: cluster.clone() })))
            }
            (_, _, Some(name)) => Ok(Whose::OfCluster(name.clone())),
            _ => Err(CommandError::new(ErrorKind::Usage, "whose archive? name a cluster, or a store")),
        }
    }

    /// A command about the same archive, as whoever asks would write it.
    pub fn command(&self, verb: &str, backup: Option<&BackupId>, rest: &str) -> String {
        let backup = backup.map(ToString::to_string);
        let mut words: Vec<String> = ["spilo"].into_iter().chain(verb.split(' ')).map(str::to_owned).collect();
        match (self.asked_for.as_ref().or(self.name.as_ref()), self.whose()) {
            (Some(cluster), _) => words.extend([cluster.to_string()].into_iter().chain(backup)),
            (None, Ok(Whose::InStore(place))) => {
                let system = self.system.map(|system| format!("--system={system}"));
                let backup = backup.map(|backup| format!("--backup={backup}"));
                let options = place.options().into_iter().chain(system).chain(backup);
                // In two words, as people write it: a shell would have it quoted otherwise.
                words.extend(options.flat_map(|option| option.splitn(2, '=').map(str::to_owned).collect::<Vec<_>>()));
            }
            _ => {}
        }
        words.extend(rest.split_whitespace().map(str::to_owned));
        shlex::try_join(words.iter().map(String::as_str)).unwrap_or_else(|_| words.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Words {
        #[command(flatten)]
        which: WhichBackup,
    }

    const ID: &str = "20261121T204500Z-1a2b3c4d";

    fn read(words: &[&str]) -> Result<WhichBackup, String> {
        Words::try_parse_from([&["spilo"], words].concat()).map(|words| words.which).map_err(|error| error.to_string())
    }

    #[test]
    fn a_hint_is_the_command_that_whoever_asks_would_write() {
        let hint = |words: &[&str]| {
            let which = read(words).unwrap();
            which.archive.command("backup verify", which.id(), "--deep")
        };
        assert_eq!(hint(&["orders", ID]), format!("spilo backup verify orders {ID} --deep"));
        let store = ["--store", "s3://backups/pg", "--cluster", "orders", "--system", "7710753353203642389", "--backup", ID];
        let told = hint(&store);
        let mut again = shlex::split(&told).unwrap().split_off(3);
        assert_eq!(again.pop().unwrap(), "--deep", "{told}");
        let again: Vec<&str> = again.iter().map(String::as_str).collect();
        let (first, second) = (read(&store).unwrap(), read(&again).unwrap());
        assert_eq!((first.archive.store, first.archive.system, first.backup), (second.archive.store, second.archive.system, second.backup));
        assert_eq!(hint(&[&store[..], &["--asked-for", "orders"]].concat()), format!("spilo backup verify orders {ID} --deep"));
    }

    #[test]
    fn a_cluster_is_named_or_a_store() {
        for wrong in [&[][..], &["orders", "--store", "/s", "--cluster", "orders"], &["--store", "/s"], &["orders", "--backup", ID]] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(read(&["orders"]).unwrap().id(), None);
    }
}
