//! Whatever is lost, clients go on through the same port, and no acknowledged row is missing.

use futures_util::future::join_all;

use super::cluster::{Cluster, LIMIT};
use crate::{
    harm::{disconnect, kill, pause, remove},
    shared::{block, writer::Writer},
};

#[test]
fn losing_any_one_container_loses_no_acknowledged_row() {
    let Some(cluster) = Cluster::new("loss") else { return };
    cluster.create(3);
    let writer = cluster.writer();
    let network = cluster.network();
    without_the_primary(&cluster, &writer, "killed", async |primary| kill(&primary).await);
    without_the_primary(&cluster, &writer, "removed", async |primary| remove(&primary).await);
    without_the_primary(&cluster, &writer, "paused", async |primary| pause(&primary).await);
    without_the_primary(&cluster, &writer, "disconnected", async |primary| disconnect(&network, &primary).await);
    without_a_replica(&cluster, &writer);
    without_the_router(&cluster, &writer);
    without_etcd_for_a_moment(&cluster, &writer);
    let acknowledged = writer.stop();
    cluster.expect_rows(&acknowledged);
    println!("{} acknowledged rows are all there", acknowledged.len());
}

/// Others take over by themselves; `apply` brings the lost one back.
fn without_the_primary(cluster: &Cluster, writer: &Writer, how: &str, harm: impl AsyncFn(String)) {
    let lost = cluster.leader();
    block(harm(cluster.container(&lost)));
    let outage = writer.wait_for_more(LIMIT);
    println!("primary {how}: writes go on after {outage:?}");
    assert_ne!(cluster.leader(), lost);
    cluster.spilo(&["status", &cluster.name]).exits(20).prints(&format!("'{lost}' "));
    cluster.apply();
    writer.wait_for_more(LIMIT);
    cluster.expect_rows(&writer.acknowledged());
}

fn without_a_replica(cluster: &Cluster, writer: &Writer) {
    let leader = cluster.leader();
    block(kill(&cluster.container(&cluster.other_than(&leader))));
    let outage = writer.wait_for_more(LIMIT);
    println!("replica killed: writes go on after {outage:?}");
    cluster.apply();
    assert_eq!(cluster.leader(), leader, "losing a replica changes no leader");
}

/// Nobody but `apply` can publish the port again.
fn without_the_router(cluster: &Cluster, writer: &Writer) {
    let leader = cluster.leader();
    block(kill(&cluster.container("router")));
    cluster.spilo(&["status", &cluster.name]).exits(21).prints("the router is stopped");
    cluster.apply();
    writer.wait_for_more(LIMIT);
    assert_eq!(cluster.leader(), leader, "losing the router changes no leader");
}

/// Longer than the lease perhaps: the primary leads on by what its voters promise.
fn without_etcd_for_a_moment(cluster: &Cluster, writer: &Writer) {
    block(kill(&cluster.container("etcd-1")));
    cluster.apply();
    writer.wait_for_more(LIMIT);
}

#[test]
fn losing_every_container_at_once_loses_no_acknowledged_row() {
    let Some(cluster) = Cluster::new("all") else { return };
    cluster.create(3);
    let writer = cluster.writer();
    without_anything(&cluster, &writer, "killed", async |container| kill(&container).await);
    without_anything(&cluster, &writer, "removed", async |container| remove(&container).await);
    cluster.expect_rows(&writer.stop());
}

fn without_anything(cluster: &Cluster, writer: &Writer, how: &str, harm: impl AsyncFn(String)) {
    writer.wait_for_more(LIMIT);
    let containers = cluster.containers();
    block(async { join_all(containers.into_iter().map(|container| harm(container))).await });
    cluster.spilo(&["status", &cluster.name]).exits(21);
    cluster.apply();
    cluster.expect_open();
    writer.wait_for_more(LIMIT);
    println!("all {how}: writes go on");
    cluster.expect_rows(&writer.acknowledged());
}
