//! WAL that waits for being archived, as PostgreSQL notes it in the data directory.

use std::{io, path::Path};

use jiff::Timestamp;

use crate::{api::backup_status::WalWaiting, postgres::archive_status};

/// What waits; how it grows is for who looks again and again. Where there is no server yet, or none any more, nothing waits.
pub fn waiting(data_dir: &Path) -> io::Result<WalWaiting> {
    let backlog = archive_status::backlog(data_dir)?;
    let since = backlog.since.and_then(|since| Timestamp::try_from(since).ok());
    Ok(WalWaiting { files: backlog.waiting.len() as u64, since, bytes: backlog.bytes, full: None })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_cannot_be_seen_is_not_nothing() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("pg_wal")).unwrap();
        fs::write(directory.path().join("pg_wal/archive_status"), "").unwrap();
        assert!(waiting(directory.path()).is_err());
    }

    #[test]
    fn only_what_is_ready_waits() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(waiting(directory.path()).unwrap(), WalWaiting::default());
        let folder = directory.path().join("pg_wal/archive_status");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("000000010000000000000001.done"), "").unwrap();
        assert_eq!(waiting(directory.path()).unwrap(), WalWaiting::default());
        fs::write(folder.join("000000010000000000000002.ready"), "").unwrap();
        fs::write(folder.join("00000002.history.ready"), "").unwrap();
        let found = waiting(directory.path()).unwrap();
        assert!(found.files == 2 && found.since.is_some_and(|since| Timestamp::now().duration_since(since).as_secs() < 60));
    }
}
