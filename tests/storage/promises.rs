//! What every driver has to do, asked of each of them.

use std::time::{Duration, Instant};

use bytes::Bytes;
use spilo::storage::{Claim, FileStore, ObjectStore, S3Store, Store, StoreConfig, StoreError};

use crate::{content, name, s3::S3Double};

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

async fn the_store_says_when_an_object_was_written(store: &impl ObjectStore) {
    let object = name("clock/1");
    assert_eq!(store.written(&object).await.unwrap(), None);
    store.replace(&object, content("x")).await.unwrap();
    let ago = jiff::Timestamp::now().duration_since(store.written(&object).await.unwrap().unwrap());
    assert!((0..60).contains(&ago.as_secs()), "{ago}");
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

/// So many races are run, and fewer where they take longer than that in all: some servers let whoever waits for a name sleep for seconds.
const RACES: usize = 50;
const FEWEST_RACES: usize = 5;
const RACING: Duration = Duration::from_secs(20);

async fn of_many_writers_one_wins(store: &impl ObjectStore) {
    let begun = Instant::now();
    for round in 0..RACES {
        if round >= FEWEST_RACES && begun.elapsed() > RACING {
            eprintln!("{round} races in {:.1} s, and not {RACES}", begun.elapsed().as_secs_f64());
            break;
        }
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
    kept("an object is what was written", an_object_is_what_was_written(store)).await;
    kept("the store says when an object was written", the_store_says_when_an_object_was_written(store)).await;
    kept("what is there is not created again", what_is_there_is_not_created_again(store)).await;
    kept("of many writers one wins", of_many_writers_one_wins(store)).await;
    kept("a listing has all that is below", a_listing_has_all_that_is_below(store)).await;
}

/// How long a promise may take, whatever the server.
const LONGEST: Duration = Duration::from_secs(90);

/// Asks for a promise, and says how long that took.
async fn kept(what: &str, asked: impl Future<Output = ()>) {
    let begun = Instant::now();
    tokio::time::timeout(LONGEST, asked).await.unwrap_or_else(|_| panic!("not within {LONGEST:?}: {what}"));
    eprintln!("{what}: {:.2} s", begun.elapsed().as_secs_f64());
}

#[tokio::test]
async fn a_directory_keeps_every_promise_of_a_store() {
    let root = tempfile::tempdir().unwrap();
    every_promise(&FileStore::init(root.path()).unwrap()).await;
}

#[tokio::test]
async fn a_bucket_keeps_every_promise_of_a_store() {
    let double = S3Double::start();
    every_promise(&S3Store::init(&double.config("prod/pg")).await.unwrap()).await;
    every_promise(&S3Store::init(&S3Double::start().config("")).await.unwrap()).await;
    assert!(double.names().iter().all(|name| name.starts_with("prod/pg/")), "and nothing lies outside its prefix: {:?}", double.names());
}

#[tokio::test]
async fn whatever_the_configuration_names_keeps_them_too() {
    let (root, double) = (tempfile::tempdir().unwrap(), S3Double::start());
    let directory = StoreConfig::new(format!("file://{}", root.path().display()).parse().unwrap());
    for config in [directory, double.config("prod")] {
        assert!(Store::open(&config).await.is_err(), "there is none yet");
        every_promise(&Store::init(&config).await.unwrap()).await;
        let again = Store::init(&config).await.unwrap();
        assert_eq!(again.read(&name("claims/1")).await.unwrap(), Some(content("theirs")), "a store that is made again is the one it was");
        assert!(Store::open(&config).await.unwrap().size(&name("claims/1")).await.unwrap().is_some());
    }
}

/// The bucket that the environment names: `SPILO_S3_STORE=s3://BUCKET/PREFIX`, with `SPILO_S3_ENDPOINT`, `SPILO_S3_REGION` and
/// `SPILO_S3_CREDENTIALS=FILE` where it needs them.
fn somebodys_bucket() -> Option<StoreConfig> {
    let said = |name| std::env::var(name).ok();
    let place = said("SPILO_S3_STORE")?;
    let url = format!("{}/test-{}", place.trim_end_matches('/'), fastrand::u64(..));
    Some(StoreConfig {
        endpoint: said("SPILO_S3_ENDPOINT"),
        region: said("SPILO_S3_REGION"),
        credentials_file: said("SPILO_S3_CREDENTIALS").map(Into::into),
        ..StoreConfig::new(url.parse().unwrap())
    })
}

/// `make storage-elsewhere` runs it with a server of somebody else's.
#[tokio::test]
async fn the_bucket_that_is_named_keeps_every_promise_of_a_store_and_is_left_empty() {
    let double = S3Double::start();
    let config = somebodys_bucket().unwrap_or_else(|| double.config("prod"));
    let store = S3Store::init(&config).await.unwrap();
    every_promise(&store).await;
    for folder in ["a", "claims", "clock", "list", "races"] {
        for object in store.list(&name(folder)).await.unwrap() {
            store.remove(&object.name).await.unwrap();
        }
    }
    store.remove(&name("spilo-store")).await.unwrap();
    assert!(matches!(S3Store::open(&config).await, Err(StoreError::Refused { .. })));
    assert_eq!(double.names(), [""; 0]);
}
