//! While the DCS does not answer the leader: whose promises it needs to lead on, and what those do who promised.
//!
//! The rule that must hold at every moment: nobody can take the leader's place who has not promised to leave it there. So it asks everybody
//! who may, as far as the DCS says or may say by now, and one that does not answer is one that may be taking over.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::recovery::STARTS_IN_PLACE;
use crate::{
    agent::{
        action::{Action, Decision, Stop},
        reason::Reason,
        view::{Local, Lock, Memory, StoppedData, View},
    },
    dcs::snapshot::Snapshot,
    model::MemberName,
    sys::clock::Moment,
};

/// How soon the DCS is asked again while it does not answer.
const RETRY: Duration = Duration::from_millis(200);

/// What an immediate stop is given before the lease ends. The guard waits for the very end.
const STOP_EARLY: Duration = Duration::from_millis(200);

/// A start in place is begun only with this much left.
const START: Duration = Duration::from_secs(1);

/// Everybody who may take the place of `me`, by the names that the DCS knows them under. `None`: anybody may, so no promises help.
pub fn circle(me: &MemberName, cluster: &Snapshot, memory: &Memory) -> Option<BTreeSet<String>> {
    let mut circle = BTreeSet::new();
    for sync in memory.sync_in_doubt.values().chain([&cluster.sync]) {
        if sync.is_active() {
            circle.extend(sync.voters.iter().chain(&sync.leader).cloned());
            continue;
        }
        for members in memory.failsafe_in_doubt.values().chain([&cluster.failsafe]) {
            circle.extend(members.as_ref()?.keys().cloned());
        }
    }
    circle.retain(|name| !name.eq_ignore_ascii_case(me.as_str()));
    Some(circle)
}

/// Without synchronous replication the failsafe key says who may succeed the leader: the leader may be leading on by the promises of those.
pub fn may_succeed(view: &View) -> bool {
    view.cluster.failsafe.as_ref().is_none_or(|members| members.contains_key(view.me.as_str()))
}

/// The failsafe key, if it is not what it should be: everybody whom the leader could ask, or nobody.
pub fn key_to_write(view: &View) -> Option<Action> {
    // Whoever only follows needs nobody's leave to go on.
    let asks = view.settings.failsafe_mode && !view.is_standby_cluster();
    let reachable = view.cluster.members.iter().filter(|(_, member)| asks && !member.api_url.is_empty());
    let wanted: BTreeMap<String, String> = reachable.map(|(name, member)| (name.to_string(), member.api_url.clone())).collect();
    (view.cluster.failsafe.clone().unwrap_or_default() != wanted).then_some(Action::PutFailsafe(wanted))
}

/// What a promise to another member leaves to be done; `None`: it changes nothing.
pub fn keep_promise(view: &View) -> Option<Decision> {
    let promise = view.memory.promise.as_ref().filter(|p| p.binds(view.now) && p.leader.as_ref() != Some(&view.me))?;
    let reason = || Reason::KeepingPromise { leader: promise.leader.clone() };
    match (&view.local, &view.lock) {
        // A claim that arrived after all: whoever was promised to is leading.
        (Local::Empty | Local::Stopped(_) | Local::Standby(_), Lock::Mine { .. }) => Some(Decision::act([Action::ReleaseLeader], reason())),
        (Local::Stopped(data), Lock::Free | Lock::Unknown { .. }) if !data.half_rewound && data.standby_signal => {
            Some(Decision::act([Action::StartStandby(promise.leader.clone())], reason()))
        }
        (Local::Standby(server), Lock::Free | Lock::Unknown { .. }) => {
            let lost = !server.streaming && !promise.conn_url.is_empty();
            let follow = promise.leader.clone().filter(|_| lost).map(|leader| Action::Follow(Some(leader)));
            let soon = Some(promise.until.since(view.now)).filter(|_| view.lock == Lock::Free);
            Some(Decision { actions: follow.into_iter().collect(), reason: reason(), recheck: soon })
        }
        _ => None,
    }
}

/// The DCS does not answer. The lease, or the last promises of everybody who could take over, last until `until`.
pub fn lead_on(view: &View, until: Moment) -> Decision {
    if view.now + STOP_EARLY >= until {
        return Decision::act([Action::StopServer(Stop::Immediate)], Reason::LeaseAlmostOver);
    }
    let confirmed = view.memory.confirmed_until == Some(until);
    let reason = if confirmed { Reason::LeadingByPromise } else { Reason::DcsSilentWhileLeading };
    Decision::wait_briefly(reason, RETRY.min(until.since(view.now + STOP_EARLY)))
}

/// A leader whose server is down while the DCS does not answer: it is started in place as long as nobody else can lead. `None`: not so.
pub fn start_in_place(view: &View, data: &StoppedData, until: Moment) -> Option<Decision> {
    let memory = &view.memory;
    let leads = memory.circle.is_some() && view.cluster.leader.as_ref() == Some(&view.me) && view.now < until;
    // Whom its commits have to wait for follows from what the DCS says of the voters.
    let known = memory.sync_in_doubt.is_empty();
    // Nor if it has given the leader key up, which the DCS may have heard before it fell silent.
    let leads = leads && !memory.has_left();
    let sound = data.control.was_primary() && !data.standby_signal && !data.half_rewound && memory.failed_starts <= STARTS_IN_PLACE;
    if !(leads && known && sound) {
        return None;
    }
    // The next round may give it the time: as a standby it would stay one until the DCS answers.
    let enough = view.now + START < until;
    Some(if enough {
        Decision::act([Action::StartPrimary], Reason::StartingPrimary)
    } else {
        Decision::wait_briefly(Reason::StartingPrimary, RETRY)
    })
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            decide,
            tests::{NOW, claims, mine, name, quorum, racing, server, standby_peer, stopped, view},
        },
        *,
    };
    use crate::{
        agent::view::Promise,
        dcs::snapshot::{StatusKey, SyncState},
        model::{Lsn, Timeline},
        postgres::control_data::ClusterState,
    };

    const SECOND: Duration = Duration::from_secs(1);

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    fn sync(leader: &str, voters: &[&str]) -> SyncState {
        SyncState { leader: Some(leader.into()), quorum: 0, voters: names(voters) }
    }

    fn key(members: &[&str]) -> Option<BTreeMap<String, String>> {
        Some(members.iter().map(|n| ((*n).to_owned(), format!("http://{n}:8008/patroni"))).collect())
    }

    fn circle_of(cluster: &Snapshot, memory: &Memory) -> Option<BTreeSet<String>> {
        circle(&name("a"), cluster, memory)
    }

    fn promised(view: View, to: &str) -> View {
        promised_until(view, to, NOW + SECOND * 5)
    }

    fn promised_until(mut view: View, to: &str, until: Moment) -> View {
        let conn_url = "postgres://h:5432/postgres".to_owned();
        view.memory.promise = Some(Promise { leader: Some(name(to)), given: NOW.minus(SECOND), until, conn_url });
        view
    }

    #[test]
    fn under_synchronous_replication_the_voters_are_asked() {
        let memory = Memory::default();
        let mut cluster = Snapshot { sync: sync("A", &["b", "c"]), failsafe: key(&["a", "z"]), ..Snapshot::default() };
        assert_eq!(circle_of(&cluster, &memory), Some(names(&["b", "c"])));
        cluster.sync = sync("b", &["a"]);
        assert_eq!(circle_of(&cluster, &memory), Some(names(&["b"])), "whoever named the voters may come back");
        cluster.sync = sync("a", &[]);
        assert_eq!(circle_of(&cluster, &memory), Some(names(&[])), "nobody else may lead");
    }

    #[test]
    fn without_it_the_members_of_the_failsafe_key_are_asked_and_without_that_no_promise_helps() {
        let memory = Memory::default();
        let mut cluster = Snapshot { failsafe: key(&["a", "b"]), ..Snapshot::default() };
        assert_eq!(circle_of(&cluster, &memory), Some(names(&["b"])));
        cluster.failsafe = None;
        assert_eq!(circle_of(&cluster, &memory), None);
    }

    #[test]
    fn what_the_dcs_may_hold_by_now_counts_too() {
        let mut memory = Memory::default();
        let cluster = Snapshot { sync: sync("a", &["b"]), sync_version: Some(7), ..Snapshot::default() };
        memory.sync_in_doubt.written(Some(7), sync("a", &["c"]));
        assert_eq!(circle_of(&cluster, &memory), Some(names(&["b", "c"])));
        memory.sync_in_doubt.written(Some(7), SyncState::default());
        assert_eq!(circle_of(&cluster, &memory), None, "anybody may lead if that was written");
        let mut memory = Memory::default();
        let cluster = Snapshot { failsafe: key(&["b"]), failsafe_version: Some(7), ..Snapshot::default() };
        memory.failsafe_in_doubt.written(Some(7), key(&["c"]));
        assert_eq!(circle_of(&cluster, &memory), Some(names(&["b", "c"])));
        memory.failsafe_in_doubt.written(Some(7), None);
        assert_eq!(circle_of(&cluster, &memory), None);
    }

    #[test]
    fn a_leader_with_everybodys_promise_leads_on_and_changes_nothing() {
        let until = NOW + SECOND * 4;
        let mut view = view(Local::Primary(server(false)), Lock::Unknown { until: Some(until) });
        view.memory.confirmed_until = Some(until);
        let decision = decide(&view);
        assert_eq!((decision.actions.len(), decision.reason), (0, Reason::LeadingByPromise));
        view.now = until;
        assert_eq!(decide(&view).actions, [Action::StopServer(Stop::Immediate)]);
    }

    #[test]
    fn whoever_promised_does_not_race_until_the_promise_ends() {
        let free = || quorum(racing(&[("b", crate::agent::view::Peer::Silent), ("c", standby_peer(1000))]), 1);
        assert!(claims(&free()));
        let decision = decide(&promised(free(), "b"));
        assert_eq!((decision.actions.len(), decision.recheck), (0, Some(SECOND * 5)));
        assert_eq!(decision.reason, Reason::KeepingPromise { leader: Some(name("b")) });
        assert!(claims(&promised_until(free(), "b", NOW)));
    }

    #[test]
    fn a_promise_that_cannot_be_read_is_kept_as_one_to_somebody_else() {
        let mut view = promised(racing(&[]), "b");
        view.memory.promise.as_mut().unwrap().leader = None;
        assert!(!claims(&view));
    }

    #[test]
    fn whoever_promised_goes_on_following_though_the_dcs_forgot_the_leader() {
        let mut server = server(true);
        server.streaming = false;
        for lock in [Lock::Free, Lock::Unknown { until: None }] {
            let mut view = promised(view(Local::Standby(server.clone()), lock.clone()), "b");
            view.cluster.members.remove(&name("b"));
            assert_eq!(decide(&view).actions, [Action::Follow(Some(name("b")))]);
            view.local = stopped(ClusterState::InArchiveRecovery, true);
            assert_eq!(decide(&view).actions, [Action::StartStandby(Some(name("b")))]);
            view.memory.promise.as_mut().unwrap().conn_url.clear();
            view.local = Local::Standby(server.clone());
            assert_eq!(decide(&view).actions, [], "a stream is not given up for an address that is not known");
        }
    }

    #[test]
    fn a_claim_that_was_won_too_late_is_given_back() {
        for local in [Local::Empty, stopped(ClusterState::InProduction, false), Local::Standby(server(true))] {
            assert_eq!(decide(&promised(view(local, mine()), "b")).actions, [Action::ReleaseLeader]);
        }
    }

    #[test]
    fn a_promise_ends_nothing_once_somebody_leads() {
        let view = promised(view(Local::Standby(server(true)), Lock::Other(name("c"))), "b");
        assert_eq!(decide(&view).actions, [Action::Follow(Some(name("c")))]);
    }

    #[test]
    fn a_leader_whose_server_crashes_is_restarted_in_place_while_nobody_else_can_lead() {
        let until = NOW + SECOND * 4;
        let mut view = view(stopped(ClusterState::InProduction, false), Lock::Unknown { until: Some(until) });
        view.cluster.leader = Some(name("a"));
        assert_eq!(decide(&view).actions, [Action::StartStandby(None)], "anybody may take over when the lease ends");
        view.memory.circle = Some(names(&["b"]));
        assert_eq!(decide(&view).actions, [Action::StartPrimary]);
        view.memory.sync_in_doubt.written(Some(1), sync("a", &["c"]));
        assert_eq!(decide(&view).actions, [Action::StartStandby(None)], "whom its commits have to wait for is not known");
        view.memory.sync_in_doubt = Default::default();
        view.memory.failed_starts = 1;
        assert_eq!(decide(&view).actions, [Action::StartPrimary], "a crash soon after a start is no start that failed again and again");
        view.memory.failed_starts = STARTS_IN_PLACE + 1;
        assert_eq!(decide(&view).actions, [Action::StartStandby(None)]);
        view.memory.failed_starts = 0;
        view.now = until.minus(SECOND);
        assert_eq!(decide(&view).actions, [], "the next round may give it the time that it needs");
        view.now = until;
        assert_eq!(decide(&view).actions, [Action::StartStandby(None)]);
    }

    #[test]
    fn the_failsafe_key_names_every_member_while_the_mode_is_on() {
        let mut view = view(Local::Primary(server(false)), mine());
        assert_eq!(key_to_write(&view), None);
        view.settings.failsafe_mode = true;
        let Some(Action::PutFailsafe(members)) = key_to_write(&view) else { panic!("nothing to write") };
        assert_eq!(members.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
        assert!(decide(&view).actions.contains(&Action::PutFailsafe(members.clone())));
        view.cluster.failsafe = Some(members);
        assert_eq!(key_to_write(&view), None);
        view.settings.failsafe_mode = false;
        assert_eq!(key_to_write(&view), Some(Action::PutFailsafe(BTreeMap::new())));
    }

    #[test]
    fn whoever_the_failsafe_key_does_not_name_does_not_race() {
        let mut view = racing(&[("b", standby_peer(1000)), ("c", standby_peer(1000))]);
        view.cluster.failsafe = key(&["a", "b"]);
        assert!(claims(&view));
        view.cluster.failsafe = key(&["b", "c"]);
        assert_eq!(decide(&view).reason, Reason::NotInFailsafe);
        view.cluster.status = StatusKey { final_lsn: Some(Lsn(1000)), final_timeline: Some(Timeline(1)), ..StatusKey::default() };
        assert!(claims(&view), "the last leader has ended cleanly, and asks for nothing");
    }
}
