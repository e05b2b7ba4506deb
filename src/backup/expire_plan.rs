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
    wal_need::{self, Need},
};
use crate::model::{ObjectName, WalFile};

/// How far this machine's clock and the store's may differ: much less than the grace.
pub const SKEW: SignedDuration = SignedDuration::from_mins(5);

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
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Wish {
    /// What was promised.
    pub policy: Policy,
    /// So long a backup that is to go can still be restored from; longer than any backup or restore takes.
    pub grace: SignedDuration,
    /// More than half of the backups may go.
    pub force: bool,
}

/// What an expiry does, in this order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Backups that stay, and why.
    pub keep: Vec<(BackupId, Why)>,
    /// Backups that are to go after the grace: they get a tomb.
    pub condemn: Vec<BackupId>,
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
    /// The newest backup has not been verified, or is broken: the older ones may be all there is.
    NewestUnproven(BackupId),
    /// This machine's clock and the store's differ by so much.
    ClocksDiffer(SignedDuration),
    /// So many of so many backups would go at once.
    TooMany(usize, usize),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Unreadable(what) => write!(f, "{what}: it may be a backup, and what it needs is not known"),
            Refusal::NewestUnproven(id) => write!(f, "the newest backup, '{id}', has not been verified: older ones may be all there is"),
            Refusal::ClocksDiffer(skew) => write!(f, "the store's clock and this machine's differ by {} s", skew.as_secs().abs()),
            Refusal::TooMany(gone, all) => write!(f, "{gone} of {all} backups would go at once"),
        }
    }
}

impl Refusal {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Refusal::Unreadable(_) => "a newer version of spilo may read it; otherwise look at it with 'spilo backup verify'".to_owned(),
            Refusal::NewestUnproven(id) => format!("spilo backup verify {id} --deep"),
            Refusal::ClocksDiffer(_) => "set this machine's clock".to_owned(),
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
    now.duration_since(since) >= grace && seen.at_work.iter().all(|work| work.begun > since)
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
    plan.condemn.extend(condemn);
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
    let newest = known.iter().filter(|backup| backup.condemned.is_none()).max_by_key(|backup| (backup.stop.time, &backup.id));
    found.extend(newest.filter(|newest| newest.proven.is_none()).map(|newest| Refusal::NewestUnproven(newest.id.clone())));
    let living = known.iter().filter(|backup| backup.condemned.is_none()).count();
    let gone = plan.condemn.iter().filter(|id| known.iter().any(|backup| backup.id == **id)).count();
    if gone * 2 > living && !wish.force {
        found.push(Refusal::TooMany(gone, living));
    }
    found
}

#[cfg(test)]
#[path = "expire_plan_tests.rs"]
mod tests;
