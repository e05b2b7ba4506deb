//! `spilo wal push` and `spilo wal fetch`: what PostgreSQL's `archive_command` and `restore_command` run. `spilo wal init` makes their store.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use clap::Subcommand;
use tokio::runtime::Runtime;

use super::wal_check;
use crate::{
    backup::{self, Archive, ArchiveError, Fetched},
    cli::{CommandError, Context, ErrorKind, Exit, store_arguments::StoreArgs},
    model::{ClusterName, SystemId, WalFile},
    postgres::control_data,
    storage::{FileStore, ObjectName, Store, StoreError},
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
    /// Make a store of an empty directory; what is a store already stays as it is
    Init(StoreArgs),
    /// Archive a WAL file: archive_command = 'spilo wal push --store DIR --cluster NAME %p %f'
    Push {
        /// Where the archive is.
        #[command(flatten)]
        place: Place,
        /// The file, from the data directory: %p
        path: PathBuf,
        /// Its name: %f
        file: WalFile,
    },
    /// Restore a WAL file: restore_command = 'spilo wal fetch --store DIR --cluster NAME %f %p'
    Fetch {
        /// Where the archive is.
        #[command(flatten)]
        place: Place,
        /// Its name: %f
        file: WalFile,
        /// Where it is wanted, from the data directory: %p
        path: PathBuf,
        /// For so many seconds a store that cannot be reached is asked again
        #[arg(long, value_name = "SECONDS", default_value_t = 10)]
        patience: u64,
    },
    /// Check whether the archived WAL is whole
    Check(wal_check::Args),
}

/// Which archive.
#[derive(Debug, clap::Args)]
pub struct Place {
    /// Directory of the store, on a volume that outlives this machine
    #[arg(long, value_name = "DIR")]
    pub store: PathBuf,
    /// Whose WAL it is; the system identifier tells it from another cluster's of this name
    #[arg(long, value_name = "NAME")]
    pub cluster: ClusterName,
}

/// Archives or restores one file, in the data directory, where PostgreSQL runs it; or makes the store for them.
pub fn run(context: &Context, command: &Command) -> Result<Exit, CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    match command {
        Command::Check(args) => wal_check::run(context, args),
        Command::Init(store) => runtime.block_on(Store::init(&store.config())).map(|_| Exit::OK).map_err(failed),
        Command::Push { place, path, file } => {
            let archive = open(place, own_system()?)?;
            runtime.block_on(backup::push(&archive, path, *file)).map(|_| Exit::OK).map_err(failed)
        }
        Command::Fetch { place, file, path, patience } => {
            fetch(&runtime, place, *file, path, Duration::from_secs(*patience)).map(|fetched| match fetched {
                Fetched::Restored => Exit::OK,
                Fetched::NotThere => NOT_THERE,
            })
        }
    }
}

/// What `wal fetch` exits with when it cannot say whether the archive has the file. A standby asks again by itself, and goes on with streaming
/// meanwhile; whatever else recovers must not take silence for the end of all WAL.
pub fn no_answer() -> Exit {
    without_answer(Path::new("standby.signal").exists())
}

fn without_answer(standby: bool) -> Exit {
    if standby { NOT_THERE } else { NOBODY_KNOWS }
}

fn fetch(runtime: &Runtime, place: &Place, file: WalFile, path: &Path, patience: Duration) -> Result<Fetched, CommandError> {
    let (begun, system) = (Instant::now(), own_system()?);
    loop {
        let error = match open(place, system).map(|archive| runtime.block_on(backup::fetch(&archive, file, path))) {
            Ok(Ok(fetched)) => return Ok(fetched),
            Ok(Err(error @ ArchiveError::Store(StoreError::Unavailable { .. }))) => failed(error),
            Ok(Err(error)) => return Err(failed(error)),
            // Its volume may not be mounted yet.
            Err(error) => error,
        };
        if begun.elapsed() >= patience {
            return Err(error);
        }
        std::thread::sleep(PAUSE);
    }
}

/// Whose data directory this is run in.
fn own_system() -> Result<SystemId, CommandError> {
    let system = control_data::system_id(Path::new("."));
    system.map_err(|error| failed(error).hint("is this run by PostgreSQL, in its data directory?"))
}

fn open(place: &Place, system: SystemId) -> Result<Archive<FileStore>, CommandError> {
    let root: ObjectName = place.cluster.as_str().parse().map_err(failed)?;
    Ok(Archive::new(FileStore::open(&place.store).map_err(failed)?, root, system))
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> CommandError {
    CommandError::new(ErrorKind::Failed, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_of_the_store_ends_no_recovery() {
        assert_eq!((without_answer(true), without_answer(false)), (Exit(1), Exit(126)));
    }
}
