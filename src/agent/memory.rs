//! What is kept from one turn to the next. Pure: the shell tells what it saw and what came of its work, and so can a model of the world.

mod room;
mod starts;
mod task_end;
mod waits;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::{Deserialize, Serialize};

pub use room::NoRoom;
pub use starts::{BringingUp, SETTLED};
pub use task_end::TaskEnd;

use super::{
    action::PgSync,
    decide::circle,
    in_doubt::InDoubt,
    past::Past,
    promise::Promise,
    view::{Local, Lock},
};
use crate::{
    dcs::snapshot::{Snapshot, SyncState},
    model::{Lsn, MemberName, Timeline},
    sys::clock::Moment,
};

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
    /// Attempts to begin the cluster that failed since the last success.
    pub failed_births: u32,
    /// The cluster is not begun by this member before this. Whatever else it can do it does: somebody else may begin it.
    pub begin_again_at: Option<Moment>,
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
}
