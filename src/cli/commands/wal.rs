//! `spilo wal push` and `spilo wal fetch`: what PostgreSQL's `archive_command` and `restore_command` run. They ask the resident service that
//! `spilo wal serve` is; with `--store` they do the work themselves. `spilo wal init` makes a store.

use std::{
    io::Write,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use clap::Subcommand;
use tokio::runtime::Runtime;

use super::wal_check;
use crate::{
    backup::{
        self, Archive, ArchiveError, Fetched,
        encryption::SealedStore,
        wal_service::{self, ServiceSettings},
        wal_silence,
    },
    cli::{
        CommandError, Context, ErrorKind, Exit,
        store_arguments::StoreArgs,
        wal_client::{self, Errand},
    },
    model::{ClusterName, ObjectName, SystemId, WalFile},
    postgres::control_data,
    storage::{Store, StoreConfig},
};

/// How long between two questions.
const PAUSE: Duration = Duration::from_millis(500);

/// PostgreSQL takes every exit code up to 125 for "there is no such file", and a recovery without a standby ends with that.
const NOBODY_KNOWS: Exit = Exit(126);

/// What PostgreSQL takes for "there is no such file".
const NOT_THERE: Exit = Exit(1);

/// Archive WAL files and restore them
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a store, of an empty directory or in a bucket; what is a store already stays as it is
    Init {
        /// The store.
        #[command(flatten)]
        store: StoreArgs,
        /// Whose archive is begun there too: it gets its own key now, if there is one to encrypt it with
        #[arg(long, value_name = "NAME")]
        cluster: Option<ClusterName>,
    },
    /// Archive a WAL file: archive_command = 'spilo wal push %p %f'
    Push {
        /// Who archives it.
        #[command(flatten)]
        way: Way,
        /// The file, from the data directory: %p
        path: PathBuf,
        /// Its name: %f
        file: WalFile,
    },
    /// Restore a WAL file: restore_command = 'spilo wal fetch %f %p'
    Fetch {
        /// Who restores it.
        #[command(flatten)]
        way: Way,
        /// Its name: %f
        file: WalFile,
        /// Where it is wanted, from the data directory: %p
        path: PathBuf,
        /// With --store: for so many seconds a store that cannot be reached is asked again
        #[arg(long, value_name = "SECONDS", default_value_t = 10)]
        patience: u64,
    },
    /// Check whether the archived WAL is whole
    Check(wal_check::Args),
    /// Refuse a place where there is WAL of a database cluster already: another one is about to begin with the same data, and would go on there
    #[command(hide = true)]
    Unused {
        /// The store.
        #[command(flatten)]
        store: StoreArgs,
        /// Whose archive it would be
        #[arg(long, value_name = "NAME")]
        cluster: ClusterName,
        /// Of which database cluster
        #[arg(long, value_name = "NUMBER")]
        system: SystemId,
    },
    /// Try out whether these ways open, read and write the archive that there is; nothing is begun
    #[command(hide = true)]
    Probe {
        /// The store.
        #[command(flatten)]
        store: StoreArgs,
        /// Whose archive it is
        #[arg(long, value_name = "NAME")]
        cluster: ClusterName,
    },
    /// Run the service of a data directory that push and fetch ask
    #[command(hide = true)]
    Serve {
        /// Where the archive is.
        #[command(flatten)]
        store: StoreArgs,
        /// Whose WAL it is; the system identifier tells it from another cluster's of this name
        #[arg(long, value_name = "NAME")]
        cluster: ClusterName,
        /// The data directory; it need not be there yet
        #[arg(long, value_name = "DIR")]
        data_dir: PathBuf,
        /// Where to listen, instead of beside the data directory
        #[arg(long, value_name = "PATH")]
        socket: Option<PathBuf>,
        /// Level of zstd for every file, instead of one that follows from how many wait
        #[arg(long, value_name = "LEVEL", allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(-7..=19))]
        level: Option<i32>,
    },
    /// Show how the archive of a node fares, as JSON
    #[command(hide = true)]
    State {
        /// The data directory
        #[arg(long, value_name = "DIR", default_value = ".")]
        data_dir: PathBuf,
        /// The service's socket, if it is not beside the data directory
        #[arg(long, value_name = "PATH")]
        socket: Option<PathBuf>,
    },
}

/// Who does the work: the node's service, or, with a store, this process.
#[derive(Debug, clap::Args)]
pub struct Way {
    /// Where the archive is, to reach it without the node's service.
    #[command(flatten)]
    pub store: Option<StoreArgs>,
    /// With --store: whose WAL it is; the system identifier tells it from another cluster's of this name
    #[arg(long, value_name = "NAME", requires = "store")]
    pub cluster: Option<ClusterName>,
    /// The service's socket, if it is not beside the data directory
    #[arg(long, value_name = "PATH", conflicts_with = "store")]
    pub socket: Option<PathBuf>,
}

/// Runs the command.
pub fn run(context: &Context, command: &Command) -> Result<Exit, CommandError> {
    match command {
        Command::Check(args) => wal_check::run(context, args),
        Command::Init { store, cluster } => runtime()?.block_on(init(&store.config(), cluster.as_ref())),
        Command::Unused { store, cluster, system } => runtime()?.block_on(expect_unused(&store.config(), cluster, *system)),
        Command::Probe { store, cluster } => runtime()?.block_on(probe(&store.config(), cluster)),
        Command::Push { way, path, file } => match way.place()? {
            Some((store, cluster)) => {
                let system = own_system(path)?;
                let pushed = async {
                    let archive = open(&store, cluster, system).await.map_err(failed)?;
                    backup::push(&archive, path, *file).await.map_err(failed)
                };
                runtime()?.block_on(pushed).map(|_| Exit::OK)
            }
            None => Ok(Exit(errand(false, *file, path, way).run())),
        },
        Command::Fetch { way, file, path, patience } => match way.place()? {
            Some((store, cluster)) => {
                let system = own_system(path)?;
                let fetched = fetch(&store, cluster, system, *file, path, Duration::from_secs(*patience));
                runtime()?.block_on(fetched).map(|fetched| match fetched {
                    Fetched::Restored => Exit::OK,
                    Fetched::NotThere => NOT_THERE,
                })
            }
            None => Ok(Exit(errand(true, *file, path, way).run())),
        },
        Command::Serve { store, cluster, data_dir, socket, level } => {
            let (store, cluster, data_dir, socket) = (store.config(), cluster.clone(), data_dir.clone(), socket.clone());
            wal_service::serve(ServiceSettings { store, cluster, data_dir, socket, level: *level }).map(|()| Exit::OK).map_err(failed)
        }
        Command::State { data_dir, socket } => {
            let state = wal_client::state(data_dir, socket.as_deref());
            let state = state.map_err(|why| CommandError::new(ErrorKind::Failed, why))?;
            let shown = writeln!(std::io::stdout(), "{state}");
            shown.map(|()| Exit::OK).map_err(failed)
        }
    }
}

impl Way {
    /// The archive to reach directly, if that is asked for.
    fn place(&self) -> Result<Option<(StoreConfig, &ClusterName)>, CommandError> {
        match (&self.store, &self.cluster) {
            (None, _) => Ok(None),
            (Some(store), Some(cluster)) => Ok(Some((store.config(), cluster))),
            (Some(_), None) => Err(CommandError::new(ErrorKind::Usage, "with '--store', '--cluster' has to say whose WAL it is")),
        }
    }
}

fn runtime() -> Result<Runtime, CommandError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)
}

fn errand(fetch: bool, file: WalFile, path: &Path, way: &Way) -> Errand {
    Errand { fetch, name: file.to_string().into(), path: path.to_owned(), socket: way.socket.clone() }
}

/// What `wal fetch` exits with when it cannot say whether the archive has `file`.
pub fn no_answer(data_dir: &Path, file: Option<WalFile>) -> Exit {
    if wal_silence::ends_nothing(data_dir, file) { NOT_THERE } else { NOBODY_KNOWS }
}

async fn fetch(
    store: &StoreConfig,
    cluster: &ClusterName,
    system: SystemId,
    file: WalFile,
    path: &Path,
    patience: Duration,
) -> Result<Fetched, CommandError> {
    let begun = Instant::now();
    loop {
        let error = match open(store, cluster, system).await {
            Ok(archive) => match backup::fetch(&archive, file, path).await {
                Ok(fetched) => return Ok(fetched),
                Err(error) if error.is_unavailable() => failed(error),
                Err(error) => return Err(failed(error)),
            },
            // Another key than that of the archive does not become the right one by waiting.
            Err(error @ ArchiveError::Key(_)) if !error.is_unavailable() => return Err(failed(error)),
            // Its volume may not be mounted yet.
            Err(error) => failed(error),
        };
        if begun.elapsed() >= patience {
            return Err(error);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Whose data directory this is about.
fn own_system(path: &Path) -> Result<SystemId, CommandError> {
    let system = control_data::system_id(&wal_client::data_dir(path));
    system.map_err(|error| failed(error).hint("is this run by PostgreSQL, in its data directory?"))
}

/// Makes the store, and begins the archive of the cluster, if one is named: a key that does not fit is known before there is any data.
async fn init(store: &StoreConfig, cluster: Option<&ClusterName>) -> Result<Exit, CommandError> {
    if store.key_file.is_some() && cluster.is_none() {
        let told = "each archive in a store has a key of its own: with '--store-key', '--cluster' has to say whose is begun";
        return Err(CommandError::new(ErrorKind::Usage, told));
    }
    Store::init(store).await.map_err(failed)?;
    if let Some(cluster) = cluster {
        let root: ObjectName = cluster.as_str().parse().map_err(failed)?;
        SealedStore::open(store, root).await.map_err(failed)?.sealer().await.map_err(failed)?;
    }
    Ok(Exit::OK)
}

/// Needs every right that archiving and expiring need, on an object of its own name.
async fn probe(store: &StoreConfig, cluster: &ClusterName) -> Result<Exit, CommandError> {
    let root: ObjectName = cluster.as_str().parse().map_err(failed)?;
    let archive = SealedStore::open(store, root.clone()).await.map_err(failed)?;
    archive.expect_begun().await.map_err(failed)?;
    let folder = root.join("probe").map_err(failed)?;
    // Always the same: what one that was killed has left the next one writes over, and removes.
    let object = folder.join("secrets").map_err(failed)?;
    let tried = tried(&archive, &folder, &object).await;
    // It is removed in any case: whoever may not remove it is told so, unless something else was wrong before.
    let removed = archive.remove(&object).await.map_err(failed);
    tried.and(removed).map(|()| Exit::OK)
}

async fn tried(archive: &SealedStore<Store>, folder: &ObjectName, object: &ObjectName) -> Result<(), CommandError> {
    let content = bytes::Bytes::from_static(b"whoever reads this may remove it");
    archive.replace(object, content.clone()).await.map_err(failed)?;
    let read = archive.read(object).await.map_err(failed)?;
    let listed = archive.list(folder).await.map_err(failed)?;
    if read != Some(content) || !listed.iter().any(|found| found.name == *object) {
        return Err(CommandError::new(ErrorKind::Failed, format!("'{object}' was written, and is not there")));
    }
    Ok(())
}

/// Two clusters that begin with the same data have one system identifier, and the timelines that they begin may have one number: in one place
/// their WAL would be one another's conflicts.
async fn expect_unused(store: &StoreConfig, cluster: &ClusterName, system: SystemId) -> Result<Exit, CommandError> {
    let archive = open(store, cluster, system).await.map_err(failed)?;
    let found = archive.store().list(&archive.wal().map_err(failed)?).await.map_err(failed)?;
    let Some(object) = found.first() else { return Ok(Exit::OK) };
    let what = format!("'{}' is there already: an earlier cluster '{cluster}' was begun with the same data", object.name);
    let refused = CommandError::new(ErrorKind::Refused, format!("{what}, and WAL of both would be mixed in one archive"));
    Err(refused.hint("choose another name for the new cluster, or another store"))
}

async fn open(store: &StoreConfig, cluster: &ClusterName, system: SystemId) -> Result<Archive<Store>, ArchiveError> {
    let root: ObjectName = cluster.as_str().parse()?;
    Ok(Archive::of(SealedStore::open(store, root).await?, system))
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> CommandError {
    CommandError::new(ErrorKind::Failed, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_of_the_store_ends_no_recovery() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(no_answer(dir.path(), None), Exit(126));
        std::fs::write(dir.path().join("standby.signal"), "").unwrap();
        assert_eq!(no_answer(dir.path(), None), Exit(1));
    }
}
