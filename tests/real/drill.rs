//! Test restores of a real server: what they touch, and what is left when one is killed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Child,
    time::Duration,
};

use super::{
    lone_server::{CLUSTER, Stage},
    machine::bin_dir,
};
use crate::support::wait_until;

const LIMIT: Duration = Duration::from_secs(120);

fn words(stage: &Stage, check: &str) -> Vec<String> {
    let fixed = ["-o", "json", "backup", "drill", "--cluster", CLUSTER, "--check", check].map(str::to_owned);
    let places = [("--bin-dir", bin_dir().unwrap()), ("--scratch", stage.path("scratch"))];
    let places = places.map(|(option, path)| [option.to_owned(), path.display().to_string()]);
    fixed.into_iter().chain(places.into_iter().flatten()).chain(stage.store().into_iter().map(str::to_owned)).collect()
}

fn drill(stage: &Stage, check: &str) -> crate::support::run::Run {
    stage.spilo(&words(stage, check).iter().map(String::as_str).collect::<Vec<_>>())
}

fn begin_drill(stage: &Stage) -> Child {
    stage.begin(&words(stage, "select true").iter().map(String::as_str).collect::<Vec<_>>())
}

/// Every file below the directory, with its size. One that goes while we look is not there.
fn files(folder: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
            continue;
        }
        match entry.metadata() {
            Ok(metadata) => found.push((path, metadata.len())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => panic!("{}: {error}", path.display()),
        }
    }
    found.sort();
    found
}

#[test]
fn a_drill_touches_nothing_outside_its_directory_and_leaves_nothing_in_it() {
    let Some(stage) = Stage::new() else { return };
    let server = stage.create("source");
    let elsewhere = stage.make_dir("elsewhere");
    server.sql(&format!("create tablespace elsewhere location '{}'", elsewhere.display()));
    server.sql("alter system set max_connections = 321");
    server.stop();
    server.start();
    server.sql("create table t tablespace elsewhere as select generate_series(1, 100000) as i");
    server.sql("create index on t (i) tablespace elsewhere");
    server.sql("checkpoint");
    let harm = stage.path("harm");
    // What a server that is started as it is configured would do, or fail at.
    for (name, value) in [
        ("shared_preload_libraries", "no_such_library".to_owned()),
        ("listen_addresses", "192.0.2.1".to_owned()),
        ("archive_command", format!("touch {}", harm.display())),
        ("recovery_end_command", format!("touch {}", harm.display())),
        ("hba_file", "/nonexistent".to_owned()),
        ("shared_buffers", "900GB".to_owned()),
    ] {
        server.sql(&format!("alter system set {name} = '{value}'"));
    }
    server.back_up();
    let before = files(&elsewhere);
    let told = drill(&stage, "select count(*) = 100000 from t").exits(0);
    let report: serde_json::Value = serde_json::from_str(&told.stdout).unwrap();
    assert!(report["recovery_seconds"].as_f64().unwrap() > 0.0, "{report}");
    assert!(report["notes"].to_string().contains("100000 rows in 1 table of"), "{report}");
    assert_eq!(files(&elsewhere), before);
    assert!(!harm.exists());
    assert_eq!(files(&stage.path("scratch")), []);
    assert_eq!(server.sql("select count(*) from t"), "100000", "the running server goes on");
    drill(&stage, "select 1 / 0").exits(21).prints("division by zero");
    let verdict =
        || fs::read(files(&stage.path("store")).into_iter().find(|(path, _)| path.to_string_lossy().contains("/verified/")).unwrap().0);
    let before = verdict().unwrap();
    for (option, unknown) in [("--user", "nobody"), ("--database", "nothing")] {
        let words = words(&stage, "select true");
        let words: Vec<&str> = words.iter().map(String::as_str).chain([option, unknown]).collect();
        stage.spilo(&words).exits(6).says(unknown);
    }
    assert_eq!(verdict().unwrap(), before, "whom one asks as says nothing of the backup");
}

#[test]
fn what_a_killed_drill_has_left_goes_with_the_next_one_and_its_server_with_itself() {
    let Some(stage) = Stage::new() else { return };
    let server = stage.create("source");
    server.sql("create table t as select generate_series(1, 100000) as i");
    server.back_up();
    let mut killed = begin_drill(&stage);
    let postmaster = || {
        let (path, _) = files(&stage.path("scratch")).into_iter().find(|(path, _)| path.ends_with("data/postmaster.pid"))?;
        fs::read_to_string(path).ok()?.lines().next()?.parse::<u32>().ok()
    };
    wait_until("its server runs", LIMIT, || postmaster().is_some() || killed.try_wait().unwrap().is_some());
    let pid = postmaster().expect("the drill has ended too early");
    killed.kill().unwrap();
    killed.wait().unwrap();
    wait_until("its server is gone", LIMIT, || !Path::new(&format!("/proc/{pid}")).exists());
    assert!(!files(&stage.path("scratch")).is_empty(), "nobody was there to clear up");
    drill(&stage, "select count(*) = 100000 from t").exits(0);
    assert_eq!(files(&stage.path("scratch")), []);
}
