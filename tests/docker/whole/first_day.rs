//! What a user meets on the first day: create, look, connect, delete.

use serde_json::Value;

use super::cluster::Cluster;
use crate::shared::block;

#[test]
fn a_cluster_is_created_looked_at_used_and_deleted() {
    let Some(cluster) = Cluster::new("day") else { return };
    let printed = cluster.create(3).stdout;
    assert!(printed.starts_with("postgresql://app@127.0.0.1:"), "{printed}");
    cluster.expect_open();
    it_is_healthy(&cluster);
    creating_it_again_changes_nothing(&cluster);
    plans_say_whether_there_is_something_to_do(&cluster);
    it_is_listed(&cluster);
    every_node_has_the_one_archive(&cluster);
    every_form_of_a_connection_string_leads_to_the_same_place(&cluster);
    psql_reaches_primary_replica_and_superuser(&cluster);
    the_health_page_answers(&cluster);
    super::secrets::stay_where_they_belong(&cluster);
    deleting_leaves_nothing_but_backups_and_those_go_when_they_are_named(&cluster);
}

fn it_is_healthy(cluster: &Cluster) {
    let run = cluster.spilo(&["status", &cluster.name, "-o", "json"]).exits(0);
    let status: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!((&status["kind"], &status["health"]), (&"ClusterStatus".into(), &"healthy".into()));
    let nodes = status["nodes"].as_array().unwrap();
    let with_role = |role: &str| nodes.iter().filter(|node| node["role"] == role).count();
    assert_eq!((nodes.len(), with_role("leader"), with_role("quorum_standby")), (3, 1, 2), "{status:#}");
}

fn creating_it_again_changes_nothing(cluster: &Cluster) {
    let before = cluster.remains();
    let plan = [cluster.creation(3), ["--plan", "--exit-code"].map(str::to_owned).to_vec()].concat();
    cluster.spilo(&plan).exits(0);
    cluster.create(3).says("in place already");
    assert_eq!(cluster.remains(), before);
}

fn plans_say_whether_there_is_something_to_do(cluster: &Cluster) {
    cluster.spilo(&["plan", &cluster.name, "--exit-code"]).exits(0);
    cluster.spilo(&["plan", &cluster.name, "--nodes", "4", "--exit-code"]).exits(10).prints(&format!("{}-4", cluster.name));
}

fn it_is_listed(cluster: &Cluster) {
    let list: Value = serde_json::from_str(&cluster.spilo(&["list", "-o", "json"]).exits(0).stdout).unwrap();
    let line = list["items"].as_array().unwrap().iter().find(|line| line["name"] == cluster.name.as_str()).expect("it is listed");
    assert_eq!((&line["running"], &line["containers"], &line["spec"]["nodes"]), (&5.into(), &5.into(), &3.into()));
}

fn every_node_has_the_one_archive(cluster: &Cluster) {
    let marks = ["1", "2", "3"].map(|part| {
        let script = "touch /archive/.mine && rm /archive/.mine && cat /archive/.spilo-store";
        String::from_utf8(cluster.exec(part, &["sh", "-c", script]).stdout).unwrap()
    });
    assert!(marks[0].starts_with("a store of spilo") && marks.iter().all(|mark| *mark == marks[0]), "{marks:?}");
}

fn every_form_of_a_connection_string_leads_to_the_same_place(cluster: &Cluster) {
    let dsn = |options: &[&str]| cluster.spilo(&[&["dsn", cluster.name.as_str()], options].concat()).exits(0).stdout;
    let passfile = cluster.passfile().display().to_string();
    let data: Value = serde_json::from_str(&dsn(&["--format", "json"])).unwrap();
    let port = data["port"].as_u64().unwrap();
    assert_eq!(dsn(&["--format", "uri"]), format!("postgresql://app@127.0.0.1:{port}/app?passfile={passfile}\n"));
    assert_eq!(dsn(&["--format", "keyword"]), format!("host=127.0.0.1 port={port} user=app dbname=app passfile={passfile}\n"));
    let environment = format!("PGHOST=127.0.0.1\nPGPORT={port}\nPGUSER=app\nPGDATABASE=app\nPGPASSFILE={passfile}\n");
    assert_eq!(dsn(&["--format", "env"]), environment);
    let read_only: Value = serde_json::from_str(&dsn(&["--role", "ro", "-o", "json"])).unwrap();
    assert_eq!(read_only["port"].as_u64(), Some(port + 1));
    let line = format!("127.0.0.1:{port}:*:app:");
    assert!(std::fs::read_to_string(&passfile).unwrap().starts_with(&line), "'{passfile}' has no line for port {port}");
}

fn psql_reaches_primary_replica_and_superuser(cluster: &Cluster) {
    let who = "select current_user, pg_is_in_recovery()";
    assert_eq!(cluster.connect(&[], who), "app|f");
    assert_eq!(cluster.connect(&["--replica"], who), "app|t");
    assert_eq!(cluster.connect(&["--superuser"], who), "postgres|f");
    let failed = cluster.spilo(&["connect", &cluster.name, "--", "-XAtc", "select no_such_thing"]).says("no_such_thing");
    assert_eq!(failed.code, 1, "psql's exit code is passed on");
}

fn the_health_page_answers(cluster: &Cluster) {
    let port = cluster.status()["endpoints"]["health"].as_u64().unwrap();
    let get = |path: &str| {
        let url = format!("http://127.0.0.1:{port}{path}");
        block(async { reqwest::get(&url).await.unwrap().status().as_u16() })
    };
    assert_eq!((get("/healthz"), get("/")), (200, 200));
}

fn deleting_leaves_nothing_but_backups_and_those_go_when_they_are_named(cluster: &Cluster) {
    let name = cluster.name.as_str();
    let before = cluster.remains();
    cluster.spilo(&["delete", "cluster", name]).exits(6).says("--confirm");
    cluster.spilo(&["delete", "cluster", name, "--confirm", "another"]).exits(6).says("'another'");
    assert_eq!(cluster.remains(), before, "what is not confirmed is not done");
    assert!(cluster.passfile().exists());
    let command = format!("spilo delete cluster {name} --backups");
    cluster.spilo(&["delete", "cluster", name, "--confirm", name]).exits(0).says(&command);
    let archive = format!("spilo-{name}-archive");
    assert_eq!(cluster.remains(), [("volume", [archive.clone()].into())].into());
    cluster.spilo(&["list"]).exits(0).prints(name).says(&command);
    assert!(!cluster.passfile().exists(), "the file with the password is left");
    cluster.spilo(&["status", name]).exits(4);
    cluster.spilo(&["delete", "cluster", name, "--confirm", name]).exits(4).says(&archive);
    cluster.spilo(&["delete", "cluster", name, "--confirm", name, "--if-exists"]).exits(0);
    cluster.spilo(&["delete", "cluster", name, "--backups"]).exits(6).says("--backups");
    cluster.spilo(&["delete", "cluster", name, "--confirm", name, "--backups"]).exits(0);
    cluster.expect_gone();
    cluster.spilo(&["delete", "cluster", name, "--confirm", name, "--backups"]).exits(4);
}
