//! The disk under the data directory is full. What can still be saved is the service: somebody else takes over, and nobody tries again and
//! again what cannot work.

use std::time::Duration;

use super::switchover;
use crate::{
    agent::{
        action::{Action, Decision},
        reason::Reason,
        view::{ServerFacts, View},
    },
    dcs::{
        snapshot::{MemberRole, PgState},
        tags,
    },
    model::MemberName,
};

/// How soon to look again.
const RETRY: Duration = Duration::from_secs(1);

/// The leader hands over while it still can, if somebody with room is ready. `None`: go on.
pub fn hand_over(view: &View, server: &ServerFacts) -> Option<Decision> {
    let ready = |name: &&MemberName| has_room(view, name) && switchover::may_succeed(view, server, name);
    let somebody = view.memory.disk_full && view.task.is_none() && view.others().any(|name| ready(&name));
    somebody.then(|| Decision::act([Action::HandOver], Reason::DiskFull))
}

/// The leader's server has ended, for want of space. `None`: nobody else could do better.
pub fn give_up(view: &View) -> Option<Decision> {
    let runs = |name: &MemberName| {
        view.cluster
            .members
            .get(name)
            .is_some_and(|m| m.state == PgState::Running && m.role == MemberRole::Replica && !tags::nofailover(&m.tags))
    };
    let admitted = |name: &MemberName| !view.sync_active() || view.cluster.sync.votes(name.as_str());
    let somebody = view.memory.disk_full && view.others().any(|name| runs(name) && admitted(name) && has_room(view, name));
    somebody.then(|| Decision::act([Action::ReleaseLeader], Reason::DiskFull))
}

/// Nothing is begun that needs room. `None`: there is some.
pub fn wait(view: &View) -> Option<Decision> {
    view.memory.disk_full.then(|| Decision::wait_briefly(Reason::DiskFull, RETRY))
}

/// No copy is begun again so soon after one that did not fit. `None`: it may be tried.
pub fn wait_to_copy(view: &View) -> Option<Decision> {
    let why = view.memory.waits_for_room(view.now)?.to_owned();
    Some(Decision::wait_briefly(Reason::NoRoomToCopy { why }, RETRY))
}

/// Its disk is not full, as far as it says.
pub fn has_room(view: &View, name: &MemberName) -> bool {
    view.cluster.members.get(name).is_none_or(|member| member.other.get("disk_full").is_none())
}
