//! What there is already that a new backup can use.

use std::collections::BTreeSet;

use super::{
    Request, Told,
    error::BackupError,
    known_chunks::{OtherPacks, StoredChunks},
    leftovers,
    parent::ParentFiles,
    upload,
};
use crate::{
    backup::{Archive, ArchiveError, BackupId, marks, spooled_manifest::SpooledManifest},
    storage::{ObjectStore, StoreError},
};

/// So many earlier backups are looked at before a new one stands alone.
const ATTEMPTS: usize = 3;

/// What there is already.
pub struct Prepared {
    /// The packs that it lies in.
    pub others: OtherPacks,
    /// The backup that the new one is compared with.
    pub parent: Option<ParentFiles>,
    /// Its name.
    pub parent_id: Option<BackupId>,
    /// Chunks of interrupted backups.
    pub leftovers: StoredChunks,
    /// Every backup whose packs may be used.
    pub uses: Vec<BackupId>,
}

/// Looks for what a new backup can use.
///
/// # Errors
/// When the store does not say. Whatever is damaged is told and not used.
pub async fn prepare<S: ObjectStore>(
    archive: &Archive<S>,
    request: &Request,
    own: &BackupId,
    tell: &dyn Fn(Told),
) -> Result<Prepared, BackupError> {
    let mut others = OtherPacks::default();
    let (mut parent, mut parent_id, mut uses) = (None, None, BTreeSet::new());
    if !request.full {
        for candidate in newest(archive).await? {
            match usable(archive, &candidate, &mut others, &mut uses).await {
                Ok(files) => {
                    (parent, parent_id) = (Some(files), Some(candidate));
                    break;
                }
                Err(error @ BackupError::Archive(ArchiveError::Store(StoreError::Unavailable { .. }))) => return Err(error),
                Err(error) => tell(Told::Warning(format!("nothing of backup '{candidate}' is used: {error}"))),
            }
        }
    }
    let found = leftovers::find(archive, own, request.memory / 4, &mut others).await?;
    found.complaints.into_iter().for_each(|complaint| tell(Told::Warning(complaint)));
    if !found.backups.is_empty() {
        let names: Vec<&str> = found.backups.iter().map(BackupId::as_str).collect();
        tell(Told::Note(format!("{} chunks of interrupted backups may be used: {}", found.chunks.len(), names.join(", "))));
    }
    uses.extend(found.backups);
    Ok(Prepared { others, parent, parent_id, leftovers: found.chunks, uses: uses.into_iter().collect() })
}

/// The newest complete backups that nobody wants to remove.
async fn newest<S: ObjectStore>(archive: &Archive<S>) -> Result<Vec<BackupId>, BackupError> {
    let folder = archive.backups()?;
    let objects = archive.store.list(&folder).await?;
    let id = |name: &str| name.strip_prefix(folder.as_str())?.strip_prefix('/')?.strip_suffix("/manifest")?.parse().ok();
    let mut complete: Vec<BackupId> = objects.iter().filter_map(|object| id(object.name.as_str())).collect();
    complete.sort_unstable_by(|a, b| b.cmp(a));
    let mut found = Vec::new();
    for id in complete {
        if !marks::is_condemned(archive, &id).await? {
            found.push(id);
        }
        if found.len() == ATTEMPTS {
            break;
        }
    }
    Ok(found)
}

/// The files of a backup that is whole, as far as a listing says.
async fn usable<S: ObjectStore>(
    archive: &Archive<S>,
    backup: &BackupId,
    others: &mut OtherPacks,
    uses: &mut BTreeSet<BackupId>,
) -> Result<ParentFiles, BackupError> {
    let object = archive.manifest(backup)?;
    let gone = || BackupError::PackGone(object.clone());
    let mut manifest = SpooledManifest::read(archive, backup).await?.ok_or_else(gone)?;
    let header = manifest.header().clone();
    if header.id != *backup || header.system != archive.system {
        let why = format!("it is the manifest of backup '{}' of system {}", header.id, header.system);
        return Err(ArchiveError::Damaged { object, why }.into());
    }
    let entries = manifest.entries().map_err(|why| ArchiveError::Damaged { object: object.clone(), why })?;
    if let Some(missing) = upload::missing_pack(archive, &header.packs).await? {
        return Err(BackupError::PackGone(missing));
    }
    let files = ParentFiles::new(object.clone(), &header, entries, others).ok_or_else(gone)?;
    uses.insert(backup.clone());
    uses.extend(header.packs.into_iter().map(|pack| pack.backup));
    Ok(files)
}
