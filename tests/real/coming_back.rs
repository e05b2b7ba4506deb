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

/// Lets a former primary write what nobody else will ever have, and stop as if its power had failed.
fn stray(cluster: &mut Cluster, name: &str, options: &str) {
    let node = cluster.node(name);
    node.pg_ctl(&["start", "-o", &format!("-c synchronous_standby_names='' {options}")]);
    node.execute("create table strayed as select generate_series(1, 1000)");
    node.execute("select pg_switch_wal()");
    node.execute("insert into strayed select 7");
    node.pg_ctl(&["stop", "-m", "immediate"]);
}

#[test]
fn what_a_former_primary_alone_has_is_archived_and_kept_aside_before_it_is_rewound() {
    let archive = json!({"archive_mode": "on", "archive_command": "mkdir -p ../archive && cp %p ../archive/%f"});
    let settings = json!({"synchronous_mode": "quorum", "postgresql": {"use_pg_rewind": true, "parameters": archive}});
    let Some(mut cluster) = Cluster::start_with(&settings) else { return };
    let writer = Writer::start(&cluster);
    let former = cluster.leader().unwrap().name.clone();
    cluster.node(&former).lose_host();
    cluster.wait_for_another_leader(&former);
    stray(&mut cluster, &former, "-c archive_command=false");
    let node = cluster.node(&former);
    let waiting = fs::read_dir(node.path("data/pg_wal/archive_status")).unwrap().flatten();
    let waiting: Vec<String> = waiting.filter_map(|e| Some(e.file_name().to_str()?.strip_suffix(".ready")?.to_owned())).collect();
    assert!(!waiting.is_empty());
    node.start();
    cluster.wait_healthy();
    let node = cluster.node(&former);
    assert!(node.log().contains("rewound to the history"), "{}", node.log());
    for name in waiting {
        assert!(node.path("archive").join(&name).exists(), "'{name}' was not archived");
    }
    let sets: Vec<_> = fs::read_dir(node.path("data.diverged")).unwrap().flatten().map(|e| e.path()).collect();
    assert_eq!(sets.len(), 1);
    let story = fs::read_to_string(sets[0].join("README")).unwrap();
    assert!(story.contains(&format!("WAL of '{former}'")) && story.contains("parted:             on timeline 1 at "), "{story}");
    assert!(fs::read_dir(&sets[0]).unwrap().flatten().any(|e| e.file_name().len() == 24), "no segment is there");
    writer.check(&cluster);
}

#[test]
fn a_rewind_whose_source_dies_half_way_is_never_started_and_done_again() {
    let Some(mut cluster) = Cluster::start_with(&json!({"synchronous_mode": "off"})) else { return };
    let former = cluster.leader().unwrap().name.clone();
    cluster.node(&former).lose_host();
    let second = cluster.wait_for_another_leader(&former);
    stray(&mut cluster, &former, "");
    // The first attempt has already destroyed something when its source goes away.
    let script = "if [ ! -e $DIR/again ]; then touch $DIR/again; echo broken > $DIR/data/global/pg_filenode.map
        touch $DIR/begun; while [ ! -e $DIR/go-on ]; do sleep 0.1; done; fi; exec $REAL \"$@\"";
    let node = cluster.node(&former);
    node.replace_program("pg_rewind", script);
    node.start();
    let begun = node.path("begun");
    wait_until("the rewind has begun", LIMIT, || begun.exists());
    let starts = |cluster: &mut Cluster| cluster.node(&former).log().matches("starting PostgreSQL 1").count();
    let before = starts(&mut cluster);
    cluster.node(&second).lose_host();
    fs::write(cluster.node(&former).path("go-on"), "").unwrap();
    wait_until("the failure is noticed", LIMIT, || cluster.node(&former).log().contains("Rejoin failed"));
    let third = cluster.wait_for_another_leader(&second);
    assert_ne!(third, former);
    let streams = format!("select count(*)::text from pg_stat_replication where application_name = '{former}' and state = 'streaming'");
    wait_until("it streams from the third", LIMIT, || cluster.node(&third).query(&streams).is_ok_and(|count| count == "1"));
    assert_eq!(starts(&mut cluster), before + 1, "it was started between the failure and the repair");
    cluster.node(&second).start();
    cluster.wait_healthy();
    let strays = cluster.node(&former).query("select count(*)::text from pg_class where relname = 'strayed'").unwrap();
    assert_eq!(strays, "0");
}
