//! A full disk, and servers that do not start although their data are good.

use super::*;

fn full(mut view: View) -> View {
    view.memory.disk_full = true;
    view
}

fn standbys_are_full(view: &mut View) {
    for member in ["b", "c"] {
        view.cluster.members.get_mut(&name(member)).unwrap().other.insert("disk_full".into(), json!(true));
    }
}

#[test]
fn a_leader_without_room_hands_over_to_somebody_who_has_some() {
    let mut view = full(leading(&["b", "c"], 1000));
    view.cluster.sync.voters = ["b", "c"].map(str::to_owned).into();
    assert_eq!(decide(&view).actions, [Action::HandOver]);
    standbys_are_full(&mut view);
    assert!(!decide(&view).actions.contains(&Action::HandOver), "nobody would be better off");
    assert_eq!(decide(&view).reason, Reason::Leading);
}

#[test]
fn a_leader_that_ended_for_want_of_room_gives_the_key_up_only_where_that_helps() {
    let mut view = full(view(stopped(ClusterState::InProduction, false), mine()));
    assert_eq!(decide(&view).actions, [Action::ReleaseLeader]);
    standbys_are_full(&mut view);
    assert_eq!(decide(&view).actions, [Action::StartPrimary]);
    view.memory.disk_full = false;
    assert_eq!(decide(&view).actions, [Action::StartPrimary]);
}

#[test]
fn a_standby_without_room_neither_leads_nor_begins_what_it_cannot_end() {
    let racing = full(racing(&[("b", Peer::Silent), ("c", Peer::Silent)]));
    assert_eq!((decide(&racing).actions, decide(&racing).reason), (vec![], Reason::DiskFull));
    let mut lost = full(view(Local::Standby(server(true)), other()));
    lost.memory.wal_gone = true;
    assert_eq!((decide(&lost).actions, decide(&lost).reason), (vec![], Reason::DiskFull));
    let mut stopped = full(view(stopped(ClusterState::ShutDownInRecovery, true), other()));
    stopped.memory.wal_gone = true;
    assert_eq!((decide(&stopped).actions, decide(&stopped).reason), (vec![], Reason::DiskFull));
}

#[test]
fn data_are_not_replaced_because_of_a_bad_parameter() {
    let mut broken = view(stopped(ClusterState::ShutDownInRecovery, true), other());
    broken.memory.failed_starts = 5;
    assert_eq!(decide(&broken).actions, [Action::Clone(name("b"))]);
    broken.memory.start_fault = Some("PostgreSQL refuses its configuration".into());
    assert_eq!(decide(&broken).actions, [Action::StartStandby(Some(name("b")))]);
}

#[test]
fn a_disk_is_full_until_there_is_clearly_room_again() {
    let mut memory = Memory::default();
    let mut full = |free: u64| {
        memory.room_is(free << 20);
        memory.disk_full
    };
    assert_eq!([full(30), full(20), full(30), full(65), full(30)], [false, true, true, false, false]);
}

#[test]
fn starts_that_failed_for_want_of_room_do_not_count_against_the_data() {
    let mut lacking = view(stopped(ClusterState::InArchiveRecovery, true), other());
    lacking.memory.room_is(0);
    for _ in 0..4 {
        lacking.memory.start_failed(false, NOW);
    }
    assert_eq!(decide(&lacking).actions, [Action::StartStandby(Some(name("b")))]);
    lacking.memory.room_is(1 << 30);
    assert_eq!(decide(&lacking).actions, [Action::StartStandby(Some(name("b")))], "it is started again, not copied");
    for _ in 0..3 {
        lacking.memory.start_failed(false, NOW);
    }
    lacking.memory.start_looked_into(Some("a bad parameter".into()));
    lacking.memory.start_looked_into(None);
    assert_eq!(decide(&lacking).actions, [Action::StartStandby(Some(name("b")))]);
}

#[test]
fn without_voters_nobody_waits_for_a_member_whose_disk_is_full() {
    let mut view = racing(&[("b", standby_peer(2000)), ("c", Peer::Silent)]);
    assert_eq!(decide(&view).reason, Reason::PeerAhead { peer: name("b") });
    view.cluster.members.get_mut(&name("b")).unwrap().other.insert("disk_full".into(), json!(true));
    assert!(claims(&view));
    let mut voting = quorum(view, 1);
    voting.vote = Some(voting.cluster.term);
    assert!(!claims(&voting), "it may have what was acknowledged");
}

#[test]
fn a_copy_that_did_not_fit_is_not_begun_again_at_once_unless_room_was_made() {
    let broken = || {
        let mut view = view(stopped(ClusterState::ShutDownInRecovery, true), other());
        view.memory.failed_starts = 5;
        view.memory.room_is(200 << 20);
        view.memory.copy_did_not_fit("no room for a copy".into(), 200 << 20, NOW);
        view
    };
    for mut waiting in [broken(), View { local: Local::Empty, ..broken() }] {
        let said = Reason::NoRoomToCopy { why: "no room for a copy".into() };
        assert_eq!((decide(&waiting).actions, decide(&waiting).reason), (vec![], said));
        assert_eq!(waiting.memory.trouble(), Some("no room for a copy".into()));
        waiting.memory.room_is(399 << 20);
        assert_eq!(decide(&waiting).actions, []);
        waiting.memory.room_is(401 << 20);
        assert_eq!(decide(&waiting).actions, [Action::Clone(name("b"))]);
    }
    let mut later = broken();
    later.now = NOW + Duration::from_secs(61);
    assert_eq!(decide(&later).actions, [Action::Clone(name("b"))], "what was to be copied may have become less");
    let mut good = broken();
    good.memory.failed_starts = 0;
    assert_eq!(decide(&good).actions, [Action::StartStandby(Some(name("b")))], "good data are started meanwhile");
}
