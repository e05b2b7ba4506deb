//! The leader: leading, promoting, and what to do when the lease is in doubt.

use std::{collections::BTreeSet, time::Duration};

use super::{
    cascade, failsafe, forgotten, kept_slots, pause, space,
    switchover::{self, Timing},
    sync, timelines,
};
use crate::{
    agent::{
        action::{Action, Decision, PgSync, Stop},
        reason::Reason,
        view::{ServerFacts, View},
    },
    dcs::snapshot::Initialize,
    model::MemberName,
    sys::clock::Moment,
};

/// How soon the DCS is asked again while it does not answer.
const RETRY: Duration = Duration::from_millis(200);

/// A promotion is begun only with this much of the lease left.
const PROMOTION: Duration = Duration::from_secs(1);

/// The leader leads.
pub fn lead(view: &View, server: &ServerFacts) -> Decision {
    let mut until_hand_over = None;
    if let Some(request) = &view.cluster.failover
        && view.task.is_none()
    {
        match switchover::timing(view, request) {
            Timing::Now => return switchover::asked_to_hand_over(view, server, request),
            Timing::Over(why) => return switchover::withdraw(why),
            Timing::Later(wait) => until_hand_over = wait,
        }
    }
    if let Some(decision) = space::hand_over(view, server) {
        return decision;
    }
    let mut actions = records(view, server);
    let (sync_action, soon) = sync::leader_step(view, server);
    actions.extend(sync_action);
    actions.extend(failsafe::key_to_write(view));
    actions.extend(slots(view, server));
    actions.push(Action::PutStatus);
    if view.memory.checkpoint_due && view.task.is_none() {
        actions.push(Action::Checkpoint);
    }
    if view.memory.has_old_data {
        actions.push(Action::DropOldData);
    }
    // Last: a database that does not exist keeps nothing else from being done.
    actions.extend(kept_slots::logical(view, server));
    let recheck = [soon, until_hand_over].into_iter().flatten().min();
    Decision { actions, reason: Reason::Leading, recheck }
}

/// What the DCS should hold of a cluster that has a leader.
fn records(view: &View, server: &ServerFacts) -> Vec<Action> {
    let mut actions = identity(view, server);
    actions.extend(timelines::records(view, server));
    actions
}

/// Whose data the cluster is made of, and its configuration.
pub fn identity(view: &View, server: &ServerFacts) -> Vec<Action> {
    let mut actions = Vec::new();
    if view.cluster.initialize != Initialize::Done(server.system_id) {
        actions.push(Action::RecordInitialize(server.system_id));
    } else if view.memory.unrecorded_bootstrap {
        actions.push(Action::BootstrapIsRecorded);
    }
    if view.cluster.config.is_none() {
        actions.push(Action::EnsureConfig);
    }
    actions
}

/// Slots for everybody who may stream, and none for those who have been away too long: their WAL would fill the disk.
pub fn slots(view: &View, server: &ServerFacts) -> Vec<Action> {
    if !view.settings.use_slots {
        return Vec::new();
    }
    let mut actions = Vec::new();
    actions.extend(missing_slots(cascade::slots_of_leader(view), server));
    let advances = cascade::advances(view, server);
    if !advances.is_empty() {
        actions.push(Action::AdvanceSlots(advances));
    }
    actions.extend(kept_slots::missing(view, server));
    let unused = cascade::never_streaming(view).map(MemberName::slot_name).filter(|slot| server.slots.contains_key(slot));
    let stale: BTreeSet<String> = kept_slots::stale(view).into_iter().chain(unused).collect();
    if !stale.is_empty() {
        actions.push(Action::DropSlots(stale));
    }
    actions
}

/// Makes the slots of those members that have none.
pub fn missing_slots(members: BTreeSet<MemberName>, server: &ServerFacts) -> Option<Action> {
    let missing: BTreeSet<MemberName> = members.into_iter().filter(|m| !server.slots.contains_key(&m.slot_name())).collect();
    (!missing.is_empty()).then_some(Action::EnsureSlots(missing))
}

/// The leader key is ours and the server is a standby: promote it, in an order that loses nothing at any point.
pub fn promote(view: &View, server: &ServerFacts, until: Moment) -> Decision {
    // A standby cluster stays one as long as an operator works on it, even if its configuration says otherwise.
    let named = pause::named_candidate(view) == Some(view.me.as_str());
    if view.settings.pause && view.cluster.timelines.remote.is_some() && !named {
        return Decision::wait(Reason::Paused);
    }
    // Before anything is changed for the promotion: after a no, somebody else may lead at once.
    if view.stays_back() {
        // Whoever was wanted is not, and nobody should wait for it.
        let action = if view.cluster.failover.is_some() { Action::ClearFailover } else { Action::ReleaseLeader };
        return Decision::act([action], Reason::PrePromoteFailed);
    }
    if view.pre_promote && !view.memory.pre_promote_passed {
        return Decision::act([Action::RunPrePromote], Reason::PreparingPromotion);
    }
    // First the DCS: from here on whoever succeeds this member is elected by those who will confirm its commits.
    if let Some(voters) = sync::voters_before_promotion(view).filter(|voters| view.cluster.sync != *voters) {
        return Decision::act([Action::PutSync(voters)], Reason::PreparingPromotion);
    }
    // What the last leader left holds no more once this one writes: should it die with its first commits, nobody may take the old end for
    // the present one.
    if view.cluster.status.final_lsn.is_some() {
        return Decision::act([Action::ForgetCleanEnd], Reason::PreparingPromotion);
    }
    // Then PostgreSQL: the first commit already waits for a standby.
    let names = sync::names_before_promotion(view);
    if !heeds(view, server, &names) {
        let actions = vec![Action::SetSyncNames(names)];
        return Decision { actions, reason: Reason::PreparingPromotion, recheck: Some(RETRY) };
    }
    if until.since(view.now) < PROMOTION {
        return Decision::wait_briefly(Reason::PreparingPromotion, RETRY);
    }
    if let Some(reserve) = timelines::reservation(view, server) {
        return Decision::act([reserve], Reason::PreparingPromotion);
    }
    // Slots first, so that nobody who re-connects finds its WAL recycled.
    let slots = missing_slots(cascade::slots_of_leader(view), server).filter(|_| view.settings.use_slots);
    let kept = kept_slots::missing(view, server);
    Decision::act(slots.into_iter().chain(kept).chain([Action::Promote]), Reason::Promoting)
}

/// Commits would wait for these from the first one on. What sessions show is not what commits heed: the checkpointer tells them, and may be
/// busy. Only to wait for nobody it need not have told them.
fn heeds(view: &View, server: &ServerFacts, names: &PgSync) -> bool {
    let told = names.names.is_empty() || view.memory.heeded.as_ref() == Some(names);
    told && PgSync::parse(&server.synchronous_standby_names) == *names
}

/// A primary while nobody holds the leader key: at the end of a bootstrap, after the DCS lost its content, or after the key expired.
pub fn without_lock(view: &View, server: &ServerFacts) -> Decision {
    if let Some(stop) = led_since(view, server) {
        return stop;
    }
    if view.memory.unrecorded_bootstrap {
        return record_bootstrap(view, server);
    }
    if let Some(by_memory) = forgotten::lead_on(view, server) {
        return by_memory;
    }
    if view.cluster.initialize != Initialize::Done(server.system_id) {
        // The configuration comes after the claim: others who see one and no leader would race while this server writes.
        let actions = [Action::RecordInitialize(server.system_id), Action::ClaimLeader];
        return Decision::act(actions, Reason::TakingOverExisting);
    }
    Decision::act([Action::ClaimLeader], Reason::Healthiest)
}

/// Somebody else has led since, by what the DCS says. One that knows less than this member is not asked.
fn led_since(view: &View, server: &ServerFacts) -> Option<Decision> {
    if view.memory.forgotten_since.is_some() {
        return None;
    }
    let sync = &view.cluster.sync;
    if let Some(leader) = sync.leader.as_deref().filter(|l| sync.is_active() && *l != view.me.as_str()) {
        let reason = Reason::OtherLedSince { leader: leader.to_owned() };
        return Some(Decision::act([Action::StopServer(Stop::Immediate)], reason));
    }
    let passed_over = server.timeline < timelines::latest(view);
    passed_over.then(|| Decision::act([Action::StopServer(Stop::Immediate)], Reason::OtherTimelineAhead))
}

/// The end of a bootstrap: nobody sees the new cluster before its roles exist.
fn record_bootstrap(view: &View, server: &ServerFacts) -> Decision {
    if let Some(wait) = forgotten::begin(view, Some(server.system_id)) {
        return wait;
    }
    match view.cluster.initialize {
        Initialize::Absent => Decision::act([Action::ClaimInitialize], Reason::ClaimingInitialize),
        Initialize::InProgress if !view.memory.holds_initialize => Decision::wait(Reason::OthersInitialize),
        _ => {
            let record = Action::RecordInitialize(server.system_id);
            Decision::act([Action::EnsureRoles, record, Action::EnsureConfig, Action::ClaimLeader], Reason::RecordingBootstrap)
        }
    }
}

/// A primary whose lease, if there was one, this agent does not know. The guard does.
pub fn adopted_without_answers() -> Decision {
    Decision::wait_briefly(Reason::DcsSilentWhileLeading, RETRY)
}
