//! Expiry over a real directory, interrupted at every call to the store.

use std::cell::Cell;

use super::*;
use crate::{
    backup::{
        expire_plan::{self, Wish},
        manifest::{Moment, Pack},
        manifest_file,
        problem::{Findings, Problem},
        retention::Policy,
        verdict::{Depth, Recorded, Verdict, read_verdicts, record},
    },
    model::{Lsn, SystemId, Timeline},
    storage::{Claim, FileStore, Object},
};

const SYSTEM: SystemId = SystemId(7_300_000_000_000_000_001);

/// A store that goes away after so many calls, as the process may.
struct Mortal<'a> {
    store: &'a FileStore,
    left: Cell<u32>,
}

impl Mortal<'_> {
    fn spend(&self) -> Result<(), StoreError> {
        let left = self.left.get().checked_sub(1);
        let gone = || StoreError::Unavailable { object: "all".to_owned(), why: "it went away".to_owned() };
        left.map(|left| self.left.set(left)).ok_or_else(gone)
    }
}

impl ObjectStore for Mortal<'_> {
    async fn create(&self, name: &ObjectName, content: Bytes) -> Result<Claim, StoreError> {
        self.spend()?;
        self.store.create(name, content).await
    }

    async fn replace(&self, name: &ObjectName, content: Bytes) -> Result<(), StoreError> {
        self.spend()?;
        self.store.replace(name, content).await
    }

    async fn read(&self, name: &ObjectName) -> Result<Option<Bytes>, StoreError> {
        self.spend()?;
        self.store.read(name).await
    }

    async fn read_range(&self, name: &ObjectName, offset: u64, length: u64) -> Result<Option<Bytes>, StoreError> {
        self.spend()?;
        self.store.read_range(name, offset, length).await
    }

    async fn size(&self, name: &ObjectName) -> Result<Option<u64>, StoreError> {
        self.spend()?;
        self.store.size(name).await
    }

    async fn written(&self, name: &ObjectName) -> Result<Option<Timestamp>, StoreError> {
        self.spend()?;
        self.store.written(name).await
    }

    async fn list(&self, folder: &ObjectName) -> Result<Vec<Object>, StoreError> {
        self.spend()?;
        self.store.list(folder).await
    }

    async fn remove(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.spend()?;
        self.store.remove(name).await
    }
}

struct Place {
    directory: tempfile::TempDir,
    store: FileStore,
}

impl Place {
    fn new() -> Place {
        let directory = tempfile::tempdir().unwrap();
        Place { store: FileStore::init(directory.path()).unwrap(), directory }
    }

    fn archive(&self) -> Archive<FileStore> {
        Archive::new(self.store.clone(), "orders".parse().unwrap(), SYSTEM)
    }

    /// A verified backup with two packs, and the first pack of each of these.
    async fn backup(&self, number: u32, others: &[&BackupId], now: Timestamp) -> BackupId {
        let id = self.packs(number, now).await;
        self.seal(number, &id, others, now).await;
        id
    }

    /// The two packs of a backup that has no manifest.
    async fn packs(&self, number: u32, now: Timestamp) -> BackupId {
        let (archive, id) = (self.archive(), BackupId::new(now, number));
        for pack in [0, 1] {
            archive.store.create(&archive.pack(&id, pack).unwrap(), Bytes::from_static(b"pack")).await.unwrap();
        }
        id
    }

    /// Makes a verified backup of them.
    async fn seal(&self, number: u32, id: &BackupId, others: &[&BackupId], now: Timestamp) {
        let archive = self.archive();
        let own = [0, 1].map(|pack| Pack { backup: id.clone(), number: pack, size: 4 });
        let others = others.iter().map(|other| Pack { backup: (*other).clone(), number: 0, size: 4 });
        let at = |offset: u64| Moment { time: now, lsn: Lsn((u64::from(number) << 20) + offset), timeline: Timeline(1) };
        let packs = own.into_iter().chain(others).collect();
        let header = Header { segment_size: 1 << 20, start: at(0x28), stop: at(0x100), packs, ..Header::example(id.clone()) };
        archive.store.create(&archive.manifest(id).unwrap(), manifest_file::object(&header, []).unwrap()).await.unwrap();
        let kept = record(&archive, id, Verdict::new(Depth::Read, &Findings::default(), now, 1.0)).await.unwrap();
        assert_eq!(kept, Recorded::Kept);
        let segment = archive.object(format!("0000000100000000{number:08X}").parse().unwrap()).unwrap();
        archive.store.create(&segment, Bytes::from_static(b"wal")).await.unwrap();
    }

    /// What every backup that has a manifest counts on is there.
    async fn is_sound(&self) {
        let archive = self.archive();
        let catalog = Catalog::read(&archive).await.unwrap();
        assert_eq!(catalog.unreadable, []);
        for header in catalog.backups {
            for pack in &header.packs {
                let size = archive.store.size(&archive.pack(&pack.backup, pack.number).unwrap()).await.unwrap();
                assert_eq!(size, Some(4), "'{}' has lost pack {} of '{}'", header.id, pack.number, pack.backup);
            }
            let segment = format!("0000000100000000{:08X}", header.start.lsn.0 >> 20);
            assert!(archive.store.size(&archive.object(segment.parse().unwrap()).unwrap()).await.unwrap().is_some(), "'{segment}' is gone");
        }
    }

    async fn names(&self, folder: &str) -> Vec<String> {
        let listed = self.store.list(&format!("orders/{folder}").parse().unwrap()).await.unwrap();
        listed.into_iter().map(|object| object.name.as_str().to_owned()).collect()
    }
}

/// Keeps one, with an hour of grace.
async fn expire<S: ObjectStore>(archive: &Archive<S>, now: Timestamp) -> Result<Plan, ExpireError> {
    let seen = look(archive, now).await?;
    let wish = Wish { policy: Policy { keep: 1, window: None }, grace: SignedDuration::from_hours(1), force: true };
    let plan = expire_plan::plan(&seen, wish, now);
    carry_out(archive, &plan, now).await.map(|()| plan)
}

fn hours_from_now(hours: i64) -> Timestamp {
    Timestamp::now() + SignedDuration::from_hours(hours)
}

#[tokio::test]
async fn what_expires_goes_after_the_grace_and_what_another_has_taken_over_stays() {
    let place = Place::new();
    let first = place.backup(1, &[], hours_from_now(-9)).await;
    let second = place.backup(2, &[&first], hours_from_now(-8)).await;
    let third = place.backup(3, &[&second], hours_from_now(-7)).await;
    expire(&place.archive(), hours_from_now(0)).await.unwrap();
    assert_eq!(place.names("tomb").await.len(), 2);
    assert_eq!(Catalog::read(&place.archive()).await.unwrap().backups.len(), 3, "they can still be restored");
    expire(&place.archive(), hours_from_now(2)).await.unwrap();
    place.is_sound().await;
    let left = place.names("backup").await;
    assert!(left.iter().all(|name| name.contains(third.as_str()) || name.ends_with(&format!("{second}/pack/00000000"))), "{left:?}");
    assert_eq!(left.len(), 4);
    assert_eq!(place.names("wal").await.len(), 1);
    assert!(place.names("tomb").await.is_empty() && place.names("clock").await.is_empty());
    assert!(expire(&place.archive(), hours_from_now(2)).await.unwrap().is_empty(), "a second time there is nothing to do");
}

#[tokio::test]
async fn wherever_it_is_interrupted_no_backup_lacks_anything_and_the_next_run_ends_it() {
    for moment in 0..400 {
        let place = Place::new();
        let first = place.backup(1, &[], hours_from_now(-9)).await;
        let second = place.backup(2, &[&first], hours_from_now(-8)).await;
        place.backup(3, &[&second], hours_from_now(-7)).await;
        let mut whole = true;
        for hours in [0, 2] {
            let store = Mortal { store: &place.store, left: Cell::new(moment) };
            whole &= expire(&Archive::new(store, "orders".parse().unwrap(), SYSTEM), hours_from_now(hours)).await.is_ok();
            place.is_sound().await;
        }
        for hours in [3, 5, 7] {
            expire(&place.archive(), hours_from_now(hours)).await.unwrap();
            place.is_sound().await;
        }
        assert_eq!(place.names("backup").await.len(), 4, "interrupted after {moment} calls");
        assert_eq!(place.names("wal").await.len(), 1, "interrupted after {moment} calls");
        assert!(place.names("tomb").await.is_empty(), "interrupted after {moment} calls");
        if whole {
            assert!(moment > 20, "it was interrupted {moment} times");
            return;
        }
    }
    panic!("it never came to its end");
}

#[tokio::test]
async fn what_one_that_was_killed_has_left_of_its_look_at_the_clock_goes_with_a_later_one() {
    let place = Place::new();
    place.backup(1, &[], hours_from_now(-9)).await;
    let hour_old = |name: &str| (format!("orders/clock/{name}"), std::time::SystemTime::now() - std::time::Duration::from_secs(3700));
    let now = std::time::SystemTime::now();
    let (left, other) = (hour_old(&format!("{SYSTEM}-17")), hour_old("7300000000000000002-17"));
    let at_work = (format!("orders/clock/{SYSTEM}-18"), now);
    for (name, written) in [&left, &other, &at_work] {
        place.store.create(&name.parse().unwrap(), Bytes::from_static(b"{}")).await.unwrap();
        let file = std::fs::File::options().write(true).open(place.directory.path().join(name)).unwrap();
        file.set_modified(*written).unwrap();
    }
    expire(&place.archive(), hours_from_now(0)).await.unwrap();
    assert_eq!(
        place.names("clock").await,
        [at_work.0, other.0],
        "who is at work may need it, and another system's is none of its business"
    );
}

#[tokio::test]
async fn a_backup_that_was_pinned_meanwhile_stays() {
    let place = Place::new();
    let first = place.backup(1, &[], hours_from_now(-9)).await;
    place.backup(2, &[], hours_from_now(-8)).await;
    let archive = place.archive();
    expire(&archive, hours_from_now(0)).await.unwrap();
    let seen = look(&archive, hours_from_now(2)).await.unwrap();
    let wish = Wish { policy: Policy { keep: 1, window: None }, grace: SignedDuration::from_hours(1), force: true };
    let plan = expire_plan::plan(&seen, wish, hours_from_now(2));
    assert_eq!(plan.remove, std::slice::from_ref(&first));
    marks::pin(&archive, &first).await.unwrap();
    carry_out(&archive, &plan, hours_from_now(2)).await.unwrap();
    place.is_sound().await;
    assert!(Catalog::read(&archive).await.unwrap().find(&first).is_some());
    expire(&archive, hours_from_now(3)).await.unwrap();
    assert!(place.names("tomb").await.is_empty(), "and is not to go any more");
    marks::unpin(&archive, &first).await.unwrap();
    assert_eq!(expire(&archive, hours_from_now(4)).await.unwrap().condemn, [first]);
}

#[tokio::test]
async fn what_is_missing_of_a_backup_that_was_removed_meanwhile_is_no_damage() {
    let place = Place::new();
    let archive = place.archive();
    let first = place.backup(1, &[], hours_from_now(-9)).await;
    let second = place.backup(2, &[], hours_from_now(-8)).await;
    expire(&archive, hours_from_now(0)).await.unwrap();
    assert_eq!(expire(&archive, hours_from_now(2)).await.unwrap().remove, std::slice::from_ref(&first));
    let whole = Findings::default();
    let damage = |id| Findings::from(Problem::new(&archive.pack(id, 0).unwrap(), "it is missing"));
    for findings in [&damage(&first), &whole] {
        let verdict = Verdict::new(Depth::Read, findings, hours_from_now(2), 1.0);
        assert_eq!(record(&archive, &first, verdict).await.unwrap(), Recorded::Gone);
        assert_eq!(place.names("verified").await, [archive.verified(&second).unwrap().to_string()], "and leaves none behind");
    }
    let verdict = Verdict::new(Depth::Read, &damage(&second), hours_from_now(2), 1.0);
    assert_eq!(record(&archive, &second, verdict).await.unwrap(), Recorded::Kept, "this one is there, and damaged");
    assert!(read_verdicts(&archive, &second).await.unwrap().broken());
}

#[tokio::test]
async fn a_backup_that_ends_while_it_is_condemned_has_no_tomb() {
    let place = Place::new();
    let (archive, wish) = (place.archive(), Wish { policy: Policy::default(), grace: SignedDuration::from_hours(1), force: false });
    place.backup(1, &[], hours_from_now(-9)).await;
    let second = place.packs(2, hours_from_now(-2)).await;
    let seen = look(&archive, hours_from_now(0)).await.unwrap();
    let plan = expire_plan::plan(&seen, wish, hours_from_now(0));
    assert_eq!(plan.condemn, std::slice::from_ref(&second), "nobody is known to be at work on it");
    place.seal(2, &second, &[], hours_from_now(-2)).await;
    carry_out(&archive, &plan, hours_from_now(0)).await.unwrap();
    assert_eq!(place.names("tomb").await, [""; 0]);
    assert!(Catalog::read(&archive).await.unwrap().find(&second).is_some());
}

#[tokio::test]
async fn a_tomb_on_a_backup_that_is_promised_is_taken_away() {
    let place = Place::new();
    let archive = place.archive();
    let newest = place.backup(1, &[], hours_from_now(-9)).await;
    marks::condemn(&archive, &newest, &Tomb { since: hours_from_now(-8), why: "somebody was wrong".to_owned() }).await.unwrap();
    expire(&archive, hours_from_now(0)).await.unwrap();
    assert_eq!(place.names("tomb").await, [""; 0]);
    place.is_sound().await;
    assert!(Catalog::read(&archive).await.unwrap().find(&newest).is_some());
}

#[tokio::test]
async fn another_system_of_the_same_name_is_none_of_its_business() {
    let place = Place::new();
    let first = place.backup(1, &[], hours_from_now(-9)).await;
    place.backup(2, &[], hours_from_now(-8)).await;
    expire(&place.archive(), hours_from_now(0)).await.unwrap();
    let other = Archive::new(place.store.clone(), "orders".parse().unwrap(), SystemId(7_300_000_000_000_000_002));
    assert!(expire(&other, hours_from_now(0)).await.unwrap().is_empty());
    assert!(marks::is_condemned(&place.archive(), &first).await.unwrap(), "whose tomb it would have taken for one with nothing left");
}

#[tokio::test]
async fn a_tomb_that_says_nothing_is_named_and_nothing_goes() {
    let place = Place::new();
    let archive = place.archive();
    let first = place.backup(1, &[], hours_from_now(-9)).await;
    place.backup(2, &[], hours_from_now(-8)).await;
    expire(&archive, hours_from_now(0)).await.unwrap();
    let tomb = place.names("tomb").await.remove(0);
    archive.store.replace(&tomb.parse().unwrap(), Bytes::from_static(b"{")).await.unwrap();
    let marks = Marks::read(&archive).await.unwrap();
    assert_eq!((marks.tombs.len(), marks.unreadable.len(), marks.unreadable[0].object.as_str()), (0, 1, tomb.as_str()));
    let refused = expire(&archive, hours_from_now(2)).await.unwrap_err().to_string();
    assert!(refused.contains(first.as_str()), "{refused}");
    place.is_sound().await;
}
