//! Which timeline a promotion begins, and whose timeline a directory is on.

use super::*;
use crate::model::HistoryLine;

fn about_to_promote(timelines: TimelineKey) -> View {
    let mut view = view(Local::Standby(server(true)), mine());
    view.settings.use_slots = false;
    view.cluster.timelines = timelines;
    view
}

fn taken(reserved: u32, by: &str) -> TimelineKey {
    TimelineKey { reserved, by: by.to_owned(), begun: None, remote: None }
}

fn line(timeline: u32, switch: u64) -> HistoryLine {
    HistoryLine { timeline: Timeline(timeline), switch: Lsn(switch), reason: String::new() }
}

fn forked(timeline: u32, switch: u64) -> HistoryEntry {
    HistoryEntry(Timeline(timeline), Lsn(switch), String::new(), String::new(), String::new())
}

#[test]
fn a_number_that_another_member_took_is_never_taken_again() {
    let mut view = about_to_promote(taken(4, "b"));
    assert_eq!(decide(&view).actions, [Action::ReserveTimeline(Timeline(5))]);
    // What this member itself reserved before it was started again may have been begun.
    view.cluster.timelines.by = "a".into();
    assert_eq!(decide(&view).actions, [Action::ReserveTimeline(Timeline(5))]);
    view.memory.reserved_timeline = Some(Timeline(4));
    assert_eq!(decide(&view).actions, [Action::Promote]);
    view.cluster.timelines = taken(6, "b");
    assert_eq!(decide(&view).actions, [Action::ReserveTimeline(Timeline(7))], "somebody else led in between");
}

#[test]
fn a_dcs_that_lost_its_content_gives_no_number_out_twice() {
    let mut view = about_to_promote(TimelineKey::default());
    view.memory.past.timelines.reserved = 8;
    assert_eq!(decide(&view).actions, [Action::ReserveTimeline(Timeline(9))]);
    view.cluster.history = vec![forked(11, 900)];
    assert_eq!(decide(&view).actions, [Action::ReserveTimeline(Timeline(13))]);
}

#[test]
fn a_leader_records_its_timeline_and_its_history_once() {
    let mut view = view(Local::Primary(ServerFacts { timeline: Timeline(5), ..server(false) }), mine());
    let asks = |view: &View, action: &Action| decide(view).actions.contains(action);
    assert!(asks(&view, &Action::RecordTimeline(Timeline(5))) && asks(&view, &Action::EnsureHistory));
    view.cluster.timelines = TimelineKey { reserved: 5, by: "a".into(), begun: Some(Timeline(5)), remote: None };
    // Numbers were passed over: the newest line is not of the number before.
    view.cluster.history = vec![forked(1, 900)];
    assert!(!asks(&view, &Action::RecordTimeline(Timeline(5))) && asks(&view, &Action::EnsureHistory));
    view.memory.history_of = Some(Timeline(5));
    assert!(!asks(&view, &Action::EnsureHistory));
    view.cluster.history.clear();
    assert!(asks(&view, &Action::EnsureHistory), "the DCS lost it");
}

#[test]
fn a_primary_whose_timeline_was_passed_over_does_not_take_the_key() {
    let mut view = view(Local::Primary(ServerFacts { timeline: Timeline(3), ..server(false) }), Lock::Free);
    view.cluster.history = vec![forked(1, 900)];
    view.cluster.timelines = TimelineKey { reserved: 5, by: "b".into(), begun: Some(Timeline(5)), remote: None };
    assert_eq!(decide(&view).reason, Reason::OtherTimelineAhead);
}

#[test]
fn a_standby_of_a_timeline_with_the_same_number_and_another_past_is_not_just_started() {
    let mut view = view(stopped(ClusterState::ShutDownInRecovery, true), other());
    view.cluster.members.get_mut(&name("b")).unwrap().timeline = Some(Timeline(2));
    view.cluster.history = vec![forked(1, 900)];
    view.cluster.timelines.begun = Some(Timeline(2));
    for (switch, action) in [(900, Action::StartStandby(Some(name("b")))), (901, Action::Rejoin(name("b")))] {
        let Local::Stopped(data) = &mut view.local else { unreachable!() };
        data.control.checkpoint_timeline = Timeline(2);
        data.past = Some(vec![line(1, switch)]);
        assert_eq!(decide(&view).actions, [action]);
    }
}
