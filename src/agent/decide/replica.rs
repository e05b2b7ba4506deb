//! A standby behind a leader.

use std::{collections::BTreeSet, time::Duration};

use super::{cascade, kept_slots, leader::missing_slots, space};
use crate::{
    agent::view::View,
    agent::{
        action::{Action, Decision, Stop},
        reason::Reason,
        view::ServerFacts,
    },
    dcs::snapshot::MemberData,
    model::MemberName,
};

/// A standby that streams again by itself does so within this time: only then are histories compared.
const PATIENCE: Duration = Duration::from_millis(1500);

/// Follow the leader; when that does not work although the leader is there, find out why.
pub fn follow(view: &View, server: &ServerFacts, leader: &MemberName) -> Decision {
    if (view.memory.diverged || view.memory.wal_gone) && !view.settings.pause {
        // It cannot come back without room: until there is some it goes on serving reads.
        if let Some(wait) = space::wait(view) {
            return wait;
        }
        // The server has WAL that the leader does not, or needs some that it has not any more: rejoining needs it stopped.
        return Decision::act([Action::StopServer(Stop::Fast)], Reason::Rejoining { leader: leader.clone() });
    }
    let upstream = cascade::upstream(view, leader);
    let mut actions = vec![Action::Follow(upstream.clone())];
    let reason = Reason::Following { leader: leader.clone() };
    let same_timeline = view.cluster.members.get(leader).is_some_and(|m| m.timeline == Some(server.timeline));
    if server.streaming || (upstream.is_none() && same_timeline) {
        actions.extend(slots(view, server));
        if view.memory.has_old_data {
            actions.push(Action::DropOldData);
        }
        return Decision::act(actions, reason);
    }
    let leader_ready = view.cluster.members.get(leader).is_some_and(MemberData::is_ready_leader);
    let impatient = view.memory.not_streaming_since.is_some_and(|since| view.now.since(since) > PATIENCE);
    if leader_ready && impatient {
        actions.push(Action::CompareHistories(leader.clone()));
        return Decision::act(actions, Reason::ComparingHistories { leader: leader.clone() });
    }
    Decision { actions, reason, recheck: Some(Duration::from_millis(500)) }
}

/// Slots for the standbys behind this one. Those from the time when this member led hold back WAL that nobody will ask it for.
fn slots(view: &View, server: &ServerFacts) -> Vec<Action> {
    if !view.settings.use_slots {
        return Vec::new();
    }
    let behind = cascade::slots_of_standby(view);
    let left: BTreeSet<String> = view.others().filter(|name| !behind.contains(*name)).map(MemberName::slot_name).collect();
    let unused = left.into_iter().filter(|slot| server.slots.contains_key(slot) && !view.settings.permanent_slots.contains(slot));
    let left: BTreeSet<String> = unused.chain(kept_slots::stale(view)).chain(kept_slots::in_the_way(view, server)).collect();
    let mut actions: Vec<Action> = missing_slots(behind, server).into_iter().chain(kept_slots::missing(view, server)).collect();
    let advances = kept_slots::advances(view, server);
    if !advances.is_empty() {
        actions.push(Action::AdvanceSlots(advances));
    }
    if !left.is_empty() {
        actions.push(Action::DropSlots(left));
    }
    actions
}
