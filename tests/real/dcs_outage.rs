//! A store that does not answer: whoever leads leads on while everybody who could take over has promised not to, and stops where somebody
//! has not.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use super::{
    cluster::{Cluster, LIMIT, send},
    writer::Writer,
};
use crate::support::wait_until;

/// Several leases long.
pub const OUTAGE: Duration = Duration::from_secs(16);

/// The longest time without an acknowledged row that is no outage: the machine is shared with other tests.
const GAP: Duration = Duration::from_secs(2);

/// Watches that rows are acknowledged all the time, and that nobody else leads.
pub fn expect_no_outage(cluster: &Cluster, writer: &Writer, leader: &str, span: Duration) {
    let (begun, mut last, mut longest) = (Instant::now(), (writer.count(), Instant::now()), Duration::ZERO);
    while begun.elapsed() < span {
        std::thread::sleep(Duration::from_millis(20));
        if writer.count() > last.0 {
            longest = longest.max(last.1.elapsed());
            last = (writer.count(), Instant::now());
        }
        assert!(last.1.elapsed() < GAP, "no row was acknowledged for {:?}, {:?} into the outage", last.1.elapsed(), begun.elapsed());
    }
    eprintln!("longest gap between two looks at acknowledged rows: {longest:?}");
    assert_eq!(cluster.leader().map(|l| l.name.as_str()), Some(leader), "the leader says that it leads");
    for node in cluster.nodes.iter().filter(|n| n.is_running() && n.name != leader) {
        assert_ne!(node.query("select pg_is_in_recovery()::text").unwrap(), "false", "{} is a second primary", node.name);
    }
}

/// What is the same before and after: the leader, its postmaster, its timeline.
fn identity(cluster: &Cluster) -> (String, Option<i32>, String) {
    let leader = cluster.leader().expect("there is a leader");
    let timeline = leader.query("select timeline_id::text from pg_control_checkpoint()").unwrap();
    (leader.name.clone(), leader.postmaster_pid(), timeline)
}

/// The store hangs and goes on: no write and no leader is lost by it, and all is as it was.
fn expect_to_outlast_a_hang(cluster: &Cluster, writer: &Writer, before: &(String, Option<i32>, String)) {
    cluster.etcd.freeze();
    expect_no_outage(cluster, writer, &before.0, OUTAGE);
    cluster.etcd.thaw();
    expect_no_outage(cluster, writer, &before.0, Duration::from_secs(6));
    cluster.wait_healthy();
    assert_eq!(identity(cluster), *before);
}

#[test]
fn a_store_that_hangs_costs_no_write_and_no_leader() {
    let Some(cluster) = Cluster::start() else { return };
    let writer = Writer::start(&cluster);
    let before = identity(&cluster);
    expect_to_outlast_a_hang(&cluster, &writer, &before);
    writer.check(&cluster);
}

#[test]
fn a_store_that_dies_and_comes_back_with_or_without_its_content_costs_no_write_and_no_leader() {
    let Some(mut cluster) = Cluster::start() else { return };
    let writer = Writer::start(&cluster);
    let before = identity(&cluster);
    for wipes in [false, true] {
        cluster.etcd.kill();
        expect_no_outage(&cluster, &writer, &before.0, OUTAGE);
        if wipes {
            cluster.etcd.wipe();
        }
        cluster.etcd.run();
        expect_no_outage(&cluster, &writer, &before.0, Duration::from_secs(6));
        cluster.wait_healthy();
        assert_eq!(identity(&cluster), before);
    }
    writer.check(&cluster);
}

#[test]
fn when_the_leaders_host_dies_while_the_store_is_silent_nobody_leads_before_it_answers() {
    let Some(mut cluster) = Cluster::start() else { return };
    let writer = Writer::start(&cluster);
    let leader = cluster.leader().unwrap().name.clone();
    cluster.etcd.freeze();
    std::thread::sleep(Duration::from_secs(6));
    cluster.node(&leader).lose_host();
    let until = Instant::now() + Duration::from_secs(12);
    while Instant::now() < until {
        for node in cluster.nodes.iter().filter(|n| n.is_running()) {
            assert_ne!(node.get("/primary").0, 200, "{} leads by nobody's leave", node.name);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    cluster.etcd.thaw();
    cluster.wait_for_another_leader(&leader);
    writer.wait_for_more();
    cluster.node(&leader).start();
    writer.check(&cluster);
}

#[test]
fn when_a_voter_is_dead_while_the_store_is_silent_the_leader_stops_writing() {
    let Some(mut cluster) = Cluster::start() else { return };
    let writer = Writer::start(&cluster);
    let leader = cluster.leader().unwrap().name.clone();
    let voter = cluster.replica().name.clone();
    cluster.etcd.freeze();
    cluster.node(&voter).lose_host();
    // It may be cut off from us only, and elect with others.
    wait_until("the leader has stopped", Duration::from_secs(9), || cluster.nodes.iter().all(|n| n.get("/primary").0 != 200));
    let count = writer.count();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(writer.count(), count, "somebody writes by nobody's leave");
    assert!(cluster.node(&leader).log().contains("does not promise to leave this member in the lead"));
    cluster.etcd.thaw();
    wait_until("somebody leads again", LIMIT, || cluster.leader().is_some());
    writer.wait_for_more();
    cluster.node(&voter).start();
    writer.check(&cluster);
}

#[test]
fn agents_that_are_killed_while_the_store_is_silent_go_on_where_they_were() {
    let Some(cluster) = Cluster::start() else { return };
    let writer = Writer::start(&cluster);
    let before = identity(&cluster);
    cluster.etcd.freeze();
    // First when only the lease is left, later when promises are.
    for pause in [0, 6, 0] {
        std::thread::sleep(Duration::from_secs(pause));
        send(cluster.leader().unwrap().agent_pid(), Signal::KILL);
        wait_until("the leader has an agent", LIMIT, || cluster.leader().is_some_and(|l| l.name == before.0));
        expect_no_outage(&cluster, &writer, &before.0, Duration::from_secs(6));
        for voter in cluster.nodes.iter().filter(|n| n.name != before.0) {
            send(voter.agent_pid(), Signal::KILL);
        }
        expect_no_outage(&cluster, &writer, &before.0, Duration::from_secs(6));
    }
    cluster.etcd.thaw();
    expect_no_outage(&cluster, &writer, &before.0, Duration::from_secs(6));
    cluster.wait_healthy();
    assert_eq!(identity(&cluster), before);
    writer.check(&cluster);
}

#[test]
fn a_postgresql_that_crashes_while_the_store_is_silent_is_restarted_in_place() {
    let Some(cluster) = Cluster::start() else { return };
    let writer = Writer::start(&cluster);
    let (leader, postmaster, timeline) = identity(&cluster);
    cluster.etcd.freeze();
    std::thread::sleep(Duration::from_secs(6));
    send(postmaster.unwrap(), Signal::KILL);
    writer.wait_for_more();
    cluster.etcd.thaw();
    cluster.wait_healthy();
    let after = identity(&cluster);
    assert_eq!((after.0, after.2), (leader, timeline));
    writer.check(&cluster);
}

#[test]
fn a_leader_that_alone_does_not_reach_the_store_leads_on_and_takes_its_key_back() {
    let Some(cluster) = Cluster::start_on_hosts(&json!({"synchronous_mode": "quorum"})) else { return };
    let writer = Writer::start(&cluster);
    let before = identity(&cluster);
    cluster.network().part(cluster.host(&before.0), cluster.network().store());
    expect_no_outage(&cluster, &writer, &before.0, OUTAGE);
    let other = cluster.nodes.iter().find(|n| n.name != before.0).unwrap();
    assert_eq!(other.get("/patroni").1["cluster_unlocked"], json!(true), "the key has expired long ago");
    cluster.network().heal();
    expect_no_outage(&cluster, &writer, &before.0, Duration::from_secs(6));
    cluster.wait_healthy();
    assert_eq!(identity(&cluster), before);
    writer.check(&cluster);
}

#[test]
fn without_synchronous_replication_failsafe_mode_does_the_same() {
    let Some(cluster) = Cluster::start_with(&json!({"synchronous_mode": "off", "failsafe_mode": true})) else { return };
    let writer = Writer::start(&cluster);
    let before = identity(&cluster);
    let names: Vec<String> = cluster.nodes.iter().map(|n| n.name.clone()).collect();
    wait_until("the failsafe key names every member", LIMIT, || {
        let (code, body) = cluster.replica().get("/failsafe");
        code == 200 && body.as_object().is_some_and(|members| members.keys().eq(names.iter()))
    });
    expect_to_outlast_a_hang(&cluster, &writer, &before);
    writer.check(&cluster);
}

#[test]
fn nobody_promises_a_member_that_does_not_lead() {
    let Some(cluster) = Cluster::start() else { return };
    let leader = cluster.leader().unwrap();
    let mut standbys = cluster.nodes.iter().filter(|n| n.name != leader.name);
    let (asked, asker) = (standbys.next().unwrap(), standbys.next().unwrap());
    let body = |name: &str| json!({"name": name, "conn_url": "postgres://127.0.0.1:1/postgres", "api_url": "http://127.0.0.1:1/patroni"});
    let (code, text) = asked.request("POST", "/failsafe", Some(&body(&asker.name)));
    assert_eq!((code, text), (500, json!(format!("'{}' leads, or has led since", leader.name))));
    assert_eq!(leader.request("POST", "/failsafe", Some(&body(&asker.name))), (500, json!("Running as a leader")));
    assert_eq!(asked.request("POST", "/failsafe", Some(&body(&leader.name))), (200, json!("Accepted")));
}
