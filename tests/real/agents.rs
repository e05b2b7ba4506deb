//! What becomes of a cluster, and of acknowledged writes, when something of it is lost.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use super::{
    cluster::{Cluster, LIMIT, Node, send},
    writer::Writer,
};
use crate::support::wait_until;

#[test]
fn three_members_come_up_and_tell_their_roles() {
    let Some(cluster) = Cluster::start() else { return };
    let leader = cluster.leader().unwrap();
    for node in &cluster.nodes {
        let leads = node.name == leader.name;
        assert_eq!(node.get("/primary").0, if leads { 200 } else { 503 }, "{}", node.name);
        assert_eq!(node.get("/replica").0, if leads { 503 } else { 200 }, "{}", node.name);
        for path in ["/health", "/liveness", "/readiness"] {
            assert_eq!(node.get(path).0, 200, "{path} of {}", node.name);
        }
        let body = node.get("/patroni").1;
        assert_eq!(body["role"], if leads { "primary" } else { "replica" });
        assert_eq!(body["patroni"], json!({"version": "4.1.5", "scope": "real", "name": node.name}));
    }
    let sync = leader.query("show synchronous_standby_names").unwrap();
    assert!(sync.starts_with("ANY 1 ("), "{sync}");
    assert_eq!(leader.query("show data_checksums").unwrap(), "on");
}

#[test]
fn losing_the_primarys_host_loses_no_acknowledged_write() {
    let Some(mut cluster) = Cluster::start() else { return };
    let writer = Writer::start(&cluster);
    for _ in 0..2 {
        let former = cluster.leader().unwrap().name.clone();
        cluster.node(&former).lose_host();
        cluster.wait_for_another_leader(&former);
        writer.wait_for_more();
        cluster.node(&former).start();
        cluster.wait_healthy();
    }
    writer.check(&cluster);
}

#[test]
fn an_agent_that_is_killed_is_back_at_once_and_postgresql_never_notices() {
    let Some(cluster) = Cluster::start() else { return };
    let writer = Writer::start(&cluster);
    let leader = cluster.leader().unwrap();
    let (postmaster, agent) = (leader.postmaster_pid(), leader.agent_pid());
    send(agent, Signal::KILL);
    wait_until("there is a new agent", LIMIT, || leader.get("/primary").0 == 200 && leader.agent_pid() != agent);
    // Longer than a lease: it was renewed in time.
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(cluster.leader().unwrap().name, leader.name);
    assert_eq!(leader.postmaster_pid(), postmaster);
    writer.check(&cluster);
}

#[test]
fn when_the_agent_hangs_the_guard_stops_postgresql_before_anybody_else_leads() {
    let Some(cluster) = Cluster::start_with(&json!({"synchronous_mode": "off"})) else { return };
    let leader = cluster.leader().unwrap();
    send(leader.agent_pid(), Signal::STOP);
    wait_until("the old primary is stopped, or another leads", LIMIT, || {
        let stopped = leader.postmaster_pid().is_none();
        let another = cluster.nodes.iter().any(|n| n.name != leader.name && n.get("/primary").0 == 200);
        assert!(stopped || !another, "two primaries at once");
        stopped
    });
    let next = cluster.wait_for_another_leader(&leader.name);
    assert!(leader.log().contains("the lease was not renewed in time"), "{}", leader.log());
    send(leader.agent_pid(), Signal::CONT);
    cluster.wait_healthy();
    assert_eq!(cluster.leader().unwrap().name, next);
}

#[test]
fn a_guard_that_is_killed_takes_postgresql_with_it_and_somebody_else_leads() {
    let Some(mut cluster) = Cluster::start() else { return };
    let writer = Writer::start(&cluster);
    let former = cluster.leader().unwrap().name.clone();
    cluster.node(&former).kill_guard();
    let killed = Instant::now();
    cluster.wait_for_another_leader(&former);
    // Nobody has to wait for the end of the lease: the agent sees PostgreSQL end and gives the leader key up, whenever it may be reaped.
    assert!(killed.elapsed() < Duration::from_millis(3500), "somebody else led after {:?} only", killed.elapsed());
    wait_until("PostgreSQL has stopped", LIMIT, || cluster.node(&former).postmaster_pid().is_none());
    writer.wait_for_more();
    cluster.node(&former).start();
    writer.check(&cluster);
}

#[test]
fn a_switchover_moves_the_primary_to_the_named_candidate() {
    let Some(cluster) = Cluster::start() else { return };
    let writer = Writer::start(&cluster);
    for _ in 0..3 {
        let (leader, candidate) = (cluster.leader().unwrap(), cluster.replica());
        let body = json!({"leader": leader.name, "candidate": candidate.name});
        let (code, text) = candidate.request("POST", "/switchover", Some(&body));
        assert_eq!((code, text), (200, json!(format!("Successfully switched over to \"{}\"", candidate.name))));
        writer.wait_for_more();
        cluster.wait_healthy();
        assert!(!leader.log().contains("rewound"), "a clean hand-over needs no rewind");
    }
    writer.check(&cluster);
}

#[test]
fn a_switchover_that_cannot_be_is_refused() {
    let Some(cluster) = Cluster::start() else { return };
    let leader = cluster.leader().unwrap();
    let ask = |body| leader.request("POST", "/switchover", Some(&body)).0;
    assert_eq!(ask(json!({"leader": "nobody"})), 412);
    assert_eq!(ask(json!({"leader": leader.name, "candidate": "nobody"})), 412);
    assert_eq!(ask(json!({"leader": leader.name, "candidate": leader.name})), 400);
    assert_eq!(cluster.leader().unwrap().name, leader.name);
}

#[test]
fn a_member_that_is_told_to_end_hands_over_first() {
    let Some(mut cluster) = Cluster::start() else { return };
    let writer = Writer::start(&cluster);
    let former = cluster.leader().unwrap().name.clone();
    cluster.node(&former).stop();
    // Nobody has to wait for a lease: the key was given up.
    assert!(cluster.leader().is_some() || !cluster.wait_for_another_leader(&former).is_empty());
    writer.wait_for_more();
    cluster.node(&former).start();
    cluster.wait_healthy();
    writer.check(&cluster);
}

#[test]
fn a_primary_that_cannot_reach_the_dcs_stops_writing_before_its_lease_ends() {
    // Without synchronous replication and without `failsafe_mode` anybody may take over when the lease has ended.
    let Some(cluster) = Cluster::start_with(&json!({"synchronous_mode": "off"})) else { return };
    let writer = Writer::start(&cluster);
    let leader = cluster.leader().unwrap();
    cluster.etcd.freeze();
    // The last renewal was sent before this.
    let stopped = wait_until("the primary has stopped", LIMIT, || leader.postmaster_pid().is_none());
    assert!(stopped < Duration::from_secs(5), "its lease had ended: {stopped:?}");
    let count = writer.count();
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(writer.count(), count, "nobody may lead while the DCS is silent");
    cluster.etcd.thaw();
    wait_until("somebody leads again", LIMIT, || cluster.leader().is_some());
    writer.wait_for_more();
    writer.check(&cluster);
}

#[test]
fn a_cluster_that_lost_all_its_members_comes_back_with_all_data() {
    let Some(mut cluster) = Cluster::start() else { return };
    let writer = Writer::start(&cluster);
    cluster.nodes.iter_mut().for_each(super::cluster::Node::lose_host);
    cluster.nodes.iter_mut().for_each(super::cluster::Node::start);
    cluster.wait_healthy();
    writer.wait_for_more();
    writer.check(&cluster);
}

#[test]
fn a_dcs_that_lost_its_content_never_leads_to_a_second_cluster() {
    let Some(mut cluster) = Cluster::start() else { return };
    let writer = Writer::start(&cluster);
    let system = |cluster: &Cluster| {
        let leader = cluster.leader().expect("there is a leader");
        leader.query("select system_identifier::text from pg_control_system()").unwrap()
    };
    let before = system(&cluster);
    let leader = cluster.leader().expect("there is a leader").name.clone();
    cluster.etcd.kill();
    cluster.etcd.wipe();
    cluster.etcd.run();
    wait_until("somebody leads", LIMIT, || cluster.leader().is_some());
    cluster.wait_healthy();
    assert_eq!(system(&cluster), before);
    assert_eq!(cluster.leader().map(|l| l.name.clone()), Some(leader), "nobody may take over from a primary that runs");
    let mode = cluster.replica().get("/config").1["synchronous_mode"].clone();
    assert_eq!(mode, "quorum", "the configuration is what it was");
    writer.check(&cluster);
}

#[test]
fn a_dcs_that_lost_its_content_while_nobody_ran_gets_it_back_from_whoever_knows_most() {
    let Some(mut cluster) = Cluster::start() else { return };
    let writer = Writer::start(&cluster);
    // One of three has never heard of the last leader, of its voters and of its timeline.
    let first = cluster.leader().expect("there is a leader").name.clone();
    let unaware = cluster.replica().name.clone();
    cluster.node(&unaware).lose_host();
    writer.wait_for_more();
    cluster.node(&first).stop();
    let second = cluster.wait_for_another_leader(&first);
    cluster.node(&first).start();
    writer.wait_for_more();
    let timeline = cluster.node(&second).get("/patroni").1["timeline"].clone();
    cluster.node(&first).lose_host();
    cluster.node(&second).lose_host();
    cluster.etcd.kill();
    cluster.etcd.wipe();
    cluster.etcd.run();
    cluster.node(&unaware).start();
    cluster.node(&first).start();
    let missing =
        |node: &Node| node.get("/patroni").1["trouble"].as_str().is_some_and(|said| said.contains(&format!("'{second}' may know more")));
    for name in [&unaware, &first] {
        wait_until("who is missing is said", LIMIT, || missing(cluster.nodes.iter().find(|n| n.name == *name).expect("it is a member")));
    }
    std::thread::sleep(Duration::from_secs(7));
    assert!(cluster.leader().is_none(), "a lease has passed, and who is missing is missing still");
    // Nobody leads who would bring the configuration back; whoever changes it does.
    let (code, changed) = cluster.node(&first).request("PATCH", "/config", Some(&json!({"maximum_lag_on_failover": 77})));
    assert_eq!((code, &changed["synchronous_mode"], &changed["maximum_lag_on_failover"]), (200, &json!("quorum"), &json!(77)));
    cluster.node(&second).start();
    wait_until("somebody leads", LIMIT, || cluster.leader().is_some());
    cluster.wait_healthy();
    let leader = cluster.leader().expect("there is a leader").get("/patroni").1;
    assert!(leader["timeline"].as_u64() > timeline.as_u64(), "no number is taken twice: {leader}");
    assert!(cluster.nodes.iter().all(|n| n.get("/patroni").1["trouble"].is_null()));
    assert_eq!(cluster.replica().get("/config").1, changed);
    writer.check(&cluster);
}

#[test]
fn a_standby_knows_its_timeline_when_nobody_streams_to_it_any_more() {
    let Some(mut cluster) = Cluster::start() else { return };
    let writer = Writer::start(&cluster);
    let first = cluster.leader().unwrap().name.clone();
    cluster.node(&first).lose_host();
    let second = cluster.wait_for_another_leader(&first);
    writer.wait_for_more();
    cluster.node(&second).lose_host();
    // A position on the timeline before would lose against any on this one, however much further it is.
    let last = cluster.nodes.iter().find(|n| n.name != first && n.name != second).unwrap();
    wait_until("the receiver is gone", LIMIT, || last.query("select count(*)::text from pg_stat_wal_receiver").is_ok_and(|n| n == "0"));
    assert_eq!(last.get("/patroni").1["timeline"], 2, "{}", last.get("/patroni").1);
    for name in [first, second] {
        cluster.node(&name).start();
    }
    cluster.wait_healthy();
    writer.check(&cluster);
}
