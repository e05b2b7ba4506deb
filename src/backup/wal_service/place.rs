//! Where a service is found: its socket, and the lock that keeps it the only one of its data directory.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::Mode;
use tokio::net::UnixListener;

use super::{ServiceError, ServiceSettings};
use crate::{
    backup::wal_wire,
    sys::{files, lock::LockFile},
};

/// How long a service waits for one before it to end: that may have been killed with its agent, or finishes what it was doing.
const OTHER_MAY_TAKE: Duration = Duration::from_secs(10);

const PAUSE: Duration = Duration::from_millis(100);

/// The socket and the lock of a service.
pub struct Place {
    /// The data directory, without symbolic links.
    pub data_dir: PathBuf,
    socket: PathBuf,
    /// Only from the directory that it lies in is the socket's name short enough for an address.
    address: PathBuf,
    _lock: LockFile,
}

impl Place {
    /// Takes the place of the data directory's service.
    pub async fn take(settings: &ServiceSettings) -> Result<Place, ServiceError> {
        let data = &settings.data_dir;
        let data_dir = wal_wire::resolved(data).map_err(file("find", data))?;
        let beside = wal_wire::socket_of(&data_dir).map_err(file("find", data))?;
        let path = files::beside(&data_dir, ".archive.lock");
        let lock = LockFile::open(&path).map_err(file("open", &path))?;
        let mut rest = OTHER_MAY_TAKE;
        while !lock.take(0).map_err(file("lock", &path))? {
            rest = rest.checked_sub(PAUSE).ok_or_else(|| ServiceError::Taken(data_dir.display().to_string()))?;
            tokio::time::sleep(PAUSE).await;
        }
        let (socket, address) = match &settings.socket {
            Some(socket) => {
                let socket = std::path::absolute(socket).map_err(file("find", socket))?;
                (socket.clone(), socket)
            }
            None => (beside.clone(), PathBuf::from(beside.file_name().unwrap_or_default())),
        };
        if let Some(parent) = beside.parent() {
            std::env::set_current_dir(parent).map_err(file("work in", parent))?;
        }
        Ok(Place { data_dir, socket, address, _lock: lock })
    }

    /// Listens. A socket that is there is of a service that is gone: whoever has the lock is the only one.
    pub fn listen(&self) -> Result<UnixListener, ServiceError> {
        files::remove_file(&self.address).map_err(file("remove", &self.socket))?;
        // There is one thread yet: nobody else makes a file meanwhile.
        let before = rustix::process::umask(Mode::from_raw_mode(0o177));
        let listener = UnixListener::bind(&self.address);
        rustix::process::umask(before);
        listener.map_err(file("listen on", &self.socket))
    }

    /// Removes the socket, so that who comes next is told at once that nobody is there.
    pub fn leave(&self) {
        if let Err(error) = files::remove_file(&self.address) {
            tracing::warn!("'{}' could not be removed: {error}", self.socket.display());
        }
    }
}

fn file(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> ServiceError {
    let path = path.as_ref().display().to_string();
    move |source| ServiceError::File { action, path, source }
}
