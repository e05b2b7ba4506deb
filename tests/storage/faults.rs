//! What passes by itself changes no result: it is asked again.

use std::time::{Duration, Instant};

use bytes::Bytes;
use spilo::storage::{Claim, ObjectStore, S3Store, StoreError};

use crate::{
    content, name,
    s3::{Fault, Refusal, Rule, S3Double, Verb},
};

async fn store(double: &S3Double) -> S3Store {
    S3Store::init(&double.config("prod")).await.unwrap()
}

/// Content that is not the same anywhere.
fn long(length: usize) -> Bytes {
    (0u32..).flat_map(|number| number.wrapping_mul(2_654_435_761).to_be_bytes()).take(length).collect()
}

#[tokio::test]
async fn what_a_server_does_in_need_is_no_result() {
    let double = S3Double::start();
    let store = store(&double).await;
    let refusals = [Refusal::slow_down(), Refusal::internal_error(), Refusal::timed_out(), Refusal::conflict()];
    let overload = [429, 502, 503, 504].map(|status| Refusal::new(status, "", ""));
    let faults = refusals.into_iter().chain(overload).map(Fault::from).chain([Fault::Hangup]);
    for (number, fault) in faults.enumerate() {
        let (object, absent) = (name(&format!("need/{number}/x")), name("need/absent"));
        let trouble = || double.misbehave(Rule::always(fault.clone()).times(2));
        trouble();
        assert_eq!(store.create(&object, content("one")).await.unwrap(), Claim::Won, "{fault:?}");
        trouble();
        assert_eq!(store.create(&object, content("two")).await.unwrap(), Claim::Taken, "{fault:?}");
        trouble();
        store.replace(&object, content("three")).await.unwrap();
        trouble();
        assert_eq!(store.read(&object).await.unwrap(), Some(content("three")), "{fault:?}");
        trouble();
        assert_eq!(store.read_range(&object, 1, 2).await.unwrap(), Some(content("hr")), "{fault:?}");
        trouble();
        assert_eq!((store.size(&object).await.unwrap(), store.size(&absent).await.unwrap()), (Some(5), None), "{fault:?}");
        trouble();
        assert_eq!(store.read(&absent).await.unwrap(), None, "{fault:?}");
        trouble();
        assert_eq!(store.list(&name(&format!("need/{number}"))).await.unwrap().len(), 1, "{fault:?}");
        trouble();
        store.remove(&object).await.unwrap();
        assert_eq!(store.read(&object).await.unwrap(), None, "{fault:?}");
    }
}

#[tokio::test]
async fn a_write_whose_answer_got_lost_is_told_by_its_content() {
    let double = S3Double::start();
    let store = store(&double).await;
    double.misbehave(Rule::once(Fault::LostAnswer).on(Verb::Put));
    assert_eq!(store.create(&name("wal/1"), content("ours")).await.unwrap(), Claim::Taken);
    assert_eq!(store.read(&name("wal/1")).await.unwrap(), Some(content("ours")));
    double.misbehave(Rule::once(Fault::LostAnswer).on(Verb::Delete));
    store.remove(&name("wal/1")).await.unwrap();
    assert_eq!(store.size(&name("wal/1")).await.unwrap(), None);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_taken_up_where_it_broke() {
    let double = S3Double::start();
    let store = store(&double).await;
    let whole = long(20_000);
    store.create(&name("wal/1"), whole.clone()).await.unwrap();
    // Whoever began again each time would never see the end.
    double.misbehave(Rule::always(Fault::CutAfter(3_000)).on(Verb::Get));
    let before = double.requests(Verb::Get);
    assert_eq!(store.read(&name("wal/1")).await.unwrap().unwrap(), whole);
    assert_eq!(double.requests(Verb::Get) - before, 7, "seven parts of 3000 bytes at most");
    assert_eq!(store.read_range(&name("wal/1"), 5_000, 10_000).await.unwrap().unwrap(), whole.slice(5_000..15_000));
}

#[tokio::test]
async fn parts_of_two_contents_are_never_put_together() {
    let double = S3Double::start();
    let store = store(&double).await;
    store.replace(&name("lease/1"), content("the first content")).await.unwrap();
    double.misbehave(Rule::once(Fault::ReplacedAfter(6, b"another content!!")).on(Verb::Get));
    assert_eq!(store.read(&name("lease/1")).await.unwrap(), Some(content("another content!!")));
}

#[tokio::test]
async fn what_is_damaged_on_its_way_is_read_again_and_what_is_damaged_where_it_lies_is_told() {
    let double = S3Double::start();
    let store = store(&double).await;
    let whole = long(1_000);
    store.create(&name("wal/1"), whole.clone()).await.unwrap();
    double.misbehave(Rule::once(Fault::Flip(500)).on(Verb::Get));
    assert_eq!(store.read(&name("wal/1")).await.unwrap().unwrap(), whole);
    double.rot("prod/wal/1", 7);
    let error = store.read(&name("wal/1")).await.unwrap_err();
    assert!(matches!(error, StoreError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("wal/1") && error.to_string().contains("not what was written"), "{error}");
    double.place("prod/wal/2", b"from somebody who keeps no checksum");
    assert_eq!(store.read(&name("wal/2")).await.unwrap().unwrap(), "from somebody who keeps no checksum");
}

#[tokio::test]
async fn a_line_on_which_nothing_comes_is_left() {
    let double = S3Double::start();
    let store = store(&double).await;
    let whole = long(100_000);
    store.create(&name("wal/1"), whole.clone()).await.unwrap();
    double.misbehave(Rule::once(Fault::StallAfter(40_000)).on(Verb::Get));
    double.misbehave(Rule::once(Fault::Late(Duration::from_secs(60))).on(Verb::Put));
    let (begun, stalled, late) = (Instant::now(), name("wal/1"), name("wal/2"));
    let (read, created) = tokio::join!(store.read(&stalled), store.create(&late, content("x")));
    // The late one was written all the same.
    assert_eq!((read.unwrap().unwrap(), created.unwrap()), (whole, Claim::Taken));
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_server_that_comes_back_is_used_again() {
    let double = S3Double::start();
    let store = store(&double).await;
    double.close();
    let object = name("wal/1");
    let (claim, ()) = tokio::join!(store.create(&object, content("x")), async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        double.open();
    });
    assert_eq!(claim.unwrap(), Claim::Won);
}

#[tokio::test]
async fn patience_ends_and_its_end_says_what_was_wrong() {
    let double = S3Double::start();
    let store = store(&double).await;
    double.misbehave(Rule::once(Refusal::slow_down()));
    let before = double.all_requests();
    assert!(store.with_patience(Duration::ZERO).size(&name("wal/1")).await.is_err());
    assert_eq!(double.all_requests() - before, 1, "without patience it asks once");
    double.close();
    let begun = Instant::now();
    let error = store.with_patience(Duration::from_secs(1)).read(&name("wal/1")).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }) && begun.elapsed() < Duration::from_secs(4), "{error} {:?}", begun.elapsed());
    for part in ["wal/1", &double.endpoint(), "refused", "times in 1 s"] {
        assert!(error.to_string().contains(part), "'{part}' in: {error}");
    }
}

#[tokio::test]
async fn a_line_that_breaks_each_time_is_told_as_that() {
    let double = S3Double::start();
    let store = store(&double).await.with_patience(Duration::from_millis(300));
    double.misbehave(Rule::always(Fault::Hangup));
    for error in [store.read(&name("wal/1")).await.unwrap_err(), store.create(&name("wal/1"), content("x")).await.unwrap_err()] {
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
        assert!(error.to_string().contains(&double.endpoint()) && !error.to_string().contains("credentials"), "{error}");
    }
}

#[tokio::test]
async fn no_more_is_asked_than_it_takes() {
    let double = S3Double::start();
    let store = store(&double).await;
    let was = double.all_requests();
    store.create(&name("wal/1"), content("x")).await.unwrap();
    assert_eq!(double.all_requests() - was, 1, "to archive takes one request");
    store.read(&name("wal/1")).await.unwrap();
    assert_eq!(double.all_requests() - was, 2, "and so does to restore");
    S3Store::open(&double.config("prod")).await.unwrap();
    assert_eq!(double.all_requests() - was, 3, "to open it takes one");
}

#[tokio::test]
async fn a_list_is_complete_or_an_error() {
    let double = S3Double::start_with(crate::s3::Settings { page: 7, ..Default::default() });
    let store = store(&double).await;
    for number in 0..100 {
        double.place(&format!("prod/wal/{number:03}"), b"xy");
    }
    double.place("prod/wal/no name & of <ours>", b"");
    double.place("prod/wal/", b"");
    double.misbehave(Rule::once(Refusal::slow_down()).on(Verb::List).after(5));
    let listed = store.list(&name("wal")).await.unwrap();
    let expected: Vec<_> = (0..100).map(|number| (format!("wal/{number:03}"), 2)).collect();
    assert_eq!(listed.iter().map(|object| (object.name.to_string(), object.size)).collect::<Vec<_>>(), expected);
    double.misbehave(Rule::always(Refusal::access_denied()).on(Verb::List).after(5));
    assert!(matches!(store.list(&name("wal")).await, Err(StoreError::Refused { .. })));
}
