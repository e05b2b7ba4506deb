//! The router as the first process of a container, which is a process namespace of its own.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{Child, Command},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::{
    members::page,
    support::{available, free_address, wait_until},
};

const SOON: Duration = Duration::from_secs(20);

/// Starts a program as the first process of a namespace; `None`, with a visible line, where this machine does not allow that.
fn as_first_process(program: &str, arguments: &[&str]) -> Option<Child> {
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--pid", "--fork", "--mount-proc", "--kill-child"]);
        command
    };
    if !unshare().arg("true").status().is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: this machine does not allow process namespaces");
        return None;
    }
    Some(unshare().arg(program).args(arguments).spawn().unwrap())
}

/// The processes whose command line begins with `program` and holds `word`, oldest first.
fn processes(program: &str, word: &str) -> Vec<Pid> {
    let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let ours =
        |pid: &i32| fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(program) && line.contains(word));
    let mut found: Vec<i32> = pids.filter(ours).collect();
    found.sort_unstable();
    found.into_iter().filter_map(Pid::from_raw).collect()
}

fn write_config(dir: &Path, health: SocketAddr) -> String {
    // Nothing listens at port 1: the router waits for its store all the while.
    let config = json!({
        "scope": "orders", "etcd3": {"hosts": ["127.0.0.1:1"]},
        "router": {"run_dir": dir, "listen": {"read_write": free_address(), "read_only": free_address(), "health": health}},
    });
    let path = dir.join("router.yml");
    fs::write(&path, config.to_string()).unwrap();
    path.display().to_string()
}

#[test]
fn it_reaps_what_it_inherits_starts_haproxy_again_and_ends_when_told() {
    if !available("haproxy") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let health = free_address();
    let config = write_config(dir.path(), health);
    let program = env!("CARGO_BIN_EXE_spilo");
    let Some(mut namespace) = as_first_process(program, &["router", &config]) else { return };
    let answers = || page(health, "/healthz").0 == 503;
    wait_until("the health page answers", SOON, answers);
    // The page answers a moment before the router considers the start complete; one that dies during its first start ends the router.
    std::thread::sleep(Duration::from_secs(1));

    let file = dir.path().join("haproxy.cfg").display().to_string();
    let master = processes("haproxy", &file)[0];
    kill_process(master, Signal::KILL).unwrap();
    wait_until("haproxy is started again", SOON, || answers() && processes("haproxy", &file).first().is_some_and(|now| *now != master));
    let router = processes(program, &config)[0];
    let children = format!("/proc/{0}/task/{0}/children", router.as_raw_pid());
    wait_until("the old worker is reaped", SOON, || fs::read_to_string(&children).unwrap().split_whitespace().count() == 1);

    kill_process(router, Signal::TERM).unwrap();
    wait_until("it ends", SOON, || namespace.try_wait().unwrap().is_some());
    assert!(processes("haproxy", &file).is_empty(), "haproxy is still there");
}
