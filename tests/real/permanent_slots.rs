//! A consumer of a permanent slot and a failover.

use serde_json::json;

use super::{
    cluster::{Cluster, LIMIT},
    writer::Writer,
};
use crate::support::wait_until;

#[test]
fn a_consumer_finds_no_gap_after_a_failover() {
    let settings = json!({
        "synchronous_mode": "quorum", "slots": {"consumer": {"type": "physical"}},
        "postgresql": {"use_pg_rewind": true, "parameters": {"wal_keep_size": "0", "min_wal_size": "32MB", "max_wal_size": "32MB"}}
    });
    let Some(mut cluster) = Cluster::start_with(&settings) else { return };
    let writer = Writer::start(&cluster);
    let leader = cluster.leader().unwrap().name.clone();
    let there = "select count(*)::text from pg_replication_slots where slot_name = 'consumer' and restart_lsn is not null";
    wait_until("everybody has the slot", LIMIT, || cluster.nodes.iter().all(|n| n.query(there).is_ok_and(|count| count == "1")));
    writer.wait_for_more();
    // This is how far the consumer has come.
    cluster.node(&leader).execute("select pg_replication_slot_advance('consumer', pg_current_wal_flush_lsn())");
    let consumed = cluster.node(&leader).query("select restart_lsn::text from pg_replication_slots where slot_name = 'consumer'").unwrap();
    let segment = cluster.node(&leader).query(&format!("select substr(pg_walfile_name('{consumed}'), 9)")).unwrap();
    for _ in 0..4 {
        cluster.node(&leader).execute("create table if not exists filling (t text)");
        cluster.node(&leader).execute("insert into filling select repeat('x', 1000) from generate_series(1, 20000)");
        cluster.node(&leader).execute("select pg_switch_wal()");
        cluster.wait_healthy();
        cluster.nodes.iter().for_each(|node| node.execute("checkpoint"));
    }
    cluster.node(&leader).lose_host();
    let next = cluster.wait_for_another_leader(&leader);
    let reaches = format!(
        "select (restart_lsn <= '{consumed}' and wal_status <> 'lost')::text from pg_replication_slots where slot_name = 'consumer'"
    );
    assert_eq!(cluster.node(&next).query(&reaches).unwrap(), "true");
    let kept = format!("select (count(*) > 0)::text from pg_ls_waldir() where substr(name, 9) = '{segment}'");
    assert_eq!(cluster.node(&next).query(&kept).unwrap(), "true", "the WAL that the consumer needs next");
    cluster.node(&leader).start();
    cluster.wait_healthy();
    writer.check(&cluster);
}

#[test]
fn a_logical_slot_is_refused_with_the_version_that_cannot_keep_it() {
    let Some(cluster) = Cluster::start_with(&json!({"synchronous_mode": "off"})) else { return };
    let leader = cluster.leader().unwrap();
    let version: u32 = leader.query("show server_version_num").unwrap().parse::<u32>().unwrap() / 10_000;
    let feed = json!({"slots": {"feed": {"type": "logical", "database": "postgres", "plugin": "pgoutput"}}});
    let (code, text) = leader.request("PATCH", "/config", Some(&feed));
    assert!(code >= 400 && text.to_string().contains("slots.feed") && text.to_string().contains("wal_level"), "{code} {text}");
    if version < 17 {
        assert!(text.to_string().contains(&format!("this is {version}")), "{text}");
    }
    assert_eq!(leader.query("select count(*)::text from pg_replication_slots where slot_type = 'logical'").unwrap(), "0");
}
