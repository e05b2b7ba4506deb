//! The WAL archive, with PostgreSQL on both sides of it.

use serde_json::json;

use super::{
    cluster::{Cluster, LIMIT},
    tags::others,
};
use crate::support::wait_until;

/// As PostgreSQL has it: from the data directory.
const PUSH: &str =
    "mkdir -p ../../store && ../../spilo wal init --store ../../store && ../../spilo wal push --store ../../store --cluster orders %p %f";
const FETCH: &str = "../../spilo wal fetch --store ../../store --cluster orders %f %p";

#[test]
fn a_member_that_does_not_stream_lives_from_the_archive_through_a_failover() {
    let archive = json!({"archive_mode": "on", "archive_command": PUSH});
    let postgresql = json!({"use_pg_rewind": true, "parameters": archive, "recovery_conf": {"restore_command": FETCH}});
    let Some(mut cluster) = Cluster::start_with(&json!({"synchronous_mode": "quorum", "postgresql": postgresql})) else { return };
    let (leader, [_, silent]) = others(&cluster);
    cluster.node(&silent).reconfigure(&json!({"tags": {"nostream": true}}));
    let streams = "select count(*)::text from pg_stat_wal_receiver";
    wait_until("it does not stream", LIMIT, || cluster.node(&silent).query(streams).is_ok_and(|n| n == "0"));
    cluster.node(&leader).execute("create table archived as select generate_series(1, 1000) as i");
    cluster.node(&leader).execute("select pg_switch_wal()");
    let has = |cluster: &mut Cluster, rows: &str| {
        let count = "select count(*)::text from archived";
        wait_until("the rows came through the archive", LIMIT, || cluster.node(&silent).query(count).is_ok_and(|n| n == rows));
    };
    has(&mut cluster, "1000");
    cluster.node(&leader).lose_host();
    let successor = cluster.wait_for_another_leader(&leader);
    assert_ne!(successor, silent);
    cluster.node(&successor).execute("insert into archived select 1001");
    cluster.node(&successor).execute("select pg_switch_wal()");
    has(&mut cluster, "1001");
    assert_eq!(cluster.node(&silent).query(streams).unwrap(), "0");
    assert!(!cluster.node(&leader).path("../store/conflict").exists(), "nothing was archived with two contents");
}
