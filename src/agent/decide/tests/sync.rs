//! Whom commits wait for, and what the DCS says of it.

use super::*;

#[test]
fn before_a_promotion_the_dcs_names_who_will_confirm_and_commits_wait_for_them() {
    let mut view = quorum(view(Local::Standby(server(true)), mine()), 1);
    let names = PgSync::any(1, ["b", "c"].map(str::to_owned).into());
    let voters = SyncState { leader: Some("a".into()), quorum: 1, voters: names.names.clone() };
    assert_eq!(decide(&view).actions, [Action::PutSync(voters.clone())], "both of them together have everything");
    view.cluster.sync = voters;
    assert_eq!(decide(&view).actions, [Action::SetSyncNames(names.clone())]);
    let Local::Standby(facts) = &mut view.local else { unreachable!() };
    facts.synchronous_standby_names = names.render();
    assert_eq!(decide(&view).actions, [Action::SetSyncNames(names.clone())], "the checkpointer may not have told commits yet");
    assert!(decide(&view).recheck.is_some(), "it is asked again soon");
    view.memory.names_are_heeded(&PgSync::any(1, BTreeSet::from(["b".to_owned()])));
    assert_eq!(decide(&view).actions, [Action::SetSyncNames(names.clone())], "it told them of others");
    view.memory.names_are_heeded(&names);
    assert_eq!(decide(&view).actions, [Action::ReserveTimeline(Timeline(2))]);
    view.cluster.timelines = TimelineKey { reserved: 2, by: "a".into(), begun: None, remote: None };
    view.memory.reserved_timeline = Some(Timeline(2));
    let slots = BTreeSet::from([name("b"), name("c")]);
    assert_eq!(decide(&view).actions, [Action::EnsureSlots(slots), Action::Promote], "slots first");
}

#[test]
fn where_nobody_voted_before_only_the_new_leader_may_lead_until_others_have_what_it_has() {
    let mut view = quorum(view(Local::Standby(server(true)), mine()), 0);
    view.cluster.sync = SyncState::default();
    let only_me = SyncState { leader: Some("a".into()), ..SyncState::default() };
    assert_eq!(decide(&view).actions, [Action::PutSync(only_me.clone())]);
    view.cluster.sync = only_me;
    assert_eq!(decide(&view).actions, [Action::SetSyncNames(PgSync::any(1, ["b", "c"].map(str::to_owned).into()))]);
}

#[test]
fn in_strict_mode_a_leader_without_standbys_acknowledges_nothing() {
    let mut view = leading(&[], 0);
    view.settings.synchronous_mode_strict = true;
    view.memory.no_standby_since = Some(NOW.minus(Duration::from_secs(60)));
    let nobody = PgSync::any(1, BTreeSet::from(["a".to_owned()]));
    assert!(decide(&view).actions.contains(&Action::SetSyncNames(nobody.clone())));
    let Local::Primary(facts) = &mut view.local else { unreachable!() };
    facts.synchronous_standby_names = nobody.render();
    view.memory.sync_barrier = Some(Lsn(1000));
    let changes = |view: &View| decide(view).actions.iter().any(|a| matches!(a, Action::SetSyncNames(_) | Action::PutSync(_)));
    assert!(!changes(&view));
    let Local::Primary(facts) = &mut view.local else { unreachable!() };
    facts.standbys = streaming(&["b"], 1000);
    assert!(decide(&view).actions.contains(&Action::SetSyncNames(PgSync::any(1, BTreeSet::from(["b".to_owned()])))));
    // The same after a promotion and after a restart in place, from the first commit on.
    let mut promoting = super::view(Local::Standby(server(true)), mine());
    promoting.settings = view.settings.clone();
    promoting.cluster.members.retain(|member, _| *member == name("a"));
    promoting.cluster.sync = SyncState { leader: Some("a".into()), ..SyncState::default() };
    assert_eq!(decide(&promoting).actions, [Action::SetSyncNames(nobody.clone())]);
    assert_eq!(names_at_start(&promoting.cluster.sync, &name("a"), true), nobody);
    assert_eq!(names_at_start(&promoting.cluster.sync, &name("a"), false), PgSync::default());
}

#[test]
fn nobody_votes_before_every_sender_of_the_former_rule_has_read_the_new_one() {
    let mut view = leading(&["b", "c"], 1000);
    let names = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<BTreeSet<String>>();
    view.settings.synchronous_mode = crate::spec::settings::SyncMode::On;
    view.cluster.sync = SyncState { leader: Some("a".into()), quorum: 1, voters: names(&["b", "c"]) };
    view.memory.sync_barrier = Some(Lsn(1000));
    let Local::Primary(facts) = &mut view.local else { unreachable!() };
    facts.synchronous_standby_names = PgSync::any(1, names(&["b"])).render();
    facts.standbys[1].flush_lsn = Some(Lsn(999));
    let fewer = Action::PutSync(SyncState { leader: Some("a".into()), quorum: 0, voters: names(&["b"]) });
    assert!(!decide(&view).actions.contains(&fewer), "the sender to 'c' may still let commits go");
    let Local::Primary(facts) = &mut view.local else { unreachable!() };
    facts.standbys[1].sync_priority = 0;
    assert!(decide(&view).actions.contains(&fewer), "it knows that it is out");
    let Local::Primary(facts) = &mut view.local else { unreachable!() };
    facts.standbys[1] = StandbyFacts { sync_priority: 1, flush_lsn: Some(Lsn(1000)), ..facts.standbys[1].clone() };
    assert!(decide(&view).actions.contains(&fewer), "it has passed on what came after the change");
}

#[test]
fn new_standbys_are_waited_for_before_they_may_vote() {
    let mut view = leading(&["b", "c"], 1000);
    let names = PgSync::any(1, ["b", "c"].map(str::to_owned).into());
    assert!(decide(&view).actions.contains(&Action::SetSyncNames(names.clone())));
    let Local::Primary(facts) = &mut view.local else { unreachable!() };
    facts.synchronous_standby_names = names.render();
    view.memory.sync_barrier = Some(Lsn(1001));
    assert!(!decide(&view).actions.iter().any(|a| matches!(a, Action::PutSync(_))), "they lack the past");
    view.memory.sync_barrier = Some(Lsn(1000));
    let voters = SyncState { leader: Some("a".into()), quorum: 1, voters: names.names };
    assert!(decide(&view).actions.contains(&Action::PutSync(voters)));
}

#[test]
fn names_that_are_not_known_to_be_heeded_are_set_again_before_anybody_votes() {
    let mut view = leading(&["b", "c"], 1000);
    let names = PgSync::any(1, ["b", "c"].map(str::to_owned).into());
    let Local::Primary(facts) = &mut view.local else { unreachable!() };
    facts.synchronous_standby_names = names.render();
    view.memory.names_change();
    assert!(decide(&view).actions.contains(&Action::SetSyncNames(names)));
}

#[test]
fn when_all_standbys_are_gone_the_dcs_knows_it_before_commits_go_on_alone() {
    let mut view = leading(&[], 0);
    let names: BTreeSet<String> = ["b", "c"].map(str::to_owned).into();
    view.cluster.sync = SyncState { leader: Some("a".into()), quorum: 1, voters: names.clone() };
    let Local::Primary(facts) = &mut view.local else { unreachable!() };
    facts.synchronous_standby_names = PgSync::any(1, names).render();
    view.memory.no_standby_since = Some(NOW.minus(Duration::from_secs(1)));
    assert!(!decide(&view).actions.iter().any(|a| matches!(a, Action::PutSync(_) | Action::SetSyncNames(_))), "a blip changes nothing");
    view.memory.no_standby_since = Some(NOW.minus(Duration::from_secs(3)));
    let nobody = SyncState { leader: Some("a".into()), ..SyncState::default() };
    assert!(decide(&view).actions.contains(&Action::PutSync(nobody.clone())));
    view.cluster.sync = nobody;
    assert!(decide(&view).actions.contains(&Action::SetSyncNames(PgSync::default())));
    view.settings.synchronous_mode_strict = true;
    assert!(!decide(&view).actions.iter().any(|a| matches!(a, Action::SetSyncNames(_))), "strict never goes on alone");
}
