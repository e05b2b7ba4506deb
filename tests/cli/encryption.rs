//! `--store-key`: what is archived with a key is for nobody else, and nothing is archived without one by mistake.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use crate::{
    kms::{self, KmsDouble, Refusal},
    run::Run,
    spilo::{spilo_in, spilo_reads},
};

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

#[test]
fn an_archive_gets_a_second_key_and_loses_its_first() {
    let outer = data_directory();
    let here = outer.path();
    let (old, new) = (key(here, "old.key"), key(here, "new.key"));
    let command = |verb: &[&str], more: &[&str]| {
        spilo_in(here, &[&["backup", "key"], verb, &["--store", "store", "--cluster", "orders"], more].concat())
    };
    let (with_old, with_new) = (["--store-key", "old.key"], ["--store-key", "new.key"]);
    command(&["list"], &[]).exits(0).says("has no keys");
    command(&["add"], &[&with_old[..], &["new.key"]].concat()).exits(4).says("no key of its own");
    wal(here, "push", &["--store-key", "../old.key"]).exits(0);
    command(&["add"], &[&with_new[..], &["new.key"]].concat()).exits(1).says(&old).says(&new);
    command(&["add"], &["new.key"]).exits(1).says("--store-key");
    command(&["add"], &[&with_old[..], &["missing.key"]].concat()).exits(2).says("missing.key");
    command(&["add"], &[&with_old[..], &["new.key"]].concat()).exits(0).says("too").prints(&new);
    command(&["add"], &[&with_old[..], &["new.key"]].concat()).exits(0).says("already");
    let listed = command(&["list", "-o", "json"], &with_new).exits(0).stdout;
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let keys = listed["keys"].as_array().unwrap();
    assert_eq!(keys.iter().map(|key| key["id"].as_str().unwrap()).collect::<Vec<_>>(), [&old, &new]);
    assert_eq!(keys.iter().map(|key| key["configured"].as_bool().unwrap()).collect::<Vec<_>>(), [false, true]);
    assert_eq!((keys[1]["number"].as_u64(), listed["kind"].as_str()), (Some(2), Some("BackupKeyList")));

    let confirmed = ["--confirm", &old];
    command(&["remove", &old], &with_new).exits(6).says("needs a confirmation").says(&format!("{old} --confirm {old}"));
    command(&["remove", &old], &[&with_new[..], &["--confirm", &new]].concat()).exits(6).says("nothing was removed");
    command(&["remove", &old], &[&with_old[..], &confirmed].concat()).exits(6).says("is configured");
    command(&["remove", "00"], &[&with_new[..], &["--confirm", "00"]].concat()).exits(4).says(&old).says(&new);
    command(&["remove", &old], &[&with_new[..], &confirmed].concat()).exits(0).says("does not open").prints(&old);
    command(&["remove", &old], &[&with_new[..], &confirmed].concat()).exits(0);
    let table = command(&["list"], &with_new).exits(0).prints("configured").stdout;
    assert!(table.contains(&new) && !table.contains(&old), "{table}");
    wal(here, "fetch", &["--store-key", "../new.key"]).exits(0);
    assert_eq!(fs::read(here.join("data/pg_wal/RECOVERYXLOG")).unwrap(), fs::read(here.join("data/pg_wal").join(SEGMENT)).unwrap());
    wal(here, "fetch", &["--store-key", "../old.key"]).exits(126).says(&old).says(&new);
    wal(here, "push", &["--store-key", "../old.key"]).exits(1).says(&old).says(&new);
    command(&["list", "--system", "7300000000000000001"], &[]).exits(2).says("--system");
}

/// What is given on standard input, as a node gets it, and what a cluster that is not there says.
#[test]
fn a_key_that_is_added_comes_from_a_file_or_from_standard_input() {
    let outer = data_directory();
    let here = outer.path();
    key(here, "old.key");
    let new = key(here, "new.key");
    wal(here, "push", &["--store-key", "../old.key"]).exits(0);
    let place = ["backup", "key", "add", "--store", "store", "--cluster", "orders", "--store-key", "old.key", "-"];
    let text = fs::read_to_string(here.join("new.key")).unwrap();
    spilo_reads(here, &text[..text.len() / 2], &place).exits(2).says("standard input");
    spilo_reads(here, &text, &place).exits(0).prints(&new);
    wal(here, "fetch", &["--store-key", "../new.key"]).exits(0);
    // A cluster is named before the file.
    spilo_in(here, &["backup", "key", "add", "orders", "new.key"]).exits(1).says("Docker");
    spilo_in(here, &["backup", "key", "remove", "orders", &new, "--confirm", &new]).exits(1).says("Docker");
    spilo_in(here, &["backup", "key", "list", "orders"]).exits(1).says("Docker");
    spilo_in(here, &["backup", "key", "add", "new.key"]).exits(2);
}

#[test]
fn wal_is_archived_and_comes_back_with_a_key_in_kms() {
    let (outer, kms) = (data_directory(), KmsDouble::start());
    let here = outer.path();
    let arn = kms.new_key("1234abcd-12ab-34cd-56ef-1234567890ab");
    let alias = kms.new_alias("backups", &arn);
    let (endpoint, credentials) = (kms.endpoint(), kms.credentials_file().display().to_string());
    let new = |file: &str, arn: &str| {
        let words = ["backup", "key", "new", file, "--kms", arn, "--kms-endpoint", &endpoint, "--store-credentials", &credentials];
        spilo_in(here, &words)
    };
    new("kms.key", "alias/backups").exits(2).says("expected arn:aws:kms");
    kms.refuse("Encrypt", Refusal::denied(), 1);
    new("kms.key", &alias).exits(1).says("allow kms:Encrypt on");
    kms.refuse("Decrypt", Refusal::denied(), 1);
    new("kms.key", &alias).exits(1).says("allow kms:Decrypt on");
    assert!(!here.join("kms.key").exists(), "nothing is written that is of no use");
    let made = new("kms.key", &alias).exits(0).prints(&arn);
    assert!(!made.stderr.contains("keep a copy"), "it is no secret: {}", made.stderr);
    new("kms.key", &alias).exits(1).says("there already");

    let with_kms = ["--store-key", "../kms.key", "--store-credentials", &credentials];
    wal(here, "push", &with_kms).exits(0);
    wal(here, "fetch", &with_kms).exits(0);
    assert_eq!(fs::read(here.join("data/pg_wal/RECOVERYXLOG")).unwrap(), fs::read(here.join("data/pg_wal").join(SEGMENT)).unwrap());
    for file in files(&here.join("store/orders")) {
        let content = fs::read(&file).unwrap();
        assert!(!content.windows(SECRET.len()).any(|part| part == SECRET), "{}", file.display());
        assert!(content.starts_with(b"spiloE1\n") || file.ends_with("key/00000001"), "{}", file.display());
    }
    wal(here, "push", &[]).exits(1).says(&arn).says("--store-key");
    // No log shows what KMS is asked and answers.
    let words = ["wal", "fetch", "-vvv", "--patience", "0", "--store", "../store", "--cluster", "orders"];
    let loud = spilo_in(&here.join("data"), &[&words[..], &with_kms, &[SEGMENT, "pg_wal/RECOVERYXLOG"]].concat()).exits(0).stderr;
    for secret in kms.secrets() {
        let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &secret);
        assert!(!loud.contains(&encoded) && !loud.contains(&hex::encode(&secret)), "{loud}");
    }
    assert!(loud.contains("TRACE") && !loud.contains(kms::SECRET), "{loud}");

    // A key in a file instead: then the one in KMS is of no use any more, and none of the archive is lost with it.
    let id = key(here, "file.key");
    let place = ["--store", "store", "--cluster", "orders"];
    let with_kms = ["--store-key", "kms.key", "--store-credentials", &credentials];
    spilo_in(here, &[&["backup", "key", "add"], &place[..], &with_kms, &["file.key"]].concat()).exits(0);
    let removal = ["backup", "key", "remove", &arn, "--confirm", &arn, "--store-key", "file.key"];
    spilo_in(here, &[&removal[..], &place].concat()).exits(0);
    wal(here, "fetch", &["--store-key", "../file.key"]).exits(0);
    let refused = wal(here, "fetch", &["--store-key", "../kms.key", "--store-credentials", &credentials]).exits(126);
    refused.says(&id).says(&arn);
    spilo_in(
        here,
        &[&["backup", "key", "add"], &place[..], &["--store-key", "file.key", "--store-credentials", &credentials, "kms.key"]].concat(),
    )
    .exits(0);
    wal(here, "fetch", &["--store-key", "../kms.key", "--store-credentials", &credentials]).exits(0);
}

#[test]
fn while_kms_is_away_wal_is_kept_back_and_no_recovery_takes_it_for_the_end() {
    let (outer, kms) = (data_directory(), KmsDouble::start());
    let here = outer.path();
    let arn = kms.new_key("1234abcd");
    fs::write(here.join("kms.key"), format!("spilo-kms-1:{arn} endpoint={}\n", kms.endpoint())).unwrap();
    let credentials = kms.credentials_file().display().to_string();
    let with_kms = ["--store-key", "../kms.key", "--store-credentials", &credentials];
    wal(here, "push", &with_kms).exits(0);
    fs::remove_dir_all(here.join("store/orders/wal")).unwrap();
    kms.close();
    wal(here, "push", &with_kms).exits(1).says(&arn).says("KMS is not available");
    wal(here, "fetch", &with_kms).exits(126).says("KMS is not available");
    assert!(!here.join("store/orders/wal").exists(), "nothing was written without the key");
    kms.open();
    wal(here, "push", &with_kms).exits(0);
    kms.disable(&arn);
    wal(here, "fetch", &with_kms).exits(126).says("DisabledException").says("enable-key");
}
