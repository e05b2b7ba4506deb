//! Whether there is room for a backup.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{directory::Found, error::RestoreError, layout::Layout, outline::Outline};
use crate::{backup::BackupId, sys::files};

/// What goes to a disk, and what there is of it.
struct Disk {
    place: PathBuf,
    needed: u64,
    present: u64,
    free: u64,
}

/// Says no where the files would not fit, on any of the disks that they go to. Changes nothing.
///
/// # Errors
/// How much is missing, or that it cannot be told.
pub fn check(layout: &Layout, backup: &BackupId, outline: &Outline, found: &Found) -> Result<(), RestoreError> {
    let root = (layout.root().to_owned(), outline.root);
    let of_space = |space| (layout.version_dir(space), outline.spaces.get(&space.oid).copied().unwrap_or(0));
    let mut disks: BTreeMap<u64, Disk> = BTreeMap::new();
    for (place, needed) in std::iter::once(root).chain(layout.spaces().iter().map(of_space)) {
        let part = existing(&place);
        let device = fs::metadata(part).map_err(RestoreError::file("look at", part))?.dev();
        let free = files::free_space(part).map_err(RestoreError::file("ask for the free space of", part))?;
        // What is there is overwritten, or makes room.
        let present = if *found == Found::Nothing { 0 } else { used(&place) };
        let disk = disks.entry(device).or_insert_with(|| Disk { place, needed: 0, present: 0, free });
        disk.needed = disk.needed.saturating_add(needed);
        disk.present = disk.present.saturating_add(present);
    }
    disks.values().try_for_each(|disk| disk.check(backup))
}

impl Disk {
    fn check(&self, backup: &BackupId) -> Result<(), RestoreError> {
        let there_may_be = self.free.saturating_add(self.present);
        if self.needed <= there_may_be {
            return Ok(());
        }
        let (place, needed, may_be) = (self.place.display(), self.needed >> 20, there_may_be >> 20);
        let why = format!("there is no room: {needed} MB of backup '{backup}' go to the disk of '{place}', and {may_be} MB are free");
        Err(RestoreError::refused(why, "make room, or choose another directory"))
    }
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
    use crate::backup::{
        catalog::tests::header,
        manifest::{Header, Tablespace},
    };

    #[test]
    fn what_does_not_fit_is_refused_and_what_is_there_counts() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("not/yet/there");
        let check = |size, found: &Found| {
            let backup = header(0, 1);
            let outline = Outline { root: size, ..Outline::default() };
            super::check(&Layout::new(&root, &backup, &[]).unwrap(), &backup.id, &outline, found)
        };
        check(1000, &Found::Nothing).unwrap();
        let error = check(1 << 60, &Found::Nothing).unwrap_err().to_string();
        assert!(error.contains("no room") && error.contains("1099511627776 MB"), "{error}");
        fs::create_dir_all(root.join("base")).unwrap();
        fs::write(root.join("base/1"), [7; 100_000]).unwrap();
        assert!(used(&root) >= 100_000);
        check(1000, &Found::Data).unwrap();
    }

    #[test]
    fn what_goes_to_a_tablespace_has_to_fit_there_and_what_shares_a_disk_is_counted_together() {
        let place = tempfile::tempdir().unwrap();
        let (root, location) = (place.path().join("data"), place.path().join("space"));
        let backup = Header { tablespaces: vec![Tablespace { oid: 5, location: location.display().to_string() }], ..header(0, 1) };
        let layout = Layout::new(&root, &backup, &[]).unwrap();
        let check =
            |root, space| check(&layout, &backup.id, &Outline { root, spaces: [(5, space)].into(), ..Outline::default() }, &Found::Nothing);
        let free = files::free_space(place.path()).unwrap();
        check(1000, 1000).unwrap();
        let error = check(1000, 1 << 60).unwrap_err().to_string();
        assert!(error.contains("no room"), "{error}");
        assert!(check(free / 4 * 3, free / 4 * 3).is_err());
        let disk = |place: &str, free| Disk { place: place.into(), needed: 10 << 20, present: 4 << 20, free };
        disk("/a", 6 << 20).check(&backup.id).unwrap();
        let error = disk("/full", 1 << 20).check(&backup.id).unwrap_err().to_string();
        assert!(error.contains("10 MB") && error.contains("'/full'") && error.contains("5 MB"), "{error}");
    }
}
