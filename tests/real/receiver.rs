//! A standby that has lost its WAL receiver.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use spilo::dcs::{Dcs, Etcd};

use super::cluster::{Cluster, LIMIT, send};
use crate::support::{block, wait_until};

/// What the DCS has of how a member is connected.
fn replication_state(cluster: &Cluster, name: &str) -> Option<Value> {
    block(async {
        let dcs = Etcd::connect(&cluster.etcd.config("real"), Duration::from_secs(5)).await.unwrap();
        let members = dcs.snapshot().await.unwrap().members;
        let member = members.into_iter().find(|(member, _)| member.as_str() == name).expect("it is a member").1;
        serde_json::to_value(member).unwrap().get("replication_state").cloned()
    })
}

#[test]
fn a_standby_says_at_once_that_it_has_lost_its_receiver() {
    // So long that no tick comes in between, and a receiver that is not there again before anybody could look.
    let slow = json!({"ttl": 60, "loop_wait": 20, "retry_timeout": 10, "synchronous_mode": "off",
        "postgresql": {"use_pg_rewind": true, "parameters": {"wal_retrieve_retry_interval": "60s"}}});
    let Some(cluster) = Cluster::start_with(&slow) else { return };
    let standby = cluster.replica();
    let streaming = || replication_state(&cluster, &standby.name) == Some(json!("streaming"));
    wait_until("it says that it streams", Duration::from_secs(45), streaming);
    let receiver = || standby.query("select pid::text from pg_stat_wal_receiver").ok()?.parse::<i32>().ok();
    let end = |pid: i32| send(pid, Signal::TERM);
    let first = receiver().expect("it streams");
    let mut begun = Instant::now();
    end(first);
    // A startup process that has not failed to get WAL before starts the next receiver at once and waits after that one only.
    std::thread::sleep(Duration::from_secs(2));
    if let Some(second) = receiver() {
        assert_ne!(first, second, "the receiver ends when it is told to");
        wait_until("it says again that it streams", LIMIT, streaming);
        begun = Instant::now();
        end(second);
    }
    wait_until("it says that it does not", LIMIT, || !streaming());
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}
