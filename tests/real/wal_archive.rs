//! The WAL archive, with PostgreSQL on both sides of it.

use std::{collections::BTreeSet, path::Path, process::Command};

use serde_json::json;

use super::{
    cluster::{Cluster, LIMIT, as_other_user, own},
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

/// A cluster whose agents archive, in a store in a directory beside the members. Segments have a megabyte.
pub fn archiving() -> Option<Cluster> {
    let mut cluster = Cluster::unstarted(&json!({"synchronous_mode": "quorum", "postgresql": {"use_pg_rewind": true}}))?;
    let store = cluster.nodes[0].path("../store");
    std::fs::create_dir(&store).unwrap();
    own(&store);
    let program = cluster.nodes[0].path("../spilo");
    assert!(as_other_user(Command::new(program).args(["wal", "init", "--store"]).arg(&store)).status().unwrap().success());
    let store = store.canonicalize().unwrap();
    for node in &mut cluster.nodes {
        node.edit_config(|config| {
            config["spilo"] = json!({"archive": {"store": format!("file://{}", store.display())}});
            config["bootstrap"]["initdb"] = json!([{"encoding": "UTF8"}, "data-checksums", {"wal-segsize": 1}]);
            // The agent's own win.
            config["postgresql"]["parameters"]["archive_command"] = json!("false");
        });
        node.start();
    }
    cluster.wait_healthy();
    Some(cluster)
}

/// The names of what is archived.
fn archived(cluster: &Cluster) -> BTreeSet<String> {
    fn below(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.file_name().to_str().unwrap().strip_suffix(".zst") {
                Some(name) => drop(found.insert(name.to_owned())),
                None => below(&entry.path(), found),
            }
        }
    }
    let mut found = BTreeSet::new();
    below(&cluster.nodes[0].path("../store/real/wal"), &mut found);
    found
}

#[test]
fn the_agent_sees_to_the_archive() {
    let Some(mut cluster) = archiving() else { return };
    let (leader, [_, silent]) = others(&cluster);
    cluster.node(&silent).reconfigure(&json!({"tags": {"nostream": true}}));
    let streams = "select count(*)::text from pg_stat_wal_receiver";
    wait_until("it does not stream", LIMIT, || cluster.node(&silent).query(streams).is_ok_and(|n| n == "0"));
    cluster.node(&leader).execute("create table archived as select generate_series(1, 100000) as i");
    cluster.node(&leader).execute("select pg_switch_wal()");
    let count = "select count(*)::text from archived";
    wait_until("the rows came through the archive", LIMIT, || cluster.node(&silent).query(count).is_ok_and(|n| n == "100000"));
    assert!(archived(&cluster).len() > 3);
    cluster.node(&leader).lose_host();
    let successor = cluster.wait_for_another_leader(&leader);
    cluster.node(&successor).execute("insert into archived select 1");
    cluster.node(&successor).execute("select pg_switch_wal()");
    wait_until("the rows came through the archive", LIMIT, || cluster.node(&silent).query(count).is_ok_and(|n| n == "100001"));
    assert!(archived(&cluster).contains("00000002.history"));
    assert!(!cluster.node(&leader).path("../store/real/conflict").exists(), "nothing was archived with two contents");
}
