//! Recovery to targets of all kinds that chance has chosen, on three timelines, each with a tail that was given up. What is there afterwards is
//! compared with what the WAL and the client that wrote it say. A few targets are tried with all other tests; `make recovery-targets COUNT=60`
//! tries so many, SEED=n those of an earlier run, as far as a server's timing lets it.

use std::{fs, time::Duration};

use serde_json::Value;

use super::{
    lone_server::{Server, Stage},
    recovery_oracle::{Backup, Change, Goal, History, Outcome, Record, Rows, Target, What, position, records, shown},
};
use crate::support::wait_until;

/// How many targets are tried, and of one history at most.
const FEW: u64 = 8;
const OF_ONE_HISTORY: u64 = 30;

const LIMIT: Duration = Duration::from_secs(120);

/// What PostgreSQL says when it does not get to its target.
const NOT_REACHED: [&str; 2] = ["recovery ended before configured recovery target was reached", "before consistent recovery point"];

/// Nobody's WAL goes before it was looked at, nothing happens that nobody asked for, and a crash of the machine is not what this is about.
const SETTINGS: &str = "wal_keep_size = 4GB\nautovacuum = off\nfsync = off\n";

/// A server, and what its timeline has been given.
struct Scribe<'a> {
    server: Server<'a>,
    timeline: u32,
    /// Where its timeline begins.
    begin: u64,
    points: usize,
}

/// The world, and what is known of it.
struct Trial<'a> {
    stage: &'a Stage,
    chance: fastrand::Rng,
    history: History,
    restored: usize,
}

fn rows_of(server: &Server) -> Rows {
    let told = server.sql("select coalesce(string_agg(id || ' ' || value, ',' order by id), '') from rows");
    let row = |text: &str| text.split_once(' ').map(|(id, value)| (id.parse().unwrap(), value.parse().unwrap()));
    told.split(',').filter_map(row).collect()
}

impl<'a> Trial<'a> {
    fn begin(stage: &'a Stage, seed: u64) -> (Trial<'a>, Scribe<'a>) {
        let server = stage.create_with("first", 1, SETTINGS);
        let begin = position(&server.sql("select pg_current_wal_insert_lsn()"));
        server.sql("create table rows (id int primary key, value int)");
        let trial = Trial { stage, chance: fastrand::Rng::with_seed(seed), history: History::default(), restored: 0 };
        (trial, Scribe { server, timeline: 1, begin, points: 0 })
    }

    /// Transactions one after the other, some of which are rolled back or write more WAL than they have to, and restore points.
    fn write(&mut self, scribe: &mut Scribe, count: usize) {
        let (mut script, mut changes) = (String::new(), Vec::new());
        for _ in 0..count {
            if self.chance.u8(0..7) == 0 {
                scribe.points += 1;
                script += &format!("select pg_create_restore_point('point {}');", scribe.points);
                continue;
            }
            let (id, value, commits) = (self.chance.u32(0..30), self.chance.u32(..1_000_000), self.chance.u8(0..8) > 0);
            let (change, sql) = if self.chance.u8(0..4) > 0 {
                let sql = format!("insert into rows values ({id}, {value}) on conflict (id) do update set value = {value}");
                (Change::Put { id, value }, sql)
            } else {
                (Change::Remove { id }, format!("delete from rows where id = {id}"))
            };
            let filling = if self.chance.u8(0..6) == 0 { self.chance.u32(..400_000) } else { 0 };
            let filling = format!("select pg_logical_emit_message(true, '', repeat('x', {filling}))");
            let end = if commits { "commit" } else { "rollback" };
            script += &format!("begin; {sql}; {filling}; select 'xid ' || pg_current_xact_id(); {end};");
            changes.push((change, commits));
        }
        let told = scribe.server.sql(&script);
        let xids: Vec<u32> = told.lines().filter_map(|line| line.strip_prefix("xid ")?.parse().ok()).collect();
        assert_eq!(xids.len(), changes.len(), "{told}");
        let committed = xids.into_iter().zip(changes).filter(|(_, (_, commits))| *commits);
        self.history.changes.extend(committed.map(|(xid, (change, _))| ((scribe.timeline, xid), change)));
    }

    /// A backup while somebody writes.
    fn back_up(&mut self, scribe: &mut Scribe) {
        let mut taken = scribe.server.begin_to_back_up(&[]);
        while taken.try_wait().unwrap().is_none() {
            self.write(scribe, 3);
        }
        let output = crate::support::run::Run::of(&taken.wait_with_output().unwrap()).exits(0).stdout;
        let told: Value = serde_json::from_str(&output).unwrap();
        let text = |key: &str| told[key].as_str().unwrap();
        self.history.backups.push(Backup {
            id: text("id").to_owned(),
            timeline: scribe.timeline,
            start: position(text("startLsn")),
            stop: position(text("stopLsn")),
            finished: text("finished").parse().unwrap(),
        });
    }

    /// Archives all of it, and reads what is in it.
    fn learn(&mut self, scribe: &Scribe) {
        let end = scribe.server.sql("select pg_switch_wal()");
        scribe.server.archive_all();
        let (wal, timeline, begin) = (scribe.server.data.join("pg_wal"), scribe.timeline.to_string(), shown(scribe.begin));
        let words = ["-p", wal.to_str().unwrap(), "-t", &timeline, "-s", &begin, "-e", &end];
        let told = self.stage.try_run("pg_waldump", &words);
        let found = records(scribe.timeline, &told.stdout);
        let ended = |xid: u32, what: &What| matches!(what, What::End { xid: ended, commit: true, .. } if *ended == xid);
        for (_, xid) in self.history.changes.keys().filter(|(timeline, _)| *timeline == scribe.timeline) {
            assert!(found.iter().any(|record| ended(*xid, &record.what)), "the WAL has no commit of {xid}: {}", told.stderr);
        }
        self.history.records.insert(scribe.timeline, found);
    }

    /// A server that goes back to a moment of the newest timeline and begins another one there.
    fn fork(&mut self, name: &str) -> Scribe<'a> {
        let goal = loop {
            let goal = self.goal();
            if goal.timeline.is_none() && goal.target != Target::End && matches!(self.history.outcome(&goal), Outcome::Opens(_)) {
                break goal;
            }
        };
        let (parent, timeline) = (self.history.newest_timeline(), self.history.newest_timeline() + 1);
        let options = goal.options(&self.history);
        eprintln!("timeline {timeline}: {}", options.join(" "));
        let mut words: Vec<&str> = options.iter().map(String::as_str).collect();
        words.push("--keep-archiving");
        self.stage.restore(name, &words).exits(0);
        let server = self.stage.recovered(name);
        assert_eq!(Outcome::Opens(rows_of(&server)), self.history.outcome(&goal), "{goal:?}");
        let history = fs::read_to_string(server.data.join(format!("pg_wal/{timeline:08X}.history"))).unwrap();
        let last = history.lines().rfind(|line| !line.trim().is_empty()).unwrap();
        let begin = position(last.split('\t').nth(1).unwrap());
        self.history.forks.insert(timeline, (parent, begin));
        let points = self.history.path(timeline).iter().filter(|record| matches!(record.what, What::Point(_))).count();
        Scribe { server, timeline, begin, points }
    }

    /// Somewhere to go to, mostly a place that can be reached.
    fn goal(&mut self) -> Goal {
        loop {
            let goal = self.any_goal();
            if matches!(self.history.outcome(&goal), Outcome::Opens(_)) || self.chance.u8(0..8) == 0 {
                return goal;
            }
        }
    }

    fn any_goal(&mut self) -> Goal {
        let newest = self.history.newest_timeline();
        let timeline = self.chance.bool().then(|| self.chance.u32(1..=newest));
        let path = self.history.path(timeline.unwrap_or(newest));
        let backup = (self.chance.u8(0..4) == 0).then(|| self.chance.usize(..self.history.backups.len()));
        let record = path[self.chance.usize(..path.len())];
        let ends: Vec<&Record> = path.iter().filter(|record| matches!(record.what, What::End { .. })).copied().collect();
        let What::End { xid, time, .. } = ends[self.chance.usize(..ends.len())].what else { unreachable!("only ends were chosen") };
        let points: Vec<&String> =
            path.iter().filter_map(|record| if let What::Point(name) = &record.what { Some(name) } else { None }).collect();
        let target = match self.chance.u8(0..12) {
            0 => Target::End,
            1 => Target::Immediate,
            2..=4 => Target::Lsn((record.begin + self.chance.u64(0..3) * self.chance.u64(..64)).saturating_sub(self.chance.u64(..2))),
            5..=6 => Target::Xid(xid),
            7..=9 => Target::Time(time + Duration::from_micros(self.chance.u64(..3)) - Duration::from_micros(self.chance.u64(..3))),
            _ => points.get(self.chance.usize(..points.len().max(1))).map_or(Target::End, |name| Target::Point((*name).clone())),
        };
        let can_exclude = matches!(target, Target::Lsn(_) | Target::Xid(_) | Target::Time(_));
        Goal { target, exclusive: can_exclude && self.chance.bool(), timeline, backup }
    }

    /// Goes there, and looks around.
    fn try_goal(&mut self, goal: &Goal) {
        self.restored += 1;
        let (name, expected) = (format!("target{}", self.restored), self.history.outcome(goal));
        let options = goal.options(&self.history);
        let told = match &expected {
            Outcome::Opens(rows) => format!("{} rows", rows.len()),
            Outcome::Refused(why) => (*why).to_owned(),
        };
        eprintln!("{name}: {} ({told})", if options.is_empty() { "the end".to_owned() } else { options.join(" ") });
        let words: Vec<&str> = options.iter().map(String::as_str).collect();
        let run = self.stage.restore(&name, &words);
        match expected {
            Outcome::Opens(rows) => {
                run.exits(0);
                let server = self.stage.recovered(&name);
                assert_eq!(rows_of(&server), rows, "{goal:?}");
            }
            Outcome::Refused(_) if run.code == 6 => assert!(!self.stage.path(&name).exists(), "{}", run.stderr),
            Outcome::Refused(why) => {
                run.exits(0);
                self.never_opens(&name, why);
            }
        }
        let _ = fs::remove_dir_all(self.stage.path(&name));
    }

    fn never_opens(&self, name: &str, why: &str) {
        let server = self.stage.server(name);
        // It may be read from when it is consistent on, and fail later.
        server.try_start();
        let log = || fs::read_to_string(server.log()).unwrap_or_default();
        wait_until(why, LIMIT, || {
            assert!(server.try_sql("select pg_is_in_recovery()").ok().is_none_or(|told| told == "t"), "it has opened: {why}");
            NOT_REACHED.iter().any(|sentence| log().contains(sentence))
        });
        wait_until("it has ended", LIMIT, || !server.data.join("postmaster.pid").exists());
    }
}

/// Three timelines, each of which goes on for a while after the next one has left it.
fn live<'a>(stage: &'a Stage, seed: u64) -> Trial<'a> {
    let (mut trial, mut first) = Trial::begin(stage, seed);
    trial.write(&mut first, 15);
    trial.back_up(&mut first);
    trial.write(&mut first, 40);
    trial.learn(&first);
    let mut second = trial.fork("second");
    trial.write(&mut first, 10);
    trial.back_up(&mut first);
    trial.write(&mut first, 10);
    trial.learn(&first);
    trial.write(&mut second, 20);
    trial.back_up(&mut second);
    trial.write(&mut second, 30);
    trial.learn(&second);
    let mut third = trial.fork("third");
    trial.write(&mut second, 20);
    trial.learn(&second);
    trial.write(&mut third, 20);
    trial.back_up(&mut third);
    trial.write(&mut third, 30);
    trial.learn(&third);
    trial
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|error| panic!("{name}='{text}': {error}")))
}

#[test]
fn recovery_to_any_target_on_three_timelines_has_the_rows_that_were_there() {
    let count = number("SPILO_TARGETS").unwrap_or(FEW);
    let mut seed = number("SPILO_TARGETS_SEED").unwrap_or_else(|| fastrand::u64(..));
    let mut tried = 0;
    while tried < count {
        eprintln!("SPILO_TARGETS_SEED={seed}");
        let Some(stage) = Stage::new() else { return };
        let mut trial = live(&stage, seed);
        for _ in 0..(count - tried).min(OF_ONE_HISTORY) {
            let goal = trial.goal();
            trial.try_goal(&goal);
            tried += 1;
        }
        seed = seed.wrapping_add(1);
    }
    eprintln!("{tried} targets");
}
