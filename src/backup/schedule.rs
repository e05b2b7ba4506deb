//! What is to be done next for the backups of a cluster, and by whom. Pure: what is known and the time in, one job or a time to look again out.
//!
//! Each node asks for itself. Which of them is the first to do something follows from what all of them see; the others come after it, one
//! after the other, so that a node that does not get to it holds nothing up. That two never work at the same time is not decided here: whoever
//! begins claims the cluster's one job in the store.

use std::{collections::BTreeMap, fmt, time::Duration};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{
    BackupId,
    manifest::Header,
    verdict::{Depth, Verdicts},
};
use crate::{
    model::length_in_words,
    spec::backup_policy::{BackupPolicy, Source},
};

/// How much later than the one before it the next node begins.
const STAGGER: SignedDuration = SignedDuration::from_mins(10);

/// A replica that is further behind is none to back up: so many bytes.
const FURTHEST_BEHIND: u64 = 64 << 20;

/// After a failure the same is tried again after this, and then after twice as long each time, up to the longest.
const FIRST_PAUSE: SignedDuration = SignedDuration::from_mins(5);
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_hours(6);

/// From one look at what may go to the next.
const EXPIRE_EVERY: SignedDuration = SignedDuration::from_hours(6);

/// A restore that failed is not tried on the same backup again before.
const DRILL_AGAIN: SignedDuration = SignedDuration::from_hours(24);

/// A backup that turned out to be damaged is replaced, but not time and again in a store that damages everything.
const REPLACE_AFTER: SignedDuration = SignedDuration::from_hours(1);

/// The same has failed so often that it will not be right by itself.
const MANY: u32 = 3;

/// Without a backup that was found whole for so long something is wrong.
const UNPROVEN_FOR: SignedDuration = SignedDuration::from_hours(48);

/// Nobody looks less often than this: policy, leader and backups may have changed.
const LONGEST_WAIT: SignedDuration = SignedDuration::from_mins(5);

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Job {
    /// Take a backup of this node.
    Backup {
        /// It takes nothing over from earlier ones.
        full: bool,
    },
    /// Read this backup.
    Verify(BackupId),
    /// Restore this backup and start a server from it.
    Drill(BackupId),
    /// Remove what nobody was promised.
    Expire,
}

/// What kind of job: failures are counted for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// See [`Job::Backup`].
    Backup,
    /// See [`Job::Verify`].
    Verify,
    /// See [`Job::Drill`].
    Drill,
    /// See [`Job::Expire`].
    Expire,
}

impl Job {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Job::Backup { .. } => Kind::Backup,
            Job::Verify(_) => Kind::Verify,
            Job::Drill(_) => Kind::Drill,
            Job::Expire => Kind::Expire,
        }
    }
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Job::Backup { full: true } => f.write_str("full backup"),
            Job::Backup { full: false } => f.write_str("backup"),
            Job::Verify(id) => write!(f, "verification of {id}"),
            Job::Drill(id) => write!(f, "test restore of {id}"),
            Job::Expire => f.write_str("expiry"),
        }
    }
}

/// A complete backup, as far as the schedule depends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenBackup {
    /// Its name.
    pub id: BackupId,
    /// When it was complete.
    pub complete: Timestamp,
    /// It has taken nothing over from earlier ones.
    pub full: bool,
    /// When all of it was last read, well or not.
    pub read: Option<Timestamp>,
    /// It was read and is whole, and so was the database that it is of.
    pub proven: bool,
    /// Pages that were damaged in the database already.
    pub bad_pages: u64,
    /// Something of it is damaged or missing.
    pub broken: bool,
    /// When a server was last started from it.
    pub restored: Option<Timestamp>,
    /// When that was last tried, and failed.
    pub not_restored: Option<Timestamp>,
}

impl SeenBackup {
    /// From its header and what was found of it.
    pub fn new(header: &Header, verdicts: &Verdicts) -> SeenBackup {
        let drill = verdicts.of(Depth::Restored);
        let (read, restored) =
            (verdicts.of(Depth::Read).map(|verdict| verdict.at), drill.filter(|verdict| verdict.ok).map(|verdict| verdict.at));
        SeenBackup {
            id: header.id.clone(),
            complete: header.stop.time,
            full: header.parent.is_none(),
            read: read.max(restored),
            // As retention sees it: older ones may have those pages whole.
            proven: verdicts.proven().is_some() && header.bad_page_count == 0,
            bad_pages: header.bad_page_count,
            broken: verdicts.broken(),
            restored,
            not_restored: drill.filter(|verdict| !verdict.ok).map(|verdict| verdict.at),
        }
    }
}

/// A node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its member's name.
    pub name: String,
    /// It holds the leader key.
    pub leads: bool,
    /// It is a replica that streams.
    pub streams: bool,
    /// Bytes that it is behind the leader, where that is known.
    pub lag: Option<u64>,
}

/// Everything that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Backups, in the order in which they were complete.
    pub backups: Vec<SeenBackup>,
    /// This node's name.
    pub me: String,
    /// All nodes, this one among them.
    pub nodes: Vec<Node>,
    /// Here is room for a test restore.
    pub room: bool,
    /// When this node has last looked at what may go.
    pub expired: Option<Timestamp>,
    /// Since when this node looks.
    pub since: Timestamp,
    /// What has failed here: how often in a row, and when last.
    pub failures: BTreeMap<Kind, (u32, Timestamp)>,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Do this.
    Do(Job),
    /// Look again then.
    Wait(Timestamp),
}

/// Decides for this node.
pub fn next(seen: &Seen, policy: &BackupPolicy, now: Timestamp) -> Next {
    let candidates = [backup(seen, policy, now), verify(seen, policy), drill(seen, policy), expire(seen, policy)];
    let ready = candidates.into_iter().flatten().map(|(job, due)| (due.max(after_failures(seen, job.kind())), job));
    let mut earliest = later(now, LONGEST_WAIT);
    for (when, job) in ready {
        if when <= now {
            return Next::Do(job);
        }
        earliest = earliest.min(when);
    }
    Next::Wait(earliest)
}

/// The backup that is due, and when this node is to begin it.
fn backup(seen: &Seen, policy: &BackupPolicy, now: Timestamp) -> Option<(Job, Timestamp)> {
    let every = signed(policy.every?);
    if !seen.nodes.iter().any(|node| node.leads) {
        return None;
    }
    let turn = turn(seen, policy.from)?;
    let newest = seen.backups.last();
    let due = match newest {
        None => seen.since,
        Some(newest) if newest.broken => later(newest.complete, REPLACE_AFTER),
        Some(newest) => later(newest.complete, every),
    };
    let begin = later(due, turn);
    let last_full = seen.backups.iter().rev().find(|backup| backup.full && !backup.broken).map(|backup| backup.complete);
    let too_old = |full: Timestamp| policy.full_every.is_some_and(|length| later(full, signed(length)) <= begin.max(now));
    let full = newest.is_none_or(|newest| newest.broken) || last_full.is_none_or(too_old);
    Some((Job::Backup { full }, begin))
}

/// The backup that has waited longest for being read; those that nobody has read before all others, the newest first.
fn verify(seen: &Seen, policy: &BackupPolicy) -> Option<(Job, Timestamp)> {
    let every = signed(policy.verify_every?);
    let turn = turn(seen, Source::Replica)?;
    let unread = seen.backups.iter().rev().find(|backup| backup.read.is_none());
    let due = |backup: &SeenBackup| backup.read.map_or(backup.complete, |read| later(read, every));
    let backup = unread.or_else(|| seen.backups.iter().min_by_key(|backup| due(backup)))?;
    Some((Job::Verify(backup.id.clone()), later(due(backup), turn)))
}

/// The newest backup that is known to be whole, as far as the database was, when none was restored for long.
fn drill(seen: &Seen, policy: &BackupPolicy) -> Option<(Job, Timestamp)> {
    let every = signed(policy.drill_every?);
    if !seen.room {
        return None;
    }
    let turn = turn(seen, Source::Replica)?;
    let read = |backup: &SeenBackup| backup.proven || backup.not_restored.is_some() || (backup.bad_pages > 0 && backup.read.is_some());
    let whole = |backup: &&SeenBackup| read(backup) && !backup.broken;
    let backup = seen.backups.iter().rev().find(whole)?;
    let last = seen.backups.iter().filter_map(|backup| backup.restored).max();
    let due = last.map_or(backup.complete, |last| later(last, every));
    let again = backup.not_restored.map_or(due, |failed| due.max(later(failed, DRILL_AGAIN)));
    Some((Job::Drill(backup.id.clone()), later(again, turn)))
}

/// Only the leader's node removes anything, and only when it is known what was promised.
fn expire(seen: &Seen, policy: &BackupPolicy) -> Option<(Job, Timestamp)> {
    if !policy.may_expire() {
        return None;
    }
    let me = seen.nodes.iter().find(|node| node.name == seen.me)?;
    let newest = seen.backups.last()?;
    (me.leads && newest.proven).then(|| (Job::Expire, seen.expired.map_or(seen.since, |last| later(last, EXPIRE_EVERY))))
}

/// How much later than the first of all nodes this one begins. `None`: it is not to do it.
fn turn(seen: &Seen, from: Source) -> Option<SignedDuration> {
    let mut nodes: Vec<&Node> = seen.nodes.iter().filter(|node| node.leads || fit(node)).collect();
    nodes.sort_by_key(|node| (node.leads == (from == Source::Replica), node.name.as_str()));
    let place = nodes.iter().position(|node| node.name == seen.me)?;
    i32::try_from(place).ok().map(|place| STAGGER * place)
}

/// A replica whose files are almost as new as the leader's.
fn fit(node: &Node) -> bool {
    node.streams && node.lag.is_some_and(|lag| lag <= FURTHEST_BEHIND)
}

fn after_failures(seen: &Seen, kind: Kind) -> Timestamp {
    let Some((count, last)) = seen.failures.get(&kind) else { return Timestamp::MIN };
    let pause = FIRST_PAUSE.checked_mul(1_i32.checked_shl(count.saturating_sub(1).min(20)).unwrap_or(1)).unwrap_or(LONGEST_PAUSE);
    later(*last, pause.min(LONGEST_PAUSE))
}

fn signed(length: Duration) -> SignedDuration {
    SignedDuration::try_from(length).unwrap_or(SignedDuration::MAX)
}

fn later(time: Timestamp, length: SignedDuration) -> Timestamp {
    time.checked_add(length).unwrap_or(Timestamp::MAX)
}

/// What should have happened by now and has not, or went wrong: sentences for people.
pub fn overdue(seen: &Seen, policy: &BackupPolicy, now: Timestamp) -> Vec<String> {
    let mut found: Vec<String> = policy.unreadable.iter().map(|path| format!("'{path}' cannot be read: nothing is removed")).collect();
    let led = seen.nodes.iter().any(|node| node.leads);
    if let Some(every) = policy.every.map(signed).filter(|_| led) {
        let grace = (every / 4).max(SignedDuration::from_hours(1));
        match seen.backups.last() {
            None if later(seen.since, grace) < now => found.push("no backup has been made yet".to_owned()),
            Some(newest) if later(newest.complete, every.saturating_add(grace)) < now => {
                let (age, every) = (length_in_words(now.duration_since(newest.complete)), length_in_words(every));
                found.push(format!("the last backup is {age} old, and one is due every {every}"));
            }
            _ => {}
        }
    }
    found.extend(seen.backups.iter().filter(|backup| backup.broken).map(|backup| format!("backup '{}' is damaged", backup.id)));
    if let Some(newest) = seen.backups.last().filter(|newest| newest.bad_pages > 0) {
        let (pages, id) = (newest.bad_pages, &newest.id);
        found.push(format!("{pages} damaged pages are in the database, as backup '{id}' has found it: nothing is removed"));
    }
    if policy.verify_every.is_some()
        && let Some(newest) = seen.backups.last()
        && newest.read.is_none()
        && later(newest.complete, SignedDuration::from_hours(12)) < now
    {
        found.push(format!("backup '{}' has not been verified", newest.id));
    }
    found.extend(unproven(seen, policy, now));
    if let Some((count, _)) = seen.failures.get(&Kind::Expire).filter(|(count, _)| *count >= MANY) {
        found.push(format!("old backups are not removed: that has failed {count} times"));
    }
    found.extend(restores(seen, policy, now));
    found
}

/// No backup has turned out to be whole for long, so that nothing is removed.
fn unproven(seen: &Seen, policy: &BackupPolicy, now: Timestamp) -> Option<String> {
    policy.verify_every.or(policy.drill_every)?;
    let since = seen.backups.iter().rev().take_while(|backup| !backup.proven).last()?.complete;
    (later(since, UNPROVEN_FOR) < now)
        .then(|| format!("no backup of the last {} has been found whole", length_in_words(now.duration_since(since))))
}

/// What there is to say of test restores.
fn restores(seen: &Seen, policy: &BackupPolicy, now: Timestamp) -> Option<String> {
    let restored = seen.backups.iter().filter_map(|backup| backup.restored).max();
    let failed = seen.backups.iter().filter(|backup| backup.not_restored > restored).max_by_key(|backup| backup.not_restored);
    if let Some(failed) = failed {
        return Some(format!("the test restore of backup '{}' failed", failed.id));
    }
    let every = signed(policy.drill_every?);
    let since = restored.or(seen.backups.first().map(|oldest| oldest.complete))?;
    (later(since, every.saturating_mul(2)) < now).then(|| match restored {
        Some(restored) => {
            format!(
                "the last test restore was {} ago, and one is due every {}",
                length_in_words(now.duration_since(restored)),
                length_in_words(every)
            )
        }
        None if seen.room => format!("no backup has ever been restored for a test, and one is due every {}", length_in_words(every)),
        None => {
            format!("no backup has ever been restored for a test, and one is due every {}: there is no room here", length_in_words(every))
        }
    })
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
