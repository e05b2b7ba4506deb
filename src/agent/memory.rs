//! What is kept from one turn to the next. Pure: the shell tells what it saw and what came of its work, and so can a model of the world.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    action::PgSync,
    decide::circle,
    in_doubt::InDoubt,
    past::Past,
    promise::Promise,
    view::{Local, Lock, Task},
};
use crate::{
    dcs::snapshot::{Snapshot, SyncState},
    model::{Lsn, MemberName, Timeline},
    sys::clock::Moment,
};

/// Pause after a task or a start that failed.
const RETRY: Duration = Duration::from_secs(1);

/// Pause after a copy that did not fit: it has moved as many bytes as there is room, and kept the disk full for a while.
const COPY_AGAIN: Duration = Duration::from_secs(60);

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
    /// The data directory has been deleted under the running server.
    DataGone,
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
    /// Leader of a standby cluster: since when it has not been streaming from the other cluster.
    pub remote_silent_since: Option<Moment>,
    /// Leader of a standby cluster: what is here was compared with the other cluster's primary, and can follow it.
    pub fits_remote: bool,
    /// Leader of a standby cluster: why it could not be compared, or made to follow.
    pub remote_fault: Option<String>,
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
    /// A copy did not fit on the disk.
    pub no_room: Option<NoRoom>,
    /// Starts that failed, or were followed by an end within seconds, since the server last ran well.
    pub failed_starts: u32,
    /// The server last answered as a primary, and has not been seen to have ended.
    pub primary_ran: bool,
    /// That primary had logical slots that no standby takes over: their consumers lose their place when another member leads.
    pub has_slots_of_its_own: bool,
    /// A primary has ended without being asked to, and no server has answered since: when.
    pub crashed_at: Option<Moment>,
    /// After that crash it was started in place, and ended before it had answered.
    pub recovery_failed: bool,
    /// When the leader key was last given up after a crash, for a standby to take over.
    pub left_at: Option<Moment>,
    /// The synchronous standbys of the server that runs are what this agent has set and seen in force, and `sync_barrier` belongs to them.
    pub knows_barrier: bool,
    /// Commits of the server that runs are known to wait for these: whoever tells them has taken the change in.
    pub heeded: Option<PgSync>,
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
    /// No server is started before this, and no task that needs others: one of them has failed.
    pub retry_at: Option<Moment>,
    /// No other task is begun before this. Apart from the former, because a standby whose leader is dead goes on failing to find out how to
    /// follow it, and must be free to take its place at any moment.
    pub act_again_at: Option<Moment>,
    /// A server is brought up because somebody asked for it; over as soon as one answers that is not the former.
    pub bringing_up: Option<BringingUp>,
    /// Since when nobody has held the leader key.
    pub unled_since: Option<Moment>,
    /// The cluster as the DCS had it when it last knew one, as far as anybody has told.
    pub past: Past,
    /// What was remembered when this agent was started cannot be read: which file, and why.
    pub past_unreadable: Option<String>,
    /// Since when the DCS has known less than is remembered, or nothing: it has lost its content, or never had any.
    pub forgotten_since: Option<Moment>,
    /// After such a loss: who has not said yet what it remembers, and may know more than those who have.
    pub unheard: BTreeSet<String>,
    /// Until when nobody else can have led, as this member last proved.
    pub led_until: Option<Moment>,
    /// The number that was reserved for the promotion to come.
    pub reserved_timeline: Option<Timeline>,
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
}

/// A copy did not fit on the disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoRoom {
    /// What there was and what can be done.
    pub why: String,
    /// Bytes that were free for it.
    pub free: u64,
    /// No other copy is begun before this, unless there is clearly more room.
    pub until: Moment,
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
    /// What is here can follow the primary of the other cluster.
    FitsRemote,
    /// A copy of the other cluster's primary is ready to be started as its standby.
    CopiedRemote,
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
        self.look_at_remote(look);
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
            (self.crashed_at, self.recovery_failed) = (None, false);
        }
        // One that does not answer is what it was.
        if !matches!(local, Local::Silent { .. }) {
            self.primary_ran = matches!(local, Local::Primary(_));
        }
        if let Local::Primary(facts) = local {
            self.has_slots_of_its_own = facts.logical_slots.values().any(|slot| !slot.failover);
        }
        match local {
            Local::Standby(facts) if facts.streaming => {
                self.failed_rejoins = 0;
                self.no_room = None;
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

    /// A member that leads and has a standby streams from another cluster, or is about to be promoted.
    fn look_at_remote(&mut self, look: &Look<'_>) {
        let (streams, silent) = match (look.local, look.lock) {
            (Local::Standby(facts), Lock::Mine { .. }) => (facts.streaming, !facts.streaming),
            _ => (false, false),
        };
        self.remote_silent_since = silent.then(|| self.remote_silent_since.unwrap_or(look.now));
        if streams || matches!(look.lock, Lock::Other(_)) {
            self.remote_fault = None;
        }
        // Behind somebody else, or as a primary, it may come by what the other cluster does not have.
        if matches!(look.lock, Lock::Other(_)) || matches!(look.local, Local::Primary(_)) {
            self.fits_remote = false;
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
        self.heeded = None;
    }

    /// Every process of the server heeds these.
    pub fn names_are_heeded(&mut self, names: &PgSync) {
        self.heeded = Some(names.clone());
    }

    /// There is no server any more, or another one: what the last one heeded says nothing.
    pub fn server_ended(&mut self) {
        self.heeded = None;
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
                *self = Memory {
                    copied: true,
                    wal_gone: false,
                    diverged: false,
                    failed_starts: 0,
                    failed_copies: 0,
                    no_room: None,
                    ..std::mem::take(self)
                };
                self.ready_behind = Some(leader);
                self.bringing_up.get_or_insert_default();
            }
            (_, TaskEnd::FitsRemote) => {
                self.fits_remote = true;
                self.diverged = false;
                self.remote_fault = None;
                match kind {
                    Task::Rejoin => drop(self.bringing_up.get_or_insert_default()),
                    // Nothing is wrong, and it does not stream: looking again at once would find the same.
                    _ => self.retry_at = Some(now + RETRY),
                }
            }
            (_, TaskEnd::CopiedRemote) => {
                *self =
                    Memory { copied: true, wal_gone: false, diverged: false, failed_starts: 0, failed_copies: 0, ..std::mem::take(self) };
                self.fits_remote = true;
                self.remote_fault = None;
                self.bringing_up.get_or_insert_default();
            }
            (_, TaskEnd::MayPromote) => self.pre_promote_passed = true,
            (_, TaskEnd::MustNotPromote { back_off }) => self.stays_back_until = Some(now + back_off),
            (_, TaskEnd::Diverged) => {
                self.diverged = true;
                // It was found fit, and has shown that it is not.
                self.ready_behind = None;
                self.fits_remote = false;
            }
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
        *if kind.needs_others() { &mut self.retry_at } else { &mut self.act_again_at } = Some(now + RETRY);
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

    /// A copy did not fit on the disk.
    pub fn copy_did_not_fit(&mut self, why: String, free: u64, now: Moment) {
        self.no_room = Some(NoRoom { why, free, until: now + COPY_AGAIN });
    }

    /// Why no copy is begun now, if it is for want of room.
    pub fn waits_for_room(&self, now: Moment) -> Option<&str> {
        self.no_room.as_ref().filter(|no_room| now < no_room.until).map(|no_room| no_room.why.as_str())
    }

    /// The server is stopped by this agent or its guard, so it is this agent's to start again, in a paused cluster too.
    pub fn stopped_by_us(&mut self, before: Option<String>) {
        self.bringing_up.get_or_insert(BringingUp { before, patience: None });
    }

    /// The server has ended, and nobody had asked it to.
    pub fn server_crashed(&mut self, now: Moment) {
        if std::mem::take(&mut self.primary_ran) {
            self.crashed_at = Some(now);
        }
    }

    /// After the crash of a primary the leader key is about to be given up, for a standby to take over.
    pub fn leaves_to_successor(&mut self, now: Moment) {
        self.left_at = Some(now);
    }

    /// After its crash this member has left the lead to others, or may have: the request to the DCS may be on its way still.
    pub fn has_left(&self) -> bool {
        self.crashed_at.is_some_and(|crashed| self.left_at.is_some_and(|left| left >= crashed))
    }

    /// The server could not be started, or ended a moment after; the next attempt comes a little later. `answered`: it had begun to work, so
    /// that the first time there is nothing to wait for.
    pub fn start_failed(&mut self, answered: bool, now: Moment) {
        self.failed_starts = self.failed_starts.saturating_add(1);
        self.ready_behind = None;
        self.recovery_failed = self.crashed_at.is_some() && !answered;
        if answered {
            // Parameters and libraries were fine.
            self.looked_into = self.failed_starts;
        }
        // What fails again and again is tried less often.
        let pauses = self.failed_starts.saturating_sub(1).clamp(u32::from(!answered), SLOWEST);
        self.retry_at = Some(now + RETRY * pauses);
    }

    /// What failed before is tried again without a wait: somebody asks for it.
    pub fn try_at_once(&mut self) {
        (self.retry_at, self.act_again_at) = (None, None);
    }

    /// Takes in how much room there is on the disk. Having been full, it has to be more than not quite full.
    pub fn room_is(&mut self, free: u64) {
        let was_full = self.disk_full;
        self.disk_full = free < if was_full { ROOM_AGAIN } else { DISK_FULL };
        if was_full && !self.disk_full {
            self.trouble_is_over();
        }
        if let Some(no_room) = self.no_room.as_mut().filter(|no_room| free > no_room.free.saturating_mul(2).max(ROOM_AGAIN)) {
            no_room.until = Moment(0);
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
        if let Some(no_room) = &self.no_room {
            return Some(no_room.why.clone());
        }
        if self.disk_full {
            return Some("disk full".to_owned());
        }
        if let Some(why) = &self.no_watchdog {
            return Some(format!("a watchdog is required, and {why}"));
        }
        self.start_fault
            .clone()
            .or_else(|| self.remote_fault.as_ref().map(|why| format!("standby cluster: {why}")))
            .or_else(|| self.trouble_with_the_past())
    }

    /// How long to sleep when nothing happens: not past `recheck`, `loop_wait`, or the moment at which what failed may be begun again.
    pub fn pause(&self, recheck: Option<Duration>, loop_wait: Duration, now: Moment) -> Duration {
        let pause = recheck.unwrap_or(loop_wait).min(loop_wait);
        let until_retry = [self.retry_at, self.act_again_at].into_iter().flatten().map(|at| at.since(now)).filter(|d| !d.is_zero());
        until_retry.fold(pause, Duration::min)
    }

    /// True while a server should not be started yet, because that or what comes before it has just failed.
    pub fn has_to_wait(&self, now: Moment) -> bool {
        self.retry_at.is_some_and(|at| now < at)
    }

    /// True while such a task should not be begun yet, because one like it has just failed.
    pub fn has_to_wait_for(&self, kind: Task, now: Moment) -> bool {
        if kind.needs_others() { self.has_to_wait(now) } else { self.act_again_at.is_some_and(|at| now < at) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment(10_000_000_000_000);

    #[test]
    fn who_cannot_find_out_how_to_follow_may_lead_at_once() {
        let mut memory = Memory::default();
        memory.task_failed(Task::CompareHistories, false, NOW);
        assert!(memory.has_to_wait_for(Task::CompareHistories, NOW) && memory.has_to_wait(NOW));
        assert!(!memory.has_to_wait_for(Task::PrePromote, NOW) && !memory.has_to_wait_for(Task::Promote, NOW));
        memory.task_failed(Task::Promote, true, NOW);
        assert!(memory.has_to_wait_for(Task::Promote, NOW), "a promotion that fails is not tried again in the same moment");
        assert!(!memory.has_to_wait_for(Task::Promote, NOW + RETRY));
        assert_eq!(memory.pause(None, Duration::from_secs(9), NOW), RETRY);
    }

    #[test]
    fn the_first_crash_soon_after_a_start_is_no_reason_to_wait() {
        let waits = |answered: bool, times: u32| {
            let mut memory = Memory::default();
            (0..times).for_each(|_| memory.start_failed(answered, NOW));
            memory.retry_at.unwrap().since(NOW).as_secs()
        };
        assert_eq!([1, 2, 3, 99].map(|times| waits(true, times)), [0, 1, 2, 10]);
        assert_eq!([1, 2, 3, 99].map(|times| waits(false, times)), [1, 1, 2, 10]);
        let mut memory = Memory::default();
        memory.start_failed(true, NOW);
        assert!(!memory.has_to_look_into_start(), "nor to look for a reason why it would not start");
        memory.start_failed(false, NOW);
        assert!(memory.has_to_look_into_start());
    }
}
