//! Who takes the leader key when nobody has it.

use super::*;

#[test]
fn nobody_races_without_asking_first() {
    let decision = decide(&view(Local::Standby(server(true)), Lock::Free));
    assert_eq!(decision.actions, [Action::AskPeers(BTreeSet::from([name("b"), name("c")]))]);
}

#[test]
fn the_one_ahead_wins_and_the_one_behind_waits() {
    assert!(claims(&racing(&[("b", standby_peer(1000)), ("c", standby_peer(999))])));
    assert!(!claims(&racing(&[("b", standby_peer(1001)), ("c", Peer::Silent)])));
    let later = Peer::Standby { timeline: Timeline(2), position: Lsn(1), nofailover: false, vote: None };
    assert!(!claims(&racing(&[("b", later), ("c", Peer::Silent)])));
}

#[test]
fn nobody_is_promoted_beside_a_living_primary() {
    assert!(!claims(&racing(&[("b", Peer::Primary), ("c", Peer::Silent)])));
}

#[test]
fn a_candidate_needs_the_votes_of_the_quorum() {
    let view = |peer: Peer| quorum(racing(&[("b", Peer::Silent), ("c", peer)]), 1);
    assert!(claims(&view(standby_peer(1000))));
    assert_eq!(decide(&view(Peer::Silent)).reason, Reason::TooFewVotes { votes: 0, needed: 1 });
    assert!(!claims(&view(standby_peer(1001))));
}

/// `a` with everybody's answer, where `c` voted under `vote`.
fn voted_by_c(vote: Option<Term>) -> View {
    quorum(racing(&[("b", Peer::Silent), ("c", vote_of(1000, vote))]), 1)
}

#[test]
fn only_a_fenced_voter_votes_and_it_is_asked_again_soon() {
    assert!(claims(&voted_by_c(Some(TERM))));
    let decision = decide(&voted_by_c(None));
    assert_eq!(decision.reason, Reason::TooFewVotes { votes: 0, needed: 1 });
    assert!(decision.recheck.unwrap() <= Duration::from_millis(100), "{decision:?}");
}

#[test]
fn a_vote_of_another_term_does_not_count() {
    for stale in [Term(2), Term(4)] {
        assert_eq!(decide(&voted_by_c(Some(stale))).reason, Reason::TooFewVotes { votes: 0, needed: 1 });
    }
}

#[test]
fn answers_that_are_old_are_asked_for_again() {
    let mut view = voted_by_c(Some(TERM));
    view.asked_at = Some(NOW.minus(Duration::from_secs(4)));
    assert_eq!(decide(&view).actions, [Action::AskPeers(BTreeSet::from([name("b"), name("c")]))]);
}

#[test]
fn a_voter_is_fenced_before_it_asks_claims_or_waits_for_others() {
    let fences = |view: &View| decide(view).actions == [Action::Fence];
    for vote in [None, Some(Term(2))] {
        let mut asking = quorum(view(Local::Standby(server(true)), Lock::Free), 1);
        asking.vote = vote;
        assert!(fences(&asking), "{vote:?}");
        let mut claiming = voted_by_c(Some(TERM));
        claiming.vote = vote;
        assert!(fences(&claiming), "{vote:?}");
        let mut behind = quorum(racing(&[("b", Peer::Silent), ("c", standby_peer(2000))]), 1);
        behind.vote = vote;
        assert!(fences(&behind), "{vote:?}");
        asking.tags.insert("nofailover".into(), json!(true));
        assert!(fences(&asking), "it votes although it may not lead");
        asking.task = Some(Task::CompareHistories);
        assert!(fences(&asking), "a comparison with a leader that is gone keeps nobody waiting");
    }
}

#[test]
fn nobody_is_fenced_who_has_no_vote_or_needs_none() {
    let fences = |view: &View| decide(view).actions.contains(&Action::Fence);
    let unfenced = |view: View| View { vote: None, ..view };
    assert!(
        !fences(&unfenced(racing(&[("b", Peer::Silent), ("c", standby_peer(1))]))),
        "without synchronous replication there are no votes"
    );
    let mut outsider = unfenced(voted_by_c(Some(TERM)));
    outsider.cluster.sync.voters = BTreeSet::from(["c".to_owned()]);
    assert!(!fences(&outsider));
    let mut paused = unfenced(voted_by_c(Some(TERM)));
    paused.settings.pause = true;
    assert!(!fences(&paused));
    let mut clean = unfenced(voted_by_c(Some(TERM)));
    clean.cluster.status = StatusKey { final_lsn: Some(Lsn(1000)), final_timeline: Some(Timeline(1)), ..StatusKey::default() };
    assert!(claims(&clean), "a clean end needs no votes");
    for lock in [other(), Lock::Unknown { until: None }] {
        let following = unfenced(quorum(view(Local::Standby(server(true)), lock), 1));
        assert!(!fences(&following));
    }
}

#[test]
fn what_the_former_leader_has_beyond_its_voters_does_not_count() {
    assert!(claims(&quorum(racing(&[("b", standby_peer(2000)), ("c", standby_peer(1000))]), 1)));
}

#[test]
fn a_member_outside_the_voters_does_not_race() {
    let mut view = quorum(racing(&[("b", Peer::Silent), ("c", standby_peer(1))]), 0);
    view.cluster.sync.voters = BTreeSet::from(["c".to_owned()]);
    assert_eq!(decide(&view).reason, Reason::NotAmongVoters);
}

#[test]
fn the_leader_that_the_voters_were_named_by_needs_no_votes() {
    let mut view = quorum(racing(&[("b", Peer::Silent), ("c", Peer::Silent)]), 1);
    view.cluster.sync.leader = Some("a".into());
    assert!(claims(&view));
}

#[test]
fn whoever_led_last_vouches_alone_for_one_that_has_all_it_has() {
    let judged = |position: u64, vote: Option<Term>| decide(&quorum(racing(&[("b", vote_of(position, vote)), ("c", Peer::Silent)]), 1));
    assert_eq!(judged(1000, Some(TERM)).actions, [Action::ClaimLeader]);
    for lacking in [judged(1001, Some(TERM)), judged(1000, None), judged(1000, Some(Term(2)))] {
        assert_eq!(lacking.reason, Reason::TooFewVotes { votes: 0, needed: 1 });
    }
}

#[test]
fn whoever_led_last_gives_its_word_when_it_waits_for_somebody_ahead() {
    // `a` was named and never promoted, and `c` has more from before that nobody was told of. Neither may wait for the other for ever.
    let mut view = quorum(racing(&[("b", Peer::Silent), ("c", standby_peer(1001))]), 1);
    view.cluster.sync = SyncState { leader: Some("a".into()), quorum: 1, voters: ["b", "c"].map(str::to_owned).into() };
    assert_eq!(decide(&view).reason, Reason::PeerAhead { peer: name("c") });
    view.vote = None;
    assert_eq!(decide(&view).actions, [Action::Fence]);
    view.peers = None;
    assert!(matches!(decide(&view).actions[..], [Action::AskPeers(_)]), "it may not have to wait at all");
}

#[test]
fn a_clean_shutdown_lets_whoever_has_all_of_it_take_over() {
    let mut view = quorum(view(Local::Standby(server(true)), Lock::Free), 1);
    view.cluster.status.final_timeline = Some(Timeline(1));
    view.cluster.status.final_lsn = Some(Lsn(1000));
    assert!(claims(&view));
    view.cluster.status.final_lsn = Some(Lsn(1001));
    assert!(!claims(&view));
}

#[test]
fn a_clean_end_on_another_timeline_says_nothing_of_a_longer_dead_branch() {
    let mut view = quorum(view(Local::Standby(server(true)), Lock::Free), 1);
    view.cluster.status.final_lsn = Some(Lsn(900));
    view.cluster.status.final_timeline = Some(Timeline(2));
    assert!(!claims(&view), "1000 on timeline 1 is not beyond 900 on timeline 2");
    view.cluster.failover = Some(FailoverKey { leader: None, member: Some("a".into()), scheduled_at: None });
    assert!(!claims(&view));
}

#[test]
fn nobody_races_with_a_bad_disk() {
    let mut view = view(Local::Standby(server(true)), Lock::Free);
    view.memory.trouble = Some(Trouble::DiskFails { why: "it hangs".to_owned() });
    assert_eq!(decide(&view).actions, []);
}
