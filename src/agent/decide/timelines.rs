//! Numbers of timelines: taken before a promotion, so that no two promotions can ever begin the same.

use crate::{
    agent::{
        action::Action,
        view::{ServerFacts, StoppedData, View},
    },
    model::{HistoryLine, Timeline},
};

/// What is left to do before the promotion may begin. Two promotions can come one after the other without the second knowing of the first:
/// the leader was cut off with what it wrote, or died before it wrote anything. Only what was reserved before tells.
pub fn reservation(view: &View, server: &ServerFacts) -> Option<Action> {
    let ours = view.cluster.timelines.by == view.me.as_str();
    let reserved = view.memory.reserved_timeline.filter(|number| ours && number.0 == view.cluster.timelines.reserved);
    let step = if view.cluster.timelines.remote.is_some() { LEAP } else { 1 };
    reserved.is_none().then(|| Action::ReserveTimeline(Timeline(highest(view, server).saturating_add(step))))
}

/// How far above the other cluster's timelines a standby cluster that is promoted begins. Both go on from the same history, and neither knows
/// of the other's numbers: at the same one they would be two histories under one name as soon as one of them follows the other again. After
/// this leap a number that both come to have has another past in each.
const LEAP: u32 = 8;

fn highest(view: &View, server: &ServerFacts) -> u32 {
    let written = latest(view).0;
    server.timeline.0.max(written).max(view.cluster.timelines.reserved).max(view.memory.past.timelines.reserved)
}

/// The latest timeline on which a leader is known to have written.
pub fn latest(view: &View) -> Timeline {
    let history = view.cluster.history.last().map_or(1, |entry| entry.0.0.saturating_add(1));
    Timeline(view.cluster.timelines.begun.map_or(history, |begun| begun.0.max(history)))
}

/// What the DCS should hold of the timeline that the leader writes.
pub fn records(view: &View, server: &ServerFacts) -> Vec<Action> {
    let mut actions = Vec::new();
    if view.cluster.timelines.begun.unwrap_or(Timeline(1)) != server.timeline || view.cluster.unreadable.contains("timeline") {
        actions.push(Action::RecordTimeline(server.timeline));
    }
    let parent = view.cluster.history.last().map(|entry| entry.0.0);
    let written = view.memory.history_of == Some(server.timeline) || parent == Some(server.timeline.0 - 1);
    if server.timeline > Timeline(1) && (parent.is_none() || !written) {
        actions.push(Action::EnsureHistory);
    }
    actions
}

/// The data's timeline has the leader's number and not its past: a promotion by hand, beside the agent's. Following it would mix two
/// histories into one directory.
pub fn is_namesake(view: &View, data: &StoppedData) -> bool {
    let Some(ours) = &data.past else { return false };
    view.cluster.timelines.begun == Some(data.control.timeline()) && differs(view, ours)
}

/// Lines are compared from the newest on: a reader of the history may have trimmed the oldest.
fn differs(view: &View, ours: &[HistoryLine]) -> bool {
    let theirs = view.cluster.history.iter().rev().map(|entry| (entry.0, entry.1));
    theirs.zip(ours.iter().rev().map(|line| (line.timeline, line.switch))).any(|(theirs, ours)| theirs != ours)
}
