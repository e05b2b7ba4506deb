//! What an operator notices of the REST API, on real agents.

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{
    cluster::{Cluster, LIMIT, Node, send},
    writer::Writer,
};
use crate::support::wait_until;

fn change(node: &Node, patch: &Value) -> (u16, Value) {
    node.request("PATCH", "/config", Some(patch))
}

fn everywhere(cluster: &Cluster, parameter: &str, value: &str) -> bool {
    cluster.nodes.iter().all(|node| node.query(&format!("show {parameter}")).is_ok_and(|shown| shown == value))
}

#[test]
fn a_changed_parameter_arrives_everywhere_without_a_restart() {
    let Some(cluster) = Cluster::start() else { return };
    let started: Vec<_> = cluster.nodes.iter().map(Node::postmaster_pid).collect();
    // Any member takes the change, not only the leader.
    let (code, config) = change(cluster.replica(), &json!({"postgresql": {"parameters": {"work_mem": "7MB"}}}));
    assert_eq!((code, &config["postgresql"]["parameters"]["work_mem"]), (200, &json!("7MB")), "{config}");
    assert_eq!(config["postgresql"]["parameters"]["max_connections"], 50, "the rest is kept: {config}");
    wait_until("work_mem is 7MB everywhere", LIMIT, || everywhere(&cluster, "work_mem", "7MB"));
    assert_eq!(change(cluster.leader().unwrap(), &json!({"postgresql": {"parameters": {"work_mem": null}}})).0, 200);
    wait_until("work_mem is back at its default", LIMIT, || everywhere(&cluster, "work_mem", "4MB"));
    assert_eq!(cluster.nodes.iter().map(Node::postmaster_pid).collect::<Vec<_>>(), started, "somebody was restarted");
    assert!(cluster.is_healthy());
}

#[test]
fn metrics_tell_the_primary_from_its_replicas() {
    let Some(cluster) = Cluster::start() else { return };
    let read = |node: &Node, metric: &str| -> f64 {
        let (code, page) = node.get("/metrics");
        let page = page.as_str().expect("text").to_owned();
        assert_eq!(code, 200, "{page}");
        let labels = format!("{metric}{{scope=\"real\",name=\"{}\"}} ", node.name);
        let value = page.lines().find_map(|line| line.strip_prefix(&labels)).unwrap_or_else(|| panic!("no {labels}in\n{page}"));
        value.parse().expect("a number")
    };
    let leader = cluster.leader().unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    for node in &cluster.nodes {
        let leads = f64::from(u8::from(node.name == leader.name));
        assert_eq!((read(node, "patroni_primary"), read(node, "patroni_replica")), (leads, 1.0 - leads));
        assert_eq!(read(node, "patroni_postgres_streaming"), 1.0 - leads);
        assert!((0.0..300.0).contains(&(now - read(node, "patroni_postmaster_start_time"))));
        assert!(read(node, "patroni_xlog_location") + read(node, "patroni_xlog_received_location") > 1e6);
    }
    assert_eq!((read(leader, "spilo_streaming_replicas"), read(leader, "spilo_voters")), (2.0, 2.0));
    assert!((0.0..=5.0).contains(&read(leader, "spilo_lease_seconds")));
}

#[test]
fn a_change_with_mistakes_names_all_of_them_and_changes_nothing() {
    let Some(cluster) = Cluster::start() else { return };
    let leader = cluster.leader().unwrap();
    let before = leader.get("/config").1;
    let bad = json!({
        "ttl": 4, "loop_wait": 3, "synchronous_mod": "on",
        "postgresql": {"parameters": {"work_mem": "1kB", "jit": "perhaps", "no_such_thing": 1, "log_min_messages": "loud",
            "archive_command": "touch /tmp/never", "shared_preload_libraries": "x", "max_connections": 3, "statement_timeout": "9s"}}
    });
    for method in ["PATCH", "PUT"] {
        let (code, answer) = leader.request(method, "/config", Some(&bad));
        assert_eq!(code, 422, "{answer}");
        let mistakes: Vec<String> =
            answer["mistakes"].as_array().unwrap().iter().map(|m| format!("{}: {}", m["path"], m["problem"])).collect();
        for part in [
            "expected at least loop_wait + 2 * retry_timeout",
            "did you mean 'synchronous_mode'",
            "(64 .. 2147483647)",
            "requires a Boolean value",
            "unrecognized configuration parameter",
            "Available values: debug5",
            "archive_command\": \"it runs commands",
            "shared_preload_libraries\": \"it runs commands",
            "whole number of at least 25",
        ] {
            assert!(mistakes.iter().any(|m| m.contains(part)), "{part} not in {mistakes:#?}");
        }
        assert_eq!(mistakes.len(), 9, "{mistakes:#?}");
    }
    assert_eq!(change(leader, &json!([1])).0, 400);
    assert_eq!(leader.get("/config").1, before);
    assert!(everywhere(&cluster, "statement_timeout", "0"));
    assert!(everywhere(&cluster, "work_mem", "4MB"));
}

#[test]
fn changes_made_at_the_same_time_are_all_kept() {
    let Some(cluster) = Cluster::start() else { return };
    std::thread::scope(|scope| {
        for (node, number) in cluster.nodes.iter().zip(1..) {
            scope.spawn(move || {
                let (code, answer) = change(node, &json!({"postgresql": {"parameters": {format!("test.n{number}"): number}}}));
                assert_eq!(code, 200, "{answer}");
            });
        }
    });
    let all = |node: &Node| (1..=3).all(|n| node.get("/config").1["postgresql"]["parameters"][format!("test.n{n}")] == n);
    wait_until("every member knows every change", LIMIT, || cluster.nodes.iter().all(all));
}

fn started(node: &Node) -> String {
    node.query("select pg_postmaster_start_time()::text").unwrap_or_default()
}

fn post(node: &Node, path: &str, body: &Value) -> (u16, String) {
    let (code, text) = node.request("POST", path, Some(body));
    (code, text.as_str().map_or_else(|| text.to_string(), str::to_owned))
}

#[test]
fn a_restarted_primary_stays_the_leader_and_loses_nothing() {
    let Some(cluster) = Cluster::start() else { return };
    let writer = Writer::start(&cluster);
    for _ in 0..2 {
        let leader = cluster.leader().unwrap();
        let before = started(leader);
        assert_eq!(post(leader, "/restart", &json!({})), (200, "restarted successfully".to_owned()));
        assert_ne!(started(leader), before);
        assert_eq!(cluster.leader().unwrap().name, leader.name, "the leader key changed hands");
        writer.wait_for_more();
        cluster.wait_healthy();
    }
    assert_eq!(cluster.leader().unwrap().get("/patroni").1["timeline"], 1, "somebody was promoted");
    let replica = cluster.replica();
    let before = started(replica);
    assert_eq!(post(replica, "/restart", &json!({"role": "primary"})), (503, "restart conditions are not satisfied".to_owned()));
    assert_eq!(started(replica), before);
    assert_eq!(post(replica, "/restart", &json!({"role": "replica"})), (200, "restarted successfully".to_owned()));
    assert_ne!(started(replica), before);
    cluster.wait_healthy();
    writer.check(&cluster);
}

#[test]
fn a_restart_can_be_scheduled_and_taken_back() {
    let Some(cluster) = Cluster::start() else { return };
    let replica = cluster.replica();
    let before = started(replica);
    let at = |seconds: i64| (jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds)).to_string();
    let later = json!({"schedule": at(3600), "role": "replica"});
    assert_eq!(post(replica, "/restart", &later), (202, "Restart scheduled".to_owned()));
    assert_eq!(post(replica, "/restart", &later).0, 409);
    let shown =
        |node: &Node| node.get("/cluster").1["members"].as_array().unwrap().iter().filter(|m| m["scheduled_restart"].is_object()).count();
    wait_until("everybody sees it", LIMIT, || cluster.nodes.iter().all(|node| shown(node) == 1));
    assert_eq!(replica.get("/patroni").1["scheduled_restart"], later);
    assert_eq!(replica.request("DELETE", "/restart", None), (200, json!("scheduled restart deleted")));
    assert_eq!(replica.request("DELETE", "/restart", None), (404, json!("no restarts are scheduled")));
    assert_eq!(post(replica, "/restart", &json!({"schedule": at(-5)})).0, 422);
    assert_eq!(post(replica, "/restart", &json!({"schedule": at(2)})).0, 202);
    wait_until("it was restarted in its time", LIMIT, || !started(replica).is_empty() && started(replica) != before);
    wait_until("nothing is scheduled any more", LIMIT, || cluster.nodes.iter().all(|node| shown(node) == 0));
    cluster.wait_healthy();
}

#[test]
fn a_replica_is_copied_anew_and_the_leader_never() {
    let Some(cluster) = Cluster::start() else { return };
    let writer = Writer::start(&cluster);
    let (leader, replica) = (cluster.leader().unwrap(), cluster.replica());
    assert_eq!(post(leader, "/reinitialize", &json!({"force": true})), (503, "I am the leader, can not reinitialize".to_owned()));
    replica.mark_data();
    assert_eq!(post(replica, "/reinitialize", &json!({})), (200, "reinitialize started".to_owned()));
    wait_until("its data are a new copy", LIMIT, || !replica.has_marked_data());
    cluster.wait_healthy();
    writer.wait_for_more();
    assert_eq!(cluster.leader().unwrap().name, leader.name);
    writer.check(&cluster);
}

#[test]
fn without_a_leader_nobody_throws_its_copy_away() {
    let Some(mut cluster) = Cluster::start() else { return };
    let former = cluster.leader().unwrap().name.clone();
    let replica = cluster.replica().name.clone();
    cluster.node(&replica).mark_data();
    // Nobody may be promoted, so there will be no leader.
    for node in cluster.nodes.iter().filter(|n| n.name != former) {
        assert_eq!(change(node, &json!({"pause": true})).0, 200);
    }
    wait_until("everybody knows", LIMIT, || cluster.nodes.iter().all(|n| n.get("/patroni").1["pause"] == true));
    cluster.node(&former).lose_host();
    let node = cluster.node(&replica);
    wait_until("there is no leader", LIMIT, || node.get("/patroni").1["cluster_unlocked"] == true);
    let (code, text) = post(node, "/reinitialize", &json!({"force": true}));
    assert_eq!((code, text.as_str()), (503, "Cluster has no leader, can not reinitialize"));
    assert!(node.has_marked_data());
    assert_eq!(change(node, &json!({"pause": null})).0, 200);
    cluster.wait_for_another_leader(&former);
}

#[test]
fn a_reload_reads_the_local_file_again() {
    let Some(cluster) = Cluster::start() else { return };
    let replica = cluster.replica();
    replica.edit_config(|config| config["postgresql"]["parameters"]["log_min_messages"] = json!("debug1"));
    assert_eq!(post(replica, "/reload", &json!({})), (202, "reload scheduled".to_owned()));
    wait_until("the new value is in force", LIMIT, || replica.query("show log_min_messages").is_ok_and(|v| v == "debug1"));
    assert_eq!(cluster.leader().unwrap().query("show log_min_messages").unwrap(), "warning");
}

fn waits(node: &Node) -> Value {
    node.get("/patroni").1["pending_restart_reason"]["max_connections"].clone()
}

fn set_max_connections(cluster: &Cluster, value: u32) {
    let (code, answer) = change(cluster.replica(), &json!({"postgresql": {"parameters": {"max_connections": value}}}));
    assert_eq!(code, 200, "{answer}");
}

#[test]
fn a_higher_limit_is_in_force_everywhere_after_restarts_in_any_order() {
    let Some(mut cluster) = Cluster::start() else { return };
    let writer = Writer::start(&cluster);
    set_max_connections(&cluster, 80);
    let waiting = json!({"old_value": "50", "new_value": "80"});
    wait_until("everybody waits for a restart", LIMIT, || cluster.nodes.iter().all(|n| waits(n) == waiting));
    wait_until("everybody tells", LIMIT, || {
        let members = cluster.nodes[0].get("/cluster").1["members"].clone();
        members
            .as_array()
            .unwrap()
            .iter()
            .all(|m| m["pending_restart"] == true && m["pending_restart_reason"]["max_connections"] == waiting)
    });
    let leader = cluster.leader().unwrap().name.clone();
    // The primary first would leave the standbys unable to replay.
    let (code, text) = post(cluster.node(&leader), "/restart", &json!({}));
    assert!(code == 503 && text.contains("first") && text.contains("max_connections"), "{code} {text}");
    // One that crashes comes back with what its standbys can follow.
    send(cluster.node(&leader).postmaster_pid().unwrap(), Signal::KILL);
    cluster.wait_healthy();
    let leader = cluster.leader().unwrap().name.clone();
    assert!(everywhere(&cluster, "max_connections", "50") || cluster.leader().unwrap().query("show max_connections").unwrap() == "50");
    for node in cluster.nodes.iter().filter(|n| n.name != leader && waits(n) == waiting) {
        assert_eq!(post(node, "/restart", &json!({"restart_pending": true})), (200, "restarted successfully".to_owned()), "{}", node.name);
        cluster.wait_healthy();
    }
    wait_until("the leader knows that its standbys are ready", LIMIT, || {
        let (code, text) = post(cluster.nodes.iter().find(|n| n.name == leader).unwrap(), "/restart", &json!({}));
        assert!(code == 200 || text.contains("first"), "{code} {text}");
        code == 200
    });
    cluster.wait_healthy();
    assert!(everywhere(&cluster, "max_connections", "80"));
    wait_until("nobody waits any more", LIMIT, || cluster.nodes.iter().all(|n| n.get("/patroni").1.get("pending_restart").is_none()));
    writer.check(&cluster);
}

#[test]
fn a_lower_limit_reaches_the_standbys_after_the_primary() {
    let Some(cluster) = Cluster::start() else { return };
    set_max_connections(&cluster, 30);
    wait_until("everybody waits for a restart", LIMIT, || cluster.nodes.iter().all(|n| waits(n)["new_value"] == "30"));
    let (leader, replica) = (cluster.leader().unwrap(), cluster.replica());
    assert_eq!(post(replica, "/restart", &json!({})).0, 200);
    cluster.wait_healthy();
    assert_eq!(replica.query("show max_connections").unwrap(), "50", "less than its primary has");
    assert_eq!(waits(replica), json!({"old_value": "50", "new_value": "30"}));
    assert_eq!(post(leader, "/restart", &json!({})).0, 200);
    cluster.wait_healthy();
    assert_eq!(leader.query("show max_connections").unwrap(), "30");
    let arrived = |node: &Node| post(node, "/restart", &json!({})).0 == 200 && node.query("show max_connections").is_ok_and(|v| v == "30");
    for node in cluster.nodes.iter().filter(|n| n.name != leader.name) {
        wait_until("the lower limit has arrived", LIMIT, || arrived(node));
    }
    cluster.wait_healthy();
}

#[test]
fn a_parameter_that_needs_a_restart_is_shown_with_both_values() {
    let Some(cluster) = Cluster::start() else { return };
    let (code, _) =
        change(cluster.replica(), &json!({"postgresql": {"parameters": {"shared_buffers": "48MB", "max_files_per_process": 900}}}));
    assert_eq!(code, 200);
    let expected = json!({"shared_buffers": {"old_value": "128MB", "new_value": "48MB"}, "max_files_per_process": {"old_value": "1000", "new_value": "900"}});
    wait_until("everybody shows it", LIMIT, || {
        let shown = |node: &Node| node.get("/patroni").1["pending_restart_reason"] == expected;
        cluster.nodes.iter().all(shown)
    });
    let null = json!({"postgresql": {"parameters": {"shared_buffers": null, "max_files_per_process": null}}});
    assert_eq!(change(cluster.replica(), &null).0, 200);
    wait_until("nothing waits", LIMIT, || cluster.nodes.iter().all(|n| n.get("/patroni").1.get("pending_restart").is_none()));
}
