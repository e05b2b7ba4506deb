//! Leaders that are asked to hand over, or to end.

use super::*;

fn asked_to_hand_over(member: Option<&str>) -> View {
    let mut view = leading(&["b", "c"], 1000);
    view.cluster.sync.voters = ["b", "c"].map(str::to_owned).into();
    view.cluster.failover = Some(FailoverKey { leader: Some("a".into()), member: member.map(str::to_owned), scheduled_at: None });
    view
}

#[test]
fn a_leader_hands_over_to_a_standby_that_may_succeed_it() {
    assert_eq!(decide(&asked_to_hand_over(Some("b"))).actions, [Action::HandOver]);
    assert_eq!(decide(&asked_to_hand_over(None)).actions, [Action::HandOver]);
}

#[test]
fn a_bad_request_to_hand_over_is_cleared_with_the_reason() {
    for (candidate, why) in [("x", "no member 'x'"), ("a", "leads already")] {
        let decision = decide(&asked_to_hand_over(Some(candidate)));
        assert_eq!(decision.actions, [Action::ClearFailover]);
        assert!(decision.reason.to_string().contains(why), "{}", decision.reason);
    }
    let mut view = asked_to_hand_over(Some("b"));
    view.cluster.sync.voters = BTreeSet::from(["c".to_owned()]);
    assert!(decide(&view).reason.to_string().contains("without loss"));
}

#[test]
fn after_handing_over_the_candidate_goes_first_while_it_is_healthy() {
    let mut view = quorum(view(Local::Standby(server(true)), Lock::Free), 1);
    view.cluster.sync.leader = Some("a".into());
    view.cluster.status.final_timeline = Some(Timeline(1));
    view.cluster.status.final_lsn = Some(Lsn(900));
    view.cluster.failover = Some(FailoverKey { leader: Some("a".into()), member: Some("c".into()), scheduled_at: None });
    view.memory.unled_since = Some(NOW.minus(Duration::from_secs(1)));
    assert_eq!(decide(&view).reason, Reason::CandidateFirst { candidate: name("c") });
    assert_eq!(decide(&view).actions, [], "it has a head start");
    view.memory.unled_since = Some(NOW.minus(Duration::from_secs(2)));
    assert_eq!(decide(&view).actions, [Action::AskPeers(BTreeSet::from([name("b"), name("c")]))]);
    view.peers = Some(BTreeMap::from([(name("c"), standby_peer(900))]));
    assert_eq!(decide(&view).reason, Reason::CandidateFirst { candidate: name("c") });
    view.peers = Some(BTreeMap::from([(name("c"), Peer::Silent)]));
    assert!(claims(&view), "a candidate that has died holds nobody up");
}

#[test]
fn a_healthy_successor_that_does_not_come_is_not_waited_for_for_ever() {
    let mut view = quorum(racing(&[("b", Peer::Silent), ("c", standby_peer(1000))]), 1);
    view.cluster.sync.leader = Some("a".into());
    view.cluster.sync.voters = ["b", "c"].map(str::to_owned).into();
    view.cluster.failover = Some(FailoverKey { leader: Some("a".into()), ..FailoverKey::default() });
    view.memory.unled_since = Some(NOW.minus(Duration::from_secs(9)));
    assert_eq!(decide(&view).reason, Reason::SuccessorFirst);
    view.memory.unled_since = Some(NOW.minus(Duration::from_secs(10)));
    assert!(claims(&view), "the others cannot elect anybody without 'b'; this member has led");
}

#[test]
fn a_candidate_that_is_no_voter_holds_nobody_up() {
    let mut view = quorum(racing(&[("b", standby_peer(1000)), ("c", standby_peer(1000))]), 0);
    view.cluster.sync.voters = ["a"].map(str::to_owned).into();
    view.cluster.failover = Some(FailoverKey { member: Some("c".into()), ..FailoverKey::default() });
    view.memory.unled_since = Some(NOW.minus(Duration::from_secs(60)));
    assert!(claims(&view));
}

#[test]
fn the_named_candidate_takes_over_at_once_when_it_has_everything() {
    let mut view = quorum(view(Local::Standby(server(true)), Lock::Free), 1);
    view.cluster.failover = Some(FailoverKey { leader: Some("b".into()), member: Some("a".into()), scheduled_at: None });
    view.cluster.status.final_timeline = Some(Timeline(1));
    view.cluster.status.final_lsn = Some(Lsn(1000));
    assert_eq!(decide(&view).reason, Reason::NamedCandidate);
}

#[test]
fn a_leader_that_ends_hands_over_first() {
    let mut view = leading(&["b"], 1000);
    view.stopping = true;
    assert_eq!(decide(&view).actions, [Action::HandOver]);
    view.task = Some(Task::HandOver);
    assert_eq!(decide(&view).actions, []);
    let mut follower = super::view(Local::Standby(server(true)), other());
    follower.stopping = true;
    assert_eq!(decide(&follower).actions, [Action::StopServer(Stop::Fast)]);
    follower.local = stopped(ClusterState::ShutDownInRecovery, true);
    assert_eq!(decide(&follower).actions, [Action::End]);
}
