//! Whom a standby streams from: the leader, another standby that its tag names, or nobody.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    agent::view::{ServerFacts, View},
    dcs::{
        snapshot::PgState,
        tags::{self, Tags},
    },
    model::{Lsn, MemberName},
};

/// How long a standby waits for the one its tag names before it streams from the leader for a while: what that one has lost, the leader may
/// still have.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whom this member streams from while `leader` leads. `None`: its WAL comes from the archive only.
pub fn upstream(view: &View, leader: &MemberName) -> Option<MemberName> {
    let upstream = upstream_of(view, &view.me, &view.tags, leader)?;
    let tired = view.memory.not_streaming_since.is_some_and(|since| view.now.since(since) > PATIENCE);
    Some(if tired { leader.clone() } else { upstream })
}

/// Whom the member `name` with these tags should stream from. A tag counts while the member it names runs, and only if the way from there
/// does not lead back.
fn upstream_of(view: &View, name: &MemberName, own: &Tags, leader: &MemberName) -> Option<MemberName> {
    if tags::nostream(own) {
        return None;
    }
    let runs = |upstream: &MemberName| view.cluster.members.get(upstream).is_some_and(|m| m.state == PgState::Running);
    let named = tags::replicatefrom(own).filter(|upstream| runs(upstream) && !leads_back(view, upstream, name, leader));
    Some(named.unwrap_or_else(|| leader.clone()))
}

fn leads_back(view: &View, from: &MemberName, to: &MemberName, leader: &MemberName) -> bool {
    let mut next = from.clone();
    for _ in 0..=view.cluster.members.len() {
        if next == *to {
            return true;
        }
        let further = view.cluster.members.get(&next).and_then(|m| tags::replicatefrom(&m.tags));
        match further {
            Some(further) if next != *leader => next = further,
            _ => return false,
        }
    }
    // A circle of others: each of those streams from the leader.
    false
}

/// The upstream of each other member that streams.
fn others(view: &View) -> impl Iterator<Item = (&MemberName, MemberName)> {
    let leader = view.cluster.leader.as_ref().unwrap_or(&view.me);
    view.others().filter_map(move |name| Some((name, upstream_of(view, name, &view.cluster.members.get(name)?.tags, leader)?)))
}

/// The members that stream from a standby while this one leads. The leader keeps WAL for them too, in case that standby fails; commits do
/// not wait for them.
pub fn behind_others(view: &View) -> BTreeSet<MemberName> {
    others(view).filter(|(_, upstream)| *upstream != view.me).map(|(name, _)| name.clone()).collect()
}

/// The members that a leader keeps slots for: everybody who may ever stream.
pub fn slots_of_leader(view: &View) -> BTreeSet<MemberName> {
    let never: BTreeSet<&MemberName> = never_streaming(view).collect();
    view.others().filter(|name| !never.contains(name)).cloned().collect()
}

/// The members that have their WAL from the archive only.
pub fn never_streaming(view: &View) -> impl Iterator<Item = &MemberName> {
    view.others().filter(|name| view.cluster.members.get(*name).is_some_and(|m| tags::nostream(&m.tags)))
}

/// The members that stream from this standby.
pub fn slots_of_standby(view: &View) -> BTreeSet<MemberName> {
    others(view).filter(|(_, upstream)| *upstream == view.me).map(|(name, _)| name.clone()).collect()
}

/// How far the leader may release the WAL that it keeps for members behind others: to what those say they have.
pub fn advances(view: &View, server: &ServerFacts) -> BTreeMap<String, Lsn> {
    let advance = |name: MemberName| {
        let (has, slot) = (view.cluster.members.get(&name)?.xlog_location?, name.slot_name());
        let facts = server.slots.get(&slot)?;
        (!facts.active && facts.restart_lsn.is_some_and(|lsn| lsn < has)).then_some((slot, has))
    };
    behind_others(view).into_iter().filter_map(advance).collect()
}
