//! Keys of the DCS whose values make no sense.

use super::*;
use crate::spec::settings::SyncMode;

/// `a` looks at a cluster whose voters cannot be read.
fn garbled(local: Local, lock: Lock) -> View {
    let mut view = view(local, lock);
    view.cluster.unreadable = BTreeSet::from(["sync".to_owned()]);
    view
}

#[test]
fn nobody_begins_to_lead_by_what_cannot_be_read() {
    let crashed = stopped(ClusterState::InProduction, false);
    let begins = [(Local::Standby(server(true)), Lock::Free), (Local::Primary(server(false)), Lock::Free)];
    for (local, lock) in begins.into_iter().chain([(Local::Standby(server(true)), mine()), (crashed, mine()), (Local::Empty, Lock::Free)]) {
        let decision = decide(&garbled(local, lock));
        assert_eq!((decision.actions, decision.reason), (Vec::new(), Reason::DcsUnreadable { keys: vec!["sync".to_owned()] }));
    }
}

#[test]
fn nor_while_a_checkpoint_or_a_comparison_is_under_way() {
    let mut primary = garbled(Local::Primary(server(false)), Lock::Free);
    primary.task = Some(Task::Checkpoint);
    let mut standby = garbled(Local::Standby(server(true)), Lock::Free);
    standby.task = Some(Task::CompareHistories);
    for view in [primary, standby] {
        assert_eq!(decide(&view).actions, []);
    }
}

#[test]
fn whoever_leads_writes_it_anew() {
    let mut leading = garbled(Local::Primary(server(false)), mine());
    leading.settings.synchronous_mode = SyncMode::Quorum;
    leading.cluster.unreadable.insert("timeline".to_owned());
    let actions = decide(&leading).actions;
    assert!(actions.iter().any(|action| matches!(action, Action::PutSync(_))), "{actions:?}");
    assert!(actions.contains(&Action::RecordTimeline(Timeline(1))), "{actions:?}");
}

#[test]
fn whoever_follows_goes_on_following() {
    let mut following = server(true);
    following.streaming = true;
    assert_ne!(decide(&garbled(Local::Standby(following), other())).reason, Reason::DcsUnreadable { keys: vec!["sync".to_owned()] });
}
