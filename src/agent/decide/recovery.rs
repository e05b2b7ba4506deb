//! Data without a server: start it, as what, and behind whom.

use super::{bootstrap, cascade, space, timelines};
use crate::{
    agent::{
        action::{Action, Decision, Stop},
        reason::Reason,
        view::{Lock, StoppedData, View},
    },
    dcs::snapshot::{Initialize, MemberRole, PgState},
    model::MemberName,
    sys::clock::Moment,
};

/// How often a primary is started in place before the leader key is given up.
pub const STARTS_IN_PLACE: u32 = 2;

/// How often a standby is started before it is taken for broken.
const STANDBY_STARTS: u32 = 3;

/// The leader key is ours and PostgreSQL is down: nobody else can have promoted, so it is restarted in place.
pub fn holding_the_lock(view: &View, data: &StoppedData) -> Decision {
    if let Some(decision) = space::give_up(view) {
        return decision;
    }
    if data.half_rewound || view.memory.failed_starts > STARTS_IN_PLACE {
        return Decision::act([Action::ReleaseLeader], Reason::PrimaryWillNotStart);
    }
    if data.control.was_primary() && !data.standby_signal {
        Decision::act([Action::StartPrimary], Reason::StartingPrimary)
    } else {
        Decision::act([Action::StartStandby(None)], Reason::StartingStandby)
    }
}

/// The leader's server does not answer. It is given `primary_start_timeout`, then somebody else gets the chance: as soon as every process
/// of it is gone, because one that hangs may go on and write beside the next leader.
pub fn silent_leader(view: &View, since: Moment) -> Decision {
    let asked = view.memory.bringing_up.as_ref().and_then(|start| start.patience);
    if view.now.since(since) > asked.unwrap_or(view.settings.primary_start_timeout) {
        return Decision::act([Action::GiveUpStarting, Action::StopServer(Stop::Immediate)], Reason::PrimaryWillNotStart);
    }
    Decision::wait(Reason::WaitingForServer)
}

/// Somebody else leads, and the server does not answer yet. It may be waiting for WAL before it can: from the one who leads now, not from
/// the one who led when it was started.
pub fn silent_standby(view: &View, leader: &MemberName) -> Decision {
    Decision::act([Action::Follow(cascade::upstream(view, leader))], Reason::WaitingForServer)
}

/// Somebody else leads. A clean standby on the leader's timeline just starts; everything else has to look where the histories parted.
pub fn behind(view: &View, data: &StoppedData, leader: &MemberName) -> Decision {
    let Some(member) = view.cluster.members.get(leader) else { return Decision::wait(Reason::NoLeaderToClone) };
    let namesake = timelines::is_namesake(view, data);
    let ready = view.memory.ready_behind.as_ref() == Some(leader) || (data.fresh_copy && data.standby_signal && !namesake);
    let lost = view.memory.wal_gone || is_broken(view);
    if ready && !data.half_rewound && !lost {
        return Decision::act([Action::StartStandby(cascade::upstream(view, leader))], Reason::StartingStandby);
    }
    let same_timeline = member.timeline == Some(data.control.timeline());
    let clean_standby = data.standby_signal && !data.control.was_primary() && !data.half_rewound && same_timeline && !namesake;
    if clean_standby && view.memory.failed_rejoins == 0 && !view.memory.diverged && !lost {
        return Decision::act([Action::StartStandby(cascade::upstream(view, leader))], Reason::StartingStandby);
    }
    if member.role != MemberRole::Primary || member.state != PgState::Running {
        return Decision::wait(Reason::NoLeaderToClone);
    }
    if lost {
        if let Some(wait) = space::wait(view) {
            return wait;
        }
        return Decision::act([Action::Clone(bootstrap::copy_source(view, leader))], Reason::CopyingAnew { leader: leader.clone() });
    }
    Decision::act([Action::Rejoin(leader.clone())], Reason::Rejoining { leader: leader.clone() })
}

/// It does not start, however often it is tried, and nothing but the data can be to blame. A copy that does not start either says that it
/// is not the data.
fn is_broken(view: &View) -> bool {
    let memory = &view.memory;
    memory.failed_starts >= STANDBY_STARTS && !memory.copied && memory.start_fault.is_none() && !memory.disk_full
}

/// Nobody leads, or nobody knows who. Starting as a standby replays what is there, without adding anything, so that positions can be
/// compared; it also serves reads.
pub fn without_leader(view: &View, data: &StoppedData) -> Decision {
    if data.half_rewound {
        return Decision::wait(Reason::NoLeaderToClone);
    }
    if view.memory.unrecorded_bootstrap && view.lock == Lock::Free {
        return resume_bootstrap(view);
    }
    let mut actions = Vec::new();
    if view.lock == Lock::Free && view.cluster.initialize == Initialize::Absent {
        // The DCS knows no cluster, and here is one.
        actions.push(Action::RecordInitialize(data.control.system_id));
    }
    actions.push(Action::StartStandby(None));
    Decision::act(actions, Reason::StartingStandby)
}

/// initdb is done and was never recorded: go on where it was left, under a claim of our own.
fn resume_bootstrap(view: &View) -> Decision {
    match view.cluster.initialize {
        Initialize::InProgress if view.memory.holds_initialize => Decision::act([Action::StartPrimary], Reason::Initializing),
        Initialize::InProgress => Decision::wait(Reason::OthersInitialize),
        Initialize::Absent => Decision::act([Action::ClaimInitialize], Reason::ClaimingInitialize),
        // Recorded, and the system is ours: only the local mark was left behind.
        Initialize::Done(_) => Decision::act([Action::BootstrapIsRecorded], Reason::RecordingBootstrap),
    }
}
