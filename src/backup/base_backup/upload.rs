//! Bringing packs into the store, several at once.

use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::sync::mpsc::UnboundedReceiver;

use super::{error::BackupError, packer::ReadyPack};
use crate::{
    backup::{Archive, ArchiveError, manifest::Pack},
    storage::{Claim, ObjectName, ObjectStore},
};

/// How many at once. A lane of a store far away is slower than a disk.
const LANES: usize = 8;

/// So long a store may be gone before a backup is given up: what was done already is used again by the next one.
const PATIENCE: Duration = Duration::from_secs(600);

/// The first pause before an object is tried again; each next one is twice as long, up to a limit.
const PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(20);

/// Stores packs until there are no more.
///
/// # Errors
/// When the store refuses one, or does not answer for too long.
pub async fn upload<S: ObjectStore>(archive: &Archive<S>, mut packs: UnboundedReceiver<ReadyPack>) -> Result<(), BackupError> {
    let mut lanes = FuturesUnordered::new();
    let mut more = true;
    while more || !lanes.is_empty() {
        tokio::select! {
            pack = packs.recv(), if more && lanes.len() < LANES => match pack {
                Some(pack) => lanes.push(store_pack(archive, pack)),
                None => more = false,
            },
            Some(done) = lanes.next() => done?,
        }
    }
    Ok(())
}

async fn store_pack<S: ObjectStore>(archive: &Archive<S>, pack: ReadyPack) -> Result<(), BackupError> {
    let ReadyPack { object: sealed, held } = pack;
    let (object, size) = (sealed.name().clone(), sealed.size());
    // Its name has this backup's chance in it: what is there already is an attempt of ours whose answer got lost.
    let claim = patiently(async || archive.store.create_sealed(&sealed).await).await?;
    if claim == Claim::Taken && patiently(async || archive.store.size(&object).await).await? != Some(size) {
        let why = "another object is in its place, although nobody else knows its name".to_owned();
        return Err(ArchiveError::Damaged { object, why }.into());
    }
    drop((sealed, held));
    Ok(())
}

/// Asks again as long as the store does not answer.
///
/// # Errors
/// When it refuses, or does not answer for too long.
pub async fn patiently<T, E: Into<BackupError>>(mut ask: impl AsyncFnMut() -> Result<T, E>) -> Result<T, BackupError> {
    let (begun, mut pause) = (Instant::now(), PAUSE);
    loop {
        match ask().await.map_err(Into::into) {
            Err(BackupError::Archive(error)) if error.is_unavailable() && begun.elapsed() < PATIENCE => {
                tracing::warn!(%error, "asking again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            answer => return answer,
        }
    }
}

/// The first of the packs that is not in the store, with its size.
///
/// # Errors
/// When the store does not say.
pub async fn missing_pack<S: ObjectStore>(archive: &Archive<S>, packs: &[Pack]) -> Result<Option<ObjectName>, BackupError> {
    let mut wanted: Vec<&Pack> = packs.iter().collect();
    wanted.sort_unstable();
    for of_one in wanted.chunk_by(|a, b| a.backup == b.backup) {
        let Some(backup) = of_one.first().map(|pack| &pack.backup) else { continue };
        let folder = archive.packs(backup)?;
        // In the order of names, which is that of numbers.
        let there = patiently(async || archive.store.list(&folder).await).await?;
        for pack in of_one {
            let name = archive.pack(backup, pack.number)?;
            let found = there.binary_search_by(|object| object.name.cmp(&name)).ok().and_then(|at| there.get(at));
            if found.is_none_or(|object| object.size != pack.size) {
                return Ok(Some(name));
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use bytes::Bytes;
    use jiff::Timestamp;
    use tokio::sync::mpsc;

    use super::*;
    use crate::{
        backup::{BackupId, encryption::Sealer},
        model::SystemId,
        storage::{FileStore, Object, StoreError},
    };

    /// What the store does with the next object that is created.
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Fault {
        Away,
        AnswerLost,
        Refuses,
    }

    /// A store with a fault.
    struct Faulty {
        store: FileStore,
        next: Cell<Option<Fault>>,
    }

    impl ObjectStore for Faulty {
        async fn create(&self, name: &ObjectName, content: Bytes) -> Result<Claim, StoreError> {
            let (object, why) = (name.to_string(), "a test wants it so".to_owned());
            match self.next.take() {
                None => self.store.create(name, content).await,
                Some(Fault::Away) => Err(StoreError::Unavailable { object, why }),
                Some(Fault::Refuses) => Err(StoreError::Refused { object, why }),
                Some(Fault::AnswerLost) => {
                    self.store.create(name, content).await?;
                    Err(StoreError::Unavailable { object, why })
                }
            }
        }

        async fn replace(&self, name: &ObjectName, content: Bytes) -> Result<(), StoreError> {
            self.store.replace(name, content).await
        }

        async fn read(&self, name: &ObjectName) -> Result<Option<Bytes>, StoreError> {
            self.store.read(name).await
        }

        async fn read_range(&self, name: &ObjectName, offset: u64, length: u64) -> Result<Option<Bytes>, StoreError> {
            self.store.read_range(name, offset, length).await
        }

        async fn size(&self, name: &ObjectName) -> Result<Option<u64>, StoreError> {
            self.store.size(name).await
        }

        async fn written(&self, name: &ObjectName) -> Result<Option<Timestamp>, StoreError> {
            self.store.written(name).await
        }

        async fn list(&self, folder: &ObjectName) -> Result<Vec<Object>, StoreError> {
            self.store.list(folder).await
        }

        async fn remove(&self, name: &ObjectName) -> Result<(), StoreError> {
            self.store.remove(name).await
        }
    }

    struct Place {
        archive: Archive<Faulty>,
        id: BackupId,
        _directory: tempfile::TempDir,
    }

    fn place() -> Place {
        let directory = tempfile::tempdir().unwrap();
        let store = Faulty { store: FileStore::init(directory.path()).unwrap(), next: Cell::new(None) };
        let archive = Archive::new(store, "orders".parse().unwrap(), SystemId(7_300_000_000_000_000_001));
        Place { archive, id: BackupId::new(Timestamp::UNIX_EPOCH, 7), _directory: directory }
    }

    /// Uploads twenty packs, the first of them with this fault.
    async fn uploaded(place: &Place, fault: Option<Fault>) -> Result<(), BackupError> {
        place.archive.store.bare().next.set(fault);
        let (packs, ready) = mpsc::unbounded_channel();
        for number in 0..20 {
            let (name, content) = (place.archive.pack(&place.id, number).unwrap(), Bytes::from(vec![7; 1000 + number as usize]));
            packs.send(ReadyPack { object: Sealer::default().seal(&name, content).unwrap(), held: None }).unwrap();
        }
        drop(packs);
        upload(&place.archive, ready).await
    }

    fn pack(place: &Place, number: u32) -> Pack {
        Pack { backup: place.id.clone(), number, size: 1000 + u64::from(number) }
    }

    #[tokio::test]
    async fn a_store_that_comes_back_has_every_pack_once() {
        for fault in [None, Some(Fault::Away), Some(Fault::AnswerLost)] {
            let place = place();
            uploaded(&place, fault).await.unwrap();
            let packs: Vec<Pack> = (0..20).map(|number| pack(&place, number)).collect();
            assert_eq!(missing_pack(&place.archive, &packs).await.unwrap(), None);
            assert_eq!(place.archive.store.list(&place.archive.packs(&place.id).unwrap()).await.unwrap().len(), 20);
        }
    }

    #[tokio::test]
    async fn a_refusal_and_another_object_in_a_packs_place_end_the_backup() {
        let told = |result: Result<(), BackupError>| result.unwrap_err().to_string();
        assert!(told(uploaded(&place(), Some(Fault::Refuses)).await).contains("the store refused"));
        let place = place();
        let object = place.archive.pack(&place.id, 3).unwrap();
        place.archive.store.create(&object, Bytes::from_static(b"something else")).await.unwrap();
        assert!(told(uploaded(&place, None).await).contains(object.as_str()));
    }

    #[tokio::test]
    async fn a_pack_that_is_gone_or_cut_off_is_missed() {
        let place = place();
        uploaded(&place, None).await.unwrap();
        let wanted = [pack(&place, 19), pack(&place, 4)];
        assert_eq!(missing_pack(&place.archive, &wanted).await.unwrap(), None);
        let cut_off = Pack { size: 999, ..pack(&place, 4) };
        assert_eq!(
            missing_pack(&place.archive, &[pack(&place, 19), cut_off]).await.unwrap(),
            Some(place.archive.pack(&place.id, 4).unwrap())
        );
        place.archive.store.remove(&place.archive.pack(&place.id, 19).unwrap()).await.unwrap();
        assert_eq!(missing_pack(&place.archive, &wanted).await.unwrap(), Some(place.archive.pack(&place.id, 19).unwrap()));
    }
}
