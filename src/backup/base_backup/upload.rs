//! Bringing packs into the store, several at once.

use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::sync::mpsc::UnboundedReceiver;

use super::{error::BackupError, packer::ReadyPack};
use crate::{
    backup::{Archive, ArchiveError, BackupId, manifest::Pack},
    storage::{Claim, ObjectName, ObjectStore, StoreError},
};

/// How many at once. A lane of a store far away is slower than a disk.
const LANES: usize = 8;

/// So long a store may be gone before a backup is given up: what was done already is used again by the next one.
const PATIENCE: Duration = Duration::from_secs(600);

/// The first pause before an object is tried again; each next one is twice as long, up to a limit.
const PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(20);

/// Stores packs until there are no more.
///
/// # Errors
/// When the store refuses one, or does not answer for too long.
pub async fn upload<S: ObjectStore>(
    archive: &Archive<S>,
    backup: &BackupId,
    mut packs: UnboundedReceiver<ReadyPack>,
) -> Result<(), BackupError> {
    let mut lanes = FuturesUnordered::new();
    let mut more = true;
    while more || !lanes.is_empty() {
        tokio::select! {
            pack = packs.recv(), if more && lanes.len() < LANES => match pack {
                Some(pack) => lanes.push(store_pack(archive, backup, pack)),
                None => more = false,
            },
            Some(done) = lanes.next() => done?,
        }
    }
    Ok(())
}

async fn store_pack<S: ObjectStore>(archive: &Archive<S>, backup: &BackupId, pack: ReadyPack) -> Result<(), BackupError> {
    let ReadyPack { number, content, held } = pack;
    let object = archive.pack(backup, number)?;
    let size = content.len() as u64;
    // Its name has this backup's chance in it: what is there already is an attempt of ours whose answer got lost.
    let claim = patiently(async || archive.store.create(&object, content.clone()).await).await?;
    if claim == Claim::Taken && patiently(async || archive.store.size(&object).await).await? != Some(size) {
        let why = "another object is in its place, although nobody else knows its name".to_owned();
        return Err(ArchiveError::Damaged { object, why }.into());
    }
    drop((content, held));
    Ok(())
}

/// Asks again as long as the store does not answer.
///
/// # Errors
/// When it refuses, or does not answer for too long.
pub async fn patiently<T, E: Into<BackupError>>(mut ask: impl AsyncFnMut() -> Result<T, E>) -> Result<T, BackupError> {
    let (begun, mut pause) = (Instant::now(), PAUSE);
    loop {
        match ask().await.map_err(Into::into) {
            Err(error @ BackupError::Archive(ArchiveError::Store(StoreError::Unavailable { .. }))) if begun.elapsed() < PATIENCE => {
                tracing::warn!(%error, "asking again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            answer => return answer,
        }
    }
}

/// The first of the packs that is not in the store, with its size.
///
/// # Errors
/// When the store does not say.
pub async fn missing_pack<S: ObjectStore>(archive: &Archive<S>, packs: &[Pack]) -> Result<Option<ObjectName>, BackupError> {
    let mut wanted: Vec<&Pack> = packs.iter().collect();
    wanted.sort_unstable();
    for of_one in wanted.chunk_by(|a, b| a.backup == b.backup) {
        let Some(backup) = of_one.first().map(|pack| &pack.backup) else { continue };
        let folder = archive.packs(backup)?;
        // In the order of names, which is that of numbers.
        let there = patiently(async || archive.store.list(&folder).await).await?;
        for pack in of_one {
            let name = archive.pack(backup, pack.number)?;
            let found = there.binary_search_by(|object| object.name.cmp(&name)).ok().and_then(|at| there.get(at));
            if found.is_none_or(|object| object.size != pack.size) {
                return Ok(Some(name));
            }
        }
    }
    Ok(None)
}
