//! Nobody leads: may this standby?

use std::{collections::BTreeSet, time::Duration};

use super::switchover;
use crate::{
    agent::{
        action::{Action, Decision},
        reason::Reason,
        view::{Peer, ServerFacts, View},
    },
    dcs::snapshot::Initialize,
    model::{Lsn, MemberName, Timeline},
};

/// How soon to look again when somebody else should go first.
const RETRY: Duration = Duration::from_millis(300);

/// The race for the leader key. Positions are compared by timeline first: what a later timeline has forked off is not a lead.
pub fn race(view: &View, server: &ServerFacts) -> Decision {
    if let Some(hindrance) = hindrance(view, server) {
        return hindrance;
    }
    if let Some(request) = &view.cluster.failover
        && let Some(decision) = switchover::after_the_leader(view, server, request)
    {
        return decision;
    }
    // The last leader wrote nothing after this position and every commit it acknowledged lies before it.
    if has_clean_end(view, server) {
        return Decision::act([Action::ClaimLeader], Reason::HasCleanShutdown);
    }
    let rivals = rivals(view);
    match &view.peers {
        None if !rivals.is_empty() => Decision::act([Action::AskPeers(rivals)], Reason::AskingPeers),
        answers => {
            let none = std::collections::BTreeMap::new();
            judge(view, (server.timeline, server.position), answers.as_ref().unwrap_or(&none))
        }
    }
}

/// What keeps this member out whatever the others say.
fn hindrance(view: &View, server: &ServerFacts) -> Option<Decision> {
    if view.settings.pause {
        return Some(Decision::wait(Reason::Paused));
    }
    if view.nofailover {
        return Some(Decision::wait(Reason::NotAllowedToLead));
    }
    if view.cluster.initialize == Initialize::Absent {
        return Some(Decision::act([Action::RecordInitialize(server.system_id)], Reason::TakingOverExisting));
    }
    if view.cluster.config.is_none() {
        return Some(after_the_dcs_forgot(view, server));
    }
    if view.sync_active() {
        if !view.cluster.sync.admits(view.me.as_str()) && !has_clean_end(view, server) {
            return Some(Decision::wait_briefly(Reason::NotAmongVoters, RETRY));
        }
        return None;
    }
    let bytes = view.cluster.status.optime.ahead_of(server.position);
    (bytes > view.settings.maximum_lag_on_failover).then(|| Decision::wait_briefly(Reason::LagsTooMuch { bytes }, RETRY))
}

/// The DCS has lost its content: nobody leads as far as it knows, yet a primary may be running and commits may be acknowledged. Whoever
/// that is claims the key at once, or is stopped by its guard when its lease has ended. After that the race is run with what was known
/// before.
fn after_the_dcs_forgot(view: &View, server: &ServerFacts) -> Decision {
    let since = view.memory.forgotten_since.unwrap_or(view.now);
    if view.now.since(since) < view.settings.ttl {
        return Decision::wait_briefly(Reason::DcsForgot, RETRY);
    }
    let mut as_before = view.clone();
    let past = as_before.memory.past.clone();
    as_before.cluster.config = Some(serde_json::Value::Null);
    as_before.cluster.initialize = Initialize::Done(server.system_id);
    as_before.cluster.sync = past.sync;
    for (name, member) in past.members {
        as_before.cluster.members.entry(name).or_insert(member);
    }
    race(&as_before, server)
}

fn has_clean_end(view: &View, server: &ServerFacts) -> bool {
    view.cluster.status.is_complete_at(server.timeline, server.position)
}

/// Whom to ask: under synchronous replication those who may hold acknowledged commits, otherwise everybody.
fn rivals(view: &View) -> BTreeSet<MemberName> {
    let counts = |name: &&MemberName| !view.sync_active() || view.cluster.sync.admits(name.as_str());
    view.others().filter(counts).cloned().collect()
}

fn judge(view: &View, mine: (Timeline, Lsn), peers: &std::collections::BTreeMap<MemberName, Peer>) -> Decision {
    let sync = &view.cluster.sync;
    let former_leader = |name: &MemberName| sync.leader.as_deref().is_some_and(|l| l.eq_ignore_ascii_case(name.as_str()));
    let mut votes = 0;
    let rivals = rivals(view);
    for (name, peer) in peers.iter().filter(|(name, _)| rivals.contains(*name)) {
        match peer {
            Peer::Silent => {}
            Peer::Primary => return Decision::wait_briefly(Reason::PrimaryAlive { peer: name.clone() }, RETRY),
            Peer::Standby { timeline, position, nofailover } => {
                let ahead = (*timeline, *position) > mine;
                // What the former leader has beyond its voters was never acknowledged.
                if ahead && !nofailover && !(view.sync_active() && former_leader(name)) {
                    return Decision::wait_briefly(Reason::PeerAhead { peer: name.clone() }, RETRY);
                }
                if !ahead && sync.votes(name.as_str()) {
                    votes += 1;
                }
            }
        }
    }
    if view.sync_active() && !former_leader(&view.me) && votes < sync.quorum {
        return Decision::wait_briefly(Reason::TooFewVotes { votes, needed: sync.quorum }, RETRY);
    }
    Decision::act([Action::ClaimLeader], Reason::Healthiest)
}
