//! How far recovery goes: the same options for a directory, a new cluster and a restored one.

use crate::model::{BackupId, Lsn, RecoveryGoal, RecoveryTarget, TargetTimeline};

const GOAL: &str = "Where recovery ends [default: where the archived WAL does]";

/// Where recovery ends.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct GoalArgs {
    /// Recover to the last commit before this time, such as 2026-11-21T20:45:00Z
    #[arg(help_heading = GOAL, long, value_name = "TIME", group = "target", value_parser = RecoveryTarget::time)]
    at: Option<RecoveryTarget>,

    /// Recover to this position, such as 0/16B3748
    #[arg(help_heading = GOAL, long, value_name = "LSN", group = "target")]
    lsn: Option<Lsn>,

    /// Recover to the end of this transaction
    #[arg(help_heading = GOAL, long, value_name = "NUMBER", group = "target", value_parser = RecoveryTarget::xid)]
    xid: Option<RecoveryTarget>,

    /// Recover to this restore point, made with pg_create_restore_point()
    #[arg(help_heading = GOAL, long, visible_alias = "name", value_name = "NAME", group = "target", value_parser = RecoveryTarget::name)]
    restore_point: Option<RecoveryTarget>,

    /// Recover no further than until the backup is consistent
    #[arg(help_heading = GOAL, long, group = "target")]
    immediate: bool,

    /// With --at, --lsn or --xid: stop just before the target instead of just after it
    #[arg(help_heading = GOAL, long, requires = "target", conflicts_with_all = ["restore_point", "immediate"])]
    exclusive: bool,

    /// The timeline on which recovery ends: 'latest', 'current' (the backup's), or a number [default: latest]
    #[arg(help_heading = GOAL, long, value_name = "TIMELINE")]
    timeline: Option<TargetTimeline>,

    /// The backup to begin with [default: the newest that leads there]
    #[arg(help_heading = GOAL, long, value_name = "ID")]
    backup: Option<BackupId>,
}

impl GoalArgs {
    /// What they come to.
    pub fn goal(&self) -> RecoveryGoal {
        let said = self.at.as_ref().or(self.xid.as_ref()).or(self.restore_point.as_ref()).cloned();
        let said = said.or(self.lsn.map(RecoveryTarget::Lsn));
        RecoveryGoal {
            target: said.unwrap_or(if self.immediate { RecoveryTarget::Immediate } else { RecoveryTarget::End }),
            exclusive: self.exclusive,
            timeline: self.timeline.unwrap_or_default(),
            backup: self.backup.clone(),
        }
    }

    /// Whether any of the options was given.
    pub fn is_given(&self) -> bool {
        self.timeline.is_some() || self.goal() != RecoveryGoal::default()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Words {
        #[command(flatten)]
        goal: GoalArgs,
    }

    fn read(options: &[String]) -> Result<GoalArgs, clap::Error> {
        Words::try_parse_from([&["spilo".to_owned()], options].concat()).map(|words| words.goal)
    }

    #[test]
    fn every_goal_is_said_with_its_own_options() {
        let id = "20261121T204500Z-1a2b3c4d";
        for line in [
            "",
            "--at=2026-11-21T20:45:00Z --exclusive",
            "--lsn=0/16B3748 --timeline=2",
            "--xid=742 --timeline=current",
            "--restore-point=before",
            &format!("--immediate --backup={id}"),
        ] {
            let options: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            let read = read(&options).unwrap();
            assert_eq!((read.goal().options(), read.is_given()), (options, !line.is_empty()));
        }
        let alias = read(&["--name".to_owned(), "before".to_owned()]).unwrap();
        assert_eq!(alias.goal().target, RecoveryTarget::Name("before".to_owned()));
    }
}
