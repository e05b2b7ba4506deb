//! Data without a server, and standbys that cannot go on as they are.

use super::*;

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
fn a_standby_that_was_found_fit_to_follow_and_has_diverged_after_all_comes_back_another_way() {
    let mut view = view(stopped(ClusterState::ShutDownInRecovery, true), other());
    view.memory.task_ended(Task::Rejoin, TaskEnd::ReadyToFollow(name("b")), NOW);
    assert_eq!(decide(&view).actions, [Action::StartStandby(Some(name("b")))]);
    // Its control file said less of it than the WAL that it had.
    view.memory.task_ended(Task::CompareHistories, TaskEnd::Diverged, NOW);
    assert_eq!(decide(&view).actions, [Action::Rejoin(name("b"))]);
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

#[test]
fn an_empty_member_never_initialises_beside_existing_data() {
    let mut view = view(Local::Empty, Lock::Free);
    view.cluster.initialize = Initialize::Absent;
    assert_eq!(decide(&view).actions, [], "others run with data");
    for other in ["b", "c"] {
        view.cluster.members.insert(name(other), MemberData { state: PgState::Stopped, ..MemberData::default() });
    }
    assert_eq!(decide(&view).actions, [Action::ClaimInitialize]);
    view.memory.begin_again_at = Some(view.now + Duration::from_secs(1));
    assert_eq!(decide(&view).actions, [], "it has just failed, and others may be luckier");
    view.memory.begin_again_at = Some(view.now);
    assert_eq!(decide(&view).actions, [Action::ClaimInitialize]);
    view.may_initialize = false;
    assert_eq!(decide(&view).actions, [], "this one may only join");
}
