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
    Following { leader: MemberName },
    AskedToEnd,
    TaskRunning { task: super::view::Task },
    DcsSilentWhileLeading,
    DcsSilentWhileFollowing,
    LeadingByPromise,
    KeepingPromise { leader: Option<MemberName> },
    NotInFailsafe,
    LeaseAlmostOver,
    LostTheLock { holder: Option<MemberName> },
    NoLeaderToClone,
    Cloning { leader: MemberName },
    ClaimingInitialize,
    OthersInitialize,
    Initializing,
    RecordingBootstrap,
    TakingOverExisting,
    DiscardingUnrecorded,
    ForeignData { ours: String, theirs: String },
    Unusable { why: String },
    StartingPrimary,
    StartingStandby,
    PrimaryWillNotStart,
    WaitingForServer,
    Promoting,
    PreparingPromotion,
    NoDataToLead,
    Rejoining { leader: MemberName },
    CopyingAnew { leader: MemberName },
    ComparingHistories { leader: MemberName },
    NotAllowedToLead,
    Paused,
    NotAmongVoters,
    DcsForgot,
    LagsTooMuch { bytes: u64 },
    Fencing,
    AskingPeers,
    PrimaryAlive { peer: MemberName },
    PeerAhead { peer: MemberName },
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
            R::Following { leader } => write!(f, "a secondary, following the leader '{leader}'"),
            R::AskedToEnd => write!(f, "asked to end"),
            R::TaskRunning { task } => write!(f, "{} in progress", task.name()),
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
            R::Cloning { leader } => write!(f, "copying the leader '{leader}'"),
            R::ClaimingInitialize => write!(f, "trying to initialise a new cluster"),
            R::OthersInitialize => write!(f, "waiting: another member initialises the cluster"),
            R::Initializing => write!(f, "initialising a new cluster"),
            R::RecordingBootstrap => write!(f, "recording the new cluster in the DCS"),
            R::TakingOverExisting => write!(f, "the DCS knows no cluster and I have data: recording it"),
            R::DiscardingUnrecorded => write!(f, "another member initialised the cluster: my unused attempt is set aside"),
            R::ForeignData { ours, theirs } => {
                write!(f, "my data belongs to the system {ours}, the cluster is {theirs}: touching nothing. Is 'scope' the right one?")
            }
            R::Unusable { why } => write!(f, "the data directory cannot be used: {why}"),
            R::StartingPrimary => write!(f, "starting PostgreSQL as primary"),
            R::StartingStandby => write!(f, "starting PostgreSQL as standby"),
            R::PrimaryWillNotStart => write!(f, "PostgreSQL does not start as primary: giving the leader key up"),
            R::WaitingForServer => write!(f, "waiting for PostgreSQL to answer"),
            R::Promoting => write!(f, "promoting"),
            R::PreparingPromotion => write!(f, "preparing to promote"),
            R::NoDataToLead => write!(f, "the leader key is mine but there is no data: giving it up"),
            R::CopyingAnew { leader } => write!(f, "what is here cannot follow the leader '{leader}' any more: copying it anew"),
            R::Rejoining { leader } => write!(f, "coming back behind the leader '{leader}'"),
            R::ComparingHistories { leader } => write!(f, "not streaming: comparing histories with the leader '{leader}'"),
            R::NotAllowedToLead => write!(f, "not racing: the nofailover tag is set"),
            R::Paused => write!(f, "not racing: the cluster is paused"),
            R::DcsForgot => write!(f, "the DCS has lost what it knew: a primary that still runs goes first"),
            R::NotAmongVoters => write!(f, "not racing: not a synchronous standby"),
            R::LagsTooMuch { bytes } => write!(f, "not racing: {bytes} bytes behind the last leader"),
            R::Fencing => write!(f, "no leader: cutting myself off from the last one before I vote"),
            R::AskingPeers => write!(f, "no leader: asking the other members"),
            R::PrimaryAlive { peer } => write!(f, "not racing: '{peer}' still accepts writes"),
            R::PeerAhead { peer } => write!(f, "not racing: '{peer}' is ahead"),
            R::TooFewVotes { votes, needed } => write!(f, "not racing: {votes} of {needed} needed voters have given their vote"),
            R::CandidateFirst { candidate } => write!(f, "waiting for the candidate '{candidate}'"),
            R::SuccessorFirst => write!(f, "waiting for a successor: I have just handed over"),
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
