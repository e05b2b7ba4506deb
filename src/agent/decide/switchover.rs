//! Handing over on request: the leader's part, and the others' after it has gone.

use std::{collections::BTreeSet, time::Duration};

use super::watchdog;
use crate::{
    agent::{
        action::{Action, Decision},
        reason::Reason,
        view::{Peer, ServerFacts, View},
    },
    dcs::{snapshot::FailoverKey, tags},
    model::{Lsn, MemberName, Timeline},
};

/// How soon to look again while the candidate is on its way.
const RETRY: Duration = Duration::from_millis(300);

/// How long whoever should go first is waited for without asking whether it is alive: on a busy machine a single question may go unanswered.
const HEAD_START: Duration = Duration::from_secs(2);

/// How long whoever should go first may take although it looks healthy: after that it lacks something that this member need not lack, such as
/// votes.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// How late a scheduled hand-over may begin at the least, whatever `loop_wait` is.
const LATEST: Duration = Duration::from_secs(5);

/// When a request is to be carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Timing {
    /// Now.
    Now,
    /// Later: look again after this, or when something changes.
    Later(Option<Duration>),
    /// Never any more.
    Over(String),
}

/// When the request is to be carried out. A moment that nobody could act upon is over: who planned for the night does not want it at noon.
pub fn timing(view: &View, request: &FailoverKey) -> Timing {
    let Some(due) = request.due() else { return Timing::Now };
    let Ok(due) = due else { return Timing::Over(format!("'{}' is no moment", request.scheduled_at.as_deref().unwrap_or_default())) };
    let now = view.wishes.wall_clock;
    if now < due {
        return Timing::Later(u64::try_from(due.saturating_sub(now)).ok().map(Duration::from_millis));
    }
    let late = Duration::from_millis(u64::try_from(now.saturating_sub(due)).unwrap_or(u64::MAX));
    if late > LATEST.max(view.settings.loop_wait * 3 / 2) {
        return Timing::Over("its time has passed".to_owned());
    }
    if view.settings.pause { Timing::Later(None) } else { Timing::Now }
}

/// Takes a request back.
pub fn withdraw(why: String) -> Decision {
    Decision::act([Action::ClearFailover], Reason::BadHandOver { why })
}

/// The leader is asked to hand over: to somebody who streams and, under synchronous replication, may succeed it.
pub fn asked_to_hand_over(view: &View, server: &ServerFacts, request: &FailoverKey) -> Decision {
    let refuse = withdraw;
    if let Some(leader) = request.leader.as_deref().filter(|l| !l.is_empty() && *l != view.me.as_str()) {
        return refuse(format!("the request names '{leader}' as leader"));
    }
    let may_succeed = |name: &MemberName| may_succeed(view, server, name);
    match request.member.as_deref().filter(|m| !m.is_empty()) {
        Some(name) if name == view.me.as_str() => refuse("the candidate leads already".to_owned()),
        Some(name) => match view.others().find(|m| m.as_str() == name) {
            Some(member) if may_succeed(member) => {
                Decision::act([Action::HandOver], Reason::HandingOver { candidate: Some(member.clone()) })
            }
            Some(member) => refuse(format!("'{member}' is not a standby that could take over without loss")),
            None => refuse(format!("there is no member '{name}'")),
        },
        None if view.others().any(may_succeed) => Decision::act([Action::HandOver], Reason::HandingOver { candidate: None }),
        None => refuse("there is no standby that could take over without loss".to_owned()),
    }
}

/// It streams and, under synchronous replication, has what was acknowledged.
pub fn may_succeed(view: &View, server: &ServerFacts, name: &MemberName) -> bool {
    let tagged = view.cluster.members.get(name).is_none_or(|m| tags::nofailover(&m.tags));
    let streams = server.standbys.iter().any(|s| s.state == "streaming" && s.application_name.eq_ignore_ascii_case(name.as_str()));
    !tagged && streams && !watchdog::lacks(view, name) && (!view.sync_active() || view.cluster.sync.votes(name.as_str()))
}

/// The leader has handed over and nobody leads yet. `None`: the request does not change the race.
pub fn after_the_leader(view: &View, server: &ServerFacts, request: &FailoverKey) -> Option<Decision> {
    if timing(view, request) != Timing::Now {
        return None;
    }
    let candidate = request.member.as_deref().filter(|m| !m.is_empty());
    let was_leader = request.leader.as_deref() == Some(view.me.as_str());
    if candidate == Some(view.me.as_str()) {
        // In a standby cluster nothing can be lost: what this member lacks, the other cluster has.
        let harmless = view.is_standby_cluster() && !view.sync_active();
        let complete = harmless || view.cluster.status.is_complete_at(server.timeline, server.position);
        return complete.then(|| Decision::act([Action::ClaimLeader], Reason::NamedCandidate));
    }
    let first: BTreeSet<MemberName> = match candidate {
        Some(name) => view.others().filter(|m| m.as_str() == name).cloned().collect(),
        None if was_leader => view.others().cloned().collect(),
        None => return None,
    };
    if first.is_empty() {
        return None;
    }
    let waited = view.memory.unled_since.map_or(Duration::ZERO, |since| view.now.since(since));
    if waited < HEAD_START {
        let candidate = candidate.and_then(|c| c.parse().ok());
        let reason = candidate.map_or(Reason::SuccessorFirst, |candidate| Reason::CandidateFirst { candidate });
        return Some(Decision::wait_briefly(reason, RETRY));
    }
    if waited >= LONGEST_WAIT {
        return None;
    }
    let Some(answers) = &view.peers else {
        // Everybody: when the first ones turn out to be dead, the race goes on with the same answers.
        return Some(Decision::act([Action::AskPeers(view.others().cloned().collect())], Reason::AskingPeers));
    };
    let healthy =
        |name: &MemberName| answers.get(name).is_some_and(|peer| could_lead(view, name, peer, (server.timeline, server.position)));
    match (first.iter().any(healthy), candidate.and_then(|c| c.parse().ok())) {
        (true, Some(candidate)) => Some(Decision::wait_briefly(Reason::CandidateFirst { candidate }, RETRY)),
        (true, None) => Some(Decision::wait_briefly(Reason::SuccessorFirst, RETRY)),
        (false, _) => None,
    }
}

/// A standby that has all the last leader wrote, or, where that is unknown, at least what this member has, and that is a voter where voters
/// decide: any other would wait for us while we wait for it.
fn could_lead(view: &View, name: &MemberName, peer: &Peer, mine: (Timeline, Lsn)) -> bool {
    match peer {
        Peer::Standby { nofailover: false, .. } if view.is_standby_cluster() && !view.sync_active() => true,
        Peer::Standby { timeline, position, nofailover: false, .. } => match view.cluster.status.final_lsn {
            Some(_) => view.cluster.status.is_complete_at(*timeline, *position),
            None => (*timeline, *position) >= mine && (!view.sync_active() || view.cluster.sync.admits(name.as_str())),
        },
        _ => false,
    }
}
