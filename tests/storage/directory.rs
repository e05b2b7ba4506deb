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

#[tokio::test]
async fn what_an_interrupted_write_has_left_goes_when_it_is_old() {
    let root = tempfile::tempdir().unwrap();
    let store = FileStore::init(root.path()).unwrap();
    store.create(&name("packs/1/a"), content("whole")).await.unwrap();
    let left = |hours: u64| {
        let path = root.path().join(format!("packs/1/.unfinished-{hours}"));
        let file = std::fs::File::create(&path).unwrap();
        file.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(hours * 3600)).unwrap();
        path
    };
    let (young, old) = (left(23), left(25));
    assert_eq!(store.list(&name("packs")).await.unwrap().len(), 1);
    assert!(young.exists() && !old.exists());
}

#[tokio::test]
async fn no_list_passes_over_a_symbolic_link() {
    let root = tempfile::tempdir().unwrap();
    let store = FileStore::init(root.path()).unwrap();
    store.create(&name("base/1"), content("whole")).await.unwrap();
    std::os::unix::fs::symlink("/srv/elsewhere", root.path().join("base/2")).unwrap();
    let error = store.list(&name("base")).await.unwrap_err();
    assert!(matches!(error, StoreError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("base/2' is a symbolic link"), "{error}");
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

#[test]
fn a_store_is_made_of_what_an_interrupted_attempt_has_left_and_by_several_at_once() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("lost+found")).unwrap();
    std::fs::write(root.path().join(".unfinished-x"), "a sto").unwrap();
    std::thread::scope(|scope| {
        let makers: Vec<_> = (0..8).map(|_| scope.spawn(|| FileStore::init(root.path()).map(drop))).collect();
        makers.into_iter().for_each(|maker| maker.join().unwrap().unwrap());
    });
    let missing = FileStore::init(&root.path().join("missing")).err().unwrap().to_string();
    assert!(missing.contains("hint: create it"), "{missing}");
}

#[test]
fn what_another_version_keeps_is_left_alone() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join(".spilo-store"), "a store of spilo, format 10, x\n").unwrap();
    for opened in [FileStore::open(root.path()), FileStore::init(root.path())] {
        let told = opened.err().unwrap().to_string();
        assert!(told.contains("format 10") && told.contains("does not know"), "{told}");
    }
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
