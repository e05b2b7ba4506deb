//! Nobody leads: may this standby?

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{failsafe, forgotten, pause, space, standby_cluster, switchover, watchdog};
use crate::{
    agent::{
        action::{Action, Decision},
        reason::Reason,
        view::{Peer, ServerFacts, View},
    },
    dcs::{snapshot::Initialize, tags},
    model::{Lsn, MemberName, Timeline},
};

/// How soon to look again when somebody else should go first.
const RETRY: Duration = Duration::from_millis(300);

/// How soon voters are asked again that are about to be fenced, and for how long they get that attention.
const FENCING: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(3));

/// Answers older than this are asked for again.
const FRESH: Duration = Duration::from_secs(3);
/// How long a member with a higher priority is waited for at least. One that could lead and does not must not keep the others from it.
const PREFERENCE: Duration = Duration::from_secs(2);

/// The race for the leader key. Positions are compared by timeline first: what a later timeline has forked off is not a lead.
pub fn race(view: &View, server: &ServerFacts) -> Decision {
    if view.cluster.initialize == Initialize::Absent && !tags::nofailover(&view.tags) && !view.settings.pause {
        return Decision::act([Action::RecordInitialize(server.system_id)], Reason::TakingOverExisting);
    }
    if let Some(by_memory) = forgotten::race(view, server) {
        return by_memory;
    }
    if view.settings.pause && !pause::lets_race(view) {
        // Whom an operator has named needs the votes of the others.
        let votes = pause::named_candidate(view).is_some() && lacks_its_fence(view);
        return if votes { Decision::act([Action::Fence], Reason::Fencing) } else { Decision::wait(Reason::Paused) };
    }
    let decision = run(view, server);
    // Whoever claims without being asked has a proof of its own. Everybody else who has a vote gets ready to give it at once, whether or not
    // it races itself: others wait for that.
    if (lacks_its_fence(view) && !decision.actions.contains(&Action::ClaimLeader)) || owes_its_word(view, &decision) {
        return Decision::act([Action::Fence], Reason::Fencing);
    }
    decision
}

fn run(view: &View, server: &ServerFacts) -> Decision {
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
    match fresh_answers(view) {
        None if !rivals.is_empty() => Decision::act([Action::AskPeers(rivals)], Reason::AskingPeers),
        answers => judge(view, (server.timeline, server.position), answers.unwrap_or(&BTreeMap::new())),
    }
}

fn fresh_answers(view: &View) -> Option<&BTreeMap<MemberName, Peer>> {
    let fresh = view.asked_at.is_some_and(|asked| view.now.since(asked) < FRESH);
    view.peers.as_ref().filter(|_| fresh)
}

/// A voter that may still be acknowledging commits of the last leader: its position may be old as soon as it is read, and its own candidacy
/// would leave behind what it acknowledges meanwhile.
pub fn lacks_its_fence(view: &View) -> bool {
    view.sync_active() && view.cluster.sync.votes(view.me.as_str()) && view.vote != Some(view.cluster.term)
}

/// Who led last and now waits for somebody else: that one may lack votes, and need no other word than this member's.
fn owes_its_word(view: &View, decision: &Decision) -> bool {
    is_former_leader(view, &view.me) && view.vote != Some(view.cluster.term) && decision.actions.is_empty()
}

/// The voters of now were named by it, when it led or was about to: its own data have all that was ever acknowledged.
fn is_former_leader(view: &View, name: &MemberName) -> bool {
    view.sync_active() && view.cluster.sync.leader.as_deref().is_some_and(|leader| leader.eq_ignore_ascii_case(name.as_str()))
}

/// What keeps this member out whatever the others say.
fn hindrance(view: &View, server: &ServerFacts) -> Option<Decision> {
    if view.stays_back() {
        return Some(Decision::wait_briefly(Reason::PrePromoteFailed, RETRY));
    }
    if tags::nofailover(&view.tags) {
        return Some(Decision::wait(Reason::NotAllowedToLead));
    }
    if let Some(wait) = space::wait(view) {
        return Some(wait);
    }
    if let Some(reason) = watchdog::hindrance(view).or_else(|| standby_cluster::hindrance(view)) {
        return Some(Decision::wait(reason));
    }
    if view.sync_active() {
        let out = !view.cluster.sync.admits(view.me.as_str()) && !has_clean_end(view, server);
        return out.then(|| Decision::wait_briefly(Reason::NotAmongVoters, RETRY));
    }
    if !failsafe::may_succeed(view) && !has_clean_end(view, server) {
        return Some(Decision::wait(Reason::NotInFailsafe));
    }
    let bytes = view.cluster.status.optime.ahead_of(server.position);
    (bytes > view.settings.maximum_lag_on_failover).then(|| Decision::wait_briefly(Reason::LagsTooMuch { bytes }, RETRY))
}

fn has_clean_end(view: &View, server: &ServerFacts) -> bool {
    view.cluster.status.is_complete_at(server.timeline, server.position)
}

/// Whom to ask: under synchronous replication those who may hold acknowledged commits, otherwise everybody.
fn rivals(view: &View) -> BTreeSet<MemberName> {
    let counts = |name: &&MemberName| !view.sync_active() || view.cluster.sync.admits(name.as_str());
    view.others().filter(counts).cloned().collect()
}

/// Whether the user rather has `peer` lead, as long as there was time for it to take the key.
fn is_preferred(view: &View, peer: &MemberName) -> bool {
    let waited = view.memory.unled_since.map_or(Duration::ZERO, |since| view.now.since(since));
    let priority = view.cluster.members.get(peer).map_or(1, |m| tags::failover_priority(&m.tags));
    waited < view.settings.loop_wait.max(PREFERENCE) && priority > tags::failover_priority(&view.tags)
}

fn judge(view: &View, mine: (Timeline, Lsn), peers: &BTreeMap<MemberName, Peer>) -> Decision {
    let sync = &view.cluster.sync;
    let (mut votes, mut soon, mut vouched) = (0, false, false);
    let rivals = rivals(view);
    for (name, peer) in peers.iter().filter(|(name, _)| rivals.contains(*name)) {
        match peer {
            Peer::Silent => {}
            Peer::Primary => return Decision::wait_briefly(Reason::PrimaryAlive { peer: name.clone() }, RETRY),
            Peer::Standby { timeline, position, nofailover, vote } => {
                let ahead = (*timeline, *position) > mine;
                // What the former leader has beyond its voters was never acknowledged. Without voters, one whose disk is full or that lacks a
                // watchdog is not waited for: it will not lead.
                let led_last = is_former_leader(view, name);
                let passed = if view.sync_active() { led_last } else { !space::has_room(view, name) || watchdog::lacks(view, name) };
                let passed = passed || standby_cluster::hands_over(view, name);
                if ahead && !nofailover && !passed {
                    return Decision::wait_briefly(Reason::PeerAhead { peer: name.clone() }, RETRY);
                }
                if !nofailover && !led_last && (*timeline, *position) == mine && is_preferred(view, name) {
                    return Decision::wait_briefly(Reason::PeerPreferred { peer: name.clone() }, RETRY);
                }
                let may_vote = sync.votes(name.as_str());
                // A vote from another term says nothing of who may have led, and been acknowledged to, since.
                let has_voted = *vote == Some(view.cluster.term);
                votes += u32::from(may_vote && has_voted && !ahead);
                // Whoever has all that the last leader has, which is at an end, has all that was ever acknowledged.
                vouched |= led_last && has_voted && !ahead;
                soon |= (may_vote || led_last && !ahead) && !has_voted;
            }
        }
    }
    if view.sync_active() && !is_former_leader(view, &view.me) && !vouched && votes < sync.quorum {
        let waited = view.memory.unled_since.map_or(Duration::ZERO, |since| view.now.since(since));
        let pause = if soon && waited < FENCING.1 { FENCING.0 } else { RETRY };
        return Decision::wait_briefly(Reason::TooFewVotes { votes, needed: sync.quorum }, pause);
    }
    if lacks_its_fence(view) {
        return Decision::act([Action::Fence], Reason::Fencing);
    }
    Decision::act([Action::ClaimLeader], Reason::Healthiest)
}
