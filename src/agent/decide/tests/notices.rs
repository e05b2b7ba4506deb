//! What callbacks are told, and when a promotion waits for the user's program.

use super::*;
use crate::agent::decide::notices::{Event, Told, ToldRole, due};

fn started(mut local: Local, at: &str) -> Local {
    if let Local::Primary(facts) | Local::Standby(facts) = &mut local {
        facts.started = at.to_owned();
    }
    local
}

/// What is told of these looks, one after the other.
fn story(views: impl IntoIterator<Item = View>) -> Vec<(Event, ToldRole)> {
    let mut told = Told::default();
    let mut said = Vec::new();
    for view in views {
        let (event, next) = due(&told, &view);
        said.extend(event);
        told = next;
    }
    said
}

fn primary(at: &str) -> View {
    view(started(Local::Primary(server(false)), at), mine())
}

fn standby(at: &str, lock: Lock) -> View {
    view(started(Local::Standby(server(true)), at), lock)
}

#[test]
fn a_server_that_is_found_running_is_told_once() {
    assert_eq!(story([standby("1", other()), standby("1", other())]), [(Event::OnStart, ToldRole::Replica)]);
}

#[test]
fn a_promotion_is_a_change_of_role_and_nothing_else() {
    let mut promoting = standby("1", mine());
    promoting.task = Some(Task::Promote);
    let said = story([standby("1", other()), standby("1", mine()), promoting, primary("1")]);
    assert_eq!(said, [(Event::OnStart, ToldRole::Replica), (Event::OnRoleChange, ToldRole::Primary)]);
}

#[test]
fn a_primary_that_lost_the_key_is_demoted_before_it_follows() {
    let down = view(stopped(ClusterState::ShutDown, false), other());
    let said = story([primary("1"), down.clone(), down, standby("2", other())]);
    let rest = [(Event::OnRoleChange, ToldRole::Demoted), (Event::OnRoleChange, ToldRole::Replica)];
    assert_eq!(said[1..], rest);
}

#[test]
fn a_primary_that_crashed_and_is_back_under_its_lease_has_started() {
    let down = view(stopped(ClusterState::InProduction, false), mine());
    let said = story([primary("1"), down, primary("2")]);
    assert_eq!(said, [(Event::OnStart, ToldRole::Primary), (Event::OnStart, ToldRole::Primary)]);
}

#[test]
fn a_restart_that_was_asked_for_is_told_as_one() {
    let mut stopping = view(Local::Silent { since: NOW }, other());
    stopping.task = Some(Task::Restart);
    let down = view(stopped(ClusterState::ShutDownInRecovery, true), other());
    let said = story([standby("1", other()), stopping, down, standby("2", other()), standby("2", other())]);
    assert_eq!(said, [(Event::OnStart, ToldRole::Replica), (Event::OnRestart, ToldRole::Replica)]);
}

#[test]
fn at_the_agents_end_the_stop_is_told_once() {
    let mut end = view(stopped(ClusterState::ShutDown, false), Lock::Free);
    end.stopping = true;
    assert_eq!(story([primary("1"), end.clone(), end])[1..], [(Event::OnStop, ToldRole::Primary)]);
}

#[test]
fn nobody_is_told_of_a_cluster_before_it_is_recorded() {
    let mut unrecorded = primary("1");
    unrecorded.memory.unrecorded_bootstrap = true;
    assert_eq!(story([unrecorded]), []);
}

#[test]
fn the_users_program_is_asked_before_anything_is_changed_for_a_promotion() {
    let mut view = quorum(standby("1", mine()), 1);
    view.pre_promote = true;
    assert_eq!(decide(&view).actions, [Action::RunPrePromote]);
    view.memory.pre_promote_passed = true;
    assert!(matches!(decide(&view).actions[..], [Action::PutSync(_)]), "{:?}", decide(&view).actions);
    view.task = Some(Task::PrePromote);
    assert_eq!(decide(&view).actions, [], "the lease is renewed meanwhile");
    view.lock = other();
    assert_eq!(decide(&view).actions, [Action::CancelTask]);
}

#[test]
fn after_a_no_the_key_is_given_up_and_left_to_others_for_a_while() {
    let mut leading = standby("1", mine());
    leading.memory.stays_back_until = Some(NOW + Duration::from_secs(5));
    assert_eq!(decide(&leading).actions, [Action::ReleaseLeader]);
    leading.cluster.failover = Some(FailoverKey { member: Some("a".into()), ..FailoverKey::default() });
    assert_eq!(decide(&leading).actions, [Action::ClearFailover], "the others would wait for this candidate");
    let mut view = racing(&[("b", Peer::Silent), ("c", standby_peer(1))]);
    view.memory.stays_back_until = Some(NOW + Duration::from_secs(5));
    assert_eq!(decide(&view).reason, Reason::PrePromoteFailed);
    view.memory.stays_back_until = Some(NOW);
    assert_eq!(decide(&view).actions, [Action::ClaimLeader]);
}
