//! What a recovery has to come to: from what PostgreSQL itself says of its WAL (`pg_waldump`), and what a client knows that it has written. Pure,
//! and nothing of ours has a part in it.

use std::collections::BTreeMap;

use jiff::Timestamp;

/// What a transaction does to the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Put { id: u32, value: u32 },
    Remove { id: u32 },
}

/// A record of WAL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub timeline: u32,
    pub begin: u64,
    pub what: What,
}

/// What it means to a recovery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// The end of a transaction, well or not.
    End {
        xid: u32,
        time: Timestamp,
        commit: bool,
    },
    /// A restore point.
    Point(String),
    /// The end of the backup that began there.
    BackupEnd(u64),
    Other,
}

/// A backup as the command told it.
#[derive(Debug, Clone)]
pub struct Backup {
    pub id: String,
    pub timeline: u32,
    pub start: u64,
    pub stop: u64,
    pub finished: Timestamp,
}

/// Where a recovery is to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    End,
    Immediate,
    Lsn(u64),
    Xid(u32),
    Time(Timestamp),
    Point(String),
}

/// Everything that is said to a restore.
#[derive(Debug, Clone)]
pub struct Goal {
    pub target: Target,
    pub exclusive: bool,
    /// `None`: the newest.
    pub timeline: Option<u32>,
    /// The one of this number among all backups; `None`: the newest that leads there.
    pub backup: Option<usize>,
}

/// The rows of the table.
pub type Rows = BTreeMap<u32, u32>;

/// What comes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The server opens with these rows.
    Opens(Rows),
    /// Nothing is restored, or the server never opens.
    Refused(&'static str),
}

/// All timelines, and what was written on them.
#[derive(Debug, Default)]
pub struct History {
    pub records: BTreeMap<u32, Vec<Record>>,
    /// Where each timeline left which other one.
    pub forks: BTreeMap<u32, (u32, u64)>,
    /// By timeline and transaction.
    pub changes: BTreeMap<(u32, u32), Change>,
    /// The oldest first.
    pub backups: Vec<Backup>,
}

impl History {
    pub fn newest_timeline(&self) -> u32 {
        self.records.keys().copied().max().unwrap_or(1)
    }

    /// What a recovery along this timeline would replay, from the beginning of all.
    pub fn path(&self, timeline: u32) -> Vec<&Record> {
        let mut path = match self.forks.get(&timeline) {
            Some((parent, fork)) => self.path(*parent).into_iter().filter(|record| record.begin < *fork).collect(),
            None => Vec::new(),
        };
        path.extend(self.records.get(&timeline).into_iter().flatten());
        path
    }

    /// The backups that lie on the path.
    pub fn backups_on(&self, path: &[&Record]) -> Vec<usize> {
        (0..self.backups.len()).filter(|number| end_of(&self.backups[*number], path).is_some()).collect()
    }

    /// Which rows the server has when it has come to the target.
    pub fn outcome(&self, goal: &Goal) -> Outcome {
        let path = self.path(goal.timeline.unwrap_or_else(|| self.newest_timeline()));
        let before = |number: &usize| match &goal.target {
            Target::Time(time) => self.backups[*number].finished <= *time,
            Target::Lsn(lsn) => self.backups[*number].stop <= *lsn,
            _ => true,
        };
        let mut leading = self.backups_on(&path).into_iter().filter(before).filter(|number| goal.backup.is_none_or(|one| one == *number));
        let Some(chosen) = leading.next_back() else { return Outcome::Refused("no backup leads there") };
        let consistent = end_of(&self.backups[chosen], &path).expect("it lies on the path");
        // What of the path is replayed.
        let replayed = match &goal.target {
            Target::End => Some(path.len()),
            Target::Immediate => Some(consistent + 1),
            _ => path.iter().position(|record| goal.ends_at(record)).map(|last| if goal.ends_before() { last } else { last + 1 }),
        };
        match replayed {
            None => Outcome::Refused("the target is not on this way"),
            Some(replayed) if replayed <= consistent => Outcome::Refused("the target comes before the data are consistent"),
            Some(replayed) => Outcome::Opens(self.rows(&path[..replayed])),
        }
    }

    fn rows(&self, replayed: &[&Record]) -> Rows {
        let mut rows = Rows::new();
        for record in replayed {
            let What::End { xid, commit: true, .. } = record.what else { continue };
            match self.changes.get(&(record.timeline, xid)) {
                Some(Change::Put { id, value }) => drop(rows.insert(*id, *value)),
                Some(Change::Remove { id }) => drop(rows.remove(id)),
                None => {}
            }
        }
        rows
    }
}

impl Goal {
    /// Whether the record is the one that PostgreSQL stops before or after. A time is never stopped at: the first transaction that ended later is.
    fn ends_at(&self, record: &Record) -> bool {
        match (&self.target, &record.what) {
            (Target::Lsn(lsn), _) => record.begin >= *lsn,
            (Target::Xid(wanted), What::End { xid, .. }) => xid == wanted,
            (Target::Time(wanted), What::End { time, .. }) if self.exclusive => time >= wanted,
            (Target::Time(wanted), What::End { time, .. }) => time > wanted,
            (Target::Point(wanted), What::Point(name)) => name == wanted,
            _ => false,
        }
    }

    fn ends_before(&self) -> bool {
        self.exclusive || matches!(self.target, Target::Time(_))
    }

    /// The options of `spilo backup restore`.
    pub fn options(&self, history: &History) -> Vec<String> {
        let mut words = match &self.target {
            Target::End => vec![],
            Target::Immediate => vec!["--immediate".to_owned()],
            Target::Lsn(lsn) => vec!["--lsn".to_owned(), shown(*lsn)],
            Target::Xid(xid) => vec!["--xid".to_owned(), xid.to_string()],
            Target::Time(time) => vec!["--at".to_owned(), time.to_string()],
            Target::Point(name) => vec!["--restore-point".to_owned(), name.clone()],
        };
        words.extend(self.exclusive.then(|| "--exclusive".to_owned()));
        words.extend(self.timeline.iter().flat_map(|timeline| ["--timeline".to_owned(), timeline.to_string()]));
        words.extend(self.backup.iter().flat_map(|number| ["--backup".to_owned(), history.backups[*number].id.clone()]));
        words
    }
}

/// At which place of the path the backup ends.
fn end_of(backup: &Backup, path: &[&Record]) -> Option<usize> {
    let is_end = |record: &&Record| record.timeline == backup.timeline && record.what == What::BackupEnd(backup.start);
    path.iter().position(is_end)
}

/// A position as PostgreSQL writes it.
pub fn shown(lsn: u64) -> String {
    format!("{:X}/{:X}", lsn >> 32, lsn & 0xFFFF_FFFF)
}

/// And read again.
pub fn position(text: &str) -> u64 {
    let (high, low) = text.split_once('/').unwrap_or_else(|| panic!("'{text}' is no position"));
    let part = |text: &str| u64::from_str_radix(text, 16).unwrap_or_else(|error| panic!("'{text}': {error}"));
    part(high) << 32 | part(low)
}

/// The records of this timeline as `pg_waldump` shows them, in UTC.
pub fn records(timeline: u32, shown: &str) -> Vec<Record> {
    shown.lines().filter(|line| line.starts_with("rmgr: ")).map(|line| record(timeline, line)).collect()
}

fn record(timeline: u32, line: &str) -> Record {
    let between = |before: &str, after: &str| {
        let rest = line.split_once(before).unwrap_or_else(|| panic!("no '{before}' in '{line}'")).1;
        rest.split_once(after).map_or(rest, |(found, _)| found).trim()
    };
    let description = line.split_once("desc: ").map_or("", |(_, description)| description);
    let what = match (between("rmgr: ", " "), description.split_once(' ').unwrap_or((description, ""))) {
        ("Transaction", (word @ ("COMMIT" | "ABORT"), rest)) => {
            let time = rest.split_once(" UTC").unwrap_or_else(|| panic!("no time in '{line}'")).0;
            let time = format!("{}Z", time.replacen(' ', "T", 1)).parse().unwrap_or_else(|error| panic!("{error}: '{line}'"));
            What::End { xid: between("tx: ", ",").parse().expect("a transaction's number"), time, commit: word == "COMMIT" }
        }
        ("XLOG", ("RESTORE_POINT", name)) => What::Point(name.trim().to_owned()),
        ("XLOG", ("BACKUP_END", begin)) => What::BackupEnd(position(begin.trim())),
        _ => What::Other,
    };
    Record { timeline, begin: position(between("lsn: ", ",")), what }
}
