//! The packs of backups that were interrupted: whole objects, of which the next backup uses every chunk that it would have stored again.

use jiff::Timestamp;

use super::{
    error::BackupError,
    known_chunks::{OtherPacks, StoredChunks},
    lease::{self, Lease},
};
use crate::{
    backup::{
        Archive, ArchiveError, BackupId,
        manifest::Pack,
        marks,
        pack::{FOOTER, Footer},
    },
    storage::{Object, ObjectStore},
};

/// What was found of interrupted backups.
#[derive(Debug, Default)]
pub struct Leftovers {
    /// Their chunks.
    pub chunks: StoredChunks,
    /// Backups that the chunks are from.
    pub backups: Vec<BackupId>,
    /// What cannot be used, and why.
    pub complaints: Vec<String>,
}

/// Finds the chunks of backups that nobody works on any more and that have no manifest. Their packs are added to `others`.
///
/// # Errors
/// When the store does not say.
pub async fn find<S: ObjectStore>(
    archive: &Archive<S>,
    own: &BackupId,
    room: u64,
    others: &mut OtherPacks,
) -> Result<Leftovers, BackupError> {
    let mut found = Leftovers { chunks: StoredChunks::with_room(room), ..Leftovers::default() };
    let (leases, unreadable) = lease::all(archive).await?;
    found.complaints.extend(unreadable.iter().map(|object| format!("'{object}' cannot be read")));
    let now = Timestamp::now();
    let dead = |lease: &Lease| lease.backup != *own && !lease.is_held(now);
    // The newest has most of what is still true.
    let mut dead: Vec<BackupId> = leases.into_iter().filter(dead).map(|lease| lease.backup).collect();
    dead.sort_unstable_by(|a, b| b.cmp(a));
    for backup in dead {
        // It was complete, and only its lease was not removed any more; or it is to go, and its packs with it.
        if archive.store.size(&archive.manifest(&backup)?).await?.is_some() || marks::is_condemned(archive, &backup).await? {
            continue;
        }
        let before = found.chunks.len();
        let packs = archive.store.list(&archive.packs(&backup)?).await?;
        for pack in packs {
            if !add_pack(archive, &backup, &pack, others, &mut found).await? {
                break;
            }
        }
        if found.chunks.len() > before {
            found.backups.push(backup);
        }
    }
    found.chunks.settle();
    Ok(found)
}

/// False when there is no more room.
async fn add_pack<S: ObjectStore>(
    archive: &Archive<S>,
    backup: &BackupId,
    object: &Object,
    others: &mut OtherPacks,
    found: &mut Leftovers,
) -> Result<bool, BackupError> {
    let Some(number) = object.name.last().parse().ok().filter(|number| archive.pack(backup, *number).as_ref() == Ok(&object.name)) else {
        return Ok(true);
    };
    let last = object.size.saturating_sub(FOOTER as u64);
    let Some(end) = archive.store.read_range(&object.name, last, FOOTER as u64).await? else { return Ok(true) };
    let footer = match Footer::read(&end, object.size) {
        Ok(footer) => footer,
        Err(why) => {
            found.complaints.push(ArchiveError::Damaged { object: object.name.clone(), why }.to_string());
            return Ok(true);
        }
    };
    let (begin, end) = footer.index();
    let Some(index) = archive.store.read_range(&object.name, begin, end - begin).await? else { return Ok(true) };
    match footer.chunks(&index) {
        Ok(chunks) => {
            let pack = Pack { backup: backup.clone(), number, size: object.size };
            Ok(others.add(pack).is_some_and(|number| found.chunks.add(number, &chunks)))
        }
        Err(why) => {
            found.complaints.push(ArchiveError::Damaged { object: object.name.clone(), why }.to_string());
            Ok(true)
        }
    }
}
