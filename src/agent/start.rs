//! What is checked before anything is touched. What will not change by itself ends the agent and its guard.

use std::{
    fs,
    net::ToSocketAddrs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    time::Duration,
};

use tokio::{net::TcpStream, sync::mpsc};

use super::{
    config::AgentConfig,
    guard::{FromGuard, GuardLink, LinkError, ToGuard, take_agents_byte},
    setup::AgentError,
};
use crate::sys::{files, lock::LockFile};

/// Time for finding out whether somebody listens on PostgreSQL's port.
const LISTENING: Duration = Duration::from_secs(1);

/// The start is refused.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Waiting does not help; somebody has to change something.
    #[error("{0}")]
    Hopeless(String),
    /// It may be different at the next attempt.
    #[error("{0}")]
    ForNow(String),
}

/// The right to work on the data directory, for as long as this is kept.
pub struct Place {
    _lock: LockFile,
    /// What the guard has said so far.
    pub heard: Vec<FromGuard>,
}

/// Asks the guard for the data directory; returns when nothing of an earlier agent or server is left on it.
pub async fn claim(guard: &GuardLink, said: &mut mpsc::UnboundedReceiver<FromGuard>, data: &Path) -> Result<Place, AgentError> {
    guard.tell(&ToGuard::Claim { data: data.to_owned() }).await?;
    let mut heard = Vec::new();
    loop {
        match said.recv().await.ok_or(LinkError::Gone)? {
            FromGuard::Claimed => break,
            FromGuard::Refused { why, hopeless: true } => return Err(Refused::Hopeless(why).into()),
            FromGuard::Refused { why, hopeless: false } => return Err(Refused::ForNow(why).into()),
            other => heard.push(other),
        }
    }
    let lock = take_agents_byte(data).map_err(|e| Refused::ForNow(format!("'{}' cannot be locked: {e}", data.display())))?;
    Ok(Place { _lock: lock, heard })
}

/// Refuses what no server of this member could be started on. For an agent without a running server: one that runs has proved it all.
pub async fn inspect(config: &AgentConfig, installed: Option<&str>) -> Result<(), AgentError> {
    if rustix::process::geteuid().is_root() {
        return Err(Refused::Hopeless("PostgreSQL does not run as root: start the agent as the user that owns the data".to_owned()).into());
    }
    directory(&config.installation.data_dir, installed).map_err(Refused::Hopeless)?;
    port(config).await.map_err(Refused::Hopeless)?;
    Ok(())
}

fn directory(data: &Path, installed: Option<&str>) -> Result<(), String> {
    let path = data.display();
    let unreadable = |error: std::io::Error| format!("the data directory '{path}' cannot be read: {error}");
    if files::is_empty_dir(data).map_err(unreadable)? {
        return Ok(());
    }
    let found = fs::metadata(data).map_err(unreadable)?;
    let (owner, me) = (found.uid(), rustix::process::geteuid().as_raw());
    if owner != me {
        return Err(format!("the data directory '{path}' belongs to user {owner}, the agent runs as {me}: 'chown -R {me} {path}'"));
    }
    let Ok(version) = fs::read_to_string(data.join("PG_VERSION")) else {
        return Err(format!("'{path}' is not empty and no PostgreSQL data directory: is 'postgresql.data_dir' the right one?"));
    };
    // PostgreSQL's own rule.
    let mode = found.permissions().mode() & 0o777;
    if mode & 0o027 != 0 {
        return Err(format!("the data directory '{path}' has mode {mode:04o}, PostgreSQL wants 0700 or 0750: 'chmod 0700 {path}'"));
    }
    match installed {
        Some(installed) if installed != version.trim() => {
            let version = version.trim();
            Err(format!("the data in '{path}' is of PostgreSQL {version}, 'postgresql.bin_dir' has {installed}: which of them is wrong?"))
        }
        _ => Ok(()),
    }
}

/// Nobody may listen where this member's server will.
async fn port(config: &AgentConfig) -> Result<(), String> {
    let port = config.local.port;
    let host =
        if config.listen_addresses == "*" { "127.0.0.1" } else { config.listen_addresses.split(',').next().unwrap_or_default().trim() };
    let Some(address) = (host, port).to_socket_addrs().ok().and_then(|mut found| found.next()) else { return Ok(()) };
    match tokio::time::timeout(LISTENING, TcpStream::connect(address)).await {
        Ok(Ok(_)) => Err(format!(
            "another server listens on {address}, where 'postgresql.listen' puts this member's: end that one, or change the setting"
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(version: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("PG_VERSION"), version).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        (dir, path)
    }

    #[test]
    fn data_of_this_version_and_no_data_are_welcome() {
        let (dir, path) = data("17\n");
        directory(&path, Some("17")).unwrap();
        directory(&dir.path().join("none"), Some("17")).unwrap();
    }

    #[test]
    fn what_cannot_be_started_is_refused_with_what_to_do() {
        let (_dir, path) = data("16\n");
        assert!(directory(&path, Some("17")).unwrap_err().contains("is of PostgreSQL 16"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(directory(&path, Some("16")).unwrap_err().contains("chmod 0700"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
        directory(&path, Some("16")).unwrap();
        fs::remove_file(path.join("PG_VERSION")).unwrap();
        fs::write(path.join("diary"), "dear").unwrap();
        assert!(directory(&path, Some("16")).unwrap_err().contains("no PostgreSQL data directory"));
    }
}
