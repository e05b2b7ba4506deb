//! Waiting for the WAL that belongs to a backup: only with it in the archive the backup can be restored.

use std::time::{Duration, Instant};

use super::{error::BackupError, upload::patiently};
use crate::{
    backup::Archive,
    model::{WalFile, WalSegment},
    storage::ObjectStore,
};

/// The shortest pause between two questions. Each is a quarter of what was waited already, up to a limit: so nobody waits much longer than the
/// segment takes.
const PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Whoever looks on wants to know by then what is waited for.
const TOLD_AFTER: Duration = Duration::from_secs(1);

/// Waits until every segment is there. `waiting` is told of the one that is waited for, once for each.
///
/// # Errors
/// When one is not there in time, and when the store does not say.
pub async fn wait<S: ObjectStore>(
    archive: &Archive<S>,
    segments: &[WalSegment],
    patience: Duration,
    mut waiting: impl FnMut(WalFile),
) -> Result<(), BackupError> {
    let begun = Instant::now();
    for segment in segments {
        let file = WalFile::Segment(*segment);
        let object = archive.object(file)?;
        let mut told = false;
        while patiently(async || archive.store.size(&object).await).await?.is_none() {
            let waited = begun.elapsed();
            if waited >= patience {
                return Err(BackupError::WalMissing { missing: file, waited });
            }
            if !told && waited > TOLD_AFTER {
                waiting(file);
                told = true;
            }
            tokio::time::sleep((waited / 4).clamp(PAUSE, LONGEST_PAUSE)).await;
        }
    }
    Ok(())
}
