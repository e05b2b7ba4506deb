//! A server that hangs, or whose disk does, or whose data are gone, although it may still answer on a session that exists.

use crate::agent::{
    action::{Action, Decision, Stop},
    reason::Reason,
    view::{Local, Lock, Trouble, View},
};

/// What to do about trouble that a look at the server does not show; `None`: nothing that the other rules would not do.
pub fn trouble(view: &View) -> Option<Decision> {
    match view.memory.trouble.as_ref()? {
        Trouble::PostmasterHangs => killing(view, Reason::PostmasterHangs),
        // It may go on for a minute with the files that it has open, and nothing of that is kept. Nor can it end in good order.
        Trouble::DataGone => killing(view, Reason::DataGone),
        // Who is to end anyway ends: a disk that fails is no reason to wait for it.
        Trouble::DiskFails { .. } if view.stopping => None,
        Trouble::DiskFails { why } => on_a_bad_disk(view, &Reason::DiskFails { why: why.clone() }),
    }
}

/// It is killed, as nothing else ends it, and then treated by what is there: started in place, or behind whoever leads, or copied anew.
fn killing(view: &View, reason: Reason) -> Option<Decision> {
    let runs = matches!(view.local, Local::Silent { .. } | Local::Primary(_) | Local::Standby(_));
    runs.then(|| Decision::act([Action::StopServer(Stop::Kill)], reason))
}

/// Nothing is started from such a disk: somebody else has to lead. The leader key is given up as soon as every process has been sent
/// SIGKILL. One that the kernel holds back may never be gone, but it will not run again either, so it acknowledges nothing.
fn on_a_bad_disk(view: &View, reason: &Reason) -> Option<Decision> {
    let runs = matches!(view.local, Local::Primary(_) | Local::Silent { .. });
    match view.lock {
        Lock::Mine { .. } if runs && !view.memory.killed => Some(Decision::act([Action::StopServer(Stop::Kill)], reason.clone())),
        Lock::Mine { .. } => Some(Decision::act([Action::ReleaseLeader], reason.clone())),
        Lock::Free => Some(Decision::wait(reason.clone())),
        Lock::Other(_) | Lock::Unknown { .. } => None,
    }
}
