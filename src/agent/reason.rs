//! Why something was decided: the sentence for the log, the API and the tests.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::MemberName;

/// The reason for a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "each variant's sentence is its documentation")]
pub enum Reason {
    Leading,
    LeadingStandby,
    DemotingCluster,
    ComparingWithRemote,
    RejoiningRemote,
    CopyingRemote,
    StartingBehindRemote,
    NothingToFollow,
    WillNotStart,
    MustStream,
    Following { leader: MemberName },
    AskedToEnd,
    TaskRunning { task: super::view::Task },
    PostmasterHangs,
    DataGone,
    NoWatchdog { why: String },
    DiskFails { why: String },
    DcsSilentWhileLeading,
    DcsSilentWhileFollowing,
    LeadingByPromise,
    KeepingPromise { leader: Option<MemberName> },
    NotInFailsafe,
    LeaseAlmostOver,
    LostTheLock { holder: Option<MemberName> },
    NoLeaderToClone,
    Cloning { source: MemberName },
    ClaimingInitialize,
    OthersInitialize,
    BeginningLater,
    Initializing,
    RecordingBootstrap,
    TakingOverExisting,
    DiscardingUnrecorded,
    ForeignData { ours: String, theirs: String },
    Unusable { why: String },
    DiskFull,
    NoRoomToCopy { why: String },
    StartingPrimary,
    StartingStandby,
    PrimaryWillNotStart,
    LeavingAfterCrash,
    RecoversForLong,
    WaitingForServer,
    Promoting,
    PrePromoteFailed,
    PreparingPromotion,
    NoDataToLead,
    Rejoining { leader: MemberName },
    CopyingAnew { leader: MemberName },
    ComparingHistories { leader: MemberName },
    NotAllowedToLead,
    Paused,
    NotAmongVoters,
    DcsForgot,
    NotHeard { members: Vec<String> },
    PastUnreadable { why: String },
    PastOfAnother { ours: String, theirs: String },
    OthersHaveData,
    DcsUnreadable { keys: Vec<String> },
    LagsTooMuch { bytes: u64 },
    Fencing,
    AskingPeers,
    PrimaryAlive { peer: MemberName },
    PeerAhead { peer: MemberName },
    PeerPreferred { peer: MemberName },
    TooFewVotes { votes: u32, needed: u32 },
    CandidateFirst { candidate: MemberName },
    SuccessorFirst,
    Healthiest,
    NamedCandidate,
    HasCleanShutdown,
    HandingOver { candidate: Option<MemberName> },
    BadHandOver { why: String },
    AskedFor,
    OtherTimelineAhead,
    OtherLedSince { leader: String },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use Reason as R;
        match self {
            R::Leading => write!(f, "I am the leader with the lock"),
            R::LeadingStandby => write!(f, "I am the standby leader with the lock"),
            R::DemotingCluster => write!(f, "demoting: the cluster is to follow another one"),
            R::ComparingWithRemote => write!(f, "not streaming: comparing histories with the other cluster's primary"),
            R::RejoiningRemote => write!(f, "coming back behind the other cluster's primary"),
            R::CopyingRemote => write!(f, "copying the other cluster's primary"),
            R::StartingBehindRemote => write!(f, "starting PostgreSQL as a standby of the other cluster's primary"),
            R::NothingToFollow => {
                write!(f, "what is here cannot follow the other cluster: 'standby_cluster' has no 'host' to compare with")
            }
            R::WillNotStart => write!(f, "PostgreSQL does not start: giving the leader key up"),
            R::MustStream => {
                write!(f, "not racing: the nostream tag is set, and whoever leads a standby cluster streams from the other one")
            }
            R::Following { leader } => write!(f, "a secondary, following the leader '{leader}'"),
            R::AskedToEnd => write!(f, "asked to end"),
            R::TaskRunning { task } => write!(f, "{} in progress", task.name()),
            R::PostmasterHangs => write!(f, "PostgreSQL takes no new connections: killing it, to start it again"),
            R::DataGone => write!(f, "the data directory has been deleted while PostgreSQL runs: killing it; somebody else has to lead"),
            R::NoWatchdog { why } => write!(f, "not leading: a watchdog is required, and {why}"),
            R::DiskFails { why } => write!(f, "not leading: the disk of the data directory does not take writes ({why})"),
            R::DcsSilentWhileLeading => write!(f, "the DCS does not answer; leading on while the lease lasts"),
            R::DcsSilentWhileFollowing => write!(f, "the DCS does not answer; going on as before"),
            R::LeadingByPromise => write!(f, "the DCS does not answer; leading on, as everybody who could take over has promised not to"),
            R::KeepingPromise { leader: Some(leader) } => write!(f, "not racing: '{leader}' was promised to be left in the lead"),
            R::KeepingPromise { leader: None } => write!(f, "not racing: what was promised to a leader cannot be read any more"),
            R::NotInFailsafe => write!(f, "not racing: not among the members that the failsafe key names"),
            R::LeaseAlmostOver => write!(f, "demoting: the lease could not be renewed and is almost over"),
            R::LostTheLock { holder: Some(holder) } => write!(f, "demoting: '{holder}' holds the leader key"),
            R::LostTheLock { holder: None } => write!(f, "demoting: the leader key is not mine any more"),
            R::NoLeaderToClone => write!(f, "waiting for a leader to copy"),
            R::Cloning { source } => write!(f, "copying '{source}'"),
            R::ClaimingInitialize => write!(f, "trying to initialise a new cluster"),
            R::BeginningLater => write!(f, "waiting: the cluster could not be begun here, which is tried again in a while"),
            R::OthersInitialize => write!(f, "waiting: another member initialises the cluster"),
            R::Initializing => write!(f, "initialising a new cluster"),
            R::RecordingBootstrap => write!(f, "recording the new cluster in the DCS"),
            R::TakingOverExisting => write!(f, "the DCS knows no cluster and I have data: recording it"),
            R::DiscardingUnrecorded => write!(f, "another member initialised the cluster: my unused attempt is set aside"),
            R::ForeignData { ours, theirs } => {
                write!(f, "my data belongs to the system {ours}, the cluster is {theirs}: touching nothing. Is 'scope' the right one?")
            }
            R::DiskFull => write!(f, "the disk under the data directory is full: make room"),
            R::NoRoomToCopy { why } => write!(f, "{why}"),
            R::Unusable { why } => write!(f, "the data directory cannot be used: {why}"),
            R::StartingPrimary => write!(f, "starting PostgreSQL as primary"),
            R::StartingStandby => write!(f, "starting PostgreSQL as standby"),
            R::PrimaryWillNotStart => write!(f, "PostgreSQL does not start as primary: giving the leader key up"),
            R::LeavingAfterCrash => write!(f, "PostgreSQL ended by itself, and a standby can take over: giving the leader key up"),
            R::RecoversForLong => write!(f, "recovery takes long, and a standby can take over: stopping PostgreSQL"),
            R::WaitingForServer => write!(f, "waiting for PostgreSQL to answer"),
            R::Promoting => write!(f, "promoting"),
            R::PrePromoteFailed => write!(f, "not leading: pre_promote did not succeed"),
            R::PreparingPromotion => write!(f, "preparing to promote"),
            R::NoDataToLead => write!(f, "the leader key is mine but there is no data: giving it up"),
            R::CopyingAnew { leader } => write!(f, "what is here cannot follow the leader '{leader}' any more: copying it anew"),
            R::Rejoining { leader } => write!(f, "coming back behind the leader '{leader}'"),
            R::ComparingHistories { leader } => write!(f, "not streaming: comparing histories with the leader '{leader}'"),
            R::NotAllowedToLead => write!(f, "not racing: the nofailover tag is set"),
            R::Paused => write!(f, "not racing: the cluster is paused"),
            R::DcsForgot => write!(f, "the DCS has lost what it knew: a primary that still runs goes first"),
            R::NotHeard { members } => write!(
                f,
                "the DCS has lost what it knew, and '{}' may know more than those who are here: start what is missing, or, if it is gone for \
                 good, an empty member of the same name",
                members.join("', '")
            ),
            R::PastUnreadable { why } => write!(f, "{why}"),
            R::PastOfAnother { ours, theirs } => write!(
                f,
                "the DCS has lost what it knew, my data belong to the system {ours}, and what I remember is of {theirs}: touching nothing. If the \
                 data are the right ones, remove the file '.past' beside the data directory and start the agent again"
            ),
            R::OthersHaveData => write!(
                f,
                "the DCS knows no cluster, and I remember one: waiting for a member that has its data. To begin anew, remove the file '.past' \
                 beside the data directory and start the agent again"
            ),
            R::DcsUnreadable { keys } => write!(
                f,
                "the DCS holds what makes no sense in '{}': nobody begins to lead by it. Write what belongs there, or delete it if nothing does",
                keys.join("', '")
            ),
            R::NotAmongVoters => write!(f, "not racing: not a synchronous standby"),
            R::LagsTooMuch { bytes } => write!(f, "not racing: {bytes} bytes behind the last leader"),
            R::Fencing => write!(f, "no leader: cutting myself off from the last one before I vote"),
            R::AskingPeers => write!(f, "no leader: asking the other members"),
            R::PrimaryAlive { peer } => write!(f, "not racing: '{peer}' still accepts writes"),
            R::PeerAhead { peer } => write!(f, "not racing: '{peer}' is ahead"),
            R::PeerPreferred { peer } => write!(f, "not racing: '{peer}' has as much and a higher failover_priority"),
            R::TooFewVotes { votes, needed } => write!(f, "not racing: {votes} of {needed} needed voters have given their vote"),
            R::CandidateFirst { candidate } => write!(f, "waiting for the candidate '{candidate}'"),
            R::SuccessorFirst => write!(f, "waiting for a successor: I have just left the lead"),
            R::Healthiest => write!(f, "no leader and nobody ahead: taking the leader key"),
            R::NamedCandidate => write!(f, "named as candidate and complete: taking the leader key"),
            R::HasCleanShutdown => write!(f, "the last leader shut down cleanly and I have all of it: taking the leader key"),
            R::HandingOver { candidate: Some(candidate) } => write!(f, "handing over to '{candidate}'"),
            R::HandingOver { candidate: None } => write!(f, "handing over"),
            R::BadHandOver { why } => write!(f, "not handing over: {why}"),
            R::AskedFor => write!(f, "doing what an operator asked for"),
            R::OtherTimelineAhead => write!(f, "demoting: the cluster has moved to a later timeline"),
            R::OtherLedSince { leader } => write!(f, "demoting: '{leader}' has led since"),
        }
    }
}
