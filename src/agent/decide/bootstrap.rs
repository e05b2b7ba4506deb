//! Members without data, and data without a cluster.

use crate::{
    agent::{
        action::{Action, Decision, Stop},
        reason::Reason,
        view::{Local, View},
    },
    dcs::snapshot::{Initialize, MemberRole, PgState},
    model::{MemberName, SystemId},
};

/// Nobody leads and this member is empty: initialise if nobody has and nobody else may have data.
pub fn new_cluster(view: &View) -> Decision {
    match view.cluster.initialize {
        Initialize::Done(_) => Decision::wait(Reason::NoLeaderToClone),
        Initialize::InProgress if view.memory.holds_initialize => Decision::act([Action::ClaimInitialize], Reason::Initializing),
        Initialize::InProgress => Decision::wait(Reason::OthersInitialize),
        // A DCS that lost its content: whoever has data takes over, an empty member never starts afresh beside it.
        Initialize::Absent if someone_has_data(view) => Decision::wait(Reason::NoLeaderToClone),
        Initialize::Absent if view.may_initialize && !view.nofailover => {
            Decision::act([Action::ClaimInitialize], Reason::ClaimingInitialize)
        }
        Initialize::Absent => Decision::wait(Reason::NoLeaderToClone),
    }
}

fn someone_has_data(view: &View) -> bool {
    let has_data = |state: PgState, role: MemberRole| {
        matches!(state, PgState::Running | PgState::Starting | PgState::Restarting | PgState::Stopping | PgState::Crashed)
            || role == MemberRole::Primary
    };
    // A store that was just emptied knows nobody until they have come back: what was known before counts too.
    let known = |name: &MemberName| view.cluster.members.get(name).into_iter().chain(view.memory.past.members.get(name));
    let others = view.others().chain(view.memory.past.members.keys().filter(|name| **name != view.me));
    others.flat_map(known).any(|m| has_data(m.state, m.role))
}

/// Somebody leads: copy it once it accepts connections.
pub fn clone_leader(view: &View, leader: &MemberName) -> Decision {
    let ready = view.cluster.members.get(leader).is_some_and(|m| m.role == MemberRole::Primary && m.state == PgState::Running);
    if ready {
        Decision::act([Action::Clone(leader.clone())], Reason::Cloning { leader: leader.clone() })
    } else {
        Decision::wait(Reason::NoLeaderToClone)
    }
}

/// Data of another database cluster is not touched, except when it is the never recorded beginning of one that lost the race.
pub fn foreign_data(view: &View) -> Option<Decision> {
    let Initialize::Done(theirs) = view.cluster.initialize else { return None };
    let ours = system_id(view)?;
    if ours == theirs {
        return None;
    }
    if !view.memory.unrecorded_bootstrap {
        let reason = Reason::ForeignData { ours: ours.to_string(), theirs: theirs.to_string() };
        // A server that runs stays as it is: it may be the DCS that is wrong.
        return Some(if matches!(view.local, Local::Stopped(_)) {
            Decision::act([Action::RefuseToStart], reason)
        } else {
            Decision::wait(reason)
        });
    }
    let actions = match view.local {
        Local::Stopped(_) => vec![Action::SetDataAside],
        _ => vec![Action::StopServer(Stop::Immediate)],
    };
    Some(Decision::act(actions, Reason::DiscardingUnrecorded))
}

/// The local data are of another system than the cluster's.
pub fn is_foreign(view: &View) -> bool {
    matches!((view.cluster.initialize, system_id(view)), (Initialize::Done(theirs), Some(ours)) if ours != theirs)
}

fn system_id(view: &View) -> Option<SystemId> {
    match &view.local {
        Local::Stopped(data) => Some(data.control.system_id),
        Local::Primary(server) | Local::Standby(server) => Some(server.system_id),
        _ => None,
    }
}
