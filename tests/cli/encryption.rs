//! `--store-key`: what is archived with a key is for nobody else, and nothing is archived without one by mistake.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use crate::{run::Run, spilo::spilo_in};

const SYSTEM: u64 = 7_300_000_000_000_000_001;
const SEGMENT: &str = "000000010000000000000005";
const SECRET: &[u8] = b"the salary of Ann is 4711";

/// A data directory with one segment of a megabyte, a store beside it, and a key.
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
    content[100..100 + SECRET.len()].copy_from_slice(SECRET);
    fs::write(outer.path().join("data/pg_wal").join(SEGMENT), content).expect("a directory of our own");
    outer
}

fn key(outer: &Path, name: &str) -> String {
    spilo_in(outer, &["backup", "key", "new", name]).exits(0).stdout.trim().to_owned()
}

/// `wal push` or `wal fetch` in the data directory, with these options.
fn wal(outer: &Path, verb: &str, options: &[&str]) -> Run {
    let file = format!("pg_wal/{SEGMENT}");
    let what = if verb == "push" { [file.as_str(), SEGMENT] } else { [SEGMENT, "pg_wal/RECOVERYXLOG"] };
    let patience: &[&str] = if verb == "push" { &[] } else { &["--patience", "0"] };
    let fixed = [&["wal", verb][..], patience, &["--store", "../store", "--cluster", "orders"]].concat();
    spilo_in(&outer.join("data"), &[&fixed, options, &what].concat())
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a directory of our own").map(|entry| entry.expect("a directory of our own").path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn a_key_is_for_its_owner_alone_and_never_overwritten() {
    let outer = tempfile::tempdir().unwrap();
    let id = key(outer.path(), "orders.key");
    let text = fs::read_to_string(outer.path().join("orders.key")).unwrap();
    assert!(id.len() == 16 && text.contains(&id), "{id}: {text}");
    assert_eq!(fs::metadata(outer.path().join("orders.key")).unwrap().permissions().mode() & 0o777, 0o600);
    let again = spilo_in(outer.path(), &["backup", "key", "new", "orders.key"]).exits(1).says("there already");
    assert!(!again.stderr.contains(text.trim().rsplit(':').next().unwrap()), "{}", again.stderr);
    assert_eq!(fs::read_to_string(outer.path().join("orders.key")).unwrap(), text);
}

#[test]
fn wal_that_is_archived_with_a_key_comes_back_with_it_and_not_otherwise() {
    let outer = data_directory();
    let (here, with_key) = (outer.path(), ["--store-key", "../orders.key"]);
    let (id, other) = (key(here, "orders.key"), key(here, "other.key"));
    wal(here, "fetch", &with_key).exits(1);
    assert!(!here.join("store/orders").exists(), "who only reads begins no archive");
    wal(here, "push", &with_key).exits(0);
    wal(here, "push", &with_key).exits(0);
    wal(here, "fetch", &with_key).exits(0);
    assert_eq!(fs::read(here.join("data/pg_wal/RECOVERYXLOG")).unwrap(), fs::read(here.join("data/pg_wal").join(SEGMENT)).unwrap());
    for file in files(&here.join("store/orders")) {
        let content = fs::read(&file).unwrap();
        assert!(!content.windows(SECRET.len()).any(|part| part == SECRET), "{}", file.display());
        assert!(content.starts_with(b"spiloE1\n") || file.ends_with("key/00000001"), "{}", file.display());
    }
    // A recovery must not take a key that is missing for the end of the WAL.
    wal(here, "fetch", &[]).exits(126).says(&format!("encrypted with the key '{id}'")).says("--store-key");
    wal(here, "push", &[]).exits(1).says(&format!("encrypted with the key '{id}'"));
    let wrong = wal(here, "fetch", &["--store-key", "../other.key"]).exits(126).says(&id).says(&other);
    assert_eq!(wrong.stderr.lines().filter(|line| line.starts_with("error")).count(), 1, "{}", wrong.stderr);
    wal(here, "push", &["--store-key", "../missing.key"]).exits(1).says("missing.key").says("cannot be read");
    let store = ["--store", "store", "--cluster", "orders", "--system", "7300000000000000001"];
    spilo_in(here, &[&["wal", "check"], &store[..], &["--store-key", "orders.key"]].concat()).exits(0);
}

#[test]
fn an_archive_that_was_begun_without_a_key_is_not_encrypted_from_its_middle_on() {
    let outer = data_directory();
    let here = outer.path();
    key(here, "orders.key");
    wal(here, "push", &[]).exits(0);
    let before = files(&here.join("store"));
    for verb in ["push", "fetch"] {
        wal(here, verb, &["--store-key", "../orders.key"]).exits(if verb == "push" { 1 } else { 126 }).says("is not encrypted");
    }
    spilo_in(here, &["wal", "init", "--store", "store", "--store-key", "orders.key", "--cluster", "orders"])
        .exits(1)
        .says("is not encrypted");
    assert_eq!(files(&here.join("store")), before);
    wal(here, "fetch", &[]).exits(0);
}

#[test]
fn an_archive_is_begun_with_its_key_and_a_namesake_with_another_is_refused() {
    let outer = data_directory();
    let here = outer.path();
    let (id, other) = (key(here, "orders.key"), key(here, "other.key"));
    let init = |options: &[&str]| spilo_in(here, &[&["wal", "init", "--store", "store"], options].concat());
    init(&["--store-key", "orders.key"]).exits(2).says("--cluster");
    for _ in 0..2 {
        init(&["--store-key", "orders.key", "--cluster", "orders"]).exits(0);
    }
    init(&["--store-key", "other.key", "--cluster", "orders"]).exits(1).says(&id).says(&other);
    init(&["--cluster", "orders"]).exits(1).says(&id);
    init(&["--store-key", "other.key", "--cluster", "invoices"]).exits(0);
    wal(here, "push", &["--store-key", "../orders.key"]).exits(0);
}
