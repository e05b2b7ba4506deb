//! Another key opens the archive of a cluster that runs, and the first one does not any more.

use std::fs;

use serde_json::Value;

use super::cluster::{Cluster, LIMIT};
use crate::{
    shared::{block, wait_until},
    support::client,
};

#[test]
fn a_cluster_that_runs_gets_another_key_and_the_first_one_is_taken_away() {
    let Some(cluster) = Cluster::new("rekey") else { return };
    let (files, name) = (tempfile::tempdir().unwrap(), cluster.name.clone());
    let key = |file: &str| {
        let path = files.path().join(file).display().to_string();
        let id = cluster.spilo(&["backup", "key", "new", &path]).exits(0).stdout.trim().to_owned();
        (path, id)
    };
    let ((old_file, old), (new_file, new)) = (key("old.key"), key("new.key"));
    cluster.spilo(&[cluster.creation(1), vec!["--store-key".to_owned(), old_file.clone()]].concat()).exits(0);

    cluster.spilo(&["apply", &name, "--store-key", &new_file]).exits(6).says(&old).says("nothing was changed");
    let added = cluster.spilo(&["backup", "key", "add", &name, &new_file, "-vvv"]).exits(0).prints(&new);
    let secret = fs::read_to_string(&new_file).unwrap().trim().rsplit(':').next().unwrap().to_owned();
    assert!(!added.stderr.contains(&secret) && !added.stdout.contains(&secret), "the key is told: {}", added.stderr);
    cluster.spilo(&["backup", "key", "add", &name, &new_file]).exits(0).says("already");
    assert_eq!(keys(&cluster), [(old.clone(), true), (new.clone(), false)]);
    cluster.spilo(&["backup", "key", "remove", &name, &old, "--confirm", &old]).exits(6).says("is configured");

    cluster.spilo(&["apply", &name, "--store-key", &new_file]).exits(0).says("is healthy");
    assert_eq!(keys(&cluster), [(old.clone(), false), (new.clone(), true)]);
    cluster
        .spilo(&["backup", "key", "remove", &name, &old])
        .exits(6)
        .says(&format!("spilo backup key remove {name} {old} --confirm {old}"));
    cluster.spilo(&["backup", "key", "remove", &name, &old, "--confirm", &old]).exits(0).says("does not open");
    assert_eq!(keys(&cluster), [(new.clone(), true)]);

    what_runs_goes_on_and_what_begins_opens_it(&cluster);
    cluster.spilo(&["apply", &name, "--store-key", &old_file]).exits(6).says(&old).says(&new).says("nothing was changed");
    cluster.spilo(&["backup", "create", &name]).exits(0);
    cluster.spilo(&["wal", "check", &name]).exits(0);
}

/// The keys that open the archive, and which one the nodes have.
fn keys(cluster: &Cluster) -> Vec<(String, bool)> {
    let listed = cluster.spilo(&["backup", "key", "list", &cluster.name, "-o", "json"]).exits(0).stdout;
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let keys = listed["keys"].as_array().unwrap().iter();
    keys.map(|key| (key["id"].as_str().unwrap().to_owned(), key["configured"].as_bool().unwrap())).collect()
}

fn what_runs_goes_on_and_what_begins_opens_it(cluster: &Cluster) {
    for round in ["the services that have run all the time", "services that have just begun"] {
        let switched = cluster.connect(
            &["--superuser"],
            "create table if not exists later (n int); insert into later values (1); select pg_walfile_name(pg_switch_wal())",
        );
        let segment = switched.lines().last().unwrap_or_default().trim().to_owned();
        wait_until(&format!("{round} archive '{segment}'"), LIMIT, || {
            cluster.connect(&["--superuser"], &format!("select last_archived_wal >= '{segment}' from pg_stat_archiver")).trim() == "t"
        });
        block(async { client().await.restart_container(&cluster.container("1"), None).await.unwrap() });
        wait_until("the node is back", LIMIT, || cluster.status()["health"] == "healthy");
    }
}
