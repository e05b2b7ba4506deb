//! The control file of a backup, in memory until everything else is in its place.

use super::{
    error::RestoreError,
    transfer::{READ_AGAIN, read_patiently},
    window::Target,
};
use crate::{
    backup::{Archive, ArchiveError, chunk::ChunkReader, manifest::Header},
    storage::ObjectStore,
};

/// No version's is longer.
const LONGEST: u64 = 64 << 10;

/// Fetches it.
///
/// # Errors
/// When the store does not give it, and when it is not what was backed up.
pub async fn fetch<S: ObjectStore>(archive: &Archive<S>, header: &Header, file: &Target) -> Result<Vec<u8>, RestoreError> {
    let object = archive.manifest(&header.id)?;
    let damaged = |why: String| RestoreError::damaged(&object, why);
    if file.size > LONGEST {
        return Err(damaged(format!("its control file has {} bytes", file.size)));
    }
    let mut reader = ChunkReader::new().map_err(RestoreError::file("get memory to decompress", &file.path))?;
    let mut content = Vec::new();
    for (at, chunk) in file.chunks.iter().enumerate() {
        let Some(place) = chunk.place else {
            content.resize(content.len() + file.length(at), 0);
            continue;
        };
        let pack = header.packs.get(place.pack as usize).ok_or_else(|| damaged("its control file is in no pack".to_owned()))?;
        let pack = archive.pack(&pack.backup, pack.number)?;
        let mut attempts = 0;
        loop {
            let stored = match read_patiently(archive.store(), &pack, u64::from(place.offset), u64::from(place.length)).await {
                Err(RestoreError::Archive(ArchiveError::Damaged { .. })) if attempts < READ_AGAIN => {
                    attempts += 1;
                    continue;
                }
                read => read?,
            };
            match reader.read(&stored, file.length(at), file.digest(at)) {
                Ok(raw) => {
                    content.extend_from_slice(raw);
                    break;
                }
                // The network may have changed it on its way.
                Err(_) if attempts < READ_AGAIN => attempts += 1,
                Err(why) => {
                    let why = format!("the chunk at {} cannot be restored to '{}': {why}", place.offset, file.shown());
                    return Err(RestoreError::damaged(&pack, why));
                }
            }
        }
    }
    let system = content.get(..8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_ne_bytes);
    if crc32c::crc32c(&content) != file.crc32c || system != Some(header.system.0) {
        return Err(damaged(format!("its control file is not one of system {}", header.system)));
    }
    Ok(content)
}
