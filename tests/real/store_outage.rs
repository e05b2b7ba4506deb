//! A store that is away: what is written meanwhile waits, that is told, and afterwards the archive is whole. A short outage runs as any other
//! test; `make store-outage SECONDS=3600` has a long one.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    cluster::{Cluster, LIMIT, command_line, descendants},
    machine::{as_other_user, bin_dir, own},
    s3::S3Double,
    tags::others,
    writer::Writer,
};
use crate::support::{run::Run, wait_until};

/// How long the short outage lasts, in seconds.
const SHORT: u64 = 36;

/// How long the first backup may take: it begins with one of the keepers' turns.
const A_ROUND: Duration = Duration::from_secs(300);

/// What the WAL service may take, in kB, however much waits: 256 MiB for WAL, and itself.
const MOST_MEMORY: u64 = 400 << 10;

/// A cluster that archives into a bucket.
struct Stage {
    cluster: Cluster,
    store: Vec<String>,
    leader: String,
    started: Instant,
}

impl Stage {
    /// With segments of so many megabytes.
    fn new(double: &S3Double, megabytes: u32) -> Option<Stage> {
        let mut cluster = Cluster::unstarted(&json!({"synchronous_mode": "quorum"}))?;
        let credentials = cluster.nodes[0].path("../credentials");
        fs::copy(double.credentials_file(), &credentials).unwrap();
        own(&credentials);
        let credentials = credentials.canonicalize().unwrap();
        let (url, endpoint) = ("s3://backups/prod", double.endpoint());
        let words = ["--store", url, "--store-endpoint", &endpoint, "--store-credentials", credentials.to_str().unwrap()];
        let store = words.map(str::to_owned).to_vec();
        for node in &mut cluster.nodes {
            node.edit_config(|config| {
                config["spilo"] = json!({"archive": {"store": url, "endpoint": endpoint, "credentials_file": credentials}});
                config["bootstrap"]["initdb"] = json!([{"encoding": "UTF8"}, "data-checksums", {"wal-segsize": megabytes}]);
            });
        }
        let mut stage = Stage { cluster, store, leader: String::new(), started: Instant::now() };
        stage.spilo(&["wal", "init"]).exits(0);
        stage.cluster.nodes.iter_mut().for_each(super::node::Node::start);
        stage.cluster.wait_healthy();
        stage.leader = others(&stage.cluster).0;
        Some(stage)
    }

    /// `spilo` with these words and the way to the store.
    fn spilo(&self, words: &[&str]) -> Run {
        let mut command = Command::new(self.cluster.nodes[0].path("../spilo"));
        command.args(words).args(&self.store).current_dir(self.cluster.nodes[0].path(""));
        Run::of(&as_other_user(&mut command).output().unwrap())
    }

    fn leader(&mut self) -> &super::node::Node {
        let name = self.leader.clone();
        self.cluster.node(&name)
    }

    /// `spilo wal state` of the leader.
    fn state(&mut self) -> Value {
        let (program, data) = (self.leader().path("../spilo"), self.leader().path("data"));
        let mut command = Command::new(program);
        command.args(["wal", "state", "--data-dir"]).arg(data);
        serde_json::from_slice(&as_other_user(&mut command).output().unwrap().stdout).unwrap_or_default()
    }

    /// What the leader's WAL service takes of memory, in kB.
    fn memory(&mut self) -> u64 {
        let guard = self.leader().guard_pid();
        let service = descendants(guard).into_iter().find(|pid| command_line(*pid).contains("wal serve"));
        let status = service.and_then(|pid| fs::read_to_string(format!("/proc/{pid}/status")).ok()).unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok());
        resident.unwrap_or_default()
    }

    /// Some WAL besides that of the clients.
    fn write_more(&mut self, turn: u64) {
        if turn.is_multiple_of(300) {
            self.leader().execute("truncate ballast");
        }
        self.leader().execute("insert into ballast select i, md5(i::text) from generate_series(1, 5000) i");
    }

    /// Looks at the leader's archive, and says what it sees.
    fn look(&mut self) -> Value {
        let (state, memory) = (self.state(), self.memory());
        let body = self.leader().get("/patroni").1;
        let (waiting, hours) = (&state["waiting"], &state["hours_until_full"]);
        eprintln!(
            "{:>6.0} s: {} files of {} MB wait, the oldest for {} s; {hours} h until the disk is full; service {:.0} MB; failing since {}: {}; trouble: {}",
            self.started.elapsed().as_secs_f64(),
            waiting["files"],
            waiting["bytes"].as_u64().unwrap_or_default() >> 20,
            waiting["oldest_age_seconds"],
            memory as f64 / 1024.0,
            state["failing_since"],
            state["last_error"],
            body["trouble"],
        );
        assert!(memory < MOST_MEMORY, "the WAL service takes {memory} kB");
        state
    }

    /// Goes on for so long.
    fn stay(&mut self, time: Duration) {
        let begun = Instant::now();
        let look = (time / 20).max(Duration::from_secs(5));
        let mut next = begun + look;
        for turn in 1.. {
            if begun.elapsed() >= time {
                break;
            }
            self.write_more(turn);
            if Instant::now() >= next {
                next += look;
                self.look();
            }
            std::thread::sleep(Duration::from_secs(1));
        }
    }

    /// Everything written so far is in the store.
    fn archive_all(&mut self) {
        let last = self.leader().query("select pg_walfile_name(pg_current_wal_insert_lsn())").unwrap();
        self.leader().execute("select pg_switch_wal()");
        let newest = "select coalesce(max(last_archived_wal), '') from pg_stat_archiver";
        wait_until("all WAL is archived", Duration::from_secs(600), || self.leader().query(newest).is_ok_and(|newest| newest >= last));
    }
}

fn outage() -> Duration {
    let said = std::env::var("SPILO_OUTAGE_SECONDS").ok();
    Duration::from_secs(said.map_or(SHORT, |text| text.parse().unwrap_or_else(|error| panic!("SPILO_OUTAGE_SECONDS='{text}': {error}"))))
}

#[test]
fn a_store_that_is_away_for_a_while_loses_nothing_and_afterwards_the_archive_is_whole() {
    let double = S3Double::start();
    let outage = outage();
    let megabytes = if outage.as_secs() > SHORT { 16 } else { 1 };
    let Some(mut stage) = Stage::new(&double, megabytes) else { return };
    stage.leader().execute("create table ballast (i int, text text)");
    let writer = Writer::start(&stage.cluster);
    wait_until("there is a backup", A_ROUND, || double.names().iter().any(|name| name.ends_with("/manifest")));
    stage.stay(Duration::from_secs(5));
    assert_eq!(stage.look()["failing_since"], Value::Null);
    let before = stage.state()["archived"].as_u64().unwrap();

    eprintln!("the store's process is stopped");
    let frozen = double.freeze();
    stage.stay(outage * 2 / 3);
    wait_until("it is told", LIMIT, || {
        std::thread::sleep(Duration::from_millis(200));
        stage.state()["failing_since"].is_string()
    });
    let state = stage.look();
    assert!(state["waiting"]["files"].as_u64() > Some(0), "{state}");
    drop(frozen);
    eprintln!("the store takes no connections");
    double.close();
    stage.stay(outage / 3);
    let state = stage.look();
    assert!(state["last_error"].as_str().unwrap().contains("is not available") && state["hours_until_full"].is_number(), "{state}");
    let said = stage.leader().log().matches("could not be archived: ").count() as u64;
    assert!((1..=2 + outage.as_secs() / 300).contains(&said), "the log says it {said} times");
    let (waited, bytes) = (state["waiting"]["files"].as_u64().unwrap(), state["waiting"]["bytes"].as_u64().unwrap());

    eprintln!("the store is back");
    let (back, puts) = (Instant::now(), double.requests(super::s3::Verb::Put));
    double.open();
    wait_until("the backlog is archived", Duration::from_secs(900), || {
        std::thread::sleep(Duration::from_millis(200));
        stage.state()["waiting"]["files"].as_u64() < Some(2)
    });
    let took = back.elapsed().as_secs_f64();
    eprintln!(
        "{waited} files of {} MB were behind, and were archived after {took:.1} s ({:.1} files a second), with {} PUTs",
        bytes >> 20,
        waited as f64 / took,
        double.requests(super::s3::Verb::Put) - puts,
    );
    wait_until("it is told that all is well", LIMIT, || stage.state()["failing_since"].is_null());
    stage.stay(Duration::from_secs(5));
    let state = stage.look();
    assert!(state["archived"].as_u64() >= Some(before + waited) && state["conflicts"] == json!([]), "{state}");

    writer.check(&stage.cluster);
    let rows = |sql: &str| format!("select {sql} from written");
    let there = stage.leader().query(&rows("count(*) || ', ' || sum(id)")).unwrap();
    stage.archive_all();
    stage.spilo(&["wal", "check", "--cluster", "real"]).exits(0);
    let check = rows(&format!("count(*) || ', ' || sum(id) = '{there}'"));
    let scratch: PathBuf = stage.cluster.nodes[0].path("scratch");
    let (bin_dir, scratch) = (bin_dir().unwrap(), scratch.to_str().unwrap());
    let drill =
        ["backup", "drill", "--cluster", "real", "--to-end", "--bin-dir", bin_dir.to_str().unwrap(), "--scratch", scratch, "--check"];
    stage.spilo(&[&drill[..], &[&check]].concat()).exits(0);
}
