//! Whether there is room for a backup.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{directory::Found, error::RestoreError, layout::Layout};
use crate::{backup::manifest::Header, sys::files};

/// Says no where the files would not fit. Changes nothing.
///
/// # Errors
/// How much is missing, or that it cannot be told.
pub fn check(layout: &Layout, backup: &Header, found: &Found) -> Result<(), RestoreError> {
    let versions: Vec<PathBuf> = layout.spaces().iter().map(|space| layout.version_dir(space)).collect();
    let places = || std::iter::once(layout.root()).chain(versions.iter().map(PathBuf::as_path));
    // What is there is overwritten, or makes room.
    let present: u64 = if *found == Found::Nothing { 0 } else { places().map(used).sum() };
    let (mut seen, mut free) = (BTreeSet::new(), 0_u64);
    for place in places() {
        let place = existing(place);
        let device = fs::metadata(place).map_err(RestoreError::file("look at", place))?.dev();
        if seen.insert(device) {
            free = free.saturating_add(files::free_space(place).map_err(RestoreError::file("ask for the free space of", place))?);
        }
    }
    if backup.size.saturating_sub(present) <= free {
        return Ok(());
    }
    let why = format!("there is no room: backup '{}' has {} MB, and {} MB are free", backup.id, backup.size >> 20, (free + present) >> 20);
    Err(RestoreError::refused(why, "make room, or choose another directory"))
}

/// The path, or what of it exists.
fn existing(path: &Path) -> &Path {
    path.ancestors().find(|part| part.exists()).unwrap_or(Path::new("/"))
}

/// Bytes that a directory takes on its disk. What cannot be looked at takes none.
fn used(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    let of_entry = |entry: fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => used(&entry.path()),
        Ok(found) if found.is_file() => found.blocks() * 512,
        _ => 0,
    };
    entries.flatten().map(of_entry).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::catalog::tests::header;

    #[test]
    fn what_does_not_fit_is_refused_and_what_is_there_counts() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("not/yet/there");
        let check = |size, found: &Found| {
            let backup = Header { size, ..header(0, 1) };
            super::check(&Layout::new(&root, &backup, &[]).unwrap(), &backup, found)
        };
        check(1000, &Found::Nothing).unwrap();
        let error = check(1 << 60, &Found::Nothing).unwrap_err().to_string();
        assert!(error.contains("no room") && error.contains("1099511627776 MB"), "{error}");
        fs::create_dir_all(root.join("base")).unwrap();
        fs::write(root.join("base/1"), [7; 100_000]).unwrap();
        assert!(used(&root) >= 100_000);
        check(1000, &Found::Data).unwrap();
    }
}
