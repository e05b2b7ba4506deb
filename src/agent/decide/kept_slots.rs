//! Slots that outlive whoever leads: those that the configuration asks for, and physical ones of members that are away.
//!
//! Logical slots are PostgreSQL's own to keep: a standby takes them over from its primary while it streams. What is done here is to create them
//! once, to never create them a second time, and to clear away what would keep a standby from taking them over.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    agent::{
        action::Action,
        view::{Local, Lock, ServerFacts, View},
    },
    dcs::{snapshot::StatusKey, tags},
    model::{Lsn, MemberName},
    spec::slots::{FAILOVER_SLOTS, LogicalSlot},
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

/// The logical slots that a primary of this version is to have.
fn logical_kept<'v>(view: &'v View, server: &ServerFacts) -> impl Iterator<Item = (&'v String, &'v LogicalSlot)> {
    let can = server.version / 10_000 >= FAILOVER_SLOTS && server.decodes && view.settings.use_slots && !view.is_standby_cluster();
    view.settings.logical_slots.iter().filter(move |_| can)
}

/// Creates the logical slots that never were. One that was and is not here has not survived: a new one of its name would begin now, and hide from
/// its consumer what it has missed.
pub fn logical(view: &View, server: &ServerFacts) -> Option<Action> {
    let never_was = |name: &&String| !server.logical_slots.contains_key(*name) && !view.cluster.status.slots.contains_key(*name);
    let new: BTreeMap<String, LogicalSlot> =
        logical_kept(view, server).filter(|(name, _)| never_was(name)).map(|(name, slot)| (name.clone(), slot.clone())).collect();
    (!new.is_empty() && view.task.is_none()).then_some(Action::CreateLogicalSlots(new))
}

/// Logical slots that did not survive, each with how far its consumer had come.
pub fn lost(view: &View) -> BTreeMap<String, Lsn> {
    let (Local::Primary(server), Lock::Mine { .. }) = (&view.local, &view.lock) else { return BTreeMap::new() };
    let last = |name: &String| view.cluster.status.slots.get(name).copied();
    let missing = logical_kept(view, server).filter(|(name, _)| !server.logical_slots.contains_key(*name));
    missing.filter_map(|(name, _)| Some((name.clone(), last(name)?))).collect()
}

/// What a standby has of the time when it was a primary, under a name that its leader has too: PostgreSQL would not take over the leader's slot
/// beside it.
pub fn in_the_way(view: &View, server: &ServerFacts) -> BTreeSet<String> {
    let own = |name: &&String| server.logical_slots.get(*name).is_some_and(|slot| slot.failover && !slot.synced && !slot.active);
    let kept = logical_kept(view, server).map(|(name, _)| name).filter(own);
    kept.filter(|name| view.cluster.status.slots.contains_key(*name)).cloned().collect()
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
    for (name, _) in logical_kept(view, server) {
        let is = server.logical_slots.get(name).map(|slot| slot.confirmed.unwrap_or_default());
        // Of one that did not survive it stays known that it was.
        slots.extend(is.or_else(|| view.cluster.status.slots.get(name).copied()).map(|lsn| (name.clone(), lsn)));
    }
    let away = |slot: &&String| !view.settings.permanent_slots.contains(*slot) && !is_ignored(view, slot);
    let retain_slots = view.memory.unclaimed_slots.keys().filter(away).cloned().collect();
    StatusKey { optime: server.position, slots, retain_slots, ..StatusKey::default() }
}

fn is_ignored(view: &View, slot: &str) -> bool {
    view.settings.ignore_slots.iter().any(|ignored| ignored.covers(slot))
}
