//! What must hold at every moment, and what must come true once the faults are over.

use std::collections::BTreeMap;

use spilo::{
    agent::{action::PgSync, decide::is_safe},
    model::{Lsn, SystemId},
};

use crate::{
    dcs_model::Key,
    wal::{BranchId, Place},
    world::{Id, Nanos, World},
};

/// A promise that can be broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// A commit that was acknowledged under synchronous replication is missing on a later primary.
    AcknowledgedCommitLost,
    /// A server acknowledges a commit that its successor does not have.
    AcknowledgedBesideSuccessor,
    /// Two servers accept writes at the same time.
    TwoWriters,
    /// A server was promoted although its member did not hold the leader key.
    PromotedWithoutLease,
    /// Two histories carry the same number.
    TimelineChosenTwice,
    /// A standby streams from a server whose history is another one.
    StreamsAnotherHistory,
    /// initdb beside data of the cluster.
    InitialisedBesideData,
    /// Data was removed that nothing good has replaced, or the only data that held acknowledged commits.
    LastCopyRemoved,
    /// Without synchronous replication somebody took over who was further behind than `maximum_lag_on_failover` allows.
    LaggardLeads,
    /// Some set of standbys may acknowledge, and another that does not meet it may elect.
    QuorumsDoNotMeet,
    /// pg_rewind from a server whose control file names an older timeline than it writes.
    RewoundFromStaleControl,
    /// A directory that a rewind had left half-changed was started.
    StartedHalfRewound,
    /// One standby counts for two.
    CountedTwice,
    /// A crashed primary was left to others while it might have acknowledged something, or something that was acknowledged might be lost.
    LeftUnsafely,
    /// After everything was healed, nobody acknowledges writes, or somebody does not stream.
    DoesNotHeal,
    /// The leader changed although nothing was wrong.
    NeedlessChange,
}

/// A promise that was broken.
#[derive(Debug, Clone)]
pub struct Violation {
    pub class: Class,
    pub text: String,
    pub at: Nanos,
}

/// What the checks remember.
#[derive(Default)]
pub struct Promises {
    pub violation: Option<Violation>,
    /// Which directory writes a branch.
    pub writers: BTreeMap<BranchId, u64>,
    timelines: BTreeMap<(SystemId, u32), BranchId>,
    /// Who began to write, in this order.
    reigns: Vec<(Id, BranchId)>,
    /// Something happened that only quorum commit survives: a guard that did not run.
    pub unguarded: bool,
    pub acknowledged: u64,
    pub last_ack: Option<(Nanos, Id)>,
    pub role_changes: u64,
}

impl World {
    /// A promise is broken; the first one counts.
    pub fn broken(&mut self, class: Class, text: String) {
        self.note(|_| format!("!!!!!! {class:?}: {text}"));
        if self.promises.violation.is_none() {
            self.promises.violation = Some(Violation { class, text, at: self.now });
        }
    }

    fn name(&self, id: Id) -> String {
        self.members[id].name.to_string()
    }

    /// A server is about to accept writes.
    pub fn check_writer(&mut self, id: Id) {
        let other = (0..self.members.len()).find(|o| *o != id && self.members[*o].server.as_ref().is_some_and(|s| s.writes() && !s.frozen));
        if let Some(other) = other.filter(|_| !self.promises.unguarded) {
            let text = format!("{} begins to write while {} does", self.name(id), self.name(other));
            self.broken(Class::TwoWriters, text);
        }
        if self.dcs.has_given_the_key_to(self.members[id].name.as_str(), self.now) {
            self.reigns(id);
        } else if !self.promises.unguarded {
            // Who starts up without the key is about to be stopped: nobody's successor. A promotion that was frozen with its machine ends
            // before anybody can stop it; what counts then is that it acknowledges nothing.
            self.check_complete(id);
        }
    }

    /// A primary has the leader key: it leads from now on, if it has not before.
    fn reigns(&mut self, id: Id) {
        let reign = (id, self.data(id).branch);
        if self.promises.reigns.last() == Some(&reign) {
            return;
        }
        self.check_complete(id);
        self.promises.role_changes += u64::from(self.promises.reigns.last().is_none_or(|(last, _)| *last != id));
        self.promises.reigns.push(reign);
    }

    fn check_complete(&mut self, id: Id) {
        let place = self.data(id).place();
        if let Some(lost) = self.wal.missing(place) {
            let text = format!("{} is primary at {place:?} without {lost:?}", self.name(id));
            self.broken(Class::AcknowledgedCommitLost, text);
        }
    }

    /// A server was promoted.
    pub fn check_promotion(&mut self, id: Id, branch: BranchId) {
        let (system, timeline) = (self.wal.branches[branch].system, self.wal.branches[branch].timeline);
        self.counters.event("promotion");
        if let Some(first) = self.promises.timelines.insert((system, timeline.0), branch) {
            let text = format!("{} chose timeline {timeline}, which is branch {first} already", self.name(id));
            self.broken(Class::TimelineChosenTwice, text);
        }
        let leader = self.dcs.leader().map(str::to_owned);
        if !self.dcs.has_given_the_key_to(self.members[id].name.as_str(), self.now) && !self.promises.unguarded {
            let text = format!("{} was promoted while the leader is {leader:?}", self.name(id));
            self.broken(Class::PromotedWithoutLease, text);
        }
    }

    /// The leader key is about to be given to a member.
    pub fn check_claim(&mut self, holder: &str) {
        let Some(id) = (0..self.members.len()).find(|m| self.members[*m].name.as_str() == holder) else { return };
        let snapshot = self.dcs.snapshot();
        let standby = self.members[id].server.as_ref().is_some_and(|s| !s.primary);
        let unlimited = snapshot.sync.is_active() || snapshot.status.final_lsn.is_some() || snapshot.leader.is_some();
        let behind = snapshot.status.optime.ahead_of(self.members[id].disk.data.as_ref().map_or(Lsn(0), |d| d.end));
        if standby && !unlimited && behind > self.settings().maximum_lag_on_failover {
            let text = format!("{holder} takes over {behind} bytes behind the last leader");
            self.broken(Class::LaggardLeads, text);
        }
    }

    /// A commit is acknowledged to a client; `confirmed`: after as many standbys as this server waits for have said that they have it.
    pub fn acknowledged(&mut self, id: Id, end: Lsn, confirmed: bool) {
        let place = Place { branch: self.data(id).branch, lsn: end };
        self.promises.acknowledged += 1;
        self.mix(end.0);
        self.promises.last_ack = Some((self.now, id));
        let wanted = self.dcs.config().is_none_or(|config| config["synchronous_mode"] != "off");
        let sync = self.dcs.sync();
        // Also an old primary that nobody could stop: the standbys that confirm must be able to tell.
        let promised = wanted && (sync.leader.as_deref() == Some(self.members[id].name.as_str()) || confirmed && sync.is_active());
        if let Some((successor, branch)) = self.promises.reigns.last().copied()
            && !self.wal.contains(Place { branch, lsn: Lsn(u64::MAX) }, place)
            && (promised || !self.promises.unguarded)
        {
            let text = format!("{} acknowledges {place:?}, which {} does not have", self.name(id), self.name(successor));
            self.broken(Class::AcknowledgedBesideSuccessor, text);
        }
        if promised {
            let known = self.wal.promised.entry(place.branch).or_default();
            *known = (*known).max(end);
        }
    }

    /// The user no longer wants synchronous replication: what was acknowledged may be lost from now on.
    pub fn forgive(&mut self) {
        self.wal.promised.clear();
    }

    /// A standby is about to stream.
    pub fn check_stream(&mut self, id: Id, upstream: Id, mine: Place, theirs: Place) {
        if !self.wal.contains(theirs, mine) {
            let text = format!("{} at {mine:?} streams from {} at {theirs:?}", self.name(id), self.name(upstream));
            self.broken(Class::StreamsAnotherHistory, text);
        }
    }

    /// initdb is about to run.
    pub fn check_initdb(&mut self, id: Id) {
        let holds = |m: &crate::world::Member| m.host_up && m.agent.alive && m.disk.data.is_some() && !m.disk.unrecorded;
        let there = (0..self.members.len()).find(|o| holds(&self.members[*o]) && self.connected(*o, *o));
        if let Some(other) = there {
            let text = format!("{} runs initdb while {} has data", self.name(id), self.name(other));
            self.broken(Class::InitialisedBesideData, text);
        }
    }

    /// After a crash the leader key is about to be given up.
    pub fn check_leaving(&mut self, id: Id) {
        self.counters.event("left after a crash");
        let me = self.members[id].name.as_str();
        if self.dcs.leader() != Some(me) {
            return;
        }
        let elected = self.dcs.sync().leader.as_deref() == Some(me) && !self.dcs.sync().voters.is_empty();
        if self.members[id].server.is_some() {
            let text = format!("{} leaves the lead while its server runs", self.name(id));
            self.broken(Class::LeftUnsafely, text);
        } else if !elected && !self.settings().primary_start_timeout.is_zero() {
            let text = format!("{} leaves the lead although nobody votes", self.name(id));
            self.broken(Class::LeftUnsafely, text);
        }
    }

    /// A server is about to start.
    pub fn check_start(&mut self, id: Id) {
        if self.members[id].disk.data.as_ref().is_some_and(|d| d.damaged) {
            let text = format!("{} starts half-rewound data", self.name(id));
            self.broken(Class::StartedHalfRewound, text);
        }
    }

    /// A directory is about to go that nothing has replaced: nobody's data may be in it.
    pub fn check_removal(&mut self, id: Id) {
        if !self.members[id].disk.unrecorded {
            let text = format!("{} removes its data before anything replaces them", self.name(id));
            self.broken(Class::LastCopyRemoved, text);
        }
    }

    /// The directory that a copy replaced is about to go.
    pub fn check_drop(&mut self, id: Id) {
        let Some(old) = self.members[id].disk.old.as_ref().map(|d| d.place()) else { return };
        let leads = self.members[id].server.as_ref().is_some_and(|s| s.writes());
        if !leads && self.members[id].disk.data.as_ref().is_some_and(|d| !d.streamed) {
            let text = format!("{} removes its former data for a copy that has never streamed", self.name(id));
            self.broken(Class::LastCopyRemoved, text);
        }
        let held =
            |w: &World, promise: Place| w.members.iter().filter_map(|m| m.disk.data.as_ref()).any(|d| w.wal.contains(d.place(), promise));
        let promises: Vec<Place> = self.wal.promised.iter().map(|(b, l)| Place { branch: *b, lsn: *l }).collect();
        if let Some(lost) = promises.into_iter().find(|p| self.wal.contains(old, *p) && !held(self, *p)) {
            let text = format!("{} removes the last copy of {lost:?}", self.name(id));
            self.broken(Class::LastCopyRemoved, text);
        }
    }

    /// Each set that may acknowledge meets each set that may elect, by what every process of the leader's server has read.
    pub fn check_quorums(&mut self, id: Id) {
        let sync = self.dcs.sync();
        let me = self.members[id].name.as_str();
        if sync.leader.as_deref() != Some(me) || self.dcs.leader() != Some(me) {
            return;
        }
        let Some(server) = self.members[id].server.as_ref().filter(|s| s.writes()) else { return };
        let own = |s: &&crate::replication::Sender| s.streaming && s.sync.names.contains(self.members[s.standby].name.as_str());
        let alone = server.sync.names.is_empty().then(PgSync::default);
        let read: Vec<PgSync> = alone.into_iter().chain(server.senders.iter().filter(own).map(|s| s.sync.clone())).collect();
        if let Some(bad) = read.into_iter().find(|pg| !is_safe(pg, &sync.voters, sync.quorum)) {
            let text = format!("{me} may acknowledge by '{}', voters are {:?} with quorum {}", bad.render(), sync.voters, sync.quorum);
            self.broken(Class::QuorumsDoNotMeet, text);
        }
    }

    /// Commits are let go: by different standbys.
    pub fn check_distinct(&mut self, id: Id) {
        let Some(server) = &self.members[id].server else { return };
        let mut standbys: Vec<Id> = server.senders.iter().filter(|s| s.streaming).map(|s| s.standby).collect();
        standbys.sort_unstable();
        let all = standbys.len();
        standbys.dedup();
        if standbys.len() < all && self.schedule.slots {
            let text = format!("{} hears twice of one standby", self.name(id));
            self.broken(Class::CountedTwice, text);
        }
    }

    /// pg_rewind begins to change the directory.
    pub fn check_rewind(&mut self, source: Id) {
        let (control, timeline) = (self.data(source).control.checkpoint_timeline, self.timeline(source));
        let primary = self.members[source].server.as_ref().is_some_and(|s| s.primary);
        if primary && control != timeline {
            let text = format!("rewound from {}: its control file has timeline {control}, it writes {timeline}", self.name(source));
            self.broken(Class::RewoundFromStaleControl, text);
        }
    }

    /// Something was written into the store.
    pub fn stored(&mut self, key: &Key) {
        let holder = (0..self.members.len()).find(|m| self.dcs.leader() == Some(self.members[*m].name.as_str()));
        if let Some(leader) = holder.filter(|m| self.members[*m].server.as_ref().is_some_and(|s| s.writes())) {
            self.reigns(leader);
        }
        if matches!(key, Key::Sync | Key::Leader) {
            for id in 0..self.members.len() {
                self.check_quorums(id);
            }
        }
    }

    /// What keeps the cluster from being well; `None`: one primary acknowledges, everybody streams from it, on one history.
    pub fn complaint(&self, since: Nanos) -> Option<String> {
        let writers: Vec<Id> = (0..self.members.len()).filter(|m| self.members[*m].server.as_ref().is_some_and(|s| s.writes())).collect();
        let [primary] = writers[..] else { return Some(format!("{} servers accept writes", writers.len())) };
        if self.dcs.leader() != Some(self.members[primary].name.as_str()) {
            return Some(format!("{} accepts writes, the leader is {:?}", self.name(primary), self.dcs.leader()));
        }
        let server = self.members[primary].server.as_ref()?;
        for id in (0..self.members.len()).filter(|m| *m != primary) {
            if !server.senders.iter().any(|s| s.standby == id && s.streaming) {
                return Some(format!("{} does not stream", self.name(id)));
            }
            let Some(data) = &self.members[id].disk.data else { return Some(format!("{} has no data", self.name(id))) };
            if self.wal.branches[data.branch].system != self.wal.branches[self.data(primary).branch].system {
                return Some(format!("{} is of another system", self.name(id)));
            }
        }
        match self.promises.last_ack {
            Some((at, who)) if who == primary && at > since => {}
            _ => return Some(format!("{} acknowledges nothing", self.name(primary))),
        }
        let sync = self.dcs.sync();
        let wanted = self.settings().synchronous_mode != spilo::spec::settings::SyncMode::Off;
        (wanted && sync.voters.is_empty()).then(|| "nobody may succeed the leader".to_owned())
    }
}
