//! Restoring one WAL file.

use std::path::Path;

use super::{
    archive::{Archive, ArchiveError},
    wal_object,
};
use crate::{model::WalFile, postgres::wal_header::WalHeader, storage::ObjectStore, sys::files};

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fetched {
    /// The file is where it was asked for.
    Restored,
    /// The store says that the archive has no such file. PostgreSQL may take that for the end of all WAL.
    NotThere,
}

/// Restores the file to `destination`, which is whole or not there at all.
///
/// # Errors
/// When the store does not say, when what it has is damaged or is other WAL than its name says, and when it cannot be written.
pub async fn fetch<S: ObjectStore>(archive: &Archive<S>, file: WalFile, destination: &Path) -> Result<Fetched, ArchiveError> {
    let object = archive.object(file)?;
    let Some(packed) = archive.store.read(&object).await? else { return Ok(Fetched::NotThere) };
    let damaged = |why| ArchiveError::Damaged { object: object.clone(), why };
    let content = wal_object::unpack(&packed).map_err(damaged)?;
    if let WalFile::Segment(name) | WalFile::Partial(name) = file
        && let Some(why) = WalHeader::mistake(&content, name, archive.system)
    {
        return Err(damaged(why));
    }
    let written = files::replace(destination, &content, 0o600);
    written.map_err(|source| ArchiveError::File { action: "write", path: destination.display().to_string(), source })?;
    Ok(Fetched::Restored)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{
        backup::{Pushed, push},
        model::SystemId,
        storage::FileStore,
    };

    const SYSTEM: SystemId = SystemId(7_300_000_000_000_000_001);

    struct Place {
        directory: tempfile::TempDir,
        archive: Archive<FileStore>,
    }

    impl Place {
        fn new() -> Place {
            let directory = tempfile::tempdir().unwrap();
            fs::create_dir(directory.path().join("store")).unwrap();
            let store = FileStore::init(&directory.path().join("store")).unwrap();
            Place { archive: Archive::new(store, "orders".parse().unwrap(), SYSTEM), directory }
        }

        /// A segment of one megabyte with this last byte.
        fn segment(&self, number: u32, last: u8) -> (std::path::PathBuf, WalFile) {
            let mut content = vec![0; 1 << 20];
            content[..4].copy_from_slice(&[0x16, 0xD1, 0x02, 0x00]);
            content[4] = 1;
            content[8..16].copy_from_slice(&(u64::from(number) << 20).to_le_bytes());
            content[24..32].copy_from_slice(&SYSTEM.0.to_le_bytes());
            content[32..36].copy_from_slice(&(1u32 << 20).to_le_bytes());
            *content.last_mut().unwrap() = last;
            let name = format!("0000000100000000{number:08X}");
            let path = self.directory.path().join(&name);
            fs::write(&path, content).unwrap();
            (path, name.parse().unwrap())
        }

        fn destination(&self) -> std::path::PathBuf {
            self.directory.path().join("RECOVERYXLOG")
        }
    }

    #[tokio::test]
    async fn what_was_archived_comes_back() {
        let place = Place::new();
        let (path, file) = place.segment(5, 1);
        assert_eq!(fetch(&place.archive, file, &place.destination()).await.unwrap(), Fetched::NotThere);
        assert!(!place.destination().exists());
        assert_eq!(push(&place.archive, &path, file).await.unwrap(), Pushed::Stored);
        assert_eq!(push(&place.archive, &path, file).await.unwrap(), Pushed::WasThere);
        assert_eq!(fetch(&place.archive, file, &place.destination()).await.unwrap(), Fetched::Restored);
        assert_eq!(fs::read(place.destination()).unwrap(), fs::read(path).unwrap());
    }

    #[tokio::test]
    async fn another_content_under_the_same_name_is_kept_aside_and_told() {
        let place = Place::new();
        let (path, file) = place.segment(5, 1);
        push(&place.archive, &path, file).await.unwrap();
        let ours = fs::read(&path).unwrap();
        let (path, file) = place.segment(5, 2);
        for _ in 0..2 {
            let Err(ArchiveError::Conflict { aside, .. }) = push(&place.archive, &path, file).await else { panic!("it was taken") };
            let kept = place.archive.store.read(&aside).await.unwrap().unwrap();
            assert_eq!(wal_object::unpack(&kept).unwrap(), fs::read(&path).unwrap());
        }
        fetch(&place.archive, file, &place.destination()).await.unwrap();
        assert_eq!(fs::read(place.destination()).unwrap(), ours);
    }

    #[tokio::test]
    async fn wal_of_another_system_is_not_archived() {
        let place = Place::new();
        let (path, file) = place.segment(5, 1);
        let store = FileStore::open(&place.directory.path().join("store")).unwrap();
        let theirs = Archive::new(store, "orders".parse().unwrap(), SystemId(1_000_000_000));
        let error = push(&theirs, &path, file).await.unwrap_err();
        assert!(matches!(error, ArchiveError::Unfit { .. }) && error.to_string().contains(&SYSTEM.to_string()), "{error}");
        assert_eq!(fetch(&theirs, file, &place.destination()).await.unwrap(), Fetched::NotThere);
    }

    #[tokio::test]
    async fn what_is_damaged_in_the_store_is_named_and_not_restored() {
        let place = Place::new();
        let (path, file) = place.segment(5, 1);
        push(&place.archive, &path, file).await.unwrap();
        let object = place.archive.object(file).unwrap();
        let whole = place.archive.store.read(&object).await.unwrap().unwrap();
        let mut flipped = whole.to_vec();
        flipped[20] ^= 1;
        let (other, _) = place.segment(6, 1);
        let other = fs::read(other).unwrap();
        let swapped = wal_object::pack(&wal_object::Head::of(&other), &other).unwrap();
        for damaged in [whole.slice(..whole.len() - 1), whole.slice(..10), flipped.into(), swapped] {
            place.archive.store.replace(&object, damaged).await.unwrap();
            let error = fetch(&place.archive, file, &place.destination()).await.unwrap_err();
            assert!(matches!(error, ArchiveError::Damaged { .. }) && error.to_string().contains("000000010000000000000005"), "{error}");
            assert!(!place.destination().exists());
        }
    }
}
