//! What a member calls itself, in Patroni's words: others decide by it whom to copy and whom to follow.

use super::view::{Local, Lock, Task, View};
use crate::dcs::snapshot::{MemberRole, PgState};

/// The state of the local server. `task`: the work that runs now. `stopping`: the server was told to stop.
pub fn state(local: &Local, task: Option<Task>, stopping: bool) -> PgState {
    match (local, task) {
        (_, Some(Task::Initialize)) => PgState::Initializing,
        (_, Some(Task::Clone | Task::Reinitialize)) => PgState::CreatingReplica,
        (_, Some(Task::Restart | Task::RestartPrimary)) => PgState::Restarting,
        (_, Some(Task::HandOver | Task::DemoteCluster | Task::Stop)) => PgState::Stopping,
        (Local::Primary(_) | Local::Standby(_), _) => PgState::Running,
        (Local::Silent { .. }, _) if stopping => PgState::Stopping,
        (Local::Silent { .. }, _) => PgState::Starting,
        (Local::Empty | Local::Unusable { .. } | Local::Stopped(_), _) => PgState::Stopped,
    }
}

/// The role of the local server.
pub fn role(view: &View) -> MemberRole {
    match (&view.local, &view.lock, view.task) {
        (Local::Primary(_), ..) => MemberRole::Primary,
        (Local::Standby(_), _, Some(Task::Promote)) => MemberRole::Promoted,
        (_, _, Some(Task::DemoteCluster)) => MemberRole::Demoted,
        (Local::Standby(_), Lock::Mine { .. }, _) if view.is_standby_cluster() => MemberRole::StandbyLeader,
        (Local::Standby(_), ..) => MemberRole::Replica,
        (Local::Empty, ..) | (_, _, Some(Task::Initialize | Task::Clone)) => MemberRole::Uninitialized,
        (_, Lock::Mine { .. }, _) if view.is_standby_cluster() => MemberRole::StandbyLeader,
        (_, Lock::Mine { .. }, _) => MemberRole::Primary,
        _ => MemberRole::Replica,
    }
}
