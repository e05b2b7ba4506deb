//! haproxy does what the routes say.

use std::{fs, net::SocketAddr, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use spilo::{
    dcs::DcsConfig,
    routing::{Haproxy, Listen, Machine, RouterConfig, Routes},
};
use tokio::runtime::Runtime;

use crate::{
    members::{FakeMember, Role, Session, greeted_by, page},
    support::{available, free_address, program, wait_until},
};

const SOON: Duration = Duration::from_secs(1);
/// Six failed checks, with time for a busy machine.
const CHECKED: Duration = Duration::from_secs(8);

/// A running haproxy before three members, of which `a` is the primary.
struct Router {
    runtime: Runtime,
    haproxy: Haproxy,
    listen: Listen,
    members: Vec<FakeMember>,
    _run_dir: tempfile::TempDir,
}

impl Router {
    fn start() -> Option<Router> {
        if !available("haproxy") {
            return None;
        }
        let run_dir = tempfile::tempdir().unwrap();
        let listen = Listen { read_write: free_address(), read_only: free_address(), health: free_address() };
        let config = RouterConfig {
            dcs: DcsConfig { endpoints: vec![], namespace: "service".into(), scope: "test".into() },
            listen,
            run_dir: run_dir.path().to_owned(),
            read_only_lag: None,
            login: None,
            directory: run_dir.path().to_owned(),
        };
        let machine = Machine { maxconn: 100, nameservers: vec![] };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut haproxy = Haproxy::new(program("haproxy").unwrap(), config, machine);
        let members =
            vec![FakeMember::start("a", Role::Primary), FakeMember::start("b", Role::Replica), FakeMember::start("c", Role::Replica)];
        runtime.block_on(haproxy.start()).unwrap();
        let mut router = Router { runtime, haproxy, listen, members, _run_dir: run_dir };
        router.apply(Some("a"));
        Some(router)
    }

    /// The routes with `writer`; the members' health checks are left as they are.
    fn apply(&mut self, writer: Option<&str>) {
        let members = self.members.iter().map(|m| (m.name.clone(), m.address())).collect();
        let routes = Routes { members, writer: writer.map(|w| w.parse().unwrap()) };
        self.runtime.block_on(self.haproxy.apply(routes)).unwrap();
    }

    fn member(&self, name: &str) -> &FakeMember {
        self.members.iter().find(|m| m.name.as_str() == name).unwrap()
    }

    /// Hands over from one member to another, health checks included.
    fn hand_over(&mut self, from: &str, to: &str) {
        self.member(from).becomes(Role::Replica);
        self.member(to).becomes(Role::Primary);
        self.apply(Some(to));
    }

    fn write_session(&self) -> Session {
        Session::open(self.listen.read_write).expect("somebody takes writes")
    }

    fn reads_settle_on(&self, names: &[&str]) {
        let read_only = self.listen.read_only;
        wait_until("reads go where they should", CHECKED, || {
            (0..6).all(|_| greeted_by(read_only).is_some_and(|member| names.contains(&member.as_str())))
        });
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        self.runtime.block_on(self.haproxy.stop());
        assert!(!self.haproxy.is_running(), "haproxy is still there");
    }
}

fn get(address: SocketAddr, path: &str) -> u16 {
    page(address, path).0
}

#[test]
fn writes_go_to_the_leader_and_reads_to_the_replicas() {
    let Some(router) = Router::start() else { return };
    assert_eq!(router.write_session().member, "a");
    router.reads_settle_on(&["b", "c"]);
    assert_eq!(get(router.listen.health, "/healthz"), 200);
    let (code, text) = page(router.listen.health, "/");
    assert!(code == 200 && text.contains("rw"), "{text}");
}

#[test]
fn a_new_leader_gets_the_writes_at_once_and_sessions_with_the_old_one_end() {
    let Some(mut router) = Router::start() else { return };
    let mut before = router.write_session();
    assert!(before.works());
    router.hand_over("a", "b");
    assert_eq!(router.write_session().member, "b");
    assert!(before.is_closed_within(SOON), "a session with the former primary goes on");
    let file = fs::read_to_string(router.haproxy.file()).unwrap();
    let disabled = |name: &str| file.lines().any(|line| line.contains(&format!("server {name} ")) && line.ends_with("disabled"));
    assert!(disabled("a") && !disabled("b") && disabled("c"), "the file is not the full truth: {file}");
}

#[test]
fn without_a_leader_nobody_takes_writes() {
    let Some(mut router) = Router::start() else { return };
    let mut before = router.write_session();
    router.apply(None);
    assert!(before.is_closed_within(SOON));
    assert_eq!(greeted_by(router.listen.read_write), None);
    assert_eq!(get(router.listen.health, "/healthz"), 503);
    router.apply(Some("a"));
    assert_eq!(router.write_session().member, "a");
    assert_eq!(get(router.listen.health, "/healthz"), 200);
}

#[test]
fn a_new_member_costs_nobody_a_session_and_old_workers_still_obey() {
    let Some(mut router) = Router::start() else { return };
    let mut before = router.write_session();
    router.members.push(FakeMember::start("d", Role::Replica));
    router.apply(Some("a"));
    assert!(before.works(), "the reload ended a session");
    router.reads_settle_on(&["b", "c", "d"]);
    assert_eq!(router.write_session().member, "a");
    // The session lives in the worker of before the reload, which has no health checks any more.
    router.hand_over("a", "d");
    assert!(before.is_closed_within(SOON), "a session with the former primary goes on in the old worker");
    assert_eq!(router.write_session().member, "d");
}

#[test]
fn a_member_and_the_leader_may_change_together() {
    let Some(mut router) = Router::start() else { return };
    let mut before = router.write_session();
    router.members.remove(0);
    router.members.push(FakeMember::start("d", Role::Primary));
    router.apply(Some("d"));
    assert!(before.is_closed_within(SOON), "a session with a member that is gone goes on");
    assert_eq!(router.write_session().member, "d");
}

#[test]
fn connections_are_taken_all_through_a_reload() {
    let Some(mut router) = Router::start() else { return };
    let address = router.listen.read_write;
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let told = stop.clone();
    let client = std::thread::spawn(move || {
        let (mut greeted, mut refused) = (0, 0);
        while !told.load(std::sync::atomic::Ordering::SeqCst) {
            *(if greeted_by(address).is_some() { &mut greeted } else { &mut refused }) += 1;
        }
        (greeted, refused)
    });
    for name in ["d", "e", "f"] {
        router.members.push(FakeMember::start(name, Role::Replica));
        router.apply(Some("a"));
    }
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    let (greeted, refused) = client.join().unwrap();
    assert!(greeted > 0 && refused == 0, "{greeted} were greeted and {refused} were not");
}

#[test]
fn health_checks_are_the_second_line_while_nothing_is_heard_of_a_new_leader() {
    let Some(router) = Router::start() else { return };
    let mut before = router.write_session();
    router.member("a").becomes(Role::Down);
    assert!(before.is_closed_within(CHECKED), "a session goes on with a node that says it is no primary");
    assert_eq!(greeted_by(router.listen.read_write), None);
    router.member("a").becomes(Role::Primary);
    wait_until("it is taken back", CHECKED, || greeted_by(router.listen.read_write).is_some());
}

#[test]
fn a_few_failed_checks_end_no_session() {
    let Some(router) = Router::start() else { return };
    let mut before = router.write_session();
    router.member("a").becomes(Role::Down);
    std::thread::sleep(Duration::from_millis(600));
    router.member("a").becomes(Role::Primary);
    assert!(!before.is_closed_within(Duration::from_secs(2)), "an agent's restart ended a session");
    assert!(before.works());
}

#[test]
fn reads_go_to_the_primary_when_no_replica_is_left() {
    let Some(router) = Router::start() else { return };
    router.reads_settle_on(&["b", "c"]);
    router.member("b").becomes(Role::Down);
    router.member("c").becomes(Role::Down);
    router.reads_settle_on(&["a"]);
}

#[test]
fn a_haproxy_that_died_is_started_again_with_the_same_routes() {
    let Some(mut router) = Router::start() else { return };
    router.hand_over("a", "b");
    let master = master_of(&router.haproxy);
    kill_process(master, Signal::KILL).unwrap();
    wait_until("its end is seen", SOON, || router.haproxy.reap());
    assert!(!router.haproxy.is_running());
    wait_until("it starts again", Duration::from_secs(5), || router.runtime.block_on(router.haproxy.start()).is_ok());
    assert_eq!(router.write_session().member, "b");
}

/// The master process, found by the configuration it was given.
fn master_of(haproxy: &Haproxy) -> Pid {
    let file = haproxy.file().display().to_string();
    let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let ours = pids.filter(|pid| fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains(&file)));
    // The master is the first that was started; its workers come after it.
    ours.min().and_then(Pid::from_raw).expect("haproxy runs")
}
