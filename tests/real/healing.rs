//! Members that cannot come back as they are: they heal by themselves, from the leader.

use std::time::Duration;

use serde_json::json;

use super::{
    cluster::{Cluster, LIMIT},
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
