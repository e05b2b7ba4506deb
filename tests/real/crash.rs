//! PostgreSQL on the primary ends by itself, and its host and agent are well.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use super::{
    cluster::{Cluster, LIMIT, Node, send},
    writer::Writer,
};
use crate::support::wait_until;

/// Kills the leader's postmaster; the leader's name and what its postmaster was.
fn crash(cluster: &Cluster) -> (String, i32) {
    let leader = cluster.leader().expect("somebody leads");
    let postmaster = leader.postmaster_pid().expect("PostgreSQL runs");
    send(postmaster, Signal::KILL);
    (leader.name.clone(), postmaster)
}

/// Writes so much since the last checkpoint that recovery would take longer than an election.
fn write_much(cluster: &Cluster) {
    let leader = cluster.leader().expect("somebody leads");
    leader.execute("drop table if exists filling");
    leader.execute("create table filling as select repeat('x', 1000) as t from generate_series(1, 40000)");
    // The DCS is told of the progress with the next tick.
    std::thread::sleep(Duration::from_secs(2));
}

fn crash_with_much_to_replay(cluster: &Cluster) -> (String, i32) {
    write_much(cluster);
    crash(cluster)
}

fn wait_until_restarted(node: &Node, before: i32) {
    wait_until("PostgreSQL is back", LIMIT, || node.postmaster_pid().is_some_and(|pid| pid != before) && node.get("/health").0 == 200);
}

fn switch_to(cluster: &Cluster, candidate: &str) {
    let leader = cluster.leader().expect("somebody leads");
    let (code, answer) = leader.request("POST", "/switchover", Some(&json!({"leader": leader.name, "candidate": candidate})));
    assert_eq!(code, 200, "{answer}");
    cluster.wait_healthy();
}

#[test]
fn a_primary_that_crashes_with_much_to_replay_leaves_the_lead_to_a_standby_and_comes_back_behind_it() {
    let Some(mut cluster) = Cluster::start() else { return };
    let writer = Writer::start_with_witnesses(&cluster);
    let (former, _) = crash_with_much_to_replay(&cluster);
    let before = writer.count().saturating_sub(1);
    cluster.wait_for_another_leader(&former);
    writer.wait_for_more();
    let log = cluster.node(&former).log();
    assert!(log.contains("a standby can take over: giving the leader key up"), "{log}");
    let rows = writer.rows(before);
    eprintln!("writes were away for {:?}", rows.windows(2).map(|pair| pair[1].acknowledged - pair[0].acknowledged).max());
    cluster.wait_healthy();
    // Once in a while: what makes one server crash may make the others crash too.
    switch_to(&cluster, &former);
    let (again, postmaster) = crash_with_much_to_replay(&cluster);
    assert_eq!(again, former);
    wait_until_restarted(cluster.node(&former), postmaster);
    writer.wait_for_more();
    assert_eq!(cluster.leader().unwrap().name, former);
    writer.check(&cluster);
}

#[test]
fn a_primary_that_crashes_with_little_to_replay_is_restarted_in_place() {
    let Some(mut cluster) = Cluster::start() else { return };
    let writer = Writer::start_with_witnesses(&cluster);
    // The copies of the others began segments.
    cluster.leader().unwrap().execute("checkpoint");
    let (leader, postmaster) = crash(&cluster);
    wait_until_restarted(cluster.node(&leader), postmaster);
    writer.wait_for_more();
    assert_eq!(cluster.leader().unwrap().name, leader);
    // Nor does one pause that crashes right after its start.
    let (leader, postmaster) = crash(&cluster);
    let begun = Instant::now();
    wait_until_restarted(cluster.node(&leader), postmaster);
    eprintln!("back after {:?}", begun.elapsed());
    assert!(!cluster.node(&leader).log().contains("PostgreSQL is in trouble"));
    writer.check(&cluster);
}

#[test]
fn a_primary_that_crashes_while_nobody_could_be_elected_is_restarted_in_place() {
    let Some(cluster) = Cluster::start() else { return };
    let writer = Writer::start(&cluster);
    write_much(&cluster);
    // The other one needs its vote, as long as the DCS names it among the voters.
    let frozen = cluster.replica().agent_pid();
    send(frozen, Signal::STOP);
    let (leader, postmaster) = crash(&cluster);
    let node = cluster.nodes.iter().find(|n| n.name == leader).unwrap();
    wait_until_restarted(node, postmaster);
    writer.wait_for_more();
    assert_eq!(cluster.leader().unwrap().name, leader);
    send(frozen, Signal::CONT);
    writer.check(&cluster);
}

#[test]
fn without_synchronous_replication_a_primary_that_crashes_is_restarted_in_place() {
    let Some(mut cluster) = Cluster::start_with(&json!({"synchronous_mode": "off"})) else { return };
    let writer = Writer::start_with_witnesses(&cluster);
    let (leader, postmaster) = crash_with_much_to_replay(&cluster);
    wait_until_restarted(cluster.node(&leader), postmaster);
    writer.wait_for_more();
    assert_eq!(cluster.leader().unwrap().name, leader);
    writer.check(&cluster);
}

#[test]
fn with_no_time_for_a_start_somebody_else_takes_over_at_once_in_async_mode_too() {
    let Some(cluster) = Cluster::start_with(&json!({"synchronous_mode": "off", "primary_start_timeout": 0})) else { return };
    let begun = Instant::now();
    let (former, _) = crash(&cluster);
    cluster.wait_for_another_leader(&former);
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}: that was the end of the lease", begun.elapsed());
    cluster.wait_healthy();
}
