//! What makes a backup impossible, before anything is done for it.

use std::{net::UdpSocket, path::Path};

use super::{LEAST_MEMORY, Request, error::BackupError};
use crate::{
    backup::Archive,
    postgres::{backup_mode::CopiedServer, control_data},
};

/// Says no where no good backup could come of it.
///
/// # Errors
/// Why.
pub fn refuse<S>(archive: &Archive<S>, request: &Request, server: &CopiedServer) -> Result<(), BackupError> {
    let why = if server.system != archive.system {
        format!("the server has the data of system {}, and '{}' those of {}", server.system, request.data_dir.display(), archive.system)
    } else if !is_same_directory(&request.data_dir, &server.data_directory) {
        // A primary and its standbys have one system identifier: the files of one with the positions of the other make no backup.
        let (asked, theirs) = (request.data_dir.display(), &server.data_directory);
        format!("the server at '{}' runs in '{theirs}', not in '{asked}'", request.address.host)
    } else if !is_here(&request.address.host) {
        // Its path may well name a directory here too.
        let host = &request.address.host;
        format!("files are read on this machine, and '{host}' is none of its addresses: name the directory of the server's socket")
    } else if control_data::glimpse(&request.data_dir).is_some_and(|found| found.in_production == server.in_recovery) {
        let (theirs, ours) = if server.in_recovery { ("a standby", "a primary") } else { ("a primary", "a standby") };
        format!("the server at '{}' is {theirs}, and the data in '{}' are of {ours}", request.address.host, request.data_dir.display())
    } else if request.label.chars().any(char::is_control) {
        "a label has no line breaks in it".to_owned()
    } else if server.version < 150_000 {
        format!("PostgreSQL {} cannot be backed up: 15 is the oldest version that can", server.version / 10_000)
    } else if server.wal_level == "minimal" {
        "the server writes too little WAL for a backup: wal_level is 'minimal'".to_owned()
    } else if server.archive_mode == "off" && !server.in_recovery {
        "the server does not archive its WAL, without which a backup is worth nothing: archive_mode is 'off'".to_owned()
    } else if request.memory < LEAST_MEMORY {
        format!("a backup needs at least {} MB of memory", LEAST_MEMORY >> 20)
    } else if server.segment_pages == 0 || server.page_size == 0 || (1 << 15) % server.page_size != 0 {
        format!("a server with pages of {} bytes cannot be backed up", server.page_size)
    } else {
        return Ok(());
    };
    Err(BackupError::Refused(why))
}

/// Whether a server that is reached there runs on this machine: by the directory of its socket, or at an address that one may listen on here.
fn is_here(host: &str) -> bool {
    host.starts_with('/') || UdpSocket::bind((host, 0)).is_ok()
}

/// Whether two paths lead to one directory.
fn is_same_directory(one: &Path, other: &str) -> bool {
    use std::os::unix::fs::MetadataExt;
    let identity = |path: &Path| std::fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
    identity(one).is_some_and(|found| identity(Path::new(other)) == Some(found))
}

#[cfg(test)]
mod tests {
    use std::{path::PathBuf, time::Duration};

    use super::*;
    use crate::{
        model::SystemId,
        postgres::{Address, Credentials},
    };

    const SYSTEM: SystemId = SystemId(7_300_000_000_000_000_001);

    /// A primary in this directory, which says so itself.
    fn server(data_dir: &Path) -> CopiedServer {
        let mut control = vec![0; 8192];
        control[..8].copy_from_slice(&SYSTEM.0.to_ne_bytes());
        for (at, word) in [(8, 1300_u32), (16, 6), (48, 1)] {
            control[at..at + 4].copy_from_slice(&word.to_ne_bytes());
        }
        std::fs::create_dir(data_dir.join("global")).unwrap();
        std::fs::write(data_dir.join("global/pg_control"), control).unwrap();
        CopiedServer {
            system: SYSTEM,
            in_recovery: false,
            version: 170_005,
            catalog_version: 202_406_281,
            data_directory: data_dir.display().to_string(),
            page_size: 8192,
            segment_pages: 131_072,
            wal_segment_size: 16 << 20,
            checksums: true,
            archive_mode: "on".to_owned(),
            wal_level: "replica".to_owned(),
            running_since: "1795293900.000001".to_owned(),
        }
    }

    fn request(data_dir: PathBuf, host: &str) -> Request {
        Request {
            cluster: "orders".to_owned(),
            member: "orders-1".to_owned(),
            data_dir,
            address: Address { host: host.to_owned(), port: 5432 },
            role: Credentials { username: "postgres".to_owned(), password: None },
            primary: None,
            primary_role: None,
            full: false,
            read_all: false,
            rate: None,
            memory: 256 << 20,
            threads: 1,
            label: "test".to_owned(),
            wal_patience: Duration::ZERO,
        }
    }

    #[test]
    fn the_files_of_one_server_are_not_read_with_the_positions_of_another() {
        let (here, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let server = server(here.path());
        let archive = Archive::new((), "orders".parse().unwrap(), SYSTEM);
        let said = |server: &CopiedServer, data_dir: &Path, host: &str| {
            refuse(&archive, &request(data_dir.to_owned(), host), server).err().map(|error| error.to_string()).unwrap_or_default()
        };
        for host in ["/run/spilo", "127.0.0.1", "localhost"] {
            assert_eq!(said(&server, here.path(), host), "", "{host}");
        }
        // An address of no machine at all, that no name service is asked for.
        assert!(said(&server, here.path(), "192.0.2.1").contains("'192.0.2.1' is none of its addresses"));
        assert!(said(&server, elsewhere.path(), "/run/spilo").contains("not in '"));
        let standby = CopiedServer { in_recovery: true, ..server };
        assert!(said(&standby, here.path(), "/run/spilo").contains("is a standby, and the data in"));
    }
}
