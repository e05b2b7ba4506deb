//! Restoring one WAL file.

use std::path::Path;

use super::{
    archive::{Archive, ArchiveError},
    wal_object,
    wal_push::on_a_thread,
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
    let destination = destination.to_owned();
    let fetched = fetch_with(archive, file, move |content| {
        let written = files::replace(&destination, content, 0o600);
        written.map_err(|source| ArchiveError::File { action: "write", path: destination.display().to_string(), source })
    });
    Ok(fetched.await?.map_or(Fetched::NotThere, |()| Fetched::Restored))
}

/// Reads the file and hands it to `take`, on a thread where that may take its time, when it was found to be what its name says. `None`: the
/// store says that there is none.
pub(super) async fn fetch_with<S: ObjectStore, T: Send + 'static>(
    archive: &Archive<S>,
    file: WalFile,
    take: impl FnOnce(&[u8]) -> Result<T, ArchiveError> + Send + 'static,
) -> Result<Option<T>, ArchiveError> {
    let (object, system) = (archive.object(file)?, archive.system);
    let Some(packed) = archive.store.read(&object).await? else { return Ok(None) };
    let taken = on_a_thread(move || {
        let damaged = |why| ArchiveError::Damaged { object: object.clone(), why };
        let content = wal_object::unpack(&packed).map_err(damaged)?;
        drop(packed);
        if let WalFile::Segment(name) | WalFile::Partial(name) = file
            && let Some(why) = WalHeader::mistake(&content, name, system)
        {
            return Err(damaged(why));
        }
        take(&content)
    });
    taken.await.map(Some)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{
        backup::{Pushed, push},
        model::SystemId,
        postgres::wal_segment::Segment,
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

        /// A segment of one megabyte with this record in it.
        fn segment(&self, number: u32, record: u8) -> (std::path::PathBuf, WalFile) {
            self.put(&Segment::new(1, number).with(&[&[record; 100]]))
        }

        fn put(&self, segment: &Segment) -> (std::path::PathBuf, WalFile) {
            let path = self.directory.path().join(segment.name().to_string());
            fs::write(&path, segment.build()).unwrap();
            (path, WalFile::Segment(segment.name()))
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
    async fn the_same_records_are_the_same_wal_whatever_lies_behind_them() {
        let place = Place::new();
        let segment = Segment { switched: true, ..Segment::new(1, 5) }.with(&[b"one", b"two"]);
        let (path, file) = place.put(&segment);
        assert_eq!(push(&place.archive, &path, file).await.unwrap(), Pushed::Stored);
        let (path, file) = place.put(&Segment { rest: 0xAA, ..segment.clone() });
        assert_eq!(push(&place.archive, &path, file).await.unwrap(), Pushed::SameRecords);
        let open = Segment { switched: false, rest: 0xAA, ..segment.clone() };
        for other in [segment.clone().with(&[b"one", b"two", b"three"]), segment.with(&[b"one", b"2"]), open] {
            let (path, file) = place.put(&other);
            assert!(matches!(push(&place.archive, &path, file).await, Err(ArchiveError::Conflict { .. })));
        }
    }

    #[tokio::test]
    async fn a_partial_segment_of_which_the_archive_has_more_is_the_same_wal() {
        let place = Place::new();
        let more = Segment::new(1, 5).with(&[b"one", b"two", b"three"]);
        let less = Segment { rest: 0xAA, ..more.clone().with(&[b"one", b"two"]) };
        let file = WalFile::Partial(more.name());
        let (path, _) = place.put(&more);
        push(&place.archive, &path, file).await.unwrap();
        let (path, _) = place.put(&less);
        assert_eq!(push(&place.archive, &path, file).await.unwrap(), Pushed::SameRecords);
    }

    #[tokio::test]
    async fn a_second_partial_segment_is_kept_aside_and_holds_nobody_up() {
        let place = Place::new();
        let (path, WalFile::Segment(name)) = place.segment(5, 1) else { panic!("a segment") };
        let file = WalFile::Partial(name);
        assert_eq!(push(&place.archive, &path, file).await.unwrap(), Pushed::Stored);
        let (path, _) = place.segment(5, 2);
        let Pushed::Aside(aside) = push(&place.archive, &path, file).await.unwrap() else { panic!("it was not kept") };
        let kept = place.archive.store.read(&aside).await.unwrap().unwrap();
        assert_eq!(wal_object::unpack(&kept).unwrap(), fs::read(&path).unwrap());
    }

    #[tokio::test]
    async fn what_is_damaged_in_the_store_is_not_acknowledged() {
        let place = Place::new();
        let (path, file) = place.segment(5, 1);
        push(&place.archive, &path, file).await.unwrap();
        let object = place.archive.object(file).unwrap();
        let whole = place.archive.store.read(&object).await.unwrap().unwrap();
        let mut flipped = whole.to_vec();
        *flipped.last_mut().unwrap() ^= 1;
        for damaged in [flipped.into(), whole.slice(..whole.len() - 1), whole.slice(..wal_object::HEAD), whole.slice(..10)] {
            place.archive.store.replace(&object, damaged).await.unwrap();
            let error = push(&place.archive, &path, file).await.unwrap_err();
            assert!(matches!(error, ArchiveError::Damaged { .. }), "{error}");
        }
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
