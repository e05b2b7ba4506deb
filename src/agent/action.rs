//! What a decision may ask for.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{reason::Reason, wish::Refusal};
use crate::{
    dcs::snapshot::SyncState,
    model::{Lsn, MemberName, SystemId, Timeline},
    spec::slots::LogicalSlot,
};

/// What to do and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// To be performed in this order.
    pub actions: Vec<Action>,
    /// Why.
    pub reason: Reason,
    /// Look again this soon, even if nothing happens; `None`: after `loop_wait`.
    pub recheck: Option<Duration>,
}

/// What the leader of a standby cluster does towards the primary of the other cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Remote {
    /// Start as its standby.
    Start,
    /// Point the running standby at it.
    Follow,
    /// Replace what is here by a copy of it.
    Copy,
    /// Find out how to follow it, rewind or copy where needed.
    Rejoin,
    /// Compare histories with it.
    Compare,
    /// Note in the DCS that this timeline of it is followed.
    RecordTimeline(Timeline),
}

/// How PostgreSQL is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// Cleanly, with a checkpoint.
    Fast,
    /// At once.
    Immediate,
    /// SIGKILL to every process, for what heeds nothing else.
    Kill,
}

/// One effect. Each may be repeated: it is named by the state it leads to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Claim the right to initialise, and if it is ours and there is no data, run initdb.
    ClaimInitialize,
    /// Record this system identifier as the cluster's.
    RecordInitialize(SystemId),
    /// Write the first dynamic configuration if there is none.
    EnsureConfig,
    /// Create the roles that a new cluster begins with.
    EnsureRoles,
    /// Forget that the bootstrap is unrecorded.
    BootstrapIsRecorded,
    /// Move the data directory aside.
    SetDataAside,
    /// Cut the standby off from whoever led, see that it is, and promise to follow nobody before the next term.
    Fence,
    /// Ask these members for their positions.
    AskPeers(BTreeSet<MemberName>),
    /// Take the leader key.
    ClaimLeader,
    /// Note that the lead is left to others after a crash: what follows may reach the DCS although no answer comes back.
    LeaveToSuccessor,
    /// Give the leader key up.
    ReleaseLeader,
    /// Start as primary.
    StartPrimary,
    /// Start as standby, following this member or nobody.
    StartStandby(Option<MemberName>),
    /// Point the running standby at this member or at nobody.
    Follow(Option<MemberName>),
    /// Copy this member.
    Clone(MemberName),
    /// Find out how to follow this member, rewind or copy where needed, start.
    Rejoin(MemberName),
    /// Compare histories with this member.
    CompareHistories(MemberName),
    /// Take this number, or a higher one, for the timeline that is to begin.
    ReserveTimeline(Timeline),
    /// Note in the DCS that the leader writes this timeline.
    RecordTimeline(Timeline),
    /// Ask the user's program whether this member may be promoted.
    RunPrePromote,
    /// Give up the work that runs.
    CancelTask,
    /// Make the standby a primary, on the timeline that was reserved.
    Promote,
    /// Do not start PostgreSQL in place again: it has had its time.
    GiveUpStarting,
    /// Stop PostgreSQL.
    StopServer(Stop),
    /// Stop the primary cleanly, then give the leader key up with its last position.
    HandOver,
    /// Stop the primary cleanly and keep the leader key: the cluster follows another one from now on.
    DemoteCluster,
    /// What is done towards the primary of another cluster.
    Remote(Remote),
    /// Set `synchronous_standby_names`.
    SetSyncNames(PgSync),
    /// Write who may succeed the leader.
    PutSync(SyncState),
    /// Write whose promises the leader needs when the DCS does not answer; empty: nobody's.
    PutFailsafe(BTreeMap<String, String>),
    /// Write the leader's progress.
    PutStatus,
    /// Take back what the last leader wrote of its clean end.
    ForgetCleanEnd,
    /// Bring the history of timelines up to date.
    EnsureHistory,
    /// Clear the request to hand over.
    ClearFailover,
    /// Make sure that these members have slots.
    EnsureSlots(BTreeSet<MemberName>),
    /// Make sure that these slots, which are nobody's in particular, exist.
    EnsureKeptSlots(BTreeSet<String>),
    /// Create these logical slots, which standbys take over.
    CreateLogicalSlots(BTreeMap<String, LogicalSlot>),
    /// Let these slots, which nobody streams through, release the WAL before these positions.
    AdvanceSlots(BTreeMap<String, Lsn>),
    /// Drop slots of members that have been away too long.
    DropSlots(BTreeSet<String>),
    /// Write a checkpoint, so that the control file names the new timeline.
    Checkpoint,
    /// Remove the data directory that a copy replaced.
    DropOldData,
    /// Stop the server and start it again in the same role; its start may take as long as this, instead of `primary_start_timeout`.
    Restart {
        /// How long.
        patience: Option<Duration>,
    },
    /// Replace the data directory by a copy of this member.
    Reinitialize(MemberName),
    /// Tell whoever asked that it is not done.
    Refuse(Refusal),
    /// A scheduled restart has had its time.
    ForgetScheduledRestart,
    /// Leave the DCS and end the process.
    End,
    /// End the process and its guard, touching nothing: somebody has to change something.
    RefuseToStart,
}

impl Decision {
    /// Does nothing, until something happens.
    pub fn wait(reason: Reason) -> Decision {
        Decision { actions: Vec::new(), reason, recheck: None }
    }

    /// Does nothing, and looks again soon.
    pub fn wait_briefly(reason: Reason, recheck: Duration) -> Decision {
        Decision { actions: Vec::new(), reason, recheck: Some(recheck) }
    }

    /// Does this, for this reason.
    pub fn act(actions: impl IntoIterator<Item = Action>, reason: Reason) -> Decision {
        Decision { actions: actions.into_iter().collect(), reason, recheck: None }
    }
}

/// The value of `synchronous_standby_names`: any `count` of `names`. No names: the primary acknowledges alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PgSync {
    /// How many have to confirm.
    pub count: u32,
    /// Of whom.
    pub names: BTreeSet<String>,
}

impl PgSync {
    /// Any `count` of `names`, or fewer when there are fewer.
    pub fn any(count: u32, names: BTreeSet<String>) -> PgSync {
        let most = u32::try_from(names.len()).unwrap_or(u32::MAX);
        PgSync { count: count.min(most), names }
    }

    /// As PostgreSQL reads it.
    pub fn render(&self) -> String {
        if self.names.is_empty() {
            return String::new();
        }
        let quoted: Vec<String> = self.names.iter().map(|n| format!("\"{}\"", n.replace('"', "\"\""))).collect();
        format!("ANY {} ({})", self.count, quoted.join(","))
    }

    /// Reads what [`PgSync::render`] wrote; anything else counts as waiting for nobody, which is the weakest assumption.
    pub fn parse(text: &str) -> PgSync {
        let parts = text.strip_prefix("ANY ").and_then(|rest| rest.strip_suffix(')')?.split_once(" ("));
        let Some((count, list)) = parts else { return PgSync::default() };
        let names = list.split(',').map(|n| n.trim().trim_matches('"').replace("\"\"", "\"")).filter(|n| !n.is_empty()).collect();
        PgSync { count: count.parse().unwrap_or_default(), names }
    }
}
