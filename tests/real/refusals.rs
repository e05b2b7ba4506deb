//! Starts that cannot lead to anything good are refused, with the reason, and nothing is touched.

use std::{
    collections::BTreeSet,
    fs,
    net::TcpListener,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::json;

use super::{
    cluster::{Cluster, LIMIT, Node, as_other_user, bin_dir, own, send},
    writer::Writer,
};
use crate::support::{free_address, wait_until};

/// Everything below a directory: name, size and time of the last change.
fn content(dir: &Path) -> BTreeSet<(String, u64, i64)> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let metadata = entry.metadata().unwrap();
        if metadata.is_dir() {
            found.extend(content(&entry.path()));
        }
        let time = metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec();
        found.insert((entry.path().display().to_string(), metadata.len(), time));
    }
    found
}

/// The start is refused for good, says `why`, and the data directory is as it was.
#[track_caller]
fn is_refused(node: &Node, config: &Path, why: &str) {
    let before = content(&node.path("data"));
    let (code, said) = node.run_to_end(config);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains(why), "'{why}' is not in:\n{said}");
    assert_eq!(content(&node.path("data")), before);
}

/// A cluster of which one replica has been stopped.
fn with_a_stopped_replica() -> Option<(Cluster, String)> {
    let mut cluster = Cluster::start()?;
    let name = cluster.replica().name.clone();
    cluster.node(&name).stop();
    Some((cluster, name))
}

#[test]
fn data_that_cannot_be_started_is_refused_and_left_alone() {
    let Some((mut cluster, name)) = with_a_stopped_replica() else { return };
    let node = cluster.node(&name);
    let (config, data, version) = (node.path("agent.yml"), node.path("data"), node.path("data/PG_VERSION"));

    fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).unwrap();
    is_refused(node, &config, "has mode 0755, PostgreSQL wants 0700 or 0750");
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();

    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&data, Some(0), None).unwrap();
        // Its user may not look inside, and that it belongs to somebody else is what has to be said.
        fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).unwrap();
        is_refused(node, &config, "belongs to user 0");
        fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
        own(&data);
    }

    let true_version = fs::read_to_string(&version).unwrap();
    fs::write(&version, "9.6\n").unwrap();
    is_refused(node, &config, "is of PostgreSQL 9.6");
    fs::write(&version, &true_version).unwrap();

    fs::rename(&data, node.path("aside")).unwrap();
    fs::create_dir(&data).unwrap();
    own(&data);
    fs::write(data.join("diary"), "dear diary").unwrap();
    is_refused(node, &config, "is not empty and no PostgreSQL data directory");
    fs::remove_dir_all(&data).unwrap();

    // Another cluster's data: only the DCS can tell.
    let initdb = as_other_user(&mut Command::new(bin_dir().unwrap().join("initdb"))).arg("-D").arg(&data).args(["-A", "trust"]).output();
    assert!(initdb.unwrap().status.success());
    is_refused(node, &config, "my data belongs to the system");
    fs::remove_dir_all(&data).unwrap();
    fs::rename(node.path("aside"), &data).unwrap();

    let occupied = TcpListener::bind(node.postgres).unwrap();
    is_refused(node, &config, "another server listens on");
    drop(occupied);

    node.start();
    cluster.wait_healthy();
}

#[test]
fn a_server_that_was_started_by_hand_is_refused_and_goes_on() {
    let Some((mut cluster, name)) = with_a_stopped_replica() else { return };
    let node = cluster.node(&name);
    let pg_ctl = |verb: &str| {
        let mut command = Command::new(bin_dir().unwrap().join("pg_ctl"));
        let command = as_other_user(&mut command).args(["-w", verb, "-m", "fast", "-D"]).arg(node.path("data"));
        let options = format!("-p {} -k {}", free_address().port(), node.path("").display());
        command.args(["-l", "/dev/null", "-o", &options]).status().unwrap()
    };
    assert!(pg_ctl("start").success());
    let postmaster = node.postmaster_pid().expect("it was just started");
    let (code, said) = node.run_to_end(&node.path("agent.yml"));
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("that this agent did not start") && said.contains("pg_ctl stop"), "{said}");
    assert_eq!(node.postmaster_pid(), Some(postmaster));
    assert!(pg_ctl("stop").success());
    node.start();
    cluster.wait_healthy();
}

#[test]
fn a_second_agent_on_the_same_directory_is_refused() {
    let Some(cluster) = Cluster::start() else { return };
    let writer = Writer::start(&cluster);
    let leader = cluster.leader().unwrap();
    let (agent, postmaster) = (leader.agent_pid(), leader.postmaster_pid());
    let second = leader.write_config("second.yml", |config| {
        config["name"] = json!("n9");
        config["restapi"]["listen"] = json!(free_address().to_string());
        config["postgresql"]["listen"] = json!(free_address().to_string());
    });
    let (code, said) = leader.run_to_end(&second);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains(&format!("another agent (process {}) works on", leader.guard_pid())), "{said}");
    writer.wait_for_more();
    assert_eq!((leader.agent_pid(), leader.postmaster_pid()), (agent, postmaster));
    writer.check(&cluster);
}

#[test]
fn a_second_agent_of_the_same_name_is_refused_whenever_the_dcs_answers() {
    let Some(cluster) = Cluster::start() else { return };
    let writer = Writer::start(&cluster);
    let leader = cluster.leader().unwrap();
    let api = free_address().to_string();
    let second = leader.write_config("second.yml", |config| {
        config["restapi"]["listen"] = json!(api);
        config["postgresql"]["listen"] = json!(free_address().to_string());
        config["postgresql"]["data_dir"] = json!(leader.path("second-data"));
    });
    let why = format!("another member called '{}' is alive", leader.name);
    let (code, said) = leader.run_to_end(&second);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains(&why), "{said}");

    // It starts while the DCS is silent: it is checked at the first answer, before anything is published.
    cluster.etcd.freeze();
    let (code, said) = std::thread::scope(|scope| {
        let run = scope.spawn(|| leader.run_to_end(&second));
        std::thread::sleep(Duration::from_millis(1500));
        cluster.etcd.thaw();
        run.join().unwrap()
    });
    assert_eq!(code, 2, "{said}");
    assert!(said.contains(&why), "{said}");
    assert!(!leader.path("second-data").exists());

    cluster.wait_healthy();
    assert_eq!(cluster.leader().map(|l| l.name.clone()), Some(leader.name.clone()));
    let members = leader.get("/cluster").1["members"].to_string();
    assert!(!members.contains(&api), "{members}");
    writer.check(&cluster);
}

#[test]
fn a_member_whose_guard_and_agent_were_killed_starts_at_once() {
    let Some(mut cluster) = Cluster::start() else { return };
    let name = cluster.replica().name.clone();
    let node = cluster.node(&name);
    let agent = node.agent_pid();
    node.kill_guard();
    send(agent, Signal::KILL);
    let begun = Instant::now();
    node.start();
    wait_until("the replica answers again", LIMIT, || node.get("/replica").0 == 200);
    // Not after the lease of its member key, which is five seconds long.
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    cluster.wait_healthy();
}
