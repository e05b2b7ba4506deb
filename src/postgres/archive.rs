//! Segments that a primary had not archived yet when it ended. A rewind or a copy removes them, and its successor never had them to archive.

use std::{path::Path, time::Duration};

use super::{PostgresError, archive_status};
use crate::sys::{files, process::Run};

/// Longest time that one segment may take.
const ONE: Duration = Duration::from_secs(60);

/// Archives what waits in the stopped server's `pg_wal`, in PostgreSQL's order: histories first, then the oldest segment. Stops at the
/// first failure, as PostgreSQL does. Returns how many were archived.
pub async fn archive_waiting(data: &Path, command: &str) -> Result<usize, PostgresError> {
    let status = data.join("pg_wal/archive_status");
    let mut done = 0;
    for file in archive_status::waiting(data).map_err(PostgresError::file("read", &status))? {
        let name = file.to_string();
        let line = command_line(command, &name);
        Run::new("/bin/sh").args(["-c", &line]).current_dir(data).limit(ONE).output().await?;
        // After the command: one that was archived twice is told by the archive, one that never was by nobody.
        let (ready, archived) = (status.join(format!("{name}.ready")), status.join(format!("{name}.done")));
        files::rename(&ready, &archived).map_err(PostgresError::file("rename", ready))?;
        done += 1;
    }
    Ok(done)
}

/// `%p`: the path below the data directory; `%f`: the file's name; `%%`: a percent sign.
fn command_line(command: &str, name: &str) -> String {
    let mut line = String::new();
    let mut rest = command.chars();
    while let Some(c) = rest.next() {
        match (c, rest.clone().next()) {
            ('%', Some('p')) => line.push_str(&format!("pg_wal/{name}")),
            ('%', Some('f')) => line.push_str(name),
            ('%', Some('%')) => line.push('%'),
            _ => {
                line.push(c);
                continue;
            }
        }
        rest.next();
    }
    line
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn block<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    fn data(names: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("pg_wal/archive_status")).unwrap();
        for name in names {
            fs::write(dir.path().join("pg_wal").join(name), name).unwrap();
            fs::write(dir.path().join(format!("pg_wal/archive_status/{name}.ready")), "").unwrap();
        }
        dir
    }

    #[test]
    fn a_command_names_path_and_file_as_postgresql_writes_them() {
        assert_eq!(command_line("test ! -f /a/%f && cp %p /a/%f # 100%% %x", "F"), "test ! -f /a/F && cp pg_wal/F /a/F # 100% %x");
    }

    #[test]
    fn histories_go_first_and_what_was_archived_does_not_wait_any_more() {
        let dir = data(&["000000010000000000000002", "000000010000000000000001", "00000002.history"]);
        let log = dir.path().join("log");
        let done = block(archive_waiting(dir.path(), &format!("cat %p >> {0}; echo >> {0}", log.display()))).unwrap();
        assert_eq!(done, 3);
        let order = "00000002.history\n000000010000000000000001\n000000010000000000000002\n";
        assert_eq!(fs::read_to_string(log).unwrap(), order);
        assert_eq!(block(archive_waiting(dir.path(), "false")).unwrap(), 0, "nothing waits");
    }

    #[test]
    fn the_first_failure_ends_it() {
        let dir = data(&["000000010000000000000001", "000000010000000000000002"]);
        assert!(block(archive_waiting(dir.path(), "false")).is_err());
        assert_eq!(archive_status::waiting(dir.path()).unwrap().len(), 2);
    }
}
