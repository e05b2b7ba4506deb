//! Members without data, and data without a cluster.

use super::{forgotten, space, standby_cluster};
use crate::{
    agent::{
        action::{Action, Decision, Stop},
        reason::Reason,
        view::{Local, View},
    },
    dcs::{
        snapshot::{Initialize, MemberData, MemberRole, PgState},
        tags,
    },
    model::MemberName,
};

/// Nobody leads and this member is empty: initialise if nobody has and nobody else may have data.
pub fn new_cluster(view: &View) -> Decision {
    if !matches!(view.cluster.initialize, Initialize::Done(_))
        && let Some(wait) = forgotten::begin(view, None)
    {
        return wait;
    }
    match view.cluster.initialize {
        Initialize::Done(_) => Decision::wait(Reason::NoLeaderToClone),
        Initialize::InProgress if view.memory.holds_initialize => Decision::act([Action::ClaimInitialize], Reason::Initializing),
        Initialize::InProgress => Decision::wait(Reason::OthersInitialize),
        // A DCS that lost its content: whoever has data takes over, an empty member never starts afresh beside it.
        Initialize::Absent if someone_has_data(view) => Decision::wait(Reason::NoLeaderToClone),
        Initialize::Absent if let Some(reason) = standby_cluster::hindrance(view) => Decision::wait(reason),
        // Without the claim, so that somebody else may try meanwhile.
        Initialize::Absent if view.memory.begin_again_at.is_some_and(|at| view.now < at) => Decision::wait(Reason::BeginningLater),
        Initialize::Absent if view.may_initialize && !tags::nofailover(&view.tags) => {
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
    view.others().filter_map(|name| view.cluster.members.get(name)).any(|m| has_data(m.state, m.role))
}

/// Somebody leads: copy it, or a standby that is there for it, once it accepts connections.
pub fn clone_leader(view: &View, leader: &MemberName) -> Decision {
    let ready = view.cluster.members.get(leader).is_some_and(MemberData::is_ready_leader);
    if !ready {
        return Decision::wait(Reason::NoLeaderToClone);
    }
    if let Some(wait) = space::wait_to_copy(view) {
        return wait;
    }
    let source = copy_source(view, leader);
    Decision::act([Action::Clone(source.clone())], Reason::Cloning { source })
}

/// Who is copied while `leader` leads: one of the standbys whose tag offers it and that stream on the leader's timeline, so that members
/// that begin together spread over them. After a copy that failed, the leader.
pub fn copy_source(view: &View, leader: &MemberName) -> MemberName {
    let timeline = view.cluster.members.get(leader).and_then(|m| m.timeline);
    let streams = |m: &MemberData| m.replication_state.as_deref() == Some("streaming") && m.timeline == timeline;
    let offers = |name: &&MemberName| {
        let member = view.cluster.members.get(*name);
        member.is_some_and(|m| tags::clonefrom(&m.tags) && m.state == PgState::Running && m.role == MemberRole::Replica && streams(m))
    };
    let offers: Vec<&MemberName> = view.others().filter(|name| *name != leader).filter(offers).collect();
    let spread = view.me.as_str().bytes().map(usize::from).sum::<usize>().checked_rem(offers.len());
    let chosen = spread.filter(|_| view.memory.failed_copies == 0).and_then(|i| offers.get(i).copied());
    chosen.unwrap_or(leader).clone()
}

/// Data of another database cluster is not touched, except when it is the never recorded beginning of one that lost the race.
pub fn foreign_data(view: &View) -> Option<Decision> {
    let Initialize::Done(theirs) = view.cluster.initialize else { return None };
    let ours = view.local.system_id()?;
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
    matches!((view.cluster.initialize, view.local.system_id()), (Initialize::Done(theirs), Some(ours)) if ours != theirs)
}
