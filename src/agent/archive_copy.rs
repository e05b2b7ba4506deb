//! A replica's data from the archive: the newest backup is restored by a process of its own, and what came since is replayed. That spares the
//! leader, and where the archive has nothing fitting, the leader is copied as ever.

use std::{cell::RefCell, rc::Rc, time::Duration};

use serde::Deserialize;

use super::{
    config::{ArchiveSettings, Origin},
    shell::Shell,
    tasks::Tools,
};
use crate::{
    model::{ClusterName, Lsn, SystemId, Timeline},
    postgres::{Address, PostgresError, bootstrap, clone, rewind},
    sys::process::{ProcessError, Run},
};

/// How a replica is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyMethod {
    /// From the newest backup in the archive.
    Archive,
    /// By copying the leader, or whoever is there for that.
    BaseBackup,
}

/// Bytes a second, rather too few than too many: what a restore writes, what a standby replays from the archive, what pg_basebackup copies.
const RESTORED: u64 = 150 << 20;
const REPLAYED: u64 = 40 << 20;
const COPIED: u64 = 100 << 20;

/// The leader has other work than to be copied: so much longer the archive may take.
const PATIENCE: u32 = 2;
const LEAST_PATIENCE: Duration = Duration::from_secs(30);

/// How long the archive may take to say which backups it has.
const LOOK: Duration = Duration::from_secs(60);

/// The same for all of its WAL, without which there is no beginning.
const LONGEST_LOOK: Duration = Duration::from_secs(3600);

/// What the archive is to lead to.
#[derive(Debug, Clone, Copy)]
pub struct Goal {
    /// Whose data.
    pub system: SystemId,
    /// The leader's timeline.
    pub timeline: Timeline,
    /// Where the leader is.
    pub position: Lsn,
}

/// What `spilo backup restore --plan` says, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Foreseen {
    system: SystemId,
}

/// What `spilo backup list` says, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Listed {
    backups: Vec<ListedBackup>,
}

#[derive(Debug, Clone, Deserialize)]
struct ListedBackup {
    id: String,
    timeline: Timeline,
    start_lsn: String,
    size: u64,
    goes: Option<String>,
}

/// How long each way is estimated to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Estimate {
    archive: Duration,
    leader: Duration,
}

impl Estimate {
    /// For a backup of this size after which this much WAL follows.
    fn of(size: u64, wal: u64) -> Estimate {
        let seconds = |bytes: u64, rate: u64| Duration::from_millis(bytes.saturating_mul(1000) / rate);
        Estimate { archive: seconds(size, RESTORED) + seconds(wal, REPLAYED), leader: seconds(size, COPIED) }
    }

    fn prefers_archive(self) -> bool {
        self.archive <= (self.leader * PATIENCE).max(LEAST_PATIENCE)
    }
}

/// How far a copy has come, for whoever looks at this member.
pub type CopyProgress = Rc<RefCell<Option<String>>>;

/// What is shown of a copy while it is made, and no longer: a task that is cancelled does not get to its end.
pub(super) struct Shown(CopyProgress);

impl Shown {
    /// Shown where this is.
    pub(super) fn at(place: &CopyProgress) -> Shown {
        Shown(place.clone())
    }

    pub(super) fn say(&self, what: String) {
        *self.0.borrow_mut() = Some(what);
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        *self.0.borrow_mut() = None;
    }
}

impl Shell {
    /// Where a replica has to come to now.
    pub(super) fn goal(&self) -> Option<Goal> {
        let leader = self.cluster.members.get(self.cluster.leader.as_ref()?)?;
        Some(Goal { system: self.cluster_system()?, timeline: leader.timeline?, position: leader.xlog_location? })
    }
}

impl Tools {
    /// The ways to make this replica, in the order in which they are tried.
    async fn copy_methods(&self) -> Vec<CopyMethod> {
        if self.config.archive.is_none() {
            return vec![CopyMethod::BaseBackup];
        }
        if !self.config.copy_methods.is_empty() {
            return self.config.copy_methods.clone();
        }
        match self.estimate().await {
            Ok(Estimate { archive, leader }) => {
                tracing::info!("a replica from the archive would take about {archive:?}, a copy of the leader about {leader:?}");
                let serves = Estimate { archive, leader }.prefers_archive();
                serves.then_some(CopyMethod::Archive).into_iter().chain([CopyMethod::BaseBackup]).collect()
            }
            Err(why) => {
                tracing::info!("no replica from the archive: {why}");
                vec![CopyMethod::BaseBackup]
            }
        }
    }

    /// Restores the newest backup that leads to the goal, and puts it in the data directory's place.
    async fn restore_copy(&self) -> Result<(), PostgresError> {
        let (archive, goal) = self.archive_and_goal().map_err(PostgresError::NotYet)?;
        let (system, timeline) = (goal.system.to_string(), goal.timeline.to_string());
        let restore = |to: &std::path::Path| {
            let to = to.to_string_lossy().into_owned();
            program(["backup", "restore", &to, "--standby", "--system", &system, "--timeline", &timeline]).args(archive.options())
        };
        let shown = Shown::at(&self.copy_progress);
        let mut last = String::new();
        let said = |line: &str| {
            tracing::info!("restore: {line}");
            note(&mut last, line);
            shown.say(come("the archive", line));
        };
        let restored = clone::from_archive(&self.config.installation, restore, goal.system, said).await;
        restored.map_err(|error| explained(error, last))?;
        rewind::forget_unfinished(&self.config.installation)?;
        bootstrap::forget_unrecorded(&self.config.installation)
    }

    /// Begins a cluster with another one's backup, recovered to where that was asked for.
    pub(super) async fn begin_from(&self, origin: &Origin) -> Result<(), PostgresError> {
        let whose = &origin.archive.cluster;
        tracing::info!("beginning with a backup of '{whose}'");
        let restore = |to: &std::path::Path| {
            let to = to.to_string_lossy().into_owned();
            let restore = program(["backup", "restore", &to]).args(origin.archive.options());
            let system = origin.system.map(|system| format!("--system={system}"));
            restore.args(system).args(origin.goal.options())
        };
        let foreseen = restore(&self.config.installation.data_dir).args(["--plan", "-o", "json"]).limit(LONGEST_LOOK);
        self.expect_own_place(foreseen).await.map_err(|why| not_begun(whose, &why))?;
        let shown = Shown::at(&self.copy_progress);
        let mut last = String::new();
        let said = |line: &str| {
            tracing::info!("backup of '{whose}': {line}");
            note(&mut last, line);
            shown.say(come(&format!("a backup of '{whose}'"), line));
        };
        let begun = clone::begin_from_archive(&self.config.installation, restore, said).await;
        begun.map_err(|error| not_begun(whose, &explained(error, last).to_string()))
    }

    /// Whoever begins with the data of another cluster has its system identifier: where an earlier one of this name did so too, there is WAL of that
    /// system, and the same timelines would be archived twice. Found out before anything is restored.
    async fn expect_own_place(&self, foreseen: Run) -> Result<(), String> {
        let Some(own) = &self.config.archive else { return Ok(()) };
        let foreseen = foreseen.output().await.map_err(in_its_words)?;
        let Foreseen { system } = serde_json::from_str(&foreseen).map_err(|error| format!("its way cannot be read: {error}"))?;
        let unused = program(["wal", "unused", &format!("--system={system}")]).args(own.options()).limit(LONGEST_LOOK);
        unused.output().await.map(drop).map_err(in_its_words)
    }

    /// A replica by the first way that works.
    pub(super) async fn fill(&self, source: &Address, slot: Option<&str>, system: Option<SystemId>) -> Result<(), PostgresError> {
        let mut failure = PostgresError::NotYet("no way to make a replica is configured".to_owned());
        for method in self.copy_methods().await {
            let made = match method {
                CopyMethod::Archive => self.restore_copy().await,
                CopyMethod::BaseBackup => self.base_backup(source, slot, system).await,
            };
            match made {
                Ok(()) => return Ok(()),
                Err(error) => {
                    if method == CopyMethod::Archive {
                        tracing::warn!("the archive gave no replica: {error}");
                    }
                    failure = error;
                }
            }
        }
        Err(failure)
    }

    fn archive_and_goal(&self) -> Result<(&ArchiveSettings, Goal), String> {
        let archive = self.config.archive.as_ref().ok_or_else(|| "there is no archive".to_owned())?;
        let goal = self.goal.ok_or_else(|| "it is not known yet how far the leader is".to_owned())?;
        Ok((archive, goal))
    }

    async fn estimate(&self) -> Result<Estimate, String> {
        let (archive, goal) = self.archive_and_goal()?;
        let system = goal.system.to_string();
        let list = program(["backup", "list", "-o", "json", "--system", &system]).args(archive.options()).limit(LOOK);
        let listed = list.output().await.map_err(|error| error.to_string())?;
        let listed: Listed = serde_json::from_str(&listed).map_err(|error| format!("its list of backups cannot be read: {error}"))?;
        let backup = newest(&listed, goal).ok_or_else(|| "it has no backup yet".to_owned())?;
        let start: Lsn = backup.start_lsn.parse().map_err(|error| format!("backup '{}': {error}", backup.id))?;
        Ok(Estimate::of(backup.size, goal.position.0.saturating_sub(start.0)))
    }
}

/// Where the data come from, and how far that has come where the program says so.
fn come(from: &str, line: &str) -> String {
    line.strip_prefix("progress: ").map_or_else(|| from.to_owned(), |so_far| format!("{from} ({so_far})"))
}

/// Keeps what a program complained of last, else its last words.
fn note(last: &mut String, line: &str) {
    if is_complaint(line) || !is_complaint(last) {
        line.clone_into(last);
    }
}

/// Of our own programs, or of PostgreSQL, which goes on to say that it is shut down.
fn is_complaint(line: &str) -> bool {
    line.starts_with("error:") || ["FATAL:", "PANIC:"].iter().any(|word| line.contains(word))
}

/// The complaint of a program that failed says more than that it did. What went wrong after it is another matter.
fn not_begun(whose: &ClusterName, why: &str) -> PostgresError {
    PostgresError::Sql(format!("no cluster was begun from a backup of '{whose}': {why}"))
}

fn in_its_words(error: ProcessError) -> String {
    match error {
        ProcessError::Failed { output, .. } => output,
        error => error.to_string(),
    }
}

fn explained(error: PostgresError, last: String) -> PostgresError {
    match error {
        PostgresError::Program(ProcessError::Failed { .. }) if is_complaint(&last) => PostgresError::NotYet(last),
        error => error,
    }
}

/// The newest that stays. Whether it leads to the goal is for the restore to say.
fn newest(listed: &Listed, goal: Goal) -> Option<&ListedBackup> {
    listed.backups.iter().rev().find(|backup| backup.goes.is_none() && backup.timeline <= goal.timeline)
}

/// This program, with these arguments: the executable itself, even when its file has been replaced meanwhile.
fn program<const N: usize>(arguments: [&str; N]) -> Run {
    Run::new("/proc/self/exe").args(arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_serves_unless_it_would_take_much_longer_than_the_leader() {
        let gigabytes = |n: u64| n << 30;
        assert!(Estimate::of(30 << 20, 16 << 20).prefers_archive(), "little is soon done either way");
        assert!(Estimate::of(gigabytes(100), gigabytes(1)).prefers_archive());
        assert!(!Estimate::of(gigabytes(100), gigabytes(200)).prefers_archive(), "a week's WAL takes longer than a copy");
        assert!(!Estimate::of(gigabytes(1), u64::MAX).prefers_archive());
    }

    #[test]
    fn what_went_wrong_is_told_and_not_what_to_do_about_it() {
        let mut last = String::new();
        ["looking", "error: no way", "hint: ask"].into_iter().for_each(|line| note(&mut last, line));
        assert_eq!(last, "error: no way");
        let mut last = String::new();
        ["x LOG:  restored", "x FATAL:  could not open file", "x LOG:  database system is shut down"]
            .iter()
            .for_each(|line| note(&mut last, line));
        assert_eq!(last, "x FATAL:  could not open file");
        let failed =
            || PostgresError::Program(ProcessError::Failed { program: "p".into(), status: "1".into(), output: "see above".into() });
        assert_eq!(explained(failed(), last.clone()).to_string(), last);
        assert!(explained(failed(), "restored backup 7".into()).to_string().contains("'p' failed"));
        assert!(explained(PostgresError::Sql("its copy is not used".into()), last).to_string().contains("its copy"));
        assert_eq!(come("the archive", "looking"), "the archive");
        assert_eq!(come("the archive", "progress: 1 of 2 MB"), "the archive (1 of 2 MB)");
    }

    #[test]
    fn nothing_is_shown_of_a_copy_that_is_not_made_any_more() {
        let progress = CopyProgress::default();
        let shown = Shown::at(&progress);
        shown.say("the archive".to_owned());
        assert_eq!(progress.borrow().as_deref(), Some("the archive"));
        drop(shown);
        assert_eq!(*progress.borrow(), None);
    }

    #[test]
    fn the_newest_backup_that_stays_and_is_not_of_a_later_timeline_counts() {
        let backup = |id: &str, timeline, goes: Option<&str>| serde_json::json!({"id": id, "timeline": timeline, "start_lsn": "0/2000028", "size": 1, "goes": goes, "member": "more"});
        let text = serde_json::json!({"backups": [backup("a", 1, None), backup("b", 1, Some("too old")), backup("c", 3, None)]});
        let listed: Listed = serde_json::from_value(text).unwrap();
        let goal = |timeline| Goal { system: SystemId(7), timeline: Timeline(timeline), position: Lsn(0) };
        assert_eq!(newest(&listed, goal(2)).unwrap().id, "a");
        assert_eq!(newest(&listed, goal(3)).unwrap().id, "c");
        assert!(newest(&Listed { backups: Vec::new() }, goal(1)).is_none());
    }
}
