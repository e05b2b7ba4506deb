//! Base backups of a real server: what comes back of them, what they cost, and what they do when something is in their way.

use std::{
    fs,
    os::unix::fs::FileExt,
    process::Child,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use serde_json::Value;

use super::{
    cluster::LIMIT,
    plain_server::{Ground, PlainServer},
    unpacked::unpack,
};
use crate::support::{run::Run, wait_until};

/// Rows of about a kilobyte that do not compress, in pages that nobody changes by merely reading them.
fn fill(server: &PlainServer, table: &str, rows: u32) {
    server.execute("create extension if not exists pgcrypto");
    server.execute(&format!(
        "create table {table} as select i, 0 as balance, gen_random_bytes(950) as filler from generate_series(1, {rows}) i;
         create index on {table} (i)"
    ));
    server.execute(&format!("vacuum freeze {table}"));
    server.execute("checkpoint");
}

/// Starts a server from an unpacked backup and waits until it has replayed all that is archived and accepts writes.
fn started(ground: &Ground, name: &str, id: &str) -> PlainServer {
    unpack(ground, id, name);
    let verified = ground.postgres("pg_verifybackup", &["-q", "-n", "-e", name]);
    assert_eq!(verified.code, 0, "{}", verified.stderr);
    fs::write(ground.path().join(name).join("recovery.signal"), "").unwrap();
    super::machine::own(&ground.path().join(name).join("recovery.signal"));
    let settings = format!("archive_mode = off\nrestore_command = '{}'\nrecovery_target_action = promote\n", ground.restore_command());
    let server = ground.start(name, &settings);
    wait_until("it has recovered", LIMIT, || server.query("select pg_is_in_recovery()::text") == "false");
    server
}

fn text<'a>(report: &'a Value, key: &str) -> &'a str {
    report[key].as_str().unwrap()
}

fn number(report: &Value, key: &str) -> u64 {
    report[key].as_u64().unwrap()
}

fn ended(child: Child) -> Run {
    Run::of(&child.wait_with_output().unwrap())
}

/// Does that again and again in a thread, until it is dropped.
struct Busy(Arc<AtomicBool>, Option<thread::JoinHandle<u32>>);

impl Busy {
    fn with(mut work: impl FnMut(u32) + Send + 'static) -> Busy {
        let end = Arc::new(AtomicBool::new(false));
        let ending = end.clone();
        let thread = thread::spawn(move || {
            let mut rounds = 0;
            while !ending.load(Ordering::Relaxed) {
                work(rounds);
                rounds += 1;
            }
            rounds
        });
        Busy(end, Some(thread))
    }

    fn end(mut self) -> u32 {
        self.0.store(true, Ordering::Relaxed);
        self.1.take().unwrap().join().unwrap()
    }
}

#[test]
fn a_backup_taken_while_files_come_and_go_is_consistent() {
    let Some(ground) = Ground::prepare() else { return };
    let server = Arc::new(ground.server("primary", "full_page_writes = on\nautovacuum_naptime = 1s\n"));
    fill(&server, "accounts", 20_000);
    server
        .execute("create unlogged table cache as select * from accounts limit 100; create table log (i int); create table grows (t text)");
    let (transfers, files) = (server.clone(), server.clone());
    let transfers = Busy::with(move |round| {
        let (from, to) = (round * 7919 % 20_000 + 1, round * 104_729 % 20_000 + 1);
        let moved =
            format!("update accounts set balance = balance - 1 where i = {from}; update accounts set balance = balance + 1 where i = {to}");
        transfers.execute(&format!("begin; {moved}; insert into log values ({round}); commit"));
    });
    let files = Busy::with(move |round| {
        files.execute(&format!("create table t{round} as select generate_series(1, 3000) i; insert into grows select repeat('x', 1900) from generate_series(1, 500)"));
        match round % 4 {
            0 => files.execute(&format!("drop table t{round}")),
            1 => files.execute(&format!("truncate t{round}; checkpoint")),
            2 => {
                files.execute(&format!("delete from t{round} where i > 10"));
                files.execute(&format!("vacuum t{round}"));
            }
            _ => {
                files.execute("truncate grows");
                files.execute("vacuum full log");
            }
        }
    });
    let report = ground.taken(&server, &["--rate", "8M", "--threads", "3"]);
    let (transfers, files) = (transfers.end(), files.end());
    assert!(transfers > 100 && files > 8, "{transfers} transfers and {files} changes of files in the meantime");
    assert_eq!((number(&report, "badPageCount"), report["parent"].is_null()), (0, true));
    assert!(number(&report, "stored") < number(&report, "bytes"));
    server.execute("select pg_switch_wal()");
    let expected = server.query("select sum(balance) || ' ' || count(*) || ' ' || (select count(*) from log) from accounts");
    wait_until("the last segment is archived", LIMIT, || {
        server.query("select (last_archived_wal >= pg_walfile_name(pg_current_wal_lsn() - 16777216))::text from pg_stat_archiver") == "true"
    });
    drop(server);
    let restored = started(&ground, "restored", text(&report, "id"));
    assert_eq!(restored.query("select sum(balance) || ' ' || count(*) || ' ' || (select count(*) from log) from accounts"), expected);
    assert!(expected.starts_with("0 20000 "));
    assert_eq!(restored.query("select count(*)::text from cache"), "0", "what is unlogged is empty, and there");
    restored.execute("create extension amcheck");
    restored.execute("select bt_index_check(c.oid, true) from pg_class c where relkind = 'i' and relpersistence <> 'u'");
    assert!(ground.stored_below("lease").is_empty(), "nobody is at work any more");
}

/// Longer ago than this a file has to have been written to before a backup begins, for the next one not to read it again.
const SETTLED: Duration = Duration::from_secs(62);

#[test]
fn files_that_nobody_has_written_to_are_not_read_again_and_a_write_that_hides_itself_is_seen() {
    let Some(ground) = Ground::prepare() else { return };
    let server = ground.server("primary", "autovacuum = off\n");
    fill(&server, "accounts", 10_000);
    fill(&server, "still", 10_000);
    thread::sleep(SETTLED);
    let first = ground.taken(&server, &[]);
    let second = ground.taken(&server, &[]);
    assert_eq!((number(&first, "unread"), number(&second, "bytes")), (0, number(&first, "bytes")));
    assert!(number(&second, "unread") > 20_000_000 && number(&second, "unread") <= number(&second, "reused"), "{second}");
    // A row that is deleted changes a page in its place.
    let (_, file) = server.file_of("accounts");
    let before = fs::metadata(&file).unwrap();
    server.execute("delete from accounts where i = 77");
    server.execute("checkpoint");
    fs::File::options().write(true).open(&file).unwrap().set_modified(before.modified().unwrap()).unwrap();
    let after = fs::metadata(&file).unwrap();
    assert_eq!((after.len(), after.modified().unwrap()), (before.len(), before.modified().unwrap()));
    let third = ground.taken(&server, &[]);
    let unread = number(&third, "unread");
    assert!(unread > 10_000_000 && unread < number(&second, "unread") - before.len() / 2, "{third}");
    assert_eq!(number(&ground.taken(&server, &["--read-all"]), "unread"), 0);
    // Whoever was started again has to read everything once.
    let restarted = ground.postgres("pg_ctl", &["-D", "primary", "-l", "primary.log", "-w", "-t", "120", "restart"]);
    assert_eq!(restarted.code, 0, "{}", restarted.stderr);
    assert_eq!(number(&ground.taken(&server, &[]), "unread"), 0);
    drop(server);
    let restored = started(&ground, "restored", text(&third, "id"));
    assert_eq!(restored.query("select (select count(*) from accounts) || ' ' || (select count(*) from still)"), "9999 10000");
    assert_eq!(restored.query("select count(*)::text from accounts where i = 77"), "0");
}

#[test]
fn after_few_changes_little_is_stored_and_all_of_it_comes_back() {
    let Some(ground) = Ground::prepare() else { return };
    let server = ground.server("primary", "");
    fill(&server, "accounts", 30_000);
    let first = ground.taken(&server, &[]);
    server.execute("update accounts set balance = 7 where i = 77; checkpoint");
    let second = ground.taken(&server, &[]);
    assert_eq!(text(&second, "parent"), text(&first, "id"));
    assert!(number(&second, "stored") * 50 < number(&first, "stored"), "{first} {second}");
    assert!(number(&second, "reused") > 30_000_000);
    server.execute("update accounts set balance = 8 where i = 29000; checkpoint");
    let third = ground.taken(&server, &["--threads", "2"]);
    let full = ground.taken(&server, &["--full"]);
    assert!(full["parent"].is_null() && number(&full, "stored") * 10 > number(&first, "stored") * 9 && number(&full, "reused") == 0);
    drop(server);
    let restored = started(&ground, "restored", text(&third, "id"));
    assert_eq!(restored.query("select string_agg(balance::text, ',' order by i) from accounts where balance <> 0"), "7,8");
}

#[test]
fn a_damaged_page_is_named_and_the_backup_exists() {
    let Some(ground) = Ground::prepare() else { return };
    let server = ground.server("primary", "");
    fill(&server, "accounts", 5_000);
    let (name, path) = server.file_of("accounts");
    let before = ground.taken(&server, &[]);
    let file = fs::File::options().write(true).open(path).unwrap();
    for page in [77, 200] {
        file.write_all_at(b"this was not written by PostgreSQL", page * 8192 + 4000).unwrap();
    }
    // One that says it was written in the future is not one that WAL repairs.
    file.write_all_at(&[0xFF; 8], 300 * 8192).unwrap();
    let run = ground.take(&server, &[]).exits(20);
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(number(&report, "badPageCount"), 3);
    for page in [77, 200, 300] {
        assert!(run.stderr.contains(&format!("page {page} of '{name}' is damaged")), "{}", run.stderr);
    }
    assert_eq!(text(&report, "parent"), text(&before, "id"));
    assert_eq!(ground.stored("manifest").len(), 2);
}

#[test]
fn tablespaces_come_along() {
    let Some(ground) = Ground::prepare() else { return };
    let server = ground.server("primary", "");
    let elsewhere = ground.directory("fast disk");
    server.execute(&format!("create tablespace fast location '{}'", elsewhere.display()));
    server.execute("create table in_fast tablespace fast as select generate_series(1, 1000) as i");
    let report = ground.taken(&server, &[]);
    drop(server);
    fs::remove_dir_all(&elsewhere).unwrap();
    let restored = started(&ground, "restored", text(&report, "id"));
    assert_eq!(restored.query("select count(*)::text from in_fast"), "1000");
    let place = restored.query("select pg_tablespace_location(oid) from pg_tablespace where spcname = 'fast'");
    assert!(place.contains("restored-"), "{place}");
}

#[test]
fn a_standby_is_read_instead_of_an_idle_primary() {
    let Some(ground) = Ground::prepare() else { return };
    let server = ground.server("primary", "");
    fill(&server, "accounts", 5_000);
    let (host, port) = (ground.path().display().to_string(), server.port.to_string());
    ground
        .postgres("pg_basebackup", &["-D", "standby", "-h", &host, "-p", &port, "-U", "postgres", "-R", "-c", "fast", "-X", "stream"])
        .exits(0);
    let standby = ground.start("standby", "hot_standby = on\n");
    server.execute("create table later as select 1 as i");
    server.execute("checkpoint");
    wait_until("the standby has it", LIMIT, || standby.query("select count(*)::text from pg_class where relname = 'later'") == "1");
    let mixed = PlainServer::of(&standby, &server);
    ground.take(&mixed, &[]).exits(6).says("/primary', not in '");
    let told = ground.take(&standby, &["--timeout", "3s"]).exits(3);
    let told = told.says("the archive still lacks '0000000100000000").says("waiting for '0000000100000000");
    assert!(told.stderr.contains("when the primary has archived"), "{}", told.stderr);
    assert_eq!(ground.stored("manifest").len(), 0, "without its WAL a backup is none");
    let report = ground.taken(&standby, &["--primary-host", &host, "--primary-port", &port]);
    assert!(number(&report, "reused") > 4_000_000, "what the first attempt has stored is used: {report}");
    drop((server, standby));
    let restored = started(&ground, "restored", text(&report, "id"));
    assert_eq!(restored.query("select count(*)::text from accounts"), "5000");
}

#[test]
fn a_standby_that_is_promoted_meanwhile_gives_no_backup() {
    let Some(ground) = Ground::prepare() else { return };
    let server = ground.server("primary", "");
    fill(&server, "accounts", 20_000);
    let (host, port) = (ground.path().display().to_string(), server.port.to_string());
    ground
        .postgres("pg_basebackup", &["-D", "standby", "-h", &host, "-p", &port, "-U", "postgres", "-R", "-c", "fast", "-X", "stream"])
        .exits(0);
    let standby = ground.start("standby", "hot_standby = on\n");
    let backup = ground.begin_to_take(&standby, &["--rate", "10M"]);
    let begun = "select count(*)::text from pg_stat_activity where application_name = 'spilo backup' and query like '%pg_backup_start%' and state = 'idle'";
    wait_until("the server knows of the backup", LIMIT, || standby.query(begun) == "1");
    standby.execute("select pg_promote()");
    ended(backup).exits(1).says("promoted");
    assert_eq!(ground.stored("manifest").len(), 0);
}

#[test]
fn whenever_it_is_killed_there_is_no_backup_and_the_next_one_uses_what_was_stored() {
    let Some(ground) = Ground::prepare() else { return };
    let server = ground.server("primary", "");
    fill(&server, "accounts", 90_000);
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut used = 0;
    for round in 0..6 {
        let mut backup = ground.begin_to_take(&server, &["--rate", "60M", "--full"]);
        if round < 4 {
            let pause = random.u64(0..2_500);
            thread::sleep(Duration::from_millis(pause));
        } else {
            let packs = ground.stored_below("backup").len();
            wait_until("another pack is stored", LIMIT, || {
                ground.stored_below("backup").len() > packs || backup.try_wait().unwrap().is_some()
            });
        }
        backup.kill().unwrap();
        let killed = backup.wait().unwrap().code().is_none();
        assert!(!killed || ground.stored("manifest").len() == used, "a backup that was killed does not exist");
        used = ground.stored("manifest").len();
    }
    assert!(!ground.stored_below("backup").is_empty() && !ground.stored_below("lease").is_empty());
    let run = ground.take(&server, &[]).exits(0).says("of interrupted backups may be used");
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    assert!(number(&report, "reused") > 30_000_000, "{report}");
    ground.spilo(&["backup", "verify", "--store", "store", "--cluster", "orders", "--all", "--deep"]).exits(0);
    wait_until("the server has forgotten the dead ones", LIMIT, || {
        server.query("select count(*)::text from pg_stat_activity where application_name = 'spilo backup'") == "0"
    });
    drop(server);
    let restored = started(&ground, "restored", text(&report, "id"));
    assert_eq!(restored.query("select count(*)::text from accounts"), "90000");
}

#[test]
fn the_end_of_its_session_ends_the_backup() {
    let Some(ground) = Ground::prepare() else { return };
    let server = ground.server("primary", "");
    fill(&server, "accounts", 20_000);
    let backup = ground.begin_to_take(&server, &["--rate", "10M"]);
    let end = "select count(pg_terminate_backend(pid))::text from pg_stat_activity where application_name = 'spilo backup' and query like '%pg_backup_start%' and state = 'idle' and state_change < now() - interval '300 ms'";
    wait_until("the session is there and gone", LIMIT, || server.query(end) == "1");
    ended(backup).exits(1).says("the backup is void");
    assert_eq!(ground.stored("manifest").len(), 0);
}

#[test]
fn without_an_archive_that_works_there_is_no_backup() {
    let Some(ground) = Ground::prepare() else { return };
    let server = ground.server("primary", "");
    server.execute("alter system set archive_command = 'false'");
    server.execute("select pg_reload_conf()");
    ground.take(&server, &["--timeout", "2s"]).exits(3).says("the archive still lacks '0000000100000000").says("archive_command");
    drop(server);
    let server = ground.start("primary", "archive_mode = off\n");
    ground.take(&server, &[]).exits(6).says("archive_mode is 'off'");
    ground.take(&server, &["--memory", "10M"]).exits(6);
    assert_eq!(ground.stored("manifest").len(), 0);
}

#[test]
fn memory_stays_within_its_budget() {
    let Some(ground) = Ground::prepare() else { return };
    let server = ground.server("primary", "");
    fill(&server, "accounts", 200_000);
    let mut backup = ground.begin_to_take(&server, &["--memory", "96M", "--threads", "2"]);
    let status = format!("/proc/{}/status", backup.id());
    let mut peak = 0;
    while backup.try_wait().unwrap().is_none() {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        peak = peak.max(line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0));
        thread::sleep(Duration::from_millis(10));
    }
    let report: Value = serde_json::from_str(&ended(backup).exits(0).stdout).unwrap();
    assert!(number(&report, "bytes") > 200_000_000, "{report}");
    assert!(peak > 30_000 && peak < (96 + 64) << 10, "{peak} kB at most");
}
