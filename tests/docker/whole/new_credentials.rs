//! The bucket of a cluster's archive takes other credentials from one day on: the nodes get them while they run.

use std::{net::Ipv4Addr, path::Path};

use bollard::query_parameters::InspectNetworkOptions;
use serde_json::Value;

use super::cluster::{Cluster, LIMIT};
use crate::{
    s3::{KEY, S3Double, SECRET, Settings},
    shared::{block, wait_until},
    support::client,
};

/// The access key that comes after the first one.
const NEXT: &str = "AKIANEXT";

#[test]
fn credentials_that_the_store_no_longer_knows_are_told_and_new_ones_need_no_restart() {
    let Some(cluster) = Cluster::new("rotate") else { return };
    let double = S3Double::start_on(bridge(), Settings::default());
    let (endpoint, file) = (double.endpoint(), double.credentials_file().display().to_string());
    let store = ["--store", "s3://backups/rotated", "--store-endpoint", &endpoint, "--store-credentials", &file].map(str::to_owned);
    cluster.spilo(&[cluster.creation(1), store.to_vec()].concat()).exits(0);
    let start = started(&cluster);
    double.know_key(NEXT);
    double.forget_key(KEY);
    what_is_not_archived_is_told_at_once(&cluster);
    what_does_not_open_the_archive_is_not_brought(&cluster, Path::new(&file));
    let before = segments(&double);
    double.use_key(NEXT);
    new_ones_are_brought(&cluster, &file);
    assert!(segments(&double) > before, "what waited is archived: {:?}", double.names());
    assert_eq!(started(&cluster), start, "PostgreSQL was restarted");
}

/// Where containers reach this machine, and nobody else does.
fn bridge() -> Ipv4Addr {
    let network = block(async { client().await.inspect_network("bridge", None::<InspectNetworkOptions>).await.unwrap() });
    let config =
        network.ipam.and_then(|ipam| ipam.config).and_then(|configs| configs.into_iter().next()).expect("the bridge has addresses");
    if let Some(gateway) = config.gateway {
        return gateway.parse().expect("the bridge has an address");
    }
    let subnet = config.subnet.expect("the bridge has addresses");
    let first: Ipv4Addr = subnet.split('/').next().and_then(|first| first.parse().ok()).expect("it is a network");
    Ipv4Addr::from_bits(first.to_bits() + 1)
}

fn started(cluster: &Cluster) -> String {
    cluster.connect(&["--superuser"], "select pg_postmaster_start_time()")
}

fn segments(double: &S3Double) -> usize {
    double.names().iter().filter(|name| name.contains("/wal/")).count()
}

fn what_is_not_archived_is_told_at_once(cluster: &Cluster) {
    cluster.connect(&["--superuser"], "create table later (n int); select pg_switch_wal()");
    let mut said = Value::Null;
    wait_until("status says that and why", LIMIT, || {
        said = cluster.status();
        let reason = said["reason"].as_str().unwrap_or_default();
        reason.contains("WAL is not archived") && reason.contains("does not know the access key")
    });
    assert_eq!(said["health"], "degraded");
    assert_eq!(said["backup"]["wal_service"]["failing"]["refused"], true, "{said:#}");
    cluster.spilo(&["wal", "check", &cluster.name]).says("does not know the access key");
}

fn what_does_not_open_the_archive_is_not_brought(cluster: &Cluster, file: &Path) {
    let wrong = file.with_file_name("wrong").display().to_string();
    std::fs::write(&wrong, format!("[default]\naws_access_key_id = AKIAWRONG\naws_secret_access_key = {SECRET}\n")).unwrap();
    let apply = ["apply", &cluster.name, "--store-credentials", &wrong];
    cluster.spilo(&apply).exits(6).says("does not know the access key").says("nothing was changed");
    let key = file.with_file_name("key").display().to_string();
    cluster.spilo(&["backup", "key", "new", &key]).exits(0);
    cluster.spilo(&["apply", &cluster.name, "--store-key", &key]).exits(6).says("'archive.key_file'").says("from its beginning");
    let there = String::from_utf8(cluster.exec("1", &["cat", "/etc/spilo/secrets/store"]).stdout).unwrap();
    assert!(there.contains(KEY) && !there.contains("AKIAWRONG"), "the nodes have what they had");
}

fn new_ones_are_brought(cluster: &Cluster, file: &str) {
    let apply = ["apply", &cluster.name, "--store-credentials", file];
    let plan = cluster.spilo(&[&apply[..], &["--plan", "--exit-code"]].concat()).exits(10).prints("the new credentials of the store");
    let done = cluster.spilo(&[&apply[..], &["-vvv"]].concat()).exits(0).says("is healthy");
    for said in [plan.stdout, plan.stderr, done.stdout, done.stderr] {
        assert!(!said.contains(SECRET) && !said.contains(NEXT), "what is in the file is told: {said}");
    }
    cluster.spilo(&[&apply[..], &["--plan", "--exit-code"]].concat()).exits(0);
    assert!(cluster.remains()["container"].iter().all(|name| !name.contains("archive") && !name.contains("config")), "it was tidied up");
    cluster.spilo(&["wal", "check", &cluster.name]).exits(0);
}
