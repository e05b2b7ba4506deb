use std::{fs, rc::Rc};

use bytes::Bytes;
use futures_util::future::{join, join_all};
use tokio::sync::Semaphore;

use super::{super::test_place::Place, *};
use crate::{
    model::ObjectName,
    storage::{FileStore, Object, StoreError},
};

const OBJECT: &str = "orders/wal/1";

impl Place {
    fn id(&self, name: &str) -> String {
        self.master(name).id()
    }

    fn over<S>(&self, store: S, key: &str) -> SealedStore<S> {
        SealedStore::over(store, name("orders"), Some(self.master(key)))
    }

    /// An archive that was begun with the key `old`.
    async fn begun(&self) -> SealedStore<FileStore> {
        let store = self.opened(Some("old"));
        store.create(&name(OBJECT), content()).await.unwrap();
        store
    }

    async fn opens(&self, key: &str) -> Result<(), ArchiveError> {
        let read = self.opened(Some(key)).read(&name(OBJECT)).await?;
        assert_eq!(read.as_ref(), Some(&content()), "{key}");
        Ok(())
    }

    async fn expect_other(&self, key: &str) {
        let error = self.opens(key).await.unwrap_err();
        assert!(matches!(error, ArchiveError::Key(KeyError::Other { .. })), "{key}: {error}");
    }

    fn record(&self, number: u32) -> String {
        fs::read_to_string(self.file(&format!("orders/key/{number:08}"))).unwrap()
    }

    async fn masters(&self) -> Vec<String> {
        let there = Wrappings::read(&self.store, &name("orders")).await.unwrap();
        there.expect_one_key().unwrap();
        there.in_use().map(|(_, wrapped)| wrapped.master.clone()).collect()
    }
}

fn name(text: &str) -> ObjectName {
    text.parse().unwrap()
}

fn content() -> Bytes {
    Bytes::from_static(b"the salary of Ann")
}

#[tokio::test]
async fn a_second_key_opens_the_archive_and_the_first_one_can_go() {
    let place = Place::new();
    let running = place.begun().await;
    place.expect_other("new").await;
    let new = place.master("new");
    assert_eq!(place.opened(Some("old")).add_master(&new).await.unwrap(), Changed::Now);
    for key in ["old", "new"] {
        assert_eq!(place.opened(Some(key)).add_master(&new).await.unwrap(), Changed::Already, "a second time changes nothing");
        place.opens(key).await.unwrap();
    }
    assert_eq!(place.masters().await, [place.id("old"), place.id("new")]);
    assert_eq!(place.opened(Some("new")).remove_master(&place.id("old")).await.unwrap(), Changed::Now);
    assert_eq!(place.opened(Some("new")).remove_master(&place.id("old")).await.unwrap(), Changed::Already);
    place.opens("new").await.unwrap();
    place.expect_other("old").await;
    assert_eq!(place.masters().await, [place.id("new")]);
    assert!(!place.record(1).contains("\"wrapped\""), "what the old key opens is not there any more: {}", place.record(1));
    // Who holds the archive's key goes on, and reads what others write.
    running.create(&name("orders/wal/2"), content()).await.unwrap();
    place.opened(Some("new")).create(&name("orders/wal/3"), content()).await.unwrap();
    for object in ["orders/wal/2", "orders/wal/3"] {
        assert_eq!(running.read(&name(object)).await.unwrap().unwrap(), content());
        assert_eq!(place.opened(Some("new")).read(&name(object)).await.unwrap().unwrap(), content());
    }
    // The same key may come back.
    assert_eq!(place.opened(Some("new")).add_master(&place.master("old")).await.unwrap(), Changed::Now);
    place.opens("old").await.unwrap();
    assert_eq!(place.opened(Some("old")).remove_master(&place.id("new")).await.unwrap(), Changed::Now);
    assert_eq!(place.masters().await, [place.id("old")]);
}

#[tokio::test]
async fn the_key_that_is_used_and_the_last_one_stay() {
    let place = Place::new();
    let store = place.begun().await;
    let error = store.remove_master(&place.id("old")).await.unwrap_err();
    assert!(matches!(error, ArchiveError::Key(KeyError::InUse { .. })) && error.to_string().contains("old"), "{error}");
    let error = store.remove_master(&place.id("new")).await.unwrap_err();
    assert!(matches!(error, ArchiveError::Key(KeyError::Unknown { .. })) && error.to_string().contains(&place.id("old")), "{error}");
    for stranger in [place.opened(Some("new")), SealedStore::over(place.store.clone(), name("orders"), None)] {
        for error in
            [stranger.remove_master(&place.id("old")).await.unwrap_err(), stranger.add_master(&place.master("new")).await.unwrap_err()]
        {
            let told = matches!(error, ArchiveError::Key(KeyError::Other { .. } | KeyError::Needed { .. }));
            assert!(told && error.to_string().contains(&place.id("old")), "{error}");
        }
    }
    assert_eq!(place.masters().await, [place.id("old")]);
    let nothing = SealedStore::over(place.store.clone(), name("invoices"), Some(place.master("old")));
    for error in [nothing.add_master(&place.master("new")).await.unwrap_err(), nothing.remove_master("x").await.unwrap_err()] {
        assert!(matches!(error, ArchiveError::Key(KeyError::NotBegun { .. })), "{error}");
    }
}

#[tokio::test]
async fn of_two_who_remove_each_others_key_one_is_refused() {
    for round in 0..20 {
        let place = Place::new();
        place.begun().await.add_master(&place.master("new")).await.unwrap();
        let (old, new) = (place.opened(Some("old")), place.opened(Some("new")));
        let (ids, third) = ([place.id("old"), place.id("new")], place.master("third"));
        let removals = join(old.remove_master(&ids[1]), new.remove_master(&ids[0]));
        let ((first, second), added) = join(removals, old.add_master(&third)).await;
        assert_ne!(first.is_ok(), second.is_ok(), "round {round}: {first:?} and {second:?}");
        let survivor = if first.is_ok() { "old" } else { "new" };
        place.opens(survivor).await.unwrap();
        assert!(place.masters().await.contains(&place.id(survivor)), "round {round}");
        if added.is_ok() {
            place.opens("third").await.unwrap();
        }
    }
}

#[tokio::test]
async fn those_who_begin_add_and_remove_at_the_same_time_all_have_one_key() {
    for _ in 0..10 {
        let place = Place::new();
        let new = place.master("new");
        let (begins, adds): (Vec<_>, Vec<_>) = (0..4).map(|_| (place.opened(Some("old")), place.opened(Some("old")))).unzip();
        let objects: Vec<_> = (1..5).map(|number| name(&format!("orders/wal/{number}"))).collect();
        let writes = join_all(begins.iter().zip(&objects).map(|(store, object)| store.create(object, content())));
        let changes = join_all(adds.iter().map(async |store| {
            store.sealer().await?;
            store.add_master(&new).await?;
            place.opened(Some("new")).remove_master(&place.id("old")).await
        }));
        let (written, changed) = join(writes, changes).await;
        // Whoever comes with the old key after its removal is told so; nobody has made another one.
        let told = |error: &ArchiveError| matches!(error, ArchiveError::Key(KeyError::Other { .. }));
        assert!(written.iter().filter_map(|written| written.as_ref().err()).all(told), "{written:?}");
        assert!(changed.iter().any(Result::is_ok) && changed.iter().filter_map(|done| done.as_ref().err()).all(told), "{changed:?}");
        assert_eq!(place.masters().await, [place.id("new")]);
        for (object, _) in objects.iter().zip(&written).filter(|(_, written)| written.is_ok()) {
            assert_eq!(place.opened(Some("new")).read(object).await.unwrap().unwrap(), content());
        }
    }
}

/// A store in which some things go wrong.
#[derive(Clone, Default)]
struct Faults {
    /// Who creates an object waits for a permit.
    asleep: Option<Rc<Semaphore>>,
    /// Somebody waits for one.
    reached: Option<Rc<Semaphore>>,
    /// Creates, and does not say so.
    loses_answers: bool,
    /// Writes over nothing.
    replaces_nothing: bool,
}

struct Faulty(FileStore, Faults);

fn away(name: &ObjectName) -> StoreError {
    StoreError::Unavailable { object: name.to_string(), why: "it went away".to_owned() }
}

impl ObjectStore for Faulty {
    async fn create(&self, name: &ObjectName, content: Bytes) -> Result<Claim, StoreError> {
        if let (Some(asleep), Some(reached)) = (&self.1.asleep, &self.1.reached) {
            reached.add_permits(1);
            asleep.acquire().await.unwrap().forget();
        }
        let claim = self.0.create(name, content).await?;
        if self.1.loses_answers { Err(away(name)) } else { Ok(claim) }
    }

    async fn replace(&self, name: &ObjectName, content: Bytes) -> Result<(), StoreError> {
        if self.1.replaces_nothing { Err(away(name)) } else { self.0.replace(name, content).await }
    }

    async fn read(&self, name: &ObjectName) -> Result<Option<Bytes>, StoreError> {
        self.0.read(name).await
    }

    async fn read_range(&self, name: &ObjectName, offset: u64, length: u64) -> Result<Option<Bytes>, StoreError> {
        self.0.read_range(name, offset, length).await
    }

    async fn size(&self, name: &ObjectName) -> Result<Option<u64>, StoreError> {
        self.0.size(name).await
    }

    async fn written(&self, name: &ObjectName) -> Result<Option<Timestamp>, StoreError> {
        self.0.written(name).await
    }

    async fn list(&self, folder: &ObjectName) -> Result<Vec<Object>, StoreError> {
        self.0.list(folder).await
    }

    async fn remove(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.0.remove(name).await
    }
}

#[tokio::test]
async fn who_was_about_to_begin_and_slept_through_a_removal_makes_no_second_key() {
    for sleepers_key in ["old", "new"] {
        let place = Place::new();
        let (asleep, reached) = (Rc::new(Semaphore::new(0)), Rc::new(Semaphore::new(0)));
        let faults = Faults { asleep: Some(asleep.clone()), reached: Some(reached.clone()), ..Faults::default() };
        let sleeper = place.over(Faulty(place.store.clone(), faults), sleepers_key);
        let others = async {
            // It has seen that there is no key, and its own is on its way.
            reached.acquire().await.unwrap().forget();
            place.begun().await;
            place.opened(Some("old")).add_master(&place.master("new")).await.unwrap();
            place.opened(Some("new")).remove_master(&place.id("old")).await.unwrap();
            asleep.add_permits(100);
        };
        let late = name("orders/wal/2");
        let (written, ()) = join(sleeper.create(&late, content()), others).await;
        assert_eq!(place.masters().await, [place.id("new")]);
        place.opens("new").await.unwrap();
        if sleepers_key == "new" {
            assert_eq!(written.unwrap(), Claim::Won);
            assert_eq!(place.opened(Some("new")).read(&late).await.unwrap().unwrap(), content(), "with the archive's key");
        } else {
            assert!(matches!(written, Err(ArchiveError::Key(KeyError::Other { .. }))), "{written:?}");
            assert_eq!(place.store.size(&late).await.unwrap(), None);
        }
    }
}

#[tokio::test]
async fn who_dies_in_the_middle_is_followed_by_who_comes_next() {
    let place = Place::new();
    place.begun().await;
    let new = place.master("new");
    let lossy = place.over(Faulty(place.store.clone(), Faults { loses_answers: true, ..Faults::default() }), "old");
    assert!(lossy.add_master(&new).await.unwrap_err().is_unavailable());
    assert_eq!(place.opened(Some("old")).add_master(&new).await.unwrap(), Changed::Already);
    assert_eq!(place.masters().await.len(), 2);
    let dying = place.over(Faulty(place.store.clone(), Faults { replaces_nothing: true, ..Faults::default() }), "new");
    assert!(dying.remove_master(&place.id("old")).await.unwrap_err().is_unavailable());
    place.expect_other("old").await;
    assert!(place.record(1).contains("\"wrapped\""), "it died before that");
    assert_eq!(place.opened(Some("new")).remove_master(&place.id("old")).await.unwrap(), Changed::Already);
    assert!(!place.record(1).contains("\"wrapped\""), "{}", place.record(1));
    place.opens("new").await.unwrap();
}

#[tokio::test]
async fn a_record_that_cannot_be_read_keeps_nobody_from_the_archive_and_from_removing() {
    let place = Place::new();
    place.begun().await.add_master(&place.master("new")).await.unwrap();
    let second = place.record(2);
    fs::write(place.file("orders/key/00000002"), &second[..50]).unwrap();
    place.opens("old").await.unwrap();
    for error in [place.opens("new").await.unwrap_err(), place.opened(Some("old")).remove_master(&place.id("new")).await.unwrap_err()] {
        let named = matches!(&error, ArchiveError::Key(KeyError::Damaged { object, .. }) if object.as_str() == "orders/key/00000002");
        assert!(named, "{error}");
    }
    // A key that is added gets a number of its own.
    assert_eq!(place.opened(Some("old")).add_master(&place.master("new")).await.unwrap(), Changed::Now);
    place.opens("new").await.unwrap();
    fs::write(place.file("orders/key/00000002"), second).unwrap();
    fs::write(place.file("orders/key/readme"), "x").unwrap();
    place.opens("new").await.unwrap();
}

#[tokio::test]
async fn two_keys_of_one_archive_are_told_and_nothing_is_written_with_either() {
    let (place, elsewhere) = (Place::new(), Place::new());
    place.begun().await;
    fs::copy(place.directory.path().join("old"), elsewhere.directory.path().join("old")).unwrap();
    elsewhere.begun().await;
    fs::copy(elsewhere.file("orders/key/00000001"), place.file("orders/key/00000002")).unwrap();
    for error in
        [place.opens("old").await.unwrap_err(), place.opened(Some("old")).create(&name("orders/wal/2"), content()).await.unwrap_err()]
    {
        let text = error.to_string();
        assert!(matches!(error, ArchiveError::Key(KeyError::TwoKeys { .. })), "{text}");
        assert!(text.contains("orders/key/00000001") && text.contains("orders/key/00000002"), "{text}");
    }
    fs::remove_file(place.file("orders/key/00000002")).unwrap();
    place.opens("old").await.unwrap();
}
