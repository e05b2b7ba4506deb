//! What does not belong to the backup leaves the directory: files that were dropped, WAL of another time, notes of a server that ran there.

use std::{fs, io, os::unix::ffi::OsStrExt, path::Path};

use super::{directory::is_the_file_systems, error::RestoreError, layout::Layout, outline::Belonging};
use crate::sys::files;

/// Removes all WAL at once: it may take more room than there is, and none of it counts.
///
/// # Errors
/// When it cannot be removed.
pub fn drop_wal(layout: &Layout) -> Result<(), RestoreError> {
    let wal = layout.root().join("pg_wal");
    let Ok(entries) = fs::read_dir(&wal) else { return Ok(()) };
    for entry in entries {
        let entry = entry.map_err(RestoreError::file("read", &wal))?;
        if entry.file_type().is_ok_and(|kind| kind.is_file()) {
            let path = entry.path();
            files::remove_file(&path).map_err(RestoreError::file("remove", &path))?;
        }
    }
    Ok(())
}

/// Removes what does not belong there; returns how many files and directories that were.
///
/// # Errors
/// When something cannot be read or removed.
pub fn sweep(layout: &Layout, belonging: &Belonging) -> Result<u64, RestoreError> {
    let mut removed = directory(belonging, layout.root(), &mut Vec::new())?;
    for space in layout.spaces() {
        // Whether the link to it is there already or not. In its location there may be the directories of other servers.
        let version = layout.version_dir(space);
        if version.is_dir() {
            removed += directory(belonging, &version, &mut layout.version_path(space))?;
        }
    }
    Ok(removed)
}

fn directory(belonging: &Belonging, here: &Path, path: &mut Vec<u8>) -> Result<u64, RestoreError> {
    let mut removed = 0;
    let length = path.len();
    for entry in fs::read_dir(here).map_err(RestoreError::file("read", here))? {
        let entry = entry.map_err(RestoreError::file("read", here))?;
        let (name, real) = (entry.file_name(), entry.path());
        if is_the_file_systems(name.as_bytes()) {
            continue;
        }
        if length > 0 {
            path.push(b'/');
        }
        path.extend_from_slice(name.as_bytes());
        let kind = entry.file_type().map_err(RestoreError::file("read", &real))?;
        if !belonging.has(path) {
            remove(&real, kind).map_err(RestoreError::file("remove", &real))?;
            removed += 1;
        } else if kind.is_dir() || is_volume_for_wal(path, &real, kind) {
            removed += directory(belonging, &real, path)?;
        }
        path.truncate(length);
    }
    Ok(removed)
}

/// The only link that stays one, besides those to tablespaces: what others lead to is somebody else's.
fn is_volume_for_wal(path: &[u8], real: &Path, kind: fs::FileType) -> bool {
    path == b"pg_wal" && kind.is_symlink() && real.is_dir()
}

/// Never what a link leads to.
fn remove(path: &Path, kind: fs::FileType) -> io::Result<()> {
    if kind.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::backup::{
        catalog::tests::header,
        manifest::{Header, Tablespace},
    };

    #[test]
    fn what_does_not_belong_goes_and_nothing_else() {
        let place = tempfile::tempdir().unwrap();
        let (root, space, outside) = (place.path().join("data"), place.path().join("space"), place.path().join("outside"));
        let backup = Header { tablespaces: vec![Tablespace { oid: 5, location: space.display().to_string() }], ..header(0, 1) };
        let layout = Layout::new(&root, &backup, &[]).unwrap();
        let version = layout.version_dir(&layout.spaces()[0]);
        for dir in [
            &root.join("base/1"),
            &root.join("log"),
            &root.join("pg_tblspc"),
            &root.join("lost+found"),
            &version.join("lost+found"),
            &version,
            &outside,
        ] {
            fs::create_dir_all(dir).unwrap();
        }
        let files = [
            root.join("base/1/10"),
            root.join("base/1/11"),
            root.join("base/2"),
            root.join("log/x"),
            version.join("20"),
            version.join("21"),
            space.join("note"),
            outside.join("precious"),
        ];
        files.iter().for_each(|file| fs::write(file, "").unwrap());
        symlink(&outside, root.join("pg_tblspc/6")).unwrap();
        // Its place is that of a directory, which is made when files are written.
        symlink(&outside, root.join("base/3")).unwrap();
        let mut belonging = Belonging::default();
        let version_path = format!("pg_tblspc/5/{}", version.file_name().unwrap().to_str().unwrap());
        for path in ["base", "base/1", "base/1/10", "base/3", "pg_tblspc", "pg_tblspc/5", &version_path, &format!("{version_path}/20")] {
            belonging.add(path.as_bytes());
        }
        assert_eq!(sweep(&layout, &belonging).unwrap(), 5);
        let left: Vec<bool> = files.iter().map(|file| file.exists()).collect();
        assert_eq!(left, [true, false, false, false, true, false, true, true]);
        assert!(root.join("lost+found").exists() && version.join("lost+found").exists(), "any directory may be a volume's uppermost");
        assert!(!root.join("pg_tblspc/6").is_symlink() && !root.join("log").exists());
        assert_eq!(sweep(&layout, &belonging).unwrap(), 0);
    }

    #[test]
    fn old_wal_goes_before_room_is_needed() {
        let place = tempfile::tempdir().unwrap();
        let layout = Layout::new(place.path(), &header(0, 1), &[]).unwrap();
        drop_wal(&layout).unwrap();
        fs::create_dir_all(place.path().join("pg_wal/archive_status")).unwrap();
        fs::write(place.path().join("pg_wal/000000010000000000000001"), "").unwrap();
        drop_wal(&layout).unwrap();
        assert_eq!(fs::read_dir(place.path().join("pg_wal")).unwrap().count(), 1);
    }
}
