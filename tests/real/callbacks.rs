//! Programs of the user's at the turning points of real members.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use serde_json::json;

use super::{
    cluster::{Cluster, LIMIT, Node},
    writer::Writer,
};
use crate::support::wait_until;

/// A program beside the member's data, and the file it writes to.
fn program(node: &Node, name: &str, body: &str) -> PathBuf {
    let path = node.path(name);
    fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn recording(node: &Node) -> serde_json::Value {
    let command = program(node, "told.sh", &format!("echo \"$@ ${{PATRONI_X:-}}\" >> {0}; echo told $1", node.path("told").display()));
    let callbacks = ["on_start", "on_stop", "on_restart", "on_reload", "on_role_change"].map(|event| (event.to_owned(), json!(command)));
    json!({"postgresql": {"callbacks": serde_json::Map::from_iter(callbacks)}})
}

fn told(node: &Node) -> Vec<String> {
    let text = fs::read_to_string(node.path("told")).unwrap_or_default();
    text.lines().map(|line| line.trim().to_owned()).collect()
}

#[test]
fn callbacks_hear_of_roles_stops_and_starts_and_a_hanging_one_holds_nothing_up() {
    let Some(mut cluster) = Cluster::start() else { return };
    let writer = Writer::start(&cluster);
    for node in &cluster.nodes {
        node.reconfigure(&recording(node));
    }
    let (leader, candidate) = (cluster.leader().unwrap().name.clone(), cluster.replica().name.clone());
    // One that hangs is ended when the next is due.
    let hanging = program(cluster.node(&candidate), "hang.sh", "sleep 1000");
    wait_until("it is read", LIMIT, || cluster.node(&candidate).log().contains("configuration read again"));
    let body = json!({"leader": leader, "candidate": candidate});
    assert_eq!(cluster.node(&leader).request("POST", "/switchover", Some(&body)).0, 200);
    wait_until("the new primary is told", LIMIT, || told(cluster.node(&candidate)).contains(&"on_role_change primary real".to_owned()));
    wait_until("the old one too", LIMIT, || told(cluster.node(&leader)).contains(&"on_role_change replica real".to_owned()));
    assert!(cluster.node(&candidate).log().contains("on_role_change: told on_role_change"), "{}", cluster.node(&candidate).log());
    cluster.wait_healthy();
    cluster.node(&candidate).reconfigure(&json!({"postgresql": {"callbacks": {"on_start": hanging}}}));
    writer.wait_for_more();
    cluster.node(&candidate).stop();
    assert_eq!(told(cluster.node(&candidate)).last().map(String::as_str), Some("on_stop primary real"));
    cluster.node(&candidate).start();
    cluster.wait_healthy();
    writer.check(&cluster);
}

#[test]
fn whoever_must_not_be_promoted_leaves_the_lead_to_another() {
    let Some(mut cluster) = Cluster::start() else { return };
    let writer = Writer::start(&cluster);
    let leader = cluster.leader().unwrap().name.clone();
    let refused = cluster.replica().name.clone();
    let no = program(cluster.node(&refused), "no.sh", "echo not this one; exit 1");
    cluster.node(&refused).reconfigure(&json!({"postgresql": {"pre_promote": no}}));
    wait_until("it is read", LIMIT, || cluster.node(&refused).log().contains("configuration read again"));
    let body = json!({"leader": leader, "candidate": refused});
    cluster.node(&leader).request("POST", "/switchover", Some(&body));
    wait_until("somebody leads", LIMIT, || cluster.leader().is_some());
    let next = cluster.leader().expect("just seen").name.clone();
    assert_ne!(next, refused);
    assert!(cluster.node(&refused).log().contains("pre_promote: not this one"), "{}", cluster.node(&refused).log());
    writer.wait_for_more();
    writer.check(&cluster);
}
