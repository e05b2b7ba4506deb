//! Which callback is due: what has become of the local server since callbacks were last told.

use serde::{Deserialize, Serialize};

use crate::agent::view::{Local, Lock, Memory, Task, View};

/// The turning points that callbacks are run at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The server runs.
    OnStart,
    /// The server has stopped, and not to be started again at once.
    OnStop,
    /// The server was started again, because somebody asked for it.
    OnRestart,
    /// The server was told to read its configuration again.
    OnReload,
    /// The server has another role.
    OnRoleChange,
}

impl Event {
    /// All of them.
    pub const ALL: [Event; 5] = [Event::OnStart, Event::OnStop, Event::OnRestart, Event::OnReload, Event::OnRoleChange];

    /// Its key in the configuration, and the first argument of the callback.
    pub fn name(self) -> &'static str {
        match self {
            Event::OnStart => "on_start",
            Event::OnStop => "on_stop",
            Event::OnRestart => "on_restart",
            Event::OnReload => "on_reload",
            Event::OnRoleChange => "on_role_change",
        }
    }
}

/// A role as callbacks are told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToldRole {
    /// It accepts writes.
    Primary,
    /// It follows.
    Replica,
    /// It leads a standby cluster.
    StandbyLeader,
    /// It was primary and is no more.
    Demoted,
}

impl ToldRole {
    /// The second argument of the callback.
    pub fn name(self) -> &'static str {
        match self {
            ToldRole::Primary => "primary",
            ToldRole::Replica => "replica",
            ToldRole::StandbyLeader => "standby_leader",
            ToldRole::Demoted => "demoted",
        }
    }
}

/// What callbacks were last told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// The role; `None`: nothing yet.
    pub role: Option<ToldRole>,
    /// Start time of the server that runs, as it says itself; `None`: none runs.
    pub started: Option<String>,
    /// It was stopped because somebody asked for a restart.
    pub restarting: bool,
}

/// The callback that is due now, and what has been told with it.
pub fn due(told: &Told, view: &View) -> (Option<(Event, ToldRole)>, Told) {
    let restarting = told.restarting || matches!(view.task, Some(Task::Restart | Task::RestartPrimary));
    let (leads, gave_up) = (matches!(view.lock, Lock::Mine { .. }), matches!(view.lock, Lock::Other(_) | Lock::Free));
    let same = || (None, Told { restarting, ..told.clone() });
    let (facts, role) = match &view.local {
        _ if is_bootstrap(&view.memory) => return same(),
        Local::Primary(facts) => (facts, ToldRole::Primary),
        Local::Standby(_) if view.task == Some(Task::Promote) => return same(),
        Local::Standby(facts) if leads && view.is_standby_cluster() => (facts, ToldRole::StandbyLeader),
        // About to be promoted, or nobody knows who leads.
        Local::Standby(_) if told.role == Some(ToldRole::StandbyLeader) && !gave_up => return same(),
        Local::Standby(facts) => (facts, ToldRole::Replica),
        Local::Silent { .. } => return same(),
        Local::Empty | Local::Unusable { .. } | Local::Stopped(_) => return gone(&Told { restarting, ..told.clone() }, view),
    };
    let now = Told { role: Some(role), started: Some(facts.started.clone()), restarting: false };
    let event = match told.role {
        Some(before) if before != role => Event::OnRoleChange,
        Some(_) if told.started == now.started => return (None, Told { restarting, ..now }),
        Some(_) if restarting => Event::OnRestart,
        _ => Event::OnStart,
    };
    (Some((event, role)), now)
}

/// There is no server any more.
fn gone(told: &Told, view: &View) -> (Option<(Event, ToldRole)>, Told) {
    let (Some(role), Some(_)) = (told.role, &told.started) else { return (None, told.clone()) };
    if view.stopping {
        return (Some((Event::OnStop, role)), Told { started: None, ..told.clone() });
    }
    // It comes back as what it was.
    if told.restarting || matches!(view.lock, Lock::Mine { .. }) {
        return (None, told.clone());
    }
    if role == ToldRole::Primary {
        let demoted = ToldRole::Demoted;
        return (Some((Event::OnRoleChange, demoted)), Told { role: Some(demoted), started: None, restarting: false });
    }
    (Some((Event::OnStop, role)), Told { started: None, ..told.clone() })
}

/// Nobody is told of a cluster that may never come to be.
fn is_bootstrap(memory: &Memory) -> bool {
    memory.unrecorded_bootstrap
}
