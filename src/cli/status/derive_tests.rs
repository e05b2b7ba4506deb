//! Cases of the judgement: a healthy cluster of three, and one thing wrong at a time.

use serde_json::{Value, json};

use super::*;
use crate::{cli::status::ObservedContainer, spec::ClusterSpec};

/// A cluster of three, healthy until a case changes something.
struct World {
    spec: ClusterSpec,
    containers: Vec<ObservedContainer>,
    report: Value,
    unreachable: Option<&'static str>,
}

impl World {
    fn healthy() -> World {
        let container = |name: &str, place| ObservedContainer {
            name: format!("spilo-{name}"),
            place,
            state: ContainerState::Running,
            created: Some("2026-01-01T00:00:00Z".parse().unwrap()),
        };
        let node = |name: &str| container(name, Place::Node(name.parse().unwrap()));
        World {
            spec: ClusterSpec::named("orders".parse().unwrap()),
            containers: vec![
                container("orders-etcd-1", Place::Etcd),
                node("orders-1"),
                node("orders-2"),
                node("orders-3"),
                container("orders-router", Place::Router),
            ],
            report: json!({
                "scope": "orders", "initialize": "7398000000000000000", "leader": "orders-1", "dcs_error": null,
                "config": {"synchronous_mode": "quorum"},
                "sync": {"leader": "orders-1", "quorum": 1, "sync_standby": ["orders-2", "orders-3"]},
                "optime": 1000, "history": [], "route": {"error": null},
                "members": [
                    member("orders-1", &json!({"state": "running", "role": "primary"}), false, 1000),
                    member("orders-2", &json!({"state": "running", "role": "replica", "replication_state": "streaming"}), true, 1000),
                    member("orders-3", &json!({"state": "running", "role": "replica", "replication_state": "streaming"}), true, 900),
                ]
            }),
            unreachable: None,
        }
    }

    fn set(mut self, pointer: &str, value: Value) -> World {
        *self.report.pointer_mut(pointer).expect(pointer) = value;
        self
    }

    fn container(mut self, name: &str, state: ContainerState) -> World {
        self.containers.iter_mut().find(|c| c.name == format!("spilo-{name}")).expect(name).state = state;
        self
    }

    fn without_read(self, index: usize, why: &str) -> World {
        self.set(&format!("/members/{index}/sql"), json!(null)).set(&format!("/members/{index}/sql_error"), json!(why))
    }

    /// What the keeper of this member has written.
    fn says(mut self, member: usize, backup: Value) -> World {
        self.report["members"][member]["rest"]["body"]["backup"] = backup;
        self
    }

    fn status(&self) -> ClusterStatus {
        let report: ProbeReport = serde_json::from_value(self.report.clone()).unwrap();
        let probe = self.unreachable.map_or(Ok(&report), Err);
        let now = "2026-01-01T01:00:00Z".parse().unwrap();
        derive(&Evidence { spec: &self.spec, containers: &self.containers, endpoints: None, probe, now })
    }

    #[track_caller]
    fn is(&self, health: Health, reason: &str) {
        let status = self.status();
        assert_eq!((status.health, status.reason.as_str()), (health, reason));
    }
}

fn member(name: &str, body: &Value, in_recovery: bool, lsn: u64) -> Value {
    json!({
        "name": name, "conn_url": format!("postgres://{name}:5432/postgres"), "api_url": format!("http://{name}:8008/patroni"),
        "dcs": {"state": "running"}, "rest": {"code": 200, "body": body}, "rest_error": null,
        "sql": {"in_recovery": in_recovery, "lsn": lsn, "timeline": 1, "elapsed_ms": 2}, "sql_error": null
    })
}

#[test]
fn everything_seen_to_work_is_healthy() {
    World::healthy().is(Health::Healthy, "'orders-1' takes writes on timeline 1, all 2 replicas stream");
}

#[test]
fn nodes_carry_role_state_lag_address_and_age() {
    let status = World::healthy().status();
    let roles: Vec<_> = status.nodes.iter().map(|node| node.role).collect();
    assert_eq!(roles, [Some(NodeRole::Leader), Some(NodeRole::QuorumStandby), Some(NodeRole::QuorumStandby)]);
    let third = &status.nodes[2];
    assert_eq!((third.state.as_str(), third.lag_bytes, third.age_seconds), ("streaming", Some(100), Some(3600)));
    assert_eq!(third.address.as_deref(), Some("orders-3:5432"));
    assert_eq!((status.nodes[0].state.as_str(), status.nodes[0].lag_bytes), ("running", None));
}

#[test]
fn a_standby_outside_quorum_mode_is_a_sync_standby() {
    let status = World::healthy().set("/config/synchronous_mode", json!(true)).status();
    assert_eq!(status.nodes[1].role, Some(NodeRole::SyncStandby));
}

/// What a keeper says that has written this many seconds before the moment of the cases.
fn keeper(seconds_ago: i64, more: &Value) -> Value {
    let now: jiff::Timestamp = "2026-01-01T01:00:00Z".parse().unwrap();
    let ago = |seconds: i64| json!(now - jiff::SignedDuration::from_secs(seconds));
    let mut said = json!({
        "updated": ago(seconds_ago), "since": ago(90_000), "seen": ago(seconds_ago), "backups": 2, "last_backup": ago(3 * 3600), "last_verified": ago(2 * 3600),
        "last_restored": ago(2 * 86_400), "recovery_seconds": 40.0, "oldest_point": null, "stored": 7, "room": true, "running": null, "failure": null,
        "overdue": [], "wal_waiting": {"files": 0, "since": null}
    });
    said.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    said
}

#[test]
fn backups_that_are_as_they_should_be_are_shown_and_change_nothing() {
    let world = World::healthy().says(0, keeper(20, &json!({})));
    world.is(Health::Healthy, "'orders-1' takes writes on timeline 1, all 2 replicas stream");
    let (status, now) = (world.status(), "2026-01-01T01:00:00Z".parse().unwrap());
    let line = status.backup.unwrap().line(now);
    assert_eq!(line, "last backup 3 h ago, last verified 2 h ago, last proven restore 2 d ago in 40 s");
}

#[test]
fn a_backup_that_is_overdue_or_wal_that_waits_is_a_trouble() {
    let overdue = keeper(20, &json!({"overdue": ["the last backup is 3 d old, and one is due every 1 d"]}));
    World::healthy()
        .says(0, overdue)
        .is(Health::Degraded, "'orders-1' takes writes, but the last backup is 3 d old, and one is due every 1 d");
    let waiting = keeper(20, &json!({"wal_waiting": {"files": 9, "since": "2026-01-01T00:50:00Z"}}));
    World::healthy()
        .says(0, waiting.clone())
        .is(Health::Degraded, "'orders-1' takes writes, but WAL is not archived: 9 files wait, the oldest for 10 min");
    World::healthy().says(1, waiting).is(Health::Healthy, "'orders-1' takes writes on timeline 1, all 2 replicas stream");
}

#[test]
fn wal_of_which_the_archive_has_another_content_is_told_at_once_whosever_it_is() {
    let conflict = |file: &str| json!({"file": file, "since": "2026-01-01T00:59:50Z", "aside": format!("orders/conflict/7/{file}.x.zst")});
    let account = json!({"wal_service": {"conflicting": 1, "conflicts": [conflict("000000010000000000000007")]}});
    let world = World::healthy().says(0, keeper(20, &json!({}))).says(2, keeper(20, &account));
    let told = "cannot archive '000000010000000000000007': the archive has another content under this name";
    world.is(Health::Degraded, &format!("'orders-1' takes writes, but 'orders-3' {told}"));
    let found = world.status().wal_conflicts;
    assert_eq!((found.len(), found[0].node.as_str(), found[0].conflict.aside.ends_with("7.x.zst")), (1, "orders-3", true));
    let many = json!({"wal_service": {"conflicting": 9, "conflicts": [conflict("000000010000000000000007"), conflict("000000010000000000000008")]}});
    let world = World::healthy().says(0, keeper(20, &many));
    let told = "cannot archive '000000010000000000000007' and 8 more WAL files: the archive has another content under this name";
    world.is(Health::Degraded, &format!("'orders-1' takes writes, but 'orders-1' {told}"));
    assert_eq!(world.status().wal_conflicts.len(), 2);
    let resolved = json!({"wal_service": {"archived": 7, "conflicting": 0, "conflicts": []}});
    World::healthy().says(0, keeper(20, &resolved)).is(Health::Healthy, "'orders-1' takes writes on timeline 1, all 2 replicas stream");
}

#[test]
fn an_archive_that_nobody_sees_to_is_a_trouble() {
    let silent = keeper(3600, &json!({}));
    World::healthy().says(0, silent).is(Health::Degraded, "'orders-1' takes writes, but nobody has seen to its backups for 1 h");
    let mut world = World::healthy();
    world.spec.archive = Some(crate::spec::ArchiveSpec::volume());
    world.is(Health::Degraded, "'orders-1' takes writes, but nobody sees to its backups");
    world.containers.iter_mut().for_each(|container| container.created = "2026-01-01T00:50:00Z".parse().ok());
    world.is(Health::Healthy, "'orders-1' takes writes on timeline 1, all 2 replicas stream");
}

#[test]
fn a_cluster_that_cannot_be_asked_is_critical() {
    let world = World { unreachable: Some("no container runs"), ..World::healthy() };
    world.is(Health::Critical, "the cluster cannot be asked: no container runs");
}

#[test]
fn no_container_at_all_is_said_once() {
    let mut world = World { unreachable: Some("no container runs"), ..World::healthy() };
    world.containers.iter_mut().for_each(|c| c.state = ContainerState::Missing);
    world.is(Health::Critical, "none of its containers exists");
}

#[test]
fn a_silent_dcs_is_critical_and_its_container_named() {
    let world =
        World::healthy().set("/dcs_error", json!("the DCS did not answer: timed out")).container("orders-etcd-1", ContainerState::Paused);
    world.is(Health::Critical, "the DCS did not answer: timed out ('spilo-orders-etcd-1' is paused)");
}

#[test]
fn a_cluster_before_its_bootstrap_is_critical() {
    World::healthy().set("/initialize", json!("")).is(Health::Critical, "the cluster is not initialised yet");
    World::healthy().set("/initialize", json!(null)).is(Health::Critical, "the cluster is not initialised yet");
}

#[test]
fn without_a_leader_nobody_takes_writes() {
    World::healthy().set("/leader", json!(null)).is(Health::Critical, "nobody holds the leader lock");
}

#[test]
fn a_leader_that_does_not_answer_a_read_is_critical_whatever_it_says_of_itself() {
    let world = World::healthy().without_read(0, "timeout");
    world.is(Health::Critical, "leader 'orders-1' does not answer a read: timeout");
}

#[test]
fn the_leaders_paused_container_is_named_with_the_failed_read() {
    let world = World::healthy().without_read(0, "timeout").container("orders-1", ContainerState::Paused);
    world.is(Health::Critical, "leader 'orders-1' does not answer a read ('orders-1' is paused): timeout");
}

#[test]
fn a_leader_in_recovery_takes_no_writes() {
    World::healthy().set("/members/0/sql/in_recovery", json!(true)).is(Health::Critical, "leader 'orders-1' is still in recovery");
}

#[test]
fn a_leader_without_a_member_key_is_critical() {
    World::healthy().set("/leader", json!("orders-9")).is(Health::Critical, "leader 'orders-9' has no member key");
}

#[test]
fn two_primaries_are_critical() {
    let world = World::healthy().set("/members/2/sql/in_recovery", json!(false));
    world.is(Health::Critical, "'orders-3' answers as a primary besides the leader 'orders-1'");
}

#[test]
fn without_its_router_no_client_can_write() {
    let world = World::healthy().container("orders-router", ContainerState::Stopped);
    world.is(Health::Critical, "the router is stopped, so that no client reaches leader 'orders-1'");
}

#[test]
fn a_router_that_does_not_lead_anywhere_yet_is_critical() {
    let world = World::healthy().set("/route", json!({"error": "the connection was closed"}));
    world.is(Health::Critical, "the router does not lead to leader 'orders-1' (yet): the connection was closed");
}

#[test]
fn commits_that_wait_for_absent_standbys_are_critical() {
    let world = World::healthy().without_read(1, "refused").without_read(2, "refused");
    let reason = "commits wait for 1 of the synchronous standbys orders-2, orders-3, and 0 of them stream";
    world.is(Health::Critical, reason);
    let mut asynchronous = world;
    asynchronous.spec.durability = Durability::Async;
    assert_eq!(asynchronous.status().health, Health::Degraded);
}

#[test]
fn one_lost_replica_is_degraded_and_named() {
    for state in
        [ContainerState::Detached, ContainerState::Paused, ContainerState::Stopped, ContainerState::Missing, ContainerState::Restarting]
    {
        let world = World::healthy().without_read(2, "timeout").container("orders-3", state);
        world.is(Health::Degraded, &format!("'orders-1' takes writes, but 'orders-3' is {state}"));
    }
}

#[test]
fn a_node_without_a_member_key_is_degraded() {
    let mut world = World::healthy();
    world.report["members"].as_array_mut().unwrap().remove(2);
    world.is(Health::Degraded, "'orders-1' takes writes, but 'orders-3' has no member key in the DCS");
}

#[test]
fn a_replica_that_does_not_stream_is_degraded() {
    let world = World::healthy().set("/members/2/rest/body/replication_state", json!("in archive recovery"));
    world.is(Health::Degraded, "'orders-1' takes writes, but 'orders-3' does not stream (state 'in archive recovery')");
    let world = World::healthy().set("/members/2/rest", json!(null)).set("/members/2/dcs/state", json!("starting"));
    world.is(Health::Degraded, "'orders-1' takes writes, but 'orders-3' does not stream (state 'starting')");
}

#[test]
fn a_replica_on_another_timeline_is_degraded() {
    let world = World::healthy().set("/members/0/sql/timeline", json!(2)).set("/members/1/sql/timeline", json!(2));
    world.is(Health::Degraded, "'orders-1' takes writes, but 'orders-3' is on timeline 1, the leader on 2");
}

#[test]
fn a_replica_of_another_database_is_degraded() {
    let body = json!({"state": "running", "replication_state": "streaming", "database_system_identifier": "1234567890"});
    let world = World::healthy().set("/members/2/rest/body", body);
    let reason = "'orders-1' takes writes, but 'orders-3' belongs to another database \
                  (system identifier 1234567890, not 7398000000000000000)";
    world.is(Health::Degraded, reason);
}

#[test]
fn quorum_durability_without_a_synchronous_standby_is_degraded() {
    for sync in [json!(null), json!({"leader": "orders-1", "quorum": 0, "sync_standby": []})] {
        let status = World::healthy().set("/sync", sync).status();
        assert_eq!(status.health, Health::Degraded);
        assert!(status.reason.contains("no synchronous standby"), "{}", status.reason);
    }
}

#[test]
fn one_node_alone_needs_no_standby() {
    let mut world = World::healthy().set("/sync", json!(null));
    world.spec.nodes = 1.try_into().unwrap();
    world.report["members"].as_array_mut().unwrap().truncate(1);
    world.containers.retain(|c| c.name != "spilo-orders-2" && c.name != "spilo-orders-3");
    world.is(Health::Healthy, "'orders-1' takes writes on timeline 1, alone as asked for");
}

#[test]
fn one_etcd_of_three_lost_is_degraded() {
    let mut world = World::healthy();
    let etcd = ObservedContainer { name: "spilo-orders-etcd-2".to_owned(), state: ContainerState::Missing, ..world.containers[0].clone() };
    world.containers.push(etcd);
    world.is(Health::Degraded, "'orders-1' takes writes, but 'spilo-orders-etcd-2' is missing");
}

#[test]
fn a_node_too_many_is_degraded() {
    let mut world = World::healthy();
    world.spec.nodes = 2.try_into().unwrap();
    world.is(Health::Degraded, "'orders-1' takes writes, but it has 3 nodes, not 2");
}

#[test]
fn paused_failover_is_degraded() {
    let status = World::healthy().set("/config", json!({"synchronous_mode": "quorum", "pause": true})).status();
    assert!(status.paused);
    assert_eq!((status.health, status.reason.as_str()), (Health::Degraded, "'orders-1' takes writes, but automatic failover is paused"));
}

#[test]
fn several_troubles_are_all_named() {
    let world = World::healthy().without_read(2, "timeout").set("/members/1/sql/timeline", json!(7));
    let reason = "'orders-1' takes writes, but 'orders-2' is on timeline 7, the leader on 1; 'orders-3' does not answer a read: timeout";
    world.is(Health::Degraded, reason);
}

fn following() -> World {
    let leader = member("orders-1", &json!({"state": "running", "role": "standby_leader", "replication_state": "streaming"}), true, 1000);
    let config = json!({"synchronous_mode": "quorum", "standby_cluster": {"host": "elsewhere"}});
    World::healthy()
        .set("/config", config)
        .set("/sync", json!(null))
        .set("/members/0", leader)
        .set("/route", json!({"error": "no server is available to handle this request"}))
}

#[test]
fn a_cluster_that_follows_another_one_is_healthy_without_taking_writes() {
    following().is(Health::Healthy, "'orders-1' leads a standby cluster on timeline 1, all 2 replicas stream");
    assert_eq!(following().status().nodes[0].role, Some(NodeRole::StandbyLeader));
    let cut_off = following().set("/members/0/rest/body/replication_state", json!("in archive recovery"));
    cut_off.is(Health::Degraded, "'orders-1' leads a standby cluster, but it does not stream from the other cluster");
    let writes = following().set("/members/0/sql/in_recovery", json!(false));
    writes.is(Health::Critical, "leader 'orders-1' is to follow another cluster, and is a primary still");
}

#[test]
fn a_member_that_is_made_from_the_archive_says_so() {
    let making = json!({"state": "creating replica", "role": "uninitialized", "spilo_copies": "the archive (1 of 2 MB)"});
    let world = World::healthy().set("/members/2/dcs", making).set("/members/2/rest", json!(null)).without_read(2, "nobody listens");
    let status = world.status();
    assert_eq!(status.nodes[2].state, "creating replica from the archive (1 of 2 MB)");
}
