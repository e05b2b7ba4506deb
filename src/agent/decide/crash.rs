//! A primary whose PostgreSQL has ended by itself: is it started in place, or does a standby take over?
//!
//! Nothing that is decided here can lose anything under synchronous replication: giving the leader key up is no more than letting the lease
//! end early, and who leads next is elected by voters that have cut themselves off, as after the death of a host. When the directory has no
//! server, the guard has seen every process of the old one gone, so nothing is acknowledged beside the successor either. What is weighed is
//! only which way is shorter.

use std::{collections::BTreeSet, time::Duration};

use super::{space, watchdog};
use crate::{
    agent::{
        action::{Action, Decision, Stop},
        reason::Reason,
        view::{Peer, StoppedData, View},
    },
    dcs::tags,
    model::{MemberName, Timeline},
    spec::settings::SyncMode,
    sys::clock::Moment,
};

/// A member leaves the lead after a crash once in this time. What crashes again and again, because of the data or of what clients ask for,
/// would crash elsewhere too: the lead would wander, and each former primary would have to be rewound.
const CALM: Duration = Duration::from_secs(600);

/// How long a start in place may take before it is asked whether somebody else could do better: the estimate was wrong, or those who elect
/// did not answer.
const RECOVERY: Duration = Duration::from_secs(3);

/// How long a successor is waited for. After that this member starts too: it needs nobody's vote to lead again.
const SUCCESSION: Duration = Duration::from_secs(3);

/// Bytes of WAL, a segment, that are replayed in less time than it takes to elect and promote somebody. Measured: with no more than that
/// PostgreSQL accepts writes again 0.3 s earlier where it crashed than elsewhere; with 64 MiB it takes a second longer, with more it takes as
/// long as it takes.
const MOMENT: u64 = 16 << 20;

/// How soon to look again while the DCS has not heard of it, or a successor is waited for.
const RETRY: Duration = Duration::from_millis(300);

/// Who could take over.
enum Successors {
    /// That has to be asked first, of these.
    Ask(BTreeSet<MemberName>),
    /// Nobody.
    Nobody,
    /// Somebody, at once.
    Ready,
}

/// The leader key is ours, PostgreSQL is down, and nothing keeps it from being started: does somebody else do better? `None`: no.
pub fn leave(view: &View, data: &StoppedData) -> Option<Decision> {
    view.memory.crashed_at?;
    // What was sent may arrive although no answer has come back: no primary must run then.
    if view.memory.has_left() {
        return Some(leaving([Action::ReleaseLeader]));
    }
    let backlog = view.cluster.status.optime.ahead_of(data.control.redo);
    let in_place_is_quicker = backlog <= MOMENT && !view.memory.recovery_failed && !at_once(view);
    if in_place_is_quicker || !is_worth_it(view, data.control.rewindable) {
        return None;
    }
    match successors(view, data.control.timeline(), backlog) {
        Successors::Nobody => None,
        Successors::Ask(names) => Some(Decision::act([Action::AskPeers(names)], Reason::AskingPeers)),
        Successors::Ready => Some(leaving([Action::LeaveToSuccessor, Action::ReleaseLeader])),
    }
}

/// A release that is not answered is repeated soon: until it has arrived nobody writes.
fn leaving<const N: usize>(actions: [Action; N]) -> Decision {
    Decision { recheck: Some(RETRY), ..Decision::act(actions, Reason::LeavingAfterCrash) }
}

/// A primary that crashed was started in place and has not answered since. `None`: it goes on.
pub fn recovers_for_long(view: &View, since: Moment) -> Option<Decision> {
    view.memory.crashed_at.filter(|_| view.now.since(since) >= RECOVERY)?;
    let stop = Action::StopServer(Stop::Immediate);
    if view.memory.has_left() {
        return Some(Decision::act([stop], Reason::RecoversForLong));
    }
    if !is_worth_it(view, true) {
        return None;
    }
    match successors(view, Timeline(0), MOMENT) {
        Successors::Nobody => None,
        Successors::Ask(names) => Some(Decision::act([Action::AskPeers(names)], Reason::AskingPeers)),
        // Decided for good: a recovery that is stopped again and again would never come to its end.
        Successors::Ready => Some(Decision::act([Action::LeaveToSuccessor, stop], Reason::RecoversForLong)),
    }
}

/// Nobody leads since this member has left the lead: somebody else has the chance for a while. `None`: it is over.
pub fn await_successor(view: &View) -> Option<Decision> {
    let unled = view.memory.unled_since.filter(|_| view.memory.has_left())?;
    (view.now.since(unled) < SUCCESSION).then(|| Decision::wait_briefly(Reason::SuccessorFirst, RETRY))
}

/// Whoever came back from a divergence only as a copy would be away for much longer than is saved, and consumers of logical slots would have
/// to begin anew.
fn is_worth_it(view: &View, rewindable: bool) -> bool {
    at_once(view) || (view.settings.use_pg_rewind && rewindable && !view.memory.has_slots_of_its_own)
}

/// `primary_start_timeout: 0` says that no time is to be given to a start in place.
fn at_once(view: &View) -> bool {
    view.settings.primary_start_timeout.is_zero()
}

/// Whether those who could elect a successor that has everything, and somebody of them who may lead, answer at this moment. `least`: the
/// timeline that they have to be on. `backlog`: how much a start in place would have to replay.
fn successors(view: &View, least: Timeline, backlog: u64) -> Successors {
    let calm = view.memory.left_at.is_none_or(|left| view.now.since(left) >= CALM);
    let Some(needed) = electors(view).filter(|_| calm || at_once(view)) else { return Successors::Nobody };
    let counts = |name: &&MemberName| !view.sync_active() || view.cluster.sync.votes(name.as_str());
    let asked: BTreeSet<MemberName> = view.others().filter(counts).cloned().collect();
    if asked.len() < needed {
        return Successors::Nobody;
    }
    let Some(answers) = &view.peers else { return Successors::Ask(asked) };
    let healthy: Vec<(&MemberName, &Peer)> = answers.iter().filter(|(name, peer)| asked.contains(*name) && is_on(peer, least)).collect();
    let ready = healthy.len() >= needed && healthy.iter().any(|(name, peer)| may_lead_soon(view, name, peer, backlog));
    if ready { Successors::Ready } else { Successors::Nobody }
}

/// How many have to answer so that one of them can be elected. `None`: nobody else can, or not without loss.
fn electors(view: &View) -> Option<usize> {
    let sync = &view.cluster.sync;
    if view.sync_active() {
        let ours = sync.leader.as_deref().is_some_and(|leader| leader.eq_ignore_ascii_case(view.me.as_str()));
        // Who may elect is what the DCS says, unless a change is on its way there.
        return (ours && !sync.voters.is_empty() && view.memory.sync_in_doubt.is_empty()).then_some(sync.quorum as usize + 1);
    }
    // Without voters something may be lost: only for a user who would rather lose that than time.
    (at_once(view) && view.settings.synchronous_mode == SyncMode::Off).then_some(1)
}

fn is_on(peer: &Peer, least: Timeline) -> bool {
    matches!(peer, Peer::Standby { timeline, .. } if *timeline >= least)
}

/// Nothing keeps it from leading, and it has hardly more to replay than the crashed server would have.
fn may_lead_soon(view: &View, name: &MemberName, peer: &Peer, backlog: u64) -> bool {
    let (Some(member), Peer::Standby { position, nofailover: false, .. }) = (view.cluster.members.get(name), peer) else { return false };
    let end = view.cluster.status.optime;
    let close = end.ahead_of(*position) <= view.settings.maximum_lag_on_failover;
    let replays = end.ahead_of(member.replay_lsn.unwrap_or(*position)) <= backlog.max(MOMENT);
    close && replays && !tags::nofailover(&member.tags) && space::has_room(view, name) && !watchdog::lacks(view, name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{
        super::{
            decide,
            tests::{NOW, mine, name, server, standby_peer, stopped, view},
        },
        *,
    };
    use crate::{
        agent::view::{Local, Lock},
        dcs::snapshot::{MemberRole, SyncState},
        model::Lsn,
        postgres::control_data::ClusterState,
    };

    const SECOND: Duration = Duration::from_secs(1);
    const END: u64 = 1 << 40;
    const LEAVES: [Action; 2] = [Action::LeaveToSuccessor, Action::ReleaseLeader];

    /// `a` leads with the voters `b` and `c`, one of whom needs the other, and its PostgreSQL has just crashed, with much to replay.
    fn crashed() -> View {
        let mut view = view(left_with(MOMENT * 10), mine());
        view.cluster.status.optime = Lsn(END);
        view.settings.synchronous_mode = SyncMode::Quorum;
        view.settings.use_pg_rewind = true;
        let voters = ["b", "c"].map(str::to_owned).into();
        view.cluster.sync = SyncState { leader: Some("a".into()), quorum: 1, voters };
        view.memory.crashed_at = Some(NOW);
        view
    }

    /// A crashed primary that would have to replay so much.
    fn left_with(backlog: u64) -> Local {
        let mut local = stopped(ClusterState::InProduction, false);
        let Local::Stopped(data) = &mut local else { unreachable!() };
        data.control.redo = Lsn(END - backlog);
        local
    }

    fn answered(mut view: View, peers: &[(&str, Peer)]) -> View {
        view.peers = Some(peers.iter().map(|(n, peer)| (name(n), peer.clone())).collect());
        view
    }

    fn both() -> [(&'static str, Peer); 2] {
        [("b", standby_peer(END)), ("c", standby_peer(END))]
    }

    fn actions(view: &View) -> Vec<Action> {
        decide(view).actions
    }

    #[test]
    fn a_crashed_primary_leaves_the_lead_when_those_who_elect_answer() {
        assert_eq!(actions(&crashed()), [Action::AskPeers(["b", "c"].map(name).into())]);
        assert_eq!(actions(&answered(crashed(), &both())), LEAVES);
    }

    #[test]
    fn with_little_to_replay_it_is_started_in_place_at_once() {
        let mut view = answered(crashed(), &both());
        view.local = left_with(MOMENT);
        assert_eq!(actions(&view), [Action::StartPrimary]);
        view.local = left_with(MOMENT + 1);
        assert_eq!(actions(&view), LEAVES);
        view.local = left_with(0);
        view.memory.recovery_failed = true;
        assert_eq!(actions(&view), LEAVES, "it did not come up");
        view.memory.recovery_failed = false;
        view.settings.primary_start_timeout = Duration::ZERO;
        assert_eq!(actions(&view), LEAVES, "and that is what a user asks for who gives it no time");
    }

    #[test]
    fn it_is_started_in_place_when_nobody_could_be_elected() {
        let in_place = |peers: &[(&str, Peer)]| actions(&answered(crashed(), peers)) == [Action::StartPrimary];
        assert!(in_place(&[("b", standby_peer(END)), ("c", Peer::Silent)]), "'b' needs the vote of 'c'");
        assert!(in_place(&[("b", standby_peer(END))]));
        assert!(in_place(&[("b", standby_peer(END)), ("c", Peer::Primary)]));
        let must_not = Peer::Standby { timeline: Timeline(1), position: Lsn(END), nofailover: true, vote: None };
        assert!(in_place(&[("b", must_not.clone()), ("c", must_not.clone())]));
        assert_eq!(actions(&answered(crashed(), &[("b", must_not), ("c", standby_peer(END))])), LEAVES, "one of them may");
    }

    #[test]
    fn it_is_started_in_place_while_it_is_not_known_who_votes() {
        let in_place = |change: fn(&mut View)| {
            let mut view = answered(crashed(), &both());
            change(&mut view);
            actions(&view) == [Action::StartPrimary]
        };
        assert!(in_place(|view| view.cluster.sync.voters.clear()));
        assert!(in_place(|view| view.cluster.sync.leader = Some("b".into())));
        assert!(in_place(|view| view.cluster.sync.quorum = 2));
        assert!(in_place(|view| view.memory.sync_in_doubt.written(view.cluster.sync_version, SyncState::default())));
        assert!(!in_place(|_| ()));
    }

    #[test]
    fn it_is_started_in_place_when_we_stopped_it_or_too_much_would_have_to_begin_anew() {
        let in_place = |change: fn(&mut View)| {
            let mut view = answered(crashed(), &both());
            change(&mut view);
            actions(&view) == [Action::StartPrimary]
        };
        assert!(in_place(|view| view.memory.crashed_at = None));
        assert!(in_place(|view| view.settings.use_pg_rewind = false));
        assert!(in_place(|view| view.memory.has_slots_of_its_own = true));
        assert!(in_place(|view| {
            let Local::Stopped(data) = &mut view.local else { unreachable!() };
            data.control.rewindable = false;
        }));
    }

    #[test]
    fn it_is_started_in_place_when_the_others_lag_or_have_more_to_replay() {
        let lagging = |bytes: u64| answered(crashed(), &[("b", standby_peer(END - bytes)), ("c", standby_peer(END - bytes))]);
        assert_eq!(actions(&lagging(1 << 20)), LEAVES);
        assert_eq!(actions(&lagging((1 << 20) + 1)), [Action::StartPrimary]);
        let mut view = answered(crashed(), &both());
        let replayed = |view: &mut View, back: u64| {
            for member in ["b", "c"] {
                view.cluster.members.get_mut(&name(member)).unwrap().replay_lsn = Some(Lsn(END - back));
            }
        };
        replayed(&mut view, MOMENT * 10);
        assert_eq!(actions(&view), LEAVES);
        replayed(&mut view, MOMENT * 10 + 1);
        assert_eq!(actions(&view), [Action::StartPrimary]);
    }

    #[test]
    fn a_member_that_lacks_room_or_a_watchdog_or_must_not_lead_counts_as_elector_only() {
        for notice in ["disk_full", "watchdog_failed"] {
            let mut view = answered(crashed(), &both());
            let mark = |view: &mut View, member: &str| {
                view.cluster.members.get_mut(&name(member)).unwrap().other.insert(notice.into(), json!(true));
            };
            mark(&mut view, "b");
            assert_eq!(actions(&view), LEAVES, "'c' can lead with the vote of 'b'");
            mark(&mut view, "c");
            assert_eq!(actions(&view), [Action::StartPrimary], "{notice}");
        }
    }

    #[test]
    fn without_synchronous_replication_nobody_leaves_the_lead_after_a_crash() {
        let mut view = answered(crashed(), &both());
        view.settings.synchronous_mode = SyncMode::Off;
        view.cluster.sync = SyncState::default();
        assert_eq!(actions(&view), [Action::StartPrimary]);
        view.settings.primary_start_timeout = Duration::ZERO;
        assert_eq!(actions(&view), LEAVES, "unless the user gives a start no time at all");
        view.cluster.status.optime = Lsn(END + (1 << 20) + 1);
        assert_eq!(actions(&view), [Action::StartPrimary], "to members that lag too much nobody is left");
    }

    #[test]
    fn with_no_time_for_a_start_the_lead_is_left_each_time_and_whatever_it_costs() {
        let mut view = answered(crashed(), &both());
        view.settings.primary_start_timeout = Duration::ZERO;
        view.settings.use_pg_rewind = false;
        view.memory.left_at = Some(NOW.minus(SECOND));
        assert_eq!(actions(&view), LEAVES);
        view.peers = Some(Default::default());
        assert_eq!(actions(&view), [Action::StartPrimary], "where nobody answers a start in place is all there is");
        view.local = Local::Silent { since: NOW.minus(SECOND * 60) };
        view.memory.crashed_at = None;
        assert_eq!(actions(&view), [], "and it is given its time");
    }

    #[test]
    fn what_crashes_again_soon_is_started_in_place() {
        let left = |ago: Duration| {
            let mut view = answered(crashed(), &both());
            view.memory.left_at = Some(NOW.minus(ago));
            actions(&view)
        };
        assert_eq!(left(CALM - SECOND), [Action::StartPrimary]);
        assert_eq!(left(CALM), LEAVES);
    }

    #[test]
    fn having_left_it_starts_no_primary_whatever_became_of_the_release() {
        let mut left = crashed();
        left.memory.left_at = Some(NOW);
        assert_eq!(actions(&left), [Action::ReleaseLeader], "it may not have arrived");
        let until = NOW + SECOND * 5;
        left.lock = Lock::Unknown { until: Some(until) };
        left.memory.circle = Some(BTreeSet::from(["b".to_owned()]));
        assert_eq!(actions(&left), [Action::StartStandby(None)], "it may have arrived before the store fell silent");
    }

    #[test]
    fn it_gives_others_the_chance_and_then_starts_as_a_standby_that_needs_no_votes() {
        let mut left = crashed();
        left.lock = Lock::Free;
        left.cluster.leader = None;
        left.memory.left_at = Some(NOW.minus(SECOND));
        left.memory.crashed_at = Some(NOW.minus(SECOND));
        left.memory.unled_since = Some(NOW.minus(SUCCESSION - SECOND));
        assert_eq!((actions(&left).len(), decide(&left).reason), (0, Reason::SuccessorFirst));
        left.memory.unled_since = Some(NOW.minus(SUCCESSION));
        assert_eq!(actions(&left), [Action::StartStandby(None)]);
        left.memory.unled_since = Some(NOW);
        left.memory.left_at = None;
        assert_eq!(actions(&left), [Action::StartStandby(None)], "the key was lost otherwise: nobody is waited for");
        left.lock = Lock::Other(name("b"));
        left.cluster.members.get_mut(&name("b")).unwrap().role = MemberRole::Primary;
        assert_eq!(actions(&left), [Action::Rejoin(name("b"))]);
    }

    #[test]
    fn a_recovery_that_takes_long_is_given_up_once_somebody_can_take_over() {
        let silent = |for_so_long: Duration| View { local: Local::Silent { since: NOW.minus(for_so_long) }, ..crashed() };
        assert_eq!(actions(&silent(RECOVERY - SECOND)), []);
        assert_eq!(actions(&silent(RECOVERY)), [Action::AskPeers(["b", "c"].map(name).into())]);
        assert_eq!(actions(&answered(silent(RECOVERY), &[])), []);
        let stop = Action::StopServer(Stop::Immediate);
        assert_eq!(actions(&answered(silent(RECOVERY), &both())), [Action::LeaveToSuccessor, stop.clone()]);
        let mut left = silent(RECOVERY);
        left.memory.left_at = Some(NOW);
        assert_eq!(actions(&left), [stop], "what was decided stays decided");
        let mut other = answered(silent(SECOND * 60), &both());
        other.memory.crashed_at = None;
        assert_eq!(actions(&other), [], "a server that is slow to answer has not crashed");
    }

    #[test]
    fn a_pause_is_no_time_for_it() {
        let mut view = answered(crashed(), &both());
        view.settings.pause = true;
        assert_eq!(actions(&view), [Action::ReleaseLeader], "as ever in a pause");
    }

    #[test]
    fn only_the_end_of_a_primary_that_nobody_asked_for_counts_as_a_crash() {
        use crate::agent::memory::{Look, Memory};
        let view = view(Local::Empty, mine());
        let look = |memory: &mut Memory, local: &Local| {
            let age = SECOND * 60;
            let (unrecorded_bootstrap, has_old_data) = (false, false);
            let (me, cluster, lock) = (&view.me, &view.cluster, &view.lock);
            memory.look(&Look {
                now: NOW,
                me,
                cluster,
                dcs_answers: true,
                lock,
                local,
                server_age: age,
                unrecorded_bootstrap,
                has_old_data,
            });
        };
        let (primary, standby) = (Local::Primary(server(false)), Local::Standby(server(true)));
        let silent = Local::Silent { since: NOW };
        let crashed_after = |seen: &[&Local]| {
            let mut memory = Memory::default();
            seen.iter().for_each(|local| look(&mut memory, local));
            memory.server_crashed(NOW);
            memory.crashed_at
        };
        assert_eq!(crashed_after(&[&primary]), Some(NOW));
        assert_eq!(crashed_after(&[&primary, &silent]), Some(NOW));
        assert_eq!(crashed_after(&[&standby]), None);
        assert_eq!(crashed_after(&[&primary, &stopped(ClusterState::ShutDown, false), &silent]), None, "a start that failed is none");
        let mut memory = Memory { crashed_at: Some(NOW), ..Memory::default() };
        look(&mut memory, &silent);
        assert_eq!(memory.crashed_at, Some(NOW), "it starts");
        look(&mut memory, &standby);
        assert_eq!(memory.crashed_at, None);
    }
}
