//! A part of a backup's files, as many as are worked on together: few enough that what is known of their chunks fits into memory.

use std::{
    fs::File,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use crate::backup::{
    chunk::Digest,
    manifest::{Chunk, Entry, EntryKind},
};

/// Chunks of a window, unless a single file has more.
const CHUNKS: usize = 200_000;

/// A file to be restored.
pub struct Target {
    /// Its path in the manifest.
    pub name: Vec<u8>,
    /// Where it goes.
    pub path: PathBuf,
    /// Permissions.
    pub mode: u32,
    /// Bytes.
    pub size: u64,
    /// CRC-32C of them.
    pub crc32c: u32,
    /// Bytes of each chunk but the last.
    pub chunk_size: u32,
    /// Its chunks.
    pub chunks: Vec<Chunk>,
    /// CRC-32C of each chunk that is in its place.
    found: Vec<AtomicU32>,
}

/// Files that are worked on together.
#[derive(Default)]
pub struct Window {
    /// The files.
    pub files: Vec<Target>,
    chunks: usize,
}

/// A chunk that has to be fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Need {
    /// Which of the header's packs it is in.
    pub pack: u32,
    /// Where.
    pub offset: u32,
    /// How many bytes it takes there.
    pub length: u32,
    /// Which file of the window it belongs to.
    pub file: u32,
    /// Which chunk of it.
    pub chunk: u32,
}

impl Target {
    /// The file of an entry; `None`: it is none.
    pub fn new(entry: Entry, path: PathBuf) -> Option<Target> {
        let Entry { path: name, mode, kind: EntryKind::File { size, crc32c, chunk_size, chunks }, .. } = entry else { return None };
        let found = chunks.iter().map(|_| AtomicU32::new(0)).collect();
        Some(Target { name, path, mode, size, crc32c, chunk_size, chunks, found })
    }

    /// Where a chunk begins.
    pub fn begin(&self, chunk: usize) -> u64 {
        chunk as u64 * u64::from(self.chunk_size)
    }

    /// How many bytes a chunk has.
    pub fn length(&self, chunk: usize) -> usize {
        let length = self.size.saturating_sub(self.begin(chunk)).min(u64::from(self.chunk_size));
        usize::try_from(length).unwrap_or(0)
    }

    /// A chunk's digest.
    pub fn digest(&self, chunk: usize) -> &Digest {
        &self.chunks[chunk].digest
    }

    /// The chunk is in its place, and this is its content.
    pub fn has(&self, chunk: usize, content: &[u8]) {
        self.found[chunk].store(crc32c::crc32c(content), Ordering::Relaxed);
    }

    /// Whether all chunks together are the file that was backed up. All of them have been found.
    pub fn is_whole(&self) -> bool {
        let mut whole = 0;
        for (chunk, found) in self.found.iter().enumerate() {
            whole = crc32c::crc32c_combine(whole, found.load(Ordering::Relaxed), self.length(chunk));
        }
        whole == self.crc32c
    }

    /// The name as people read it.
    pub fn shown(&self) -> String {
        self.name.escape_ascii().to_string()
    }
}

impl Window {
    /// Adds a file.
    pub fn add(&mut self, file: Target) {
        self.chunks += file.chunks.len().max(1);
        self.files.push(file);
    }

    /// Whether it has enough.
    pub fn is_full(&self) -> bool {
        self.chunks >= CHUNKS
    }
}

/// Files that were opened for writing, the last few of them: chunks of several files lie mixed in a pack.
#[derive(Default)]
pub struct OpenFiles(Vec<(u32, File)>);

impl OpenFiles {
    /// How many stay open.
    const MOST: usize = 16;

    /// The file with this number, opened by `open` if it is not.
    ///
    /// # Errors
    /// What `open` returns.
    pub fn get(&mut self, number: u32, open: impl FnOnce() -> std::io::Result<File>) -> std::io::Result<&File> {
        let at = match self.0.iter().position(|(known, _)| *known == number) {
            Some(at) => at,
            None => {
                if self.0.len() == OpenFiles::MOST {
                    self.0.remove(0);
                }
                self.0.push((number, open()?));
                self.0.len() - 1
            }
        };
        Ok(&self.0[at].1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::chunk;

    #[test]
    fn the_chunks_of_a_file_make_it_whole_in_their_order_only() {
        let content: Vec<u8> = (0..20_000u32).flat_map(u32::to_le_bytes).collect();
        let chunks = content.chunks(8192).map(|piece| Chunk { digest: chunk::digest(piece), place: None }).collect();
        let kind = EntryKind::File { size: 80_000, crc32c: crc32c::crc32c(&content), chunk_size: 8192, chunks };
        let entry = Entry { path: b"base/1/2".to_vec(), mode: 0o600, modified: 0, kind };
        let file = Target::new(entry, "/x".into()).unwrap();
        assert_eq!((file.length(0), file.length(9), file.begin(9)), (8192, 6272, 73_728));
        content.chunks(8192).enumerate().rev().for_each(|(at, piece)| file.has(at, piece));
        assert!(file.is_whole());
        file.has(3, &content[..8192]);
        assert!(!file.is_whole());
    }
}
