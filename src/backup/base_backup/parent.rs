//! The backup that a new one is compared with, read beside the data directory in the same order.

use std::fs::File;

use super::{
    error::BackupError,
    known_chunks::{OtherPacks, Stored},
    piece::PIECE,
};
use crate::backup::{
    ArchiveError,
    chunk::Digest,
    manifest::{Entry, EntryKind, Header},
    manifest_file::{Entries, place},
};
use crate::storage::ObjectName;

/// What the backup before has of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Before {
    /// Bytes of a chunk.
    pub chunk_size: u32,
    /// Bytes of the file.
    pub size: u64,
    /// CRC-32C of them.
    pub crc32c: u32,
    /// Its chunks, and where they are; `None`: zeros.
    pub chunks: Vec<(Digest, Option<Stored>)>,
}

impl Before {
    /// Bytes of memory that it takes.
    pub fn bytes(&self) -> u64 {
        (self.chunks.capacity() * size_of::<(Digest, Option<Stored>)>()) as u64
    }
}

/// The files of the backup before.
pub struct ParentFiles {
    object: ObjectName,
    entries: Entries<File>,
    ahead: Option<Entry>,
    /// Where each of its packs stands among the other packs.
    packs: Vec<u32>,
}

impl ParentFiles {
    /// From its manifest, whose packs are added to `others`.
    pub fn new(object: ObjectName, header: &Header, entries: Entries<File>, others: &mut OtherPacks) -> Option<ParentFiles> {
        let packs = header.packs.iter().map(|pack| others.add(pack.clone())).collect::<Option<_>>()?;
        Some(ParentFiles { object, entries, ahead: None, packs })
    }

    /// What it has of the file. Files have to be asked for in their order.
    ///
    /// # Errors
    /// When the manifest is damaged.
    pub fn file(&mut self, path: &[u8]) -> Result<Option<Before>, BackupError> {
        while self.ahead.as_ref().is_none_or(|ahead| place(&ahead.path) < place(path)) {
            match self.entries.next() {
                Some(Ok(entry)) => self.ahead = Some(entry),
                Some(Err(why)) => return Err(ArchiveError::Damaged { object: self.object.clone(), why }.into()),
                None => return Ok(None),
            }
        }
        Ok(self.ahead.as_ref().filter(|ahead| ahead.path == path).and_then(|ahead| self.before(ahead)))
    }

    fn before(&self, entry: &Entry) -> Option<Before> {
        let EntryKind::File { size, crc32c, chunk_size, chunks } = &entry.kind else { return None };
        // Pieces consist of whole chunks, and chunks of whole pages.
        if !chunk_size.is_power_of_two() || u64::from(*chunk_size) > PIECE || *chunk_size < 1 << 15 {
            return None;
        }
        let stored = |chunk: &crate::backup::manifest::Chunk| {
            let Some(place) = chunk.place else { return Some((chunk.digest, None)) };
            let pack = *self.packs.get(place.pack as usize)?;
            Some((chunk.digest, Some(Stored { pack, offset: place.offset, length: place.length })))
        };
        let chunks = chunks.iter().map(stored).collect::<Option<_>>()?;
        Some(Before { chunk_size: *chunk_size, size: *size, crc32c: *crc32c, chunks })
    }
}
