//! What operators ask for: carried out when it is safe, refused with the reason otherwise. Every request is answered at once.

use super::bootstrap;
use crate::{
    agent::{
        action::Action,
        view::{Local, Lock, Refusal, Request, Restart, Task, View},
    },
    dcs::snapshot::{MemberData, MemberRole},
};

/// A standby with less than its primary's of one of these cannot replay what the primary writes.
pub const NO_LESS_THAN_PRIMARY: &[&str] =
    &["max_connections", "max_locks_per_transaction", "max_prepared_transactions", "max_wal_senders", "max_worker_processes"];

/// What becomes of the wishes in this turn.
pub enum Granted {
    /// Nobody asks for anything.
    Nothing,
    /// This is done, and nothing else.
    Only(Vec<Action>),
    /// This is done before whatever the rules say: it takes no time and changes nothing.
    Along(Vec<Action>),
}

/// Looks at the request that waits for its answer, and at a restart whose time has come.
pub fn asked(view: &View) -> Granted {
    let wishes = &view.wishes;
    if let Some(request) = &wishes.asked {
        let outcome = match request {
            Request::Restart(restart) => may_restart(view, restart),
            Request::Reinitialize { force, .. } => may_reinitialize(view, *force),
        };
        return match outcome {
            Ok(action) => Granted::Only(vec![action]),
            Err(why) => Granted::Along(vec![Action::Refuse(why)]),
        };
    }
    if may_end_a_blockade(view) {
        return Granted::Only(vec![Action::Restart { patience: None }]);
    }
    let (Local::Primary(server) | Local::Standby(server), Some(scheduled)) = (&view.local, &wishes.scheduled) else {
        return Granted::Nothing;
    };
    if server.started != scheduled.postmaster_start_time {
        // It was restarted meanwhile: that is what was asked for.
        return Granted::Along(vec![Action::ForgetScheduledRestart]);
    }
    if scheduled.at > wishes.wall_clock {
        return Granted::Nothing;
    }
    // Whatever it comes to, its time is over: a restart at another time is not what was asked for.
    let restart = if view.settings.pause { Err(Refusal::Conditions) } else { may_restart(view, &scheduled.restart) };
    match restart {
        Ok(action) => Granted::Only(vec![Action::ForgetScheduledRestart, action]),
        Err(why) => Granted::Along(vec![Action::ForgetScheduledRestart, Action::Refuse(why)]),
    }
}

/// A standby that cannot replay for want of a parameter is restarted without being asked: every commit that waits for it would wait for an
/// operator, and it could not be promoted either.
fn may_end_a_blockade(view: &View) -> bool {
    let standby = matches!((&view.local, &view.lock), (Local::Standby(_), Lock::Other(_)));
    view.wishes.blocks_replay && standby && !view.settings.pause && free_to_act(view, false).is_ok()
}

fn may_restart(view: &View, restart: &Restart) -> Result<Action, Refusal> {
    free_to_act(view, false)?;
    let go = Action::Restart { patience: restart.timeout };
    match &view.local {
        Local::Empty => return Err(Refusal::NoData),
        Local::Unusable { why } => return Err(Refusal::Unusable { why: why.clone() }),
        Local::Silent { .. } => return Err(Refusal::Starting),
        Local::Stopped(_) => {
            // Elsewhere it is started without being asked.
            return if view.settings.pause { Ok(go) } else { Err(Refusal::Starting) };
        }
        Local::Standby(_) if matches!(view.lock, Lock::Mine { .. }) && !view.is_standby_cluster() => return Err(Refusal::BeingPromoted),
        Local::Primary(_) if !matches!(view.lock, Lock::Mine { .. }) => return Err(Refusal::NoLease),
        Local::Primary(_) | Local::Standby(_) => {}
    }
    if !conditions_hold(view, restart) {
        return Err(Refusal::Conditions);
    }
    match (&view.local, standby_to_raise(view)) {
        (Local::Primary(_), Some(refusal)) => Err(refusal),
        _ => Ok(go),
    }
}

fn conditions_hold(view: &View, restart: &Restart) -> bool {
    let (Local::Primary(server) | Local::Standby(server)) = &view.local else { return false };
    let role = match (server.in_recovery, &view.lock) {
        (false, _) => MemberRole::Primary,
        (true, Lock::Mine { .. }) => MemberRole::StandbyLeader,
        (true, _) => MemberRole::Replica,
    };
    restart.role.is_none_or(|wanted| wanted == role)
        && restart.older_than.is_none_or(|version| server.version < version)
        && (!restart.pending || !view.wishes.pending.is_empty())
}

/// A standby that would not be able to replay any more once this primary was restarted with its new, higher parameters.
fn standby_to_raise(view: &View) -> Option<Refusal> {
    let raised = view.wishes.pending.iter().filter(|(name, change)| NO_LESS_THAN_PRIMARY.contains(&name.as_str()) && change.grows());
    for (parameter, change) in raised {
        let waits = |member: &&crate::model::MemberName| {
            view.cluster.members.get(*member).is_some_and(|data| data.waits_for_restart(parameter) && data.role != MemberRole::Primary)
        };
        if let Some(member) = view.others().find(waits) {
            let (parameter, wanted) = (parameter.clone(), change.new.clone());
            return Some(Refusal::StandbyFirst { member: member.clone(), parameter, wanted });
        }
    }
    None
}

fn may_reinitialize(view: &View, force: bool) -> Result<Action, Refusal> {
    let leader = match &view.lock {
        Lock::Mine { .. } => return Err(Refusal::Leads),
        Lock::Free | Lock::Unknown { .. } => return Err(Refusal::NoLeader),
        Lock::Other(leader) => leader,
    };
    free_to_act(view, force)?;
    if let Local::Unusable { why } = &view.local {
        return Err(Refusal::Unusable { why: why.clone() });
    }
    if bootstrap::is_foreign(view) {
        return Err(Refusal::Foreign);
    }
    // A primary that is about to be stopped, because another leads now, is no copy to throw away unseen.
    if matches!(view.local, Local::Primary(_)) || !view.cluster.members.get(leader).is_some_and(MemberData::is_ready_leader) {
        return Err(Refusal::NoHealthyCopy { leader: leader.clone() });
    }
    Ok(Action::Reinitialize(leader.clone()))
}

fn free_to_act(view: &View, force: bool) -> Result<(), Refusal> {
    match view.task {
        _ if view.stopping => Err(Refusal::Ending),
        // Work on which the leader's promises rest runs its course.
        Some(task)
            if !force || !matches!(task, Task::Clone | Task::Rejoin | Task::CompareHistories | Task::Restart | Task::Reinitialize) =>
        {
            Err(Refusal::Busy { task })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use serde_json::{Map, json};

    use super::*;
    use crate::{
        agent::{
            action::Stop,
            decide::{
                decide,
                tests::{NOW, mine, name, other, server, stopped, view},
            },
            view::{Pending, Scheduled},
        },
        postgres::control_data::ClusterState,
    };

    fn leader() -> View {
        view(Local::Primary(server(false)), mine())
    }

    fn standby() -> View {
        view(Local::Standby(server(true)), other())
    }

    fn answer(mut view: View, request: Request) -> Vec<Action> {
        view.wishes.asked = Some(request);
        decide(&view).actions
    }

    fn restart(view: View) -> Vec<Action> {
        answer(view, Request::Restart(Restart::default()))
    }

    fn reinitialize(view: View) -> Vec<Action> {
        answer(view, Request::Reinitialize { force: false, from_leader: false })
    }

    fn refused(actions: &[Action]) -> String {
        match actions.first() {
            Some(Action::Refuse(why)) => why.to_string(),
            other => panic!("not refused: {other:?}"),
        }
    }

    #[test]
    fn a_leader_with_its_lease_and_any_standby_may_be_restarted() {
        assert_eq!(restart(leader()), [Action::Restart { patience: None }]);
        let patient = Restart { timeout: Some(Duration::from_secs(7)), ..Restart::default() };
        assert_eq!(answer(standby(), Request::Restart(patient)), [Action::Restart { patience: Some(Duration::from_secs(7)) }]);
    }

    #[test]
    fn a_primary_without_its_lease_is_not_restarted_but_stopped() {
        let actions = restart(view(Local::Primary(server(false)), other()));
        assert!(refused(&actions).contains("leader key is not mine"));
        assert_eq!(actions[1], Action::StopServer(Stop::Immediate), "the rules go on");
        let silent = Lock::Unknown { until: Some(NOW + Duration::from_secs(5)) };
        assert!(refused(&restart(view(Local::Primary(server(false)), silent))).contains("leader key is not mine"));
    }

    #[test]
    fn a_restart_waits_for_nothing_that_is_under_way() {
        let mut promoting = view(Local::Standby(server(true)), mine());
        assert_eq!(refused(&restart(promoting.clone())), "promotion already in progress");
        promoting.task = Some(Task::Promote);
        assert_eq!(refused(&restart(promoting)), "promotion already in progress");
        assert_eq!(refused(&restart(view(Local::Silent { since: NOW }, mine()))), "postgres is still starting");
        let mut ending = leader();
        ending.stopping = true;
        assert_eq!(refused(&restart(ending)), "this agent is about to end");
    }

    #[test]
    fn a_restart_may_be_bound_to_role_version_and_need() {
        let refuses = |view: View, restart: Restart| refused(&answer(view, Request::Restart(restart)));
        let unmet = "restart conditions are not satisfied";
        assert_eq!(refuses(leader(), Restart { role: Some(MemberRole::Replica), ..Restart::default() }), unmet);
        assert_eq!(refuses(standby(), Restart { older_than: Some(server(true).version), ..Restart::default() }), unmet);
        assert_eq!(refuses(standby(), Restart { pending: true, ..Restart::default() }), unmet);
        let mut waiting = standby();
        waiting.wishes.pending = raised("work_mem");
        let all = Restart { role: Some(MemberRole::Replica), older_than: Some(server(true).version + 1), pending: true, timeout: None };
        assert_eq!(answer(waiting, Request::Restart(all)), [Action::Restart { patience: None }]);
    }

    fn raised(parameter: &str) -> BTreeMap<String, Pending> {
        BTreeMap::from([(parameter.to_owned(), Pending { old: "50".into(), new: "80".into() })])
    }

    #[test]
    fn standbys_take_a_higher_limit_before_their_primary() {
        let mut raising = leader();
        raising.wishes.pending = raised("max_connections");
        let standby = raising.cluster.members.get_mut(&name("c")).unwrap();
        standby.other.insert("pending_restart_reason".into(), json!({"max_connections": {"old_value": "50", "new_value": "80"}}));
        assert!(refused(&restart(raising.clone())).starts_with("restart 'c' first"));
        raising.cluster.members.get_mut(&name("c")).unwrap().other.clear();
        assert_eq!(restart(raising.clone()), [Action::Restart { patience: None }]);
        // A lower one begins with the primary.
        let standby = raising.cluster.members.get_mut(&name("c")).unwrap();
        standby.other.insert("pending_restart_reason".into(), json!({"max_connections": {}}));
        raising.wishes.pending.insert("max_connections".into(), Pending { old: "80".into(), new: "50".into() });
        assert_eq!(restart(raising), [Action::Restart { patience: None }]);
    }

    #[test]
    fn a_standby_that_has_too_little_to_replay_is_restarted() {
        let mut blocked = standby();
        blocked.wishes.blocks_replay = true;
        assert_eq!(decide(&blocked).actions, [Action::Restart { patience: None }]);
        blocked.settings.pause = true;
        assert!(!decide(&blocked).actions.contains(&Action::Restart { patience: None }));
    }

    #[test]
    fn only_a_member_with_a_healthy_leader_beside_it_is_copied_anew() {
        assert_eq!(reinitialize(standby()), [Action::Reinitialize(name("b"))]);
        assert_eq!(reinitialize(view(stopped(ClusterState::ShutDownInRecovery, true), other())), [Action::Reinitialize(name("b"))]);
        assert_eq!(refused(&reinitialize(leader())), "I am the leader, can not reinitialize");
        for lock in [Lock::Free, Lock::Unknown { until: None }] {
            assert_eq!(refused(&reinitialize(view(Local::Standby(server(true)), lock))), "Cluster has no leader, can not reinitialize");
        }
        let mut ill = standby();
        ill.cluster.members.get_mut(&name("b")).unwrap().state = crate::dcs::snapshot::PgState::Starting;
        assert!(refused(&reinitialize(ill)).contains("mine may be the only good copy"));
        assert!(refused(&reinitialize(view(Local::Primary(server(false)), other()))).contains("can not reinitialize"));
        let mut foreign = standby();
        foreign.cluster.initialize = crate::dcs::snapshot::Initialize::Done(crate::model::SystemId(7_000_000_002));
        assert!(refused(&reinitialize(foreign)).contains("another system"));
    }

    #[test]
    fn a_forced_copy_cuts_short_only_what_no_promise_rests_on() {
        let force = || Request::Reinitialize { force: true, from_leader: false };
        let mut busy = standby();
        busy.task = Some(Task::Rejoin);
        assert_eq!(refused(&reinitialize(busy.clone())), "coming back already in progress");
        assert_eq!(answer(busy.clone(), force()), [Action::Reinitialize(name("b"))]);
        busy.task = Some(Task::Promote);
        assert_eq!(refused(&answer(busy, force())), "promotion already in progress");
    }

    #[test]
    fn a_scheduled_restart_happens_in_its_time_and_once() {
        let mut scheduled = standby();
        let started = server(true).started;
        scheduled.wishes.scheduled =
            Some(Scheduled { at: 1000, restart: Restart::default(), body: Map::new(), postmaster_start_time: started });
        scheduled.wishes.wall_clock = 999;
        let before = decide(&standby()).actions;
        assert_eq!(decide(&scheduled).actions, before, "not yet");
        scheduled.wishes.wall_clock = 1000;
        assert_eq!(decide(&scheduled).actions, [Action::ForgetScheduledRestart, Action::Restart { patience: None }]);
        scheduled.settings.pause = true;
        assert_eq!(decide(&scheduled).actions[..2], [Action::ForgetScheduledRestart, Action::Refuse(Refusal::Conditions)]);
        let Some(due) = &mut scheduled.wishes.scheduled else { unreachable!() };
        due.postmaster_start_time = "earlier".into();
        assert_eq!(decide(&scheduled).actions[0], Action::ForgetScheduledRestart, "it was restarted meanwhile");
        assert!(!decide(&scheduled).actions.contains(&Action::Refuse(Refusal::Conditions)));
    }

    #[test]
    fn the_lease_of_a_primary_that_is_being_restarted_decides_whether_it_goes_on() {
        let mut restarting = view(Local::Silent { since: NOW }, other());
        restarting.task = Some(Task::RestartPrimary);
        assert_eq!(decide(&restarting).actions, [Action::StopServer(Stop::Immediate)]);
        restarting.lock = mine();
        assert_eq!(decide(&restarting).actions, []);
        // The stop has ended: what the lease allows is done, and nothing else.
        assert_eq!(decide(&view(stopped(ClusterState::ShutDown, false), mine())).actions, [Action::StartPrimary]);
        assert_eq!(decide(&view(stopped(ClusterState::ShutDown, false), other())).actions, [Action::Rejoin(name("b"))]);
        // A standby that is being restarted has nothing to lose.
        restarting.task = Some(Task::Restart);
        restarting.lock = other();
        assert_eq!(decide(&restarting).actions, []);
    }

    #[test]
    fn whoever_asks_for_a_longer_start_gets_it() {
        let mut starting = view(Local::Silent { since: NOW.minus(Duration::from_secs(400)) }, mine());
        assert!(decide(&starting).actions.contains(&Action::StopServer(Stop::Immediate)));
        starting.memory.bringing_up = Some(crate::agent::memory::BringingUp { before: None, patience: Some(Duration::from_secs(500)) });
        assert_eq!(decide(&starting).actions, []);
    }
}
