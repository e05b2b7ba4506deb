//! What to do next: one pure function of the view. No clock, no I/O, no randomness, ordered collections only.

mod bootstrap;
mod cascade;
mod crash;
mod failsafe;
mod forgotten;
mod kept_slots;
mod leader;
pub mod notices;
mod pause;
mod race;
mod recovery;
mod replica;
mod space;
mod standby_cluster;
mod succession;
mod switchover;
mod sync;
#[cfg(test)]
mod tests;
mod timelines;
mod vitality;
mod watchdog;
mod wishes;

use crate::agent::{
    action::{Action, Decision, Stop},
    reason::Reason,
    view::{Local, Lock, Task, View},
};

pub use failsafe::circle;
pub use forgotten::claim;
pub use kept_slots::{lost as lost_slots, status as leader_status};
pub use sync::{is_safe, names_at_start};

/// Decides.
pub fn decide(view: &View) -> Decision {
    match wishes::asked(view) {
        wishes::Granted::Nothing => rules(view),
        wishes::Granted::Only(actions) => Decision::act(actions, Reason::AskedFor),
        wishes::Granted::Along(mut actions) => {
            let decision = rules(view);
            actions.extend(decision.actions);
            Decision { actions, ..decision }
        }
    }
}

/// What holds whether or not anybody asks for anything.
fn rules(view: &View) -> Decision {
    if let Some(decision) = vitality::trouble(view) {
        return decision;
    }
    if view.stopping {
        return ending(view);
    }
    if let Some(task) = view.task {
        return while_task_runs(view, task);
    }
    if let Some(refusal) = bootstrap::foreign_data(view) {
        return refusal;
    }
    if let Some(decision) = forgotten::holds_back(view) {
        return decision;
    }
    if let Some(held_back) = pause::holds_back(view) {
        return held_back;
    }
    if let Some(kept) = failsafe::keep_promise(view) {
        return kept;
    }
    if let Some(decision) = watchdog::missing(view) {
        return decision;
    }
    if let Some(wait) = without_sense(view) {
        return wait;
    }
    if let Some(decision) = standby_cluster::rule(view) {
        return decision;
    }
    match (&view.local, &view.lock) {
        (Local::Unusable { why }, Lock::Mine { .. }) => Decision::act([Action::ReleaseLeader], Reason::Unusable { why: why.clone() }),
        (Local::Unusable { why }, _) => Decision::wait(Reason::Unusable { why: why.clone() }),

        (Local::Empty, Lock::Mine { .. }) => Decision::act([Action::ReleaseLeader], Reason::NoDataToLead),
        (Local::Empty, Lock::Other(leader)) => bootstrap::clone_leader(view, leader),
        (Local::Empty, Lock::Free) => bootstrap::new_cluster(view),
        (Local::Empty, Lock::Unknown { .. }) => Decision::wait(Reason::DcsSilentWhileFollowing),

        (Local::Stopped(data), Lock::Mine { .. }) => recovery::holding_the_lock(view, data),
        (Local::Stopped(data), Lock::Other(leader)) => recovery::behind(view, data, leader),
        (Local::Stopped(data), Lock::Unknown { until: Some(until) }) => {
            failsafe::start_in_place(view, data, *until).unwrap_or_else(|| recovery::without_leader(view, data))
        }
        (Local::Stopped(data), Lock::Free | Lock::Unknown { until: None }) => recovery::without_leader(view, data),

        (Local::Silent { since }, Lock::Mine { .. }) => recovery::silent_leader(view, *since),
        (Local::Silent { .. }, Lock::Unknown { until: Some(until) }) => failsafe::lead_on(view, *until),
        (Local::Silent { .. }, Lock::Other(leader)) => recovery::silent_standby(view, leader),
        (Local::Silent { .. }, _) => Decision::wait(Reason::WaitingForServer),

        (Local::Primary(server), Lock::Mine { .. }) => leader::lead(view, server),
        (Local::Primary(_), Lock::Other(holder)) => {
            Decision::act([Action::StopServer(Stop::Immediate)], Reason::LostTheLock { holder: Some(holder.clone()) })
        }
        (Local::Primary(server), Lock::Free) => leader::without_lock(view, server),
        (Local::Primary(_), Lock::Unknown { until: Some(until) }) => failsafe::lead_on(view, *until),
        // Just initialised, or adopted from an agent that died: then the guard holds the end of the lease that agent last proved.
        (Local::Primary(_), Lock::Unknown { until: None }) => leader::adopted_without_answers(),

        (Local::Standby(server), Lock::Mine { until }) => leader::promote(view, server, *until),
        (Local::Standby(server), Lock::Other(leader)) => replica::follow(view, server, leader),
        (Local::Standby(server), Lock::Free) => race::race(view, server),
        (Local::Standby(_), Lock::Unknown { .. }) => Decision::wait(Reason::DcsSilentWhileFollowing),
    }
}

/// What says who may lead, and with whom, cannot be read: nobody begins to. Whoever leads already knows, and writes it anew.
fn without_sense(view: &View) -> Option<Decision> {
    let begins = match view.lock {
        // Data that are started to follow nobody serve reads.
        Lock::Free => !matches!(view.local, Local::Stopped(_)),
        Lock::Mine { .. } => !matches!(view.local, Local::Primary(_)),
        Lock::Other(_) | Lock::Unknown { .. } => false,
    };
    let keys: Vec<String> = view.cluster.unreadable.iter().cloned().collect();
    (begins && !keys.is_empty()).then(|| Decision::wait(Reason::DcsUnreadable { keys }))
}

/// The agent was told to end: a leader hands over first.
fn ending(view: &View) -> Decision {
    // Work that was cut short for this tells nobody that it has ended.
    let soon = Some(std::time::Duration::from_millis(200));
    let end = |actions: &[Action]| Decision { actions: actions.to_vec(), reason: Reason::AskedToEnd, recheck: soon };
    match (&view.local, &view.lock, view.task) {
        (_, _, Some(Task::HandOver | Task::DemoteCluster | Task::Stop)) => Decision::wait(Reason::AskedToEnd),
        (Local::Primary(_), Lock::Mine { .. }, _) => end(&[Action::HandOver]),
        (Local::Primary(_) | Local::Standby(_) | Local::Silent { .. }, _, _) => end(&[Action::StopServer(Stop::Fast)]),
        (_, Lock::Mine { .. }, _) => end(&[Action::ReleaseLeader, Action::End]),
        _ => end(&[Action::End]),
    }
}

/// While long work runs, only losing the right to do it is acted upon.
fn while_task_runs(view: &View, task: Task) -> Decision {
    let leads =
        matches!(task, Task::Promote | Task::HandOver | Task::DemoteCluster | Task::Checkpoint | Task::CreateSlots | Task::RestartPrimary);
    // What changes nothing for anybody but takes a while.
    let aside = matches!(task, Task::Checkpoint | Task::CreateSlots);
    match (&view.local, &view.lock) {
        (Local::Primary(_) | Local::Silent { .. }, Lock::Other(holder)) if leads => {
            Decision::act([Action::StopServer(Stop::Immediate)], Reason::LostTheLock { holder: Some(holder.clone()) })
        }
        (_, Lock::Other(_) | Lock::Free) if task == Task::PrePromote => {
            Decision::act([Action::CancelTask], Reason::LostTheLock { holder: None })
        }
        (Local::Standby(_), Lock::Other(_) | Lock::Free) if task == Task::Promote => {
            Decision::act([Action::StopServer(Stop::Immediate)], Reason::LostTheLock { holder: None })
        }
        (Local::Primary(server), Lock::Free) if aside => without_sense(view).unwrap_or_else(|| leader::without_lock(view, server)),
        // A checkpoint is no reason to let the cluster's records grow old, nor is a comparison with one who leads no more to keep others
        // waiting for a vote.
        (Local::Primary(server), Lock::Mine { .. }) if aside => leader::lead(view, server),
        (Local::Standby(server), Lock::Free) if task == Task::CompareHistories => {
            failsafe::keep_promise(view).or_else(|| without_sense(view)).unwrap_or_else(|| race::race(view, server))
        }
        (_, Lock::Unknown { until: Some(until) }) if leads => failsafe::lead_on(view, *until),
        _ => Decision::wait(Reason::TaskRunning { task }),
    }
}
