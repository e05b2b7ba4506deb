//! A paused cluster: an operator works on it, and nobody starts, stops, promotes or takes over by itself. What keeps two primaries from
//! writing holds as ever: a server without its lease is stopped.

use crate::{
    agent::{
        action::{Action, Decision},
        reason::Reason,
        view::{Local, Lock, View},
    },
    dcs::snapshot::FailoverKey,
};

/// What is left alone because of the pause; `None`: the rules go on.
pub fn holds_back(view: &View) -> Option<Decision> {
    if !view.settings.pause {
        return None;
    }
    match (&view.local, &view.lock) {
        // One that this agent itself has stopped or copied is not somebody's work in progress.
        (Local::Stopped(_), _) if view.memory.bringing_up.is_some() || view.memory.unrecorded_bootstrap => None,
        // The key says who leads; a candidate that an operator names can take it then.
        (Local::Stopped(_), Lock::Mine { .. }) => Some(Decision::act([Action::ReleaseLeader], Reason::Paused)),
        (Local::Stopped(_), _) => Some(Decision::wait(Reason::Paused)),
        (Local::Silent { .. }, Lock::Mine { .. }) => Some(Decision::wait(Reason::WaitingForServer)),
        _ => None,
    }
}

/// Who may race nevertheless: the candidate that an operator named, and whoever led last, which changes nothing.
pub fn lets_race(view: &View) -> bool {
    let me = view.me.as_str();
    let named = named_candidate(view).is_some_and(|name| name == me);
    let synced = view.cluster.sync.leader.as_deref().is_some_and(|leader| leader.eq_ignore_ascii_case(me));
    let in_history = !view.sync_active() && view.cluster.history.last().is_some_and(|line| line.4 == me);
    named || (named_candidate(view).is_none() && (synced || in_history))
}

/// The candidate of a request that is to be carried out now.
pub fn named_candidate(view: &View) -> Option<&str> {
    let request: &FailoverKey = view.cluster.failover.as_ref().filter(|request| request.scheduled_at.is_none())?;
    request.member.as_deref().filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        agent::{
            action::Stop,
            decide::{
                decide,
                tests::{NOW, mine, other, server, stopped, streaming, view},
            },
            memory::BringingUp,
        },
        dcs::snapshot::SyncState,
        postgres::control_data::ClusterState,
    };

    fn paused(local: Local, lock: Lock) -> View {
        let mut view = view(local, lock);
        view.settings.pause = true;
        view
    }

    fn request(leader: Option<&str>, member: Option<&str>, at: Option<&str>) -> FailoverKey {
        let text = |t: Option<&str>| t.map(str::to_owned);
        FailoverKey { leader: text(leader), member: text(member), scheduled_at: text(at) }
    }

    #[test]
    fn in_a_pause_nobody_starts_what_stopped_by_itself() {
        let crashed = || stopped(ClusterState::InProduction, false);
        assert_eq!(decide(&paused(crashed(), mine())).actions, [Action::ReleaseLeader]);
        assert_eq!(decide(&paused(crashed(), Lock::Free)).actions, []);
        assert_eq!(decide(&paused(stopped(ClusterState::ShutDownInRecovery, true), other())).actions, []);
        let mut hung = paused(Local::Silent { since: NOW.minus(Duration::from_secs(9999)) }, mine());
        assert_eq!(decide(&hung).actions, []);
        hung.settings.pause = false;
        assert_ne!(decide(&hung).actions, []);
    }

    #[test]
    fn what_this_agent_stopped_it_starts_again_in_a_pause_too() {
        let mut restarting = paused(stopped(ClusterState::ShutDown, false), mine());
        restarting.memory.bringing_up = Some(BringingUp::default());
        assert_eq!(decide(&restarting).actions, [Action::StartPrimary]);
    }

    #[test]
    fn in_a_pause_only_the_named_candidate_or_the_last_leader_races() {
        let mut standby = paused(Local::Standby(server(true)), Lock::Free);
        standby.cluster.members.clear();
        assert_eq!(decide(&standby).reason, Reason::Paused);
        standby.cluster.failover = Some(request(None, Some("a"), None));
        assert_eq!(decide(&standby).actions, [Action::ClaimLeader]);
        standby.cluster.failover = Some(request(None, Some("b"), None));
        assert_eq!(decide(&standby).reason, Reason::Paused);
        standby.cluster.failover = None;
        standby.cluster.sync = SyncState { leader: Some("a".into()), quorum: 1, voters: ["b".to_owned()].into() };
        assert_eq!(decide(&standby).actions, [Action::ClaimLeader], "nothing changes by it");
    }

    #[test]
    fn a_pause_never_leaves_a_primary_without_its_lease() {
        for lock in [other(), Lock::Unknown { until: Some(NOW) }] {
            assert_eq!(decide(&paused(Local::Primary(server(false)), lock)).actions, [Action::StopServer(Stop::Immediate)]);
        }
    }

    #[test]
    fn a_scheduled_hand_over_happens_in_its_time_or_not_at_all() {
        let leading = |after_ms: i64| {
            let mut server = server(false);
            server.standbys = streaming(&["b"], 1000);
            let mut view = view(Local::Primary(server), mine());
            view.cluster.failover = Some(request(Some("a"), Some("b"), Some("2030-03-17T17:46:40Z")));
            view.wishes.wall_clock = 1_900_000_000_000 + after_ms;
            view
        };
        let before = decide(&leading(-1500));
        assert_eq!((before.reason, before.recheck), (Reason::Leading, Some(Duration::from_millis(1500))));
        assert_eq!(decide(&leading(0)).actions, [Action::HandOver]);
        assert_eq!(decide(&leading(60_000)).actions, [Action::ClearFailover], "its time has passed");
        let mut paused = leading(0);
        paused.settings.pause = true;
        assert_eq!(decide(&paused).reason, Reason::Leading);
        let mut garbled = leading(0);
        garbled.cluster.failover = Some(request(Some("a"), Some("b"), Some("at noon")));
        assert_eq!(decide(&garbled).actions, [Action::ClearFailover]);
        assert_eq!(decide(&garbled).reason, Reason::BadHandOver { why: "'at noon' is no moment".into() });
    }
}
