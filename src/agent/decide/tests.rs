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
        memory::{Look, TaskEnd},
        reason::Reason,
        view::{Local, Lock, Memory, Peer, ServerFacts, StoppedData, Task, Trouble, View, Wishes},
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

mod forgotten;
mod kept_slots;
mod logical_slots;
mod notices;
mod race;
mod recovery;
mod space;
mod standby_cluster;
mod switchover;
mod sync;
mod tags;
mod timelines;
mod unreadable;
mod vitality;
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
        receiver: in_recovery.then_some(4711),
        primary_conninfo: String::new(),
        synchronous_standby_names: String::new(),
        standbys: Vec::new(),
        slots: if in_recovery { BTreeMap::new() } else { slots(&["b", "c"]) },
        has_archive: false,
        decodes: true,
        logical_slots: BTreeMap::new(),
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
        redo: Lsn(890),
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
            table.push_str(&row("", local_name, lock_name, &view(local.clone(), lock.clone())));
        }
    }
    for (local_name, local) in &locals {
        for (lock_name, lock) in &locks {
            let following = standby_cluster::following(view(local.clone(), lock.clone()));
            table.push_str(&row("standby cluster: ", local_name, lock_name, &following));
        }
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/decisions.txt");
    if std::env::var_os("UPDATE_FIXTURES").is_some() {
        std::fs::write(path, &table).unwrap();
    }
    let reviewed = std::fs::read_to_string(path).unwrap();
    assert_eq!(table, reviewed, "decisions changed: review them, then run this test with UPDATE_FIXTURES=1");
}

fn row(cluster: &str, local: &str, lock: &str, view: &View) -> String {
    let decision = decide(view);
    let actions: Vec<String> = decision.actions.iter().map(|a| format!("{a:?}")).collect();
    format!("{cluster}{local} | {lock} | {} | {}\n", actions.join(", "), decision.reason)
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
fn a_clean_end_is_forgotten_before_the_next_leader_writes() {
    let mut view = view(Local::Standby(server(true)), mine());
    view.cluster.status.final_lsn = Some(Lsn(900));
    assert_eq!(decide(&view).actions, [Action::ForgetCleanEnd]);
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

fn leading(names: &[&str], flushed: u64) -> View {
    let mut view = quorum(view(Local::Primary(server(false)), mine()), 0);
    view.cluster.sync = SyncState { leader: Some("a".into()), quorum: 0, voters: BTreeSet::new() };
    view.memory.knows_barrier = true;
    let Local::Primary(facts) = &mut view.local else { unreachable!() };
    facts.standbys = streaming(names, flushed);
    view
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
