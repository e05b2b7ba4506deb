//! Coming back without ever losing a copy: which timeline a member is on, what it is followed by, what is kept of what it had.

use std::{fs, time::Duration};

use serde_json::json;
use spilo::{
    dcs::{Dcs, Etcd, snapshot::TimelineKey},
    model::{MemberName, Timeline},
};

use super::{
    cluster::{Cluster, LIMIT},
    writer::Writer,
};
use crate::support::{block, wait_until};

/// Reads what the DCS has of timelines, or writes it in the leader's name.
fn timelines(cluster: &Cluster, write: Option<(&str, TimelineKey)>) -> TimelineKey {
    block(async {
        let dcs = Etcd::connect(&cluster.etcd.config("real"), Duration::from_secs(5)).await.unwrap();
        let seen = dcs.snapshot().await.unwrap();
        let Some((leader, key)) = write else { return seen.timelines };
        let leader: MemberName = leader.parse().unwrap();
        assert!(dcs.put_timelines(&leader, &key, seen.timelines_version).await.unwrap());
        key
    })
}

fn timeline_of(cluster: &Cluster, name: &str) -> u64 {
    let node = cluster.nodes.iter().find(|n| n.name == name).unwrap();
    node.get("/patroni").1["timeline"].as_u64().unwrap_or_default()
}

#[test]
fn a_timeline_that_somebody_else_may_have_begun_is_never_begun_again() {
    let Some(mut cluster) = Cluster::start() else { return };
    let writer = Writer::start(&cluster);
    let first = cluster.leader().unwrap().name.clone();
    // As if leaders had come and gone of whom nothing else is left.
    timelines(&cluster, Some((&first, TimelineKey { reserved: 4, by: "gone".into(), begun: None })));
    cluster.node(&first).lose_host();
    let second = cluster.wait_for_another_leader(&first);
    assert_eq!(timeline_of(&cluster, &second), 5);
    cluster.node(&first).start();
    cluster.wait_healthy();
    wait_until("the new timeline is recorded", LIMIT, || {
        timelines(&cluster, None) == TimelineKey { reserved: 5, by: second.clone(), begun: Some(Timeline(5)) }
    });
    // Those who followed know enough to go on from there, also when they start anew.
    cluster.nodes.iter_mut().for_each(super::cluster::Node::lose_host);
    cluster.nodes.iter_mut().for_each(super::cluster::Node::start);
    wait_until("somebody leads", LIMIT, || cluster.leader().is_some());
    cluster.wait_healthy();
    let third = cluster.leader().unwrap().name.clone();
    cluster.node(&third).lose_host();
    let fourth = cluster.wait_for_another_leader(&third);
    assert!(timeline_of(&cluster, &fourth) > timeline_of(&cluster, &third).max(5));
    cluster.node(&third).start();
    writer.check(&cluster);
}

#[test]
fn a_standby_that_somebody_promoted_by_hand_does_not_mix_its_history_into_the_cluster() {
    let Some(mut cluster) = Cluster::start_with(&json!({"synchronous_mode": "off"})) else { return };
    let writer = Writer::start(&cluster);
    let (leader, strayed) = (cluster.leader().unwrap().name.clone(), cluster.replica().name.clone());
    cluster.node(&strayed).stop();
    let node = cluster.node(&strayed);
    node.pg_ctl(&["start"]);
    node.pg_ctl(&["promote"]);
    node.execute("create table strayed (t text)");
    node.pg_ctl(&["stop", "-m", "fast"]);
    // It looks like a standby again, on the second timeline; and so will the cluster be.
    fs::write(node.path("data/standby.signal"), "").unwrap();
    node.pg_ctl(&["start"]);
    node.pg_ctl(&["stop", "-m", "fast"]);
    cluster.node(&leader).stop();
    let next = cluster.wait_for_another_leader(&leader);
    assert_eq!(timeline_of(&cluster, &next), 2);
    cluster.node(&leader).start();
    cluster.node(&strayed).start();
    cluster.wait_healthy();
    let strays = cluster.node(&strayed).query("select count(*)::text from pg_class where relname = 'strayed'").unwrap();
    assert_eq!(strays, "0", "{}", cluster.node(&strayed).log());
    writer.check(&cluster);
}
