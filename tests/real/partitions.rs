//! Networks that lose what passes through them, in every shape, under a client that writes all the time. The client reaches every member.

use std::{net::Ipv4Addr, time::Duration};

use serde_json::json;

use super::{cluster::Cluster, network::Direction, writer::Writer};

/// Longer than a lease and an election.
const LONG: Duration = Duration::from_secs(9);

fn cluster() -> Option<Cluster> {
    Cluster::start_on_hosts(&json!({"synchronous_mode": "quorum"}))
}

/// The leader's name and host, and the addresses of the other members.
fn around_the_leader(cluster: &Cluster) -> (String, u8, Vec<Ipv4Addr>) {
    let leader = cluster.leader().unwrap().name.clone();
    let host = cluster.host(&leader);
    let others = cluster.nodes.iter().map(|n| cluster.host(&n.name)).filter(|other| *other != host);
    let addresses = others.map(|other| cluster.network().address(other)).collect();
    (leader, host, addresses)
}

#[test]
fn a_primary_that_is_cut_off_from_everybody_is_replaced_and_comes_back() {
    let Some(cluster) = cluster() else { return };
    let writer = Writer::start(&cluster);
    let (leader, host, _) = around_the_leader(&cluster);
    cluster.network().isolate(host);
    cluster.wait_for_another_leader(&leader);
    writer.wait_for_more();
    cluster.network().heal();
    writer.check(&cluster);
}

#[test]
fn a_primary_that_speaks_and_does_not_hear_is_replaced_and_comes_back() {
    let Some(cluster) = cluster() else { return };
    let writer = Writer::start(&cluster);
    let (leader, host, others) = around_the_leader(&cluster);
    for address in others.into_iter().chain([cluster.network().store()]) {
        cluster.network().cut(host, Direction::From, address);
    }
    cluster.wait_for_another_leader(&leader);
    writer.wait_for_more();
    cluster.network().heal();
    writer.check(&cluster);
}

#[test]
fn a_primary_that_only_its_standbys_do_not_reach_goes_on_alone() {
    let Some(cluster) = cluster() else { return };
    let writer = Writer::start(&cluster);
    let (leader, host, others) = around_the_leader(&cluster);
    others.into_iter().for_each(|address| cluster.network().part(host, address));
    writer.wait_for_more();
    std::thread::sleep(LONG);
    writer.wait_for_more();
    assert_eq!(cluster.leader().map(|l| &l.name), Some(&leader), "nobody else can have all that was acknowledged");
    cluster.network().heal();
    writer.check(&cluster);
}

#[test]
fn a_standby_that_is_cut_off_changes_nothing_for_the_others() {
    let Some(cluster) = cluster() else { return };
    let writer = Writer::start(&cluster);
    let leader = cluster.leader().unwrap().name.clone();
    cluster.network().isolate(cluster.host(&cluster.replica().name));
    std::thread::sleep(LONG);
    writer.wait_for_more();
    assert_eq!(cluster.leader().map(|l| &l.name), Some(&leader));
    cluster.network().heal();
    writer.check(&cluster);
}

#[test]
fn a_network_that_is_gone_altogether_and_returns_leaves_one_history() {
    let Some(cluster) = cluster() else { return };
    let writer = Writer::start(&cluster);
    for pause in [LONG, Duration::from_secs(2)] {
        cluster.nodes.iter().for_each(|node| cluster.network().isolate(cluster.host(&node.name)));
        std::thread::sleep(pause);
        cluster.network().heal();
        writer.wait_for_more();
    }
    writer.check(&cluster);
}

#[test]
fn a_primary_whose_network_comes_and_goes_loses_nothing() {
    let Some(cluster) = cluster() else { return };
    let writer = Writer::start(&cluster);
    for turn in 0..6_u64 {
        // Whoever leads now, or led last.
        let host = cluster.leader().map_or(1, |leader| cluster.host(&leader.name));
        cluster.network().isolate(host);
        std::thread::sleep(Duration::from_millis(700 + 900 * turn));
        cluster.network().heal();
        std::thread::sleep(Duration::from_millis(1500));
    }
    writer.wait_for_more();
    writer.check(&cluster);
}
