//! What every driver has to do, asked of each of them.

use super::*;

fn name(text: &str) -> ObjectName {
    text.parse().unwrap()
}

fn content(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

async fn an_object_is_what_was_written(store: &impl ObjectStore) {
    let object = name("a/b/c.zst");
    assert_eq!(store.read(&object).await.unwrap(), None);
    assert_eq!(store.size(&object).await.unwrap(), None);
    assert_eq!(store.read_range(&object, 0, 1).await.unwrap(), None);
    store.replace(&object, content("one")).await.unwrap();
    store.replace(&object, content("three")).await.unwrap();
    assert_eq!(store.read(&object).await.unwrap(), Some(content("three")));
    assert_eq!(store.size(&object).await.unwrap(), Some(5));
    for (offset, length, expected) in [(0, 5, "three"), (1, 2, "hr"), (3, 100, "ee"), (5, 1, ""), (99, 1, "")] {
        assert_eq!(store.read_range(&object, offset, length).await.unwrap(), Some(content(expected)), "{offset} {length}");
    }
    store.replace(&name("a/empty"), Bytes::new()).await.unwrap();
    assert_eq!(store.read(&name("a/empty")).await.unwrap(), Some(Bytes::new()));
    store.remove(&object).await.unwrap();
    store.remove(&object).await.unwrap();
    assert_eq!(store.read(&object).await.unwrap(), None);
}

async fn what_is_there_is_not_created_again(store: &impl ObjectStore) {
    let object = name("claims/1");
    assert_eq!(store.create(&object, content("mine")).await.unwrap(), Claim::Won);
    assert_eq!(store.create(&object, content("theirs")).await.unwrap(), Claim::Taken);
    assert_eq!(store.create(&object, content("mine")).await.unwrap(), Claim::Taken);
    assert_eq!(store.read(&object).await.unwrap(), Some(content("mine")));
    store.remove(&object).await.unwrap();
    assert_eq!(store.create(&object, content("theirs")).await.unwrap(), Claim::Won);
}

async fn of_many_writers_one_wins(store: &impl ObjectStore) {
    for round in 0..50 {
        let object = name(&format!("races/{round}/claim"));
        let claims = (0..8).map(|writer| {
            let object = &object;
            async move { (writer, store.create(object, content(&writer.to_string())).await.unwrap()) }
        });
        let claims = futures_util::future::join_all(claims).await;
        let winners: Vec<_> = claims.into_iter().filter(|(_, claim)| *claim == Claim::Won).map(|(writer, _)| writer.to_string()).collect();
        let left = store.read(&object).await.unwrap().unwrap();
        assert_eq!(winners, [String::from_utf8(left.to_vec()).unwrap()]);
    }
}

async fn a_listing_has_all_that_is_below(store: &impl ObjectStore) {
    for text in ["list/7/b", "list/7/a/x", "list/70", "list/7-x"] {
        store.create(&name(text), content(text)).await.unwrap();
    }
    let listed = store.list(&name("list/7")).await.unwrap();
    let listed: Vec<_> = listed.iter().map(|object| (object.name.as_str(), object.size)).collect();
    assert_eq!(listed, [("list/7/a/x", 10), ("list/7/b", 8)]);
    assert_eq!(store.list(&name("list/8")).await.unwrap(), []);
}

async fn every_promise(store: &impl ObjectStore) {
    an_object_is_what_was_written(store).await;
    what_is_there_is_not_created_again(store).await;
    of_many_writers_one_wins(store).await;
    a_listing_has_all_that_is_below(store).await;
}

#[tokio::test]
async fn a_directory_keeps_every_promise_of_a_store() {
    let root = tempfile::tempdir().unwrap();
    every_promise(&FileStore::init(root.path()).unwrap()).await;
}

#[tokio::test]
async fn what_an_interrupted_write_has_left_is_no_object_and_in_nobodys_way() {
    let root = tempfile::tempdir().unwrap();
    let store = FileStore::init(root.path()).unwrap();
    store.create(&name("wal/1"), content("whole")).await.unwrap();
    std::fs::write(root.path().join("wal/.unfinished-1-0-00000000"), "hal").unwrap();
    let listed = store.list(&name("wal")).await.unwrap();
    assert_eq!(listed, [Object { name: name("wal/1"), size: 5 }]);
    assert_eq!(store.create(&name("wal/2"), content("whole")).await.unwrap(), Claim::Won);
    let left: Vec<_> = std::fs::read_dir(root.path().join("wal")).unwrap().collect();
    assert_eq!(left.len(), 3, "a write that was not interrupted leaves nothing else: {left:?}");
}

#[test]
fn a_volume_that_is_not_mounted_is_not_an_empty_store() {
    let mount_point = tempfile::tempdir().unwrap();
    let told = |root: &std::path::Path| FileStore::open(root).err().unwrap().to_string();
    for root in [mount_point.path(), &mount_point.path().join("missing")] {
        let told = told(root);
        assert!(told.contains(&root.display().to_string()) && told.contains("mount its volume"), "{told}");
    }
    std::fs::write(mount_point.path().join("precious"), "").unwrap();
    assert!(FileStore::init(mount_point.path()).is_err(), "nor is a store made of what has something else in it");
    assert!(FileStore::init(&mount_point.path().join("missing")).is_err());
    assert_eq!(std::fs::read_dir(mount_point.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn a_store_that_is_made_again_is_the_one_it_was() {
    let root = tempfile::tempdir().unwrap();
    FileStore::init(root.path()).unwrap().create(&name("wal/1"), content("x")).await.unwrap();
    let again = FileStore::init(root.path()).unwrap();
    assert_eq!(again.read(&name("wal/1")).await.unwrap(), Some(content("x")));
    assert_eq!(FileStore::open(root.path()).unwrap().size(&name("wal/1")).await.unwrap(), Some(1));
}

#[tokio::test]
async fn a_volume_that_went_away_is_not_an_empty_store() {
    let outer = tempfile::tempdir().unwrap();
    let root = outer.path().join("volume");
    std::fs::create_dir(&root).unwrap();
    let store = FileStore::init(&root).unwrap();
    store.create(&name("wal/1"), content("x")).await.unwrap();
    std::fs::rename(&root, outer.path().join("elsewhere")).unwrap();
    for what_is_in_its_place in ["nothing", "an empty directory", "another store"] {
        match what_is_in_its_place {
            "an empty directory" => std::fs::create_dir(&root).unwrap(),
            "another store" => drop(FileStore::init(&root).unwrap()),
            _ => {}
        }
        assert!(matches!(store.read(&name("wal/1")).await, Err(StoreError::Unavailable { .. })), "{what_is_in_its_place}");
        assert!(matches!(store.list(&name("wal")).await, Err(StoreError::Unavailable { .. })), "{what_is_in_its_place}");
        let error = store.create(&name("wal/2"), content("x")).await.unwrap_err();
        assert!(error.to_string().contains("wal/2") && error.to_string().contains("volume"), "{error}");
    }
    assert_eq!(std::fs::read_dir(&root).unwrap().count(), 1, "and nothing is written to what took its place");
}

#[tokio::test]
async fn an_object_cannot_lie_below_another() {
    let root = tempfile::tempdir().unwrap();
    let store = FileStore::init(root.path()).unwrap();
    store.create(&name("wal"), content("x")).await.unwrap();
    assert_eq!(store.read(&name("wal/1")).await.unwrap(), None);
    assert!(store.create(&name("wal/1"), content("x")).await.is_err());
}
