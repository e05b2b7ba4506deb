//! Who may change a cluster over the REST API.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    cluster::{Cluster, LIMIT, Node, request_as},
    writer::Writer,
};
use crate::support::wait_until;

const ADMIN: (&str, &str) = ("admin", "correct horse");

fn demand(node: &Node, login: (&str, &str)) {
    node.reconfigure(&json!({"restapi": {"authentication": {"username": login.0, "password": login.1}}}));
}

fn change(node: &Node, login: Option<(&str, &str)>) -> (u16, Value) {
    request_as(login, &node.api, "PATCH", "/config", Some(&json!({"postgresql": {"parameters": {"work_mem": "7MB"}}})))
}

#[test]
fn changes_need_the_password_and_members_know_it_when_the_store_is_gone() {
    let Some(mut cluster) = Cluster::start() else { return };
    // One agent starts with it, the others learn it on reload.
    let name = cluster.replica().name.clone();
    cluster.node(&name).stop();
    cluster.nodes.iter().for_each(|node| demand(node, ADMIN));
    cluster.node(&name).start();
    cluster.wait_healthy();
    wait_until("everybody demands it", LIMIT, || cluster.nodes.iter().all(|node| change(node, None).0 == 401));
    for node in &cluster.nodes {
        assert_eq!(change(node, None), (401, json!("no auth header received")));
        assert_eq!(change(node, Some(("admin", "incorrect horse"))), (401, json!("not authenticated")));
        assert_eq!(node.get("/config").0, 200, "reading is open");
        assert_eq!(node.query("show work_mem").unwrap(), "4MB", "a refused change was made");
    }
    assert_eq!(change(cluster.replica(), Some(ADMIN)).0, 200);
    wait_until("the change has arrived", LIMIT, || {
        cluster.nodes.iter().all(|node| node.query("show work_mem").is_ok_and(|shown| shown == "7MB"))
    });

    let writer = Writer::start(&cluster);
    let leader = cluster.leader().unwrap().name.clone();
    cluster.etcd.freeze();
    // Several leases long: it is the others' promises that let it lead on.
    std::thread::sleep(Duration::from_secs(16));
    assert_eq!(cluster.leader().map(|l| l.name.as_str()), Some(leader.as_str()), "the members do not promise each other anything");
    writer.wait_for_more();
    cluster.etcd.thaw();
    cluster.wait_healthy();
    assert_eq!(cluster.leader().unwrap().name, leader);
    writer.check(&cluster);
    for node in &cluster.nodes {
        assert!(!node.log().contains(ADMIN.1), "{} has written the password to its log", node.name);
    }
}

#[test]
fn a_protection_that_there_is_not_ends_the_start() {
    let Some(mut cluster) = Cluster::start() else { return };
    let name = cluster.replica().name.clone();
    cluster.node(&name).stop();
    let node = cluster.node(&name);
    let config = node.write_config("protected.yml", |config| {
        config["restapi"]["certfile"] = json!("/etc/tls/api.pem");
        config["restapi"]["allowlist"] = json!(["10.0.0.0/8"]);
        config["restapi"]["authentication"] = json!({"username": "admin"});
    });
    let (code, said) = node.run_to_end(&config);
    assert_eq!(code, 2, "{said}");
    for part in
        ["3 mistakes", "'restapi.certfile' is not supported", "'restapi.allowlist' is not supported", "authentication.password' is missing"]
    {
        assert!(said.contains(part), "'{part}' is not in:\n{said}");
    }
}
