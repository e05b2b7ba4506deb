//! A store that answers, but late.

use std::time::Duration;

use serde_json::json;

use super::{cluster::Cluster, writer::Writer};

#[test]
fn answers_that_come_two_seconds_late_lose_nothing_and_all_is_well_afterwards() {
    let Some(cluster) = Cluster::start_on_a_slow_path(&json!({"synchronous_mode": "quorum"})) else { return };
    let writer = Writer::start(&cluster);
    let leader = cluster.leader().unwrap().name.clone();
    cluster.delay_etcd(Duration::from_secs(2));
    std::thread::sleep(Duration::from_secs(20));
    writer.wait_for_more();
    assert_eq!(cluster.leader().map(|l| &l.name), Some(&leader), "nothing is wrong with the primary");
    cluster.delay_etcd(Duration::ZERO);
    writer.check(&cluster);
}

#[test]
fn answers_that_come_a_little_late_are_not_noticed() {
    let Some(cluster) = Cluster::start_on_a_slow_path(&json!({"synchronous_mode": "quorum"})) else { return };
    let writer = Writer::start(&cluster);
    let leader = cluster.leader().unwrap().name.clone();
    cluster.delay_etcd(Duration::from_millis(300));
    std::thread::sleep(Duration::from_secs(15));
    writer.wait_for_more();
    assert_eq!(cluster.leader().map(|l| &l.name), Some(&leader));
    cluster.delay_etcd(Duration::ZERO);
    writer.check(&cluster);
}
