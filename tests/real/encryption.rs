//! An encrypted archive of a real server: nothing of it can be seen in the store, and all of it comes back with the key.

use std::fs;

use serde_json::Value;

use super::lone_server::{CLUSTER, Stage};

/// What is in the database, its WAL, its file names and what is said of the backup.
const KNOWN: [&[u8]; 9] = [
    b"the salary of Ann",
    b"salaries_of_all",
    b"pg_control",
    b"base/",
    b"START WAL LOCATION",
    b"lone",
    b"server_version",
    b"PostgreSQL",
    b"pg_catalog",
];

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn objects(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { objects(&path) } else { vec![path] }).collect()
}

#[test]
fn an_encrypted_archive_shows_nothing_and_brings_everything_back() {
    let Some(stage) = Stage::encrypted() else { return };
    let server = stage.create("source");
    server.sql("create table salaries_of_all as select i, 'the salary of Ann is ' || i as text from generate_series(1, 200000) i");
    let first = json(&server.back_up().stdout);
    server.sql("update salaries_of_all set text = text || ' and more' where i % 1000 = 0");
    let second = json(&server.back_up().stdout);
    assert!(second["reused"].as_u64().unwrap() > 0, "the backup before was used: {second}");
    let then = server.sql("select now()");
    server.archive_all();
    server.sql("delete from salaries_of_all where i > 100000");
    server.archive_all();
    let digest = "select count(*) || md5(string_agg(t::text, ',' order by i)) from salaries_of_all t";
    let expected = server.sql(digest);

    let all = objects(&stage.path("store").join(CLUSTER));
    assert!(all.len() > 10, "{all:?}");
    for object in all.iter().filter(|object| !object.ends_with("key/00000001")) {
        let content = fs::read(object).unwrap();
        assert!(content.starts_with(b"spiloE1\n"), "{} is not encrypted", object.display());
        for known in KNOWN {
            let seen = content.windows(known.len()).any(|part| part == known);
            assert!(!seen, "'{}' can be read in {}", known.escape_ascii(), object.display());
        }
    }

    let of_store = |words: &[&str]| stage.spilo(&[words, &["--cluster", CLUSTER], &stage.store()].concat());
    assert_eq!(json(&of_store(&["-o", "json", "backup", "list"]).exits(0).stdout)["backups"].as_array().unwrap().len(), 2);
    of_store(&["backup", "verify", "--all", "--deep"]).exits(0);
    of_store(&["wal", "check"]).exits(0);
    stage.restore("copy", &[]).exits(0);
    let verified = stage.try_run("pg_verifybackup", &["-n", &stage.path("copy").display().to_string()]);
    assert_eq!(verified.code, 0, "{}{}", verified.stdout, verified.stderr);
    let copy = stage.recovered("copy");
    assert_eq!(copy.sql(digest), expected);
    copy.stop();
    let oldest = first["id"].as_str().unwrap();
    stage.restore("earlier", &["--at", &then, "--backup", oldest]).exits(0);
    assert_eq!(stage.recovered("earlier").sql("select count(*) from salaries_of_all"), "200000");
    stage.restore("copy", &["--delta"]).exits(0);
    assert_eq!(stage.recovered("copy").sql(digest), expected);

    // Without the key, with another one, and with a bit that was changed.
    let plain = [&["backup", "list", "--cluster", CLUSTER], &stage.store()[..2]].concat();
    stage.spilo(&plain).exits(1).says("is encrypted with the key").says("--store-key");
    stage.spilo(&["backup", "key", "new", "other.key"]).exits(0);
    stage.spilo(&[&plain[..], &["--store-key", "other.key"]].concat()).exits(1).says("is encrypted with the key").says("other.key");
    let pack = all.iter().find(|object| object.display().to_string().contains("/pack/")).unwrap();
    let whole = fs::read(pack).unwrap();
    let mut changed = whole.clone();
    changed[whole.len() / 2] ^= 0x10;
    fs::write(pack, changed).unwrap();
    let found = of_store(&["backup", "verify", "--all", "--deep"]).exits(21);
    let told = format!("{}{}", found.stdout, found.stderr);
    assert!(told.contains("is not what was stored") && told.contains("lost: '"), "{told}");
}
