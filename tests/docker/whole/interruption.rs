//! Whoever is killed in the middle of a creation and runs it again has the cluster; whoever deletes instead has nothing.

use std::time::Duration;

use super::cluster::{Cluster, STEP_DONE};

/// When the command is killed: after so many steps, and so long after the last of them.
#[derive(Debug, Clone, Copy)]
struct Moment {
    steps: usize,
    then: Duration,
}

/// After every step of a creation. The last step is to wait until the cluster is healthy: that is when the database comes into being, so that
/// more moments lie in it.
fn moments(cluster: &Cluster) -> Vec<Moment> {
    // Only the first creation of all would build the image.
    cluster.spilo(&["image", "build"]).exits(0);
    let said = cluster.create(2).stderr;
    delete(cluster);
    let steps = said.lines().filter(|line| line.contains(STEP_DONE)).count();
    assert!(steps > 7, "fewer steps than a cluster of two nodes has:\n{said}");
    let after_each = (0..steps).map(|steps| Moment { steps, then: Duration::ZERO });
    let while_waiting = [400, 1000, 2000].map(|millis| Moment { steps: steps - 1, then: Duration::from_millis(millis) });
    after_each.chain(while_waiting).collect()
}

#[test]
fn a_creation_killed_at_any_moment_is_continued_or_deleted() {
    let Some(cluster) = Cluster::new("kill") else { return };
    for moment in moments(&cluster) {
        killed_and_continued(&cluster, moment);
        killed_and_deleted(&cluster, moment);
    }
    cluster.expect_gone();
}

fn killed_and_continued(cluster: &Cluster, moment: Moment) {
    kill_at(cluster, moment);
    cluster.create(2);
    cluster.expect_open();
    cluster.spilo(&["plan", &cluster.name, "--exit-code"]).exits(0);
    delete(cluster);
}

fn killed_and_deleted(cluster: &Cluster, moment: Moment) {
    kill_at(cluster, moment);
    delete(cluster);
}

fn kill_at(cluster: &Cluster, moment: Moment) {
    let killed = cluster.spilo_killed(&cluster.creation(2), moment.steps, moment.then);
    println!("{moment:?}: {}", if killed { "killed" } else { "it had ended already" });
    assert!(killed || !moment.then.is_zero(), "a creation does not end before its last step");
}

/// Before the first thing was made there is nothing to delete, and that is said.
fn delete(cluster: &Cluster) {
    let there = !cluster.remains().is_empty();
    let run = cluster.spilo(&["delete", "cluster", &cluster.name, "--confirm", &cluster.name, "--backups"]);
    if there {
        run.exits(0);
    } else {
        assert!([0, 4].contains(&run.code), "{}: {}", run.code, run.stderr);
    }
    cluster.expect_gone();
}
