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
    timelines(&cluster, Some((&first, TimelineKey { reserved: 4, by: "gone".into(), begun: None, remote: None })));
    cluster.node(&first).lose_host();
    let second = cluster.wait_for_another_leader(&first);
    assert_eq!(timeline_of(&cluster, &second), 5);
    cluster.node(&first).start();
    cluster.wait_healthy();
    wait_until("the new timeline is recorded", LIMIT, || {
        timelines(&cluster, None) == TimelineKey { reserved: 5, by: second.clone(), begun: Some(Timeline(5)), remote: None }
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

#[test]
fn a_primary_whose_disk_is_full_hands_over_and_comes_back_when_there_is_room() {
    let Some(mut cluster) = Cluster::start() else { return };
    let leader = cluster.leader().unwrap().name.clone();
    // It leads on: the others wait for it.
    cluster.node(&leader).stop();
    let Some(disk) = cluster.node(&leader).move_to_small_disk(300) else { return };
    cluster.node(&leader).start();
    cluster.wait_healthy();
    let other = cluster.leader().unwrap().name.clone();
    let body = json!({"leader": other, "candidate": leader});
    assert_eq!(cluster.node(&other).request("POST", "/switchover", Some(&body)).0, 200);
    cluster.wait_healthy();
    let writer = Writer::start(&cluster);
    disk.fill();
    // PostgreSQL cannot go on to its next segment.
    let _ = cluster.node(&leader).query("select pg_switch_wal()::text");
    let next = cluster.wait_for_another_leader(&leader);
    writer.wait_for_more();
    let trouble = |cluster: &mut Cluster| cluster.node(&leader).get("/patroni").1["trouble"].clone();
    wait_until("it says why", LIMIT, || trouble(&mut cluster) == "disk full");
    let before = timeline_of(&cluster, &next);
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(cluster.leader().map(|l| l.name.clone()), Some(next.clone()), "a full disk wins nothing back");
    assert_eq!(timeline_of(&cluster, &next), before);
    disk.clear();
    cluster.wait_healthy();
    assert_eq!(trouble(&mut cluster), serde_json::Value::Null);
    writer.check(&cluster);
    cluster.nodes.iter_mut().for_each(super::cluster::Node::lose_host);
}

#[test]
fn a_replica_whose_disk_is_full_stays_one_and_begins_no_timeline() {
    let Some(mut cluster) = Cluster::start() else { return };
    let name = cluster.replica().name.clone();
    cluster.node(&name).stop();
    let Some(disk) = cluster.node(&name).move_to_small_disk(300) else { return };
    cluster.node(&name).start();
    cluster.wait_healthy();
    let writer = Writer::start(&cluster);
    disk.fill();
    let leader = cluster.leader().unwrap().name.clone();
    for _ in 0..3 {
        cluster.node(&leader).execute("create table if not exists filling (t text)");
        cluster.node(&leader).execute("insert into filling select repeat('x', 1000) from generate_series(1, 20000)");
        cluster.node(&leader).execute("select pg_switch_wal()");
    }
    wait_until("it says why", LIMIT, || cluster.node(&name).get("/patroni").1["trouble"] == "disk full");
    writer.wait_for_more();
    assert_eq!(cluster.node(&name).get("/patroni").1["role"], "replica");
    assert_eq!(cluster.leader().map(|l| l.name.clone()), Some(leader.clone()));
    assert_eq!(timeline_of(&cluster, &leader), 1);
    disk.clear();
    writer.check(&cluster);
    assert!(!cluster.node(&name).log().contains(" anew"), "it was not copied anew");
    cluster.nodes.iter_mut().for_each(super::cluster::Node::lose_host);
}

#[test]
fn data_are_never_replaced_because_of_a_bad_parameter() {
    let Some(mut cluster) = Cluster::start() else { return };
    let writer = Writer::start(&cluster);
    let name = cluster.replica().name.clone();
    for (parameter, bad) in [("shared_preload_libraries", json!("no_such_library")), ("work_mem", json!("nonsense"))] {
        let node = cluster.node(&name);
        node.stop();
        node.edit_config(|config| config["postgresql"]["parameters"][parameter] = bad.clone());
        node.start();
        let says = |node: &super::cluster::Node| node.get("/patroni").1["trouble"].as_str().unwrap_or_default().to_owned();
        let word = if parameter == "work_mem" { parameter } else { "no_such_library" };
        wait_until("it says what is wrong", LIMIT, || says(node).contains(word));
        wait_until("it was tried often enough to be taken for broken", LIMIT, || node.log().matches("PostgreSQL ended").count() > 5);
        assert!(!node.log().contains(" anew"), "{}", node.log());
        assert!(!node.path("data.old").exists());
        node.stop();
        node.edit_config(|config| drop(config["postgresql"]["parameters"].as_object_mut().unwrap().remove(parameter)));
        node.start();
        cluster.wait_healthy();
        fs::write(cluster.node(&name).path("log"), "").unwrap();
    }
    writer.check(&cluster);
}

#[test]
fn a_copy_that_is_killed_again_and_again_is_completed_in_the_end() {
    let Some(mut cluster) = Cluster::start() else { return };
    let writer = Writer::start(&cluster);
    let name = cluster.replica().name.clone();
    cluster.node(&name).lose_host();
    cluster.node(&name).break_data();
    // Long enough to be hit at any point.
    cluster.node(&name).replace_program("pg_basebackup", "\"$REAL\" --max-rate=30M \"$@\"; code=$?; sleep 0.3; exit $code");
    for round in 0..10_u64 {
        cluster.node(&name).start();
        std::thread::sleep(Duration::from_millis(2500 + round * 700));
        if round % 2 == 0 {
            cluster.node(&name).lose_host();
        } else {
            if let Some(agent) = cluster.node(&name).agent_pid_if_any() {
                super::cluster::send(agent, rustix::process::Signal::KILL);
            }
            std::thread::sleep(Duration::from_millis(500));
            cluster.node(&name).lose_host();
        }
    }
    cluster.node(&name).start();
    cluster.wait_healthy();
    wait_until("nothing is left behind", LIMIT, || {
        ["data.clone", "data.old", "data.dropped"].iter().all(|rest| !cluster.node(&name).path(rest).exists())
    });
    writer.check(&cluster);
}

#[test]
fn a_replica_whose_slot_was_lost_is_copied_anew() {
    let settings = json!({"synchronous_mode": "quorum", "postgresql": {"use_pg_rewind": true, "parameters": {
        "wal_keep_size": "0", "min_wal_size": "32MB", "max_wal_size": "48MB", "max_slot_wal_keep_size": "32MB"}}});
    let Some(mut cluster) = Cluster::start_with(&settings) else { return };
    let writer = Writer::start(&cluster);
    let name = cluster.replica().name.clone();
    cluster.node(&name).lose_host();
    let leader = cluster.leader().unwrap().name.clone();
    cluster.node(&leader).execute("create table filling (t text)");
    let lost = format!("select (wal_status = 'lost')::text from pg_replication_slots where slot_name = '{name}'");
    wait_until("the slot is lost", LIMIT, || {
        cluster.node(&leader).execute("insert into filling select repeat('x', 1000) from generate_series(1, 10000)");
        cluster.node(&leader).execute("select pg_switch_wal()");
        cluster.node(&leader).execute("checkpoint");
        cluster.node(&leader).query(&lost).map_or(true, |lost| lost == "true")
    });
    cluster.node(&name).start();
    cluster.wait_healthy();
    assert!(cluster.node(&name).log().contains("has no longer the WAL"), "it was not lost after all");
    writer.check(&cluster);
}

#[test]
fn a_former_primary_that_somebody_starts_by_hand_is_read_only() {
    let Some(mut cluster) = Cluster::start() else { return };
    let former = cluster.leader().unwrap().name.clone();
    cluster.node(&former).kill_guard();
    cluster.wait_for_another_leader(&former);
    wait_until("its server has ended", LIMIT, || cluster.node(&former).postmaster_pid().is_none());
    cluster.node(&former).pg_ctl(&["start"]);
    assert_eq!(cluster.node(&former).query("select pg_is_in_recovery()::text").unwrap(), "true");
    cluster.node(&former).pg_ctl(&["stop", "-m", "fast"]);
    cluster.node(&former).start();
    cluster.wait_healthy();
}
