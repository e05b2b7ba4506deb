//! What an operator notices of the REST API, on real agents.

use serde_json::{Value, json};

use super::cluster::{Cluster, LIMIT, Node};
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
