//! A piece of a file as it is stored: told apart by its digest, compressed where that helps, and never handed out without having been checked.

use std::{borrow::Cow, io};

use zstd::bulk::{Compressor, Decompressor};

/// The first half of a chunk's BLAKE3: enough that nobody finds two contents with one digest by chance, or by trying.
pub type Digest = [u8; 16];

/// No chunk is longer: what claims to be is damaged.
pub const LONGEST: usize = 1 << 20;

/// And none takes more room in a pack: one that does not become smaller is stored as it is, behind a byte that says so.
pub const LONGEST_STORED: usize = LONGEST + 1;

/// As fast as a disk, and a third of the size.
pub const LEVEL: i32 = 1;

/// A stored chunk begins with how it is stored: as it is …
const RAW: u8 = 0;
/// … or as one zstd frame.
const ZSTD: u8 = 1;

/// What tells this content from every other one.
pub fn digest(content: &[u8]) -> Digest {
    let whole = blake3::hash(content);
    whole.as_bytes()[..16].try_into().expect("a BLAKE3 has 32 bytes")
}

/// Whether there is nothing but zeros.
pub fn is_zero(content: &[u8]) -> bool {
    // The first byte is, and each other one is what the one before it is: a comparison that the C library has in vector instructions.
    match content {
        [] => true,
        [first, rest @ ..] => *first == 0 && *rest == content[..rest.len()],
    }
}

/// How many bytes each chunk but the last has, of a file of `size` bytes in a database of `total` bytes. A manifest grows with the number of
/// chunks, an incremental backup with their size.
pub fn size_for(total: u64, size: u64) -> u32 {
    const GB: u64 = 1_000_000_000;
    // A single huge file, such as somebody's log: its entry has to stay small.
    if size > 64 * GB {
        return 1 << 20;
    }
    match total {
        0..100_000_000_000 => 64 << 10,
        100_000_000_000..1_000_000_000_000 => 128 << 10,
        _ => 256 << 10,
    }
}

/// Whether a file of `size` bytes may go on with chunks of this size, which it had when it was smaller: its entry has to stay small.
pub fn may_stay(chunk_size: u32, total: u64, size: u64) -> bool {
    const MOST: u64 = 1 << 20;
    chunk_size >= size_for(total, size) || size.div_ceil(u64::from(chunk_size.max(1))) <= MOST
}

/// Makes stored chunks of contents. Each thread has its own.
pub struct ChunkPacker(Compressor<'static>);

impl ChunkPacker {
    /// One that compresses at this level of zstd.
    ///
    /// # Errors
    /// When there is no memory, or no such level.
    pub fn new(level: i32) -> io::Result<ChunkPacker> {
        Ok(ChunkPacker(Compressor::new(level)?))
    }

    /// The stored form of `content`: raw where compression gains next to nothing, because reading it back is cheaper then.
    ///
    /// # Errors
    /// When the compressor fails.
    pub fn pack(&mut self, content: &[u8]) -> io::Result<Vec<u8>> {
        let mut stored = vec![0; 1 + zstd::zstd_safe::compress_bound(content.len())];
        stored[0] = ZSTD;
        let length = self.0.compress_to_buffer(content, &mut stored[1..])?;
        stored.truncate(1 + length);
        if length >= content.len() - content.len() / 32 {
            stored.clear();
            stored.push(RAW);
            stored.extend_from_slice(content);
        }
        stored.shrink_to_fit();
        Ok(stored)
    }
}

/// Makes contents of stored chunks. Each thread has its own.
pub struct ChunkReader {
    decompressor: Decompressor<'static>,
    buffer: Vec<u8>,
}

impl ChunkReader {
    /// A new one.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn new() -> io::Result<ChunkReader> {
        Ok(ChunkReader { decompressor: Decompressor::new()?, buffer: Vec::new() })
    }

    /// The content of this stored chunk, which has to have this length and this digest.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read<'a>(&'a mut self, stored: &'a [u8], length: usize, expected: &Digest) -> Result<&'a [u8], String> {
        if length > LONGEST {
            return Err(format!("an impossible length of {length} bytes is named for it"));
        }
        let content = match stored.split_first() {
            Some((&RAW, content)) => Cow::Borrowed(content),
            Some((&ZSTD, frame)) => Cow::Owned(self.decompress(frame, length)?),
            Some((tag, _)) => return Err(format!("it is stored in an unknown way, {tag}")),
            None => return Err("it is empty".to_owned()),
        };
        if content.len() != length {
            return Err(format!("it has {} bytes instead of {length}", content.len()));
        }
        if digest(&content) != *expected {
            return Err("its content is not what was stored".to_owned());
        }
        Ok(match content {
            Cow::Borrowed(content) => content,
            Cow::Owned(content) => {
                self.buffer = content;
                &self.buffer
            }
        })
    }

    /// Into the buffer of the chunk before: a restore makes millions of chunks.
    fn decompress(&mut self, frame: &[u8], length: usize) -> Result<Vec<u8>, String> {
        let mut content = std::mem::take(&mut self.buffer);
        content.clear();
        content.reserve(length);
        let done = self.decompressor.decompress_to_buffer(frame, &mut content);
        done.map_err(|error| format!("it cannot be decompressed: {error}"))?;
        Ok(content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that no compressor makes smaller.
    fn noise(length: usize) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(7);
        (0..length).map(|_| random.u8(..)).collect()
    }

    fn contents() -> Vec<Vec<u8>> {
        let text = "select abalance from pgbench_accounts where aid = 1;\n".repeat(2000).into_bytes();
        vec![vec![], vec![7], vec![0; 65_536], noise(8192), noise(65_536), text[..65_536].to_vec(), text]
    }

    #[test]
    fn a_file_keeps_its_chunks_until_they_are_too_many() {
        const GB: u64 = 1_000_000_000;
        assert!(may_stay(64 << 10, 200 * GB, GB), "otherwise all of a database would be stored again when it passes a limit");
        assert!(may_stay(64 << 10, 200 * GB, 65 * GB));
        assert!(!may_stay(64 << 10, 300 * GB, 200 * GB));
        assert!(may_stay(256 << 10, 3000 * GB, 200 * GB));
        assert!(may_stay(1 << 20, 3000 * GB, 2000 * GB), "larger ones there are none");
    }

    #[test]
    fn a_chunk_comes_back_as_it_was() {
        let (mut packer, mut reader) = (ChunkPacker::new(LEVEL).unwrap(), ChunkReader::new().unwrap());
        for content in contents() {
            let stored = packer.pack(&content).unwrap();
            assert!(stored.len() <= content.len() + 1, "what does not compress costs one byte: {} of {}", stored.len(), content.len());
            assert_eq!(reader.read(&stored, content.len(), &digest(&content)).unwrap(), content);
        }
    }

    #[test]
    fn whatever_is_changed_is_found() {
        let (mut packer, mut reader) = (ChunkPacker::new(LEVEL).unwrap(), ChunkReader::new().unwrap());
        let mut found = 0;
        for content in contents() {
            let stored = packer.pack(&content).unwrap();
            let digest = digest(&content);
            for at in (0..stored.len()).step_by((stored.len() / 500).max(1)) {
                for bit in 0..8 {
                    let mut changed = stored.clone();
                    changed[at] ^= 1 << bit;
                    // A bit that means nothing to the decompressor may be flipped: what counts is what comes out.
                    match reader.read(&changed, content.len(), &digest) {
                        Ok(read) => assert_eq!(read, content, "byte {at}"),
                        Err(_) => found += 1,
                    }
                }
            }
            for length in (0..stored.len()).step_by((stored.len() / 50).max(1)) {
                assert!(reader.read(&stored[..length], content.len(), &digest).is_err(), "{length} bytes");
            }
            assert!(reader.read(&stored, content.len() + 1, &digest).is_err(), "another length");
            assert!(reader.read(&stored, content.len(), &[0; 16]).is_err(), "another digest");
        }
        assert!(found > 5_000, "{found}");
    }

    #[test]
    fn a_frame_that_promises_gigabytes_costs_no_memory() {
        let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 3).unwrap();
        let stored = [&[ZSTD][..], &bomb].concat();
        let mut reader = ChunkReader::new().unwrap();
        assert!(reader.read(&stored, 65_536, &[0; 16]).is_err());
        assert!(reader.buffer.capacity() < 1 << 20);
        assert!(reader.read(&stored, usize::MAX, &[0; 16]).unwrap_err().contains("impossible"));
    }

    #[test]
    fn only_zeros_are_zero() {
        for length in [0, 1, 63, 64, 65, 8192] {
            assert!(is_zero(&vec![0; length]));
            for at in (0..length).step_by(7) {
                let mut content = vec![0; length];
                content[at] = 1;
                assert!(!is_zero(&content), "{at} of {length}");
            }
        }
    }

    #[test]
    fn chunks_grow_with_the_database() {
        assert_eq!(size_for(99_999_999_999, 1), 64 << 10);
        assert_eq!(size_for(100_000_000_000, 1), 128 << 10);
        assert_eq!(size_for(1_000_000_000_000, 1 << 30), 256 << 10);
        assert_eq!(size_for(1_000_000_000_000, 65_000_000_000) as usize, LONGEST);
    }
}
