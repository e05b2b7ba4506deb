//! What tags do to members of a real cluster.

use serde_json::json;

use super::{
    cluster::{Cluster, LIMIT},
    writer::Writer,
};
use crate::support::wait_until;

pub fn others(cluster: &Cluster) -> (String, [String; 2]) {
    let leader = cluster.leader().expect("there is a leader").name.clone();
    let names: Vec<String> = cluster.nodes.iter().map(|n| n.name.clone()).filter(|n| *n != leader).collect();
    (leader, names.try_into().expect("three members"))
}

#[test]
fn a_tagged_standby_cascades_until_its_upstream_is_lost_and_no_commit_waits_for_it() {
    let Some(mut cluster) = Cluster::start() else { return };
    let writer = Writer::start(&cluster);
    let (leader, [upstream, tagged]) = others(&cluster);
    cluster.node(&tagged).reconfigure(&json!({"tags": {"replicatefrom": upstream}}));
    let streams = format!("select count(*)::text from pg_stat_replication where state = 'streaming' and application_name = '{tagged}'");
    wait_until("it streams from the standby", LIMIT, || cluster.node(&upstream).query(&streams).is_ok_and(|n| n == "1"));
    let names = format!("ANY 1 (\"{upstream}\")");
    let shown = "show synchronous_standby_names";
    wait_until("commits wait for the other one only", LIMIT, || cluster.node(&leader).query(shown).is_ok_and(|n| n == names));
    writer.wait_for_more();
    cluster.node(&upstream).lose_host();
    wait_until("it streams from the leader", LIMIT, || cluster.node(&leader).query(&streams).is_ok_and(|n| n == "1"));
    writer.wait_for_more();
    cluster.node(&upstream).start();
    wait_until("it streams from the standby again", LIMIT, || cluster.node(&upstream).query(&streams).is_ok_and(|n| n == "1"));
    cluster.node(&tagged).reconfigure(&json!({"tags": {"replicatefrom": null}}));
    writer.check(&cluster);
}

#[test]
fn of_two_standbys_with_everything_the_one_with_the_higher_priority_leads() {
    let Some(mut cluster) = Cluster::start_with(&json!({"synchronous_mode": "off"})) else { return };
    let (leader, [one, two]) = others(&cluster);
    // The later name, so that nothing but the tag speaks for it.
    let (preferred, other) = if one > two { (one, two) } else { (two, one) };
    cluster.node(&preferred).reconfigure(&json!({"tags": {"failover_priority": 5}}));
    wait_until("the tag is published", LIMIT, || cluster.node(&other).get("/cluster").1.to_string().contains("failover_priority"));
    cluster.node(&leader).lose_host();
    assert_eq!(cluster.wait_for_another_leader(&leader), preferred);
    cluster.node(&leader).start();
    cluster.wait_healthy();
}

#[test]
fn a_member_without_data_copies_the_standby_that_offers_itself() {
    let Some(mut cluster) = Cluster::start() else { return };
    let writer = Writer::start(&cluster);
    let (_, [source, new]) = others(&cluster);
    cluster.node(&source).reconfigure(&json!({"tags": {"clonefrom": true}}));
    wait_until("the tag is published", LIMIT, || cluster.node(&new).get("/cluster").1.to_string().contains("clonefrom"));
    cluster.node(&new).lose_host();
    cluster.node(&new).lose_data();
    cluster.node(&new).start();
    cluster.wait_healthy();
    assert!(cluster.node(&new).log().contains(&format!("copying '{source}'")), "{}", cluster.node(&new).log());
    writer.check(&cluster);
}

#[test]
fn a_member_told_not_to_stream_stops_and_the_leader_keeps_nothing_for_it() {
    let Some(mut cluster) = Cluster::start() else { return };
    let writer = Writer::start(&cluster);
    let (leader, [_, silent]) = others(&cluster);
    cluster.node(&silent).reconfigure(&json!({"tags": {"nostream": true}}));
    let slot = format!("select count(*)::text from pg_replication_slots where slot_name = '{silent}'");
    wait_until("its slot is gone", LIMIT, || cluster.node(&leader).query(&slot).is_ok_and(|n| n == "0"));
    assert_eq!(cluster.node(&silent).query("select count(*)::text from pg_stat_wal_receiver").unwrap(), "0");
    writer.wait_for_more();
    cluster.node(&silent).reconfigure(&json!({"tags": {"nostream": null}}));
    writer.check(&cluster);
}

#[test]
fn a_configuration_with_wrong_tags_is_not_taken() {
    let Some(mut cluster) = Cluster::start() else { return };
    let (_, [name, _]) = others(&cluster);
    cluster.node(&name).reconfigure(&json!({"tags": {"nofailover": "perhaps"}}));
    wait_until("it is said", LIMIT, || cluster.node(&name).log().contains("'tags.nofailover' is \"perhaps\": true or false is needed"));
    assert_eq!(cluster.node(&name).get("/patroni").1["tags"], json!(null));
}
