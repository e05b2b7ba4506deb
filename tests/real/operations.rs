//! What an operator plans: hand-overs for a later hour, and a pause in which nobody acts by itself.

use serde_json::{Value, json};

use super::{
    cluster::{Cluster, LIMIT, Node},
    writer::Writer,
};
use crate::support::wait_until;

fn in_seconds(seconds: i64) -> String {
    (jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds)).to_string()
}

fn pause(cluster: &Cluster, pause: &Value) {
    let node = cluster.nodes.iter().find(|n| n.get("/liveness").0 == 200).expect("somebody is there");
    assert_eq!(node.request("PATCH", "/config", Some(&json!({ "pause": pause }))).0, 200);
    let knows = |node: &Node| !node.is_running() || (node.get("/patroni").1["pause"] == true) == (pause == true);
    wait_until("everybody knows of the pause", LIMIT, || cluster.nodes.iter().all(knows));
}

#[test]
fn a_scheduled_switchover_happens_in_its_time_and_can_be_taken_back() {
    let Some(cluster) = Cluster::start() else { return };
    let writer = Writer::start(&cluster);
    let (leader, candidate) = (cluster.leader().unwrap(), cluster.replica());
    let body = |seconds: i64| json!({"leader": leader.name, "candidate": candidate.name, "scheduled_at": in_seconds(seconds)});
    assert_eq!(leader.request("POST", "/switchover", Some(&body(3600))), (202, json!("Switchover scheduled")));
    wait_until("everybody sees it", LIMIT, || {
        let planned = |node: &Node| node.get("/cluster").1["scheduled_switchover"].clone();
        cluster.nodes.iter().all(|n| planned(n)["from"] == leader.name && planned(n)["to"] == candidate.name)
    });
    assert_eq!(candidate.request("DELETE", "/switchover", None), (200, json!("scheduled switchover deleted")));
    wait_until("nothing is planned", LIMIT, || cluster.nodes.iter().all(|n| n.get("/cluster").1.get("scheduled_switchover").is_none()));
    assert_eq!(candidate.request("DELETE", "/switchover", None), (404, json!("no switchover is scheduled")));
    assert_eq!(candidate.request("POST", "/switchover", Some(&body(-5))).0, 422);
    let due = std::time::Instant::now() + std::time::Duration::from_secs(4);
    assert_eq!(candidate.request("POST", "/switchover", Some(&body(4))).0, 202);
    while std::time::Instant::now() + std::time::Duration::from_millis(500) < due {
        assert_eq!(leader.get("/primary").0, 200, "too early");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    wait_until("the candidate leads", LIMIT, || candidate.get("/primary").0 == 200);
    cluster.wait_healthy();
    writer.wait_for_more();
    writer.check(&cluster);
}

#[test]
fn a_pause_keeps_the_others_from_taking_over_until_an_operator_names_a_candidate() {
    let Some(mut cluster) = Cluster::start() else { return };
    let writer = Writer::start(&cluster);
    pause(&cluster, &json!(true));
    let former = cluster.leader().unwrap().name.clone();
    cluster.node(&former).lose_host();
    let candidate = cluster.nodes.iter().find(|n| n.is_running()).unwrap().name.clone();
    // Three leases long nobody takes over.
    for _ in 0..30 {
        assert!(cluster.leader().is_none_or(|l| l.name == former), "somebody took over in a pause");
        std::thread::sleep(std::time::Duration::from_millis(500));
    }
    let asked = cluster.node(&candidate).request("POST", "/failover", Some(&json!({ "candidate": candidate })));
    assert_eq!(asked, (200, json!(format!("Successfully failed over to \"{candidate}\""))));
    writer.wait_for_more();
    pause(&cluster, &Value::Null);
    cluster.node(&former).start();
    cluster.wait_healthy();
    assert_eq!(cluster.leader().unwrap().name, candidate);
    writer.check(&cluster);
}

#[test]
fn in_a_pause_a_server_that_was_stopped_by_hand_stays_down() {
    let Some(cluster) = Cluster::start() else { return };
    pause(&cluster, &json!(true));
    let leader = cluster.leader().unwrap();
    super::cluster::send(leader.postmaster_pid().unwrap(), rustix::process::Signal::INT);
    wait_until("the key is given up", LIMIT, || leader.get("/patroni").1["cluster_unlocked"] == true);
    std::thread::sleep(std::time::Duration::from_secs(8));
    assert!(cluster.leader().is_none(), "somebody leads in a pause");
    assert_eq!(leader.postmaster_pid(), None, "it was started in a pause");
    // A restart is what an operator asks for, so it is allowed.
    let replica = cluster.nodes.iter().find(|n| n.name != leader.name).unwrap();
    assert_eq!(replica.request("POST", "/restart", Some(&json!({}))), (200, json!("restarted successfully")));
    pause(&cluster, &Value::Null);
    cluster.wait_healthy();
}
