//! A standby behind a leader.

use std::{collections::BTreeSet, time::Duration};

use super::space;
use crate::{
    agent::view::View,
    agent::{
        action::{Action, Decision, Stop},
        reason::Reason,
        view::ServerFacts,
    },
    dcs::snapshot::{MemberRole, PgState},
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
    let mut actions = vec![Action::Follow(Some(leader.clone()))];
    let reason = Reason::Following { leader: leader.clone() };
    if server.streaming {
        // Slots from the time when this member led hold back WAL that nobody will ask it for.
        let left: BTreeSet<String> = view.others().map(MemberName::slot_name).filter(|slot| server.slots.contains(slot)).collect();
        if !left.is_empty() {
            actions.push(Action::DropSlots(left));
        }
        if view.memory.has_old_data {
            actions.push(Action::DropOldData);
        }
        return Decision::act(actions, reason);
    }
    let leader_ready = view.cluster.members.get(leader).is_some_and(|m| m.role == MemberRole::Primary && m.state == PgState::Running);
    let impatient = view.memory.not_streaming_since.is_some_and(|since| view.now.since(since) > PATIENCE);
    if leader_ready && impatient {
        actions.push(Action::CompareHistories(leader.clone()));
        return Decision::act(actions, Reason::ComparingHistories { leader: leader.clone() });
    }
    Decision { actions, reason, recheck: Some(Duration::from_millis(500)) }
}
