//! Backups that nobody asked for: the keepers of a cluster take them, read them, and start a server from them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use serde_json::{Value, json};

use super::{
    cluster::{Cluster, LIMIT},
    machine::{as_other_user, bin_dir},
    tags::others,
    wal_archive::{archiving, key_option},
};
use crate::support::wait_until;

/// A backup, a look at it and a restore, each of which begins with one of the keepers' turns.
const A_ROUND: Duration = Duration::from_secs(300);

fn spilo(cluster: &Cluster, words: &[&str]) -> (Option<i32>, Value, String) {
    let store = cluster.nodes[0].path("../store").canonicalize().unwrap();
    let mut command = Command::new(cluster.nodes[0].path("../spilo"));
    command.args(["backup"]).args(words).args(["--cluster", "real", "-o", "json", "--store"]).arg(format!("file://{}", store.display()));
    command.args(key_option(cluster));
    let Output { status, stdout, stderr } = as_other_user(&mut command).output().unwrap();
    let said = serde_json::from_slice(&stdout).unwrap_or(Value::Null);
    (status.code(), said, String::from_utf8_lossy(&stderr).into_owned())
}

/// All objects below a folder of the store whose path has this in it.
fn objects(cluster: &Cluster, part: &str) -> Vec<PathBuf> {
    fn below(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.path().is_dir() { below(&entry.path(), found) } else { found.push(entry.path()) }
        }
    }
    let mut found = Vec::new();
    below(&cluster.nodes[0].path("../store/real"), &mut found);
    found.retain(|path| path.to_string_lossy().contains(part));
    found.sort();
    found
}

#[test]
fn a_cluster_backs_itself_up_and_proves_that_it_can_be_restored() {
    let Some(mut cluster) = archiving() else { return };
    let (leader, _) = others(&cluster);
    cluster.node(&leader).execute("create table precious as select generate_series(1, 5000) as i");
    let seen = |cluster: &mut Cluster| cluster.node(&leader).get("/patroni").1["backup"].clone();
    wait_until("a server was started from a backup", A_ROUND, || !seen(&mut cluster)["last_restored"].is_null());
    let backup = seen(&mut cluster);
    assert_eq!((&backup["backups"], &backup["overdue"], &backup["failure"]), (&json!(1), &json!([]), &Value::Null), "{backup}");
    assert!(!backup["last_backup"].is_null() && !backup["last_verified"].is_null() && backup["recovery_seconds"].as_f64().unwrap() > 0.0);
    assert_eq!(objects(&cluster, "/manifest").len(), 1, "of three keepers one has taken it");
    for node in &cluster.nodes {
        let left: Vec<_> = fs::read_dir(node.path("data.drill")).into_iter().flatten().flatten().collect();
        assert!(left.is_empty(), "{left:?}");
    }
    let (code, metrics) = cluster.node(&leader).get("/metrics");
    let text = metrics.as_str().unwrap_or_default();
    assert!(code == 200 && text.contains("spilo_backups{") && text.contains("spilo_recovery_seconds{"), "{code} {metrics}");
    damage_is_found(&mut cluster, &leader);
}

/// Goes on with the cluster of before: to make one takes longer than to look at it.
fn damage_is_found(cluster: &mut Cluster, leader: &str) {
    cluster.node(leader).execute("insert into precious select 5001");
    let written = cluster.node(leader).query("select pg_walfile_name(pg_current_wal_insert_lsn())").unwrap();
    cluster.node(leader).execute("select pg_switch_wal()");
    let last = "select coalesce(last_archived_wal, '') from pg_stat_archiver";
    wait_until("the row was archived", LIMIT, || cluster.node(leader).query(last).is_ok_and(|last| last >= written));
    let bin_dir = bin_dir().unwrap().to_string_lossy().into_owned();
    let scratch = cluster.nodes[0].path("scratch").to_string_lossy().into_owned();
    let drill = |cluster: &Cluster, check: &str| {
        spilo(cluster, &["drill", "--to-end", "--bin-dir", &bin_dir, "--scratch", &scratch, "--check", check])
    };
    let (code, report, said) = drill(cluster, "select count(*) = 5001 from precious");
    assert_eq!(code, Some(0), "{report} {said}");
    assert!(report["notes"].to_string().contains("rows in") && report["notes"].to_string().contains("amcheck"), "{report}");
    let (code, report, said) = drill(cluster, "select count(*) = 7 from precious");
    assert_eq!(code, Some(21), "{report} {said}");
    assert!(report["problems"].to_string().contains("is not true"), "{report}");
    assert_eq!(spilo(cluster, &["verify", "--deep"]).0, Some(0));
    let pack = objects(cluster, "/pack/").pop().unwrap();
    let mut content = fs::read(&pack).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    fs::write(&pack, content).unwrap();
    let (code, report, said) = spilo(cluster, &["verify", "--deep"]);
    assert_eq!(code, Some(21), "{report} {said}");
    let problem = &report["items"][0]["problems"][0];
    assert!(problem["object"].as_str().unwrap().contains("/pack/") && problem["part"]["file"].is_string(), "{report}");
    let (code, report, said) = drill(cluster, "select true");
    assert_eq!(code, Some(21), "{report} {said}");
    assert!(report["problems"].to_string().contains("is damaged"), "{report}");
    let left: Vec<_> = fs::read_dir(&scratch).unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_cluster_begins_with_anothers_backup_where_nobody_has_archived_the_same_data() {
    let Some(old) = archiving() else { return };
    let leader = old.leader().unwrap().name.clone();
    let on = |name: &str| old.nodes.iter().find(|node| node.name == name).unwrap();
    on(&leader).execute("create table kept as select generate_series(1, 1000) as i");
    wait_until("a backup is there", A_ROUND, || !objects(&old, "/manifest").is_empty());
    on(&leader).execute("insert into kept select 1001");
    on(&leader).execute("select pg_create_restore_point('with all rows')");
    on(&leader).execute("delete from kept");
    on(&leader).execute("select pg_switch_wal()");
    let system = on(&leader).query("select system_identifier::text from pg_control_system()").unwrap();

    let store = old.nodes[0].path("../store").canonicalize().unwrap();
    // What an earlier cluster of that name has left, which was begun with the same backup.
    let left = store.join("born/wal").join(&system).join("history");
    fs::create_dir_all(&left).unwrap();
    fs::write(left.join("00000002.history.zst"), "").unwrap();
    assert!(Command::new("chown").args(["-R", "--reference"]).args([&store, &store.join("born")]).status().unwrap().success());

    let Some(mut born) = Cluster::unstarted(&json!({})) else { return };
    let key = key_option(&old).map(|option| option.trim_start_matches("--store-key=").to_owned());
    let archive = |cluster: &str| {
        let mut section = json!({"store": format!("file://{}", store.display()), "cluster": cluster});
        key.iter().for_each(|file| section["key_file"] = json!(file));
        section
    };
    born.nodes[0].edit_config(|config| {
        config["spilo"] = json!({"archive": archive("born"), "begin_from": archive("real")});
        config["spilo"]["begin_from"]["restore_point"] = json!("with all rows");
    });
    born.nodes[0].start();
    let why = if key.is_some() { "is not encrypted" } else { "WAL of both would be mixed" };
    wait_until("it does not begin", LIMIT, || born.nodes[0].log().contains(why));
    assert!(!born.nodes[0].path("data/PG_VERSION").exists() && !born.nodes[0].path("data.clone").exists());
    fs::remove_dir_all(store.join("born")).unwrap();
    let rows = || born.nodes[0].query("select count(*)::text from kept");
    wait_until("it begins with every row", A_ROUND, || rows().is_ok_and(|count| count == "1001") && born.leader().is_some());
    born.nodes[0].execute("insert into kept select 1002");
    born.nodes[0].execute("select pg_switch_wal()");
    wait_until("it archives to its own place", LIMIT, || left.join("00000002.history.zst").exists());
    assert!(!store.join("real/conflict").exists() && !store.join("born/conflict").exists());
}
