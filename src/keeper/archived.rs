//! WAL that waits for being archived, as PostgreSQL notes it in the data directory, and what the WAL service of the node says that it has done.

use std::{io, path::Path, time::Duration};

use jiff::Timestamp;

use crate::{
    api::backup_status::WalWaiting,
    backup::wal_wire::{self, Answer, Request},
    model::WalAccount,
    postgres::archive_status,
};

/// The service answers from memory, and from a look at a directory.
const LONGEST_ANSWER: Duration = Duration::from_secs(2);

/// Conflicts that are told one by one: whoever resolves these sees the next ones.
const MOST_CONFLICTS: usize = 10;

/// What the service has done. `None`: it does not run, or does not answer; its agent starts it again.
pub fn account(data_dir: &Path) -> Option<WalAccount> {
    let asked = || -> Result<WalAccount, String> {
        let stream = wal_wire::connect(data_dir).map_err(|error| error.to_string())?;
        let line = Request::Status.line().ok_or("the question has no line")?;
        let Answer::Status(told) = wal_wire::exchange(&stream, &line, LONGEST_ANSWER)? else {
            return Err("it gave an answer to something else".to_owned());
        };
        serde_json::from_str(&told).map_err(|error| error.to_string())
    };
    let mut account = asked().inspect_err(|why| tracing::debug!("the WAL service does not say what it has done: {why}")).ok()?;
    account.conflicts.truncate(MOST_CONFLICTS);
    Some(account)
}

/// What waits; how it grows is for who looks again and again. Where there is no server yet, or none any more, nothing waits.
pub fn waiting(data_dir: &Path) -> io::Result<WalWaiting> {
    let backlog = archive_status::backlog(data_dir)?;
    let since = backlog.since.and_then(|since| Timestamp::try_from(since).ok());
    Ok(WalWaiting { files: backlog.waiting.len() as u64, since, bytes: backlog.bytes, full: None })
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::{Read as _, Write as _},
        os::unix::net::UnixListener,
    };

    use serde_json::json;

    use super::*;

    #[test]
    fn what_cannot_be_seen_is_not_nothing() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("pg_wal")).unwrap();
        fs::write(directory.path().join("pg_wal/archive_status"), "").unwrap();
        assert!(waiting(directory.path()).is_err());
    }

    #[test]
    fn what_the_service_says_is_heard_and_nothing_is_made_up_where_there_is_none() {
        let directory = tempfile::tempdir().unwrap();
        // Longer than an address has room for.
        let data_dir = directory.path().join("d".repeat(120)).join("data");
        fs::create_dir_all(&data_dir).unwrap();
        assert_eq!(account(&data_dir), None);
        let folder = data_dir.parent().unwrap().to_owned();
        let socket = directory.path().join("s");
        let listener = UnixListener::bind(&socket).unwrap();
        fs::rename(socket, folder.join("data.archive.sock")).unwrap();
        let conflicts: Vec<_> = (0..20).map(|n| json!({"file": n.to_string(), "since": "2026-11-22T05:00:00Z", "aside": "x"})).collect();
        let told = json!({"archived": 7, "failures": 2, "conflicting": 20, "conflicts": conflicts, "store": "s3://x", "waiting": null});
        let service = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = [0; 7];
            stream.read_exact(&mut asked).unwrap();
            assert_eq!(&asked, b"status\n");
            stream.write_all(Answer::Status(told.to_string()).line().as_bytes()).unwrap();
        });
        let account = account(&data_dir).unwrap();
        service.join().unwrap();
        assert_eq!((account.archived, account.failures, account.fetched), (7, 2, 0));
        assert_eq!((account.conflicting, account.conflicts.len()), (20, MOST_CONFLICTS));
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
