//! A cluster that follows another one: `n1` is the other cluster, `n2` and `n3` follow it.

use serde_json::{Value, json};

use super::cluster::{Cluster, LIMIT, Node};
use crate::support::wait_until;

const FOLLOWERS: [usize; 2] = [1, 2];

/// `n1` leads a cluster of its own; the others are of a second cluster in the same etcd, which follows it, and are not started.
fn main_cluster() -> Option<Cluster> {
    let mut cluster = Cluster::unstarted(&json!({"slots": {"copy": {"type": "physical"}}}))?;
    let section = section(&cluster);
    for follower in FOLLOWERS {
        cluster.nodes[follower].edit_config(|config| {
            config["scope"] = json!("copy");
            config["bootstrap"]["dcs"]["standby_cluster"] = section.clone();
            config["bootstrap"]["dcs"]["synchronous_mode"] = json!("quorum");
        });
    }
    cluster.nodes[0].start();
    wait_until("the other cluster has a primary", LIMIT, || cluster.nodes[0].get("/primary").0 == 200);
    cluster.nodes[0].execute("create table rows (id int primary key, of text)");
    Some(cluster)
}

fn section(cluster: &Cluster) -> Value {
    let main = cluster.nodes[0].postgres;
    json!({"host": main.ip().to_string(), "port": main.port(), "primary_slot_name": "copy", "create_replica_methods": ["basebackup"]})
}

fn started() -> Option<Cluster> {
    let mut cluster = main_cluster()?;
    FOLLOWERS.iter().for_each(|follower| cluster.nodes[*follower].start());
    wait_until("the second cluster follows", LIMIT, || follows(&cluster).is_some());
    Some(cluster)
}

fn answers<'c>(cluster: &'c Cluster, path: &str) -> Vec<&'c Node> {
    FOLLOWERS.iter().map(|follower| &cluster.nodes[*follower]).filter(|node| node.get(path).0 == 200).collect()
}

fn streams(node: &Node) -> bool {
    node.query("select status from pg_stat_wal_receiver").is_ok_and(|status| status == "streaming")
}

/// The standby leader and its replica, when both stream: the one from the other cluster, the other one from it.
fn follows(cluster: &Cluster) -> Option<(&Node, &Node)> {
    assert!(answers(cluster, "/primary").is_empty(), "nobody in a standby cluster is a primary");
    let (leaders, replicas) = (answers(cluster, "/standby-leader"), answers(cluster, "/replica"));
    let (leader, replica) = (*leaders.first()?, *replicas.first()?);
    let elsewhere = format!("select count(*)::text from pg_stat_replication where application_name = 'standby/copy/{}'", leader.name);
    let behind = format!("select count(*)::text from pg_stat_replication where application_name = '{}'", replica.name);
    let counts = |node: &Node, query: &str| node.query(query).is_ok_and(|count| count == "1");
    let all = leader.name != replica.name
        && streams(leader)
        && streams(replica)
        && counts(&cluster.nodes[0], &elsewhere)
        && counts(leader, &behind);
    all.then_some((leader, replica))
}

/// Writes a row in the other cluster, and waits until it is on every follower that runs.
fn a_row_arrives(cluster: &Cluster, id: u32) {
    cluster.nodes[0].execute(&format!("insert into rows values ({id}, 'main')"));
    let there = format!("select count(*)::text from rows where id = {id} and of = 'main'");
    for follower in FOLLOWERS.iter().map(|follower| &cluster.nodes[*follower]).filter(|node| node.is_running()) {
        wait_until("the row is there", LIMIT, || follower.query(&there).is_ok_and(|count| count == "1"));
    }
}

fn timeline(node: &Node) -> u64 {
    node.get("/patroni").1["timeline"].as_u64().unwrap_or_default()
}

#[test]
fn a_standby_cluster_follows_elects_and_is_promoted() {
    let Some(mut cluster) = started() else { return };
    a_row_arrives(&cluster, 1);
    let (leader, replica) = follows(&cluster).unwrap();
    let (first, second) = (leader.name.clone(), replica.name.clone());
    assert_eq!(leader.get("/patroni").1["role"], "standby_leader");
    assert_eq!(replica.get("/patroni").1["role"], "replica");
    let members = leader.get("/cluster").1["members"].clone();
    let role = |name: &str| members.as_array().unwrap().iter().find(|m| m["name"] == name).map(|m| m["role"].clone());
    assert_eq!((role(&first), role(&second)), (Some(json!("standby_leader")), Some(json!("replica"))));
    let system = |node: &Node| node.get("/patroni").1["database_system_identifier"].clone();
    assert_eq!(system(leader), system(&cluster.nodes[0]));
    assert_eq!(cluster.nodes[0].get("/cluster").1["members"].as_array().unwrap().len(), 1, "the clusters know nothing of each other");
    assert!(leader.query("insert into rows values (0, 'copy') returning 'written'").is_err(), "it takes no writes");

    // A switchover within it.
    let body = json!({"leader": first, "candidate": second});
    assert_eq!(leader.request("POST", "/switchover", Some(&body)).0, 200);
    wait_until("the candidate leads and streams", LIMIT, || follows(&cluster).is_some_and(|(leader, _)| leader.name == second));
    a_row_arrives(&cluster, 2);

    // Its leader is lost.
    cluster.node(&second).lose_host();
    wait_until("the other one leads", LIMIT, || answers(&cluster, "/standby-leader").first().is_some_and(|node| node.name == first));
    wait_until("and streams", LIMIT, || streams(cluster.nodes.iter().find(|node| node.name == first).unwrap()));
    a_row_arrives(&cluster, 3);
    cluster.node(&second).start();
    wait_until("the lost one follows", LIMIT, || follows(&cluster).is_some());

    // What cannot be is refused over the REST API, with the key and the reason.
    let leader = cluster.nodes.iter().find(|node| node.name == first).unwrap();
    let (code, text) = leader.request("PATCH", "/config", Some(&json!({"standby_cluster": {"create_replica_methods": ["wal_e"]}})));
    assert!(code >= 400 && text.to_string().contains("standby_cluster.create_replica_methods"), "{code} {text}");

    // It becomes a cluster of its own.
    assert_eq!(leader.request("PATCH", "/config", Some(&json!({"standby_cluster": null}))).0, 200);
    wait_until("its leader is promoted", LIMIT, || answers(&cluster, "/primary").len() == 1);
    let promoted = answers(&cluster, "/primary")[0];
    assert_eq!(promoted.name, first, "whoever led is promoted");
    wait_until("its replica follows and votes", LIMIT, || answers(&cluster, "/quorum").len() == 1);
    promoted.execute("insert into rows values (100, 'copy')");
    assert_eq!(timeline(promoted), 9, "far from any number that the other cluster may take");
    cluster.nodes[0].execute("insert into rows values (100, 'main')");

    // And follows again: what was written meanwhile is given up.
    let config = json!({"standby_cluster": section(&cluster)});
    assert_eq!(promoted.request("PATCH", "/config", Some(&config)).0, 200);
    wait_until("it follows again", LIMIT, || answers(&cluster, "/primary").is_empty() && follows(&cluster).is_some());
    a_row_arrives(&cluster, 101);
    for follower in FOLLOWERS {
        assert_eq!(cluster.nodes[follower].query("select of from rows where id = 100").unwrap(), "main");
        assert_eq!(timeline(&cluster.nodes[follower]), 1);
    }
    let log = cluster.nodes[1].log() + &cluster.nodes[2].log();
    assert!(!log.contains("panicked"), "{log}");
}
