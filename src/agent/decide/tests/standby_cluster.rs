use serde_json::json;

use super::*;
use crate::{
    agent::{
        action::Remote,
        memory::{Look, TaskEnd},
    },
    spec::standby_cluster::StandbyCluster,
};

const CONNINFO: &str = "user=replicator host=elsewhere port=5432 application_name=standby/real/a connect_timeout=3";

/// The cluster follows another one; whoever leads it is its standby leader.
pub(super) fn following(mut view: View) -> View {
    let hosts = vec![("elsewhere".to_owned(), 5432)];
    view.settings.standby_cluster = Some(StandbyCluster { hosts, ..StandbyCluster::default() });
    for member in view.cluster.members.values_mut().filter(|member| member.role == MemberRole::Primary) {
        member.role = MemberRole::StandbyLeader;
    }
    if let Local::Standby(server) = &mut view.local
        && matches!(view.lock, Lock::Mine { .. })
    {
        server.primary_conninfo = CONNINFO.to_owned();
    }
    view
}

fn leading() -> View {
    let facts = ServerFacts { slots: slots(&["b", "c"]), standbys: streaming(&["b", "c"], 1000), ..server(true) };
    let mut view = following(view(Local::Standby(facts), mine()));
    view.cluster.timelines = TimelineKey { reserved: 1, remote: Some(Timeline(1)), ..TimelineKey::default() };
    view
}

fn facts(view: &mut View) -> &mut ServerFacts {
    let Local::Standby(facts) = &mut view.local else { unreachable!() };
    facts
}

fn promotes(view: &View) -> bool {
    decide(view).actions.iter().any(|a| matches!(a, Action::Promote | Action::StartPrimary | Action::ReserveTimeline(_)))
}

#[test]
fn nobody_is_promoted_or_started_as_primary_whatever_is_found() {
    for lock in [mine(), other(), Lock::Free, Lock::Unknown { until: Some(NOW + Duration::from_secs(5)) }, Lock::Unknown { until: None }] {
        for state in [ClusterState::ShutDown, ClusterState::InProduction, ClusterState::ShutDownInRecovery] {
            for signal in [true, false] {
                let mut view = following(view(stopped(state, signal), lock.clone()));
                view.memory.circle = Some(BTreeSet::new());
                view.cluster.leader = Some(name("a"));
                assert!(!promotes(&view), "{lock:?} {state:?} {signal}");
            }
        }
        assert!(!promotes(&following(view(Local::Standby(server(true)), lock.clone()))), "{lock:?}");
    }
}

#[test]
fn the_standby_leader_streams_from_the_other_cluster_and_tells_how_far_it_has_come() {
    let decision = decide(&leading());
    assert_eq!((decision.actions, decision.reason), (vec![Action::Remote(Remote::Follow), Action::PutStatus], Reason::LeadingStandby));
}

#[test]
fn what_is_here_is_compared_before_it_follows() {
    let mut view = leading();
    facts(&mut view).streaming = false;
    let compares = Action::Remote(Remote::Compare);
    let decision = decide(&view);
    assert!(decision.actions.contains(&compares) && !decision.actions.contains(&Action::Remote(Remote::Follow)), "{decision:?}");
    view.memory.fits_remote = true;
    view.memory.remote_silent_since = Some(NOW.minus(Duration::from_secs(1)));
    let decision = decide(&view);
    assert!(!decision.actions.contains(&compares) && decision.actions.contains(&Action::Remote(Remote::Follow)), "{decision:?}");
    view.memory.remote_silent_since = Some(NOW.minus(Duration::from_secs(2)));
    assert!(decide(&view).actions.contains(&compares));
    // A stream from whoever led before says nothing of the other cluster.
    let mut elected = leading();
    facts(&mut elected).primary_conninfo = "host=h port=5432 application_name=a".into();
    assert!(decide(&elected).actions.contains(&compares));
}

#[test]
fn a_standby_leader_that_has_something_of_its_own_comes_back_in_place() {
    let mut view = leading();
    view.memory.diverged = true;
    assert_eq!(decide(&view).actions, [Action::StopServer(Stop::Fast)]);
    view.local = stopped(ClusterState::ShutDownInRecovery, true);
    assert_eq!(decide(&view).actions, [Action::Remote(Remote::Rejoin)]);
    view.memory.diverged = false;
    view.memory.wal_gone = true;
    assert_eq!(decide(&view).actions, [Action::Remote(Remote::Copy)]);
    view.memory = Memory { fits_remote: true, ..Memory::default() };
    assert_eq!(decide(&view).actions, [Action::Remote(Remote::Start)]);
}

#[test]
fn a_primary_that_finds_the_section_stops_cleanly_and_keeps_the_key() {
    let mut view = following(super::leading(&["b", "c"], 1000));
    assert_eq!(decide(&view).actions, [Action::DemoteCluster]);
    view.settings.pause = true;
    assert_eq!(decide(&view).reason, Reason::Leading, "an operator works on it");
    view.settings.pause = false;
    view.task = Some(Task::DemoteCluster);
    assert_eq!(decide(&view).actions, []);
    view.lock = other();
    assert_eq!(decide(&view).actions, [Action::StopServer(Stop::Immediate)]);
    view.lock = Lock::Unknown { until: Some(NOW) };
    assert_eq!(decide(&view).actions, [Action::StopServer(Stop::Immediate)]);
    for signal in [true, false] {
        let demoted = following(super::view(stopped(ClusterState::ShutDown, signal), mine()));
        assert_eq!(decide(&demoted).actions, [Action::Remote(Remote::Rejoin)], "where the histories parted has to be looked up");
    }
}

#[test]
fn who_voted_before_is_forgotten_only_when_what_is_here_is_the_other_clusters() {
    let voters = SyncState { leader: Some("a".into()), quorum: 1, voters: ["b", "c"].map(str::to_owned).into() };
    let mut view = leading();
    view.cluster.sync = voters;
    view.cluster.timelines.begun = Some(Timeline(1));
    let forgets = |view: &View| decide(view).actions.contains(&Action::PutSync(SyncState::default()));
    assert!(forgets(&view));
    assert!(decide(&view).actions.contains(&Action::Remote(Remote::RecordTimeline(Timeline(1)))));
    facts(&mut view).streaming = false;
    assert!(!forgets(&view), "the section may be removed again");
}

#[test]
fn a_switchover_only_moves_the_key() {
    let mut view = leading();
    view.cluster.failover = Some(FailoverKey { leader: Some("a".into()), member: Some("c".into()), scheduled_at: None });
    assert_eq!(decide(&view).actions, [Action::ReleaseLeader]);
    facts(&mut view).standbys.clear();
    assert_eq!(decide(&view).actions, [Action::ClearFailover]);
    // The candidate, while the former leader goes on receiving.
    let mut candidate = following(racing(&[("b", standby_peer(5000)), ("c", standby_peer(1000))]));
    candidate.cluster.failover = Some(FailoverKey { leader: Some("b".into()), member: Some("a".into()), scheduled_at: None });
    assert_eq!(decide(&candidate).reason, Reason::NamedCandidate);
    candidate.cluster.failover = Some(FailoverKey { leader: Some("b".into()), ..FailoverKey::default() });
    assert!(claims(&candidate), "what 'b' has received meanwhile is no lead");
    candidate.cluster.failover = None;
    assert!(!claims(&candidate));
}

#[test]
fn who_never_streams_does_not_lead_a_standby_cluster() {
    let mut view = following(racing(&[("b", Peer::Silent), ("c", standby_peer(1000))]));
    assert!(claims(&view));
    view.tags.insert("nostream".into(), json!(true));
    assert_eq!(decide(&view).reason, Reason::MustStream);
    view.local = Local::Empty;
    view.cluster.initialize = Initialize::Absent;
    view.cluster.members.clear();
    assert_eq!(decide(&view).reason, Reason::MustStream);
}

#[test]
fn a_new_standby_cluster_is_seen_to_be_one_before_it_is_seen_at_all() {
    let mut view = following(view(stopped(ClusterState::InArchiveRecovery, true), Lock::Free));
    view.cluster.initialize = Initialize::InProgress;
    view.memory.holds_initialize = true;
    view.cluster.config = None;
    let Local::Stopped(data) = &mut view.local else { unreachable!() };
    data.fresh_copy = true;
    let actions = [Action::EnsureConfig, Action::RecordInitialize(SYSTEM), Action::StartStandby(None)];
    assert_eq!(decide(&view).actions, actions);
}

#[test]
fn without_the_section_the_standby_leader_is_promoted_above_every_number_that_the_other_cluster_may_take() {
    let mut view = leading();
    view.settings.standby_cluster = None;
    view.settings.synchronous_mode = crate::spec::settings::SyncMode::Quorum;
    let voters = SyncState { leader: Some("a".into()), quorum: 1, voters: ["b", "c"].map(str::to_owned).into() };
    assert_eq!(decide(&view).actions, [Action::PutSync(voters.clone())], "somebody can be elected should it die here");
    view.cluster.sync = voters.clone();
    let names = PgSync::any(1, voters.voters);
    assert_eq!(decide(&view).actions, [Action::SetSyncNames(names.clone())]);
    facts(&mut view).synchronous_standby_names = names.render();
    view.memory.heeded = Some(names);
    assert_eq!(decide(&view).actions, [Action::ReserveTimeline(Timeline(9))]);
    view.cluster.timelines = TimelineKey { reserved: 9, by: "a".into(), ..view.cluster.timelines };
    view.memory.reserved_timeline = Some(Timeline(9));
    assert_eq!(decide(&view).actions, [Action::Promote]);
    view.settings.pause = true;
    assert_eq!(decide(&view).reason, Reason::Paused);
}

#[test]
fn a_replica_of_a_standby_cluster_follows_its_leader() {
    let mut view = following(view(Local::Standby(server(true)), other()));
    assert_eq!(decide(&view).actions, [Action::Follow(Some(name("b")))]);
    view.local = Local::Empty;
    assert_eq!(decide(&view).actions, [Action::Clone(name("b"))]);
}

#[test]
fn what_was_compared_counts_until_somebody_else_leads() {
    let view = leading();
    let mut memory = Memory::default();
    memory.task_ended(Task::CompareHistories, TaskEnd::FitsRemote, NOW);
    assert!(memory.fits_remote);
    let look = |memory: &mut Memory, local: &Local, lock: &Lock| {
        memory.look(&Look {
            now: NOW,
            me: &view.me,
            cluster: &view.cluster,
            dcs_answers: true,
            lock,
            local,
            server_age: Duration::ZERO,
            unrecorded_bootstrap: false,
            has_old_data: false,
        });
    };
    let silent = Local::Standby(ServerFacts { streaming: false, ..server(true) });
    memory.remote_fault = Some("no word".into());
    look(&mut memory, &silent, &mine());
    assert_eq!((memory.fits_remote, memory.remote_silent_since), (true, Some(NOW)));
    assert_eq!(memory.trouble().as_deref(), Some("standby cluster: no word"));
    look(&mut memory, &view.local, &mine());
    assert_eq!((memory.fits_remote, memory.remote_silent_since, memory.trouble()), (true, None, None));
    look(&mut memory, &view.local, &other());
    assert!(!memory.fits_remote, "it may come by what the other cluster does not have");
    memory.task_ended(Task::Rejoin, TaskEnd::FitsRemote, NOW);
    memory.task_ended(Task::CompareHistories, TaskEnd::Diverged, NOW);
    assert!(!memory.fits_remote && memory.diverged);
}
