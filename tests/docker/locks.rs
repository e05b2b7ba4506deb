//! One operation per cluster at a time, and nobody waits for the dead.

use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use bollard::{
    models::VolumeCreateRequest,
    query_parameters::{ListVolumesOptionsBuilder, RemoveVolumeOptions},
};
use jiff::{SignedDuration, Timestamp};
use spilo::{
    model::ClusterName,
    provisioner::{LockRecord, Platform as _, ProvisionError},
};

use crate::support::{Scratch, client, engine};

async fn locks_of(name: &ClusterName) -> Vec<String> {
    let wanted = vec![format!("io.spilo.cluster={name}"), "io.spilo.kind=lock".to_owned()];
    let options = ListVolumesOptionsBuilder::default().filters(&HashMap::from([("label", wanted)])).build();
    client().await.list_volumes(Some(options)).await.unwrap().volumes.unwrap_or_default().into_iter().map(|volume| volume.name).collect()
}

async fn put_lock(name: &ClusterName, record: &str) {
    let labels = [("io.spilo.managed", "true"), ("io.spilo.cluster", name.as_str()), ("io.spilo.kind", "lock"), ("io.spilo.lock", record)];
    let request = VolumeCreateRequest {
        name: Some(format!("spilo-{name}-lock-planted")),
        labels: Some(labels.map(|(label, value)| (label.to_owned(), value.to_owned())).into()),
        ..Default::default()
    };
    client().await.create_volume(request).await.unwrap();
}

#[tokio::test]
async fn a_second_operation_is_told_who_is_at_work() {
    let Some(scratch) = Scratch::new(1).await else { return };
    let held = scratch.platform.acquire_lock(&scratch.name, "scale it").await.unwrap();
    let error = scratch.platform.acquire_lock(&scratch.name, "delete it").await.unwrap_err();
    assert!(matches!(error, ProvisionError::Busy { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("'scale it'") && text.contains(&format!("process {}", std::process::id())), "{text}");
    assert_eq!(locks_of(&scratch.name).await, std::slice::from_ref(&held.object), "the refused one left nothing");
    scratch.platform.release_lock(&held).await.unwrap();
    let next = scratch.platform.acquire_lock(&scratch.name, "delete it").await.unwrap();
    scratch.platform.release_lock(&next).await.unwrap();
    assert!(locks_of(&scratch.name).await.is_empty());
}

#[tokio::test]
async fn clusters_do_not_lock_each_other() {
    let (Some(one), Some(other)) = (Scratch::new(1).await, Scratch::new(1).await) else { return };
    one.platform.acquire_lock(&one.name, "x").await.unwrap();
    other.platform.acquire_lock(&other.name, "x").await.unwrap();
}

#[tokio::test]
async fn of_many_who_come_at_once_never_two_get_it() {
    let Some(scratch) = Scratch::new(1).await else { return };
    for _ in 0..5 {
        let contenders = (0..4).map(|_| scratch.platform.acquire_lock(&scratch.name, "race"));
        let won: Vec<_> = futures_util::future::join_all(contenders).await.into_iter().filter_map(Result::ok).collect();
        assert!(won.len() <= 1, "{won:?}");
        for lock in won {
            scratch.platform.release_lock(&lock).await.unwrap();
        }
    }
    assert!(locks_of(&scratch.name).await.is_empty());
}

#[tokio::test]
async fn a_renewed_lock_is_still_one_and_a_lost_one_is_noticed() {
    let Some(scratch) = Scratch::new(1).await else { return };
    let held = scratch.platform.acquire_lock(&scratch.name, "x").await.unwrap();
    let renewed = scratch.platform.renew_lock(&held).await.unwrap();
    assert_eq!(locks_of(&scratch.name).await, std::slice::from_ref(&renewed.object));
    assert_eq!(renewed.record.since, held.record.since);
    assert!(renewed.record.expires > held.record.expires);
    client().await.remove_volume(&renewed.object, None::<RemoveVolumeOptions>).await.unwrap();
    assert!(matches!(scratch.platform.renew_lock(&renewed).await, Err(ProvisionError::LockLost { .. })));
}

#[tokio::test]
async fn an_expired_lock_of_another_machine_is_passed_over_and_a_valid_one_is_not() {
    let Some(scratch) = Scratch::new(1).await else { return };
    let elsewhere = LockRecord { machine: "elsewhere".into(), ..LockRecord::of_this_process("x", Timestamp::now()) };
    put_lock(&scratch.name, &serde_json::to_string(&elsewhere).unwrap()).await;
    assert!(matches!(scratch.platform.acquire_lock(&scratch.name, "y").await, Err(ProvisionError::Busy { .. })));
    client().await.remove_volume(&locks_of(&scratch.name).await[0], None::<RemoveVolumeOptions>).await.unwrap();
    let expired = LockRecord { expires: Timestamp::now() - SignedDuration::from_secs(1), ..elsewhere };
    put_lock(&scratch.name, &serde_json::to_string(&expired).unwrap()).await;
    let held = scratch.platform.acquire_lock(&scratch.name, "y").await.unwrap();
    assert_eq!(locks_of(&scratch.name).await, [held.object]);
}

#[tokio::test]
async fn a_lock_that_cannot_be_read_is_respected() {
    let Some(scratch) = Scratch::new(1).await else { return };
    put_lock(&scratch.name, "{\"from\": \"the future\"}").await;
    assert!(matches!(scratch.platform.acquire_lock(&scratch.name, "y").await, Err(ProvisionError::Busy { .. })));
}

/// Names the cluster to the process that holds its lock until it is killed.
const HOLD: &str = "TEST_LOCK_OF";

async fn hold_until_killed(name: &str) {
    let platform = engine().await.expect("the parent has an engine");
    platform.acquire_lock(&name.parse().unwrap(), "hold").await.unwrap();
    println!("held");
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_lock_dies_with_a_process_that_is_killed() {
    if let Ok(name) = std::env::var(HOLD) {
        return hold_until_killed(&name).await;
    }
    let Some(scratch) = Scratch::new(1).await else { return };
    let mut holder = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "locks::a_lock_dies_with_a_process_that_is_killed", "--nocapture"])
        .env(HOLD, scratch.name.as_str())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(holder.stdout.take().unwrap());
    assert!(output.lines().map_while(Result::ok).any(|line| line.contains("held")), "the holder never held it");
    assert!(matches!(scratch.platform.acquire_lock(&scratch.name, "next").await, Err(ProvisionError::Busy { .. })));
    holder.kill().unwrap();
    holder.wait().unwrap();
    scratch.platform.acquire_lock(&scratch.name, "next").await.unwrap();
    assert_eq!(locks_of(&scratch.name).await.len(), 1, "the dead one's lock is gone");
}
