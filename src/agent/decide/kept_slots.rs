//! Physical slots that outlive whoever leads: those that the configuration asks for, and those of members that are away.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    agent::{
        action::Action,
        view::{ServerFacts, View},
    },
    dcs::{snapshot::StatusKey, tags},
    model::{Lsn, MemberName},
};

/// The slots that are kept on this member.
fn kept(view: &View) -> BTreeSet<String> {
    let own = view.me.slot_name();
    let mut kept = view.settings.permanent_slots.clone();
    // Who leads next has to have the WAL of a member that is away now.
    if !view.settings.member_slots_ttl.is_zero() {
        let present: BTreeSet<String> = view.cluster.members.keys().map(MemberName::slot_name).collect();
        kept.extend(view.cluster.status.retain_slots.iter().filter(|slot| !present.contains(*slot)).cloned());
    }
    kept.remove(&own);
    kept
}

/// Makes those slots that are missing here. A member that must not lead keeps none: nobody would ever ask it.
pub fn missing(view: &View, server: &ServerFacts) -> Option<Action> {
    if tags::nofailover(&view.tags) || !view.settings.use_slots {
        return None;
    }
    let missing: BTreeSet<String> = kept(view).into_iter().filter(|slot| !server.slots.contains_key(slot)).collect();
    (!missing.is_empty()).then_some(Action::EnsureKeptSlots(missing))
}

/// How far a standby may release the WAL that it keeps for others: to where the leader says that they are.
pub fn advances(view: &View, server: &ServerFacts) -> BTreeMap<String, Lsn> {
    let advance = |slot: String| {
        let (is, facts) = (*view.cluster.status.slots.get(&slot)?, server.slots.get(&slot)?);
        (!facts.active && facts.restart_lsn.is_some_and(|lsn| lsn < is)).then_some((slot, is))
    };
    kept(view).into_iter().filter_map(advance).collect()
}

/// Slots that belong to nobody, and have for longer than `member_slots_ttl`.
pub fn stale(view: &View) -> BTreeSet<String> {
    let kept = view.settings.permanent_slots.clone();
    let retained = |slot: &String| view.cluster.leader.as_ref() != Some(&view.me) && view.cluster.status.retain_slots.contains(slot);
    let unclaimed = view.memory.unclaimed_slots.iter().filter(|(_, since)| view.now.since(**since) > view.settings.member_slots_ttl);
    unclaimed.map(|(slot, _)| slot).filter(|slot| !kept.contains(*slot) && !retained(slot) && !is_ignored(view, slot)).cloned().collect()
}

/// What the leader tells of itself and of the slots on it.
pub fn status(view: &View, server: &ServerFacts) -> StatusKey {
    let mut slots: BTreeMap<String, Lsn> =
        server.slots.iter().filter_map(|(slot, facts)| Some((slot.clone(), facts.restart_lsn?))).collect();
    slots.insert(view.me.slot_name(), server.position);
    let away = |slot: &&String| !view.settings.permanent_slots.contains(*slot) && !is_ignored(view, slot);
    let retain_slots = view.memory.unclaimed_slots.keys().filter(away).cloned().collect();
    StatusKey { optime: server.position, slots, retain_slots, ..StatusKey::default() }
}

fn is_ignored(view: &View, slot: &str) -> bool {
    view.settings.ignore_slots.iter().any(|ignored| ignored.covers(slot))
}
