//! The last steps, in the order that makes them safe: everything is on disk before there is a control file, and that is on disk before the mark
//! goes. Whatever ends in between leaves a directory that cannot be started.

use std::{
    fs::{self, File, OpenOptions},
    io::{BufWriter, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use super::{
    directory::CONTROL_FILE,
    error::RestoreError,
    layout::Layout,
    settings::{self, Recovery},
};
use crate::{
    backup::{
        manifest::{Entry, EntryKind, Header},
        postgres_manifest::{PostgresManifest, WalRange},
    },
    postgres::{auto_conf, restore_mark},
    sys::files,
};

/// What tells PostgreSQL from where to recover.
const LABEL: &str = "backup_label";

/// Where tablespaces are.
const MAP: &str = "tablespace_map";

/// What `pg_verifybackup` reads.
const MANIFEST: &str = "backup_manifest";

/// How the server is to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// It recovers by itself.
    Recovers(Recovery),
    /// As a standby that an agent configures.
    Follows,
}

impl Start {
    fn signal(&self) -> &'static str {
        match self {
            Start::Recovers(_) => "recovery.signal",
            Start::Follows => "standby.signal",
        }
    }
}

/// Names of the files that are written here, besides those of the backup.
pub fn written(layout: &Layout, start: &Start) -> Vec<&'static str> {
    let mut names = vec![restore_mark::FILE, auto_conf::FILE, LABEL, MANIFEST, start.signal()];
    if !layout.spaces().is_empty() {
        names.push(MAP);
    }
    names
}

/// Writes what tells PostgreSQL how to begin. It counts for nothing as long as there is no control file.
///
/// # Errors
/// When something cannot be read or written.
pub fn describe(layout: &Layout, backup: &Header, start: &Start) -> Result<(), RestoreError> {
    let mode = 0o600 | (backup.data_dir_mode & 0o040);
    let write = |name: &str, content: &[u8]| {
        let path = layout.root().join(name);
        files::replace(&path, content, mode).map_err(RestoreError::file("write", &path))
    };
    let path = layout.root().join(auto_conf::FILE);
    let found = match fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        read => read.map_err(RestoreError::file("read", &path))?,
    };
    write(
        auto_conf::FILE,
        &match start {
            Start::Recovers(recovery) => settings::recovering(&found, backup, recovery),
            Start::Follows => settings::following(&found),
        },
    )?;
    // Without it PostgreSQL would recover from the wrong checkpoint, and be silently corrupt.
    write(LABEL, backup.label.as_bytes())?;
    if !layout.spaces().is_empty() {
        write(MAP, layout.map().as_bytes())?;
    }
    write(start.signal(), b"")
}

/// Writes PostgreSQL's own list of all files.
///
/// # Errors
/// When an entry cannot be read, or the list not be written.
pub fn list(
    layout: &Layout,
    backup: &Header,
    entries: impl Iterator<Item = Result<Entry, RestoreError>>,
    needed: &[WalRange],
) -> Result<(), RestoreError> {
    let path = layout.root().join(MANIFEST);
    let failed = || RestoreError::file("write", &path);
    files::remove_file(&path).map_err(failed())?;
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600 | (backup.data_dir_mode & 0o040)).open(&path).map_err(failed())?;
    let mut manifest = PostgresManifest::new(BufWriter::new(file), backup).map_err(failed())?;
    let map = layout.map();
    let described = [(LABEL, backup.label.as_str()), (MAP, map.as_str())];
    for (name, text) in described.into_iter().filter(|(_, text)| !text.is_empty()) {
        let crc = crc32c::crc32c(text.as_bytes());
        manifest.add(name.as_bytes(), text.len() as u64, backup.stop.time.as_second(), crc).map_err(failed())?;
    }
    for entry in entries {
        let entry = entry?;
        if let EntryKind::File { size, crc32c, .. } = entry.kind {
            manifest.add(&entry.path, size, entry.modified, crc32c).map_err(failed())?;
        }
    }
    manifest.finish(needed).and_then(|mut out| out.flush()).map_err(failed())
}

/// Everything that was written is on disk when this returns.
///
/// # Errors
/// When a file system says that it is not.
pub fn sync(layout: &Layout) -> Result<(), RestoreError> {
    let wal = layout.root().join("pg_wal");
    let spaces = layout.spaces().iter().map(|space| space.location.as_path());
    // Once for each directory that may lie on a file system of its own: far less than once for each file.
    for place in [layout.root(), &wal].into_iter().chain(spaces) {
        let sync = || Ok(rustix::fs::syncfs(File::open(place)?)?);
        sync().map_err(RestoreError::file("write to disk what is in", place))?;
    }
    Ok(())
}

/// Makes the directory one that can be started.
///
/// # Errors
/// When the control file cannot be written, or the mark not be removed.
pub fn complete(root: &Path, control: &[u8], mode: u32) -> Result<(), RestoreError> {
    let path = root.join(CONTROL_FILE);
    files::replace(&path, control, mode & 0o777).map_err(RestoreError::file("write", &path))?;
    let mark = root.join(restore_mark::FILE);
    let removed = files::remove_file(&mark).and_then(|()| files::sync_parent(&mark));
    removed.map_err(RestoreError::file("remove", &mark))
}
