//! What an expiry would do. Pure: everything that was seen in, a plan out, and what forbids to carry it out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use jiff::{SignedDuration, Timestamp};

use super::{
    BackupId,
    manifest::Header,
    marks::Marks,
    retention::{self, Known, Policy, Verdict, Why},
    timeline_path::TimelinePath,
    wal_need::{self, Need},
};
use crate::model::{ObjectName, Timeline, WalFile};

/// How far this machine's clock and the store's may differ: much less than the grace.
pub const SKEW: SignedDuration = SignedDuration::from_mins(5);

/// Longer than from the first look of an expiry until its tombs are there, and than clocks differ: whoever has begun so long after a tomb's time has
/// seen it.
const MARKED_BY_THEN: SignedDuration = SignedDuration::from_hours(1);

/// What verification has found out about a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Proof {
    /// When all of it was last seen to be whole.
    pub proven: Option<Timestamp>,
    /// Something of it is damaged or missing.
    pub broken: bool,
}

/// Somebody at work on a backup that is not complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AtWork {
    /// On which.
    pub id: BackupId,
    /// Since when.
    pub begun: Timestamp,
}

/// Everything that the plan is made from.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Complete backups.
    pub backups: Vec<Header>,
    /// Objects that may be backups and cannot be read.
    pub unreadable: Vec<String>,
    /// What verification has found.
    pub proofs: BTreeMap<BackupId, Proof>,
    /// Tombs and pins.
    pub marks: Marks,
    /// Whoever is at work and has said so not long ago.
    pub at_work: Vec<AtWork>,
    /// The numbers and sizes of the packs that lie in each backup's folder, also of those without a manifest.
    pub packs: BTreeMap<BackupId, BTreeMap<u32, u64>>,
    /// The archived WAL.
    pub wal: Vec<(ObjectName, WalFile, u64)>,
    /// The way to the newest timeline that has any.
    pub newest_path: Option<TimelinePath>,
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Wish {
    /// What was promised.
    pub policy: Policy,
    /// So long a backup that is to go can still be restored from; longer than any backup or restore takes.
    pub grace: SignedDuration,
    /// More than half of the backups may go, and all that lead to the newest timeline.
    pub force: bool,
}

/// What an expiry does, in this order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Backups that stay, and why.
    pub keep: Vec<(BackupId, Why)>,
    /// Backups that are to go after the grace: they get a tomb.
    pub condemn: Vec<BackupId>,
    /// Those of them that had no manifest when they were looked at: one that has got it since is to be judged anew.
    pub unfinished: Vec<BackupId>,
    /// Backups that were to go, and stay: they lose it.
    pub reprieve: Vec<BackupId>,
    /// Backups that are to go, when it is too early.
    pub wait: Vec<BackupId>,
    /// Backups that end now.
    pub remove: Vec<BackupId>,
    /// Packs that no backup has any more.
    pub packs: Vec<(BackupId, u32)>,
    /// WAL that no backup needs any more.
    pub wal: Vec<ObjectName>,
    /// Tombs of which nothing is left.
    pub bury: Vec<BackupId>,
    /// How many bytes that frees.
    pub bytes: u64,
    /// Why none of it may be done.
    pub refusals: Vec<Refusal>,
}

/// Why nothing is removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// An object cannot be read: it may be a backup, and its packs would look as if nobody had them.
    Unreadable(String),
    /// The newest backup is not known to be whole: the older ones may be all there is.
    NewestUnproven(BackupId, Doubt),
    /// No proven backup that stays leads to this timeline, the newest one: they were taken of a server that was given up.
    TimelineUnproven(Timeline),
    /// This machine's clock and the store's differ by so much.
    ClocksDiffer(SignedDuration),
    /// The store does not say what time it is there.
    NoClock,
    /// So many of so many backups would go at once.
    TooMany(usize, usize),
}

/// Why a backup is not known to be whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// Nobody has read all of it, or it could not be restored when that was tried.
    Unverified,
    /// Something of it is damaged or missing.
    Broken,
    /// It is, but so many pages were damaged in the database already.
    BadPages(u64),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Unreadable(what) => write!(f, "{what}: it may be a backup, and what it needs is not known"),
            Refusal::NewestUnproven(id, Doubt::Unverified) => {
                write!(f, "the newest backup, '{id}', has not been verified: older ones may be all there is")
            }
            Refusal::NewestUnproven(id, Doubt::Broken) => {
                write!(f, "the newest backup, '{id}', is damaged: older ones may be all there is")
            }
            Refusal::NewestUnproven(id, Doubt::BadPages(pages)) => {
                write!(
                    f,
                    "the newest backup, '{id}', has {pages} pages that were damaged in the database already: older ones may have them whole"
                )
            }
            Refusal::TimelineUnproven(timeline) => {
                write!(f, "no verified backup that stays leads to timeline {timeline}, the newest: only those that would go may do that")
            }
            Refusal::ClocksDiffer(skew) => write!(f, "the store's clock and this machine's differ by {} s", skew.as_secs().abs()),
            Refusal::NoClock => write!(f, "the store does not say when an object was written, so its clock is not known"),
            Refusal::TooMany(gone, all) => write!(f, "{gone} of {all} backups would go at once"),
        }
    }
}

impl Refusal {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Refusal::Unreadable(_) => "a newer version of spilo may read it; otherwise look at it with 'spilo backup verify'".to_owned(),
            Refusal::NewestUnproven(id, Doubt::Unverified) => format!("spilo backup verify {id} --deep"),
            Refusal::NewestUnproven(_, Doubt::Broken) => "take another backup, with --full".to_owned(),
            Refusal::NewestUnproven(id, Doubt::BadPages(_)) => {
                format!("which pages? spilo backup show {id}; when they are repaired, take another backup")
            }
            Refusal::TimelineUnproven(_) => {
                "take a backup of the present leader, and verify it with --deep; if that timeline was given up: --force".to_owned()
            }
            Refusal::ClocksDiffer(_) => "set this machine's clock".to_owned(),
            Refusal::NoClock => "does somebody else remove objects there? run it again".to_owned(),
            Refusal::TooMany(..) => "if that is what you want: --force".to_owned(),
        }
    }
}

impl Plan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.condemn.is_empty() && self.reprieve.is_empty() && self.removes_nothing()
    }

    fn removes_nothing(&self) -> bool {
        self.remove.is_empty() && self.packs.is_empty() && self.wal.is_empty() && self.bury.is_empty()
    }
}

/// Makes the plan.
pub fn plan(seen: &Seen, wish: Wish, now: Timestamp) -> Plan {
    let known: Vec<Known> = seen.backups.iter().map(|header| known(seen, header)).collect();
    let mut plan = Plan::default();
    for (backup, verdict) in known.iter().zip(retention::judge(&known, wish.policy, now)) {
        let id = backup.id.clone();
        match verdict {
            Verdict::Keep(why) => {
                plan.reprieve.extend(backup.condemned.map(|_| id.clone()));
                plan.keep.push((id, why));
            }
            Verdict::Expire => match backup.condemned {
                None => plan.condemn.push(id),
                Some(since) if is_ripe(seen, since, wish.grace, now) => plan.remove.push(id),
                Some(_) => plan.wait.push(id),
            },
        }
    }
    plan_packs(seen, wish, now, &mut plan);
    plan_wal(seen, &known, wish.policy, now, &mut plan);
    plan.refusals = refusals(seen, &known, wish, &plan);
    plan
}

fn known(seen: &Seen, header: &Header) -> Known {
    let proof = seen.proofs.get(&header.id).copied().unwrap_or_default();
    Known {
        id: header.id.clone(),
        start: header.start.clone(),
        stop: header.stop.clone(),
        pinned: seen.marks.pins.contains(&header.id),
        proven: proof.proven,
        broken: proof.broken,
        condemned: seen.marks.tombs.get(&header.id).map(|tomb| tomb.since),
    }
}

/// Whether what has been condemned since then may go: whoever restores from it has had the grace, and no backup that is under way was begun
/// when its packs could still be taken over.
fn is_ripe(seen: &Seen, since: Timestamp, grace: SignedDuration, now: Timestamp) -> bool {
    now.duration_since(since) >= grace && seen.at_work.iter().all(|work| work.begun.duration_since(since) > MARKED_BY_THEN)
}

/// Folders without a manifest, and those that lose theirs: what no other backup has of them goes as a backup does, with a tomb before.
fn plan_packs(seen: &Seen, wish: Wish, now: Timestamp, plan: &mut Plan) {
    let ending: BTreeSet<&BackupId> = plan.remove.iter().collect();
    let staying = || seen.backups.iter().filter(|header| !ending.contains(&header.id));
    let complete: BTreeSet<&BackupId> = staying().map(|header| &header.id).collect();
    let used: BTreeSet<(&BackupId, u32)> = staying().flat_map(|header| &header.packs).map(|pack| (&pack.backup, pack.number)).collect();
    let is_at_work = |id: &BackupId| seen.at_work.iter().any(|work| work.id == *id);
    let (mut condemn, mut packs, mut bytes, mut wait) = (Vec::new(), Vec::new(), 0, Vec::new());
    for (id, present) in seen.packs.iter().filter(|(id, _)| !complete.contains(id) && !is_at_work(id)) {
        let unused: Vec<_> = present.iter().filter(|(number, _)| !used.contains(&(id, **number))).collect();
        match seen.marks.tombs.get(id) {
            _ if unused.is_empty() => {}
            None => condemn.push(id.clone()),
            Some(tomb) if is_ripe(seen, tomb.since, wish.grace, now) => {
                bytes += unused.iter().map(|(_, size)| **size).sum::<u64>();
                packs.extend(unused.into_iter().map(|(number, _)| (id.clone(), *number)));
            }
            Some(_) => wait.push(id.clone()),
        }
    }
    // A tomb whose backup and packs are gone, or all taken over by others, has nothing left to wait for.
    let left = |id: &BackupId| complete.contains(id) || wait.contains(id) || is_at_work(id);
    let bury = seen.marks.tombs.keys().filter(|id| !left(id) && !plan.reprieve.contains(id)).cloned().collect();
    plan.condemn.extend(condemn.iter().cloned());
    plan.unfinished = condemn;
    plan.wait.extend(wait);
    (plan.packs, plan.bytes, plan.bury) = (packs, bytes, bury);
}

fn plan_wal(seen: &Seen, known: &[Known], policy: Policy, now: Timestamp, plan: &mut Plan) {
    let ending: BTreeSet<&BackupId> = plan.remove.iter().collect();
    // One that stays for its pin alone is kept for its own moment, not for all that came after it.
    let unpinned: Vec<Known> = known.iter().cloned().map(|backup| Known { pinned: false, ..backup }).collect();
    let verdicts = retention::judge(&unpinned, policy, now);
    let staying = known.iter().zip(verdicts).filter(|(backup, _)| !ending.contains(&backup.id));
    let needs: Vec<Need> = staying
        .map(|(backup, verdict)| match verdict {
            Verdict::Expire if backup.pinned => Need::between(&backup.start, &backup.stop),
            _ => Need::from(&backup.start),
        })
        .collect();
    let Some(segment_size) = seen.backups.last().map(|header| u64::from(header.segment_size)) else { return };
    for (object, file, size) in &seen.wal {
        if wal_need::is_dispensable(*file, &needs, segment_size) {
            plan.wal.push(object.clone());
            plan.bytes += size;
        }
    }
}

fn refusals(seen: &Seen, known: &[Known], wish: Wish, plan: &Plan) -> Vec<Refusal> {
    if plan.is_empty() {
        return Vec::new();
    }
    let mut found: Vec<Refusal> = seen.unreadable.iter().cloned().map(Refusal::Unreadable).collect();
    let stays = |backup: &&Known| backup.condemned.is_none() || plan.reprieve.contains(&backup.id);
    let newest = known.iter().filter(stays).max_by_key(|backup| (backup.stop.time, &backup.id));
    if let Some(newest) = newest.filter(|newest| newest.proven.is_none()) {
        found.push(Refusal::NewestUnproven(newest.id.clone(), doubt(seen, newest)));
    }
    let kept = known.iter().filter(|backup| backup.proven.is_some() && plan.keep.iter().any(|(id, _)| *id == backup.id));
    if let Some(newest) = seen.newest_path.as_ref().filter(|_| !wish.force && !known.is_empty())
        && !kept.into_iter().any(|backup| newest.contains(backup.stop.timeline, backup.stop.lsn))
    {
        found.push(Refusal::TimelineUnproven(newest.timeline()));
    }
    let living = known.iter().filter(stays).count();
    let gone = plan.condemn.iter().filter(|id| known.iter().any(|backup| backup.id == **id)).count();
    if gone * 2 > living && !wish.force {
        found.push(Refusal::TooMany(gone, living));
    }
    found
}

fn doubt(seen: &Seen, backup: &Known) -> Doubt {
    let bad_pages = seen.backups.iter().find(|header| header.id == backup.id).map_or(0, |header| header.bad_page_count);
    match bad_pages {
        _ if backup.broken => Doubt::Broken,
        0 => Doubt::Unverified,
        pages => Doubt::BadPages(pages),
    }
}

#[cfg(test)]
#[path = "expire_plan_tests.rs"]
mod tests;
