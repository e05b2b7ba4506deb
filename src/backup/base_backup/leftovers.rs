//! The packs of backups that were interrupted: whole objects, of which the next backup uses every chunk that it would have stored again.

use jiff::{SignedDuration, Timestamp};

use super::{
    error::BackupError,
    known_chunks::{OtherPacks, StoredChunks},
    lease::{self, StoredLease},
};
use crate::{
    backup::{
        Archive, ArchiveError, BackupId,
        manifest::Pack,
        marks,
        pack::{FOOTER, Footer, Indexed},
    },
    storage::{Object, ObjectStore},
};

/// What was found of interrupted backups.
#[derive(Debug, Default)]
pub struct Leftovers {
    /// Their chunks.
    pub chunks: StoredChunks,
    /// Backups that the chunks are from.
    pub backups: Vec<BackupId>,
    /// What cannot be used, and why.
    pub complaints: Vec<String>,
}

/// Finds the chunks of backups that nobody works on any more and that have no manifest. Their packs are added to `others`.
///
/// # Errors
/// When the store does not say.
pub async fn find<S: ObjectStore>(
    archive: &Archive<S>,
    own: &BackupId,
    room: u64,
    others: &mut OtherPacks,
) -> Result<Leftovers, BackupError> {
    let mut found = Leftovers { chunks: StoredChunks::with_room(room), ..Leftovers::default() };
    let (leases, unreadable) = lease::all(archive).await?;
    found.complaints.extend(unreadable.iter().map(|object| format!("'{object}' cannot be read")));
    // Our own lease was written a moment ago: that is what the store's clock says now.
    let now = archive.store.written(&archive.lease(own)?).await?.unwrap_or_else(Timestamp::now);
    let dead = |found: &StoredLease| found.lease.backup != *own && !found.is_held(now, SignedDuration::ZERO);
    // The newest has most of what is still true.
    let mut dead: Vec<BackupId> = leases.into_iter().filter(dead).map(|found| found.lease.backup).collect();
    dead.sort_unstable_by(|a, b| b.cmp(a));
    for backup in dead {
        // It was complete, and only its lease was not removed any more; or it is to go, and its packs with it.
        if archive.store.size(&archive.manifest(&backup)?).await?.is_some() || marks::is_condemned(archive, &backup).await? {
            continue;
        }
        let before = found.chunks.len();
        let packs = archive.store.list(&archive.packs(&backup)?).await?;
        if packs.is_empty() {
            // Killed before it had stored anything, or all that it had is gone: nobody else would remove it.
            archive.store.remove(&archive.lease(&backup)?).await?;
        }
        for pack in packs {
            if !add_pack(archive, &backup, &pack, others, &mut found).await? {
                break;
            }
        }
        if found.chunks.len() > before {
            found.backups.push(backup);
        }
    }
    found.chunks.settle();
    Ok(found)
}

/// False when there is no more room.
async fn add_pack<S: ObjectStore>(
    archive: &Archive<S>,
    backup: &BackupId,
    object: &Object,
    others: &mut OtherPacks,
    found: &mut Leftovers,
) -> Result<bool, BackupError> {
    let Some(number) = object.name.last().parse().ok().filter(|number| archive.pack(backup, *number).as_ref() == Ok(&object.name)) else {
        return Ok(true);
    };
    match read_index(archive, object).await {
        Ok(Some(chunks)) => {
            let pack = Pack { backup: backup.clone(), number, size: object.size };
            Ok(others.add(pack).is_some_and(|number| found.chunks.add(number, &chunks)))
        }
        Ok(None) => Ok(true),
        Err(damage @ ArchiveError::Damaged { .. }) => {
            found.complaints.push(damage.to_string());
            Ok(true)
        }
        Err(error) => Err(error.into()),
    }
}

/// The chunks of a pack, by its index. `None`: it is gone.
async fn read_index<S: ObjectStore>(archive: &Archive<S>, object: &Object) -> Result<Option<Vec<Indexed>>, ArchiveError> {
    let damaged = |why| ArchiveError::Damaged { object: object.name.clone(), why };
    let last = object.size.saturating_sub(FOOTER as u64);
    let Some(end) = archive.store.read_range(&object.name, last, FOOTER as u64).await? else { return Ok(None) };
    let footer = Footer::read(&end, object.size).map_err(damaged)?;
    let (begin, end) = footer.index();
    let Some(index) = archive.store.read_range(&object.name, begin, end - begin).await? else { return Ok(None) };
    footer.chunks(&index).map(Some).map_err(damaged)
}

#[cfg(test)]
mod tests {
    use std::{fs, time::SystemTime};

    use super::*;
    use crate::{
        backup::{
            base_backup::Lease,
            chunk::{self, ChunkPacker},
            manifest_file,
            marks::Tomb,
            pack::PackBuilder,
        },
        model::SystemId,
        storage::FileStore,
    };

    const SYSTEM: SystemId = SystemId(7_300_000_000_000_000_001);

    fn id(chance: u32) -> BackupId {
        BackupId::new(Timestamp::from_second(1_795_293_900).unwrap(), chance)
    }

    fn content(number: u32) -> Vec<u8> {
        number.to_le_bytes().repeat(1000)
    }

    /// A backup that was interrupted, with a pack that has a chunk of this number.
    async fn interrupted(archive: &Archive<FileStore>, number: u32) -> Lease {
        let mut pack = PackBuilder::default();
        let content = content(number);
        let stored = ChunkPacker::new(1).unwrap().pack(&content).unwrap();
        pack.add(&chunk::digest(&content), &stored, 4000);
        archive.store.create(&archive.pack(&id(number), 0).unwrap(), pack.content()).await.unwrap();
        let lease = Lease { given_up: true, ..Lease::new(id(number), "orders-1", Timestamp::now()) };
        lease.write(archive).await.unwrap();
        lease
    }

    async fn found(archive: &Archive<FileStore>) -> (Vec<u32>, Leftovers) {
        let mut others = OtherPacks::default();
        let found = find(archive, &id(99), 1 << 20, &mut others).await.unwrap();
        let has = |number: &u32| found.chunks.find(&chunk::digest(&content(*number)));
        let numbers = (0..10).filter(|number| has(number).is_some()).collect();
        for number in &numbers {
            assert_eq!(others.get(has(number).unwrap().pack).unwrap().backup, id(*number));
        }
        (numbers, found)
    }

    #[tokio::test]
    async fn only_what_nobody_works_on_and_nobody_removes_is_used() {
        let directory = tempfile::tempdir().unwrap();
        let archive = Archive::new(FileStore::init(directory.path()).unwrap(), "orders".parse().unwrap(), SYSTEM);
        for number in 0..6 {
            interrupted(&archive, number).await;
        }
        assert_eq!(found(&archive).await.0, [0, 1, 2, 3, 4, 5]);
        // This process works on it.
        Lease::new(id(1), "orders-1", Timestamp::now()).write(&archive).await.unwrap();
        // A process of another machine does, or did, which has the same name as this one.
        let elsewhere = Lease { space: "another boot".to_owned(), pid: i32::MAX, ..Lease::new(id(2), "orders-2", Timestamp::now()) };
        elsewhere.write(&archive).await.unwrap();
        let silent = Lease { backup: id(3), ..elsewhere };
        silent.write(&archive).await.unwrap();
        let object = fs::File::options().write(true).open(directory.path().join(archive.lease(&id(3)).unwrap().as_str())).unwrap();
        object.set_modified(SystemTime::now() - lease::STALE_AFTER.unsigned_abs() * 2).unwrap();
        marks::condemn(&archive, &id(4), &Tomb { since: Timestamp::now(), why: String::new() }).await.unwrap();
        let header = crate::backup::catalog::tests::header(0, 5);
        archive.store.create(&archive.manifest(&id(5)).unwrap(), manifest_file::object(&header, []).unwrap()).await.unwrap();
        let (numbers, leftovers) = found(&archive).await;
        assert_eq!(numbers, [0, 3]);
        assert_eq!(leftovers.backups, [id(3), id(0)], "the newest first");
    }

    #[tokio::test]
    async fn who_has_stored_nothing_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let archive = Archive::new(FileStore::init(directory.path()).unwrap(), "orders".parse().unwrap(), SYSTEM);
        let left = async || {
            let objects = archive.store.list(&archive.leases().unwrap()).await.unwrap();
            objects.iter().map(|object| object.name.last().parse().unwrap()).collect::<Vec<BackupId>>()
        };
        for number in [1, 2] {
            let lease = Lease { given_up: false, ..interrupted(&archive, number).await };
            lease.write(&archive).await.unwrap();
            if number == 2 {
                archive.store.remove(&archive.pack(&id(2), 0).unwrap()).await.unwrap();
            }
            lease.give_up(&archive).await.unwrap();
        }
        assert_eq!(left().await, [id(1)], "there is nothing to say of the second");
        // Killed before it could say anything, on this machine.
        Lease { pid: i32::MAX, ..Lease::new(id(3), "orders-1", Timestamp::now()) }.write(&archive).await.unwrap();
        Lease::new(id(4), "orders-1", Timestamp::now()).write(&archive).await.unwrap();
        assert_eq!(found(&archive).await.0, [1]);
        assert_eq!(left().await, [id(1), id(4)], "who is at work may not have stored anything yet");
    }

    #[tokio::test]
    async fn what_is_damaged_is_named_and_the_rest_is_used() {
        let directory = tempfile::tempdir().unwrap();
        let archive = Archive::new(FileStore::init(directory.path()).unwrap(), "orders".parse().unwrap(), SYSTEM);
        for number in 0..4 {
            interrupted(&archive, number).await;
        }
        let path = |number| directory.path().join(archive.pack(&id(number), 0).unwrap().as_str());
        let mut pack = fs::read(path(1)).unwrap();
        let end = pack.len();
        pack[end - 40] ^= 1;
        fs::write(path(1), &pack).unwrap();
        fs::write(path(2), &pack[..20]).unwrap();
        fs::write(directory.path().join(archive.lease(&id(3)).unwrap().as_str()), "{").unwrap();
        let (numbers, leftovers) = found(&archive).await;
        assert_eq!(numbers, [0]);
        let complaints = leftovers.complaints.join("\n");
        for damaged in ["00000001/pack/00000000", "00000002/pack/00000000", "lease/7300000000000000001/20261121T204500Z-00000003"] {
            assert!(complaints.contains(damaged), "{complaints}");
        }
    }
}
