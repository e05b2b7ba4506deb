use std::fs;

use super::{super::test_place::Place, *};
use crate::storage::StoreError;

fn name(text: &str) -> ObjectName {
    text.parse().unwrap()
}

fn content() -> Bytes {
    (0..200_000u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>().into()
}

const OBJECT: &str = "orders/wal/1";
const KEY_OBJECT: &str = "orders/key/00000001";

#[tokio::test]
async fn an_encrypted_archive_answers_as_any_other_does() {
    let place = Place::new();
    for store in [place.opened(Some("key")), place.opened(Some("key"))] {
        let object = name(OBJECT);
        assert_eq!(store.read(&object).await.unwrap(), None);
        assert_eq!(store.create(&object, content()).await.unwrap(), Claim::Won);
        assert_eq!(store.create(&object, Bytes::from_static(b"other")).await.unwrap(), Claim::Taken);
        assert_eq!(store.read(&object).await.unwrap().unwrap(), content());
        let size = content().len() as u64;
        assert_eq!(store.size(&object).await.unwrap(), Some(size));
        assert_eq!(store.list(&name("orders/wal")).await.unwrap()[0].size, size);
        let frame = FRAME as u64;
        for (offset, length) in [
            (0, 1),
            (0, 10),
            (0, frame),
            (1, frame),
            (frame, frame),
            (frame - 1, 2),
            (3 * frame + 5, 5 * frame),
            (0, size),
            (0, size + 1),
            (size - 1, 10),
            (size, 5),
            (size + 100_000, 5),
            (7, 0),
        ] {
            let found = store.read_range(&object, offset, length).await.unwrap().unwrap();
            let (begin, end) = (offset.min(size) as usize, (offset + length).min(size) as usize);
            assert!(found == content().slice(begin..end), "{offset} and {length}");
        }
        assert_eq!(store.read_range(&name("orders/wal/2"), 5, 5).await.unwrap(), None);
        store.replace(&object, Bytes::from_static(b"new")).await.unwrap();
        assert_eq!(store.read(&object).await.unwrap().unwrap(), "new");
        store.remove(&object).await.unwrap();
        assert_eq!(store.size(&object).await.unwrap(), None);
    }
}

#[tokio::test]
async fn whatever_is_done_to_an_object_in_the_store_is_found() {
    let place = Place::new();
    let store = place.opened(Some("key"));
    for object in [OBJECT, "orders/wal/2"] {
        store.create(&name(object), content()).await.unwrap();
    }
    let whole = fs::read(place.file(OBJECT)).unwrap();
    let mut flipped = whole.clone();
    flipped[WHOLE * 2] ^= 1;
    let at_a_frame = whole[..HEADER + 3 * WHOLE].to_vec();
    let other = fs::read(place.file("orders/wal/2")).unwrap();
    for (what, damaged) in
        [("a bit", flipped), ("its end", whole[..1000].to_vec()), ("frames", at_a_frame), ("plain", content().to_vec()), ("swapped", other)]
    {
        fs::write(place.file(OBJECT), damaged).unwrap();
        let size = content().len() as u64;
        for read in [store.read(&name(OBJECT)).await, store.read_range(&name(OBJECT), 0, size).await] {
            let error = read.unwrap_err();
            assert!(matches!(error, ArchiveError::Damaged { .. }) && error.to_string().contains(OBJECT), "{what}: {error}");
        }
    }
    fs::write(place.file(OBJECT), &whole[..HEADER + 3 * WHOLE]).unwrap();
    let behind = store.read_range(&name(OBJECT), 3 * FRAME as u64, 10).await;
    assert!(matches!(behind, Err(ArchiveError::Damaged { .. })), "where it was cut off is not its end");
    assert_eq!(store.read_range(&name(OBJECT), 0, 100).await.unwrap().unwrap(), content().slice(..100), "what is right is right");
}

#[tokio::test]
async fn of_many_who_begin_an_archive_all_use_one_key() {
    let place = Place::new();
    let stores: Vec<_> = (0..8).map(|_| place.opened(Some("key"))).collect();
    let objects: Vec<_> = (0..8).map(|number| name(&format!("orders/wal/{number}"))).collect();
    let writes = stores.iter().zip(&objects).map(|(store, object)| store.create(object, content()));
    for written in futures_util::future::join_all(writes).await {
        assert_eq!(written.unwrap(), Claim::Won);
    }
    for store in &stores {
        for object in &objects {
            assert_eq!(store.read(object).await.unwrap().unwrap(), content());
        }
    }
    assert_eq!(place.store.list(&name("orders/key")).await.unwrap().len(), 1);
}

#[tokio::test]
async fn who_dies_after_the_key_leaves_one_that_the_next_takes() {
    let place = Place::new();
    place.opened(Some("key")).sealer().await.unwrap();
    let before = fs::read(place.file(KEY_OBJECT)).unwrap();
    place.opened(Some("key")).create(&name(OBJECT), content()).await.unwrap();
    assert_eq!(fs::read(place.file(KEY_OBJECT)).unwrap(), before);
}

#[tokio::test]
async fn who_has_no_key_or_another_is_told_which_one_it_takes() {
    let place = Place::new();
    place.opened(Some("key")).create(&name(OBJECT), content()).await.unwrap();
    let theirs = place.master("key").id();
    let (keyless, wrong) = (place.opened(None), place.opened(Some("other")));
    for (store, others) in [(&keyless, "--store-key".to_owned()), (&wrong, place.master("other").id())] {
        let told = [
            store.read(&name(OBJECT)).await.unwrap_err(),
            store.read_range(&name(OBJECT), 0, 10).await.unwrap_err(),
            store.create(&name("orders/wal/2"), content()).await.unwrap_err(),
            store.replace(&name(OBJECT), content()).await.unwrap_err(),
        ];
        for error in told {
            let text = error.to_string();
            assert!(matches!(error, ArchiveError::Key(_)) && text.contains(&theirs) && text.contains(&others), "{text}");
            assert!(text.contains("'orders'") && !text.contains('\n'), "{text}");
        }
    }
    assert_eq!(place.store.list(&name("orders/wal")).await.unwrap().len(), 1, "nothing was written");
}

#[tokio::test]
async fn an_archive_that_was_begun_without_a_key_stays_so() {
    let place = Place::new();
    place.opened(None).create(&name(OBJECT), content()).await.unwrap();
    let keyed = place.opened(Some("key"));
    for error in [keyed.create(&name("orders/wal/2"), content()).await.unwrap_err(), keyed.read(&name(OBJECT)).await.unwrap_err()] {
        assert!(matches!(error, ArchiveError::Key(KeyError::NotEncrypted { .. })) && error.to_string().contains(OBJECT), "{error}");
    }
    assert!(place.store.list(&name("orders/key")).await.unwrap().is_empty(), "and gets none");
    assert_eq!(place.opened(None).read(&name(OBJECT)).await.unwrap().unwrap(), content());
}

#[tokio::test]
async fn a_key_that_is_gone_or_damaged_is_named_and_never_made_anew() {
    let place = Place::new();
    place.opened(Some("key")).create(&name(OBJECT), content()).await.unwrap();
    let whole = fs::read(place.file(KEY_OBJECT)).unwrap();
    let text = String::from_utf8(whole.clone()).unwrap();
    for damaged in [text.replace("orders", "others"), text.replace("\"format\": 1", "\"format\": 2"), text[..100].to_owned(), {
        let at = text.find("\"wrapped\": \"").unwrap() + 12;
        let digit = if &text[at..=at] == "0" { "1" } else { "0" };
        format!("{}{digit}{}", &text[..at], &text[at + 1..])
    }] {
        fs::write(place.file(KEY_OBJECT), damaged).unwrap();
        let error = place.opened(Some("key")).read(&name(OBJECT)).await.unwrap_err();
        assert!(matches!(error, ArchiveError::Key(KeyError::Damaged { .. })) && error.to_string().contains(KEY_OBJECT), "{error}");
        assert!(place.opened(Some("key")).create(&name("orders/wal/2"), content()).await.is_err());
    }
    fs::remove_file(place.file(KEY_OBJECT)).unwrap();
    for key in [Some("key"), None] {
        let store = place.opened(key);
        let error = store.read(&name(OBJECT)).await.unwrap_err();
        assert!(matches!(error, ArchiveError::Key(KeyError::Gone { .. })) && error.to_string().contains(KEY_OBJECT), "{error}");
    }
    let error = place.opened(Some("key")).create(&name("orders/wal/2"), content()).await.unwrap_err();
    assert!(matches!(error, ArchiveError::Key(KeyError::Gone { .. })), "{error}");
    fs::write(place.file(KEY_OBJECT), whole).unwrap();
    assert_eq!(place.opened(Some("key")).read(&name(OBJECT)).await.unwrap().unwrap(), content());
}

/// A store that has gone away.
struct Away;

impl ObjectStore for Away {
    async fn create(&self, name: &ObjectName, _: Bytes) -> Result<Claim, StoreError> {
        panic!("'{name}' was written although nobody knows whether the archive has a key")
    }

    async fn replace(&self, name: &ObjectName, _: Bytes) -> Result<(), StoreError> {
        panic!("'{name}' was written although nobody knows whether the archive has a key")
    }

    async fn read(&self, name: &ObjectName) -> Result<Option<Bytes>, StoreError> {
        Err(StoreError::Unavailable { object: name.to_string(), why: "it went away".to_owned() })
    }

    async fn read_range(&self, name: &ObjectName, _: u64, _: u64) -> Result<Option<Bytes>, StoreError> {
        self.read(name).await
    }

    async fn size(&self, name: &ObjectName) -> Result<Option<u64>, StoreError> {
        self.read(name).await.map(|_| None)
    }

    async fn written(&self, name: &ObjectName) -> Result<Option<Timestamp>, StoreError> {
        self.read(name).await.map(|_| None)
    }

    async fn list(&self, folder: &ObjectName) -> Result<Vec<Object>, StoreError> {
        self.read(folder).await.map(|_| Vec::new())
    }

    async fn remove(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.read(name).await.map(drop)
    }
}

#[tokio::test]
async fn while_the_store_is_away_nothing_is_written_with_a_key_or_without() {
    let place = Place::new();
    for key in [Some("key"), None] {
        let store = SealedStore::over(Away, name("orders"), key.map(|key| place.master(key)));
        let error = store.create(&name(OBJECT), content()).await.unwrap_err();
        assert!(matches!(error, ArchiveError::Store(StoreError::Unavailable { .. })), "{error}");
    }
}
