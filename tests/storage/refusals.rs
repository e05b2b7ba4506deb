//! What somebody has to do something about is told at once, in one sentence, and is never taken for an object that is not there.

use std::{
    fs,
    time::{Duration, Instant},
};

use spilo::storage::{Claim, ObjectStore, S3Store, Store, StoreConfig, StoreError};

use crate::{
    content, name,
    s3::{Conditions, KEY, Refusal, Rule, S3Double, SECRET, Settings},
};

async fn store(double: &S3Double) -> S3Store {
    S3Store::init(&double.config("prod")).await.unwrap()
}

/// What every call says.
async fn errors(store: &S3Store) -> [StoreError; 7] {
    let object = name("wal/1");
    [
        store.create(&object, content("x")).await.unwrap_err(),
        store.replace(&object, content("x")).await.unwrap_err(),
        store.read(&object).await.unwrap_err(),
        store.read_range(&object, 0, 1).await.unwrap_err(),
        store.size(&object).await.unwrap_err(),
        store.list(&name("wal")).await.unwrap_err(),
        store.remove(&object).await.unwrap_err(),
    ]
}

#[track_caller]
fn assert_says(error: &StoreError, parts: &[&str]) {
    let said = error.to_string();
    for part in parts.iter().chain(&["hint: "]) {
        assert!(said.contains(part), "'{part}' in: {said}");
    }
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(!said.contains(KEY) && !said.contains(SECRET), "credentials are not shown: {said}");
}

async fn each_call_is_refused(refusal: Refusal, parts: &[&str]) {
    let double = S3Double::start();
    let store = store(&double).await;
    double.misbehave(Rule::always(refusal));
    let begun = Instant::now();
    for error in errors(&store).await {
        assert!(matches!(error, StoreError::Refused { .. }), "{error}");
        assert_says(&error, parts);
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "nobody waits for it: {:?}", begun.elapsed());
}

#[tokio::test]
async fn without_permission_the_right_that_is_missing_is_named() {
    each_call_is_refused(Refusal::access_denied(), &["AccessDenied", "allow s3:", "arn:aws:s3:::backups"]).await;
    let double = S3Double::start();
    let store = store(&double).await;
    double.misbehave(Rule::always(Refusal::access_denied()));
    let [create, _, read, _, size, list, remove] = errors(&store).await;
    assert_says(&create, &["'wal/1'", "s3:PutObject on arn:aws:s3:::backups/prod/*"]);
    assert_says(&read, &["s3:GetObject on arn:aws:s3:::backups/prod/*", "s3:ListBucket"]);
    assert_says(&size, &["s3:GetObject"]);
    assert_says(&list, &["'wal'", "s3:ListBucket on arn:aws:s3:::backups;"].map(|part| part.trim_end_matches(';')));
    assert_says(&remove, &["s3:DeleteObject"]);
}

#[tokio::test]
async fn a_missing_bucket_is_no_missing_object() {
    each_call_is_refused(Refusal::no_such_bucket(), &["knows no bucket 'backups'"]).await;
}

#[tokio::test]
async fn an_answer_of_somebody_elses_is_no_missing_object() {
    each_call_is_refused(Refusal::new(404, "", "404 page not found"), &["HTTP status 404", "speak S3"]).await;
    each_call_is_refused(Refusal::new(404, "NotFound", ""), &["NotFound", "speak S3"]).await;
}

#[tokio::test]
async fn a_bucket_in_another_region_is_told_with_its_region() {
    each_call_is_refused(
        Refusal::permanent_redirect("eu-central-1"),
        &["bucket 'backups' is in region 'eu-central-1', not in 'us-east-1'"],
    )
    .await;
    let double = S3Double::start_with(Settings { region: "eu-west-3".to_owned(), ..Settings::default() });
    let error = S3Store::init(&double.config("prod")).await.err().unwrap();
    assert_says(&error, &["s3://backups/prod", "region 'eu-west-3', not in 'us-east-1'"]);
    let right = StoreConfig { region: Some("eu-west-3".to_owned()), ..double.config("prod") };
    S3Store::init(&right).await.unwrap();
}

#[tokio::test]
async fn a_clock_that_is_wrong_is_told_with_how_far() {
    let double = S3Double::start();
    let store = store(&double).await;
    for (ahead, expected) in [(1_200, " s behind"), (-1_200, " s ahead of")] {
        double.set_clock(ahead);
        for error in errors(&store).await {
            assert_says(&error, &["this machine's clock is 1", expected, "NTP"]);
        }
    }
    double.set_clock(0);
    assert_eq!(store.read(&name("wal/1")).await.unwrap(), None, "and when it is right again all goes on");
}

#[tokio::test]
async fn credentials_that_expire_are_read_again() {
    let double = S3Double::start();
    let store = store(&double).await;
    double.know_key("AKIANEXT");
    double.expire_key(KEY);
    let object = name("wal/1");
    // They are renewed by somebody else, a while later.
    let (claim, ()) = tokio::join!(store.create(&object, content("x")), async {
        tokio::time::sleep(Duration::from_millis(800)).await;
        double.use_key("AKIANEXT");
    });
    assert_eq!(claim.unwrap(), Claim::Won);
    double.expire_key("AKIANEXT");
    let error = store.with_patience(Duration::from_millis(300)).size(&object).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "they may be renewed: {error}");
    assert_says(&error, &["wal/1", "have expired", &double.credentials_file().display().to_string()]);
}

#[tokio::test]
async fn credentials_that_are_exchanged_are_used_before_the_old_ones_fail() {
    let double = S3Double::start();
    let store = store(&double).await;
    store.create(&name("wal/1"), content("x")).await.unwrap();
    double.know_key("AKIANEXT");
    double.use_key("AKIANEXT");
    double.expire_key(KEY);
    let before = double.all_requests();
    store.read(&name("wal/1")).await.unwrap();
    assert_eq!(double.all_requests() - before, 1);
}

#[tokio::test]
async fn credentials_that_are_wrong_are_told_with_where_they_come_from() {
    let double = S3Double::start();
    let store = store(&double).await;
    let file = double.credentials_file().display().to_string();
    double.use_key("AKIAUNKNOWN");
    for error in errors(&store).await {
        assert!(matches!(error, StoreError::Refused { .. }), "{error}");
        assert_says(&error, &["InvalidAccessKeyId", "does not know the access key", &file]);
    }
    each_call_is_refused(Refusal::signature_does_not_match(), &["the secret key", "does not belong to its access key"]).await;
}

#[tokio::test]
async fn credentials_that_are_not_there_are_told_with_where_they_should_be() {
    let double = S3Double::start();
    let missing = StoreConfig { credentials_file: Some("/nonexistent/credentials".into()), ..double.config("prod") };
    let error = S3Store::init(&missing).await.err().unwrap();
    assert!(error.to_string().contains("'/nonexistent/credentials' cannot be read"), "{error}");
    let store = store(&double).await.with_patience(Duration::from_millis(300));
    fs::write(double.credentials_file(), "[other]\naws_access_key_id = A\naws_secret_access_key = B\n").unwrap();
    let error = store.read(&name("wal/1")).await.unwrap_err();
    assert_says(&error, &["no credentials in", &double.credentials_file().display().to_string()]);
    double.use_key(KEY);
    assert_eq!(store.read(&name("wal/1")).await.unwrap(), None, "and when they are there all goes on");
}

#[tokio::test]
async fn a_server_on_which_every_writer_wins_is_no_store() {
    for (conditions, expected) in [(Conditions::Ignored, "it takes a second write"), (Conditions::Racy, "writers at the same time")] {
        let double = S3Double::start_with(Settings { conditions, ..Settings::default() });
        let error = S3Store::init(&double.config("prod")).await.err().unwrap();
        assert!(matches!(error, StoreError::Refused { .. }), "{error}");
        assert_says(&error, &["s3://backups/prod", "no conditional writes", expected]);
        assert_eq!(double.names(), [""; 0], "and nothing is left there");
    }
}

#[tokio::test]
async fn a_wrong_prefix_is_no_empty_store() {
    let double = S3Double::start();
    store(&double).await;
    let error = S3Store::open(&double.config("prot")).await.err().unwrap();
    assert_says(&error, &["s3://backups/prot", "there is no store"]);
    let error = S3Store::init(&double.config("")).await.err().unwrap();
    assert_says(&error, &["s3://backups'", "something else is there, such as 'prod/spilo-store'"]);
    double.place("other/spilo-probe/left-by-one-that-died/0", b"first");
    S3Store::init(&double.config("other")).await.unwrap();
    double.place("later/spilo-store", b"a store of spilo, format 2, x\n");
    let error = Store::open(&double.config("later")).await.err().unwrap();
    assert!(error.to_string().contains("format 2") && error.to_string().contains("does not know"), "{error}");
}

#[tokio::test]
async fn a_bucket_that_was_exchanged_is_no_empty_store() {
    let double = S3Double::start();
    let object = name("wal/1");
    for in_its_place in ["nothing", "another store"] {
        let store = store(&double).await;
        double.exchange();
        if in_its_place == "another store" {
            S3Store::init(&double.config("prod")).await.unwrap();
        }
        let errors = [
            store.read(&object).await.unwrap_err(),
            store.read_range(&object, 0, 1).await.unwrap_err(),
            store.size(&object).await.unwrap_err(),
            store.list(&name("wal")).await.unwrap_err(),
        ];
        for error in errors {
            assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
            assert!(error.to_string().contains("'wal") && error.to_string().contains("'s3://backups/prod' is "), "{error}");
        }
    }
}

#[tokio::test]
async fn nothing_counts_as_written_that_went_to_another_bucket_after_a_reconnect() {
    for in_its_place in ["nothing", "another store"] {
        let double = S3Double::start();
        let store = store(&double).await.with_patience(Duration::ZERO);
        assert_eq!(store.create(&name("wal/1"), content("one")).await.unwrap(), Claim::Won);
        double.close();
        double.keep_aside();
        double.open();
        if in_its_place == "another store" {
            S3Store::init(&double.config("prod")).await.unwrap();
        }
        // The first may find the old connection broken: whoever writes asks again.
        let mut errors = Vec::new();
        for _ in 0..3 {
            errors.push(store.create(&name("wal/2"), content("two")).await.unwrap_err());
            errors.push(store.replace(&name("wal/3"), content("three")).await.unwrap_err());
        }
        let told = errors.last().unwrap();
        assert!(matches!(told, StoreError::Unavailable { .. }), "{told}");
        assert!(told.to_string().contains("'wal/3'") && told.to_string().contains("'s3://backups/prod' is "), "{told}");
        assert!(told.to_string().contains("hint: "), "{told}");
        let strays = double.names().iter().filter(|name| name.contains("wal/")).count();
        assert!(strays <= 1, "nobody writes to it any more: {:?}", double.names());
        double.bring_back();
        assert_eq!(store.create(&name("wal/2"), content("two")).await.unwrap(), Claim::Won, "all is well when it is back");
    }
}

#[tokio::test]
async fn a_segment_is_one_request() {
    let double = S3Double::start();
    let store = store(&double).await;
    store.create(&name("wal/first"), content("x")).await.unwrap();
    let before = double.all_requests();
    for number in 0..20 {
        assert_eq!(store.create(&name(&format!("wal/{number}")), content("x")).await.unwrap(), Claim::Won);
    }
    assert_eq!(double.all_requests() - before, 20);
    let many = futures_util::future::join_all((0..8).map(|number| {
        let (store, object) = (&store, name(&format!("wal/lane-{number}")));
        async move { store.create(&object, content("x")).await.unwrap() }
    }));
    many.await;
    let new = double.all_requests() - before - 28;
    assert!(new <= 16, "{new} looks at the mark for eight connections at most");
    let before = double.all_requests();
    for number in 20..40 {
        store.create(&name(&format!("wal/{number}")), content("x")).await.unwrap();
    }
    assert_eq!(double.all_requests() - before, 20);
}

#[tokio::test]
async fn that_nothing_is_there_is_not_doubted_each_time() {
    let double = S3Double::start();
    let store = store(&double).await;
    let before = double.all_requests();
    for _ in 0..3 {
        assert_eq!(store.read(&name("wal/1")).await.unwrap(), None);
    }
    assert_eq!(double.all_requests() - before, 4, "the mark is looked at once");
}

#[tokio::test]
async fn what_is_missing_in_the_configuration_is_told() {
    let double = S3Double::start();
    for endpoint in ["minio:9000", "https://", "https://:9000", "https://minio:port", "ftp://minio"] {
        let wrong = StoreConfig { endpoint: Some(endpoint.to_owned()), ..double.config("prod") };
        assert_says(&S3Store::open(&wrong).await.err().unwrap(), &[endpoint, "no endpoint"]);
    }
    for endpoint in [format!("https://ann:{SECRET}@minio"), format!("https://{SECRET}@minio"), format!("minio:{SECRET}@")] {
        let wrong = StoreConfig { endpoint: Some(endpoint), ..double.config("prod") };
        assert_says(&S3Store::open(&wrong).await.err().unwrap(), &["a user or a password"]);
    }
}
