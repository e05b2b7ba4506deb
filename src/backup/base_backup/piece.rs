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
        let mut whole = std::mem::take(&mut self.buffer);
        let buffer = self.fill(&piece, &mut whole)?;
        self.progress.has_done(buffer.len() as u64);
        let (mut crc32c, mut chunks, mut packed, mut bad_pages) = (0, Vec::new(), Vec::new(), Vec::new());
        let size = piece.chunk_size as usize;
        self.check_pages(&piece, buffer, &mut bad_pages);
        for (number, content) in buffer.chunks(size).enumerate() {
            crc32c = crc32c::crc32c_append(crc32c, content);
            let before = piece.before.get(number).copied().flatten();
            chunks.push(self.chunk(content, before, &mut packed)?);
        }
        packed.shrink_to_fit();
        piece.held.shrink(packed.capacity() as u64);
        let read = PieceRead { number: piece.number, length: buffer.len() as u64, crc32c, chunks, packed, bad_pages, held: piece.held };
        self.buffer = whole;
        Ok(read)
    }

    /// All bytes of the piece that there are. The buffer is that of the piece before: what is left of that one is never looked at.
    fn fill<'a>(&self, piece: &Piece, buffer: &'a mut Vec<u8>) -> io::Result<&'a mut [u8]> {
        let length = usize::try_from(piece.length).map_err(io::Error::other)?;
        if buffer.len() < length {
            buffer.resize(length, 0);
        }
        let content = &mut buffer[..length];
        let found = read_up_to(&piece.file, content, piece.offset)?;
        if !piece.padded {
            return Ok(&mut content[..found]);
        }
        content[found..].fill(0);
        Ok(content)
    }

    /// Checks the whole pages of a piece. Those that are being written are read again.
    fn check_pages(&self, piece: &Piece, content: &mut [u8], bad: &mut Vec<BadBlock>) {
        let Some((first_block, page_size)) = piece.first_block.zip(self.page_size) else { return };
        let page_size = page_size as usize;
        let first = piece.offset as usize / page_size;
        let block = |number: usize| first_block.wrapping_add(number as u32);
        let pages = content.chunks_exact(page_size).enumerate();
        let is_good = |(number, page): &(usize, &[u8])| page_checksum::judge(page, block(*number), self.start) == Verdict::Good;
        let doubtful: Vec<usize> = pages.filter(|page| !is_good(page)).map(|(number, _)| number).collect();
        if doubtful.is_empty() {
            return;
        }
        // Once for all of them: a broken disk may have nothing else.
        std::thread::sleep(PAUSE);
        for number in doubtful {
            let page = &mut content[number * page_size..(number + 1) * page_size];
            let offset = piece.offset + (number * page_size) as u64;
            // A page that cannot be read again is one that was cut off meanwhile.
            let mut again = vec![0; page_size];
            if matches!(read_up_to(&piece.file, &mut again, offset), Ok(length) if length == page_size) {
                page.copy_from_slice(&again);
            }
            let page_number = (first + number) as u32;
            match page_checksum::judge(page, block(number), self.start) {
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
            self.progress.has_spared(u64::from(length));
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::backup::{
        base_backup::{budget::Budget, page_checksum::checksum},
        chunk::ChunkReader,
        pack::Indexed,
    };

    const START: Lsn = Lsn(1000);

    fn reader(stored: StoredChunks) -> PieceReader {
        PieceReader::new(Some(8192), START, Arc::new(stored), Arc::default()).unwrap()
    }

    fn file(content: &[u8]) -> Arc<File> {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(content, 0).unwrap();
        Arc::new(file)
    }

    /// The piece of this length at the beginning of the file.
    fn piece(file: &Arc<File>, length: u64) -> Piece {
        let held = Budget::new(u64::MAX).take(length).unwrap();
        let path: Arc<Path> = Path::new("base/5/1259").into();
        let (file, before) = (file.clone(), Vec::new());
        Piece { number: 0, path, file, offset: 0, length, padded: false, first_block: None, chunk_size: 65_536, before, held }
    }

    fn noise(length: usize) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(length as u64);
        (0..length).map(|_| random.u8(..)).collect()
    }

    /// A whole page that was written at this position.
    fn page(block: u32, written: u32) -> Vec<u8> {
        let mut page = noise(8192);
        page[..4].fill(0);
        page[4..8].copy_from_slice(&written.to_le_bytes());
        let sum = checksum(&page, block);
        page[8..10].copy_from_slice(&sum.to_le_bytes());
        page
    }

    #[test]
    fn chunks_are_packed_one_after_the_other_and_zeros_not_at_all() {
        let content = [noise(65_536), vec![0; 65_536], noise(100)].concat();
        let read = reader(StoredChunks::default()).read(piece(&file(&content), content.len() as u64)).unwrap();
        assert_eq!((read.length, read.crc32c), (content.len() as u64, crc32c::crc32c(&content)));
        let (mut rest, mut unpacked, mut unpacker) = (&read.packed[..], Vec::new(), ChunkReader::new().unwrap());
        for chunk in &read.chunks {
            match chunk.fate {
                Fate::New(length) => {
                    let (stored, after) = rest.split_at(length as usize);
                    unpacked.extend_from_slice(unpacker.read(stored, chunk.length as usize, &chunk.digest).unwrap());
                    rest = after;
                }
                Fate::Zero => unpacked.resize(unpacked.len() + chunk.length as usize, 0),
                Fate::Known(_) => panic!("nothing is known"),
            }
        }
        assert!(unpacked == content && rest.is_empty());
    }

    #[test]
    fn what_the_store_has_is_not_packed() {
        let content = [noise(65_536), noise(65_537)[1..].to_vec(), noise(77)].concat();
        let digests: Vec<Digest> = content.chunks(65_536).map(chunk::digest).collect();
        let stored = |pack| Stored { pack, offset: 8, length: 100 };
        let mut leftovers = StoredChunks::with_room(1000);
        leftovers.add(5, &[Indexed { digest: digests[1], offset: 8, length: 100, raw_length: 65_536 }]);
        leftovers.settle();
        // The backup before has the first chunk, something else instead of the second, and nothing of the third.
        let before = vec![Some((digests[0], stored(1))), Some((digests[2], stored(2)))];
        let piece = Piece { before, ..piece(&file(&content), content.len() as u64) };
        let read = reader(leftovers).read(piece).unwrap();
        let known: Vec<Option<u32>> =
            read.chunks.iter().map(|chunk| if let Fate::Known(stored) = chunk.fate { Some(stored.pack) } else { None }).collect();
        assert_eq!(known, [Some(1), Some(5), None]);
        assert_eq!(read.packed.len(), 78);
    }

    #[test]
    fn a_file_that_shrinks_ends_there_or_goes_on_with_zeros() {
        let file = file(&noise(10_000));
        let read = |padded| reader(StoredChunks::default()).read(Piece { padded, ..piece(&file, 30_000) }).unwrap();
        assert_eq!((read(false).length, read(false).crc32c), (10_000, crc32c::crc32c(&noise(10_000))));
        let padded = [noise(10_000), vec![0; 20_000]].concat();
        assert_eq!((read(true).length, read(true).crc32c), (30_000, crc32c::crc32c(&padded)));
        file.set_len(0).unwrap();
        assert_eq!((read(false).length, read(false).chunks.len()), (0, 0));
    }

    #[test]
    fn pages_are_checked_where_they_belong_and_only_whole_ones() {
        let mut content: Vec<u8> = (0..20).flat_map(|number| page(131_072 + number, 7)).collect();
        content[9 * 8192 + 5000] ^= 1;
        content.extend_from_slice(&noise(500));
        let (in_time, later) = (page(131_072 + 10, 7), page(131_072 + 11, 2000));
        content[10 * 8192..11 * 8192].copy_from_slice(&in_time);
        content[11 * 8192..12 * 8192].copy_from_slice(&later);
        content[11 * 8192 + 8000] ^= 1;
        let file = file(&content);
        let piece = |first_block| Piece { first_block, ..piece(&file, content.len() as u64) };
        let bad = reader(StoredChunks::default()).read(piece(Some(131_072))).unwrap().bad_pages;
        assert_eq!(bad, [BadBlock { page: 9, written: None }, BadBlock { page: 11, written: Some(Lsn(2000)) }]);
        assert!(reader(StoredChunks::default()).read(piece(None)).unwrap().bad_pages.is_empty(), "it has no pages");
        let unchecked = PieceReader { page_size: None, ..reader(StoredChunks::default()) }.read(piece(Some(0))).unwrap();
        assert!(unchecked.bad_pages.is_empty(), "the server has no checksums");
    }

    #[test]
    fn a_page_that_was_being_written_is_taken_as_it_is_when_it_is_whole() {
        let whole = page(0, 7);
        let mut torn = whole.clone();
        torn[4096..].fill(0xEE);
        let file = file(&torn);
        let writer = file.clone();
        let content = whole.clone();
        let writing = std::thread::spawn(move || {
            std::thread::sleep(PAUSE / 4);
            writer.write_all_at(&content, 0).unwrap();
        });
        let read = reader(StoredChunks::default()).read(Piece { first_block: Some(0), ..piece(&file, 8192) }).unwrap();
        writing.join().unwrap();
        assert_eq!((read.bad_pages.len(), read.crc32c), (0, crc32c::crc32c(&whole)));
    }
}
