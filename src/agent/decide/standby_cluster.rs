//! A cluster that follows another one. Whoever holds the leader key streams from the other cluster's primary, the others from the key's holder;
//! nobody is promoted while the configuration has the section, and a primary that finds it there is stopped cleanly and follows.
//!
//! Elections, slots and coming back are those of any cluster, except that nothing here was acknowledged to anybody: all of it comes from the
//! other cluster.

use std::time::Duration;

use super::{
    failsafe, leader,
    recovery::{self, STARTS_IN_PLACE},
    space,
    switchover::{self, Timing},
};
use crate::{
    agent::{
        action::{Action, Decision, Remote, Stop},
        reason::Reason,
        view::{Local, Lock, ServerFacts, StoppedData, View},
    },
    dcs::{
        snapshot::{FailoverKey, MemberRole, PgState, SyncState},
        tags,
    },
    model::MemberName,
    spec::standby_cluster::STREAMS_AS,
    sys::clock::Moment,
};

/// A standby that streams again by itself does so within this time: only then are histories compared.
const PATIENCE: Duration = Duration::from_millis(1500);

/// How soon to look again while nothing is streamed.
const RETRY: Duration = Duration::from_millis(500);

/// What holds instead of the rules of a cluster that takes writes; `None`: those.
pub fn rule(view: &View) -> Option<Decision> {
    if !view.is_standby_cluster() {
        return None;
    }
    match (&view.local, &view.lock) {
        (Local::Stopped(data), Lock::Mine { .. }) => Some(stopped(view, data)),
        // Never in place as the primary that it was.
        (Local::Stopped(data), Lock::Unknown { .. }) => Some(recovery::without_leader(view, data)),
        (Local::Silent { since }, Lock::Mine { .. }) => Some(silent(view, *since)),
        // The primary is stopped cleanly, so that its standbys have all it wrote, and the key is kept: nobody else has to take over.
        (Local::Primary(_), Lock::Mine { .. }) if !view.settings.pause => {
            Some(Decision::act([Action::DemoteCluster], Reason::DemotingCluster))
        }
        (Local::Standby(server), Lock::Mine { .. }) => Some(lead(view, server)),
        _ => None,
    }
}

/// Why this member must not lead a standby cluster.
pub fn hindrance(view: &View) -> Option<Reason> {
    (view.is_standby_cluster() && tags::nostream(&view.tags)).then_some(Reason::MustStream)
}

/// The leader of a standby cluster gave the key up because it was asked to. It goes on receiving, and is no better a leader for that.
pub fn hands_over(view: &View, name: &MemberName) -> bool {
    let asked = |request: &FailoverKey| request.leader.as_deref() == Some(name.as_str());
    view.is_standby_cluster() && !view.sync_active() && view.cluster.failover.as_ref().is_some_and(asked)
}

/// The standby leader leads.
fn lead(view: &View, server: &ServerFacts) -> Decision {
    let mut until_hand_over = None;
    if let Some(request) = &view.cluster.failover {
        match switchover::timing(view, request) {
            Timing::Now => return hand_over(view, server, request),
            Timing::Over(why) => return switchover::withdraw(why),
            Timing::Later(wait) => until_hand_over = wait,
        }
    }
    if view.memory.disk_full && view.others().any(|name| space::has_room(view, name) && switchover::may_succeed(view, server, name)) {
        return Decision::act([Action::ReleaseLeader], Reason::DiskFull);
    }
    if (view.memory.diverged || view.memory.wal_gone) && !view.settings.pause {
        if let Some(wait) = space::wait(view) {
            return wait;
        }
        return Decision::act([Action::StopServer(Stop::Fast)], Reason::RejoiningRemote);
    }
    let mut actions = Vec::new();
    let mut reason = Reason::LeadingStandby;
    let streams = streams_from_remote(server);
    if streams || view.memory.fits_remote {
        actions.push(Action::Remote(Remote::Follow));
    }
    actions.extend(leader::identity(view, server));
    if streams {
        actions.extend(joined(view, server));
    }
    actions.extend(failsafe::key_to_write(view));
    actions.extend(leader::slots(view, server));
    actions.push(Action::PutStatus);
    if streams {
        return Decision { actions, reason, recheck: until_hand_over };
    }
    let impatient = view.memory.remote_silent_since.is_some_and(|since| view.now.since(since) > PATIENCE);
    if has_hosts(view) && (impatient || !view.memory.fits_remote) {
        actions.push(Action::Remote(Remote::Compare));
        reason = Reason::ComparingWithRemote;
    }
    Decision { actions, reason, recheck: Some(until_hand_over.map_or(RETRY, |wait| wait.min(RETRY))) }
}

/// What is left of the time before, once what is here is known to be a part of the other cluster's history: not before, because until then
/// the section may be removed again, and whoever leads then needs every commit that was acknowledged here.
fn joined(view: &View, server: &ServerFacts) -> Vec<Action> {
    let mut actions = Vec::new();
    let timelines = &view.cluster.timelines;
    if timelines.remote != Some(server.timeline) || timelines.begun.is_some() || timelines.reserved < server.timeline.0 {
        actions.push(Action::Remote(Remote::RecordTimeline(server.timeline)));
    }
    if view.sync_active() {
        actions.push(Action::PutSync(SyncState::default()));
    }
    if view.memory.has_old_data {
        actions.push(Action::DropOldData);
    }
    actions
}

/// It streams, and not from another member, as it did before it took the leader key.
fn streams_from_remote(server: &ServerFacts) -> bool {
    let named = |word: &str| word.strip_prefix("application_name=").is_some_and(|name| name.trim_matches('\'').starts_with(STREAMS_AS));
    server.streaming && server.primary_conninfo.split(' ').any(named)
}

/// The key goes to somebody who streams from here. The server goes on: as a standby it is no danger to anybody.
fn hand_over(view: &View, server: &ServerFacts, request: &FailoverKey) -> Decision {
    let asked = switchover::asked_to_hand_over(view, server, request);
    if asked.actions != [Action::HandOver] {
        return asked;
    }
    Decision { actions: vec![Action::ReleaseLeader], ..asked }
}

/// The standby leader's server is down. What never wrote by itself is started, and compared with the other cluster while it runs; what did
/// has to look first where the histories parted.
fn stopped(view: &View, data: &StoppedData) -> Decision {
    if let Some(decision) = space::give_up(view) {
        return decision;
    }
    if view.memory.failed_starts > STARTS_IN_PLACE && others_may_lead(view) {
        return Decision::act([Action::ReleaseLeader], Reason::WillNotStart);
    }
    let lost = view.memory.wal_gone || recovery::is_broken(view);
    let whole = !data.half_rewound && !lost;
    // What was copied or rewound may need WAL of the other cluster before it answers.
    if whole && (view.memory.fits_remote || (data.fresh_copy && data.standby_signal)) {
        return Decision::act([Action::Remote(Remote::Start)], Reason::StartingBehindRemote);
    }
    let clean_standby = data.standby_signal && !data.control.was_primary() && !view.memory.diverged && view.memory.failed_rejoins == 0;
    if whole && clean_standby {
        return Decision::act([Action::StartStandby(None)], Reason::StartingStandby);
    }
    if !has_hosts(view) {
        return Decision::wait(Reason::NothingToFollow);
    }
    if !lost {
        return Decision::act([Action::Remote(Remote::Rejoin)], Reason::RejoiningRemote);
    }
    if let Some(wait) = space::wait(view).or_else(|| space::wait_to_copy(view)) {
        return wait;
    }
    Decision::act([Action::Remote(Remote::Copy)], Reason::CopyingRemote)
}

/// Its server does not answer yet: it may be waiting for WAL of the other cluster before it can.
fn silent(view: &View, since: Moment) -> Decision {
    let mut decision = recovery::silent_leader(view, since);
    if decision.actions.is_empty() && view.memory.fits_remote {
        decision.actions.push(Action::Remote(Remote::Follow));
    }
    decision
}

fn has_hosts(view: &View) -> bool {
    view.settings.standby_cluster.as_ref().is_some_and(|remote| !remote.hosts.is_empty())
}

fn others_may_lead(view: &View) -> bool {
    let ready = |name: &MemberName| {
        let member = view.cluster.members.get(name);
        let runs = member.is_some_and(|m| m.state == PgState::Running && m.role == MemberRole::Replica && !tags::nofailover(&m.tags));
        runs && (!view.sync_active() || view.cluster.sync.votes(name.as_str()))
    };
    view.others().any(ready)
}
