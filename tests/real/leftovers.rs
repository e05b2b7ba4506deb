//! What is left of a guard, an agent or a server that died never writes beside what comes after it.

use rustix::process::Signal;

use super::{
    cluster::{Cluster, LIMIT, Node, descendants, is_alive, send},
    writer::Writer,
};
use crate::support::wait_until;

/// The postmaster and everything it has started.
fn server(node: &Node) -> Vec<i32> {
    let postmaster = node.postmaster_pid().expect("PostgreSQL runs");
    descendants(postmaster).into_iter().chain([postmaster]).collect()
}

#[test]
fn frozen_backends_of_a_killed_postmaster_are_gone_before_the_next_one_starts() {
    let Some(cluster) = Cluster::start() else { return };
    let writer = Writer::start(&cluster);
    let leader = cluster.leader().unwrap();
    let old = server(leader);
    let postmaster = *old.last().expect("there is a postmaster");
    old.iter().filter(|pid| **pid != postmaster).for_each(|pid| send(*pid, Signal::STOP));
    send(postmaster, Signal::KILL);
    wait_until("another server runs", LIMIT, || leader.postmaster_pid().is_some_and(|pid| pid != postmaster));
    assert!(old.iter().all(|pid| !is_alive(*pid)), "{old:?}");
    writer.wait_for_more();
    // In place, or behind a successor: whichever was quicker.
    cluster.wait_healthy();
    writer.check(&cluster);
}

#[test]
fn what_a_killed_guard_leaves_frozen_is_ended_by_the_next_one() {
    let Some(mut cluster) = Cluster::start() else { return };
    let writer = Writer::start(&cluster);
    let former = cluster.leader().unwrap().name.clone();
    let node = cluster.node(&former);
    // Everything of it is frozen, and only the guard dies: nobody can heed the kernel's signal.
    let mut old = server(node);
    old.push(node.agent_pid());
    old.iter().for_each(|pid| send(*pid, Signal::STOP));
    node.kill_guard();
    assert!(old.iter().all(|pid| is_alive(*pid)));
    node.start();
    wait_until("the next guard has begun", LIMIT, || node.log().contains("ending what an earlier server or agent has left"));
    wait_until("everything old is gone", LIMIT, || old.iter().all(|pid| !is_alive(*pid)));
    writer.wait_for_more();
    cluster.wait_healthy();
    writer.check(&cluster);
}

#[test]
fn backends_without_postmaster_guard_or_agent_are_ended_before_the_start() {
    let Some(mut cluster) = Cluster::start() else { return };
    let writer = Writer::start(&cluster);
    let former = cluster.leader().unwrap().name.clone();
    let node = cluster.node(&former);
    let old = server(node);
    let (postmaster, agent) = (*old.last().expect("there is a postmaster"), node.agent_pid());
    old.iter().filter(|pid| **pid != postmaster).for_each(|pid| send(*pid, Signal::STOP));
    send(agent, Signal::STOP);
    node.kill_guard();
    [postmaster, agent].iter().for_each(|pid| send(*pid, Signal::KILL));
    node.start();
    wait_until("another server runs", LIMIT, || node.postmaster_pid().is_some_and(|pid| pid != postmaster));
    assert!(old.iter().all(|pid| !is_alive(*pid)), "{old:?}");
    cluster.wait_healthy();
    writer.check(&cluster);
}
