//! Decisions as a table of what is seen, and the rules one by one.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde_json::json;

use super::{decide, names_at_start};
use crate::{
    agent::{
        action::{Action, PgSync, Stop},
        reason::Reason,
        view::{Local, Lock, Memory, Past, Peer, ServerFacts, StoppedData, Task, Trouble, View, Wishes},
    },
    dcs::{
        snapshot::{FailoverKey, HistoryEntry, Initialize, MemberData, MemberRole, PgState, Snapshot, StatusKey, SyncState, TimelineKey},
        tags::Tags,
    },
    model::{Lsn, MemberName, SystemId, Term, Timeline},
    postgres::{
        control_data::{ClusterState, ControlData},
        sql::{SlotFacts, StandbyFacts},
    },
    spec::settings::Settings,
    sys::clock::Moment,
};

mod kept_slots;
mod notices;
mod space;
mod tags;
mod timelines;
mod watchdog;

const SYSTEM: SystemId = SystemId(7_000_000_001);
pub(super) const NOW: Moment = Moment(10_000_000_000_000);
/// The term in which `a` looks.
const TERM: Term = Term(3);

pub(super) fn name(text: &str) -> MemberName {
    text.parse().unwrap()
}

pub(super) fn server(in_recovery: bool) -> ServerFacts {
    ServerFacts {
        in_recovery,
        system_id: SYSTEM,
        data_directory: "/data".into(),
        version: 170_000,
        started: String::new(),
        timeline: Timeline(1),
        position: Lsn(1000),
        received: in_recovery.then_some(Lsn(1000)),
        replayed: in_recovery.then_some(Lsn(1000)),
        replayed_at: None,
        replay_paused: false,
        streaming: in_recovery,
        primary_conninfo: String::new(),
        synchronous_standby_names: String::new(),
        standbys: Vec::new(),
        slots: if in_recovery { BTreeMap::new() } else { slots(&["b", "c"]) },
        has_archive: false,
    }
}

fn slots(names: &[&str]) -> BTreeMap<String, SlotFacts> {
    names.iter().map(|n| ((*n).to_owned(), SlotFacts { active: true, restart_lsn: Some(Lsn(900)) })).collect()
}

pub(super) fn streaming(names: &[&str], flushed: u64) -> Vec<StandbyFacts> {
    let standby = |name: &&str| StandbyFacts {
        application_name: (*name).to_owned(),
        usename: "replicator".into(),
        client_addr: None,
        state: "streaming".into(),
        sync_state: "quorum".into(),
        sync_priority: 1,
        flush_lsn: Some(Lsn(flushed)),
    };
    names.iter().map(standby).collect()
}

pub(super) fn stopped(state: ClusterState, standby_signal: bool) -> Local {
    let control = ControlData {
        system_id: SYSTEM,
        state,
        checkpoint_timeline: Timeline(1),
        checkpoint: Lsn(900),
        min_recovery: None,
        rewindable: true,
    };
    Local::Stopped(StoppedData { control, past: None, standby_signal, half_rewound: false, fresh_copy: false })
}

fn member(role: MemberRole) -> MemberData {
    MemberData {
        conn_url: "postgres://h:5432/postgres".into(),
        api_url: "http://h:8008/patroni".into(),
        state: PgState::Running,
        role,
        timeline: Some(Timeline(1)),
        ..MemberData::default()
    }
}

/// `a` looks at a cluster of `a`, `b` and `c`, which is initialised.
pub(super) fn view(local: Local, lock: Lock) -> View {
    let leader = match &lock {
        Lock::Other(other) => Some(other.clone()),
        Lock::Mine { .. } => Some(name("a")),
        _ => None,
    };
    let members = ["a", "b", "c"].map(name).into_iter().map(|n| {
        let role = if leader.as_ref() == Some(&n) { MemberRole::Primary } else { MemberRole::Replica };
        (n, member(role))
    });
    let cluster = Snapshot {
        initialize: Initialize::Done(SYSTEM),
        config: Some(json!({})),
        members: members.collect(),
        leader,
        status: StatusKey { optime: Lsn(1000), ..StatusKey::default() },
        term: TERM,
        term_version: Some(1),
        ..Snapshot::default()
    };
    let settings = Settings::read(&json!({"ttl": 10, "loop_wait": 2, "retry_timeout": 4}));
    View {
        now: NOW,
        me: name("a"),
        settings,
        tags: Tags::new(),
        pre_promote: false,
        may_initialize: true,
        stopping: false,
        cluster,
        dcs_answers: !matches!(lock, Lock::Unknown { .. }),
        lock,
        local,
        peers: None,
        asked_at: None,
        vote: None,
        task: None,
        memory: Memory::default(),
        wishes: Wishes::default(),
    }
}

pub(super) fn mine() -> Lock {
    Lock::Mine { until: NOW + Duration::from_secs(8) }
}

pub(super) fn other() -> Lock {
    Lock::Other(name("b"))
}

/// Quorum mode: `b` led, `a` and `c` vote, and `a` is fenced.
pub(super) fn quorum(mut view: View, quorum: u32) -> View {
    view.settings.synchronous_mode = crate::spec::settings::SyncMode::Quorum;
    let voters = ["a", "c"].map(str::to_owned).into();
    view.cluster.sync = SyncState { leader: Some("b".into()), quorum, voters };
    view.cluster.sync_version = Some(1);
    view.vote = Some(TERM);
    view
}

pub(super) fn standby_peer(position: u64) -> Peer {
    vote_of(position, Some(TERM))
}

fn vote_of(position: u64, vote: Option<Term>) -> Peer {
    Peer::Standby { timeline: Timeline(1), position: Lsn(position), nofailover: false, vote }
}

pub(super) fn racing(peers: &[(&str, Peer)]) -> View {
    let mut view = view(Local::Standby(server(true)), Lock::Free);
    view.peers = Some(peers.iter().map(|(n, p)| (name(n), p.clone())).collect());
    view.asked_at = Some(NOW.minus(Duration::from_millis(20)));
    view
}

pub(super) fn claims(view: &View) -> bool {
    decide(view).actions.contains(&Action::ClaimLeader)
}

#[test]
fn what_is_decided_in_every_state_under_every_lock() {
    let locals = [
        ("no data", Local::Empty),
        ("unusable data", Local::Unusable { why: "it is of PostgreSQL 9".into() }),
        ("stopped primary", stopped(ClusterState::ShutDown, false)),
        ("crashed primary", stopped(ClusterState::InProduction, false)),
        ("stopped standby", stopped(ClusterState::ShutDownInRecovery, true)),
        ("silent server", Local::Silent { since: NOW }),
        ("primary", Local::Primary(server(false))),
        ("standby", Local::Standby(server(true))),
    ];
    let locks = [
        ("mine", mine()),
        ("other's", other()),
        ("free", Lock::Free),
        ("unknown, lease left", Lock::Unknown { until: Some(NOW + Duration::from_secs(5)) }),
        ("unknown, lease over", Lock::Unknown { until: Some(NOW) }),
        ("unknown, never led", Lock::Unknown { until: None }),
    ];
    let mut table = String::new();
    for (local_name, local) in &locals {
        for (lock_name, lock) in &locks {
            let decision = decide(&view(local.clone(), lock.clone()));
            let actions: Vec<String> = decision.actions.iter().map(|a| format!("{a:?}")).collect();
            table.push_str(&format!("{local_name} | {lock_name} | {} | {}\n", actions.join(", "), decision.reason));
        }
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/decisions.txt");
    if std::env::var_os("UPDATE_FIXTURES").is_some() {
        std::fs::write(path, &table).unwrap();
    }
    let reviewed = std::fs::read_to_string(path).unwrap();
    assert_eq!(table, reviewed, "decisions changed: review them, then run this test with UPDATE_FIXTURES=1");
}

#[test]
fn a_primary_stops_as_soon_as_somebody_else_leads() {
    let decision = decide(&view(Local::Primary(server(false)), other()));
    assert_eq!(decision.actions, [Action::StopServer(Stop::Immediate)]);
}

#[test]
fn a_leader_past_its_deadline_stops_writes() {
    for left in [0, 100, 200] {
        let until = Some(NOW + Duration::from_millis(left));
        let decision = decide(&view(Local::Primary(server(false)), Lock::Unknown { until }));
        assert_eq!(decision.actions, [Action::StopServer(Stop::Immediate)], "{left} ms");
    }
}

#[test]
fn a_leader_waits_for_a_silent_dcs_while_its_lease_lasts() {
    let decision = decide(&view(Local::Primary(server(false)), Lock::Unknown { until: Some(NOW + Duration::from_secs(1)) }));
    assert_eq!((decision.actions.len(), decision.reason), (0, Reason::DcsSilentWhileLeading));
    assert!(decision.recheck.unwrap() < Duration::from_secs(1));
}

#[test]
fn a_leader_that_hangs_gives_the_key_up_only_when_its_server_is_gone() {
    let mut view = view(Local::Silent { since: NOW.minus(Duration::from_secs(301)) }, mine());
    assert_eq!(decide(&view).actions, [Action::GiveUpStarting, Action::StopServer(Stop::Immediate)]);
    view.local = stopped(ClusterState::InProduction, false);
    view.memory.failed_starts = u32::MAX;
    assert_eq!(decide(&view).actions, [Action::ReleaseLeader]);
}

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
fn a_clean_end_is_forgotten_before_the_next_leader_writes() {
    let mut view = view(Local::Standby(server(true)), mine());
    view.cluster.status.final_lsn = Some(Lsn(900));
    assert_eq!(decide(&view).actions, [Action::ForgetCleanEnd]);
}

/// `b` led and `a` and `c` voted when the DCS lost everything.
fn forgotten(seconds: u64, peers: Option<&[(&str, Peer)]>) -> View {
    let mut view = quorum(view(Local::Standby(server(true)), Lock::Free), 1);
    view.memory.past = Past { members: view.cluster.members.clone(), sync: view.cluster.sync.clone(), failsafe: None };
    view.memory.forgotten_since = Some(NOW.minus(Duration::from_secs(seconds)));
    view.cluster = Snapshot { initialize: Initialize::Done(SYSTEM), ..Snapshot::default() };
    view.peers = peers.map(|p| p.iter().map(|(n, peer)| (name(n), peer.clone())).collect());
    view.asked_at = Some(NOW);
    view.vote = Some(view.cluster.term);
    view
}

#[test]
fn when_the_dcs_forgot_everything_a_primary_that_still_runs_goes_first() {
    assert_eq!(decide(&forgotten(9, None)).reason, Reason::DcsForgot);
    assert_eq!(decide(&forgotten(10, None)).actions, [Action::AskPeers(BTreeSet::from([name("b"), name("c")]))]);
    assert!(!claims(&forgotten(60, Some(&[("b", Peer::Primary), ("c", Peer::Silent)]))));
}

#[test]
fn when_the_dcs_forgot_everything_the_voters_are_remembered() {
    let alone = forgotten(10, Some(&[("b", Peer::Silent), ("c", Peer::Silent)]));
    assert_eq!(decide(&alone).reason, Reason::TooFewVotes { votes: 0, needed: 1 });
    assert!(claims(&forgotten(10, Some(&[("b", Peer::Silent), ("c", vote_of(1000, Some(Term(0))))]))));
    let mut outsider = forgotten(10, Some(&[("b", Peer::Silent), ("c", standby_peer(1))]));
    outsider.memory.past.sync.voters = BTreeSet::from(["c".to_owned()]);
    assert_eq!(decide(&outsider).reason, Reason::NotAmongVoters);
}

#[test]
fn a_primary_that_the_dcs_forgot_claims_the_key_before_it_writes_anything_that_lets_others_race() {
    let mut view = view(Local::Primary(server(false)), Lock::Free);
    view.cluster = Snapshot::default();
    assert_eq!(decide(&view).actions, [Action::RecordInitialize(SYSTEM), Action::ClaimLeader]);
}

#[test]
fn an_empty_member_remembers_that_others_have_data_when_the_dcs_forgot_them() {
    let mut view = view(Local::Empty, Lock::Free);
    view.memory.past.members = std::mem::take(&mut view.cluster.members);
    view.cluster = Snapshot::default();
    assert_eq!(decide(&view).reason, Reason::NoLeaderToClone);
    view.memory.past = Past::default();
    assert_eq!(decide(&view).actions, [Action::ClaimInitialize]);
}

#[test]
fn in_async_mode_a_standby_far_behind_does_not_race() {
    let mut view = racing(&[("b", Peer::Silent), ("c", Peer::Silent)]);
    view.cluster.status.optime = Lsn(1000 + (1 << 20));
    assert!(claims(&view));
    view.cluster.status.optime = Lsn(1001 + (1 << 20));
    assert_eq!(decide(&view).reason, Reason::LagsTooMuch { bytes: (1 << 20) + 1 });
}

#[test]
fn before_a_promotion_the_dcs_names_who_will_confirm_and_commits_wait_for_them() {
    let mut view = quorum(view(Local::Standby(server(true)), mine()), 1);
    let names = PgSync::any(1, ["b", "c"].map(str::to_owned).into());
    let voters = SyncState { leader: Some("a".into()), quorum: 1, voters: names.names.clone() };
    assert_eq!(decide(&view).actions, [Action::PutSync(voters.clone())], "both of them together have everything");
    view.cluster.sync = voters;
    assert_eq!(decide(&view).actions, [Action::SetSyncNames(names.clone())]);
    let Local::Standby(facts) = &mut view.local else { unreachable!() };
    facts.synchronous_standby_names = names.render();
    assert_eq!(decide(&view).actions, [Action::ReserveTimeline(Timeline(2))]);
    view.cluster.timelines = TimelineKey { reserved: 2, by: "a".into(), begun: None };
    view.memory.reserved_timeline = Some(Timeline(2));
    let slots = BTreeSet::from([name("b"), name("c")]);
    assert_eq!(decide(&view).actions, [Action::EnsureSlots(slots), Action::Promote], "slots first");
}

#[test]
fn a_promotion_is_not_begun_at_the_end_of_a_lease() {
    let view = view(Local::Standby(server(true)), Lock::Mine { until: NOW + Duration::from_millis(500) });
    assert_eq!(decide(&view).actions, []);
}

#[test]
fn a_promotion_without_the_lock_is_stopped() {
    let mut view = view(Local::Standby(server(true)), other());
    view.task = Some(Task::Promote);
    assert_eq!(decide(&view).actions, [Action::StopServer(Stop::Immediate)]);
}

#[test]
fn where_nobody_voted_before_only_the_new_leader_may_lead_until_others_have_what_it_has() {
    let mut view = quorum(view(Local::Standby(server(true)), mine()), 0);
    view.cluster.sync = SyncState::default();
    let only_me = SyncState { leader: Some("a".into()), ..SyncState::default() };
    assert_eq!(decide(&view).actions, [Action::PutSync(only_me.clone())]);
    view.cluster.sync = only_me;
    assert_eq!(decide(&view).actions, [Action::SetSyncNames(PgSync::any(1, ["b", "c"].map(str::to_owned).into()))]);
}

#[test]
fn in_strict_mode_a_leader_without_standbys_acknowledges_nothing() {
    let mut view = leading(&[], 0);
    view.settings.synchronous_mode_strict = true;
    view.memory.no_standby_since = Some(NOW.minus(Duration::from_secs(60)));
    let nobody = PgSync::any(1, BTreeSet::from(["a".to_owned()]));
    assert!(decide(&view).actions.contains(&Action::SetSyncNames(nobody.clone())));
    let Local::Primary(facts) = &mut view.local else { unreachable!() };
    facts.synchronous_standby_names = nobody.render();
    view.memory.sync_barrier = Some(Lsn(1000));
    let changes = |view: &View| decide(view).actions.iter().any(|a| matches!(a, Action::SetSyncNames(_) | Action::PutSync(_)));
    assert!(!changes(&view));
    let Local::Primary(facts) = &mut view.local else { unreachable!() };
    facts.standbys = streaming(&["b"], 1000);
    assert!(decide(&view).actions.contains(&Action::SetSyncNames(PgSync::any(1, BTreeSet::from(["b".to_owned()])))));
    // The same after a promotion and after a restart in place, from the first commit on.
    let mut promoting = super::tests::view(Local::Standby(server(true)), mine());
    promoting.settings = view.settings.clone();
    promoting.cluster.members.retain(|member, _| *member == name("a"));
    promoting.cluster.sync = SyncState { leader: Some("a".into()), ..SyncState::default() };
    assert_eq!(decide(&promoting).actions, [Action::SetSyncNames(nobody.clone())]);
    assert_eq!(names_at_start(&promoting.cluster.sync, &name("a"), true), nobody);
    assert_eq!(names_at_start(&promoting.cluster.sync, &name("a"), false), PgSync::default());
}

#[test]
fn nobody_votes_before_every_sender_of_the_former_rule_has_read_the_new_one() {
    let mut view = leading(&["b", "c"], 1000);
    let names = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<BTreeSet<String>>();
    view.settings.synchronous_mode = crate::spec::settings::SyncMode::On;
    view.cluster.sync = SyncState { leader: Some("a".into()), quorum: 1, voters: names(&["b", "c"]) };
    view.memory.sync_barrier = Some(Lsn(1000));
    let Local::Primary(facts) = &mut view.local else { unreachable!() };
    facts.synchronous_standby_names = PgSync::any(1, names(&["b"])).render();
    facts.standbys[1].flush_lsn = Some(Lsn(999));
    let fewer = Action::PutSync(SyncState { leader: Some("a".into()), quorum: 0, voters: names(&["b"]) });
    assert!(!decide(&view).actions.contains(&fewer), "the sender to 'c' may still let commits go");
    let Local::Primary(facts) = &mut view.local else { unreachable!() };
    facts.standbys[1].sync_priority = 0;
    assert!(decide(&view).actions.contains(&fewer), "it knows that it is out");
    let Local::Primary(facts) = &mut view.local else { unreachable!() };
    facts.standbys[1] = StandbyFacts { sync_priority: 1, flush_lsn: Some(Lsn(1000)), ..facts.standbys[1].clone() };
    assert!(decide(&view).actions.contains(&fewer), "it has passed on what came after the change");
}

fn leading(names: &[&str], flushed: u64) -> View {
    let mut view = quorum(view(Local::Primary(server(false)), mine()), 0);
    view.cluster.sync = SyncState { leader: Some("a".into()), quorum: 0, voters: BTreeSet::new() };
    view.memory.knows_barrier = true;
    let Local::Primary(facts) = &mut view.local else { unreachable!() };
    facts.standbys = streaming(names, flushed);
    view
}

#[test]
fn new_standbys_are_waited_for_before_they_may_vote() {
    let mut view = leading(&["b", "c"], 1000);
    let names = PgSync::any(1, ["b", "c"].map(str::to_owned).into());
    assert!(decide(&view).actions.contains(&Action::SetSyncNames(names.clone())));
    let Local::Primary(facts) = &mut view.local else { unreachable!() };
    facts.synchronous_standby_names = names.render();
    view.memory.sync_barrier = Some(Lsn(1001));
    assert!(!decide(&view).actions.iter().any(|a| matches!(a, Action::PutSync(_))), "they lack the past");
    view.memory.sync_barrier = Some(Lsn(1000));
    let voters = SyncState { leader: Some("a".into()), quorum: 1, voters: names.names };
    assert!(decide(&view).actions.contains(&Action::PutSync(voters)));
}

#[test]
fn names_that_are_not_known_to_be_heeded_are_set_again_before_anybody_votes() {
    let mut view = leading(&["b", "c"], 1000);
    let names = PgSync::any(1, ["b", "c"].map(str::to_owned).into());
    let Local::Primary(facts) = &mut view.local else { unreachable!() };
    facts.synchronous_standby_names = names.render();
    view.memory.names_change();
    assert!(decide(&view).actions.contains(&Action::SetSyncNames(names)));
}

#[test]
fn when_all_standbys_are_gone_the_dcs_knows_it_before_commits_go_on_alone() {
    let mut view = leading(&[], 0);
    let names: BTreeSet<String> = ["b", "c"].map(str::to_owned).into();
    view.cluster.sync = SyncState { leader: Some("a".into()), quorum: 1, voters: names.clone() };
    let Local::Primary(facts) = &mut view.local else { unreachable!() };
    facts.synchronous_standby_names = PgSync::any(1, names).render();
    view.memory.no_standby_since = Some(NOW.minus(Duration::from_secs(1)));
    assert!(!decide(&view).actions.iter().any(|a| matches!(a, Action::PutSync(_) | Action::SetSyncNames(_))), "a blip changes nothing");
    view.memory.no_standby_since = Some(NOW.minus(Duration::from_secs(3)));
    let nobody = SyncState { leader: Some("a".into()), ..SyncState::default() };
    assert!(decide(&view).actions.contains(&Action::PutSync(nobody.clone())));
    view.cluster.sync = nobody;
    assert!(decide(&view).actions.contains(&Action::SetSyncNames(PgSync::default())));
    view.settings.synchronous_mode_strict = true;
    assert!(!decide(&view).actions.iter().any(|a| matches!(a, Action::SetSyncNames(_))), "strict never goes on alone");
}

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
fn an_empty_member_never_initialises_beside_existing_data() {
    let mut view = view(Local::Empty, Lock::Free);
    view.cluster.initialize = Initialize::Absent;
    assert_eq!(decide(&view).actions, [], "others run with data");
    for other in ["b", "c"] {
        view.cluster.members.insert(name(other), MemberData { state: PgState::Stopped, ..MemberData::default() });
    }
    assert_eq!(decide(&view).actions, [Action::ClaimInitialize]);
    view.may_initialize = false;
    assert_eq!(decide(&view).actions, [], "this one may only join");
}

#[test]
fn a_server_that_takes_no_connections_is_killed_whoever_leads() {
    for lock in [mine(), other(), Lock::Free, Lock::Unknown { until: None }] {
        let mut view = view(Local::Silent { since: NOW }, lock);
        view.memory.trouble = Some(Trouble::PostmasterHangs);
        let decision = decide(&view);
        assert_eq!((decision.actions, decision.reason), (vec![Action::StopServer(Stop::Kill)], Reason::PostmasterHangs));
    }
}

#[test]
fn a_leader_on_a_bad_disk_gives_the_key_up_only_when_nothing_of_it_can_run_any_more() {
    let mut view = view(Local::Silent { since: NOW }, mine());
    view.memory.trouble = Some(Trouble::DiskFails { why: "it hangs".to_owned() });
    assert_eq!(decide(&view).actions, [Action::StopServer(Stop::Kill)]);
    view.memory.killed = true;
    assert_eq!(decide(&view).actions, [Action::ReleaseLeader]);
    view.local = stopped(ClusterState::InProduction, false);
    assert_eq!(decide(&view).actions, [Action::ReleaseLeader], "nothing is started from it either");
}

#[test]
fn nobody_races_with_a_bad_disk() {
    let mut view = view(Local::Standby(server(true)), Lock::Free);
    view.memory.trouble = Some(Trouble::DiskFails { why: "it hangs".to_owned() });
    assert_eq!(decide(&view).actions, []);
}

#[test]
fn data_of_another_cluster_is_left_alone() {
    for local in [stopped(ClusterState::ShutDown, false), Local::Primary(server(false)), Local::Standby(server(true))] {
        for lock in [mine(), other(), Lock::Free] {
            let mut view = view(local.clone(), lock);
            view.cluster.initialize = Initialize::Done(SystemId(9_999_999_999));
            let decision = decide(&view);
            // Without a server the agent ends; with one nobody can say yet who is wrong.
            let ends = matches!(view.local, Local::Stopped(_));
            assert_eq!(decision.actions, if ends { vec![Action::RefuseToStart] } else { Vec::new() });
            assert!(decision.reason.to_string().contains("touching nothing"), "{decision:?}");
        }
    }
}

#[test]
fn an_attempt_to_initialise_that_lost_is_set_aside() {
    let mut view = view(stopped(ClusterState::ShutDown, false), other());
    view.cluster.initialize = Initialize::Done(SystemId(9_999_999_999));
    view.memory.unrecorded_bootstrap = true;
    assert_eq!(decide(&view).actions, [Action::SetDataAside]);
}

#[test]
fn a_half_rewound_directory_is_never_started() {
    for lock in [mine(), other(), Lock::Free, Lock::Unknown { until: None }] {
        let Local::Stopped(mut data) = stopped(ClusterState::ShutDownInRecovery, true) else { unreachable!() };
        data.half_rewound = true;
        let decision = decide(&view(Local::Stopped(data), lock));
        let starts = decision.actions.iter().any(|a| matches!(a, Action::StartPrimary | Action::StartStandby(_)));
        assert!(!starts, "{decision:?}");
    }
}

#[test]
fn a_primary_that_lost_the_dcs_leads_again_only_on_the_latest_timeline() {
    let mut view = view(Local::Primary(server(false)), Lock::Free);
    assert!(claims(&view));
    view.cluster.history = vec![HistoryEntry(Timeline(1), Lsn(5), String::new(), String::new(), "b".into())];
    assert_eq!(decide(&view).reason, Reason::OtherTimelineAhead);
    view.cluster.history.clear();
    assert_eq!(decide(&quorum(view, 1)).reason, Reason::OtherLedSince { leader: "b".into() });
}

#[test]
fn a_leader_that_ends_hands_over_first() {
    let mut view = leading(&["b"], 1000);
    view.stopping = true;
    assert_eq!(decide(&view).actions, [Action::HandOver]);
    view.task = Some(Task::HandOver);
    assert_eq!(decide(&view).actions, []);
    let mut follower = super::tests::view(Local::Standby(server(true)), other());
    follower.stopping = true;
    assert_eq!(decide(&follower).actions, [Action::StopServer(Stop::Fast)]);
    follower.local = stopped(ClusterState::ShutDownInRecovery, true);
    assert_eq!(decide(&follower).actions, [Action::End]);
}

#[test]
fn slots_that_nobody_claims_are_dropped_in_time() {
    let mut view = leading(&["b", "c"], 1000);
    let Local::Primary(facts) = &mut view.local else { unreachable!() };
    facts.slots.extend(slots(&["gone"]));
    let drop = Action::DropSlots(BTreeSet::from(["gone".to_owned()]));
    view.memory.unclaimed_slots = BTreeMap::from([("gone".to_owned(), NOW.minus(Duration::from_secs(1799)))]);
    assert!(!decide(&view).actions.contains(&drop), "its member may come back");
    view.memory.unclaimed_slots = BTreeMap::from([("gone".to_owned(), NOW.minus(Duration::from_secs(1801)))]);
    assert!(decide(&view).actions.contains(&drop));
}

#[test]
fn a_former_leader_keeps_no_slots_for_others() {
    let facts = ServerFacts { slots: slots(&["b", "c", "mine"]), ..server(true) };
    let drop = Action::DropSlots(["b", "c"].map(str::to_owned).into());
    assert_eq!(decide(&view(Local::Standby(facts), other())).actions, [Action::Follow(Some(name("b"))), drop]);
}

#[test]
fn a_standby_that_does_not_stream_looks_where_the_histories_parted() {
    let mut view = view(Local::Standby(ServerFacts { streaming: false, ..server(true) }), other());
    view.memory.not_streaming_since = Some(NOW.minus(Duration::from_millis(500)));
    assert_eq!(decide(&view).actions, [Action::Follow(Some(name("b")))]);
    view.memory.not_streaming_since = Some(NOW.minus(Duration::from_secs(2)));
    assert!(decide(&view).actions.contains(&Action::CompareHistories(name("b"))));
    view.memory.diverged = true;
    assert_eq!(decide(&view).actions, [Action::StopServer(Stop::Fast)]);
}

#[test]
fn a_standby_whose_wal_is_gone_is_copied_anew() {
    let mut view = view(Local::Standby(ServerFacts { streaming: false, ..server(true) }), other());
    view.memory.wal_gone = true;
    assert_eq!(decide(&view).actions, [Action::StopServer(Stop::Fast)]);
    view.local = stopped(ClusterState::ShutDownInRecovery, true);
    assert_eq!(decide(&view).actions, [Action::Clone(name("b"))]);
}

#[test]
fn a_standby_that_never_starts_is_copied_once() {
    let mut view = view(stopped(ClusterState::ShutDownInRecovery, true), other());
    view.memory.failed_starts = 2;
    assert_eq!(decide(&view).actions, [Action::StartStandby(Some(name("b")))]);
    view.memory.failed_starts = 3;
    assert_eq!(decide(&view).actions, [Action::Clone(name("b"))]);
    view.memory.copied = true;
    assert_eq!(decide(&view).actions, [Action::StartStandby(Some(name("b")))], "a second copy would not start either");
}

#[test]
fn a_standby_that_is_still_starting_waits_for_the_present_leader() {
    let view = view(Local::Silent { since: NOW }, other());
    assert_eq!(decide(&view).actions, [Action::Follow(Some(name("b")))]);
}
