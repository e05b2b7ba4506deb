//! Archiving one WAL file.

use std::path::Path;

use super::{
    archive::{Archive, ArchiveError},
    wal_object::{self, HEAD, Head},
};
use crate::{
    model::WalFile,
    postgres::wal_header::WalHeader,
    storage::{Claim, ObjectStore, StoreError},
};

/// What came of it. The file is durable in the archive in both cases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// It was not there before.
    Stored,
    /// It was, with the same content: PostgreSQL asks again when it has crashed between our answer and its note of it.
    WasThere,
}

/// Archives the file at `path`. PostgreSQL may remove it as soon as this has returned well.
///
/// # Errors
/// When the file cannot be read or is not what its name says, when the store does not do it, and when the archive has another content under
/// this name: then this one is kept aside, so that no byte is lost, and never takes the other's place.
pub async fn push<S: ObjectStore>(archive: &Archive<S>, path: &Path, file: WalFile) -> Result<Pushed, ArchiveError> {
    let content = tokio::fs::read(path).await;
    let content = content.map_err(|source| ArchiveError::File { action: "read", path: path.display().to_string(), source })?;
    // A partial segment is as long as a whole one.
    if let WalFile::Segment(name) | WalFile::Partial(name) = file
        && let Some(why) = WalHeader::mistake(&content, name, archive.system)
    {
        return Err(ArchiveError::Unfit { file, why });
    }
    let head = Head::of(&content);
    let packed = wal_object::pack(&head, &content).map_err(|error| ArchiveError::Unfit { file, why: error.to_string() })?;
    let object = archive.object(file)?;
    if archive.store.create(&object, packed.clone()).await? == Claim::Won {
        return Ok(Pushed::Stored);
    }
    let Some(present) = archive.store.read_range(&object, 0, HEAD as u64).await? else {
        let why = "the object was there and is gone: somebody removes WAL that is being archived".to_owned();
        return Err(StoreError::Unavailable { object: object.to_string(), why }.into());
    };
    match Head::read(&present) {
        Ok(present) if present == head => Ok(Pushed::WasThere),
        Ok(_) => {
            let aside = archive.aside(file, &head.short())?;
            archive.store.create(&aside, packed).await?;
            Err(ArchiveError::Conflict { file, aside })
        }
        Err(why) => Err(ArchiveError::Damaged { object, why }),
    }
}
