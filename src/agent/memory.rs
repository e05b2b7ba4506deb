//! What is kept from one turn to the next. Pure: the shell tells what it saw and what came of its work, and so can a model of the world.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    decide::circle,
    in_doubt::InDoubt,
    promise::Promise,
    view::{Local, Lock, Task},
};
use crate::{
    dcs::snapshot::{Initialize, MemberData, Snapshot, SyncState},
    model::{Lsn, MemberName, Timeline},
    sys::clock::Moment,
};

/// Pause after a task or a start that failed.
const RETRY: Duration = Duration::from_secs(1);

/// The longest pause after a start that failed, in units of [`RETRY`].
const SLOWEST: u32 = 10;

/// With fewer free bytes than this, a segment and a little, the disk is full: PostgreSQL ends when it cannot make its next segment.
const DISK_FULL: u64 = 24 << 20;

/// With more free bytes than this it is not full any more.
const ROOM_AGAIN: u64 = 64 << 20;

/// A server that ran this long was started well.
pub const SETTLED: Duration = Duration::from_secs(10);

/// What is wrong with the local server although it may still talk to us.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trouble {
    /// The postmaster takes no connections any more, for long enough to be sure.
    PostmasterHangs,
    /// The disk of the data directory takes no writes any more.
    DiskFails {
        /// How that shows.
        why: String,
    },
}

/// What has to be remembered between turns.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// What is wrong with the local server although it may still talk to us.
    pub trouble: Option<Trouble>,
    /// A watchdog device is required, and there is none that works: why.
    pub no_watchdog: Option<String>,
    /// Every process of the server has been sent SIGKILL: none of them will run again, even if the kernel still holds one back.
    pub killed: bool,
    /// Leader: since when no standby has been streaming that could confirm commits.
    pub no_standby_since: Option<Moment>,
    /// Standby: since when it has not been streaming from the leader.
    pub not_streaming_since: Option<Moment>,
    /// Standby: histories were compared, and they have parted.
    pub diverged: bool,
    /// Standby: the leader has no longer the WAL that this one needs next.
    pub wal_gone: bool,
    /// The data directory is a copy that was made since the server last answered.
    pub copied: bool,
    /// Stopped data was made fit to follow this member.
    pub ready_behind: Option<MemberName>,
    /// Copies that failed since the last one that did not.
    pub failed_copies: u32,
    /// Attempts to come back that failed since the last success.
    pub failed_rejoins: u32,
    /// Starts that failed, or were followed by an end within seconds, since the server last ran well.
    pub failed_starts: u32,
    /// The synchronous standbys of the server that runs are what this agent has set and seen in force, and `sync_barrier` belongs to them.
    pub knows_barrier: bool,
    /// Leader: after a change of the synchronous standbys, the position that the new ones have to confirm before the DCS may rely on them.
    pub sync_barrier: Option<Lsn>,
    /// The data directory is from a bootstrap of ours that was never recorded in the DCS: nobody's data is in it.
    pub unrecorded_bootstrap: bool,
    /// The claim to initialise the cluster is ours.
    pub holds_initialize: bool,
    /// Leader: the checkpoint after promotion is still to come.
    pub checkpoint_due: bool,
    /// Physical slots that belong to no present member, and since when that is known.
    pub unclaimed_slots: BTreeMap<String, Moment>,
    /// A replaced data directory is still there.
    pub has_old_data: bool,
    /// `pre_promote` has succeeded since this member took the leader key.
    pub pre_promote_passed: bool,
    /// `pre_promote` has failed: the leader key is left to others until then.
    pub stays_back_until: Option<Moment>,
    /// Nothing that failed is begun again before this.
    pub retry_at: Option<Moment>,
    /// A server is brought up because somebody asked for it; over as soon as one answers that is not the former.
    pub bringing_up: Option<BringingUp>,
    /// Since when nobody has held the leader key.
    pub unled_since: Option<Moment>,
    /// The cluster as the DCS had it when it last knew one.
    pub past: Past,
    /// The number that was reserved for the promotion to come.
    pub reserved_timeline: Option<Timeline>,
    /// The highest number that any timeline is known to have taken: a DCS that lost its content does not give it out again.
    pub highest_timeline: u32,
    /// The timeline whose history this agent has written to the DCS.
    pub history_of: Option<Timeline>,
    /// Who held the leader key when the DCS last knew somebody, since this agent was started.
    pub last_leader: Option<MemberName>,
    /// What was promised to another leader, if anything was.
    pub promise: Option<Promise>,
    /// Leader: everybody who may take its place, by the names in the DCS; `None`: anybody may, or it is not known.
    pub circle: Option<BTreeSet<String>>,
    /// Leader: until when everybody who may take its place has promised not to.
    pub confirmed_until: Option<Moment>,
    /// What the sync key may hold besides what was seen.
    pub sync_in_doubt: InDoubt<SyncState>,
    /// What the failsafe key may hold besides what was seen.
    pub failsafe_in_doubt: InDoubt<Option<BTreeMap<String, String>>>,
    /// The disk under the data directory is full, or was a moment ago.
    pub disk_full: bool,
    /// Why the server does not start, where its data are not to blame.
    pub start_fault: Option<String>,
    /// The number of failed starts for which that was looked into.
    pub looked_into: u32,
    /// Since when the DCS has known neither a configuration nor a leader: it has lost its content.
    pub forgotten_since: Option<Moment>,
}

/// What a member remembers in case the DCS forgets it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Past {
    /// The members, this one included.
    pub members: BTreeMap<MemberName, MemberData>,
    /// Who might succeed the leader.
    pub sync: SyncState,
    /// Who might where there is no synchronous replication, if that was said.
    pub failsafe: Option<BTreeMap<String, String>>,
}

/// A server is brought up because somebody asked for it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BringingUp {
    /// Start time of the server that ran before; `None`: there was none.
    pub before: Option<String>,
    /// How long it may take; `None`: as long as `primary_start_timeout`.
    pub patience: Option<Duration>,
}

/// What a look found, as far as it changes what is remembered.
#[derive(Debug, Clone, Copy)]
pub struct Look<'a> {
    /// When.
    pub now: Moment,
    /// This member.
    pub me: &'a MemberName,
    /// The cluster as the DCS has it; when it is silent, as it last was.
    pub cluster: &'a Snapshot,
    /// The DCS answered.
    pub dcs_answers: bool,
    /// Who holds the leader key.
    pub lock: &'a Lock,
    /// The local server.
    pub local: &'a Local,
    /// For how long the server has been running.
    pub server_age: Duration,
    /// The mark of a bootstrap that was never recorded lies beside the data directory.
    pub unrecorded_bootstrap: bool,
    /// A replaced data directory is still there.
    pub has_old_data: bool,
}

/// What a task leaves to the loop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskEnd {
    /// Nothing.
    Done,
    /// Data is ready to be started as a standby of this member.
    ReadyToFollow(MemberName),
    /// A copy of this member is ready to be started as its standby.
    Copied(MemberName),
    /// The leader has no longer the WAL that the standby needs next.
    WalGone,
    /// The standby has WAL that its leader does not have.
    Diverged,
    /// The user's program has nothing against a promotion.
    MayPromote,
    /// The user's program does not want this member promoted: not for so long.
    MustNotPromote {
        /// How long somebody else has the chance.
        back_off: Duration,
    },
    /// The server accepts writes from this position on.
    Promoted(Lsn),
}

impl Memory {
    /// Takes in a look.
    pub fn look(&mut self, look: &Look<'_>) {
        let now = look.now;
        self.unrecorded_bootstrap = look.unrecorded_bootstrap;
        self.has_old_data = look.has_old_data;
        self.look_at_slots(look);
        self.look_at_cluster(look);
        self.look_at_circle(look);
        self.unled_since = (*look.lock == Lock::Free).then(|| self.unled_since.unwrap_or(now));
        let no_standby = match look.local {
            Local::Primary(facts) => !facts.standbys.iter().any(|s| s.state == "streaming"),
            _ => false,
        };
        self.no_standby_since = no_standby.then(|| self.no_standby_since.unwrap_or(now));
        let not_streaming = matches!((look.local, look.lock), (Local::Standby(facts), Lock::Other(_)) if !facts.streaming);
        self.not_streaming_since = not_streaming.then(|| self.not_streaming_since.unwrap_or(now));
        if matches!(look.local, Local::Primary(_) | Local::Standby(_)) && look.server_age > SETTLED {
            self.failed_starts = 0;
        }
        if matches!(look.local, Local::Primary(_) | Local::Standby(_)) {
            self.start_fault = None;
        }
        // Whoever gets the key again asks again.
        self.pre_promote_passed &=
            matches!(look.lock, Lock::Mine { .. } | Lock::Unknown { .. }) && !matches!(look.local, Local::Primary(_));
        self.look_at_server(look.local);
    }

    fn look_at_server(&mut self, local: &Local) {
        if let Local::Primary(facts) | Local::Standby(facts) = local {
            self.bringing_up.take_if(|start| start.before.as_ref() != Some(&facts.started));
        }
        match local {
            Local::Standby(facts) if facts.streaming => {
                self.failed_rejoins = 0;
                self.copied = false;
                self.wal_gone = false;
                self.diverged = false;
                self.ready_behind = None;
                self.knows_barrier = false;
            }
            Local::Standby(_) => self.knows_barrier = false,
            _ => {}
        }
    }

    /// Keeps what the DCS knows, in case it loses it, and notices when it has.
    fn look_at_cluster(&mut self, look: &Look<'_>) {
        if !look.dcs_answers {
            return;
        }
        let cluster = look.cluster;
        self.highest_timeline = self.highest_timeline.max(cluster.timelines.reserved);
        match (&cluster.config, cluster.initialize, &cluster.leader) {
            (Some(_), Initialize::Done(_), _) => {
                self.past = Past { members: cluster.members.clone(), sync: cluster.sync.clone(), failsafe: cluster.failsafe.clone() };
                self.forgotten_since = None;
            }
            (None, _, None) => drop(self.forgotten_since.get_or_insert(look.now)),
            _ => self.forgotten_since = None,
        }
    }

    /// Keeps who may take the leader's place: once the DCS does not answer, it is too late to ask it.
    fn look_at_circle(&mut self, look: &Look<'_>) {
        if look.dcs_answers {
            self.last_leader = look.cluster.leader.clone().or_else(|| self.last_leader.take());
            self.sync_in_doubt.look(look.cluster.sync_version);
            self.failsafe_in_doubt.look(look.cluster.failsafe_version);
        }
        match look.lock {
            Lock::Mine { .. } => self.circle = circle(look.me, look.cluster, self),
            Lock::Other(_) => self.circle = None,
            Lock::Free | Lock::Unknown { .. } => {}
        }
    }

    /// Notes slots that nobody present streams through. The server is what tells, not this agent's memory of members: it may be new.
    fn look_at_slots(&mut self, look: &Look<'_>) {
        let (Local::Primary(facts) | Local::Standby(facts)) = look.local else { return };
        let claimed: BTreeSet<String> = look.cluster.members.keys().map(MemberName::slot_name).collect();
        let known = std::mem::take(&mut self.unclaimed_slots);
        let unclaimed = facts.slots.keys().filter(|slot| !claimed.contains(*slot));
        self.unclaimed_slots = unclaimed.map(|slot| (slot.clone(), known.get(slot).copied().unwrap_or(look.now))).collect();
    }

    /// Whom the server waits for is being changed: until that is known to be in force, nothing rests on it.
    pub fn names_change(&mut self) {
        self.knows_barrier = false;
    }

    /// The new synchronous standbys have to confirm this position before the DCS may rely on them.
    pub fn barrier_is(&mut self, position: Lsn) {
        self.knows_barrier = true;
        self.sync_barrier = Some(position);
    }

    /// A task has ended well.
    pub fn task_ended(&mut self, kind: Task, end: TaskEnd, now: Moment) {
        if kind == Task::Promote {
            self.reserved_timeline = None;
        }
        match (kind, end) {
            (_, TaskEnd::ReadyToFollow(leader)) => {
                self.bringing_up.get_or_insert_default();
                self.diverged = false;
                self.ready_behind = Some(leader);
            }
            (_, TaskEnd::Copied(leader)) => {
                *self =
                    Memory { copied: true, wal_gone: false, diverged: false, failed_starts: 0, failed_copies: 0, ..std::mem::take(self) };
                self.ready_behind = Some(leader);
                self.bringing_up.get_or_insert_default();
            }
            (_, TaskEnd::MayPromote) => self.pre_promote_passed = true,
            (_, TaskEnd::MustNotPromote { back_off }) => self.stays_back_until = Some(now + back_off),
            (_, TaskEnd::Diverged) => self.diverged = true,
            (_, TaskEnd::WalGone) => self.wal_gone = true,
            // Nothing is wrong, and it does not stream: looking again at once would find the same.
            (Task::CompareHistories, TaskEnd::Done) => self.retry_at = Some(now + RETRY),
            (_, TaskEnd::Promoted(position)) => {
                // The standbys that commits wait for have to have all that was here at the promotion before they may vote.
                self.barrier_is(position);
                // Nor before it is certain that commits wait for them.
                self.names_change();
                self.checkpoint_due = true;
            }
            (Task::Checkpoint, TaskEnd::Done) => self.checkpoint_due = false,
            (_, TaskEnd::Done) => {}
        }
    }

    /// A task has failed. `source_answered`: not only for want of the member that it needed.
    pub fn task_failed(&mut self, kind: Task, source_answered: bool, now: Moment) {
        self.retry_at = Some(now + RETRY);
        if kind == Task::Promote {
            // It may have begun after all: another attempt takes another number.
            self.reserved_timeline = None;
        }
        if kind == Task::Initialize {
            self.holds_initialize = false;
        }
        if kind == Task::Clone {
            self.failed_copies = self.failed_copies.saturating_add(1);
        }
        if kind == Task::Rejoin && source_answered {
            self.failed_rejoins += 1;
        }
    }

    /// The server is stopped by this agent or its guard, so it is this agent's to start again, in a paused cluster too.
    pub fn stopped_by_us(&mut self, before: Option<String>) {
        self.bringing_up.get_or_insert(BringingUp { before, patience: None });
    }

    /// The server could not be started, or ended a moment after; the next attempt comes a little later.
    pub fn start_failed(&mut self, now: Moment) {
        self.failed_starts = self.failed_starts.saturating_add(1);
        self.ready_behind = None;
        // What fails again and again is tried less often.
        self.retry_at = Some(now + RETRY * self.failed_starts.saturating_sub(1).clamp(1, SLOWEST));
    }

    /// Takes in how much room there is on the disk. Having been full, it has to be more than not quite full.
    pub fn room_is(&mut self, free: u64) {
        let was_full = self.disk_full;
        self.disk_full = free < if was_full { ROOM_AGAIN } else { DISK_FULL };
        if was_full && !self.disk_full {
            self.trouble_is_over();
        }
    }

    /// True when a failed start has not been looked into yet.
    pub fn has_to_look_into_start(&self) -> bool {
        self.failed_starts > 0 && self.looked_into != self.failed_starts
    }

    /// A failed start was looked into.
    pub fn start_looked_into(&mut self, fault: Option<String>) {
        let was_wrong = self.start_fault.is_some() && fault.is_none();
        self.looked_into = self.failed_starts;
        self.start_fault = fault;
        if was_wrong {
            self.trouble_is_over();
        }
    }

    /// Starts that failed for another reason say nothing of the data.
    fn trouble_is_over(&mut self) {
        self.failed_starts = 0;
        self.looked_into = 0;
    }

    /// What an operator has to see to, in words.
    pub fn trouble(&self) -> Option<String> {
        if self.disk_full {
            return Some("disk full".to_owned());
        }
        if let Some(why) = &self.no_watchdog {
            return Some(format!("a watchdog is required, and {why}"));
        }
        self.start_fault.clone()
    }

    /// How long to sleep when nothing happens: not past `recheck`, `loop_wait`, or the moment at which what failed may be begun again.
    pub fn pause(&self, recheck: Option<Duration>, loop_wait: Duration, now: Moment) -> Duration {
        let pause = recheck.unwrap_or(loop_wait).min(loop_wait);
        let until_retry = self.retry_at.map(|at| at.since(now)).filter(|d| !d.is_zero());
        until_retry.map_or(pause, |d| pause.min(d))
    }

    /// True while what failed should not be begun again yet.
    pub fn has_to_wait(&self, now: Moment) -> bool {
        self.retry_at.is_some_and(|at| now < at)
    }
}
