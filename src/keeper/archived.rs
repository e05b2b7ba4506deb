//! WAL that waits for being archived, as PostgreSQL notes it in the data directory.

use std::{fs, path::Path, time::SystemTime};

use jiff::Timestamp;

use crate::api::backup_status::WalWaiting;

/// What waits. A directory that cannot be read has nothing: the server is just being made, or is gone.
pub fn waiting(data_dir: &Path) -> WalWaiting {
    let Ok(entries) = fs::read_dir(data_dir.join("pg_wal/archive_status")) else { return WalWaiting::default() };
    let mut found = WalWaiting::default();
    let mut oldest: Option<SystemTime> = None;
    for entry in entries.flatten() {
        if entry.path().extension().is_some_and(|kind| kind == "ready") {
            found.files += 1;
            // One that was archived meanwhile has no time any more.
            let written = entry.metadata().and_then(|metadata| metadata.modified()).ok();
            oldest = oldest.into_iter().chain(written).min();
        }
    }
    found.since = oldest.and_then(|oldest| Timestamp::try_from(oldest).ok());
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_ready_waits() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(waiting(directory.path()), WalWaiting::default());
        let folder = directory.path().join("pg_wal/archive_status");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("000000010000000000000001.done"), "").unwrap();
        assert_eq!(waiting(directory.path()), WalWaiting::default());
        fs::write(folder.join("000000010000000000000002.ready"), "").unwrap();
        fs::write(folder.join("00000002.history.ready"), "").unwrap();
        let found = waiting(directory.path());
        assert!(found.files == 2 && found.since.is_some_and(|since| Timestamp::now().duration_since(since).as_secs() < 60));
    }
}
