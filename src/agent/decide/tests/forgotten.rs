//! A DCS that has lost its content: what is remembered decides, when everybody has been heard who may know more.

use super::{super::forgotten::claim, *};
use crate::agent::{
    past,
    view::{AsOf, Past},
};

const LATEST: Term = Term(7);

/// As it was when `b` led and `a` and `c` voted.
fn past(term: Term) -> Past {
    Past {
        as_of: AsOf { term, revision: 70 },
        system: Some(SYSTEM),
        leader: Some(name("b")),
        members: ["a", "b", "c"].map(name).into(),
        sync: SyncState { leader: Some("b".into()), quorum: 1, voters: ["a", "c"].map(str::to_owned).into() },
        failsafe: None,
        timelines: TimelineKey { reserved: 4, by: "b".into(), begun: Some(Timeline(1)), ..TimelineKey::default() },
    }
}

/// `a` looks, so many seconds after it noticed the loss. All members are back in the DCS; each says what it remembers, if that is given.
fn forgotten(seconds: u64, told: &[(&str, Option<Past>)]) -> View {
    let mut view = quorum(view(Local::Standby(server(true)), Lock::Free), 1);
    view.vote = Some(Term::default());
    let members = told.iter().map(|(n, past)| {
        let other = past.iter().map(|past| (past::FIELD.to_owned(), past::tell(Some(past)))).collect();
        (name(n), MemberData { other, ..member(MemberRole::Replica) })
    });
    view.cluster = Snapshot { initialize: Initialize::Done(SYSTEM), members: members.collect(), ..Snapshot::default() };
    view.memory.past = past(LATEST);
    view.memory.forgotten_since = Some(NOW.minus(Duration::from_secs(seconds)));
    look(&mut view);
    view
}

fn everybody(seconds: u64) -> View {
    forgotten(seconds, &["a", "b", "c"].map(|n| (n, Some(past(LATEST)))))
}

/// Has the memory take in what the view shows.
fn look(view: &mut View) {
    view.memory.look(&Look {
        now: view.now,
        me: &view.me,
        cluster: &view.cluster,
        dcs_answers: true,
        lock: &view.lock,
        local: &view.local,
        server_age: Duration::from_secs(60),
        unrecorded_bootstrap: view.memory.unrecorded_bootstrap,
        has_old_data: false,
    });
}

fn answering(mut view: View, peers: &[(&str, Peer)]) -> View {
    view.peers = Some(peers.iter().map(|(n, peer)| (name(n), peer.clone())).collect());
    view.asked_at = Some(NOW);
    view
}

fn voted(position: u64) -> Peer {
    vote_of(position, Some(Term::default()))
}

#[test]
fn a_primary_that_still_runs_goes_first() {
    assert_eq!(decide(&everybody(9)).reason, Reason::DcsForgot);
    assert_eq!(decide(&everybody(10)).actions, [Action::AskPeers(BTreeSet::from([name("b"), name("c")]))]);
    assert!(!claims(&answering(everybody(60), &[("b", Peer::Primary), ("c", Peer::Silent)])));
}

#[test]
fn the_voters_are_remembered() {
    let nobody_votes = answering(everybody(10), &[("b", vote_of(1000, None)), ("c", vote_of(1000, None))]);
    assert_eq!(decide(&nobody_votes).reason, Reason::TooFewVotes { votes: 0, needed: 1 });
    assert!(claims(&answering(everybody(10), &[("b", voted(1000)), ("c", voted(1000))])));
    let mut outsider = answering(everybody(10), &[("b", voted(1000)), ("c", voted(1))]);
    outsider.memory.past.sync.voters = BTreeSet::from(["c".to_owned()]);
    assert_eq!(decide(&outsider).reason, Reason::NotAmongVoters);
}

#[test]
fn nobody_is_elected_while_somebody_is_not_heard_who_may_know_more() {
    let heard = |names: &[&str]| {
        let told: Vec<_> = names.iter().map(|n| (*n, Some(past(LATEST)))).collect();
        answering(forgotten(3600, &told), &[("b", voted(1000)), ("c", voted(1000))])
    };
    assert!(claims(&heard(&["a", "b", "c"])));
    assert_eq!(decide(&heard(&["a", "c"])).reason, Reason::NotHeard { members: vec!["b".into()] }, "it led");
    assert_eq!(decide(&heard(&["a", "b"])).reason, Reason::NotHeard { members: vec!["c".into()] });
    let silent = forgotten(3600, &[("a", Some(past(LATEST))), ("b", Some(past(LATEST))), ("c", None)]);
    assert_eq!(decide(&silent).reason, Reason::NotHeard { members: vec!["c".into()] }, "its key may be older than what it has seen");
    assert!(silent.memory.trouble().unwrap().contains("'c' may know more"));
    let mut unreadable = everybody(3600);
    let key = unreadable.cluster.members.get_mut(&name("c")).unwrap();
    key.other.insert(past::FIELD.into(), past::tell(None));
    look(&mut unreadable);
    assert_eq!(decide(&unreadable).reason, Reason::NotHeard { members: vec!["c".into()] });
    let mut voter = everybody(3600);
    voter.memory.past.sync.voters.insert("D".into());
    look(&mut voter);
    assert_eq!(decide(&voter).reason, Reason::NotHeard { members: vec!["D".into()] }, "a voter that was away");
}

#[test]
fn the_newest_memory_decides() {
    let mut later = past(Term(9));
    later.sync = SyncState { leader: Some("c".into()), quorum: 0, voters: BTreeSet::from(["b".to_owned()]) };
    later.timelines.reserved = 3;
    later.members.insert(name("d"));
    let view = forgotten(60, &[("a", Some(past(LATEST))), ("b", Some(past(Term(1)))), ("c", Some(later.clone()))]);
    assert_eq!(view.memory.past, Past { timelines: past(LATEST).timelines, ..later });
    assert_eq!(decide(&view).reason, Reason::NotHeard { members: vec!["d".into()] }, "whom only the newest knows");
    let mut of_another = past(Term(9));
    of_another.system = Some(SystemId(1));
    assert_eq!(forgotten(60, &[("c", Some(of_another))]).memory.past, past(LATEST));
}

#[test]
fn whom_an_operator_names_has_to_hear_everybody_too() {
    let mut view = forgotten(60, &[("a", Some(past(LATEST))), ("c", Some(past(LATEST)))]);
    view.cluster.failover = Some(FailoverKey { member: Some("a".into()), ..FailoverKey::default() });
    assert_eq!(decide(&view).reason, Reason::NotHeard { members: vec!["b".into()] });
}

#[test]
fn an_empty_member_of_the_same_name_has_nothing_to_tell_and_is_heard() {
    let replaced = forgotten(60, &[("a", Some(past(LATEST))), ("b", Some(Past::default())), ("c", Some(past(LATEST)))]);
    assert!(claims(&answering(replaced, &[("b", Peer::Silent), ("c", voted(1000))])));
}

#[test]
fn a_claim_brings_back_what_was_lost_and_is_later_than_all_that_was() {
    let view = everybody(60);
    let claim = claim(&view);
    assert!(claim.seen.term > LATEST && claim.seen.term_version.is_none());
    assert_eq!(claim.lost_sync, Some(past(LATEST).sync));
    assert_eq!(claim.lost_timelines, Some(past(LATEST).timelines));
    let mut known = view;
    known.memory.forgotten_since = None;
    assert_eq!(super::super::forgotten::claim(&known), known.cluster.seen().into());
}

#[test]
fn a_store_that_got_back_what_it_held_once_is_no_better_than_an_empty_one() {
    let mut view = everybody(60);
    view.cluster.config = Some(json!({}));
    (view.cluster.term, view.cluster.term_version) = (Term(3), Some(30));
    (view.cluster.sync, view.cluster.sync_version) = (SyncState { leader: Some("a".into()), ..SyncState::default() }, Some(29));
    view.memory.forgotten_since = None;
    look(&mut view);
    assert!(view.memory.forgotten_since.is_some());
    assert_eq!(view.memory.past, past(LATEST));
    assert!(claim(&view).seen.term > LATEST);
    view.lock = mine();
    look(&mut view);
    for local in [view.local.clone(), stopped(ClusterState::InProduction, false), Local::Empty] {
        view.local = local;
        assert_eq!(decide(&view).actions, [Action::ReleaseLeader], "a key from back then");
    }
    // Whoever led on until now claims it anew, whatever the store says of voters from back then.
    (view.local, view.lock) = (Local::Primary(server(false)), Lock::Free);
    view.cluster.sync.leader = Some("c".into());
    view.memory.past.leader = Some(name("a"));
    assert_eq!(decide(&view).actions, [Action::ClaimLeader]);
    view.cluster.sync.leader = Some("a".into());
    (view.cluster.term, view.cluster.revision) = (LATEST, 71);
    look(&mut view);
    assert_eq!((view.memory.forgotten_since, view.memory.past.sync.leader.as_deref()), (None, Some("a")), "it knows as much");
}

#[test]
fn a_primary_claims_the_key_at_once_as_long_as_nobody_else_can_have_led() {
    let mut view = forgotten(0, &[]);
    view.local = Local::Primary(server(false));
    view.memory.past.leader = Some(name("a"));
    view.memory.led_until = Some(NOW + Duration::from_millis(1));
    view.cluster = Snapshot::default();
    assert_eq!(decide(&view).actions, [Action::RecordInitialize(SYSTEM), Action::ClaimLeader], "before anything that lets others race");
    view.now = NOW + Duration::from_millis(1);
    assert_eq!(decide(&view).actions, [], "somebody may have led, and the DCS lost its content after that");
    // The same for an agent that was started again and does not know until when. All the others say that nobody has.
    let mut adopted = everybody(0);
    adopted.local = Local::Primary(server(false));
    adopted.memory.past.leader = Some(name("a"));
    assert_eq!(decide(&adopted).actions, [Action::ClaimLeader]);
    adopted.memory.past.timelines.begun = Some(Timeline(2));
    assert_eq!(decide(&adopted).reason, Reason::OtherTimelineAhead);
    adopted.memory.past.leader = Some(name("c"));
    adopted.memory.led_until = Some(NOW + Duration::from_secs(5));
    assert_eq!(decide(&adopted).actions, [Action::StopServer(Stop::Immediate)], "whatever its lease says");
}

#[test]
fn a_lease_is_remembered_until_somebody_else_leads() {
    let mut view = everybody(0);
    let until = NOW + Duration::from_secs(5);
    view.lock = Lock::Unknown { until: Some(until) };
    look(&mut view);
    view.lock = Lock::Free;
    look(&mut view);
    assert_eq!(view.memory.led_until, Some(until));
    view.lock = other();
    look(&mut view);
    assert_eq!(view.memory.led_until, None);
}

#[test]
fn nobody_begins_a_cluster_who_remembers_one() {
    let mut view = view(Local::Empty, Lock::Free);
    view.cluster = Snapshot::default();
    assert_eq!(decide(&view).actions, [Action::ClaimInitialize]);
    view.memory.past = past(LATEST);
    assert_eq!(decide(&view).reason, Reason::OthersHaveData);
    (view.cluster.initialize, view.memory.holds_initialize) = (Initialize::InProgress, true);
    assert_eq!(decide(&view).reason, Reason::OthersHaveData);
    view.memory.past = Past::default();
    view.memory.past_unreadable = Some("the file 'x' is damaged".into());
    assert_eq!(decide(&view).reason, Reason::PastUnreadable { why: "the file 'x' is damaged".into() });
}

#[test]
fn a_beginning_that_was_never_recorded_is_not_gone_on_with_beside_a_cluster_that_was() {
    for local in [Local::Primary(server(false)), stopped(ClusterState::InProduction, false)] {
        let mut view = view(local, Lock::Free);
        view.cluster = Snapshot::default();
        view.memory.unrecorded_bootstrap = true;
        assert_eq!(decide(&view).actions, [Action::ClaimInitialize]);
        view.memory.past = past(LATEST);
        assert_eq!(decide(&view).actions, [Action::ClaimInitialize], "it is the one that is remembered");
        view.memory.past.system = Some(SystemId(1));
        assert_eq!(decide(&view).reason, Reason::OthersHaveData);
    }
}

#[test]
fn data_of_another_cluster_than_the_one_that_is_remembered_are_not_recorded() {
    for local in [Local::Standby(server(true)), Local::Primary(server(false)), stopped(ClusterState::InProduction, false)] {
        let mut view = everybody(60);
        view.local = local;
        view.cluster.initialize = Initialize::Absent;
        view.memory.past.system = Some(SystemId(1));
        assert!(matches!(decide(&view).reason, Reason::PastOfAnother { .. }));
    }
}

#[test]
fn another_cluster_in_the_place_of_ones_own_is_no_reason_to_forget_it() {
    let mut view = everybody(60);
    view.cluster.config = Some(json!({}));
    (view.cluster.initialize, view.cluster.term, view.cluster.term_version) = (Initialize::Done(SystemId(1)), Term(90), Some(3));
    look(&mut view);
    assert_eq!(view.memory.past, past(LATEST));
    assert!(matches!(decide(&view).reason, Reason::ForeignData { .. }));
    view.cluster.term = Term(1);
    for local in [Local::Empty, Local::Standby(ServerFacts { system_id: SystemId(1), ..server(true) })] {
        let mut member = View { local, ..view.clone() };
        look(&mut member);
        assert_eq!((member.memory.past.system, member.memory.past.as_of.term), (Some(SystemId(1)), Term(1)), "it is one of its members");
        assert_eq!(member.memory.forgotten_since, None);
    }
}

#[test]
fn whoever_cannot_read_what_it_knew_keeps_out_of_it_until_the_dcs_tells() {
    let mut view = everybody(60);
    view.memory.past = Past::default();
    view.memory.past_unreadable = Some("the file 'x' is damaged".into());
    view.peers = Some([(name("b"), voted(1000)), (name("c"), voted(1000))].into());
    view.asked_at = Some(NOW);
    assert_eq!(decide(&view).reason, Reason::PastUnreadable { why: "the file 'x' is damaged".into() });
    assert_eq!(view.memory.trouble().unwrap(), "the file 'x' is damaged");
    let said = past::told(&MemberData {
        other: [(past::FIELD.into(), view.memory.tells(&view.cluster).unwrap())].into_iter().collect(),
        ..MemberData::default()
    });
    assert_eq!(said, past::Told::Unreadable);
    (view.cluster.config, view.cluster.term, view.cluster.term_version) = (Some(json!({})), Term(8), Some(3));
    look(&mut view);
    assert_eq!((view.memory.past_unreadable, view.memory.past.as_of.term), (None, Term(8)));
}

#[test]
fn existing_data_that_nobody_remembers_anything_of_are_taken_over() {
    let mut view = forgotten(60, &[("a", None)]);
    view.memory.past = Past::default();
    look(&mut view);
    view.cluster.initialize = Initialize::Absent;
    assert_eq!(decide(&view).actions, [Action::RecordInitialize(SYSTEM)]);
    view.cluster.initialize = Initialize::Done(SYSTEM);
    assert!(claims(&view));
    assert_eq!(claim(&view), view.cluster.seen().into());
}

#[test]
fn an_empty_memory_is_told_only_where_somebody_has_one() {
    let mut view = forgotten(60, &[("a", None), ("b", None)]);
    view.memory.past = Past::default();
    assert_eq!(view.memory.tells(&view.cluster), None, "a cluster that begins needs no more keys than before");
    let asked = everybody(60);
    let said = view.memory.tells(&asked.cluster).unwrap();
    let key = MemberData { other: [(past::FIELD.into(), said)].into_iter().collect(), ..MemberData::default() };
    assert_eq!(past::told(&key), past::Told::Remembers(Box::default()));
    view.memory.forgotten_since = None;
    assert_eq!(view.memory.tells(&asked.cluster), None);
}

#[test]
fn a_member_that_remembers_nothing_notices_the_loss_by_those_who_do() {
    let mut view = everybody(60);
    view.memory = Memory::default();
    // Somebody has brought the configuration back.
    view.cluster.config = Some(json!({}));
    look(&mut view);
    assert!(view.memory.forgotten_since.is_some());
    assert_eq!(view.memory.past, past(LATEST));
    assert_eq!(decide(&view).reason, Reason::DcsForgot);
}

#[test]
fn who_led_last_is_known_though_it_was_gone_before_anybody_looked() {
    let mut view = everybody(60);
    (view.cluster.term, view.cluster.term_version, view.cluster.term_leader) = (Term(8), Some(3), Some(name("c")));
    look(&mut view);
    assert_eq!(view.memory.past.leader, Some(name("c")));
    assert!(view.memory.past.witnesses().contains("c"));
    assert_eq!(view.memory.past.timelines.reserved, 4, "a number is not given back");
}
