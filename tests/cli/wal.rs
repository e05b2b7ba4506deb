//! `spilo wal`, as PostgreSQL runs it: what its exit codes mean decides whether a recovery ends.

use std::{fs, path::Path};

use crate::spilo::spilo_in;

const SYSTEM: u64 = 7_300_000_000_000_000_001;
const SEGMENT: &str = "000000010000000000000005";

/// A data directory with one segment of a megabyte, and a store beside it.
fn data_directory() -> tempfile::TempDir {
    let outer = tempfile::tempdir().expect("a directory of our own");
    for folder in ["data/global", "data/pg_wal", "store"] {
        fs::create_dir_all(outer.path().join(folder)).expect("a directory of our own");
    }
    spilo_in(outer.path(), &["wal", "init", "--store", "store"]).exits(0);
    fs::write(outer.path().join("data/global/pg_control"), SYSTEM.to_ne_bytes()).expect("a directory of our own");
    let mut content = vec![0; 1 << 20];
    content[..8].copy_from_slice(&[0x16, 0xD1, 0x02, 0x00, 1, 0, 0, 0]);
    content[8..16].copy_from_slice(&(5u64 << 20).to_le_bytes());
    content[24..32].copy_from_slice(&SYSTEM.to_le_bytes());
    content[32..36].copy_from_slice(&(1u32 << 20).to_le_bytes());
    fs::write(outer.path().join("data/pg_wal").join(SEGMENT), content).expect("a directory of our own");
    outer
}

fn push(data: &Path, file: &str) -> crate::run::Run {
    spilo_in(data, &["wal", "push", "--store", "../store", "--cluster", "orders", &format!("pg_wal/{SEGMENT}"), file])
}

fn fetch(data: &Path, store: &str, file: &str) -> crate::run::Run {
    spilo_in(data, &["wal", "fetch", "--patience", "0", "--store", store, "--cluster", "orders", file, "pg_wal/RECOVERYXLOG"])
}

#[test]
fn a_file_is_archived_restored_or_known_not_to_be_there() {
    let outer = data_directory();
    let data = outer.path().join("data");
    fetch(&data, "../store", SEGMENT).exits(1);
    push(&data, SEGMENT).exits(0);
    push(&data, SEGMENT).exits(0);
    fetch(&data, "../store", SEGMENT).exits(0);
    assert_eq!(fs::read(data.join("pg_wal/RECOVERYXLOG")).unwrap(), fs::read(data.join("pg_wal").join(SEGMENT)).unwrap());
    fetch(&data, "../store", "00000002.history").exits(1);
}

#[test]
fn where_there_is_wal_of_a_system_nobody_else_begins_with_it() {
    let outer = data_directory();
    let data = outer.path().join("data");
    let unused = |cluster: &str, system: u64| {
        let system = format!("--system={system}");
        spilo_in(&data, &["wal", "unused", "--store", "../store", "--cluster", cluster, &system])
    };
    unused("orders", SYSTEM).exits(0);
    push(&data, SEGMENT).exits(0);
    unused("orders", SYSTEM).exits(6).says(SEGMENT).says("choose another name");
    unused("orders", SYSTEM + 1).exits(0);
    unused("orders-2", SYSTEM).exits(0);
}

#[test]
fn what_opens_an_archive_is_tried_out_and_leaves_nothing_there() {
    let outer = data_directory();
    let data = outer.path().join("data");
    for key in ["key", "other"] {
        spilo_in(&data, &["backup", "key", "new", key]).exits(0);
    }
    let probe =
        |cluster: &str, key: &[&str]| spilo_in(&data, &[&["wal", "probe", "--store", "../store", "--cluster", cluster][..], key].concat());
    let objects = || {
        let mut found = Vec::new();
        let mut folders = vec![outer.path().join("store")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { folders.push(path) } else { found.push(path) }
            }
        }
        found.sort();
        found
    };
    let before = objects();
    probe("orders", &["--store-key=key"]).exits(1).says("orders/key/00000001");
    assert_eq!(objects(), before, "nothing is begun");
    spilo_in(&data, &["wal", "init", "--store", "../store", "--cluster", "orders", "--store-key=key"]).exits(0);
    let begun = objects();
    probe("orders", &["--store-key=key"]).exits(0);
    probe("orders", &["--store-key=other"]).exits(1).says("use the file with");
    probe("orders", &[]).exits(1).says("no key is configured");
    probe("plain", &[]).exits(0);
    assert_eq!(objects(), begun);
    // What one that was killed has left goes with the next one.
    let left = outer.path().join("store/orders/probe/secrets");
    fs::create_dir_all(left.parent().unwrap()).unwrap();
    fs::write(&left, "half").unwrap();
    probe("orders", &["--store-key=key"]).exits(0);
    assert_eq!(objects(), begun);
    fs::remove_file(outer.path().join("store/.spilo-store")).unwrap();
    probe("plain", &[]).exits(1).says("store");
}

#[test]
fn a_store_that_cannot_be_asked_does_not_end_a_recovery() {
    let outer = data_directory();
    let data = outer.path().join("data");
    push(&data, SEGMENT).exits(0);
    fs::create_dir(outer.path().join("not-mounted")).unwrap();
    fetch(&data, "../not-mounted", SEGMENT).exits(126).says("not-mounted").says("mount its volume");
    fs::write(data.join("standby.signal"), "").unwrap();
    fetch(&data, "../not-mounted", SEGMENT).exits(1).says("not-mounted");
    assert!(!data.join("pg_wal/RECOVERYXLOG").exists());
}

#[test]
fn a_fetch_that_is_not_understood_does_not_end_a_recovery_either() {
    let outer = data_directory();
    let data = outer.path().join("data");
    let mistakes: [&[&str]; 4] = [
        &["wal", "fetch", "--stor", "../store", "--cluster", "orders", SEGMENT, "x"],
        &["--no-color", "wal", "fetch"],
        &["wal", "fetch", "--store", "../store", "--cluster", "orders", "nonsense", "x"],
        &["wal", "fetch", "-o", "nonsense"],
    ];
    for mistake in mistakes {
        spilo_in(&data, mistake).exits(126);
    }
    fs::write(data.join("standby.signal"), "").unwrap();
    spilo_in(&data, mistakes[0]).exits(1);
    fs::remove_file(data.join("standby.signal")).unwrap();
    fs::remove_file(data.join("global/pg_control")).unwrap();
    fetch(&data, "../store", SEGMENT).exits(126).says("in its data directory?");
}

#[test]
fn what_is_not_archived_is_named_with_the_reason() {
    let outer = data_directory();
    let data = outer.path().join("data");
    push(&data, "000000010000000000000006").exits(1).says("000000010000000000000006").says("0/500000");
    push(&data, "../../etc/passwd").exits(2).says("is not the name of a WAL file");
    fs::remove_file(data.join("global/pg_control")).unwrap();
    push(&data, SEGMENT).exits(1).says("pg_control").says("in its data directory?");
}

#[test]
fn backups_are_asked_for_by_cluster_or_by_store_and_never_by_both() {
    let outer = data_directory();
    let here = outer.path();
    let list = |arguments: &[&str]| spilo_in(here, &[&["backup", "list"], arguments].concat());
    list(&["--store", "store", "--cluster", "orders"]).exits(4).says("no backup of 'orders'");
    list(&[]).exits(2).says("<NAME>");
    list(&["orders", "--store", "store", "--cluster", "orders"]).exits(2);
    list(&["--store", "store"]).exits(2).says("--cluster");
    spilo_in(here, &["backup", "show", "orders", "yesterday"]).exits(2).says("'yesterday'");
    spilo_in(here, &["wal", "check", "--store", "store", "--cluster", "orders", "--system", "7710753353203642389"]).exits(0);
}

/// A service of the data directory, killed with the test.
struct Service(std::process::Child);

impl Service {
    fn start(outer: &Path) -> Service {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_spilo"));
        command.args(["wal", "serve", "--store", "store", "--cluster", "orders", "--data-dir", "data"]).current_dir(outer);
        let service = Service(command.stderr(std::process::Stdio::null()).spawn().expect("the binary was built for this test"));
        let answers = || spilo_in(outer, &["wal", "state", "--data-dir", "data"]).code == 0;
        assert!(
            (0..500).any(|_| answers() || {
                std::thread::sleep(std::time::Duration::from_millis(20));
                false
            }),
            "it does not answer"
        );
        service
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_service_answers_postgresql_wherever_it_runs_its_commands() {
    let outer = data_directory();
    let data = outer.path().join("data");
    let path = format!("pg_wal/{SEGMENT}");
    spilo_in(&data, &["wal", "push", &path, SEGMENT]).exits(1).says("cannot be reached");
    let service = Service::start(outer.path());
    spilo_in(&data, &["wal", "fetch", SEGMENT, "pg_wal/RECOVERYXLOG"]).exits(1).says_nothing();
    spilo_in(&data, &["wal", "push", &path, SEGMENT]).exits(0).says_nothing();
    fetch(&data, "../store", SEGMENT).exits(0);
    fs::remove_file(data.join("pg_wal/RECOVERYXLOG")).unwrap();
    // pg_rewind runs it elsewhere.
    let wanted = data.join("pg_wal/RECOVERYXLOG");
    spilo_in(Path::new("/"), &["wal", "fetch", SEGMENT, wanted.to_str().unwrap()]).exits(0).says_nothing();
    assert_eq!(fs::read(&wanted).unwrap(), fs::read(data.join(&path)).unwrap());
    let state: serde_json::Value = serde_json::from_str(&spilo_in(outer.path(), &["wal", "state", "--data-dir", "data"]).stdout).unwrap();
    assert_eq!((&state["last_archived"]["file"], &state["archived"]), (&SEGMENT.into(), &1.into()));
    // Killed, it leaves its socket behind, which is in nobody's way.
    drop(service);
    assert!(outer.path().join("data.archive.sock").exists());
    spilo_in(&data, &["wal", "push", &path, SEGMENT]).exits(1).says("cannot be reached");
    let _again = Service::start(outer.path());
    spilo_in(&data, &["wal", "push", &path, SEGMENT]).exits(0).says_nothing();
}

#[test]
fn a_data_directory_has_one_service_and_nobody_else_may_ask_it() {
    use std::os::unix::fs::PermissionsExt;
    let outer = data_directory();
    let _service = Service::start(outer.path());
    let mode = fs::metadata(outer.path().join("data.archive.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let second = spilo_in(outer.path(), &["wal", "serve", "--store", "store", "--cluster", "orders", "--data-dir", "data"]);
    second.exits(1).says("has a WAL service already");
    spilo_in(&outer.path().join("data"), &["wal", "fetch", SEGMENT, "pg_wal/RECOVERYXLOG"]).exits(1).says_nothing();
}
