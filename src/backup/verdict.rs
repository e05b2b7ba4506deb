//! What was found when a backup was looked at, kept beside it in the store: when it was last seen to be whole, and when it was last restored.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    BackupId,
    archive::{Archive, ArchiveError},
    expire_plan::Proof,
    manifest::Header,
    problem::{Findings, Problem},
};
use crate::storage::ObjectStore;

/// So many problems of one look are written down: a store that lost everything has more than anybody reads.
pub const PROBLEMS_NAMED: usize = 100;

/// How many backups are asked for at the same time.
const LANES: usize = 8;

/// How closely a backup was looked at. Each has everything of those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Depth {
    /// Everything that it needs is there, as long as it should be.
    Presence,
    /// Every byte was read and is what was written.
    Read,
    /// PostgreSQL was started from it and answered.
    Restored,
}

/// What one look came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// When it ended.
    pub at: Timestamp,
    /// How close it was.
    pub depth: Depth,
    /// Nothing is wrong.
    pub ok: bool,
    /// What is wrong: the first [`PROBLEMS_NAMED`].
    pub problems: Vec<String>,
    /// How many are wrong.
    pub problem_count: u64,
    /// How long the look took.
    pub seconds: f64,
    /// Where it was restored: from the beginning until PostgreSQL answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery_seconds: Option<f64>,
    /// What was left out, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// The last verdict of each depth.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Verdicts {
    /// From the shallowest on.
    pub verdicts: Vec<Verdict>,
}

impl Verdict {
    /// Of a look that ended at this time and took so many seconds.
    pub fn new(depth: Depth, findings: &Findings, at: Timestamp, seconds: f64) -> Verdict {
        Verdict {
            at,
            depth,
            ok: findings.is_empty(),
            problems: findings.problems.iter().take(PROBLEMS_NAMED).map(Problem::to_string).collect(),
            problem_count: findings.count,
            seconds,
            recovery_seconds: None,
            notes: Vec::new(),
        }
    }

    /// Of a restore that ended at this time and took so many seconds, `recovery` of them until a server answered.
    pub fn of_restore(problems: &[String], notes: &[String], recovery: Option<f64>, at: Timestamp, seconds: f64) -> Verdict {
        Verdict {
            at,
            depth: Depth::Restored,
            ok: problems.is_empty(),
            problems: problems.iter().take(PROBLEMS_NAMED).cloned().collect(),
            problem_count: problems.len() as u64,
            seconds,
            recovery_seconds: recovery,
            notes: notes.iter().take(PROBLEMS_NAMED).cloned().collect(),
        }
    }
}

impl Verdicts {
    /// The last one of this depth.
    pub fn of(&self, depth: Depth) -> Option<&Verdict> {
        self.verdicts.iter().find(|verdict| verdict.depth == depth)
    }

    /// The last one of any depth.
    pub fn last(&self) -> Option<&Verdict> {
        self.verdicts.iter().max_by_key(|verdict| verdict.at)
    }

    /// Puts it in the place of the last one of its depth.
    pub fn add(&mut self, verdict: Verdict) {
        self.verdicts.retain(|known| known.depth != verdict.depth);
        self.verdicts.push(verdict);
        self.verdicts.sort_by_key(|verdict| verdict.depth);
    }

    /// When all of it was last seen to be whole, if nothing has been found wrong since.
    pub fn proven(&self) -> Option<Timestamp> {
        let whole = self.verdicts.iter().filter(|verdict| verdict.ok && verdict.depth >= Depth::Read).map(|verdict| verdict.at).max()?;
        (!self.verdicts.iter().any(|verdict| !verdict.ok && verdict.at >= whole)).then_some(whole)
    }

    /// Whether something of it is damaged or missing: a look has said so, and none since that was as close has found it whole. A restore
    /// that failed says nothing of it here: the machine may have been what failed, and a broken backup may be thrown away.
    pub fn broken(&self) -> bool {
        let refuted = |wrong: &Verdict| self.verdicts.iter().any(|other| other.ok && other.at > wrong.at && other.depth >= wrong.depth);
        self.verdicts.iter().any(|verdict| !verdict.ok && verdict.depth <= Depth::Read && !refuted(verdict))
    }
}

/// What has been found of this backup. Nobody has looked: nothing.
///
/// # Errors
/// When the store does not say, or the object is not one of ours.
pub async fn read_verdicts<S: ObjectStore>(archive: &Archive<S>, backup: &BackupId) -> Result<Verdicts, ArchiveError> {
    let object = archive.verified(backup)?;
    let Some(text) = archive.store().read(&object).await? else { return Ok(Verdicts::default()) };
    serde_json::from_slice(&text).map_err(|error| ArchiveError::Damaged { object, why: error.to_string() })
}

/// What is known of each of these backups, for whoever decides which of them may go.
///
/// # Errors
/// As for [`read_verdicts`].
pub async fn proofs<S: ObjectStore>(archive: &Archive<S>, backups: &[Header]) -> Result<BTreeMap<BackupId, Proof>, ArchiveError> {
    let read = stream::iter(backups).map(async |header| {
        let verdicts = match read_verdicts(archive, &header.id).await {
            // What nobody can read proves nothing.
            Err(ArchiveError::Damaged { .. }) => Verdicts::default(),
            read => read?,
        };
        // Older backups may have pages that this one has only damaged: nothing goes for its sake.
        let proven = verdicts.proven().filter(|_| header.bad_page_count == 0);
        Ok((header.id.clone(), Proof { proven, broken: verdicts.broken() }))
    });
    read.buffer_unordered(LANES).try_collect().await
}

/// What became of a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// It is kept beside the backup.
    Kept,
    /// The backup was removed while it was looked at, and there is nothing to say of it any more: what was missing may have gone with it.
    Gone,
}

/// Adds a verdict, as long as its backup is there. Two that are added at the same time may lose one: whoever looks holds the cluster's lease for
/// it, or is a person.
///
/// # Errors
/// When the store does not take it.
pub async fn record<S: ObjectStore>(archive: &Archive<S>, backup: &BackupId, verdict: Verdict) -> Result<Recorded, ArchiveError> {
    let manifest = archive.manifest(backup)?;
    // Whoever removes a backup takes the manifest first: nobody is told of a damage that is a removal.
    if !verdict.ok && archive.store().size(&manifest).await?.is_none() {
        return Ok(Recorded::Gone);
    }
    let mut verdicts = match read_verdicts(archive, backup).await {
        // What nobody can read is no verdict; the next look replaces it.
        Err(ArchiveError::Damaged { .. }) => Verdicts::default(),
        read => read?,
    };
    verdicts.add(verdict);
    let object = archive.verified(backup)?;
    let text = serde_json::to_vec(&verdicts).expect("it is made of what JSON has");
    archive.store().replace(&object, Bytes::from(text)).await?;
    // The verdicts go last, after the manifest: of it and us, who comes later sees the other.
    if archive.store().size(&manifest).await?.is_none() {
        archive.store().remove(&object).await?;
        return Ok(Recorded::Gone);
    }
    Ok(Recorded::Kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_795_000_000 + second).unwrap()
    }

    fn problems(count: u64) -> Findings {
        let mut findings = Findings::default();
        (0..count).for_each(|n| findings.add(Problem::new(&format!("object-{n}").parse().unwrap(), "it is missing")));
        findings
    }

    fn verdicts(looks: &[(i64, Depth, bool)]) -> Verdicts {
        let mut verdicts = Verdicts::default();
        for (second, depth, ok) in looks {
            verdicts.add(Verdict::new(*depth, &problems(u64::from(!ok)), at(*second), 1.0));
        }
        verdicts
    }

    #[test]
    fn only_who_has_read_everything_has_proven_it() {
        use Depth::{Presence, Read, Restored};
        assert_eq!(verdicts(&[]).proven(), None);
        assert_eq!(verdicts(&[(1, Presence, true)]).proven(), None);
        assert_eq!(verdicts(&[(1, Read, true), (2, Presence, true)]).proven(), Some(at(1)));
        assert_eq!(verdicts(&[(1, Read, true), (2, Restored, true)]).proven(), Some(at(2)));
        assert_eq!(verdicts(&[(1, Read, true), (2, Read, false)]).proven(), None);
        assert_eq!(verdicts(&[(1, Read, true), (2, Presence, false)]).proven(), None);
        assert_eq!(verdicts(&[(1, Read, true), (2, Restored, false)]).proven(), None, "nobody would count on it");
        assert_eq!(verdicts(&[(1, Presence, false), (2, Read, true)]).proven(), Some(at(2)), "it had not been listed yet");
    }

    #[test]
    fn what_is_damaged_stays_so_until_somebody_has_looked_as_closely() {
        use Depth::{Presence, Read, Restored};
        assert!(!verdicts(&[]).broken());
        assert!(verdicts(&[(1, Read, false)]).broken());
        assert!(verdicts(&[(1, Read, false), (2, Presence, true)]).broken(), "its length says nothing of its content");
        assert!(!verdicts(&[(1, Presence, false), (2, Read, true)]).broken());
        assert!(!verdicts(&[(1, Read, false), (2, Restored, true)]).broken());
        assert!(verdicts(&[(1, Restored, true), (2, Presence, false)]).broken());
        assert!(!verdicts(&[(1, Restored, false)]).broken(), "it may be for the machine");
    }

    #[test]
    fn a_long_list_of_problems_is_counted() {
        let verdict = Verdict::new(Depth::Read, &problems(2500), at(1), 1.0);
        assert_eq!((verdict.ok, verdict.problems.len(), verdict.problem_count), (false, PROBLEMS_NAMED, 2500));
    }
}
