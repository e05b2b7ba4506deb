//! A consumer of a permanent logical slot, a switchover and a lost primary: it finds every change.

use std::collections::BTreeSet;

use serde_json::json;

use super::cluster::{Cluster, LIMIT};
use crate::{
    harm::kill,
    shared::{block, wait_until},
};

/// One value from a member's own server.
fn ask(cluster: &Cluster, member: &str, sql: &str) -> String {
    let output =
        cluster.exec(member, &["psql", "-XAt", "-v", "ON_ERROR_STOP=1", "-h", "/run/spilo", "-U", "postgres", "-d", "app", "-c", sql]);
    assert_eq!(output.exit_code, 0, "{sql}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

/// Changes the dynamic configuration over the REST API of a member, from inside: it is published nowhere else.
fn configure(cluster: &Cluster, member: &str, patch: &serde_json::Value) -> String {
    let body = patch.to_string();
    let request =
        format!("PATCH /config HTTP/1.0\\r\\nHost: x\\r\\nContent-Type: application/json\\r\\nContent-Length: {}\\r\\n\\r\\n", body.len());
    let script = format!("exec 3<>/dev/tcp/127.0.0.1/8008; printf '{request}' >&3; printf '%s' '{body}' >&3; cat <&3");
    String::from_utf8(cluster.exec(member, &["bash", "-c", &script]).stdout).unwrap()
}

fn write(cluster: &Cluster, ids: std::ops::Range<u32>) {
    let (first, last) = (ids.start, ids.end - 1);
    ask(cluster, &cluster.leader(), &format!("insert into fed select generate_series({first}, {last})"));
}

/// What the consumer is given now, and has confirmed with that.
fn consume(cluster: &Cluster) -> BTreeSet<u32> {
    let changes = ask(cluster, &cluster.leader(), "select data from pg_logical_slot_get_changes('feed', null, null)");
    let id = |line: &str| line.strip_prefix("table public.fed: INSERT: id[integer]:")?.parse().ok();
    changes.lines().filter_map(id).collect()
}

/// What a consumer that reads all the time does in a minute: the slot goes on, and with it what standbys wait for before they take it over.
fn read_on(cluster: &Cluster) {
    let leader = cluster.leader();
    ask(cluster, &leader, "create table if not exists other (n int); insert into other values (1)");
    ask(cluster, &leader, "select pg_log_standby_snapshot()");
    consume(cluster);
}

/// Every standby has taken the slot over.
fn wait_taken_over(cluster: &Cluster) {
    let leader = cluster.leader();
    let taken_over =
        "select count(*) from pg_replication_slots where slot_name = 'feed' and synced and not temporary and invalidation_reason is null";
    for member in cluster.members().into_iter().filter(|member| *member != leader) {
        wait_until(&format!("'{member}' has the slot"), LIMIT * 2, || {
            read_on(cluster);
            ask(cluster, &member, taken_over) == "1"
        });
    }
}

#[test]
fn a_logical_consumer_finds_every_change_after_a_switchover_and_a_failover() {
    let Some(cluster) = Cluster::new("feed") else { return };
    let spec = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
    std::fs::write(spec.path(), "postgres: {parameters: {wal_level: logical}}\n").unwrap();
    let mut creation = cluster.creation(3);
    creation.extend(["--file".to_owned(), spec.path().display().to_string()]);
    cluster.spilo(&creation).exits(0);
    let first = cluster.leader();
    ask(&cluster, &first, "create table fed (id int primary key)");

    let slots = json!({"slots": {"feed": {"type": "logical", "database": "app", "plugin": "test_decoding"}}});
    let answer = configure(&cluster, &first, &slots);
    assert!(answer.starts_with("HTTP/1.0 200") || answer.starts_with("HTTP/1.1 200"), "{answer}");
    let there = "select count(*) from pg_replication_slots where slot_name = 'feed' and failover";
    wait_until("the slot is created", LIMIT, || ask(&cluster, &first, there) == "1");

    write(&cluster, 0..10);
    assert_eq!(consume(&cluster), (0..10).collect());
    write(&cluster, 10..20);
    assert_eq!(consume(&cluster), (10..20).collect());
    wait_taken_over(&cluster);

    // Not read yet when another member takes over.
    write(&cluster, 20..30);
    let second = cluster.other_than(&first);
    cluster.spilo(&["switchover", &cluster.name, "--to", &second]).exits(0);
    write(&cluster, 30..40);
    let given = consume(&cluster);
    assert!((20..40).all(|id| given.contains(&id)), "what was not read before the switchover is there: {given:?}");

    // The former primary's own slot is not in its way.
    wait_taken_over(&cluster);
    write(&cluster, 50..60);
    block(kill(&cluster.container(&second)));
    wait_until("another member leads", LIMIT, || {
        let status = cluster.status();
        status["leader"].as_str().is_some_and(|leader| leader != second) && status["health"] == "degraded"
    });
    write(&cluster, 60..70);
    let given = consume(&cluster);
    assert!((50..70).all(|id| given.contains(&id)), "what was not read before the failover is there: {given:?}");
}
