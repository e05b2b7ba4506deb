//! What really happened in a run: a rule that was never asked proves nothing.

use std::collections::BTreeMap;

use spilo::agent::{action::Action, reason::Reason, view::Task};

/// How often what occurred.
#[derive(Debug, Clone, Default)]
pub struct Counters {
    pub events: u64,
    pub seen: BTreeMap<(&'static str, &'static str), u64>,
}

impl Counters {
    fn count(&mut self, kind: &'static str, what: &'static str) {
        *self.seen.entry((kind, what)).or_default() += 1;
    }

    /// A decision had this reason.
    pub fn reason(&mut self, reason: &Reason) {
        self.count("reason", reason_name(reason));
    }

    /// An action was begun.
    pub fn action(&mut self, action: &Action) {
        self.count("action", action_name(action));
    }

    /// A task came to its end.
    pub fn task(&mut self, task: Task) {
        self.count("task", task_name(task));
    }

    /// A fault happened.
    pub fn fault(&mut self, fault: &'static str) {
        self.count("fault", fault);
    }

    /// Something happened that a run should have seen.
    pub fn event(&mut self, event: &'static str) {
        self.count("event", event);
    }

    /// Adds another run's.
    pub fn add(&mut self, other: &Counters) {
        self.events += other.events;
        for (key, count) in &other.seen {
            *self.seen.entry(*key).or_default() += count;
        }
    }

    /// What has to occur in a long run and did not.
    pub fn missing(&self) -> Vec<(&'static str, &'static str)> {
        let reasons = REASONS.iter().map(|r| ("reason", *r));
        let actions = ACTIONS.iter().map(|a| ("action", *a));
        let tasks = TASKS.iter().map(|t| ("task", *t));
        let faults = crate::faults::NAMES.iter().map(|f| ("fault", *f));
        let all = reasons.chain(actions).chain(tasks).chain(faults);
        all.filter(|key| !self.seen.contains_key(key)).collect()
    }
}

/// Declares the names of an enum's variants: all of them, or the build fails; and which of them a long run has to see.
macro_rules! names {
    ($function:ident, $type:ident, $list:ident, seen: [$($seen:ident),* $(,)?], rare: [$($rare:ident),* $(,)?]) => {
        fn $function(value: &$type) -> &'static str {
            match value {
                $($type::$seen { .. } => stringify!($seen),)*
                $($type::$rare { .. } => stringify!($rare),)*
            }
        }
        /// What a long run has to see.
        pub const $list: &[&str] = &[$(stringify!($seen)),*];
    };
}

names!(
    reason_name, Reason, REASONS,
    seen: [
        Leading, Following, TaskRunning, DcsSilentWhileLeading, DcsSilentWhileFollowing, LeaseAlmostOver, LostTheLock,
        NoLeaderToClone, Cloning, ClaimingInitialize, OthersInitialize, Initializing, RecordingBootstrap, TakingOverExisting,
        StartingPrimary, StartingStandby, PrimaryWillNotStart, LeavingAfterCrash, RecoversForLong, WaitingForServer, Promoting, PreparingPromotion, NoDataToLead,
        Rejoining, CopyingAnew, ComparingHistories, Paused, NotAmongVoters, DcsForgot, LagsTooMuch, AskingPeers, PrimaryAlive,
        PeerAhead, TooFewVotes, CandidateFirst, SuccessorFirst, Healthiest, NamedCandidate, HasCleanShutdown, HandingOver, BadHandOver,
        OtherLedSince, NotHeard, OthersHaveData,
        Fencing,
    ],
    // Data of another system, a cluster that cannot be begun, another cluster to follow, unusable data and an agent told to end are not part of this world; the rest needs more than one rare thing.
    rare: [AskedToEnd, DiscardingUnrecorded, BeginningLater, ForeignData, Unusable, NotAllowedToLead, OtherTimelineAhead, AskedFor, LeadingByPromise, KeepingPromise, NotInFailsafe, PostmasterHangs, DataGone, DiskFails, DiskFull, NoRoomToCopy, PrePromoteFailed, PeerPreferred, NoWatchdog, DcsUnreadable, PastUnreadable, PastOfAnother, LeadingStandby, DemotingCluster,
        ComparingWithRemote, RejoiningRemote, CopyingRemote, StartingBehindRemote, NothingToFollow, WillNotStart, MustStream]
);

names!(
    action_name, Action, ACTIONS,
    seen: [
        ClaimInitialize, RecordInitialize, EnsureConfig, EnsureRoles, BootstrapIsRecorded, AskPeers, ClaimLeader, LeaveToSuccessor, ReleaseLeader,
        StartPrimary, StartStandby, Fence, ReserveTimeline, RecordTimeline, Follow, Clone, Rejoin, CompareHistories, Promote, GiveUpStarting, StopServer, HandOver, SetSyncNames,
        PutSync, PutStatus, ForgetCleanEnd, EnsureHistory, ClearFailover, EnsureSlots, DropSlots, Checkpoint, DropOldData,
    ],
    rare: [SetDataAside, End, Restart, Reinitialize, Refuse, ForgetScheduledRestart, RefuseToStart, PutFailsafe, RunPrePromote, CancelTask, EnsureKeptSlots, CreateLogicalSlots, AdvanceSlots, DemoteCluster, Remote]
);

fn task_name(task: Task) -> &'static str {
    named_task(&task)
}

names!(named_task, Task, TASKS, seen: [Initialize, Clone, Rejoin, CompareHistories, Promote, HandOver, Checkpoint], rare: [Stop, Restart, RestartPrimary, Reinitialize, PrePromote, DemoteCluster, CreateSlots]);
