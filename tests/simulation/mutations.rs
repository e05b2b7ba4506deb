//! Bugs that are planted around the rules that ship, to see whether they would be found.

use std::collections::BTreeMap;

use spilo::{
    agent::{
        action::{Action, Decision, PgSync},
        memory::Memory,
        reason::Reason,
        view::{Local, Lock, Peer, View},
    },
    dcs::snapshot::SyncState,
    model::{Lsn, Timeline},
    sys::clock::Moment,
};

/// A planted bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mutation {
    /// The lease counts from the answer to its renewal, not from when that was sent.
    DeadlineFromReply,
    /// The lease is used beyond its end.
    NoMargin,
    /// The guard never stops PostgreSQL.
    GuardOff,
    /// The leader key is claimed whatever became of voters and term meanwhile.
    ClaimWithoutVersions,
    /// The leader key is claimed whoever holds it.
    ClaimWithoutCondition,
    /// A release that was not answered counts as done, and what was decided on it goes on.
    UnknownIsFailed,
    /// A primary that is started in place waits for nobody.
    NamesAtStartEmpty,
    /// A diverged directory is started as it is.
    RejoinAsItIs,
    /// pg_rewind from a primary that has not written its checkpoint.
    RewindWithoutCheckpoint,
    /// A rewind leaves no mark.
    RewindWithoutMark,
    /// PostgreSQL waits for fewer standbys before the DCS knows.
    NamesBeforeVoters,
    /// Voters are named before PostgreSQL waits for them.
    VotersBeforeNames,
    /// A candidate makes do with one vote fewer.
    QuorumTooSmall,
    /// Somebody who is ahead does not matter.
    PeerAheadIgnored,
    /// A primary that still writes does not matter.
    PrimaryAliveIgnored,
    /// Positions are compared without their timelines.
    TimelineIgnored,
    /// Who is no voter may lead all the same.
    AnybodyMayLead,
    /// New voters need not have the past.
    BarrierIgnored,
    /// The clean end of the last leader is not forgotten when somebody leads again.
    CleanEndKept,
    /// Promotion with a lease that has ended.
    PromotionWithoutLease,
    /// A member that forgets everything with each turn.
    MemoryForgotten,
    /// A directory that was half rewound is started.
    HalfRewoundStarted,
    /// A primary goes on although somebody else holds the key.
    LostLockIgnored,
    /// Nobody stops a primary whose DCS is silent.
    SilenceIgnored,
    /// An empty member initialises although others have data.
    InitialiseBesideData,
    /// What a copy replaced is removed as soon as the copy runs, whether or not it streams.
    OldDataDropped,
    /// The voters of the last leader remain after a promotion.
    VotersKeptAtPromotion,
    /// The first commits after a promotion wait for nobody.
    PromotionWithoutNames,
    /// Answers of members that were silent count as votes.
    SilenceVotes,
    /// The lag limit does not matter.
    LagIgnored,
    /// Voters vote without having cut themselves off.
    UnfencedVotes,
    /// Votes of earlier terms count.
    OldVotesCount,
    /// A promise is kept in mind and the standby goes on streaming.
    FenceWithoutCut,
    /// The number of a timeline is not reserved.
    TimelineNotReserved,
    /// After a crash the lead is left whoever could be elected.
    LeftWithoutVoters,
    /// The lead is left while the crashed server is still coming up.
    LeftWhileRecovering,
    /// What the store may lose is not kept on disk.
    PastNotKept,
    /// After a loss of the store nobody is waited for who may know more.
    NobodyIsHeard,
    /// After a loss of the store each goes by what it remembers itself.
    OwnMemoryOnly,
    /// A claim after a loss of the store brings nothing back.
    NothingBroughtBack,
    /// A primary whose lease is over claims the key of a store that has forgotten who led since.
    LeaseOverIgnored,
}

impl Mutation {
    /// All of them.
    pub const ALL: &[Mutation] = &[
        Mutation::DeadlineFromReply,
        Mutation::NoMargin,
        Mutation::GuardOff,
        Mutation::ClaimWithoutVersions,
        Mutation::ClaimWithoutCondition,
        Mutation::UnknownIsFailed,
        Mutation::NamesAtStartEmpty,
        Mutation::RejoinAsItIs,
        Mutation::RewindWithoutCheckpoint,
        Mutation::RewindWithoutMark,
        Mutation::NamesBeforeVoters,
        Mutation::VotersBeforeNames,
        Mutation::QuorumTooSmall,
        Mutation::PeerAheadIgnored,
        Mutation::PrimaryAliveIgnored,
        Mutation::TimelineIgnored,
        Mutation::AnybodyMayLead,
        Mutation::BarrierIgnored,
        Mutation::CleanEndKept,
        Mutation::PromotionWithoutLease,
        Mutation::MemoryForgotten,
        Mutation::HalfRewoundStarted,
        Mutation::LostLockIgnored,
        Mutation::SilenceIgnored,
        Mutation::InitialiseBesideData,
        Mutation::OldDataDropped,
        Mutation::VotersKeptAtPromotion,
        Mutation::PromotionWithoutNames,
        Mutation::SilenceVotes,
        Mutation::LagIgnored,
        Mutation::UnfencedVotes,
        Mutation::OldVotesCount,
        Mutation::FenceWithoutCut,
        Mutation::TimelineNotReserved,
        Mutation::LeftWithoutVoters,
        Mutation::LeftWhileRecovering,
        Mutation::PastNotKept,
        Mutation::NobodyIsHeard,
        Mutation::OwnMemoryOnly,
        Mutation::NothingBroughtBack,
        Mutation::LeaseOverIgnored,
    ];

    /// Changes what the decision is made from.
    pub fn change_view(self, view: &mut View) {
        match self {
            Mutation::QuorumTooSmall if !matches!(view.local, Local::Primary(_)) => {
                view.cluster.sync.quorum = view.cluster.sync.quorum.saturating_sub(1);
            }
            Mutation::PeerAheadIgnored => answers(view, |peer| match peer {
                Peer::Standby { timeline, nofailover, vote, .. } => {
                    Peer::Standby { timeline: *timeline, position: Lsn(0), nofailover: *nofailover, vote: *vote }
                }
                other => other.clone(),
            }),
            Mutation::PrimaryAliveIgnored => answers(view, |peer| if *peer == Peer::Primary { Peer::Silent } else { peer.clone() }),
            Mutation::TimelineIgnored => {
                answers(view, |peer| match peer {
                    Peer::Standby { position, nofailover, vote, .. } => {
                        Peer::Standby { timeline: Timeline(0), position: *position, nofailover: *nofailover, vote: *vote }
                    }
                    other => other.clone(),
                });
                if let Local::Standby(facts) = &mut view.local
                    && view.lock == Lock::Free
                {
                    facts.timeline = Timeline(0);
                }
            }
            Mutation::SilenceVotes => {
                let vote = Some(view.cluster.term);
                answers(view, |peer| match peer {
                    Peer::Silent => Peer::Standby { timeline: Timeline(0), position: Lsn(1), nofailover: false, vote },
                    other => other.clone(),
                });
            }
            Mutation::UnfencedVotes => {
                let term = view.cluster.term;
                view.vote = Some(term);
                answers(view, |peer| match peer {
                    Peer::Standby { timeline, position, nofailover, .. } => {
                        Peer::Standby { timeline: *timeline, position: *position, nofailover: *nofailover, vote: Some(term) }
                    }
                    other => other.clone(),
                });
            }
            Mutation::OldVotesCount => {
                let term = view.cluster.term;
                answers(view, |peer| match peer {
                    Peer::Standby { timeline, position, nofailover, vote: Some(_) } => {
                        Peer::Standby { timeline: *timeline, position: *position, nofailover: *nofailover, vote: Some(term) }
                    }
                    other => other.clone(),
                });
            }
            Mutation::AnybodyMayLead if view.lock == Lock::Free => view.cluster.sync = SyncState::default(),
            Mutation::BarrierIgnored => view.memory.sync_barrier = None,
            Mutation::CleanEndKept if matches!(view.lock, Lock::Mine { .. }) => view.cluster.status.final_lsn = None,
            Mutation::MemoryForgotten => view.memory = Memory::default(),
            Mutation::HalfRewoundStarted => {
                if let Local::Stopped(data) = &mut view.local {
                    data.half_rewound = false;
                }
            }
            Mutation::NobodyIsHeard => view.memory.unheard.clear(),
            Mutation::LeaseOverIgnored => {
                view.memory.led_until = Some(Moment(u64::MAX));
                view.memory.past.leader = Some(view.me.clone());
            }
            Mutation::InitialiseBesideData if view.local == Local::Empty => view.cluster.members.clear(),
            Mutation::VotersKeptAtPromotion if matches!(view.local, Local::Standby(_)) => {
                view.cluster.sync = SyncState { leader: Some(view.me.to_string()), ..SyncState::default() };
            }
            Mutation::LagIgnored => view.settings.maximum_lag_on_failover = u64::MAX,
            _ => {}
        }
    }

    /// Changes what was decided.
    pub fn change_decision(self, view: &View, mut decision: Decision) -> Decision {
        match (self, &view.local) {
            (Mutation::NamesBeforeVoters, Local::Primary(server)) => {
                // Whatever voters are being replaced, PostgreSQL takes the new names first.
                let voters = decision.actions.iter().find_map(|a| match a {
                    Action::PutSync(sync) => Some(sync.clone()),
                    _ => None,
                });
                let present = PgSync::parse(&server.synchronous_standby_names);
                if let Some(sync) = voters {
                    let count = u32::try_from(sync.voters.len()).unwrap_or(u32::MAX).saturating_sub(sync.quorum);
                    let names = PgSync::any(count, sync.voters);
                    if names != present {
                        decision.actions.insert(0, Action::SetSyncNames(names));
                    }
                }
            }
            (Mutation::VotersBeforeNames, Local::Primary(_)) => {
                let me = Some(view.me.to_string());
                for action in &mut decision.actions {
                    if let Action::SetSyncNames(names) = action
                        && names.names != view.cluster.sync.voters
                    {
                        let quorum = u32::try_from(names.names.len()).unwrap_or(u32::MAX).saturating_sub(names.count);
                        *action = Action::PutSync(SyncState { leader: me, quorum, voters: names.names.clone() });
                        break;
                    }
                }
            }
            (Mutation::LeftWithoutVoters, Local::Stopped(_))
                if view.memory.crashed_at.is_some() && decision.actions == [Action::StartPrimary] =>
            {
                return Decision::act([Action::LeaveToSuccessor, Action::ReleaseLeader], Reason::LeavingAfterCrash);
            }
            (Mutation::LeftWhileRecovering, Local::Silent { .. }) if decision.reason == Reason::RecoversForLong => {
                return Decision::act([Action::LeaveToSuccessor, Action::ReleaseLeader], Reason::LeavingAfterCrash);
            }
            (Mutation::PromotionWithoutLease, Local::Standby(_)) if decision.reason == Reason::AskingPeers => {
                return Decision::act([Action::Promote], Reason::Promoting);
            }
            (Mutation::LostLockIgnored, Local::Primary(_)) if matches!(decision.reason, Reason::LostTheLock { .. }) => {
                return Decision::wait(Reason::Leading);
            }
            (Mutation::SilenceIgnored, Local::Primary(_)) if decision.reason == Reason::LeaseAlmostOver => {
                return Decision::wait(Reason::DcsSilentWhileLeading);
            }
            (Mutation::OldDataDropped, Local::Standby(_)) if view.memory.has_old_data => decision.actions.push(Action::DropOldData),
            (Mutation::PromotionWithoutNames, Local::Standby(_)) => {
                if let Some(position) = decision.actions.iter().position(|a| matches!(a, Action::SetSyncNames(_))) {
                    decision.actions[position] = Action::Promote;
                }
            }
            _ => {}
        }
        decision
    }
}

fn answers(view: &mut View, change: impl Fn(&Peer) -> Peer) {
    if let Some(peers) = &view.peers {
        view.peers = Some(peers.iter().map(|(name, peer)| (name.clone(), change(peer))).collect::<BTreeMap<_, _>>());
    }
}
