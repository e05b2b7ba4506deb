//! Files that are either the old or the new, whatever happens in between.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Bytes that are written at once. Of a call with many megabytes Linux makes pages of many megabytes for a new file, which costs three times the
/// processor time (measured on ext4, Linux 6.18).
const PART: usize = 256 << 10;

/// Writes all of `content`.
pub fn write(file: &mut File, content: &[u8]) -> io::Result<()> {
    content.chunks(PART).try_for_each(|part| file.write_all(part))
}

/// Replaces `path` by `content` so that a crash leaves the old file or the new one, never a part: a temporary file beside it is written,
/// synced and renamed over it, then the directory is synced. `mode` is the new file's mode.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let temporary = beside(path, ".new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
    write(&mut file, content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_parent(path)
}

/// Renames and makes the renaming durable.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_parent(to)
}

/// Makes creations, renamings and removals in the directory of `path` durable.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => Ok(()),
    }
}

/// The path with `suffix` appended to its last component.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    path.with_file_name(name)
}

/// Makes the directory, for its owner alone; one that is there stays as it is.
pub fn ensure_dir(path: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Removes a directory with all that is in it; one that is not there is fine.
pub fn remove_dir(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes a file; one that is not there is fine.
pub fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Bytes that whoever asks may still write to the file system that `path` lies on.
pub fn free_space(path: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// True when there is no such directory or nothing in it.
pub fn is_empty_dir(path: &Path) -> io::Result<bool> {
    match fs::read_dir(path) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

/// Whether the file lies in a file system of which it is known that each write sets the time of the last change before it brings its bytes, and
/// holds a lock of the file from then on: ext4, XFS, Btrfs and tmpfs.
pub fn keeps_change_time(file: &File) -> bool {
    const KNOWN: [i64; 4] = [0xEF53, 0x5846_5342, 0x9123_683E, 0x0102_1994];
    rustix::fs::fstatfs(file).is_ok_and(|found| KNOWN.contains(&found.f_type))
}

/// Waits for whoever is in the middle of a write to the file: to be asked where its data begin takes the same lock. In XFS it does not, but there
/// everybody who reads waits for writers.
pub fn await_writers(file: &File) {
    // An empty file has none; what counts is to have waited.
    let _ = rustix::fs::seek(file, rustix::fs::SeekFrom::Data(0));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replacing_leaves_nothing_else_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        replace(&path, b"one", 0o600).unwrap();
        let long: Vec<u8> = (0..3 * PART + 7).map(|at| (at / 1000).to_le_bytes()[0]).collect();
        replace(&path, &long, 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), long);
        replace(&path, b"two", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_directory_is_made_once_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tmp");
        ensure_dir(&path).unwrap();
        fs::write(path.join("f"), "x").unwrap();
        ensure_dir(&path).unwrap();
        assert!(path.join("f").exists());
        assert!(ensure_dir(&dir.path().join("no/where")).is_err());
    }

    #[test]
    fn a_missing_directory_counts_as_empty() {
        let dir = tempfile::tempdir().unwrap();
        assert!(is_empty_dir(&dir.path().join("none")).unwrap());
        assert!(is_empty_dir(dir.path()).unwrap());
        fs::write(dir.path().join("x"), "").unwrap();
        assert!(!is_empty_dir(dir.path()).unwrap());
    }
}
