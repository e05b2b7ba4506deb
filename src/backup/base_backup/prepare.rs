//! What there is already that a new backup can use.

use std::io;

use jiff::Timestamp;

use super::{
    Request, Told,
    error::BackupError,
    file_memory::{self, About, FileMemory, MemoryWriter},
    known_chunks::{OtherPacks, StoredChunks},
    leftovers,
    parent::ParentFiles,
    upload,
};
use crate::{
    backup::{Archive, ArchiveError, BackupId, marks, spooled_manifest::SpooledManifest, verdict::read_verdicts},
    postgres::backup_mode::CopiedServer,
    storage::ObjectStore,
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
    /// What the backup before remembers of files that need not be read again.
    pub memory: Option<FileMemory>,
    /// When the new one begins to read.
    pub begun: Timestamp,
    /// What the next one may need of this one.
    pub remember: io::Result<MemoryWriter>,
}

/// Looks for what a new backup can use.
///
/// # Errors
/// When the store does not say. Whatever is damaged is told and not used.
pub async fn prepare<S: ObjectStore>(
    archive: &Archive<S>,
    request: &Request,
    own: &BackupId,
    server: &CopiedServer,
    tell: &dyn Fn(Told),
) -> Result<Prepared, BackupError> {
    let mut others = OtherPacks::default();
    let (mut parent, mut parent_id) = (None, None);
    if !request.full {
        for candidate in newest(archive, tell).await? {
            match usable(archive, &candidate, &mut others).await {
                Ok(files) => {
                    (parent, parent_id) = (Some(files), Some(candidate));
                    break;
                }
                Err(BackupError::Archive(error)) if error.is_unavailable() => return Err(error.into()),
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
    let begun = Timestamp::now();
    let run = file_memory::run_of(server);
    let memory = run.as_ref().zip(parent_id.as_ref()).filter(|_| !request.read_all);
    let memory = memory.and_then(|(run, parent)| FileMemory::open(&request.data_dir, parent, archive.system, run, begun));
    let all_read = memory.as_ref().map_or(begun, |memory| memory.about.all_read);
    let remember = match run {
        Some(run) => MemoryWriter::begin(&request.data_dir, &About { backup: own.clone(), system: archive.system, run, all_read }),
        None => Err(io::Error::other("this machine does not tell when it was started")),
    };
    Ok(Prepared { others, parent, parent_id, leftovers: found.chunks, memory, begun, remember })
}

/// The newest complete backups that nobody wants to remove, and of which nothing is known to be damaged: that would be in the new one too.
async fn newest<S: ObjectStore>(archive: &Archive<S>, tell: &dyn Fn(Told)) -> Result<Vec<BackupId>, BackupError> {
    let folder = archive.backups()?;
    let objects = archive.store.list(&folder).await?;
    let id = |name: &str| name.strip_prefix(folder.as_str())?.strip_prefix('/')?.strip_suffix("/manifest")?.parse().ok();
    let mut complete: Vec<BackupId> = objects.iter().filter_map(|object| id(object.name.as_str())).collect();
    complete.sort_unstable_by(|a, b| b.cmp(a));
    let mut found = Vec::new();
    for id in complete {
        if marks::is_condemned(archive, &id).await? {
            continue;
        }
        if is_known_to_be_broken(archive, &id).await? {
            tell(Told::Warning(format!("nothing of backup '{id}' is used: it was found damaged")));
            continue;
        }
        found.push(id);
        if found.len() == ATTEMPTS {
            break;
        }
    }
    Ok(found)
}

async fn is_known_to_be_broken<S: ObjectStore>(archive: &Archive<S>, backup: &BackupId) -> Result<bool, BackupError> {
    match read_verdicts(archive, backup).await {
        // What nobody can read says nothing.
        Err(ArchiveError::Damaged { .. }) => Ok(false),
        read => Ok(read?.broken()),
    }
}

/// The files of a backup that is whole, as far as a listing says.
async fn usable<S: ObjectStore>(archive: &Archive<S>, backup: &BackupId, others: &mut OtherPacks) -> Result<ParentFiles, BackupError> {
    let object = archive.manifest(backup)?;
    let gone = || BackupError::PackGone(object.clone());
    let mut manifest = SpooledManifest::read(archive, backup).await?.ok_or_else(gone)?;
    let header = manifest.header().clone();
    if header.id != *backup || header.system != archive.system {
        let why = format!("it is the manifest of backup '{}' of system {}", header.id, header.system);
        return Err(ArchiveError::Damaged { object, why }.into());
    }
    let entries = manifest.entries()?;
    if let Some(missing) = upload::missing_pack(archive, &header.packs).await? {
        return Err(BackupError::PackGone(missing));
    }
    ParentFiles::new(object.clone(), &header, entries, others).ok_or_else(gone)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use jiff::Timestamp;

    use super::*;
    use crate::{
        backup::{
            manifest::Header,
            manifest_file,
            marks::Tomb,
            problem::{Findings, Problem},
            verdict::{Depth, Verdict, record},
        },
        model::SystemId,
        storage::FileStore,
    };

    #[tokio::test]
    async fn nothing_is_compared_with_what_is_damaged_or_is_to_go() {
        let directory = tempfile::tempdir().unwrap();
        let system = SystemId(7_300_000_000_000_000_001);
        let archive = Archive::new(FileStore::init(directory.path()).unwrap(), "orders".parse().unwrap(), system);
        let id = |chance| BackupId::new(Timestamp::from_second(1_795_293_900).unwrap(), chance);
        for chance in 1..=6 {
            let header = Header { id: id(chance), ..crate::backup::catalog::tests::header(0, chance) };
            archive.store.create(&archive.manifest(&header.id).unwrap(), manifest_file::object(&header, []).unwrap()).await.unwrap();
        }
        marks::condemn(&archive, &id(6), &Tomb { since: Timestamp::now(), why: String::new() }).await.unwrap();
        let damage = Findings::from(Problem::new(&archive.pack(&id(5), 0).unwrap(), "it is missing"));
        record(&archive, &id(5), Verdict::new(Depth::Presence, &damage, Timestamp::now(), 1.0)).await.unwrap();
        let told = RefCell::new(Vec::new());
        let found = newest(&archive, &|said| told.borrow_mut().push(said)).await.unwrap();
        assert_eq!(found, [id(4), id(3), id(2)]);
        assert_eq!(told.into_inner(), [Told::Warning(format!("nothing of backup '{}' is used: it was found damaged", id(5)))]);
    }
}
