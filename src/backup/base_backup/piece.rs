//! A piece of a file on its way: read, checked, told apart from what is stored already, and compressed, by whichever thread is free.

use std::{fs::File, io, os::unix::fs::FileExt, path::Path, sync::Arc, time::Duration};

use super::{
    budget::Held,
    known_chunks::{Stored, StoredChunks},
    page_checksum::{self, Verdict},
    progress::Progress,
};
use crate::{
    backup::chunk::{self, ChunkPacker, Digest},
    model::Lsn,
};

/// Bytes of a piece, which every chunk's size divides.
pub const PIECE: u64 = 1 << 20;

/// How long a page may be in the middle of being written.
const PAUSE: Duration = Duration::from_millis(20);

/// Part of a file that is to be read.
pub struct Piece {
    /// Its place among all pieces.
    pub number: u64,
    /// Its file's path, to be told.
    pub path: Arc<Path>,
    /// The file.
    pub file: Arc<File>,
    /// Where it begins.
    pub offset: u64,
    /// How many bytes it has.
    pub length: u64,
    /// What is missing of it is zero: the file has shrunk after the pieces before it were read. Otherwise the file ends here.
    pub padded: bool,
    /// Which block of its relation it begins with.
    pub first_block: Option<u32>,
    /// Bytes of a chunk.
    pub chunk_size: u32,
    /// What the backup before has of it, chunk by chunk.
    pub before: Vec<Option<(Digest, Stored)>>,
    /// What it may take of memory.
    pub held: Held,
}

/// A piece that was read.
pub struct PieceRead {
    /// Its place among all pieces.
    pub number: u64,
    /// Bytes of content.
    pub length: u64,
    /// CRC-32C of the content.
    pub crc32c: u32,
    /// Its chunks.
    pub chunks: Vec<ChunkRead>,
    /// Those that have to be stored, one after the other.
    pub packed: Vec<u8>,
    /// Pages with a wrong checksum.
    pub bad_pages: Vec<BadBlock>,
    /// The memory that `packed` takes.
    pub held: Held,
}

/// A chunk that was read.
pub struct ChunkRead {
    /// Of its content.
    pub digest: Digest,
    /// Bytes of content.
    pub length: u32,
    /// What is to be done about it.
    pub fate: Fate,
}

/// What is to be done about a chunk.
pub enum Fate {
    /// Nothing: it is all zeros.
    Zero,
    /// Nothing: it is in the store.
    Known(Stored),
    /// It is stored. So many bytes of [`PieceRead::packed`] are its.
    New(u32),
}

/// A page with a wrong checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadBlock {
    /// Which page of the file, from 0.
    pub page: u32,
    /// It says that it was written at this position, after the backup had begun: only if there is no such position it is damaged.
    pub written: Option<Lsn>,
}

/// What a thread has that reads pieces.
pub struct PieceReader {
    /// Pages have checksums, and are this large.
    pub page_size: Option<u32>,
    /// Where the backup begins.
    pub start: Lsn,
    /// What else is in the store.
    pub stored: Arc<StoredChunks>,
    /// To be told.
    pub progress: Arc<Progress>,
    packer: ChunkPacker,
    buffer: Vec<u8>,
    /// The digest of a whole chunk of zeros of this length.
    zeros: (usize, Digest),
}

impl PieceReader {
    /// A new one.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn new(page_size: Option<u32>, start: Lsn, stored: Arc<StoredChunks>, progress: Arc<Progress>) -> io::Result<PieceReader> {
        let packer = ChunkPacker::new(chunk::LEVEL)?;
        Ok(PieceReader { page_size, start, stored, progress, packer, buffer: Vec::new(), zeros: (0, chunk::digest(&[])) })
    }

    /// Reads and packs the piece.
    ///
    /// # Errors
    /// When it cannot be read, or the compressor fails.
    pub fn read(&mut self, mut piece: Piece) -> io::Result<PieceRead> {
        let mut buffer = std::mem::take(&mut self.buffer);
        self.fill(&piece, &mut buffer)?;
        self.progress.has_read(buffer.len() as u64);
        let (mut crc32c, mut chunks, mut packed, mut bad_pages) = (0, Vec::new(), Vec::new(), Vec::new());
        let size = piece.chunk_size as usize;
        for (number, content) in buffer.chunks_mut(size).enumerate() {
            self.check_pages(&piece, number * size, content, &mut bad_pages);
            crc32c = crc32c::crc32c_append(crc32c, content);
            let before = piece.before.get(number).copied().flatten();
            chunks.push(self.chunk(content, before, &mut packed)?);
        }
        packed.shrink_to_fit();
        piece.held.shrink(packed.capacity() as u64);
        let read = PieceRead { number: piece.number, length: buffer.len() as u64, crc32c, chunks, packed, bad_pages, held: piece.held };
        self.buffer = buffer;
        Ok(read)
    }

    /// All bytes of the piece that there are.
    fn fill(&self, piece: &Piece, buffer: &mut Vec<u8>) -> io::Result<()> {
        let length = usize::try_from(piece.length).map_err(io::Error::other)?;
        buffer.clear();
        buffer.resize(length, 0);
        let found = read_up_to(&piece.file, buffer, piece.offset)?;
        buffer[found..].fill(0);
        if !piece.padded {
            buffer.truncate(found);
        }
        Ok(())
    }

    /// Checks the whole pages of a chunk that begins at this byte of the piece. A page that is being written is read again.
    fn check_pages(&self, piece: &Piece, begin: usize, content: &mut [u8], bad: &mut Vec<BadBlock>) {
        let Some((first_block, page_size)) = piece.first_block.zip(self.page_size) else { return };
        let page_size = page_size as usize;
        let first = (piece.offset as usize + begin) / page_size;
        for (number, page) in content.chunks_exact_mut(page_size).enumerate() {
            let in_piece = begin / page_size + number;
            let block = first_block.wrapping_add(in_piece as u32);
            if page_checksum::judge(page, block, self.start) == Verdict::Good {
                continue;
            }
            std::thread::sleep(PAUSE);
            let offset = piece.offset + (begin + number * page_size) as u64;
            // A page that cannot be read again is one that was cut off meanwhile.
            let mut again = vec![0; page_size];
            if matches!(read_up_to(&piece.file, &mut again, offset), Ok(length) if length == page_size) {
                page.copy_from_slice(&again);
            }
            let page_number = (first + number) as u32;
            match page_checksum::judge(page, block, self.start) {
                Verdict::Good => {}
                Verdict::WrittenSince(written) => bad.push(BadBlock { page: page_number, written: Some(written) }),
                Verdict::Bad => bad.push(BadBlock { page: page_number, written: None }),
            }
        }
    }

    fn chunk(&mut self, content: &[u8], before: Option<(Digest, Stored)>, packed: &mut Vec<u8>) -> io::Result<ChunkRead> {
        let length = u32::try_from(content.len()).map_err(io::Error::other)?;
        if chunk::is_zero(content) {
            if self.zeros.0 != content.len() {
                self.zeros = (content.len(), chunk::digest(content));
            }
            return Ok(ChunkRead { digest: self.zeros.1, length, fate: Fate::Zero });
        }
        let digest = chunk::digest(content);
        let known = before.filter(|(known, _)| *known == digest).map(|(_, stored)| stored);
        if let Some(stored) = known.or_else(|| self.stored.find(&digest)) {
            self.progress.has_reused(u64::from(length));
            return Ok(ChunkRead { digest, length, fate: Fate::Known(stored) });
        }
        let stored = self.packer.pack(content)?;
        packed.extend_from_slice(&stored);
        Ok(ChunkRead { digest, length, fate: Fate::New(u32::try_from(stored.len()).map_err(io::Error::other)?) })
    }
}

/// Reads until the buffer is full or the file ends.
fn read_up_to(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut found = 0;
    while found < buffer.len() {
        match file.read_at(&mut buffer[found..], offset + found as u64) {
            Ok(0) => break,
            Ok(read) => found += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}
