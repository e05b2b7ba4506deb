//! The WAL archive, with PostgreSQL on both sides of it.

use std::{collections::BTreeSet, path::Path, process::Command};

use rustix::process::Signal;
use serde_json::json;

use super::{
    cluster::{Cluster, LIMIT, as_other_user, command_line, descendants, own, send},
    tags::others,
    writer::Writer,
};
use crate::support::wait_until;

/// As PostgreSQL has it: from the data directory.
const PUSH: &str =
    "mkdir -p ../../store && ../../spilo wal init --store ../../store && ../../spilo wal push --store ../../store --cluster orders %p %f";
const FETCH: &str = "../../spilo wal fetch --store ../../store --cluster orders %f %p";

#[test]
fn a_member_that_does_not_stream_lives_from_the_archive_through_a_failover() {
    let archive = json!({"archive_mode": "on", "archive_command": PUSH});
    let postgresql = json!({"use_pg_rewind": true, "parameters": archive, "recovery_conf": {"restore_command": FETCH}});
    let Some(mut cluster) = Cluster::start_with(&json!({"synchronous_mode": "quorum", "postgresql": postgresql})) else { return };
    let (leader, [_, silent]) = others(&cluster);
    cluster.node(&silent).reconfigure(&json!({"tags": {"nostream": true}}));
    let streams = "select count(*)::text from pg_stat_wal_receiver";
    wait_until("it does not stream", LIMIT, || cluster.node(&silent).query(streams).is_ok_and(|n| n == "0"));
    cluster.node(&leader).execute("create table archived as select generate_series(1, 1000) as i");
    cluster.node(&leader).execute("select pg_switch_wal()");
    let has = |cluster: &mut Cluster, rows: &str| {
        let count = "select count(*)::text from archived";
        wait_until("the rows came through the archive", LIMIT, || cluster.node(&silent).query(count).is_ok_and(|n| n == rows));
    };
    has(&mut cluster, "1000");
    cluster.node(&leader).lose_host();
    let successor = cluster.wait_for_another_leader(&leader);
    assert_ne!(successor, silent);
    cluster.node(&successor).execute("insert into archived select 1001");
    cluster.node(&successor).execute("select pg_switch_wal()");
    has(&mut cluster, "1001");
    assert_eq!(cluster.node(&silent).query(streams).unwrap(), "0");
    assert!(!cluster.node(&leader).path("../store/conflict").exists(), "nothing was archived with two contents");
}

/// The key of an archive that is encrypted, beside the store.
const KEY: &str = "orders.key";

/// The option that names the key of the archive of [`archiving`], if it has one.
pub fn key_option(cluster: &Cluster) -> Option<String> {
    let key = cluster.nodes[0].path("../store").canonicalize().unwrap().with_file_name(KEY);
    key.exists().then(|| format!("--store-key={}", key.display()))
}

/// A cluster whose agents archive, in a store in a directory beside the members. Segments have a megabyte. Everything is encrypted where
/// `SPILO_TEST_ENCRYPTED` is set.
pub fn archiving() -> Option<Cluster> {
    let encrypted = std::env::var_os("SPILO_TEST_ENCRYPTED").is_some();
    let mut cluster = Cluster::unstarted(&json!({"synchronous_mode": "quorum", "postgresql": {"use_pg_rewind": true}}))?;
    let store = cluster.nodes[0].path("../store");
    std::fs::create_dir(&store).unwrap();
    own(&store);
    let program = cluster.nodes[0].path("../spilo");
    assert!(as_other_user(Command::new(&program).args(["wal", "init", "--store"]).arg(&store)).status().unwrap().success());
    let store = store.canonicalize().unwrap();
    let key = store.with_file_name(KEY);
    if encrypted {
        assert!(as_other_user(Command::new(program).args(["backup", "key", "new"]).arg(&key)).status().unwrap().success());
    }
    for node in &mut cluster.nodes {
        node.edit_config(|config| {
            config["spilo"] = json!({"archive": {"store": format!("file://{}", store.display())}});
            if encrypted {
                config["spilo"]["archive"]["key_file"] = key.display().to_string().into();
            }
            config["bootstrap"]["initdb"] = json!([{"encoding": "UTF8"}, "data-checksums", {"wal-segsize": 1}]);
            // The agent's own win.
            config["postgresql"]["parameters"]["archive_command"] = json!("false");
        });
        node.start();
    }
    cluster.wait_healthy();
    Some(cluster)
}

/// The names of what is archived.
fn archived(cluster: &Cluster) -> BTreeSet<String> {
    fn below(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.file_name().to_str().unwrap().strip_suffix(".zst") {
                Some(name) => drop(found.insert(name.to_owned())),
                None => below(&entry.path(), found),
            }
        }
    }
    let mut found = BTreeSet::new();
    below(&cluster.nodes[0].path("../store/real/wal"), &mut found);
    found
}

#[test]
fn the_agent_sees_to_the_archive() {
    let Some(mut cluster) = archiving() else { return };
    let (leader, [_, silent]) = others(&cluster);
    cluster.node(&silent).reconfigure(&json!({"tags": {"nostream": true}}));
    let streams = "select count(*)::text from pg_stat_wal_receiver";
    wait_until("it does not stream", LIMIT, || cluster.node(&silent).query(streams).is_ok_and(|n| n == "0"));
    cluster.node(&leader).execute("create table archived as select generate_series(1, 100000) as i");
    cluster.node(&leader).execute("select pg_switch_wal()");
    let count = "select count(*)::text from archived";
    wait_until("the rows came through the archive", LIMIT, || cluster.node(&silent).query(count).is_ok_and(|n| n == "100000"));
    assert!(archived(&cluster).len() > 3);
    cluster.node(&leader).lose_host();
    let successor = cluster.wait_for_another_leader(&leader);
    cluster.node(&successor).execute("insert into archived select 1");
    cluster.node(&successor).execute("select pg_switch_wal()");
    wait_until("the rows came through the archive", LIMIT, || cluster.node(&silent).query(count).is_ok_and(|n| n == "100001"));
    assert!(archived(&cluster).contains("00000002.history"));
    assert!(!cluster.node(&leader).path("../store/real/conflict").exists(), "nothing was archived with two contents");
}

/// Archived segments of `timelines`, one after the other without a hole, up to where the leader was when this was asked; `None`: not yet.
fn whole_up_to(cluster: &Cluster, position: &str) -> Option<()> {
    let present = archived(cluster);
    let ordinal = |name: &str| -> Option<u64> {
        let part = |at: usize| u64::from_str_radix(name.get(at..at + 8)?, 16).ok();
        (name.len() == 24).then_some(())?;
        Some(part(8)? * 4096 + part(16)?)
    };
    let there: BTreeSet<u64> = present.iter().filter_map(|name| ordinal(name)).collect();
    let first = there.first().copied()?;
    let last = ordinal(position)?;
    (first..last).all(|wanted| there.contains(&wanted)).then_some(())
}

/// Every archived file comes back, checked, through a way that has nothing to do with the service.
fn all_readable(cluster: &Cluster) {
    let node = &cluster.nodes[0];
    for name in archived(cluster) {
        let mut fetch = Command::new(node.path("../spilo"));
        fetch
            .args(["wal", "fetch", "--store", "../../store", "--cluster", "real"])
            .args(key_option(cluster))
            .args([&name, "../checked"])
            .current_dir(node.path("data"));
        assert!(as_other_user(&mut fetch).status().unwrap().success(), "{name} is in the archive and does not come back");
    }
}

const CURRENT: &str = "select pg_walfile_name(pg_current_wal_lsn())";

#[test]
fn a_primary_that_dies_with_wal_that_was_not_archived_leaves_no_hole() {
    let Some(mut cluster) = archiving() else { return };
    let (leader, _) = others(&cluster);
    let (store, away) = (cluster.nodes[0].path("../store"), cluster.nodes[0].path("../away"));
    cluster.node(&leader).execute("create table archived (i int)");
    cluster.node(&leader).execute("select pg_switch_wal()");
    wait_until("it is archived", LIMIT, || archived(&cluster).len() > 1);
    std::fs::rename(&store, &away).unwrap();
    for _ in 0..6 {
        cluster.node(&leader).execute("insert into archived select generate_series(1, 1000)");
        cluster.node(&leader).execute("select pg_switch_wal()");
    }
    cluster.wait_healthy();
    let last = cluster.node(&leader).query(CURRENT).unwrap();
    cluster.node(&leader).lose_host();
    let successor = cluster.wait_for_another_leader(&leader);
    std::fs::rename(&away, &store).unwrap();
    assert!(whole_up_to(&cluster, &last).is_none(), "the last primary had archived all of it: this shows nothing");
    wait_until("the successor archives what it left", LIMIT, || whole_up_to(&cluster, &last).is_some());
    let state = || {
        let mut state = Command::new(cluster.nodes[0].path("../spilo"));
        state.args(["wal", "state", "--data-dir"]).arg(cluster.nodes.iter().find(|n| n.name == successor).unwrap().path("data"));
        serde_json::from_slice::<serde_json::Value>(&as_other_user(&mut state).output().unwrap().stdout).unwrap_or_default()
    };
    wait_until("it says so", LIMIT, || state()["left_behind"]["state"] == "done");
    assert_eq!(state()["left_behind"]["missing"], json!([]), "{}", state());
    assert!(state()["left_behind"]["archived"].as_u64() > Some(0), "{}", state());
    all_readable(&cluster);
}

#[test]
fn whatever_of_it_is_killed_every_segment_is_archived_and_comes_back() {
    let Some(mut cluster) = archiving() else { return };
    let writer = Writer::start(&cluster);
    for round in 0..8 {
        let (leader, _) = others(&cluster);
        cluster.node(&leader).execute("create table if not exists more as select 1 as i");
        cluster.node(&leader).execute("insert into more select generate_series(1, 60000)");
        let node = cluster.nodes.iter().find(|n| n.name == leader).unwrap();
        let victims: Vec<i32> = match round % 4 {
            // The service and, where one runs just now, its client.
            0 | 2 => descendants(node.guard_pid())
                .into_iter()
                .filter(|pid| ["wal serve", "wal push"].iter().any(|what| command_line(*pid).contains(what)))
                .collect(),
            1 => vec![node.agent_pid()],
            _ => node.postmaster_pid().into_iter().collect(),
        };
        assert!(!victims.is_empty(), "nothing to kill in round {round}");
        victims.into_iter().for_each(|pid| send(pid, Signal::KILL));
        writer.wait_for_more();
        cluster.wait_healthy();
    }
    let (leader, _) = others(&cluster);
    cluster.node(&leader).execute("select pg_switch_wal()");
    let last = cluster.node(&leader).query(CURRENT).unwrap();
    wait_until("all of it is archived", LIMIT * 2, || whole_up_to(&cluster, &last).is_some());
    all_readable(&cluster);
    assert!(!cluster.nodes[0].path("../store/real/conflict").exists(), "something was archived with two contents");
    writer.check(&cluster);
}

#[test]
fn a_former_primary_is_rewound_with_wal_from_the_archive() {
    let Some(mut cluster) = archiving() else { return };
    let (leader, _) = others(&cluster);
    cluster.node(&leader).execute("create table archived (i int); checkpoint");
    for _ in 0..6 {
        cluster.node(&leader).execute("insert into archived select generate_series(1, 1000)");
        cluster.node(&leader).execute("select pg_switch_wal()");
    }
    cluster.wait_healthy();
    let shared = cluster.node(&leader).query(CURRENT).unwrap();
    wait_until("it is archived", LIMIT, || whole_up_to(&cluster, &shared).is_some());
    cluster.node(&leader).lose_host();
    cluster.wait_for_another_leader(&leader);
    // It comes up alone and writes what nobody else has; what it needs of the time before is only in the archive then.
    cluster.node(&leader).pg_ctl(&["start"]);
    cluster.node(&leader).execute("set synchronous_commit = local; insert into archived select 1; checkpoint");
    cluster.node(&leader).pg_ctl(&["stop", "-m", "fast"]);
    cluster.node(&leader).mark_data();
    let kept = archived(&cluster);
    for entry in std::fs::read_dir(cluster.node(&leader).path("data/pg_wal")).unwrap().flatten() {
        let name = entry.file_name().to_str().unwrap().to_owned();
        if name.len() == 24 && name < shared && kept.contains(&name) {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
    cluster.node(&leader).start();
    cluster.wait_healthy();
    assert!(cluster.node(&leader).has_marked_data(), "it was copied, and not rewound");
    let log = cluster.node(&leader).log();
    assert!(!log.contains("pg_rewind failed"), "{log}");
}
