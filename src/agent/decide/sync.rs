//! Synchronous replication: which standbys PostgreSQL waits for, and who the DCS says may succeed the leader.
//!
//! The rule that must hold at every moment: each set of standbys that may have acknowledged a commit meets each set of voters that may
//! elect a successor. Both sides change one at a time, so every intermediate pair has to keep the rule.

use std::{cmp::Reverse, collections::BTreeSet, time::Duration};

use super::{cascade, succession::succession};
use crate::{
    agent::{
        action::{Action, PgSync},
        view::{ServerFacts, StandbyFacts, View},
    },
    dcs::{
        snapshot::SyncState,
        tags::{self, Tags},
    },
    model::MemberName,
    spec::settings::SyncMode,
};

/// How soon to look again while standbys confirm.
const SOON: Duration = Duration::from_millis(40);

/// The same while nobody streams and commits wait for as long as it takes.
const STRICT: Duration = Duration::from_millis(250);

/// The next change on the way to a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing is left to do.
    Settled,
    /// The standbys that PostgreSQL waits for have not yet confirmed the past.
    Wait,
    /// Change PostgreSQL.
    SetNames(PgSync),
    /// Change the DCS: these voters, of whom a candidate needs so many others.
    SetVoters(BTreeSet<String>, u32),
}

/// Whether every set that may acknowledge under `pg` meets every set that may elect: a candidate out of `voters` with `quorum` others.
/// No voters: only the leader itself may lead, so nothing can be missed.
pub fn is_safe(pg: &PgSync, voters: &BTreeSet<String>, quorum: u32) -> bool {
    if voters.is_empty() {
        return true;
    }
    let outside = voters.difference(&pg.names).count();
    // The electors that are worst for us take everybody outside first.
    let inside = (quorum as usize + 1).saturating_sub(outside);
    pg.names.len().saturating_sub(inside) < pg.count as usize
}

/// One step from what is to `target`. `confirmed`: the standbys that PostgreSQL waits for have everything from before the last change.
pub fn next_step(pg: &PgSync, confirmed: bool, voters: &BTreeSet<String>, quorum: u32, target: &PgSync) -> Step {
    let wanted = u32::try_from(target.names.len()).unwrap_or(u32::MAX) - target.count;
    if pg == target {
        return match (voters == &target.names && (quorum == wanted || voters.is_empty()), confirmed) {
            (true, _) => Step::Settled,
            // Giving up voters altogether needs nobody's confirmation.
            (false, _) if target.names.is_empty() => Step::SetVoters(BTreeSet::new(), 0),
            (false, true) => Step::SetVoters(target.names.clone(), wanted),
            (false, false) => Step::Wait,
        };
    }
    if is_safe(target, voters, quorum) {
        return Step::SetNames(target.clone());
    }
    if target.names.is_empty() {
        return Step::SetVoters(BTreeSet::new(), 0);
    }
    // Both sets at once may vote, so many that they meet the acknowledgers of now and of then.
    let everybody: BTreeSet<String> = voters.iter().chain(&pg.names).chain(&target.names).cloned().collect();
    let fewest = pg.count.min(target.count).max(1);
    let quorum = u32::try_from(everybody.len()).unwrap_or(u32::MAX) - fewest;
    Step::SetVoters(everybody, quorum)
}

/// The leader's next step, and how soon to look again.
pub fn leader_step(view: &View, server: &ServerFacts) -> (Option<Action>, Option<Duration>) {
    let sync = &view.cluster.sync;
    let pg = PgSync::parse(&server.synchronous_standby_names);
    if view.settings.synchronous_mode == SyncMode::Off {
        // Weaker first in the DCS, then in PostgreSQL.
        return match (sync.is_active(), pg.names.is_empty()) {
            (true, _) => (Some(Action::PutSync(SyncState::default())), Some(SOON)),
            (false, false) => (Some(Action::SetSyncNames(PgSync::default())), None),
            (false, true) => (None, None),
        };
    }
    let me = view.me.to_string();
    if sync.leader.as_deref() != Some(me.as_str()) {
        return (Some(Action::PutSync(SyncState { leader: Some(me), ..SyncState::default() })), Some(SOON));
    }
    let Some(target) = target(view, server, &pg) else {
        // In strict mode this may last: as long as no standby streams, nothing is to be done.
        return (None, Some(if view.settings.synchronous_mode_strict { STRICT } else { SOON }));
    };
    if !view.memory.knows_barrier {
        // Set by an agent that has died, or by a change that did not come to its end: what sessions show need not be what commits heed.
        let names = if is_safe(&target, &sync.voters, sync.quorum) { target } else { pg };
        return (Some(Action::SetSyncNames(names)), Some(SOON));
    }
    let step = next_step(&pg, is_confirmed(view, server, &pg), &sync.voters, sync.quorum, &target);
    match step {
        Step::Settled => (None, None),
        Step::Wait => (None, Some(SOON)),
        Step::SetNames(names) => (Some(Action::SetSyncNames(names)), Some(SOON)),
        Step::SetVoters(voters, quorum) => (Some(Action::PutSync(SyncState { leader: Some(me), quorum, voters })), Some(SOON)),
    }
}

/// Whom PostgreSQL should wait for: members that stream and may lead. `None`: as it is. With nobody streaming, the last ones are
/// kept for a while: a standby that comes right back should not find commits acknowledged without it.
fn target(view: &View, server: &ServerFacts, pg: &PgSync) -> Option<PgSync> {
    let eligible = without_stragglers(view, server, streaming_members(view, server));
    let count = view.settings.synchronous_node_count;
    if eligible.is_empty() {
        let grace = view.settings.loop_wait;
        let waited = view.memory.no_standby_since.is_some_and(|since| view.now.since(since) >= grace);
        return match (view.settings.synchronous_mode_strict, pg.names.is_empty()) {
            (true, true) => Some(nobody_yet(&view.me)),
            (true, false) => None,
            (false, false) if !waited => None,
            (false, _) => Some(PgSync::default()),
        };
    }
    if view.settings.synchronous_mode == SyncMode::Quorum {
        return Some(PgSync::any(count, eligible));
    }
    // The preferred ones first; among equals, the chosen ones stay chosen while they stream.
    let mut ranked: Vec<&String> = eligible.iter().collect();
    ranked.sort_by_key(|name| (Reverse(sync_priority(view, name)), !pg.names.contains(*name)));
    let chosen: BTreeSet<String> = ranked.into_iter().take(count as usize).cloned().collect();
    Some(PgSync::any(count, chosen))
}

/// Those of `names` that are no further behind the furthest of them than `maximum_lag_on_syncnode`: a standby that crawls should not hold up
/// commits when others could confirm them. The furthest one always stays.
fn without_stragglers(view: &View, server: &ServerFacts, names: BTreeSet<String>) -> BTreeSet<String> {
    let Some(allowed) = view.settings.maximum_lag_on_syncnode else { return names };
    let flushed = |name: &String| {
        let of_name = server.standbys.iter().filter(|s| s.state == "streaming" && s.application_name.eq_ignore_ascii_case(name));
        of_name.filter_map(|s| s.flush_lsn).max().unwrap_or_default()
    };
    let furthest = names.iter().map(flushed).max().unwrap_or_default();
    names.into_iter().filter(|name| furthest.ahead_of(flushed(name)) <= allowed).collect()
}

/// Commits may wait for it, and it may become leader: it streams from the leader and no tag keeps it out.
fn may_vote(view: &View, name: &MemberName) -> bool {
    let tagged = |tags: &Tags| tags::nosync(tags) || tags::nofailover(tags) || tags::nostream(tags);
    view.cluster.members.get(name).is_some_and(|m| !tagged(&m.tags)) && !cascade::behind_others(view).contains(name)
}

fn sync_priority(view: &View, name: &str) -> i64 {
    let member = view.cluster.members.iter().find(|(member, _)| member.as_str() == name);
    member.map_or(1, |(_, data)| tags::sync_priority(&data.tags))
}

/// Members that stream and may become leader, by the names they are known under in the DCS.
pub fn streaming_members(view: &View, server: &ServerFacts) -> BTreeSet<String> {
    let streams = |name: &str| server.standbys.iter().any(|s| s.state == "streaming" && s.application_name.eq_ignore_ascii_case(name));
    let may_vote = |name: &&MemberName| may_vote(view, name);
    view.others().filter(may_vote).map(ToString::to_string).filter(|n| streams(n)).collect()
}

/// Enough of the standbys that PostgreSQL waits for have all WAL from before they were chosen, and nobody is acknowledged to by the rule of
/// before any more. Each WAL sender reads its configuration for itself: one that has passed on what came after the change has read it, and so
/// has one that knows itself to be out.
fn is_confirmed(view: &View, server: &ServerFacts, pg: &PgSync) -> bool {
    let Some(barrier) = view.memory.sync_barrier else { return true };
    let named = |names: &BTreeSet<String>, s: &StandbyFacts| names.iter().any(|n| n.eq_ignore_ascii_case(&s.application_name));
    let has_it = |s: &StandbyFacts| s.state == "streaming" && s.flush_lsn.is_some_and(|lsn| lsn >= barrier);
    let is_out = |s: &StandbyFacts| !named(&pg.names, s) && s.sync_priority == 0;
    let concerned = |s: &&StandbyFacts| named(&pg.names, s) || named(&view.cluster.sync.voters, s);
    let confirmed = pg.names.iter().filter(|n| server.standbys.iter().any(|s| n.eq_ignore_ascii_case(&s.application_name) && has_it(s)));
    confirmed.count() >= pg.count as usize && server.standbys.iter().filter(concerned).all(|s| has_it(s) || is_out(s))
}

/// Whom a primary waits for that is started in place, or about to be promoted: the commits it acknowledges have to meet the voters that the
/// DCS names, from the first one on. `strict`: it never acknowledges alone.
pub fn names_at_start(sync: &SyncState, me: &MemberName, strict: bool) -> PgSync {
    if sync.leader.as_deref() != Some(me.as_str()) {
        return PgSync::default();
    }
    if sync.voters.is_empty() && strict {
        return nobody_yet(me);
    }
    let count = u32::try_from(sync.voters.len()).unwrap_or(u32::MAX).saturating_sub(sync.quorum);
    PgSync::any(count, sync.voters.clone())
}

/// Commits wait, and there is nobody yet who could confirm them: the leader itself never streams from itself.
fn nobody_yet(me: &MemberName) -> PgSync {
    PgSync::any(1, BTreeSet::from([me.to_string()]))
}

/// What the DCS has to say before a promotion. `None`: there is nothing to say, without synchronous replication.
pub fn voters_before_promotion(view: &View) -> Option<SyncState> {
    let me = view.me.to_string();
    let only_me = SyncState { leader: Some(me.clone()), ..SyncState::default() };
    match (view.settings.synchronous_mode, view.sync_active()) {
        (SyncMode::Off, false) => None,
        (SyncMode::On | SyncMode::Quorum, false) if view.cluster.timelines.remote.is_some() => Some(first_voters(view)),
        // Its commits will be acknowledged without anybody, or nobody has promised anything so far.
        (SyncMode::Off, true) | (_, false) => Some(only_me),
        (_, true) => Some(succession(&view.cluster.sync, &me, may_come(view), view.settings.synchronous_node_count)),
    }
}

/// The voters of a standby cluster that is promoted. Nothing was acknowledged in it yet, so whoever may come may vote from the first commit on;
/// should this leader die with the promotion, they elect another.
fn first_voters(view: &View) -> SyncState {
    let names = PgSync::any(view.settings.synchronous_node_count, may_come(view));
    let quorum = u32::try_from(names.names.len()).unwrap_or(u32::MAX).saturating_sub(names.count);
    SyncState { leader: Some(view.me.to_string()), quorum, voters: names.names }
}

/// Whom the first commit after a promotion waits for: voters where there are some, else everybody who may come.
pub fn names_before_promotion(view: &View) -> PgSync {
    let (sync, strict) = (&view.cluster.sync, view.settings.synchronous_mode_strict);
    if view.settings.synchronous_mode == SyncMode::Off {
        return PgSync::default();
    }
    let expected = PgSync::any(view.settings.synchronous_node_count, may_come(view));
    if sync.voters.is_empty() && !expected.names.is_empty() { expected } else { names_at_start(sync, &view.me, strict) }
}

fn may_come(view: &View) -> BTreeSet<String> {
    let may_vote = |name: &&MemberName| may_vote(view, name);
    view.others().filter(may_vote).map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subsets(names: &[&str]) -> Vec<BTreeSet<String>> {
        (0..1_usize << names.len())
            .map(|bits| names.iter().enumerate().filter(|(i, _)| bits >> i & 1 == 1).map(|(_, n)| (*n).to_owned()).collect())
            .collect()
    }

    /// The rule itself, by trying all sets.
    fn meets(pg: &PgSync, voters: &BTreeSet<String>, quorum: u32) -> bool {
        let all: Vec<&str> = pg.names.iter().chain(voters).map(String::as_str).collect();
        let sets = subsets(&all);
        let electing: Vec<_> = sets.iter().filter(|s| s.len() == quorum as usize + 1 && s.is_subset(voters)).collect();
        let acking: Vec<_> = sets.iter().filter(|s| s.len() == pg.count as usize && s.is_subset(&pg.names)).collect();
        electing.iter().all(|e| acking.iter().all(|a| !e.is_disjoint(a)))
    }

    fn configurations(names: &[&str]) -> Vec<PgSync> {
        let mut all = vec![PgSync::default()];
        for set in subsets(names).into_iter().filter(|s| !s.is_empty()) {
            for count in 1..=set.len() {
                all.push(PgSync { count: u32::try_from(count).unwrap(), names: set.clone() });
            }
        }
        all
    }

    const NAMES: [&str; 3] = ["a", "b", "c"];

    #[test]
    fn the_formula_agrees_with_trying_all_sets() {
        for pg in configurations(&NAMES) {
            for voters in subsets(&["a", "b", "c", "d"]) {
                for quorum in 0..voters.len().max(1) {
                    let quorum = u32::try_from(quorum).unwrap();
                    assert_eq!(is_safe(&pg, &voters, quorum), meets(&pg, &voters, quorum), "{pg:?} {voters:?} {quorum}");
                }
            }
        }
    }

    #[test]
    fn every_way_to_every_target_is_short_and_keeps_the_rule() {
        let mut ways = 0;
        for start in configurations(&NAMES) {
            for voters in subsets(&NAMES) {
                for quorum in 0..voters.len().max(1) {
                    let quorum = u32::try_from(quorum).unwrap();
                    if !is_safe(&start, &voters, quorum) {
                        continue;
                    }
                    for target in configurations(&NAMES) {
                        walk(start.clone(), voters.clone(), quorum, &target);
                        ways += 1;
                    }
                }
            }
        }
        assert!(ways > 900, "{ways}");
    }

    fn walk(mut pg: PgSync, mut voters: BTreeSet<String>, mut quorum: u32, target: &PgSync) {
        for _ in 0..6 {
            match next_step(&pg, true, &voters, quorum, target) {
                Step::Settled => {
                    assert_eq!((&pg, &voters), (target, &target.names));
                    return;
                }
                Step::Wait => unreachable!("everything is confirmed here"),
                Step::SetNames(names) => pg = names,
                Step::SetVoters(names, count) => (voters, quorum) = (names, count),
            }
            assert!(meets(&pg, &voters, quorum), "{pg:?} {voters:?} {quorum} on the way to {target:?}");
        }
        panic!("no end in sight: {pg:?} {voters:?} {quorum} {target:?}");
    }

    #[test]
    fn voters_are_named_only_after_they_have_the_past() {
        let pg = PgSync::any(1, BTreeSet::from(["a".to_owned()]));
        assert_eq!(next_step(&pg, false, &BTreeSet::new(), 0, &pg), Step::Wait);
        assert!(matches!(next_step(&pg, true, &BTreeSet::new(), 0, &pg), Step::SetVoters(_, 0)));
    }

    #[test]
    fn names_survive_the_way_through_postgresql() {
        let pg = PgSync::any(1, BTreeSet::from(["orders-1".to_owned(), "or\"ders".to_owned()]));
        assert_eq!(PgSync::parse(&pg.render()), pg);
        assert_eq!(PgSync::parse(""), PgSync::default());
        assert_eq!(PgSync::parse("nonsense"), PgSync::default());
    }
}
