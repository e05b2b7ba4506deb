//! Removing what nobody is promised any more. The order of the effects keeps every backup whole that has a manifest, wherever this is
//! interrupted, and whoever else does the same at the same time: a backup gets a tomb, from then on no other takes anything over from it;
//! after the grace its manifest goes first, so that it is none any more; then its packs that no manifest names; then WAL; the tomb last,
//! because it says what is left to do.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};

use super::{
    BackupId,
    archive::{Archive, ArchiveError},
    archived_wal::ArchivedWal,
    base_backup::lease::{self, StoredLease},
    catalog::{Catalog, Unreadable},
    expire_plan::{AtWork, Plan, Refusal, SKEW, Seen},
    manifest::Header,
    marks::{self, Marks, Tomb},
    verdict,
    wal_need::{self, Need},
};
use crate::{
    model::{ObjectName, WalFile},
    storage::{ObjectStore, StoreError},
};

/// Nobody waits so long for the store to say what time it is.
const ASKED_LONG_AGO: SignedDuration = SignedDuration::from_hours(1);

/// Why nothing, or not all, was removed.
#[derive(Debug, thiserror::Error)]
pub enum ExpireError {
    /// The store did not do it. What was done so far is sound, and the next run goes on.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// Something forbids it.
    #[error("nothing was removed: {}", sentences(.0))]
    Refused(Vec<Refusal>),
}

impl From<StoreError> for ExpireError {
    fn from(error: StoreError) -> ExpireError {
        ExpireError::Archive(error.into())
    }
}

fn sentences(refusals: &[Refusal]) -> String {
    refusals.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Looks at everything that an expiry is planned from. Changes nothing.
///
/// # Errors
/// When the store does not say.
pub async fn look<S: ObjectStore>(archive: &Archive<S>, now: Timestamp) -> Result<Seen, ArchiveError> {
    // First: who begins after this look finds every tomb that is ripe by now, and takes nothing over from there.
    let (at_work, mut unreadable) = at_work(archive, now).await?;
    let catalog = Catalog::read(archive).await?;
    let marks = Marks::read(archive).await?;
    unreadable.extend(catalog.unreadable.iter().chain(&marks.unreadable).map(told));
    let wal = archive.store().list(&archive.wal()?).await?;
    let segment_size = catalog.backups.last().map(|header| header.segment_size);
    let newest_path = match segment_size {
        Some(_) => ArchivedWal::of(archive, &wal, segment_size).await?.graph.newest_path(),
        None => None,
    };
    Ok(Seen {
        proofs: verdict::proofs(archive, &catalog.backups).await?,
        backups: catalog.backups,
        unreadable,
        marks,
        packs: packs(archive).await?,
        wal: wal.into_iter().filter_map(|object| wal_file(&object.name).map(|file| (object.name, file, object.size))).collect(),
        newest_path,
        at_work,
    })
}

async fn at_work<S: ObjectStore>(archive: &Archive<S>, now: Timestamp) -> Result<(Vec<AtWork>, Vec<String>), ArchiveError> {
    let (leases, unreadable) = lease::all(archive).await?;
    // Nothing is removed where this clock and the store's differ by more.
    let held = leases.into_iter().filter(|found| found.is_held(now, SKEW));
    let held = held.map(|StoredLease { lease, .. }| AtWork { id: lease.backup, begun: lease.begun });
    Ok((held.collect(), unreadable.iter().map(|object| format!("'{object}' cannot be read")).collect()))
}

fn told(found: &Unreadable) -> String {
    format!("'{}' cannot be read: {}", found.object, found.why)
}

async fn packs<S: ObjectStore>(archive: &Archive<S>) -> Result<BTreeMap<BackupId, BTreeMap<u32, u64>>, ArchiveError> {
    let folder = archive.backups()?;
    let mut found: BTreeMap<BackupId, BTreeMap<u32, u64>> = BTreeMap::new();
    for object in archive.store().list(&folder).await? {
        let below = object.name.as_str().strip_prefix(folder.as_str()).unwrap_or_default();
        let parts: Vec<&str> = below.split('/').filter(|part| !part.is_empty()).collect();
        let [id, "pack", number] = parts.as_slice() else { continue };
        let (Ok(id), Ok(number)) = (id.parse::<BackupId>(), number.parse()) else { continue };
        found.entry(id).or_default().insert(number, object.size);
    }
    Ok(found)
}

fn wal_file(object: &ObjectName) -> Option<WalFile> {
    object.last().strip_suffix(".zst")?.parse().ok()
}

/// Carries out the plan. What may have changed since it was made is looked at again right before anything goes.
///
/// # Errors
/// When something forbids it, and when the store does not do it: then the next run goes on.
pub async fn carry_out<S: ObjectStore>(archive: &Archive<S>, plan: &Plan, now: Timestamp) -> Result<(), ExpireError> {
    if !plan.refusals.is_empty() {
        return Err(ExpireError::Refused(plan.refusals.clone()));
    }
    match skew(archive).await? {
        Some(skew) if skew.abs() <= SKEW => {}
        Some(skew) => return Err(ExpireError::Refused(vec![Refusal::ClocksDiffer(skew)])),
        None => return Err(ExpireError::Refused(vec![Refusal::NoClock])),
    }
    for id in &plan.reprieve {
        marks::remove_tomb(archive, id).await?;
    }
    for id in &plan.condemn {
        marks::condemn(archive, id, &Tomb { since: now, why: "no rule of retention keeps it".to_owned() }).await?;
        // Looked at after the tomb is there: who ends later than this takes it away.
        if plan.unfinished.contains(id) && archive.store().size(&archive.manifest(id).map_err(ArchiveError::from)?).await?.is_some() {
            marks::remove_tomb(archive, id).await?;
        }
    }
    for id in &plan.remove {
        // Pinned or reprieved since: it stays, and so does all that its manifest names.
        if marks::is_condemned(archive, id).await? && !marks::is_pinned(archive, id).await? {
            archive.store().remove(&archive.manifest(id).map_err(ArchiveError::from)?).await?;
        }
    }
    remove_unneeded(archive, plan).await
}

async fn remove_unneeded<S: ObjectStore>(archive: &Archive<S>, plan: &Plan) -> Result<(), ExpireError> {
    let catalog = Catalog::read(archive).await?;
    if let Some(found) = catalog.unreadable.first() {
        return Err(ExpireError::Refused(vec![Refusal::Unreadable(told(found))]));
    }
    let used: BTreeSet<(&BackupId, u32)> =
        catalog.backups.iter().flat_map(|header| &header.packs).map(|pack| (&pack.backup, pack.number)).collect();
    for (id, number) in plan.packs.iter().filter(|(id, number)| !used.contains(&(id, *number))) {
        archive.store().remove(&archive.pack(id, *number).map_err(ArchiveError::from)?).await?;
    }
    for object in plan.wal.iter().filter(|object| is_unneeded(object, &catalog.backups)) {
        archive.store().remove(object).await?;
    }
    for id in plan.bury.iter().filter(|id| catalog.find(id).is_none()) {
        archive.store().remove(&archive.verified(id).map_err(ArchiveError::from)?).await?;
        archive.store().remove(&archive.lease(id).map_err(ArchiveError::from)?).await?;
        marks::remove_tomb(archive, id).await?;
    }
    Ok(())
}

/// The plan has the finer rule. This one sees to it that no backup that is there by now loses what makes it consistent.
fn is_unneeded(object: &ObjectName, backups: &[Header]) -> bool {
    let needs: Vec<Need> = backups.iter().map(|header| Need::between(&header.start, &header.stop)).collect();
    let size = backups.last().map_or(0, |header| u64::from(header.segment_size));
    wal_file(object).is_some_and(|file| wal_need::is_dispensable(file, &needs, size))
}

/// What the store's clock is ahead of ours; `None`: the store does not say what time it is there.
async fn skew<S: ObjectStore>(archive: &Archive<S>) -> Result<Option<SignedDuration>, ExpireError> {
    let clock = archive.root().join("clock").map_err(ArchiveError::from)?;
    // Of this process alone: somebody else who asks the same removes his own.
    let object = clock.join(&format!("{}-{}", archive.system(), std::process::id())).map_err(ArchiveError::from)?;
    archive.store().replace(&object, Bytes::from_static(b"{}")).await?;
    let written = archive.store().written(&object).await?;
    let now = Timestamp::now();
    let skew = written.map(|written| written.duration_since(now));
    archive.store().remove(&object).await?;
    if let Some(written) = written {
        forget_the_dead(archive, &clock, written).await?;
    }
    Ok(skew)
}

/// Removes what processes that were killed have left of the same question: nobody else ever would. `now` is the store's.
async fn forget_the_dead<S: ObjectStore>(archive: &Archive<S>, clock: &ObjectName, now: Timestamp) -> Result<(), ExpireError> {
    let ours = format!("{}-", archive.system());
    for object in archive.store().list(clock).await?.into_iter().filter(|object| object.name.last().starts_with(&ours)) {
        let written = archive.store().written(&object.name).await?;
        if written.is_some_and(|written| now.duration_since(written) > ASKED_LONG_AGO) {
            archive.store().remove(&object.name).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "expire_tests.rs"]
mod tests;
