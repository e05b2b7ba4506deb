//! The directory that is restored to: whether it may be one, and the mark that it is not finished.

use std::{
    fs::{self, DirBuilder, File, Permissions},
    io::{self, ErrorKind},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::{fs::FlockOperation, io::Errno};
use serde::{Deserialize, Serialize};

use super::{
    error::RestoreError,
    layout::{Layout, Space},
};
use crate::{
    backup::{BackupId, manifest::Header},
    model::SystemId,
    postgres::{control_data, restore_mark},
    sys::files,
};

/// What a file system has in its uppermost directory.
const LOST_AND_FOUND: &str = "lost+found";

/// What PostgreSQL cannot be started without: it is removed first and comes back last.
pub const CONTROL_FILE: &str = "global/pg_control";

/// What is in the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// What an interrupted restore has left.
    Unfinished(Mark),
    /// Data of the same system.
    Data,
}

/// What the mark of an unfinished restore says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Whose data they are to be.
    pub system: SystemId,
    /// From which backup.
    pub backup: BackupId,
    /// Where its tablespaces go.
    pub tablespaces: Vec<(u32, PathBuf)>,
}

/// Looks at the directory, and says no to one that is not to be written to. Changes nothing.
///
/// # Errors
/// Why not.
pub fn inspect(root: &Path, system: SystemId, delta: bool) -> Result<Found, RestoreError> {
    let shown = root.display();
    if !root.is_absolute() {
        return Err(RestoreError::refused(format!("'{shown}' is no absolute path"), "name the directory from '/' on"));
    }
    if is_empty(root).map_err(RestoreError::file("read", root))? {
        return Ok(Found::Nothing);
    }
    refuse_running(root)?;
    if restore_mark::is_unfinished(root) {
        return Ok(Found::Unfinished(read_mark(root, system)?));
    }
    if !delta {
        let hint = "choose an empty directory, or keep what is right of it with --delta";
        return Err(RestoreError::refused(format!("'{shown}' is not empty"), hint));
    }
    match control_data::system_id(root) {
        Ok(found) if found == system => Ok(Found::Data),
        Ok(found) => {
            let why = format!("'{shown}' has the data of system {found}, and the backup those of {system}");
            Err(RestoreError::refused(why, "choose another directory: nothing of this one could be kept"))
        }
        Err(error) => {
            let why = format!("'{shown}' does not say whose data it has: {error}");
            Err(RestoreError::refused(why, "choose an empty directory: nothing is known of what is in this one"))
        }
    }
}

fn read_mark(root: &Path, system: SystemId) -> Result<Mark, RestoreError> {
    let path = root.join(restore_mark::FILE);
    let text = fs::read(&path).map_err(RestoreError::file("read", &path))?;
    let hint = "choose another directory, or empty this one";
    let mark: Mark = serde_json::from_slice(&text)
        .map_err(|error| RestoreError::refused(format!("'{}' cannot be read: {error}", path.display()), hint))?;
    if mark.system == system {
        return Ok(mark);
    }
    Err(RestoreError::refused(format!("'{}' has a part of a backup of system {}", root.display(), mark.system), hint))
}

/// A server that runs would be destroyed, and would destroy what is restored.
fn refuse_running(root: &Path) -> Result<(), RestoreError> {
    let pid_file = root.join("postmaster.pid");
    let text = match fs::read(&pid_file) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        read => read.map_err(RestoreError::file("read", &pid_file))?,
    };
    let text = String::from_utf8_lossy(&text);
    let pid = text.lines().next().and_then(|line| line.trim().parse::<u32>().ok());
    let command = pid.and_then(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).ok());
    match (pid, command) {
        (Some(pid), Some(command)) if command.starts_with("postgres") || command.starts_with("postmaster") => {
            let why = format!("a server runs in '{}' (process {pid})", root.display());
            Err(RestoreError::refused(why, "stop it, and whatever starts it again"))
        }
        _ => Ok(()),
    }
}

/// Says no to a directory for a tablespace that has somebody else's files in it. Changes nothing.
///
/// # Errors
/// Why not.
pub fn inspect_spaces(layout: &Layout, found: &Found) -> Result<(), RestoreError> {
    for space in layout.spaces() {
        let version = layout.version_dir(space);
        let (oid, shown) = (space.oid, version.display());
        if !is_empty(&version).map_err(RestoreError::file("read", &version))? && !is_ours(layout, space, found) {
            let why = format!("'{shown}' is not empty: the files of tablespace {oid} would go there");
            return Err(RestoreError::refused(why, format!("choose another directory with --tablespace {oid}=DIRECTORY")));
        }
    }
    Ok(())
}

fn is_ours(layout: &Layout, space: &Space, found: &Found) -> bool {
    match found {
        Found::Nothing => false,
        Found::Unfinished(mark) => mark.tablespaces.contains(&(space.oid, space.location.clone())),
        Found::Data => fs::read_link(layout.link(space)).is_ok_and(|leads_to| leads_to == space.location),
    }
}

/// Makes the directory, and sees to it that nobody else restores into it as long as what is returned lives.
///
/// # Errors
/// When somebody does.
pub fn claim(root: &Path, mode: u32) -> Result<File, RestoreError> {
    make_place(root, mode)?;
    let directory = File::open(root).map_err(RestoreError::file("read", root))?;
    match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(directory),
        Err(Errno::WOULDBLOCK) => {
            let why = format!("somebody else restores into '{}' at the moment", root.display());
            Err(RestoreError::refused(why, "wait until that has come to its end"))
        }
        Err(error) => Err(RestoreError::file("lock", root)(error.into())),
    }
}

/// From here on the directory cannot be started, until [`finish`](super::finish).
///
/// # Errors
/// When it cannot be made or written to.
pub fn begin(layout: &Layout, backup: &Header) -> Result<(), RestoreError> {
    let root = layout.root();
    files::sync_parent(root).map_err(RestoreError::file("sync", root))?;
    let tablespaces = layout.spaces().iter().map(|space| (space.oid, space.location.clone())).collect();
    let mark = Mark { system: backup.system, backup: backup.id.clone(), tablespaces };
    let path = root.join(restore_mark::FILE);
    let written = serde_json::to_vec(&mark).map_err(io::Error::from).and_then(|text| files::replace(&path, &text, 0o600));
    written.map_err(RestoreError::file("write", &path))?;
    let control = root.join(CONTROL_FILE);
    files::remove_file(&control).map_err(RestoreError::file("remove", &control))?;
    if let Some(folder) = control.parent().filter(|folder| folder.is_dir()) {
        files::sync_parent(&control).map_err(RestoreError::file("sync", folder))?;
    }
    layout.spaces().iter().try_for_each(|space| make_place(&space.location, backup.data_dir_mode))
}

/// Makes a directory that somebody has named, or gives the one that is there these permissions: where a link leads to it, that one, because
/// whoever put the link there wants the files behind it.
fn make_place(path: &Path, mode: u32) -> Result<(), RestoreError> {
    let make = || {
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return Err(ErrorKind::NotADirectory.into()),
            Err(error) if error.kind() == ErrorKind::NotFound => DirBuilder::new().recursive(true).mode(0o700).create(path)?,
            Err(error) => return Err(error),
        }
        fs::set_permissions(path, Permissions::from_mode(mode & 0o777))
    };
    make().map_err(RestoreError::file("make the directory", path))
}

/// Makes the directory of an entry, or gives the one that is there these permissions. A link in its place goes: nothing is written through it.
///
/// # Errors
/// When that is not possible.
pub fn make_dir(path: &Path, mode: u32) -> Result<(), RestoreError> {
    let make = || {
        match fs::symlink_metadata(path) {
            Ok(found) if found.is_dir() => {}
            // A volume for WAL.
            Ok(found) if found.is_symlink() && path.ends_with("pg_wal") && path.is_dir() => return Ok(()),
            Ok(_) => {
                fs::remove_file(path)?;
                DirBuilder::new().mode(mode & 0o777).create(path)?;
            }
            Err(error) if error.kind() == ErrorKind::NotFound => DirBuilder::new().recursive(true).mode(0o700).create(path)?,
            Err(error) => return Err(error),
        }
        fs::set_permissions(path, Permissions::from_mode(mode & 0o777))
    };
    make().map_err(RestoreError::file("make the directory", path))
}

/// Makes the link of a tablespace.
///
/// # Errors
/// When that is not possible.
pub fn make_link(layout: &Layout, space: &Space) -> Result<(), RestoreError> {
    let link = layout.link(space);
    let make = || {
        if fs::read_link(&link).is_ok_and(|leads_to| leads_to == space.location) {
            return Ok(());
        }
        match fs::symlink_metadata(&link) {
            Ok(found) if found.is_dir() => fs::remove_dir_all(&link)?,
            Ok(_) => fs::remove_file(&link)?,
            Err(_) => {}
        }
        std::os::unix::fs::symlink(&space.location, &link)
    };
    make().map_err(RestoreError::file("make the link", &link))
}

/// There is nothing, or nothing but what every file system has.
fn is_empty(path: &Path) -> io::Result<bool> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(true),
        entries => entries?,
    };
    for entry in entries {
        if entry?.file_name() != LOST_AND_FOUND {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether an entry is none of ours: any directory may be a volume's uppermost one.
pub fn is_the_file_systems(name: &[u8]) -> bool {
    name == LOST_AND_FOUND.as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::{catalog::tests::header, manifest::Tablespace};

    const SYSTEM: SystemId = SystemId(7_300_000_000_000_000_001);

    fn refused(found: Result<Found, RestoreError>) -> String {
        match found {
            Err(RestoreError::Refused { why, .. }) => why,
            other => panic!("not refused: {other:?}"),
        }
    }

    fn with_control_file(system: SystemId) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("global")).unwrap();
        fs::write(dir.path().join(CONTROL_FILE), system.0.to_ne_bytes()).unwrap();
        dir
    }

    #[test]
    fn only_an_empty_directory_is_restored_to_unless_one_keeps_what_is_right() {
        let empty = tempfile::tempdir().unwrap();
        fs::create_dir(empty.path().join(LOST_AND_FOUND)).unwrap();
        assert_eq!(inspect(empty.path(), SYSTEM, false).unwrap(), Found::Nothing);
        assert_eq!(inspect(&empty.path().join("new"), SYSTEM, true).unwrap(), Found::Nothing);
        let data = with_control_file(SYSTEM);
        assert!(refused(inspect(data.path(), SYSTEM, false)).contains("not empty"));
        assert_eq!(inspect(data.path(), SYSTEM, true).unwrap(), Found::Data);
        assert!(refused(inspect(Path::new("relative"), SYSTEM, false)).contains("relative"));
    }

    #[test]
    fn nothing_is_kept_of_what_belongs_to_somebody_else() {
        let other = with_control_file(SystemId(7_300_000_000_000_000_002));
        assert!(refused(inspect(other.path(), SYSTEM, true)).contains("7300000000000000002"));
        let strange = tempfile::tempdir().unwrap();
        fs::write(strange.path().join("photos"), "").unwrap();
        assert!(refused(inspect(strange.path(), SYSTEM, true)).contains("whose data"));
    }

    #[test]
    fn what_was_begun_is_not_startable_and_may_be_continued() {
        let data = with_control_file(SYSTEM);
        let backup = header(0, 1);
        let layout = Layout::new(data.path(), &backup, &[]).unwrap();
        begin(&layout, &backup).unwrap();
        assert!(!data.path().join(CONTROL_FILE).exists() && restore_mark::is_unfinished(data.path()));
        let mark = Mark { system: SYSTEM, backup: backup.id.clone(), tablespaces: Vec::new() };
        assert_eq!(inspect(data.path(), SYSTEM, false).unwrap(), Found::Unfinished(mark));
        assert!(refused(inspect(data.path(), SystemId(7_300_000_000_000_000_002), true)).contains(&SYSTEM.to_string()));
        begin(&layout, &backup).unwrap();
    }

    #[test]
    fn places_that_are_links_lead_to_where_the_files_go() {
        let place = tempfile::tempdir().unwrap();
        let [root, behind_root, space, behind_space] = ["data", "volume", "space", "fast"].map(|name| place.path().join(name));
        for (link, behind) in [(&root, &behind_root), (&space, &behind_space)] {
            fs::create_dir(behind).unwrap();
            std::os::unix::fs::symlink(behind, link).unwrap();
        }
        let backup = Header { tablespaces: vec![Tablespace { oid: 16_384, location: space.display().to_string() }], ..header(0, 1) };
        let layout = Layout::new(&root, &backup, &[]).unwrap();
        let _claimed = claim(&root, 0o750).unwrap();
        begin(&layout, &backup).unwrap();
        assert!(root.is_symlink() && space.is_symlink());
        assert!(restore_mark::is_unfinished(&behind_root));
        assert_eq!(fs::metadata(&behind_root).unwrap().permissions().mode() & 0o777, 0o750);
        let file = place.path().join("file");
        fs::write(&file, "precious").unwrap();
        assert!(make_place(&file, 0o700).is_err() && file.is_file());
    }

    #[test]
    fn the_files_of_a_server_that_runs_are_left_alone() {
        let data = with_control_file(SYSTEM);
        fs::write(data.path().join("postmaster.pid"), "99999999\n").unwrap();
        assert_eq!(inspect(data.path(), SYSTEM, true).unwrap(), Found::Data, "it ended without tidying up");
        fs::remove_file(data.path().join("postmaster.pid")).unwrap();
        fs::create_dir(data.path().join("postmaster.pid")).unwrap();
        assert!(inspect(data.path(), SYSTEM, true).is_err(), "it cannot be read, and says nothing");
    }

    #[test]
    fn a_tablespace_goes_nowhere_where_files_are() {
        let place = tempfile::tempdir().unwrap();
        let (root, location) = (place.path().join("data"), place.path().join("space"));
        let backup = Header { tablespaces: vec![Tablespace { oid: 16_384, location: location.display().to_string() }], ..header(0, 1) };
        let layout = Layout::new(&root, &backup, &[]).unwrap();
        inspect_spaces(&layout, &Found::Nothing).unwrap();
        let version = layout.version_dir(&layout.spaces()[0]);
        fs::create_dir_all(version.join("5")).unwrap();
        let error = inspect_spaces(&layout, &Found::Nothing).unwrap_err().to_string();
        assert!(error.contains("16384") && error.contains(&version.display().to_string()), "{error}");
        assert!(inspect_spaces(&layout, &Found::Data).is_err(), "no link leads there");
        let claimed = claim(&root, 0o700).unwrap();
        assert!(refused(claim(&root, 0o700).map(|_| Found::Nothing)).contains("somebody else"));
        drop(claimed);
        claim(&root, 0o700).unwrap();
        begin(&layout, &backup).unwrap();
        fs::create_dir(root.join("pg_tblspc")).unwrap();
        make_link(&layout, &layout.spaces()[0]).unwrap();
        make_link(&layout, &layout.spaces()[0]).unwrap();
        inspect_spaces(&layout, &Found::Data).unwrap();
        inspect_spaces(&layout, &inspect(&root, SYSTEM, false).unwrap()).unwrap();
    }
}
