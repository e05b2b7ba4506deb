//! Data without a server: start it, as what, and behind whom.

use std::time::Duration;

use super::{bootstrap, cascade, crash, forgotten, space, timelines};
use crate::{
    agent::{
        action::{Action, Decision, Stop},
        reason::Reason,
        view::{Lock, StoppedData, View},
    },
    dcs::snapshot::Initialize,
    model::MemberName,
    sys::clock::Moment,
};

/// How often a primary is started in place before the leader key is given up.
pub const STARTS_IN_PLACE: u32 = 2;

/// How long a start may take where `primary_start_timeout` does not say: its default.
const LONGEST_START: Duration = Duration::from_secs(300);

/// How often a standby is started before it is taken for broken.
const STANDBY_STARTS: u32 = 3;

/// The leader key is ours and PostgreSQL is down: nobody else can have promoted, so it is restarted in place, unless it has crashed and
/// somebody else can take over.
pub fn holding_the_lock(view: &View, data: &StoppedData) -> Decision {
    if let Some(decision) = space::give_up(view) {
        return decision;
    }
    if data.half_rewound || view.memory.failed_starts > STARTS_IN_PLACE {
        return Decision::act([Action::ReleaseLeader], Reason::PrimaryWillNotStart);
    }
    if let Some(decision) = crash::leave(view, data) {
        return decision;
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
    if let Some(decision) = crash::recovers_for_long(view, since) {
        return decision;
    }
    let asked = view.memory.bringing_up.as_ref().and_then(|start| start.patience);
    // Zero is about crashes: one that starts for another reason has to be given some time.
    let patience = Some(view.settings.primary_start_timeout).filter(|patience| !patience.is_zero()).unwrap_or(LONGEST_START);
    if view.now.since(since) > asked.unwrap_or(patience) {
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
    if !member.is_ready_leader() {
        return Decision::wait(Reason::NoLeaderToClone);
    }
    if lost {
        if let Some(wait) = space::wait(view).or_else(|| space::wait_to_copy(view)) {
            return wait;
        }
        return Decision::act([Action::Clone(bootstrap::copy_source(view, leader))], Reason::CopyingAnew { leader: leader.clone() });
    }
    Decision::act([Action::Rejoin(leader.clone())], Reason::Rejoining { leader: leader.clone() })
}

/// It does not start, however often it is tried, and nothing but the data can be to blame. A copy that does not start either says that it
/// is not the data.
pub fn is_broken(view: &View) -> bool {
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
        return resume_bootstrap(view, data);
    }
    if let Some(wait) = crash::await_successor(view).filter(|_| view.lock == Lock::Free) {
        return wait;
    }
    let mut actions = Vec::new();
    // A copy of another cluster's primary, made under our own claim.
    let copied = view.cluster.initialize == Initialize::InProgress && view.memory.holds_initialize;
    if view.lock == Lock::Free && (view.cluster.initialize == Initialize::Absent || copied) {
        if view.is_standby_cluster() {
            // Whoever sees the cluster has to see that it follows another one.
            actions.push(Action::EnsureConfig);
        }
        // The DCS knows no cluster, and here is one.
        actions.push(Action::RecordInitialize(data.control.system_id));
    }
    actions.push(Action::StartStandby(None));
    Decision::act(actions, Reason::StartingStandby)
}

/// initdb is done and was never recorded: go on where it was left, under a claim of our own.
fn resume_bootstrap(view: &View, data: &StoppedData) -> Decision {
    if let Some(wait) = forgotten::begin(view, Some(data.control.system_id)) {
        return wait;
    }
    match view.cluster.initialize {
        Initialize::InProgress if view.memory.holds_initialize => Decision::act([Action::StartPrimary], Reason::Initializing),
        Initialize::InProgress => Decision::wait(Reason::OthersInitialize),
        Initialize::Absent => Decision::act([Action::ClaimInitialize], Reason::ClaimingInitialize),
        // Recorded, and the system is ours: only the local mark was left behind.
        Initialize::Done(_) => Decision::act([Action::BootstrapIsRecorded], Reason::RecordingBootstrap),
    }
}
