//! The mark of a data directory that is being restored: until it is gone there is less in the directory than it seems.

use std::path::Path;

/// The file, in the data directory.
pub const FILE: &str = "restore.in_progress";

/// Whether a restore into this directory was begun and not finished.
pub fn is_unfinished(data_dir: &Path) -> bool {
    data_dir.join(FILE).symlink_metadata().is_ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_directory_with_the_mark_is_not_finished() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!super::is_unfinished(dir.path()));
        std::fs::write(dir.path().join(super::FILE), "").unwrap();
        assert!(super::is_unfinished(dir.path()));
    }
}
