//! What an operator does with a cluster at work: hand over, grow, shrink, read logs.

use serde_json::Value;

use super::cluster::{Cluster, LIMIT};
use crate::shared::writer::Writer;

#[test]
fn a_cluster_is_handed_over_and_scaled_while_clients_write() {
    let Some(cluster) = Cluster::new("ops") else { return };
    cluster.create(3);
    let writer = cluster.writer();
    the_leadership_goes_where_it_is_sent(&cluster, &writer);
    impossible_switchovers_are_refused(&cluster);
    nodes_come_and_go_but_never_the_leader(&cluster, &writer);
    logs_are_those_of_whom_was_asked_for(&cluster);
    cluster.expect_rows(&writer.stop());
}

fn the_leadership_goes_where_it_is_sent(cluster: &Cluster, writer: &Writer) {
    let (from, to) = (cluster.leader(), cluster.other_than(&cluster.leader()));
    let run = cluster.spilo(&["switchover", &cluster.name, "--to", &to, "-o", "json"]).exits(0);
    let done: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!((&done["from"], &done["to"]), (&from.as_str().into(), &to.as_str().into()), "{done:#}");
    let outage = writer.wait_for_more(LIMIT);
    println!("switchover: {} ms by its own word, some more rows {outage:?} later", done["elapsed_ms"]);
    assert_eq!(cluster.leader(), to);
    // By its number, and to the highest, which scaling down would take first.
    wait_healthy(cluster);
    if to != format!("{}-3", cluster.name) {
        cluster.spilo(&["switchover", &cluster.name, "--to", "3"]).exits(0).prints("switched over");
    }
    wait_healthy(cluster);
}

fn impossible_switchovers_are_refused(cluster: &Cluster) {
    let name = cluster.name.as_str();
    let leader = cluster.leader();
    cluster.spilo(&["switchover", name, "--to", "nobody"]).exits(4).says("has no member 'nobody'").says(&format!("{name}-1, {name}-2"));
    cluster.spilo(&["switchover", name, "--to", &leader]).exits(6).says("already");
    assert_eq!(cluster.leader(), leader);
}

fn nodes_come_and_go_but_never_the_leader(cluster: &Cluster, writer: &Writer) {
    let name = cluster.name.as_str();
    let leader = cluster.leader();
    assert_eq!(leader, format!("{name}-3"));
    cluster.spilo(&["scale", name, "4"]).exits(0);
    assert_eq!(cluster.members(), [1, 2, 3, 4].map(|number| format!("{name}-{number}")));
    writer.wait_for_more(LIMIT);
    cluster.spilo(&["scale", name, "2"]).exits(6).says("--yes");
    assert_eq!(cluster.members().len(), 4, "what was not agreed to is not done");
    cluster.spilo(&["scale", name, "2", "--yes"]).exits(0);
    writer.wait_for_more(LIMIT);
    assert_eq!((cluster.members().len(), cluster.leader()), (2, leader.clone()));
    assert!(cluster.members().contains(&leader));
    // Two nodes, etcd, router: and no volume of a node that is gone.
    let remains = cluster.remains();
    assert_eq!(remains["container"].len(), 4, "{remains:?}");
    assert!(!remains["volume"].contains(&cluster.container("4")), "{remains:?}");
    cluster.spilo(&["plan", name, "--exit-code"]).exits(0);
}

fn logs_are_those_of_whom_was_asked_for(cluster: &Cluster) {
    let name = cluster.name.as_str();
    let logs = |options: &[&str]| cluster.spilo(&[&["logs", name], options].concat()).exits(0).stdout;
    let all = logs(&["--tail", "5"]);
    for member in cluster.members() {
        assert_eq!(all.lines().filter(|line| line.starts_with(&format!("{member} | "))).count(), 5, "{all}");
    }
    assert_eq!(logs(&["--node", "router", "--tail", "1"]).lines().count(), 1);
    assert!(logs(&["--node", "etcd-1", "--tail", "all"]).contains("ready to serve client requests"));
    cluster.spilo(&["logs", name, "--node", "nobody"]).exits(4).says("has no container 'nobody'");
}

/// A switchover is done when the new leader leads; the others need a moment to follow it.
fn wait_healthy(cluster: &Cluster) {
    crate::shared::wait_until("the cluster is healthy", LIMIT, || cluster.spilo(&["status", &cluster.name]).code == 0);
}
