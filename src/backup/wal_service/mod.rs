//! The resident WAL service of a node: what PostgreSQL's archive and restore commands ask. It is a process of its own, so that neither a
//! busy compressor nor a fault of a store ever delays the agent. All that it knows is in memory: one that is killed loses nothing but time.

mod fetcher;
mod health;
mod lane;
mod left_behind;
mod place;
mod pusher;
#[cfg(test)]
mod tests;
mod vault;
mod window;

use std::{path::PathBuf, rc::Rc, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    signal::unix::{SignalKind, signal},
    task::LocalSet,
};

use self::{fetcher::Fetcher, health::Health, lane::Lanes, left_behind::LeftBehind, place::Place, pusher::Pusher, vault::Vault};
use super::wal_wire::{Answer, LONGEST, Request};
use crate::{
    model::{ClusterName, InvalidWalFile},
    storage::StoreConfig,
    sys::priority,
};

/// A client says what it wants at once.
const LONGEST_QUESTION: Duration = Duration::from_secs(10);

/// How long what is being done may take to be finished after the service was told to end.
const LAST_WORK: Duration = Duration::from_secs(5);

/// How often the backlog is looked at, so that the state tells how it grows.
const LOOK: Duration = Duration::from_secs(10);

/// What a service is started with.
#[derive(Debug, Clone)]
pub struct ServiceSettings {
    /// Where the archive is.
    pub store: StoreConfig,
    /// Whose it is.
    pub cluster: ClusterName,
    /// The data directory, which need not be there yet.
    pub data_dir: PathBuf,
    /// Where to listen, if not beside the data directory.
    pub socket: Option<PathBuf>,
    /// Every file is packed at this level of zstd, if that is not to follow from how many wait.
    pub level: Option<i32>,
}

/// Why a service does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// Something could not be done with a file or a socket.
    #[error("cannot {action} '{path}'")]
    File {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Another service works for the data directory.
    #[error("'{0}' has a WAL service already")]
    Taken(String),
    /// The process could not be set up.
    #[error("cannot {0}")]
    Process(&'static str, #[source] std::io::Error),
}

/// The parts of a service.
struct Service {
    vault: Rc<Vault>,
    health: Rc<Health>,
    pusher: Rc<Pusher>,
    fetcher: Rc<Fetcher>,
    left_behind: Rc<LeftBehind>,
}

/// Runs a service until it is told to end.
///
/// # Errors
/// When it cannot listen, and when the data directory has another one.
pub fn serve(settings: ServiceSettings) -> Result<(), ServiceError> {
    priority::be_ordinary();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().max_blocking_threads(32).build().map_err(|error| ServiceError::Process("start a runtime", error))?;
    let outcome = LocalSet::new().block_on(&runtime, async {
        let place = Place::take(&settings).await?;
        let listener = place.listen()?;
        run(settings, place, listener, processors).await
    });
    // A file system that hangs must not keep the process.
    runtime.shutdown_background();
    outcome
}

async fn run(settings: ServiceSettings, place: Place, listener: UnixListener, processors: usize) -> Result<(), ServiceError> {
    let signals = |error| ServiceError::Process("receive signals", error);
    let mut terminate = signal(SignalKind::terminate()).map_err(signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(signals)?;
    let service = Rc::new(Service::new(settings, &place, processors));
    tracing::info!("WAL of '{}' is archived in '{}'", place.data_dir.display(), service.vault.url());
    let mut look = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(tokio::task::spawn_local(service.clone().answer(stream))),
                Err(error) => {
                    tracing::warn!("a connection could not be accepted: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            _ = look.tick() => service.look(),
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    drop(listener);
    let _ = tokio::time::timeout(LAST_WORK, service.pusher.at_rest()).await;
    place.leave();
    Ok(())
}

impl Service {
    fn new(settings: ServiceSettings, place: &Place, processors: usize) -> Service {
        let health = Rc::new(Health::new());
        let vault = Rc::new(Vault::new(settings.store, settings.cluster, place.data_dir.clone()));
        let pusher = Pusher::new(vault.clone(), health.clone(), Lanes::new(processors, settings.level));
        let fetcher = Fetcher::new(vault.clone(), health.clone());
        let left_behind = LeftBehind::new(vault.clone(), pusher.clone());
        Service { vault, health, pusher, fetcher, left_behind }
    }

    async fn push(&self, name: &str, path: PathBuf) -> Answer {
        match name.parse() {
            Ok(file) => {
                self.left_behind.heard(file);
                self.pusher.push(file, path).await
            }
            Err(error) => Answer::Again(InvalidWalFile::to_string(&error)),
        }
    }

    /// What is done from time to time.
    fn look(&self) {
        self.pusher.clone().look();
        self.fetcher.tidy();
        self.left_behind.look();
    }

    /// Answers the one question that comes through a connection.
    async fn answer(self: Rc<Self>, mut stream: UnixStream) {
        let mut line = Vec::new();
        let (reader, mut writer) = stream.split();
        let mut reader = BufReader::new(reader).take(LONGEST as u64);
        match tokio::time::timeout(LONGEST_QUESTION, reader.read_until(b'\n', &mut line)).await {
            Ok(Ok(1..)) => {}
            _ => return,
        }
        let mut reader = reader.into_inner();
        let answer = tokio::select! {
            biased;
            // Who asked is gone. PostgreSQL may have asked for another file at the same place since, which must not be overwritten.
            _ = reader.read_u8() => return,
            answer = self.do_it(line.strip_suffix(b"\n").and_then(Request::parse)) => answer,
        };
        // Who asked may be gone; then it asks again.
        let _ = writer.write_all(answer.line().as_bytes()).await;
    }

    async fn do_it(&self, request: Option<Request>) -> Answer {
        match request {
            Some(Request::Push(name, path)) => self.push(&name, path).await,
            Some(Request::Fetch(name, path)) => self.fetcher.fetch(&name, &path).await,
            Some(Request::Status) => Answer::Status(self.health.told(&self.vault, self.left_behind.told()).await),
            None => Answer::Again("the WAL service does not understand the question: is it of another version?".to_owned()),
        }
    }
}
