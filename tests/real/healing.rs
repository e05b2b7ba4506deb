//! Members that cannot come back as they are: they heal by themselves, from the leader.

use std::{
    fs,
    time::{Duration, Instant},
};

use serde_json::json;

use super::{
    cluster::{Cluster, LIMIT, is_alive},
    writer::Writer,
};
use crate::support::wait_until;

#[test]
fn a_replica_whose_wal_is_gone_is_copied_anew() {
    let settings = json!({
        "synchronous_mode": "quorum", "member_slots_ttl": 0,
        "postgresql": {"use_pg_rewind": true, "parameters": {"wal_keep_size": "0", "min_wal_size": "32MB"}}
    });
    let Some(mut cluster) = Cluster::start_with(&settings) else { return };
    let writer = Writer::start(&cluster);
    let name = cluster.replica().name.clone();
    cluster.node(&name).lose_host();
    let leader = cluster.leader().unwrap().name.clone();
    let slots = format!("select count(*)::text from pg_replication_slots where slot_name = '{name}'");
    wait_until("its slot is dropped", LIMIT, || cluster.node(&leader).query(&slots).is_ok_and(|count| count == "0"));
    for _ in 0..3 {
        cluster.node(&leader).execute("create table if not exists filling (t text)");
        cluster.node(&leader).execute("insert into filling select repeat('x', 1000) from generate_series(1, 5000)");
        cluster.node(&leader).execute("select pg_switch_wal()");
        cluster.node(&leader).execute("checkpoint");
    }
    cluster.node(&name).start();
    cluster.wait_healthy();
    assert!(cluster.node(&name).log().contains("has no longer the WAL"), "it was not lost after all");
    writer.check(&cluster);
}

#[test]
fn a_replica_that_cannot_be_started_is_copied_anew() {
    let Some(mut cluster) = Cluster::start() else { return };
    let writer = Writer::start(&cluster);
    let name = cluster.replica().name.clone();
    cluster.node(&name).lose_host();
    cluster.node(&name).break_data();
    cluster.node(&name).start();
    cluster.wait_healthy();
    writer.check(&cluster);
}

#[test]
fn a_replica_whose_data_were_deleted_while_it_ran_is_copied_anew() {
    let Some(cluster) = Cluster::start() else { return };
    let writer = Writer::start(&cluster);
    let replica = cluster.replica();
    let before = replica.postmaster_pid();
    replica.delete_data();
    // PostgreSQL looks for its lock file once a minute.
    wait_until("another server runs", Duration::from_secs(90), || replica.postmaster_pid().is_some_and(|pid| Some(pid) != before));
    cluster.wait_healthy();
    writer.check(&cluster);
}

#[test]
fn a_primary_whose_data_were_deleted_while_it_ran_is_replaced_and_copied_anew() {
    let Some(cluster) = Cluster::start() else { return };
    let writer = Writer::start(&cluster);
    let former = cluster.leader().unwrap();
    let before = former.postmaster_pid().unwrap();
    former.delete_data();
    let deleted = Instant::now();
    let next = cluster.wait_for_another_leader(&former.name);
    writer.wait_for_more();
    // PostgreSQL itself would notice within a minute.
    assert!(deleted.elapsed() < Duration::from_secs(20), "{:?}", deleted.elapsed());
    assert!(!is_alive(before), "the old server goes on in a directory that is not there");
    assert!(former.log().contains("the data directory has been deleted"), "{}", former.log());
    cluster.wait_healthy();
    assert_eq!(cluster.leader().map(|leader| leader.name.clone()), Some(next));
    assert_eq!(former.get("/patroni").1["role"], json!("replica"));
    writer.check(&cluster);
}

#[test]
fn a_copy_that_has_no_room_beside_the_old_data_says_so_and_is_made_when_there_is_some() {
    let Some(mut cluster) = Cluster::start() else { return };
    let writer = Writer::start(&cluster);
    let name = cluster.replica().name.clone();
    let node = cluster.node(&name);
    node.lose_host();
    let Some(disk) = node.move_to_small_disk(400) else { return };
    let data = node.path("disk/data");
    node.edit_config(|config| config["postgresql"]["data_dir"] = json!(data));
    // Without it no server starts.
    fs::remove_dir_all(data.join("pg_replslot")).unwrap();
    // More than a disk that counts as full, less than a copy.
    disk.fill_but(30);
    node.start();
    let trouble = |cluster: &Cluster| cluster.nodes.iter().find(|n| n.name == name).unwrap().get("/patroni").1["trouble"].clone();
    let said = |cluster: &Cluster| trouble(cluster).as_str().is_some_and(|text| text.contains("no room for a copy"));
    wait_until("it says what it lacks", LIMIT, || said(&cluster));
    let text = trouble(&cluster).to_string();
    assert!(text.contains("beside the old data") && text.contains("disk/data"), "{text}");
    assert!(data.join("PG_VERSION").exists() && !cluster.node(&name).path("disk/data.clone").exists());
    writer.wait_for_more();
    disk.clear();
    cluster.wait_healthy();
    assert_eq!(trouble(&cluster), json!(null));
    writer.check(&cluster);
}

#[test]
fn a_member_that_is_told_to_end_ends_without_the_dcs_too() {
    let Some(mut cluster) = Cluster::start() else { return };
    let names: Vec<String> = [cluster.replica().name.clone(), cluster.leader().unwrap().name.clone()].into();
    cluster.etcd.freeze();
    for name in names {
        let begun = std::time::Instant::now();
        cluster.node(&name).stop();
        assert!(begun.elapsed() < Duration::from_secs(20), "{name} took {:?}", begun.elapsed());
    }
    cluster.etcd.thaw();
}
