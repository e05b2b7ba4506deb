//! Members that require a watchdog device which does not work. No device is opened: a file is in its place, or nothing.

use serde_json::json;

use super::cluster::{Cluster, LIMIT};
use crate::support::wait_until;

#[test]
fn a_member_without_the_watchdog_it_requires_never_leads() {
    let Some(mut cluster) = Cluster::start_with(&json!({"synchronous_mode": "off"})) else { return };
    let leader = cluster.leader().unwrap().name.clone();
    let without = cluster.replica().name.clone();
    let device = cluster.node(&without).path("no-such-device");
    let section = json!({"mode": "required", "device": device, "safety_margin": -1});
    let node = cluster.node(&without);
    node.stop();
    // Otherwise it would be the one that leads next.
    node.reconfigure(&json!({"watchdog": section, "tags": {"failover_priority": 5}}));
    node.start();
    wait_until("it says so", LIMIT, || node.get("/patroni").1["watchdog_failed"] == true);
    let trouble = node.get("/patroni").1["trouble"].to_string();
    assert!(trouble.contains("no-such-device") && trouble.contains("cannot be written to"), "{trouble}");
    cluster.wait_healthy();
    cluster.node(&leader).lose_host();
    assert_ne!(cluster.wait_for_another_leader(&leader), without);
    cluster.node(&leader).start();
    cluster.wait_healthy();
}

#[test]
fn a_leader_whose_watchdog_cannot_be_armed_does_not_go_on_leading() {
    let Some(mut cluster) = Cluster::start() else { return };
    let leader = cluster.leader().unwrap().name.clone();
    let node = cluster.node(&leader);
    let device = node.path("no-device");
    std::fs::write(&device, "").unwrap();
    super::cluster::own(&device);
    node.reconfigure(&json!({"watchdog": {"mode": "required", "device": device, "safety_margin": -1}}));
    // The agent alone starts again, and finds its server leading.
    super::cluster::send(node.agent_pid(), rustix::process::Signal::KILL);
    cluster.wait_for_another_leader(&leader);
    cluster.wait_healthy();
    let body = cluster.node(&leader).get("/patroni").1;
    assert_eq!(body["watchdog_failed"], true);
    assert!(body["trouble"].to_string().contains("takes no timeout"), "{body}");
    assert_eq!(std::fs::read_to_string(&device).unwrap(), "V", "what was opened was closed as a device has to be");
}
