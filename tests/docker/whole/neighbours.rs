//! Two clusters on one machine never touch each other.

use super::cluster::{Cluster, LIMIT};
use crate::shared::writer::rows;

#[test]
fn deleting_a_cluster_leaves_its_neighbour_as_it_is() {
    // One name begins with the other, as it may be.
    let Some(one) = Cluster::with_ports_chosen(format!("two{}", std::process::id())) else { return };
    let Some(other) = Cluster::with_ports_chosen(format!("{}-1", one.name)) else { return };
    one.create(2);
    other.create(2);
    let (writer, leader, before) = (one.writer(), one.leader(), one.remains());
    let own = other.writer();
    own.wait_for_more(LIMIT);
    assert_ne!(one.client("rw").get_ports(), other.client("rw").get_ports());
    own.stop();
    other.spilo(&["delete", "cluster", &other.name, "--confirm", &other.name, "--backups"]).exits(0);
    other.expect_gone();
    writer.wait_for_more(LIMIT);
    assert_eq!((one.remains(), one.leader()), (before, leader));
    one.spilo(&["status", &one.name]).exits(0);
    one.expect_rows(&writer.stop());
    assert!(rows(&one.client("ro")).is_ok(), "replicas answer too");
}
