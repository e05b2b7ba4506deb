//! A member whose configuration requires a watchdog device, and that has none which works, does not lead.

use crate::{
    agent::{
        action::{Action, Decision, Stop},
        reason::Reason,
        view::{Local, Lock, View},
    },
    model::MemberName,
};

/// What that comes to; `None`: nothing that the other rules would not do. In a pause a leader is left alone.
pub fn missing(view: &View) -> Option<Decision> {
    let reason = hindrance(view).filter(|_| !view.settings.pause)?;
    match (&view.local, &view.lock) {
        (Local::Primary(_), Lock::Mine { .. }) => Some(Decision::act([Action::HandOver], reason)),
        (Local::Primary(_), Lock::Free) => Some(Decision::act([Action::StopServer(Stop::Fast)], reason)),
        // It may be a primary already.
        (Local::Silent { .. }, Lock::Mine { .. }) => Some(Decision::act([Action::StopServer(Stop::Immediate)], reason)),
        (_, Lock::Mine { .. }) => Some(Decision::act([Action::ReleaseLeader], reason)),
        (Local::Empty, Lock::Free) => Some(Decision::wait(reason)),
        _ => None,
    }
}

/// Why this member must not race, if that is why.
pub fn hindrance(view: &View) -> Option<Reason> {
    view.memory.no_watchdog.clone().map(|why| Reason::NoWatchdog { why })
}

/// It says of itself that it requires a watchdog and has none.
pub fn lacks(view: &View, name: &MemberName) -> bool {
    view.cluster.members.get(name).is_some_and(|member| member.other.get("watchdog_failed").is_some())
}
