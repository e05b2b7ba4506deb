//! What only a directory can do wrong.

use spilo::storage::{Claim, FileStore, Object, ObjectStore, StoreError};

use crate::{content, name};

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
