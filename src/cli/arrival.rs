//! To which moment a new cluster was brought: PostgreSQL notes in the history of the timeline that it begins where it left the one before, and why.

use serde::Serialize;

use super::{clone_source::Foreseen, look::Look};
use crate::{
    model::{ClusterName, HistoryLine, RecoveryGoal, RecoveryTarget, Timeline, parse_history},
    provisioner::{ObjectKind, Platform},
};

/// Where a node keeps its WAL.
const PG_WAL: &str = "/var/lib/spilo/data/pg_wal";

/// What PostgreSQL notes where recovery had no target, and at every promotion.
const NO_TARGET: &str = "no recovery target specified";

/// What the cluster was begun with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Arrival {
    /// Whose backup.
    pub cluster: ClusterName,
    /// What was asked for.
    pub goal: String,
    /// Where it got to; absent where that is not known.
    pub reached: Option<Reached>,
}

/// Where recovery has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reached {
    /// On this timeline of the other cluster.
    pub timeline: Timeline,
    /// Here.
    pub lsn: String,
    /// What ended it, in PostgreSQL's words, such as `before 2026-11-21 20:45:03.2+00`.
    pub why: Option<String>,
}

impl Arrival {
    /// Reads it from the leader's WAL.
    pub async fn ask<P: Platform>(platform: &P, seen: &Look, foreseen: Option<&Foreseen>) -> Option<Arrival> {
        let source = seen.stored.spec.clone_of.as_deref()?;
        let history = history(platform, seen).await.unwrap_or_default();
        let reached = reached(&history, &source.goal, foreseen.map(|foreseen| foreseen.timeline));
        Some(Arrival { cluster: source.cluster.clone(), goal: source.goal.to_string(), reached })
    }

    /// One sentence.
    pub fn sentence(&self, name: &ClusterName) -> String {
        let Arrival { cluster, goal, reached } = self;
        match reached {
            None => format!("'{name}' began with a backup of '{cluster}', recovered to {goal}"),
            Some(Reached { timeline, lsn, why }) => {
                let why = why.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
                format!("'{name}' began as '{cluster}' was at position {lsn} of timeline {timeline}{why}; asked for was {goal}")
            }
        }
    }
}

async fn history<P: Platform>(platform: &P, seen: &Look) -> Option<Vec<HistoryLine>> {
    let (leader, timeline) = (seen.status.leader.as_ref()?, seen.status.timeline?);
    let node = seen.inventory.containers(ObjectKind::Node).find(|node| node.member.as_ref() == Some(leader))?;
    let command = ["cat".to_owned(), format!("{PG_WAL}/{:08X}.history", timeline.0)];
    let output = platform.exec(&node.name, &command, None).await.ok().filter(|output| output.exit_code == 0)?;
    parse_history(&String::from_utf8_lossy(&output.stdout))
}

/// A target leaves a reason that no promotion leaves; the newest of them is this cluster's own. Without a target the timeline has to be known: another
/// promotion may have followed.
fn reached(history: &[HistoryLine], goal: &RecoveryGoal, along: Option<Timeline>) -> Option<Reached> {
    let to_the_end = goal.target == RecoveryTarget::End;
    let is_it = |line: &&HistoryLine| if to_the_end { Some(line.timeline) == along } else { line.reason != NO_TARGET };
    let line = history.iter().rev().find(is_it)?;
    let why = Some(line.reason.clone()).filter(|reason| !to_the_end && !reason.is_empty());
    Some(Reached { timeline: line.timeline, lsn: line.switch.to_string(), why })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goal(target: RecoveryTarget) -> RecoveryGoal {
        RecoveryGoal { target, ..RecoveryGoal::default() }
    }

    #[test]
    fn what_is_said_is_what_postgresql_has_noted() {
        let text = "1\t0/3000148\tbefore 2026-11-21 20:45:03.2+00\n\n2\t0/5000000\tno recovery target specified\n";
        let history = parse_history(text).unwrap();
        let time = goal(RecoveryTarget::time("2026-11-21T20:45:00Z").unwrap());
        let arrival = |reached| Arrival { cluster: "orders".parse().unwrap(), goal: time.to_string(), reached };
        let name = "trial".parse().unwrap();
        // Somebody else has led since.
        assert_eq!(
            arrival(reached(&history, &time, None)).sentence(&name),
            "'trial' began as 'orders' was at position 0/3000148 of timeline 1 (before 2026-11-21 20:45:03.2+00); asked for was 2026-11-21T20:45:00Z"
        );
        assert_eq!(arrival(None).sentence(&name), "'trial' began with a backup of 'orders', recovered to 2026-11-21T20:45:00Z");
    }

    #[test]
    fn the_end_of_wal_is_told_from_a_later_promotion_or_not_at_all() {
        let history = parse_history("1\t0/3000148\tno recovery target specified\n2\t0/5000000\tno recovery target specified\n").unwrap();
        let end = goal(RecoveryTarget::End);
        assert_eq!(reached(&history, &end, None), None);
        let found = reached(&history, &end, Some(Timeline(1))).unwrap();
        assert_eq!((found.lsn.as_str(), found.why), ("0/3000148", None));
        assert_eq!(reached(&history, &end, Some(Timeline(7))), None);
        assert_eq!(reached(&history, &goal(RecoveryTarget::Immediate), Some(Timeline(1))), None, "it is not there");
    }
}
