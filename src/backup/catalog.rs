//! Which base backups there are. A backup exists when its manifest does; the catalogue reads no more of that than its header.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::{
    BackupId,
    archive::{Archive, ArchiveError},
    encryption::SealedStore,
    manifest::Header,
    manifest_file,
};
use crate::{
    model::{ObjectName, SystemId},
    storage::ObjectStore,
};

/// How much of a manifest is read at first: the whole header of most.
const BEGINNING: u64 = 64 << 10;

/// How many manifests are read at the same time.
const LANES: usize = 8;

/// The base backups of one database cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Catalog {
    /// Their headers, in the order in which the backups were complete. Names and positions say nothing of that: a cluster that went back in
    /// time begins again with lower positions.
    pub backups: Vec<Header>,
    /// Manifests that cannot be read: each may be a backup that somebody counts on.
    pub unreadable: Vec<Unreadable>,
}

/// An object that is there and cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// The object.
    pub object: ObjectName,
    /// What is wrong with it.
    pub why: String,
}

impl Catalog {
    /// Reads it.
    ///
    /// # Errors
    /// When the store does not say.
    pub async fn read<S: ObjectStore>(archive: &Archive<S>) -> Result<Catalog, ArchiveError> {
        let folder = archive.backups()?;
        let objects = archive.store().list(&folder).await?;
        let ids = objects.iter().filter_map(|object| backup_of_manifest(&folder, &object.name));
        let read = stream::iter(ids).map(|id| read_one(archive, id)).buffer_unordered(LANES);
        let mut catalog = Catalog::default();
        for found in read.try_collect::<Vec<_>>().await? {
            match found {
                Ok(header) => catalog.backups.push(header),
                Err(unreadable) => catalog.unreadable.push(unreadable),
            }
        }
        catalog.backups.sort_by(|a, b| (a.stop.time, &a.id).cmp(&(b.stop.time, &b.id)));
        catalog.unreadable.sort_by(|a, b| a.object.cmp(&b.object));
        Ok(catalog)
    }

    /// The backup of this name.
    pub fn find(&self, id: &BackupId) -> Option<&Header> {
        self.backups.iter().find(|header| header.id == *id)
    }
}

/// Whose backups lie in this part of a store: a cluster that was created again under an old name has another system identifier.
///
/// # Errors
/// When the store does not say.
pub async fn systems<S: ObjectStore>(store: &SealedStore<S>) -> Result<Vec<SystemId>, ArchiveError> {
    let folder = store.root().join("backup")?;
    let mut found: Vec<SystemId> = Vec::new();
    for object in store.list(&folder).await? {
        let system = parts_below(&folder, &object.name).and_then(|mut parts| parts.next()?.parse().ok());
        if let Some(system) = system
            && object.name.last() == "manifest"
            && !found.contains(&system)
        {
            found.push(system);
        }
    }
    Ok(found)
}

/// The header of the manifest, or what is wrong with it.
async fn read_one<S: ObjectStore>(archive: &Archive<S>, id: BackupId) -> Result<Result<Header, Unreadable>, ArchiveError> {
    let object = archive.manifest(&id)?;
    let unreadable = |why: &str| Ok(Err(Unreadable { object: object.clone(), why: why.to_owned() }));
    let mut beginning = match archive.store().read_range(&object, 0, BEGINNING).await {
        Ok(Some(beginning)) => beginning,
        Ok(None) => return unreadable("it was listed and is gone"),
        Err(ArchiveError::Damaged { why, .. }) => return unreadable(&why),
        Err(error) => return Err(error),
    };
    let end = match manifest_file::header_end(&beginning) {
        Ok(end) => end,
        Err(why) => return unreadable(&why),
    };
    if end > beginning.len() {
        beginning = match archive.store().read_range(&object, 0, end as u64).await {
            Ok(Some(whole)) => whole,
            Ok(None) => return unreadable("it was listed and is gone"),
            Err(ArchiveError::Damaged { why, .. }) => return unreadable(&why),
            Err(error) => return Err(error),
        };
    }
    match manifest_file::read_header(&beginning).and_then(|header| fits(&header, &id, archive.system()).map(|()| header)) {
        Ok(header) => Ok(Ok(header)),
        Err(why) => unreadable(&why),
    }
}

/// A header lies where it belongs, and what others reckon with makes sense.
fn fits(header: &Header, id: &BackupId, system: SystemId) -> Result<(), String> {
    if header.id != *id || header.system != system {
        return Err(format!("it is the manifest of '{}' of system {}", header.id, header.system));
    }
    if !header.segment_size.is_power_of_two() || !(1 << 20..=1 << 30).contains(&header.segment_size) {
        return Err(format!("it names an impossible segment size of {} bytes", header.segment_size));
    }
    if header.stop.lsn < header.start.lsn || header.stop.timeline < header.start.timeline {
        return Err("it ends before it begins".to_owned());
    }
    Ok(())
}

fn backup_of_manifest(folder: &ObjectName, object: &ObjectName) -> Option<BackupId> {
    let mut parts = parts_below(folder, object)?;
    let id = parts.next()?.parse().ok()?;
    (parts.next() == Some("manifest") && parts.next().is_none()).then_some(id)
}

fn parts_below<'a>(folder: &ObjectName, object: &'a ObjectName) -> Option<std::str::Split<'a, char>> {
    Some(object.as_str().strip_prefix(folder.as_str())?.strip_prefix('/')?.split('/'))
}

#[cfg(test)]
pub(super) mod tests {
    use bytes::Bytes;
    use jiff::Timestamp;

    use super::*;
    use crate::{
        backup::manifest::{Moment, Pack},
        model::{Lsn, Timeline},
        storage::FileStore,
    };

    const SYSTEM: SystemId = SystemId(7_300_000_000_000_000_001);

    struct Place {
        _directory: tempfile::TempDir,
        archive: Archive<FileStore>,
    }

    impl Place {
        fn new() -> Place {
            let directory = tempfile::tempdir().unwrap();
            let store = FileStore::init(directory.path()).unwrap();
            Place { archive: Archive::new(store, "orders".parse().unwrap(), SYSTEM), _directory: directory }
        }

        async fn put(&self, name: &str, content: Bytes) {
            self.archive.store().create(&name.parse().unwrap(), content).await.unwrap();
        }

        async fn put_backup(&self, header: &Header) {
            let object = manifest_file::object(header, []).unwrap();
            self.archive.store().create(&self.archive.manifest(&header.id).unwrap(), object).await.unwrap();
        }
    }

    /// The header of a backup that was begun so many seconds after some moment.
    pub fn header(second: i64, chance: u32) -> Header {
        let moment = |second, lsn| Moment { time: Timestamp::from_second(second).unwrap(), lsn: Lsn(lsn), timeline: Timeline(1) };
        let id = BackupId::new(Timestamp::from_second(1_795_293_900).unwrap(), chance);
        Header {
            start: moment(1_795_293_900 + second, 0x200_0028),
            stop: moment(1_795_293_960 + second, 0x300_0100),
            ..Header::example(id)
        }
    }

    #[tokio::test]
    async fn backups_stand_in_the_order_in_which_they_were_complete() {
        let place = Place::new();
        assert_eq!(Catalog::read(&place.archive).await.unwrap(), Catalog::default());
        let (early, late) = (header(0, 9), header(60, 1));
        place.put_backup(&late).await;
        place.put_backup(&early).await;
        place.put(&format!("orders/backup/{SYSTEM}/20261121T204500Z-0000000c/pack/00000000"), Bytes::from_static(b"x")).await;
        let catalog = Catalog::read(&place.archive).await.unwrap();
        assert_eq!(catalog.backups, [early, late.clone()], "a backup without a manifest is none");
        assert_eq!(catalog.find(&late.id), Some(&late));
        assert_eq!(systems(place.archive.store()).await.unwrap(), [SYSTEM]);
    }

    #[tokio::test]
    async fn a_header_longer_than_the_first_look_is_read() {
        let place = Place::new();
        let mut long = header(0, 1);
        long.packs = (0..5000).map(|number| Pack { backup: long.id.clone(), number, size: 32 << 20 }).collect();
        place.put_backup(&long).await;
        assert_eq!(Catalog::read(&place.archive).await.unwrap().backups, [long]);
    }

    #[tokio::test]
    async fn a_manifest_that_cannot_be_read_is_named() {
        let place = Place::new();
        place.put_backup(&header(0, 1)).await;
        let (mut elsewhere, mut impossible) = (header(0, 2), header(0, 3));
        elsewhere.system = SystemId(7_300_000_000_000_000_002);
        impossible.segment_size = 0;
        for header in [&elsewhere, &impossible] {
            place.put_backup(header).await;
        }
        let folder = format!("orders/backup/{SYSTEM}");
        place.put(&format!("{folder}/20261121T204500Z-00000004/manifest"), Bytes::new()).await;
        place
            .put(
                &format!("{folder}/20261121T204500Z-00000005/manifest"),
                Bytes::from_static(b"spiloM9\n000000000000000000000000000000000000"),
            )
            .await;
        let catalog = Catalog::read(&place.archive).await.unwrap();
        assert_eq!(catalog.backups.len(), 1);
        let told: Vec<_> = catalog.unreadable.iter().map(|found| found.why.as_str()).collect();
        assert_eq!(told.len(), 4);
        assert!(told[0].contains("7300000000000000002") && told[1].contains("segment size") && told[2].contains("0 bytes"), "{told:?}");
        assert!(told[3].contains("newer version"), "{told:?}");
    }
}
