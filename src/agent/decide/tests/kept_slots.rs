//! Physical slots that outlive whoever leads.

use super::*;
use crate::agent::decide::leader_status;

fn keep(view: &mut View, names: &[&str]) {
    view.settings.permanent_slots = names.iter().map(|n| (*n).to_owned()).collect();
}

#[test]
fn permanent_slots_are_made_on_the_leader_and_on_every_standby_that_may_lead() {
    let ensure = Action::EnsureKeptSlots(["consumer".to_owned()].into());
    let mut leader = leading(&["b", "c"], 1000);
    keep(&mut leader, &["consumer", "a"]);
    assert!(decide(&leader).actions.contains(&ensure), "not the one of this member itself: {:?}", decide(&leader).actions);
    let mut standby = view(Local::Standby(server(true)), other());
    keep(&mut standby, &["consumer"]);
    assert!(decide(&standby).actions.contains(&ensure));
    standby.tags.insert("nofailover".into(), json!(true));
    assert!(!decide(&standby).actions.contains(&ensure));
}

#[test]
fn a_standby_releases_what_the_consumer_at_the_leader_has_and_no_more() {
    let mut facts = server(true);
    facts.slots.insert("consumer".into(), SlotFacts { active: false, restart_lsn: Some(Lsn(500)) });
    let mut view = view(Local::Standby(facts), other());
    keep(&mut view, &["consumer"]);
    assert!(!decide(&view).actions.iter().any(|a| matches!(a, Action::AdvanceSlots(_))), "nobody knows where it is");
    view.cluster.status.slots = BTreeMap::from([("consumer".to_owned(), Lsn(700))]);
    assert!(decide(&view).actions.contains(&Action::AdvanceSlots(BTreeMap::from([("consumer".to_owned(), Lsn(700))]))));
    view.cluster.status.slots = BTreeMap::from([("consumer".to_owned(), Lsn(400))]);
    assert!(!decide(&view).actions.iter().any(|a| matches!(a, Action::AdvanceSlots(_))), "never backwards");
}

#[test]
fn slots_that_somebody_asked_for_are_never_dropped() {
    let mut view = leading(&["b", "c"], 1000);
    let Local::Primary(facts) = &mut view.local else { unreachable!() };
    facts.slots.extend(slots(&["consumer", "foreign", "gone"]));
    let long_ago = NOW.minus(Duration::from_secs(100_000));
    view.memory.unclaimed_slots = ["consumer", "foreign", "gone"].map(|slot| (slot.to_owned(), long_ago)).into();
    keep(&mut view, &["consumer"]);
    view.settings.ignore_slots = crate::spec::slots::ignored(&json!({"ignore_slots": [{"name": "foreign"}]}));
    let dropped: Vec<_> = decide(&view).actions.into_iter().filter(|a| matches!(a, Action::DropSlots(_))).collect();
    assert_eq!(dropped, [Action::DropSlots(["gone".to_owned()].into())]);
}

#[test]
fn the_leader_tells_where_slots_are_and_which_belong_to_members_that_are_away() {
    let mut view = leading(&["b", "c"], 1000);
    view.memory.unclaimed_slots = BTreeMap::from([("d".to_owned(), NOW), ("consumer".to_owned(), NOW)]);
    keep(&mut view, &["consumer"]);
    let Local::Primary(facts) = &view.local else { unreachable!() };
    let status = leader_status(&view, facts);
    assert_eq!(status.slots, BTreeMap::from([("a", 1000), ("b", 900), ("c", 900)].map(|(slot, lsn)| (slot.to_owned(), Lsn(lsn)))));
    assert_eq!(status.retain_slots, ["d"]);
    let mut standby = super::view(Local::Standby(server(true)), other());
    standby.cluster.status = status;
    assert!(decide(&standby).actions.contains(&Action::EnsureKeptSlots(["d".to_owned()].into())), "whoever leads next keeps its WAL");
}
