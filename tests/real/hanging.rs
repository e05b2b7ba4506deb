//! Servers and disks that hang although nothing of them has ended.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::json;

use super::{
    cluster::{Cluster, LIMIT, Node, descendants, is_alive, own, send},
    writer::Writer,
};
use crate::support::wait_until;

/// Seconds until it is certain that something hangs, and what the rest may take on a busy machine.
const CERTAIN_AND_REPAIRED: Duration = Duration::from_secs(25);

fn server(node: &Node) -> Vec<i32> {
    let postmaster = node.postmaster_pid().expect("PostgreSQL runs");
    descendants(postmaster).into_iter().chain([postmaster]).collect()
}

#[test]
fn a_postmaster_that_hangs_alone_is_noticed_although_its_sessions_work() {
    let Some(cluster) = Cluster::start() else { return };
    let writer = Writer::start(&cluster);
    let leader = cluster.leader().unwrap();
    let postmaster = leader.postmaster_pid().unwrap();
    send(postmaster, Signal::STOP);
    wait_until("another server runs", CERTAIN_AND_REPAIRED, || leader.postmaster_pid().is_some_and(|pid| pid != postmaster));
    assert!(!is_alive(postmaster));
    assert!(leader.log().contains("takes no new connections"), "{}", leader.log());
    writer.wait_for_more();
    cluster.wait_healthy();
    writer.check(&cluster);
}

#[test]
fn a_server_that_is_frozen_as_a_whole_is_killed_and_writes_go_on() {
    let Some(cluster) = Cluster::start() else { return };
    let writer = Writer::start(&cluster);
    let leader = cluster.leader().unwrap();
    let old = server(leader);
    old.iter().for_each(|pid| send(*pid, Signal::STOP));
    let begun = Instant::now();
    writer.wait_for_more();
    assert!(begun.elapsed() < CERTAIN_AND_REPAIRED, "{:?}", begun.elapsed());
    wait_until("everything frozen is gone", LIMIT, || old.iter().all(|pid| !is_alive(*pid)));
    cluster.wait_healthy();
    writer.check(&cluster);
}

/// A file system in a file, mounted; it is thawed and unmounted at the end.
struct Disk(PathBuf);

impl Disk {
    fn mount(image: &Path, place: &Path) -> Disk {
        run("truncate", &["-s", "300M", &image.display().to_string()]);
        run("mkfs.ext4", &["-q", "-F", "-m", "0", &image.display().to_string()]);
        run("mount", &["-o", "loop", &image.display().to_string(), &place.display().to_string()]);
        Disk(place.to_owned())
    }

    fn freeze(&self) {
        run("fsfreeze", &["-f", &self.0.display().to_string()]);
    }

    fn thaw(&self) {
        run("fsfreeze", &["-u", &self.0.display().to_string()]);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("fsfreeze").arg("-u").arg(&self.0).output();
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_leader_whose_disk_hangs_steps_down_and_comes_back_when_it_is_well_again() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can mount a file system");
        return;
    }
    let Some(mut cluster) = Cluster::start() else { return };
    let writer = Writer::start(&cluster);
    let name = cluster.replica().name.clone();
    let node = cluster.node(&name);
    node.stop();
    let (data, aside) = (node.path("data"), node.path("aside"));
    std::fs::rename(&data, &aside).unwrap();
    std::fs::create_dir(&data).unwrap();
    let disk = Disk::mount(&node.path("disk.img"), &data);
    run("rm", &["-rf", &data.join("lost+found").display().to_string()]);
    run("cp", &["-a", &format!("{}/.", aside.display()), &data.display().to_string()]);
    own(&data);
    node.start();
    cluster.wait_healthy();
    let (code, answer) = cluster.leader().unwrap().request(
        "POST",
        "/switchover",
        Some(&json!({"leader": cluster.leader().unwrap().name, "candidate": name})),
    );
    assert_eq!(code, 200, "{answer}");
    cluster.wait_healthy();

    disk.freeze();
    let begun = Instant::now();
    let next = cluster.wait_for_another_leader(&name);
    let took = begun.elapsed();
    eprintln!("'{next}' led {took:?} after the disk of '{name}' began to hang");
    assert!(took < CERTAIN_AND_REPAIRED, "{took:?}");
    writer.wait_for_more();
    assert!(cluster.node(&name).log().contains("does not take writes"), "{}", cluster.node(&name).log());
    disk.thaw();
    cluster.wait_healthy();
    writer.check(&cluster);
    cluster.node(&name).lose_host();
    drop(disk);
}
