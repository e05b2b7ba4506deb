//! One local PostgreSQL server: its files, its programs, its SQL. Decides nothing.

pub mod archive;
pub mod archive_status;
pub mod auto_conf;
pub mod backlog_growth;
pub mod backup_mode;
pub mod bootstrap;
pub mod clone;
pub mod conf;
pub mod conninfo;
pub mod control_data;
mod copy_progress;
mod cut_off;
pub mod diverged_wal;
pub mod limits;
pub mod own_command;
pub mod parameter_check;
pub mod recover;
pub mod restore_mark;
pub mod rewind;
pub mod sql;
pub mod start_check;
pub mod timelines;
pub mod wal_header;
pub mod wal_records;
#[cfg(test)]
pub mod wal_segment;

use std::path::{Path, PathBuf};

use crate::{model::Secret, sys::process::ProcessError};

/// Where a server's parts are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    /// The data directory.
    pub data_dir: PathBuf,
    /// Directory of `postgres`, `initdb`, `pg_basebackup` and the others.
    pub bin_dir: PathBuf,
    /// The password file that every connection of ours to another server names.
    pub passfile: PathBuf,
}

impl Installation {
    /// A program of this installation.
    pub fn program(&self, name: &str) -> PathBuf {
        if self.bin_dir.as_os_str().is_empty() { PathBuf::from(name) } else { self.bin_dir.join(name) }
    }
}

/// A role's name and, where it has one, its password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The role.
    pub username: String,
    /// Its password; `None` where the server asks for none.
    pub password: Option<Secret>,
}

/// A server's own address and where to find its maintenance database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Host name, IP address, or directory of a unix socket.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// Something that was asked of PostgreSQL did not work.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// One of its programs failed.
    #[error(transparent)]
    Program(#[from] ProcessError),
    /// A file of the data directory could not be read or written.
    #[error("cannot {action} '{path}'")]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// The server to follow does not say who it is.
    #[error("no word from the server at {host}:{port}")]
    NoOrigin {
        /// Its host.
        host: String,
        /// Its port.
        port: u16,
        /// What was tried.
        #[source]
        source: Box<PostgresError>,
    },
    /// The server to follow is there and not yet what it has to be.
    #[error("{0}")]
    NotYet(String),
    /// A copy did not fit on the disk.
    #[error("no room for a copy: {} MB were free for it{}", free >> 20, beside(old.as_deref()))]
    NoRoom {
        /// Bytes that were free for it.
        free: u64,
        /// The data that it would have replaced.
        old: Option<PathBuf>,
    },
    /// SQL failed.
    #[error("{0}")]
    Sql(String),
    /// A program's answer does not say what it should.
    #[error("'{program}' printed something unexpected: {what}")]
    Unexpected {
        /// The program.
        program: &'static str,
        /// What was missing.
        what: String,
    },
}

fn beside(old: Option<&Path>) -> String {
    old.map_or_else(
        || "; make some".to_owned(),
        |old| {
            format!(" beside the old data, which stay until the copy streams; make some, or remove '{}' if nobody needs it", old.display())
        },
    )
}

impl PostgresError {
    /// Wraps an I/O error with what was done to which file.
    pub fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> PostgresError {
        let path = path.into();
        move |source| PostgresError::File { action, path, source }
    }
}
