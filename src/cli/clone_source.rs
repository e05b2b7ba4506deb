//! Another cluster's backup, for a cluster that begins with it: where it is, and whether it leads to the moment that is wished for.

use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use tokio::time::timeout;

use super::{
    CommandError, Context, ErrorKind,
    look::{Look, look, no_such_cluster},
};
use crate::{
    backup::BackupId,
    model::{ClusterName, RecoveryTarget, Timeline},
    provisioner::{Condition, ObjectKind, Platform},
    spec::{ArchiveSpec, ArchiveStore, CloneSource, CloneWish, ClusterSpec},
};

/// How long a node may look for the way: it lists all WAL.
const LONGEST_LOOK: Duration = Duration::from_secs(60);

/// The other cluster, as far as it is still known.
pub struct Parent {
    /// Where its backups are.
    pub source: CloneSource,
    /// How it is; `None`: only the volume with its archive is left.
    seen: Option<Look>,
}

/// The way to the moment, as a node of the other cluster sees it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Foreseen {
    /// The backup that recovery begins with.
    pub backup: BackupId,
    /// When it was complete.
    pub backup_time: Timestamp,
    /// The timeline on which recovery ends.
    pub timeline: Timeline,
    /// How far WAL is whole.
    pub wal_end: String,
    /// What speaks against it.
    pub doubts: Vec<String>,
}

impl Parent {
    /// Finds it, for a new cluster of this spec: it is asked, or, where it is gone, the volume that it left.
    ///
    /// # Errors
    /// When there is no such archive, or its data do not fit.
    pub async fn find<P: Platform>(platform: &P, new: &ClusterSpec, wish: &CloneWish) -> Result<Parent, CommandError> {
        let other = &wish.cluster;
        expect_another_name(&new.name, other)?;
        let inventory = platform.observe(other).await?;
        let left_volume = inventory.archive().is_some();
        let mut archive = match &inventory.stored {
            Some(stored) => stored.spec.stored_archive(),
            None => left_archive(left_volume, new.archive.as_ref()).ok_or_else(|| {
                no_such_cluster(other)
                    .hint("what it has left in a bucket is found where the new cluster has its own archive: --store s3://BUCKET/PREFIX")
            })?,
        };
        if let Some(key) = &wish.key_file {
            archive.key_file = Some(std::path::absolute(key).map_err(|error| CommandError::new(ErrorKind::Usage, error))?);
        }
        let there = match archive.store {
            ArchiveStore::None => false,
            ArchiveStore::Volume => left_volume,
            ArchiveStore::S3(_) => true,
        };
        if !there {
            let none = format!("cluster '{other}' has no archive, and so no backup to begin with");
            return Err(CommandError::new(ErrorKind::Refused, none));
        }
        let seen = match &inventory.stored {
            Some(_) => Some(look(platform, other).await?),
            None => None,
        };
        if let Some(seen) = &seen {
            expect_same_version(new, &seen.stored.spec)?;
        }
        // What an earlier cluster of that name has left is not meant where there is one.
        let there_now = || seen.as_ref()?.system.as_ref()?.parse().ok();
        let system = wish.system.or_else(there_now);
        Ok(Parent { source: CloneSource { cluster: other.clone(), archive, system, goal: wish.goal.clone() }, seen })
    }

    /// That it is gone, and where it has left its backups.
    pub fn farewell(&self) -> Option<String> {
        let CloneSource { cluster, archive, .. } = &self.source;
        let place = match &archive.store {
            ArchiveStore::S3(bucket) => format!("in {bucket}"),
            _ => "in its volume".to_owned(),
        };
        self.seen.is_none().then(|| format!("cluster '{cluster}' is not on this machine any more: what it has left {place} is restored"))
    }

    /// That what was encrypted in its archive will lie unencrypted in the new cluster's.
    pub fn exposure(&self, new: &ClusterSpec) -> Option<String> {
        let CloneSource { cluster, archive, .. } = &self.source;
        let exposed = new.archive.as_ref().is_some_and(|own| own.store != ArchiveStore::None && own.key_file.is_none());
        (archive.key_file.is_some() && exposed).then(|| {
            format!("the backups of '{cluster}' are encrypted, and those of '{}' will not be: --store-key FILE encrypts them", new.name)
        })
    }

    /// Has a node of it look whether its backups lead to the moment. `None`: nobody is there to ask, or does not know how to.
    ///
    /// # Errors
    /// When it is known that they do not.
    pub async fn foresee<P: Platform>(&self, context: &Context, platform: &P) -> Result<Option<Foreseen>, CommandError> {
        let Some(seen) = &self.seen else { return Ok(None) };
        if self.source.archive.key_file != seen.stored.spec.stored_archive().key_file {
            // Its nodes have another key.
            return Ok(None);
        }
        let mut nodes: Vec<_> =
            seen.inventory.containers(ObjectKind::Node).filter(|node| node.condition == Condition::Running && node.attached).collect();
        // The leader has better things to do.
        nodes.sort_by_key(|node| node.member == seen.status.leader);
        let (Some(node), Some(archive)) = (nodes.first(), P::archive_options(&seen.stored.spec)) else { return Ok(None) };
        let words = ["spilo", "backup", "restore", "/nowhere", "--plan", "-o", "json"].map(str::to_owned).into_iter();
        let system = self.source.system.map(|system| format!("--system={system}"));
        let command: Vec<String> = words.chain(archive).chain(system).chain(self.source.goal.options()).collect();
        let step = context.ui.step(format!("ask '{}' for the way to {}", self.source.cluster, self.source.goal));
        let answer = match timeout(LONGEST_LOOK, platform.exec(&node.name, &command, None)).await {
            Ok(answer) => answer?,
            Err(_) => {
                step.failed();
                context.ui.warn(format_args!("'{}' took longer than {} s for it: it is tried", node.name, LONGEST_LOOK.as_secs()));
                return Ok(None);
            }
        };
        match understood(&self.source, answer.exit_code, &answer.stdout, &answer.stderr) {
            Answer::Leads(foreseen) => {
                step.done();
                Ok(Some(foreseen))
            }
            Answer::LeadsNowhere(error) => {
                step.failed();
                Err(error)
            }
            Answer::Unknown(why) => {
                step.failed();
                context.ui.warn(format_args!("'{}' could not say whether its backups lead there: {why}", node.name));
                Ok(None)
            }
            // An earlier version.
            Answer::NotAsked => Ok(None),
        }
    }
}

/// Where a cluster that is gone has left its backups: in its volume, or, lost with its machine, in the bucket in which the new one is to have its own.
fn left_archive(has_volume: bool, new: Option<&ArchiveSpec>) -> Option<ArchiveSpec> {
    let bucket = || new.filter(|archive| matches!(archive.store, ArchiveStore::S3(_))).cloned();
    if has_volume { Some(ArchiveSpec::volume()) } else { bucket() }
}

/// What the node said.
enum Answer {
    Leads(Foreseen),
    LeadsNowhere(CommandError),
    Unknown(String),
    NotAsked,
}

/// An error as [`super::report_error`] tells it to programs.
#[derive(Deserialize)]
struct Told {
    message: String,
}

fn understood(source: &CloneSource, exit_code: i64, stdout: &[u8], stderr: &[u8]) -> Answer {
    let stderr = String::from_utf8_lossy(stderr);
    let told = stderr.lines().rev().find_map(|line| serde_json::from_str::<Told>(line).ok());
    let kind = match exit_code {
        0 => {
            let read = serde_json::from_slice(stdout);
            return read.map_or_else(|error| Answer::Unknown(error.to_string()), Answer::Leads);
        }
        2 => return Answer::NotAsked,
        4 => ErrorKind::NotFound,
        6 => ErrorKind::Refused,
        _ => return Answer::Unknown(told.map_or_else(|| format!("it ended with {exit_code}"), |told| told.message)),
    };
    let Some(Told { message }) = told else { return Answer::Unknown(format!("it ended with {exit_code}")) };
    let other = &source.cluster;
    let error = CommandError::new(kind, format!("cluster '{other}' cannot be restored: {message}"));
    let error = match source.goal.target {
        RecoveryTarget::Lsn(_) => error.hint("what was written last is archived when its WAL segment is full, or a minute later"),
        _ => error,
    };
    Answer::LeadsNowhere(
        error
            .hint(format!("which backups there are: spilo backup list {other}"))
            .hint(format!("how far WAL leads: spilo wal check {other}")),
    )
}

/// Both would have one system identifier, and one place in the archive.
///
/// # Errors
/// When they are called the same.
pub fn expect_another_name(new: &ClusterName, other: &ClusterName) -> Result<(), CommandError> {
    if new != other {
        return Ok(());
    }
    let refused = format!("cluster '{other}' cannot be begun with a backup of itself under its own name: both would write one archive");
    Err(CommandError::new(ErrorKind::Refused, refused)
        .hint(format!("under another name, beside the old one: spilo restore {other}-2 --from {other}"))
        .hint("a data directory in place: spilo backup restore DIR --delta"))
}

fn expect_same_version(new: &ClusterSpec, other: &ClusterSpec) -> Result<(), CommandError> {
    if new.postgres == other.postgres {
        return Ok(());
    }
    let (name, is) = (&other.name, other.postgres);
    let refused = format!("cluster '{name}' is of PostgreSQL {is}, and its data cannot be used by PostgreSQL {}", new.postgres);
    Err(CommandError::new(ErrorKind::Refused, refused).hint(format!("with the same version: --pg {is}")))
}

/// What an earlier cluster of the new one's name has archived may be of the same system, and its timelines have the same numbers.
///
/// # Errors
/// When there is something of that kind.
pub fn expect_no_earlier_archive(new: &ClusterName, is_there: bool) -> Result<(), CommandError> {
    if !is_there {
        return Ok(());
    }
    let refused =
        format!("the backups of an earlier cluster '{new}' are still there: what is restored twice under one name would write one archive");
    Err(CommandError::new(ErrorKind::Refused, refused)
        .hint("choose another name for the new cluster")
        .hint(format!("or remove what the earlier one has left: spilo delete cluster {new} --backups")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::RecoveryGoal;

    fn source(target: RecoveryTarget) -> CloneSource {
        let goal = RecoveryGoal { target, ..RecoveryGoal::default() };
        CloneSource { cluster: "orders".parse().unwrap(), archive: ArchiveSpec::volume(), system: None, goal }
    }

    fn answer(exit_code: i64, stdout: &str, stderr: &str) -> Answer {
        understood(&source(RecoveryTarget::Lsn("0/9000000".parse().unwrap())), exit_code, stdout.as_bytes(), stderr.as_bytes())
    }

    #[test]
    fn what_leads_nowhere_is_told_before_anything_is_made_and_with_what_to_do() {
        let told = "  looking\n{\"code\":6,\"message\":\"the archived WAL ends at 0/8000000\",\"hints\":[\"x\"]}\n";
        let Answer::LeadsNowhere(error) = answer(6, "", told) else { panic!("it is known") };
        assert_eq!(error.kind, ErrorKind::Refused);
        assert_eq!(error.to_string(), "cluster 'orders' cannot be restored: the archived WAL ends at 0/8000000");
        assert!(error.hints.iter().any(|hint| hint.contains("spilo wal check orders")), "{:?}", error.hints);
        assert!(error.hints[0].contains("a minute later"), "{:?}", error.hints);
        assert!(matches!(answer(4, "", told), Answer::LeadsNowhere(error) if error.kind == ErrorKind::NotFound));
    }

    #[test]
    fn what_is_not_known_refuses_nothing() {
        assert!(matches!(answer(2, "", "error: unexpected argument '--plan'"), Answer::NotAsked));
        assert!(
            matches!(answer(1, "", "{\"code\":1,\"message\":\"the store is away\"}"), Answer::Unknown(why) if why == "the store is away")
        );
        assert!(matches!(answer(6, "", "killed"), Answer::Unknown(_)) && matches!(answer(0, "", ""), Answer::Unknown(_)));
    }

    #[test]
    fn a_cluster_is_not_restored_over_itself_nor_over_what_an_earlier_one_has_left() {
        let name = |text: &str| text.parse::<ClusterName>().unwrap();
        let error = expect_another_name(&name("orders"), &name("orders")).unwrap_err();
        assert!(error.kind == ErrorKind::Refused && error.to_string().contains("under its own name"), "{error}");
        assert!(error.hints[0].contains("spilo restore orders-2 --from orders") && error.hints[1].contains("--delta"), "{:?}", error.hints);
        assert!(expect_another_name(&name("trial"), &name("orders")).is_ok());
        assert!(expect_no_earlier_archive(&name("trial"), true).unwrap_err().hints[1].ends_with("spilo delete cluster trial --backups"));
        assert!(expect_no_earlier_archive(&name("trial"), false).is_ok());
    }

    #[test]
    fn a_cluster_that_was_lost_with_its_machine_is_found_in_its_bucket() {
        let bucket = ArchiveSpec { store: "s3://backups/prod".parse().unwrap(), region: Some("eu-1".into()), ..ArchiveSpec::volume() };
        assert_eq!(left_archive(false, Some(&bucket)), Some(bucket.clone()));
        assert_eq!(left_archive(true, Some(&bucket)), Some(ArchiveSpec::volume()));
        assert_eq!((left_archive(false, Some(&ArchiveSpec::volume())), left_archive(false, None)), (None, None));
        let mut parent = Parent { source: source(RecoveryTarget::End), seen: None };
        assert!(parent.farewell().unwrap().ends_with("what it has left in its volume is restored"));
        parent.source.archive = bucket;
        assert!(parent.farewell().unwrap().contains("in s3://backups/prod"));
    }

    #[test]
    fn what_was_encrypted_and_will_not_be_is_told() {
        let open = ClusterSpec { archive: Some(ArchiveSpec::volume()), ..ClusterSpec::named("trial".parse().unwrap()) };
        let sealed = ArchiveSpec { key_file: Some("/keys/a".into()), ..ArchiveSpec::volume() };
        let mut parent = Parent { source: source(RecoveryTarget::End), seen: None };
        assert_eq!(parent.exposure(&open), None);
        parent.source.archive = sealed.clone();
        assert!(parent.exposure(&open).unwrap().contains("those of 'trial' will not be: --store-key FILE"));
        assert_eq!(parent.exposure(&ClusterSpec { archive: Some(sealed), ..open.clone() }), None);
        assert_eq!(parent.exposure(&ClusterSpec { archive: Some(ArchiveSpec::none()), ..open.clone() }), None);
        assert_eq!(parent.exposure(&ClusterSpec { archive: None, ..open }), None);
    }

    #[test]
    fn another_version_of_postgresql_is_refused_before_anything_is_made() {
        let old = ClusterSpec { postgres: 16.try_into().unwrap(), ..ClusterSpec::named("orders".parse().unwrap()) };
        let new = ClusterSpec::named("trial".parse().unwrap());
        let error = expect_same_version(&new, &old).unwrap_err();
        assert_eq!(error.to_string(), "cluster 'orders' is of PostgreSQL 16, and its data cannot be used by PostgreSQL 17");
        assert_eq!(error.hints, ["with the same version: --pg 16"]);
    }
}
