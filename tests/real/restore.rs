//! Backups of real servers, restored: what comes up is what was there.

use std::{fs, path::PathBuf, process::Child, time::Duration};

use serde_json::Value;

use super::{
    lone_server::{CLUSTER, Server, Stage},
    s3::{Fault, Refusal, Rule, S3Double, Verb},
};

/// All rows of a table in one word.
const DIGEST: &str = "select md5(string_agg(t::text, ',' order by aid)) from pgbench_accounts t";

/// Some clients that write until they are told to stop.
struct Load(Child);

impl Load {
    fn begin(stage: &Stage, server: &Server) -> Load {
        let place = server.place();
        let program = super::machine::bin_dir().unwrap().join("pgbench");
        let mut command = std::process::Command::new(program);
        command.args(place).args(["-U", "postgres", "-c", "2", "-T", "600", "-n", "postgres"]).current_dir(stage.path(""));
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        Load(super::machine::as_other_user(&mut command).spawn().unwrap())
    }

    fn end(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn pgbench(stage: &Stage, server: &Server, scale: &str) {
    let place = server.place();
    let place = place.iter().map(String::as_str);
    let args: Vec<&str> = place.chain(["-U", "postgres", "-i", "-q", "-s", scale, "postgres"]).collect();
    stage.run("pgbench", &args);
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Every object of the store below this part of a name.
fn objects(stage: &Stage, part: &str) -> Vec<PathBuf> {
    fn walk(folder: &std::path::Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { walk(&path, found) } else { found.push(path) }
        }
    }
    let mut found = Vec::new();
    walk(&stage.path("store").join(CLUSTER), &mut found);
    found.retain(|path| path.display().to_string().contains(part));
    found.sort();
    found
}

#[test]
fn a_backup_made_under_load_comes_up_with_every_row_and_what_is_right_of_it_is_kept() {
    let Some(stage) = Stage::new() else { return };
    let server = stage.create("source");
    pgbench(&stage, &server, "10");
    // Nobody changes it any more, not even by reading it.
    server.sql("create table still as select i, repeat('x', 100) as text from generate_series(1, 200000) i");
    server.sql("vacuum (freeze) still");
    let still: u64 = server.sql("select pg_relation_size('still')").parse().unwrap();
    let load = Load::begin(&stage, &server);
    server.back_up();
    load.end();
    let expected = server.sql(DIGEST);
    server.archive_all();
    let told = json(&stage.restore("copy", &[]).exits(0).stdout);
    let verified = stage.try_run("pg_verifybackup", &["-n", &stage.path("copy").display().to_string()]);
    assert_eq!(verified.code, 0, "{}{}", verified.stdout, verified.stderr);
    assert_eq!(told["kept"], 0);
    let copy = stage.recovered("copy");
    assert_eq!(copy.sql(DIGEST), expected);
    assert_eq!(copy.sql("show archive_mode"), "off", "its WAL has no place in the archive of its parent");
    let place = copy.place();
    let place: Vec<&str> = place.iter().map(String::as_str).collect();
    stage.run("pg_amcheck", &[&place[..], &["-U", "postgres", "--install-missing", "postgres"]].concat());
    copy.sql("update pgbench_accounts set abalance = abalance + 1000000 where aid % 20 = 0 and aid < 300000");
    copy.sql("create table junk as select generate_series(1, 100000)");
    copy.stop();
    stage.run("pg_checksums", &["--check", "-D", &copy.data.display().to_string()]);
    stage.restore("copy", &[]).exits(6).says("not empty").says("--delta");
    let told = json(&stage.restore("copy", &["--delta"]).exits(0).stdout);
    assert!(told["kept"].as_u64().unwrap() >= still, "{still} bytes have not changed: {told}");
    let verified = stage.try_run("pg_verifybackup", &["-n", &copy.data.display().to_string()]);
    assert_eq!(verified.code, 0, "{}{}", verified.stdout, verified.stderr);
    let copy = stage.recovered("copy");
    assert_eq!(copy.sql(DIGEST), expected);
    assert!(copy.try_sql("select from junk").is_err());
}

#[test]
fn what_is_interrupted_damaged_or_missing_never_starts_and_is_named() {
    let Some(stage) = Stage::new() else { return };
    let server = stage.create("source");
    let location = stage.make_dir("space").display().to_string();
    server.sql(&format!("create tablespace apart location '{location}'"));
    pgbench(&stage, &server, "4");
    server.sql("alter table pgbench_accounts set tablespace apart");
    let oid = server.sql("select oid from pg_tablespace where spcname = 'apart'");
    server.back_up();
    let expected = server.sql(DIGEST);
    server.archive_all();
    stage.restore("copy", &[]).exits(6).says(&location).says("--tablespace");
    assert!(!stage.path("copy").exists(), "nothing was written");
    let moved = format!("{oid}={}", stage.path("moved").display());
    let options = ["--tablespace", &moved];

    let pack = objects(&stage, "/pack/").pop().unwrap();
    let whole = fs::read(&pack).unwrap();
    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0x10;
    fs::write(&pack, &damaged).unwrap();
    let object = pack.display().to_string();
    let object = object.split("/store/").nth(1).unwrap();
    stage.restore("copy", &options).exits(1).says(object).says("damaged");
    let copy = stage.server("copy");
    assert_ne!(copy.try_start().code, 0, "half a directory does not start");
    fs::write(&pack, &whole).unwrap();

    let mut whole = false;
    for pause in [30, 60, 120, 200, 300, 450, 700] {
        let mut child = stage.begin_restore("copy", &[&options[..], &["--threads", "1", "--memory", "16M"]].concat());
        std::thread::sleep(Duration::from_millis(pause));
        child.kill().unwrap();
        let done = child.wait().unwrap().success();
        let unfinished = copy.data.join("restore.in_progress").exists();
        // It comes when everything else is in its place, and then the mark goes.
        whole = copy.data.join("global/pg_control").exists();
        assert!(unfinished || whole, "after {pause} ms");
        if whole {
            break;
        }
        assert!(!done, "after {pause} ms");
        assert_ne!(copy.try_start().code, 0, "after {pause} ms");
    }
    if copy.data.join("restore.in_progress").exists() {
        let told = json(&stage.restore("copy", &options).exits(0).stdout);
        assert!(told["kept"].as_u64().unwrap() > 0, "{told}");
        assert!(!whole || told["fetched"].as_u64().unwrap() < 1 << 20, "there was a control file, and not everything else: {told}");
    }
    let copy = stage.recovered("copy");
    assert_eq!(copy.sql(DIGEST), expected);
    assert_eq!(copy.sql(&format!("select pg_tablespace_location({oid})")), stage.path("moved").display().to_string());
    copy.sql("create table more (i int) tablespace apart");
}

#[test]
fn wal_that_is_missing_is_found_before_anything_is_written() {
    let Some(stage) = Stage::new() else { return };
    let server = stage.create("source");
    server.back_up();
    for number in 0..3 {
        server.sql(&format!("create table t{number} as select generate_series(1, 1000) as i"));
        server.archive_all();
    }
    let check = |code| stage.spilo(&[&["wal", "check", "--cluster", CLUSTER], &stage.store()[..]].concat()).exits(code);
    check(0);
    let objects = objects(&stage, "/wal/");
    let segments: Vec<&PathBuf> = objects.iter().filter(|path| !path.display().to_string().contains(".backup")).collect();
    let [.., missing, _] = segments.as_slice() else { panic!("too few segments: {segments:?}") };
    let name = missing.file_stem().unwrap().to_str().unwrap();
    fs::remove_file(missing).unwrap();
    check(21).prints(name);
    stage.restore("copy", &[]).exits(6).says(name);
    assert!(!stage.path("copy").exists());
    stage.restore("copy", &["--immediate"]).exits(0);
    let copy = stage.recovered("copy");
    assert!(copy.try_sql("select from t0").is_err(), "the backup ended before");
}

/// What was true right after a transaction.
struct Step {
    id: u32,
    xid: String,
    lsn: String,
    time: String,
}

/// Writes one row in a transaction of its own, and names the moment after it.
fn step(server: &Server, id: u32) -> Step {
    let xid = server.sql(&format!("insert into steps values ({id}) returning pg_current_xact_id()"));
    let after = server.sql(
        "select pg_current_wal_insert_lsn() || '|' || to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')",
    );
    server.sql(&format!("select pg_create_restore_point('after {id}')"));
    let (lsn, time) = after.split_once('|').unwrap();
    std::thread::sleep(Duration::from_millis(20));
    Step { id, xid, lsn: lsn.to_owned(), time: time.to_owned() }
}

/// A server with the same data, which is promoted while the first one goes on by itself: it begins another timeline.
fn fork<'a>(stage: &'a Stage, server: &Server, name: &str) -> Server<'a> {
    server.stop();
    let copied = std::process::Command::new("cp").arg("-a").arg(&server.data).arg(stage.path(name)).status().unwrap();
    assert!(copied.success());
    fs::write(stage.path(name).join("standby.signal"), "").unwrap();
    let forked = stage.server(name);
    forked.start();
    forked.promote();
    server.start();
    forked
}

/// The rows of a server that was restored like this.
fn rows_after(stage: &Stage, number: usize, options: &[&str]) -> String {
    let name = format!("target{number}");
    stage.restore(&name, options).exits(0);
    let server = stage.recovered(&name);
    let rows = server.sql("select string_agg(id::text, ' ' order by id) from steps");
    drop(server);
    fs::remove_dir_all(stage.path(&name)).unwrap();
    rows
}

#[test]
fn recovery_gets_to_every_kind_of_target_across_three_timelines() {
    let Some(stage) = Stage::new() else { return };
    let first = stage.create("first");
    first.sql("create table steps (id int)");
    let early: Vec<Step> = (1..=2).map(|id| step(&first, id)).collect();
    let oldest = json(&first.back_up().stdout);
    let before: Vec<Step> = (3..=5).map(|id| step(&first, id)).collect();
    first.sql("select pg_switch_wal()");
    let second = fork(&stage, &first, "second");
    // What the old primary writes from here on is another history.
    let lost: Vec<Step> = (91..=92).map(|id| step(&first, id)).collect();
    let middle: Vec<Step> = (6..=8).map(|id| step(&second, id)).collect();
    second.back_up();
    let later: Vec<Step> = (9..=10).map(|id| step(&second, id)).collect();
    let third = fork(&stage, &second, "third");
    step(&second, 93);
    let last: Vec<Step> = (11..=12).map(|id| step(&third, id)).collect();
    [&first, &second, &third].iter().for_each(|server| server.archive_all());
    assert_eq!(third.sql("select timeline_id from pg_control_checkpoint()"), "3");
    drop((first, second, third));

    let up_to = |id: u32| (1..=id).map(|id| id.to_string()).collect::<Vec<_>>().join(" ");
    let restored_to = |step: &Step| format!("after {}", step.id);
    let name = |step: &Step| restored_to(step);
    let (kept, forked) = (&before[1], &middle[0]);
    let targets: Vec<(Vec<String>, String)> = vec![
        (vec![], up_to(12)),
        (vec!["--at".into(), last[0].time.clone()], up_to(11)),
        (vec!["--at".into(), later[0].time.clone()], up_to(9)),
        (vec!["--at".into(), forked.time.clone()], up_to(6)),
        (vec!["--at".into(), kept.time.clone()], up_to(4)),
        (vec!["--lsn".into(), middle[1].lsn.clone(), "--exclusive".into()], up_to(7)),
        (vec!["--lsn".into(), before[0].lsn.clone()], up_to(3)),
        (vec!["--xid".into(), later[1].xid.clone()], up_to(10)),
        (vec!["--xid".into(), last[1].xid.clone(), "--exclusive".into()], up_to(11)),
        (vec!["--name".into(), name(&last[0])], up_to(11)),
        (vec!["--name".into(), name(&before[2]), "--backup".into(), oldest["id"].as_str().unwrap().into()], up_to(5)),
        (vec!["--immediate".into()], up_to(8)),
        (vec!["--timeline".into(), "1".into()], format!("{} 91 92", up_to(5))),
        (vec!["--timeline".into(), "1".into(), "--at".into(), lost[0].time.clone()], format!("{} 91", up_to(5))),
        (vec!["--timeline".into(), "2".into()], format!("{} 93", up_to(10))),
        (vec!["--timeline".into(), "current".into()], format!("{} 93", up_to(10))),
    ];
    for (number, (options, expected)) in targets.iter().enumerate() {
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        assert_eq!(rows_after(&stage, number, &options), *expected, "{options:?}");
    }
    stage.restore("never", &["--at", &early[0].time]).exits(6).says("no backup leads to");
    stage.restore("never", &["--lsn", "7/0"]).exits(6).says("archived WAL ends at");
    stage.restore("never", &["--timeline", "4"]).exits(6).says("timeline 4");
    assert!(!stage.path("never").exists());
}

#[test]
fn a_bucket_that_misbehaves_delays_a_restore_and_changes_nothing() {
    let double = S3Double::start();
    let Some(stage) = Stage::with_bucket(&double) else { return };
    let server = stage.create("source");
    pgbench(&stage, &server, "3");
    server.back_up();
    let expected = server.sql(DIGEST);
    server.archive_all();
    let packs = |fault: Fault, times| double.misbehave(Rule::always(fault).on(Verb::Get).of("/pack/").times(times));
    packs(Refusal::slow_down().into(), 3);
    packs(Fault::Hangup, 2);
    packs(Fault::CutAfter(1000), 2);
    packs(Fault::Flip(5000), 2);
    double.misbehave(Rule::once(Fault::Flip(200)).on(Verb::Get).of("/manifest").after(1));
    let before = double.requests(Verb::Get);
    let told = json(&stage.restore("copy", &["--threads", "2"]).exits(0).stdout);
    assert_eq!(double.unspent(), 0, "every fault has come to pass");
    double.behave();
    let asked = double.requests(Verb::Get) - before;
    let parts = told["fetched"].as_u64().unwrap() / (4 << 20) + 1;
    assert!(asked < 4 * parts + 40, "{asked} questions for {parts} parts");
    assert_eq!(stage.recovered("copy").sql(DIGEST), expected);
}

#[test]
fn a_restored_standby_follows_its_primary() {
    let Some(stage) = Stage::new() else { return };
    let server = stage.create("source");
    server.sql("create table t as select generate_series(1, 1000) as i");
    server.back_up();
    server.sql("insert into t select generate_series(1001, 2000)");
    stage.restore("standby", &["--standby"]).exits(0);
    let data = stage.path("standby");
    let auto = fs::read_to_string(data.join("postgresql.auto.conf")).unwrap();
    assert!(!auto.contains("recovery_target") && data.join("standby.signal").exists() && !data.join("recovery.signal").exists());
    let [_, host, _, port] = server.place();
    fs::write(data.join("postgresql.auto.conf"), format!("{auto}primary_conninfo = 'host={host} port={port} user=postgres'\n")).unwrap();
    let standby = stage.server("standby");
    standby.start();
    crate::support::wait_until("it has every row", Duration::from_secs(60), || {
        standby.try_sql("select count(*) from t").is_ok_and(|count| count == "2000")
    });
    assert_eq!(standby.sql("select pg_is_in_recovery()"), "t");
    assert_eq!(server.sql("select count(*) from pg_stat_replication"), "1");
}
