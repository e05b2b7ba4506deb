//! What the tags of members change.

use super::*;

fn tag(view: &mut View, member: &str, tags: &serde_json::Value) {
    let tags = tags.as_object().cloned().unwrap();
    if member == "a" {
        view.tags.clone_from(&tags);
    }
    view.cluster.members.get_mut(&name(member)).unwrap().tags = tags;
}

fn following() -> View {
    view(Local::Standby(server(true)), other())
}

#[test]
fn a_tagged_standby_streams_from_another_one_while_that_runs() {
    let mut view = following();
    tag(&mut view, "a", &json!({"replicatefrom": "c"}));
    assert_eq!(decide(&view).actions, [Action::Follow(Some(name("c")))]);
    view.cluster.members.get_mut(&name("c")).unwrap().state = PgState::Stopped;
    assert_eq!(decide(&view).actions, [Action::Follow(Some(name("b")))], "c does not run");
    tag(&mut view, "a", &json!({"replicatefrom": "nobody"}));
    assert_eq!(decide(&view).actions, [Action::Follow(Some(name("b")))]);
}

#[test]
fn standbys_that_name_each_other_stream_from_the_leader() {
    let mut view = following();
    tag(&mut view, "a", &json!({"replicatefrom": "c"}));
    tag(&mut view, "c", &json!({"replicatefrom": "a"}));
    assert_eq!(decide(&view).actions, [Action::Follow(Some(name("b")))]);
}

#[test]
fn a_standby_that_gets_nothing_from_the_one_its_tag_names_asks_the_leader() {
    let mut view = view(Local::Standby(ServerFacts { streaming: false, ..server(true) }), other());
    tag(&mut view, "a", &json!({"replicatefrom": "c"}));
    view.memory.not_streaming_since = Some(NOW.minus(Duration::from_secs(1)));
    assert_eq!(decide(&view).actions, [Action::Follow(Some(name("c")))]);
    view.memory.not_streaming_since = Some(NOW.minus(Duration::from_secs(6)));
    assert_eq!(decide(&view).actions[0], Action::Follow(Some(name("b"))));
}

#[test]
fn whoever_is_streamed_from_keeps_a_slot_and_the_leader_one_that_follows() {
    let mut upstream = following();
    tag(&mut upstream, "c", &json!({"replicatefrom": "a"}));
    assert!(decide(&upstream).actions.contains(&Action::EnsureSlots([name("c")].into())));
    let mut leader = leading(&["b"], 1000);
    tag(&mut leader, "c", &json!({"replicatefrom": "b"}));
    leader.cluster.members.get_mut(&name("c")).unwrap().xlog_location = Some(Lsn(950));
    let Local::Primary(facts) = &mut leader.local else { unreachable!() };
    facts.slots.insert("c".into(), SlotFacts { active: false, restart_lsn: Some(Lsn(900)) });
    let advance = Action::AdvanceSlots(BTreeMap::from([("c".to_owned(), Lsn(950))]));
    assert!(decide(&leader).actions.contains(&advance), "{:?}", decide(&leader).actions);
}

#[test]
fn commits_do_not_wait_for_who_streams_from_a_standby() {
    let mut view = leading(&["b", "c"], 1000);
    view.settings.synchronous_mode = crate::spec::settings::SyncMode::Quorum;
    view.cluster.sync = SyncState { leader: Some("a".into()), ..SyncState::default() };
    tag(&mut view, "c", &json!({"replicatefrom": "b"}));
    let names = Action::SetSyncNames(PgSync::any(1, ["b".to_owned()].into()));
    assert!(decide(&view).actions.contains(&names), "{:?}", decide(&view).actions);
}

#[test]
fn commits_rather_wait_for_a_higher_sync_priority() {
    let mut view = leading(&["b", "c"], 1000);
    view.settings.synchronous_mode = crate::spec::settings::SyncMode::On;
    view.cluster.sync = SyncState { leader: Some("a".into()), ..SyncState::default() };
    let waits_for = |view: &View, name: &str| {
        let names = Action::SetSyncNames(PgSync::any(1, [name.to_owned()].into()));
        assert!(decide(view).actions.contains(&names), "{name}: {:?}", decide(view).actions);
    };
    waits_for(&view, "b");
    tag(&mut view, "c", &json!({"sync_priority": 2}));
    waits_for(&view, "c");
    tag(&mut view, "c", &json!({"sync_priority": 2, "nosync": true}));
    waits_for(&view, "b");
}

#[test]
fn a_standby_that_crawls_is_not_waited_for_when_another_keeps_up() {
    let mut view = leading(&["b", "c"], 1000);
    view.settings.synchronous_mode = crate::spec::settings::SyncMode::Quorum;
    view.settings.maximum_lag_on_syncnode = Some(100);
    view.cluster.sync = SyncState { leader: Some("a".into()), ..SyncState::default() };
    let Local::Primary(facts) = &mut view.local else { unreachable!() };
    facts.standbys[0].flush_lsn = Some(Lsn(899));
    let names = Action::SetSyncNames(PgSync::any(1, ["c".to_owned()].into()));
    assert!(decide(&view).actions.contains(&names), "{:?}", decide(&view).actions);
}

#[test]
fn of_two_with_the_same_position_the_higher_priority_leads() {
    let mut view = racing(&[("b", Peer::Silent), ("c", standby_peer(1000))]);
    view.memory.unled_since = Some(NOW);
    tag(&mut view, "c", &json!({"failover_priority": 2}));
    assert_eq!(decide(&view).reason, Reason::PeerPreferred { peer: name("c") });
    tag(&mut view, "a", &json!({"failover_priority": 3}));
    assert_eq!(decide(&view).actions, [Action::ClaimLeader]);
    tag(&mut view, "a", &json!({}));
    view.memory.unled_since = Some(NOW.minus(Duration::from_secs(3)));
    assert_eq!(decide(&view).actions, [Action::ClaimLeader], "it had its time");
}

#[test]
fn a_priority_of_zero_keeps_out_of_the_race() {
    let mut view = racing(&[("b", Peer::Silent), ("c", standby_peer(1))]);
    tag(&mut view, "a", &json!({"failover_priority": 0}));
    assert_eq!(decide(&view).reason, Reason::NotAllowedToLead);
}

#[test]
fn a_new_member_copies_the_standby_that_offers_itself_while_it_streams() {
    let mut view = view(Local::Empty, other());
    tag(&mut view, "c", &json!({"clonefrom": true}));
    assert_eq!(decide(&view).actions, [Action::Clone(name("b"))], "c does not stream");
    view.cluster.members.get_mut(&name("c")).unwrap().replication_state = Some("streaming".into());
    assert_eq!(decide(&view).actions, [Action::Clone(name("c"))]);
    view.memory.failed_copies = 1;
    assert_eq!(decide(&view).actions, [Action::Clone(name("b"))], "the leader, when that did not work");
}

#[test]
fn a_member_that_must_not_stream_has_neither_a_source_nor_a_slot() {
    let mut standby = following();
    tag(&mut standby, "a", &json!({"nostream": true}));
    assert_eq!(decide(&standby).actions, [Action::Follow(None)]);
    let mut leader = leading(&["b"], 1000);
    tag(&mut leader, "c", &json!({"nostream": true}));
    assert!(decide(&leader).actions.contains(&Action::DropSlots(["c".to_owned()].into())));
}
