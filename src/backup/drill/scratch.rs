//! The directory that is thrown away. What a drill that was killed has left is removed by the next one.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use super::DrillError;
use crate::sys::{files, process_table};

/// How the directory's name begins; what follows is chance.
const PREFIX: &str = "spilo-drill-";

/// Says whose it is: a process id and when that was started.
const OWNER: &str = "owner";

/// A directory of this process.
pub struct Scratch {
    directory: TempDir,
}

impl Scratch {
    /// Makes one below `parent`, after having removed those whose processes are gone.
    ///
    /// # Errors
    /// When `parent` cannot be written to.
    pub fn make(parent: &Path) -> Result<Scratch, DrillError> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(DrillError::file("make", parent))?;
        remove_left(parent)?;
        let directory =
            tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent).map_err(DrillError::file("make a directory in", parent))?;
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).map_err(DrillError::file("close", directory.path()))?;
        let owner = directory.path().join(OWNER);
        let text = this_process().unwrap_or_default();
        files::replace(&owner, text.as_bytes(), 0o600).map_err(DrillError::file("write", &owner))?;
        for folder in ["socket", "spaces"] {
            let path = directory.path().join(folder);
            fs::DirBuilder::new().mode(0o700).create(&path).map_err(DrillError::file("make", &path))?;
        }
        Ok(Scratch { directory })
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        self.directory.path()
    }

    /// The data directory in it.
    pub fn data_dir(&self) -> PathBuf {
        self.root().join("data")
    }

    /// The directory of the server's socket. A socket's path has at most 107 bytes.
    pub fn socket_dir(&self) -> PathBuf {
        self.root().join("socket")
    }

    /// Where a tablespace goes.
    pub fn tablespace(&self, oid: u32) -> PathBuf {
        self.root().join("spaces").join(oid.to_string())
    }

    /// Removes it.
    ///
    /// # Errors
    /// When that fails: it may be large, so somebody has to be told.
    pub fn remove(self) -> Result<(), DrillError> {
        let path = self.root().to_owned();
        self.directory.close().map_err(DrillError::file("remove", &path))
    }
}

/// Removes what drills have left below `parent` whose processes are gone.
///
/// # Errors
/// When that fails.
pub fn remove_left(parent: &Path) -> Result<(), DrillError> {
    for entry in fs::read_dir(parent).map_err(DrillError::file("look into", parent))?.flatten() {
        let path = entry.path();
        let ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        let Some(owner) = fs::read_to_string(path.join(OWNER)).ok().filter(|_| ours) else { continue };
        if !is_alive(&owner) {
            tracing::info!("removing '{}', which an interrupted test restore has left", path.display());
            files::remove_dir(&path).map_err(DrillError::file("remove", &path))?;
        }
    }
    Ok(())
}

fn this_process() -> Option<String> {
    let pid = std::process::id().cast_signed();
    Some(format!("{pid} {}", process_table::started(pid)?))
}

/// Whether the process is there that has written this. Numbers of processes are used again; the time of their start is not.
fn is_alive(owner: &str) -> bool {
    let mut words = owner.split_whitespace();
    let (pid, started) = (words.next().and_then(|word| word.parse().ok()), words.next().and_then(|word| word.parse::<u64>().ok()));
    match (pid, started) {
        (Some(pid), Some(started)) => process_table::started(pid) == Some(started),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_interrupted_drill_has_left_is_removed_by_the_next() {
        let parent = tempfile::tempdir().unwrap();
        let left = parent.path().join("spilo-drill-left");
        let others = parent.path().join("somebody-elses");
        for path in [&left, &others] {
            fs::create_dir_all(path.join("data/base")).unwrap();
            fs::write(path.join(OWNER), "4194304 7").unwrap();
        }
        let mine = Scratch::make(parent.path()).unwrap();
        assert!(!left.exists() && others.exists());
        let second = Scratch::make(parent.path()).unwrap();
        assert!(mine.root().exists(), "its process is there");
        let root = second.root().to_owned();
        fs::create_dir_all(second.data_dir()).unwrap();
        second.remove().unwrap();
        assert!(!root.exists());
    }
}
