//! Chunks that other backups have stored.

use crate::backup::{chunk::Digest, manifest::Pack, pack::Indexed};

/// A chunk in a pack of another backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Which of [`OtherPacks`].
    pub pack: u32,
    /// At which byte of it.
    pub offset: u32,
    /// How many bytes it takes there.
    pub length: u32,
}

/// The packs of other backups that a new one may use.
#[derive(Debug, Default)]
pub struct OtherPacks(Vec<Pack>);

impl OtherPacks {
    /// Adds a pack and says which one it is. `None`: there are too many.
    pub fn add(&mut self, pack: Pack) -> Option<u32> {
        let number = u32::try_from(self.0.len()).ok()?;
        self.0.push(pack);
        Some(number)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// One of them.
    pub fn get(&self, number: u32) -> Option<&Pack> {
        self.0.get(usize::try_from(number).ok()?)
    }
}

/// The chunks of backups that were interrupted, by their digests; as many as fit into the memory that they may take.
#[derive(Debug, Default)]
pub struct StoredChunks {
    /// In the order of digests.
    chunks: Vec<(Digest, Stored)>,
    most: usize,
}

impl StoredChunks {
    /// With room for so many bytes.
    pub fn with_room(bytes: u64) -> StoredChunks {
        let each = size_of::<(Digest, Stored)>() as u64;
        StoredChunks { chunks: Vec::new(), most: usize::try_from(bytes / each).unwrap_or(usize::MAX) }
    }

    /// Adds the chunks of a pack, if all of them fit.
    pub fn add(&mut self, pack: u32, index: &[Indexed]) -> bool {
        let fits = self.chunks.len() + index.len() <= self.most;
        if fits {
            let stored = |chunk: &Indexed| (chunk.digest, Stored { pack, offset: chunk.offset, length: chunk.length });
            self.chunks.extend(index.iter().map(stored));
        }
        fits
    }

    /// All were added.
    pub fn settle(&mut self) {
        self.chunks.sort_unstable_by_key(|(digest, _)| *digest);
        self.chunks.shrink_to_fit();
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.chunks.len()
    }

    /// Bytes of memory that they take.
    pub fn bytes(&self) -> u64 {
        (self.chunks.len() * size_of::<(Digest, Stored)>()) as u64
    }

    /// Where a chunk with this digest is.
    pub fn find(&self, digest: &Digest) -> Option<Stored> {
        let found = self.chunks.binary_search_by_key(digest, |(digest, _)| *digest).ok()?;
        self.chunks.get(found).map(|(_, stored)| *stored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_found_by_their_digests_and_never_more_than_fit() {
        let indexed = |n: u8| Indexed { digest: [n; 16], offset: u32::from(n), length: 7, raw_length: 9 };
        let mut chunks = StoredChunks::with_room(5 * 28);
        assert!(chunks.add(3, &[indexed(9), indexed(2)]));
        assert!(!chunks.add(4, &[indexed(1), indexed(5), indexed(6), indexed(8)]), "half a pack is of no use to the next run");
        assert!(chunks.add(5, &[indexed(4)]));
        chunks.settle();
        assert_eq!((chunks.len(), chunks.find(&[9; 16])), (3, Some(Stored { pack: 3, offset: 9, length: 7 })));
        assert_eq!((chunks.find(&[4; 16]).unwrap().pack, chunks.find(&[1; 16])), (5, None));
    }
}
