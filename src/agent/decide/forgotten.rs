//! The DCS has lost its content, or got back what it held once: what was known before decides, as far as its members remember it.
//!
//! The rule: nobody begins to lead, and nobody begins a new cluster, while somebody is not heard who may know of a later leader, later voters
//! or a later timeline than all who are heard. Whoever wrote such a thing remembers it, on disk before it acts upon it, and is either a
//! member or a voter in the newest memory among those who are heard, or could not have come to lead. What is claimed then brings
//! the voters and the numbers of timelines back into the DCS in the same step: should the new leader die at once, they are known.

use std::time::Duration;

use super::race;
use crate::{
    agent::{
        action::{Action, Decision, Stop},
        reason::Reason,
        view::{Lock, ServerFacts, View},
    },
    dcs::snapshot::{Claim, Initialize},
    model::{SystemId, Term},
};

/// How soon to look again for whoever is not heard yet.
const RETRY: Duration = Duration::from_millis(300);

/// How far the first term after a loss is from the last one that is known of. Of a member that was replaced by an empty one nobody knows what
/// it knew, and should it come back it has to see that this term is later.
const GAP: u64 = 1000;

/// What a claim of the leader key rests on, and what it brings back.
pub fn claim(view: &View) -> Claim {
    let mut claim = Claim { seen: view.cluster.seen(), ..Claim::default() };
    let past = &view.memory.past;
    if view.memory.forgotten_since.is_some() && !past.is_nothing() {
        claim.seen.term = Term(claim.seen.term.max(past.as_of.term).0.saturating_add(GAP));
        claim.lost_sync = Some(past.sync.clone()).filter(|sync| sync.is_active());
        claim.lost_timelines = Some(past.timelines.clone()).filter(|timelines| timelines.reserved > 0);
    }
    claim
}

/// What keeps everybody from beginning anything, whatever else would be done. `None`: nothing.
pub fn holds_back(view: &View) -> Option<Decision> {
    let memory = &view.memory;
    memory.forgotten_since?;
    if let Lock::Mine { .. } = view.lock {
        // A key from before the loss. Nobody has been elected by what is known now.
        return Some(Decision::act([Action::ReleaseLeader], Reason::DcsForgot));
    }
    if view.lock != Lock::Free || memory.unrecorded_bootstrap {
        return None;
    }
    let (ours, theirs) = (view.local.system_id()?, memory.past.system?);
    (ours != theirs).then(|| Decision::wait(Reason::PastOfAnother { ours: ours.to_string(), theirs: theirs.to_string() }))
}

/// A standby: may it race? It does by what was known before.
pub fn race(view: &View, server: &ServerFacts) -> Option<Decision> {
    let since = view.memory.forgotten_since?;
    // A primary may be running, and commits acknowledged. It claims the key at once, or is stopped by its guard when its lease has ended.
    if view.now.since(since) < view.settings.ttl {
        return Some(Decision::wait_briefly(Reason::DcsForgot, RETRY));
    }
    Some(not_heard(view).unwrap_or_else(|| race::race(&as_before(view, server), server)))
}

/// A primary that runs and whose key is gone. It has led until now, or an agent that was started again has found it. `None`: it may lead on.
pub fn lead_on(view: &View, server: &ServerFacts) -> Option<Decision> {
    let memory = &view.memory;
    memory.forgotten_since?;
    let past = &memory.past;
    if past.is_nothing() && memory.past_unreadable.is_none() {
        return None;
    }
    if let Some(leader) = past.leader.as_ref().filter(|leader| **leader != view.me) {
        let reason = Reason::OtherLedSince { leader: leader.to_string() };
        return Some(Decision::act([Action::StopServer(Stop::Immediate)], reason));
    }
    if past.timelines.begun.is_some_and(|begun| server.timeline < begun) {
        return Some(Decision::act([Action::StopServer(Stop::Immediate)], Reason::OtherTimelineAhead));
    }
    // Until then nobody else can have led. After it, somebody may have, before the loss.
    if memory.led_until.is_some_and(|until| view.now < until) {
        return None;
    }
    not_heard(view)
}

/// A member without data, or with the beginning of a cluster that was never recorded: may it begin one? `system`: which, if it has begun.
pub fn begin(view: &View, system: Option<SystemId>) -> Option<Decision> {
    if let Some(why) = &view.memory.past_unreadable {
        return Some(Decision::wait(Reason::PastUnreadable { why: why.clone() }));
    }
    let known = view.memory.past.system.filter(|known| system != Some(*known));
    known.map(|_| Decision::wait(Reason::OthersHaveData))
}

/// Who has to be waited for.
fn not_heard(view: &View) -> Option<Decision> {
    if let Some(why) = &view.memory.past_unreadable {
        return Some(Decision::wait(Reason::PastUnreadable { why: why.clone() }));
    }
    let names: Vec<String> = view.memory.unheard.iter().cloned().collect();
    (!names.is_empty()).then(|| Decision::wait_briefly(Reason::NotHeard { members: names }, RETRY))
}

/// The view as it would be had the DCS kept what is remembered.
fn as_before(view: &View, server: &ServerFacts) -> View {
    let mut before = view.clone();
    before.memory.forgotten_since = None;
    before.cluster.initialize = Initialize::Done(server.system_id);
    before.cluster.sync = before.memory.past.sync.clone();
    before.cluster.failsafe = before.memory.past.failsafe.clone();
    before
}
