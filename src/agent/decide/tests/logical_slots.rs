use super::{
    super::{leader_status, lost_slots},
    *,
};
use crate::{postgres::sql::LogicalSlotFacts, spec::slots::LogicalSlot};

fn feed() -> BTreeMap<String, LogicalSlot> {
    BTreeMap::from([("feed".to_owned(), LogicalSlot { database: "app".into(), plugin: "pgoutput".into() })])
}

/// `local` in a cluster that keeps the logical slot `feed`, of which its server has this much.
fn keeping(local: fn(ServerFacts) -> Local, lock: Lock, has: Option<LogicalSlotFacts>) -> View {
    let in_recovery = matches!(local(server(true)), Local::Standby(_));
    let logical_slots = has.map(|slot| ("feed".to_owned(), slot)).into_iter().collect();
    let mut view = view(local(ServerFacts { logical_slots, ..server(in_recovery) }), lock);
    view.settings.logical_slots = feed();
    view
}

fn facts(view: &mut View) -> &mut ServerFacts {
    let (Local::Primary(facts) | Local::Standby(facts)) = &mut view.local else { unreachable!() };
    facts
}

fn known_at(mut view: View, lsn: u64) -> View {
    view.cluster.status.slots.insert("feed".to_owned(), Lsn(lsn));
    view
}

fn creates(view: &View) -> bool {
    decide(view).actions.contains(&Action::CreateLogicalSlots(feed()))
}

const OWN: LogicalSlotFacts = LogicalSlotFacts { active: false, failover: true, synced: false, confirmed: Some(Lsn(700)) };

#[test]
fn a_logical_slot_is_created_once() {
    let new = keeping(Local::Primary, mine(), None);
    assert!(creates(&new));
    assert_eq!(decide(&new).actions.last(), Some(&Action::CreateLogicalSlots(feed())), "one that fails keeps nothing else from being done");
    assert!(!creates(&keeping(Local::Primary, mine(), Some(OWN))), "it is there");
    let lost = known_at(new.clone(), 700);
    assert!(!creates(&lost), "its consumer would miss what it has not read");
    assert_eq!(lost_slots(&lost), [("feed".to_owned(), Lsn(700))].into());
    assert_eq!(lost_slots(&new), BTreeMap::new());
    let mut busy = new;
    busy.task = Some(Task::CreateSlots);
    assert!(decide(&busy).actions.contains(&Action::PutStatus) && !creates(&busy), "the leader leads on meanwhile");
}

#[test]
fn who_cannot_keep_a_logical_slot_makes_none() {
    let cases: [fn(&mut View); 4] = [
        |view| facts(view).version = 160_004,
        |view| facts(view).decodes = false,
        |view| view.settings.use_slots = false,
        |view| view.settings.logical_slots.clear(),
    ];
    for change in cases {
        let mut view = keeping(Local::Primary, mine(), None);
        change(&mut view);
        assert!(!creates(&view));
    }
    assert!(!creates(&keeping(Local::Standby, other(), None)));
}

#[test]
fn the_status_tells_that_a_slot_was_as_long_as_it_is_wanted() {
    let slots = |view: &View| {
        let Local::Primary(facts) = &view.local else { unreachable!() };
        leader_status(view, facts).slots.get("feed").copied()
    };
    assert_eq!(slots(&known_at(keeping(Local::Primary, mine(), Some(OWN)), 500)), Some(Lsn(700)));
    assert_eq!(slots(&keeping(Local::Primary, mine(), None)), None);
    let mut lost = known_at(keeping(Local::Primary, mine(), None), 500);
    assert_eq!(slots(&lost), Some(Lsn(500)));
    lost.settings.logical_slots.clear();
    assert_eq!(slots(&lost), None);
}

#[test]
fn a_former_primarys_own_slot_makes_room_for_the_leaders() {
    let drops = |view: &View| decide(view).actions.contains(&Action::DropSlots(["feed".to_owned()].into()));
    let former = known_at(keeping(Local::Standby, other(), Some(OWN)), 700);
    assert!(drops(&former));
    assert!(!drops(&keeping(Local::Standby, other(), Some(OWN))), "the leader may have none: this one may be the last");
    for kept in
        [LogicalSlotFacts { synced: true, ..OWN }, LogicalSlotFacts { active: true, ..OWN }, LogicalSlotFacts { failover: false, ..OWN }]
    {
        assert!(!drops(&known_at(keeping(Local::Standby, other(), Some(kept)), 700)), "{kept:?}");
    }
}
