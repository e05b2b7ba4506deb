//! The archive as a user has it: a backup is made, replicas and clusters are born from it, and it outlives what it is of.

use serde_json::Value;

use super::cluster::{Cluster, LIMIT};
use crate::{
    harm,
    shared::{block, wait_until},
};

#[test]
fn what_was_backed_up_comes_back_as_a_replica_and_as_another_cluster_and_outlives_its_cluster() {
    let Some(cluster) = Cluster::new("arch") else { return };
    let Some(clone) = Cluster::new("born") else { return };
    cluster.create(2);
    cluster.connect(&[], "create table kept as select g from generate_series(1, 1000) g");
    let id = it_is_backed_up(&cluster);
    cluster.connect(&[], "insert into kept select 1");
    a_lost_replica_is_born_from_the_archive(&cluster);
    cluster.connect(&["--superuser"], "select pg_create_restore_point('with all rows')");
    cluster.connect(&[], "delete from kept");
    // The segment with the newest rows is archived before anybody looks for them there.
    cluster.connect(&["--superuser"], "select pg_switch_wal()");
    a_cluster_is_born_from_the_backup(&cluster, &clone);
    the_backups_outlive_the_cluster(&cluster, &id);
}

fn backups(cluster: &Cluster) -> Value {
    let list = cluster.spilo(&["backup", "list", &cluster.name, "-o", "json"]).exits(0);
    serde_json::from_str(&list.stdout).unwrap_or_else(|error| panic!("{error}: {}", list.stdout))
}

/// The cluster may have made others by itself.
fn it_is_backed_up(cluster: &Cluster) -> String {
    let replica = cluster.other_than(&cluster.leader());
    let created = cluster.spilo(&["backup", "create", &cluster.name, "-o", "json"]).exits(0).says(&replica);
    let created: Value = serde_json::from_str(&created.stdout).unwrap_or_else(|error| panic!("{error}: {}", created.stdout));
    let id = created["id"].as_str().unwrap();
    let listed = backups(cluster);
    let backup = listed["backups"].as_array().unwrap().iter().find(|backup| backup["id"] == id).expect("it is listed");
    assert_eq!((&backup["member"], &backup["from_standby"]), (&replica.as_str().into(), &true.into()), "{listed:#}");
    cluster.spilo(&["backup", "show", &cluster.name, id]).exits(0).prints(id);
    cluster.spilo(&["backup", "show", &cluster.name, "20010101T000000Z-00000000"]).exits(4);
    cluster.spilo(&["wal", "check", &cluster.name]).exits(0).prints("can be recovered to");
    id.to_owned()
}

fn a_lost_replica_is_born_from_the_archive(cluster: &Cluster) {
    let replica = cluster.other_than(&cluster.leader());
    let container = cluster.container(&replica);
    block(async {
        harm::kill(&container).await;
        harm::remove(&container).await;
        harm::remove_volume(&container).await;
    });
    cluster.apply();
    let log = cluster.log(&container, None);
    assert!(log.contains("restored backup") && !log.contains("the archive gave no replica"), "{log}");
    wait_until("the replica has every row", LIMIT, || cluster.connect(&["--replica"], "select count(*) from kept") == "1001");
}

fn a_cluster_is_born_from_the_backup(cluster: &Cluster, clone: &Cluster) {
    cluster.spilo(&["create", "cluster", &cluster.name, "--clone-from", &cluster.name]).exits(6).says("under its own name");
    let to = |target: &[&str]| {
        let begin = ["restore", &clone.name, "--from", &cluster.name].map(str::to_owned);
        let target: Vec<String> = target.iter().map(|&word| word.to_owned()).collect();
        clone.spilo(&[&begin[..], &clone.creation(1)[3..], &target].concat())
    };
    // What no backup leads to is known before anything is made.
    to(&["--lsn", "F/0"]).exits(6).says("cannot be restored").says("spilo wal check");
    to(&["--at", "2001-01-01T00:00:00Z"]).exits(6).says("was complete at");
    clone.expect_gone();
    to(&["--restore-point", "with all rows"]).exits(0).says("at restore point \"with all rows\"");
    assert_eq!(clone.connect(&[], "select count(*) from kept"), "1001");
    clone.connect(&[], "insert into kept select 1");
    assert_eq!((clone.status()["timeline"].clone(), cluster.status()["timeline"].clone()), (2.into(), 1.into()));
    // It has the other's system identifier, and an archive of its own.
    clone.spilo(&["backup", "create", &clone.name]).exits(0);
    assert_eq!(backups(clone)["system"], backups(cluster)["system"]);
    let ids = |of: &Cluster| backups(of)["backups"].as_array().unwrap().iter().map(|backup| backup["id"].clone()).collect::<Vec<_>>();
    let (theirs, ours) = (ids(clone), ids(cluster));
    assert!(!theirs.is_empty() && theirs.iter().all(|id| !ours.contains(id)), "{theirs:?} and {ours:?}");
    clone.spilo(&["delete", "cluster", &clone.name, "--confirm", &clone.name, "--backups"]).exits(0);
    clone.expect_gone();
}

fn the_backups_outlive_the_cluster(cluster: &Cluster, id: &str) {
    let delete = ["delete", "cluster", &cluster.name, "--confirm", &cluster.name];
    let before = backups(cluster);
    cluster.spilo(&delete).exits(0).says("--backups");
    cluster.create(1);
    assert_eq!(cluster.connect(&[], "select to_regclass('kept') is null"), "t", "it begins with nothing");
    // What the old one left is there, under its own system identifier.
    let old = before["system"].as_str().unwrap();
    let arguments = ["spilo", "backup", "list", "--store", "/archive", "--cluster", &cluster.name, "--system", old];
    let listed = String::from_utf8(cluster.exec("1", &arguments).stdout).unwrap();
    assert!(listed.contains(id), "{listed}");
    cluster.spilo(&[&delete[..], &["--backups"]].concat()).exits(0);
    cluster.expect_gone();
}
