//! A pack: one object with many chunks, and an index at its end by which the chunks of an interrupted backup are found again.

use std::io;

use super::{
    chunk::{Digest, LONGEST},
    encryption::{Sealed, Sealer, Sealing},
};
use crate::model::{InvalidObjectName, ObjectName};

/// What every pack begins with; the digit is the format's version.
const MAGIC: &[u8; 8] = b"spiloP1\n";

/// What every pack ends with.
const END: &[u8; 8] = b"spiloPE\n";

/// A pack is closed when it has about so many bytes: one request, and few enough of them.
pub const TARGET: usize = 32 << 20;

/// No pack has more bytes: what claims to is damaged.
pub const LARGEST: u64 = (TARGET + 2 * LONGEST) as u64;

/// Bytes of an entry of the index: digest, offset, stored length, raw length.
const ENTRY: usize = 28;

/// Bytes of the footer: where the index begins, how many entries it has, a digest of all that, and the end mark.
pub const FOOTER: usize = 32;

/// A chunk in a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Indexed {
    /// Of its content.
    pub digest: Digest,
    /// At which byte of the pack it begins.
    pub offset: u32,
    /// How many bytes it takes there.
    pub length: u32,
    /// How many bytes its content has.
    pub raw_length: u32,
}

/// The name of a pack of the backup whose packs lie in this folder.
///
/// # Errors
/// When it is too long.
pub fn name(folder: &ObjectName, number: u32) -> Result<ObjectName, InvalidObjectName> {
    folder.join(&format!("{number:08}"))
}

/// Where new packs of a backup are to lie, and what makes objects of them.
pub struct NewPacks {
    /// Their folder.
    pub folder: ObjectName,
    /// What makes objects of them.
    pub sealer: Sealer,
}

impl NewPacks {
    /// Begins one.
    ///
    /// # Errors
    /// When there are no random numbers for its encryption.
    pub fn begin(&self, number: u32) -> io::Result<PackBuilder> {
        let name = name(&self.folder, number).map_err(io::Error::other)?;
        Ok(PackBuilder::new(self.sealer.begin(&name)?))
    }
}

/// A pack under construction.
pub struct PackBuilder {
    bytes: Sealing,
    index: Vec<u8>,
}

impl PackBuilder {
    /// An empty one, whose object is made on the way.
    pub fn new(bytes: Sealing) -> PackBuilder {
        PackBuilder { bytes, index: Vec::new() }
    }

    /// Appends a stored chunk and says where it lies. Callers close a pack that is full before they add to it.
    pub fn add(&mut self, digest: &Digest, stored: &[u8], raw_length: u32) -> Indexed {
        if self.bytes.size() == 0 {
            self.bytes.write(MAGIC);
        }
        let [offset, length] =
            [self.bytes.size(), stored.len() as u64].map(|n| u32::try_from(n).expect("packs are far smaller than 4 GiB"));
        self.bytes.write(stored);
        self.index.extend_from_slice(digest);
        for number in [offset, length, raw_length] {
            self.index.extend_from_slice(&number.to_le_bytes());
        }
        Indexed { digest: *digest, offset, length, raw_length }
    }

    /// Bytes that the pack would have if it were closed now.
    pub fn size(&self) -> usize {
        usize::try_from(self.bytes.size()).unwrap_or(usize::MAX).saturating_add(self.index.len() + FOOTER)
    }

    /// Whether it is to be closed.
    pub fn is_full(&self) -> bool {
        self.size() >= TARGET
    }

    /// The pack, whole.
    pub fn finish(self) -> Sealed {
        let PackBuilder { mut bytes, index } = self;
        let begin = u32::try_from(bytes.size()).expect("packs are far smaller than 4 GiB").to_le_bytes();
        let count = u32::try_from(index.len() / ENTRY).expect("packs are far smaller than 4 GiB").to_le_bytes();
        let digest = index_digest(&index, begin, count);
        for part in [&index[..], &begin, &count, &digest, END] {
            bytes.write(part);
        }
        bytes.finish()
    }
}

#[cfg(test)]
impl Default for PackBuilder {
    fn default() -> PackBuilder {
        PackBuilder::new(Sealing::plain("pack".parse().expect("it is a name")))
    }
}

#[cfg(test)]
impl PackBuilder {
    /// The pack as it is read.
    pub fn content(self) -> bytes::Bytes {
        self.finish().object().clone()
    }
}

/// What a pack's last bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footer {
    begin: u32,
    count: u32,
    digest: Digest,
}

impl Footer {
    /// Reads it off the last [`FOOTER`] bytes of a pack of `size` bytes.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(last: &[u8], size: u64) -> Result<Footer, String> {
        let last: &[u8; FOOTER] = last.try_into().map_err(|_| format!("its end has {} bytes instead of {FOOTER}", last.len()))?;
        if &last[24..] != END {
            return Err("it does not end as a pack does".to_owned());
        }
        let word = |at: usize| u32::from_le_bytes(last[at..at + 4].try_into().expect("four bytes"));
        let footer = Footer { begin: word(0), count: word(4), digest: last[8..24].try_into().expect("16 bytes") };
        let (begin, end) = footer.index();
        if size > LARGEST || begin < MAGIC.len() as u64 || end + FOOTER as u64 != size {
            return Err("its index does not fit into it".to_owned());
        }
        Ok(footer)
    }

    /// Where the index begins and ends.
    pub fn index(&self) -> (u64, u64) {
        let begin = u64::from(self.begin);
        (begin, begin + u64::from(self.count) * ENTRY as u64)
    }

    /// The chunks that the index names; `index` are exactly its bytes.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn chunks(&self, index: &[u8]) -> Result<Vec<Indexed>, String> {
        let (entries, rest) = index.as_chunks::<ENTRY>();
        let whole = rest.is_empty() && entries.len() as u64 == u64::from(self.count);
        if !whole || index_digest(index, self.begin.to_le_bytes(), self.count.to_le_bytes()) != self.digest {
            return Err("its index is not what was stored".to_owned());
        }
        let chunks: Vec<Indexed> = entries.iter().map(read_entry).collect();
        // Written by us, as the digest says; but a mistake of ours must not send a reader anywhere else either.
        let fits = |chunk: &Indexed| {
            let end = u64::from(chunk.offset) + u64::from(chunk.length);
            chunk.offset as usize >= MAGIC.len() && end <= u64::from(self.begin) && chunk.raw_length as usize <= LONGEST
        };
        if chunks.iter().all(fits) { Ok(chunks) } else { Err("its index names chunks outside it".to_owned()) }
    }
}

/// The index of a whole pack.
///
/// # Errors
/// What is wrong with it.
#[cfg(test)]
pub fn read_index(pack: &[u8]) -> Result<Vec<Indexed>, String> {
    if !pack.starts_with(MAGIC) {
        return Err("it does not begin as a pack does".to_owned());
    }
    let last = pack.len().checked_sub(FOOTER).ok_or_else(|| format!("it ends after {} bytes", pack.len()))?;
    let footer = Footer::read(&pack[last..], pack.len() as u64)?;
    let (begin, end) = footer.index();
    let range = usize::try_from(begin).ok().zip(usize::try_from(end).ok());
    let index = range.and_then(|(begin, end)| pack.get(begin..end)).ok_or("its index does not fit into it")?;
    footer.chunks(index)
}

fn read_entry(entry: &[u8; ENTRY]) -> Indexed {
    let word = |at: usize| u32::from_le_bytes(entry[at..at + 4].try_into().expect("four bytes"));
    Indexed { digest: entry[..16].try_into().expect("16 bytes"), offset: word(16), length: word(20), raw_length: word(24) }
}

fn index_digest(index: &[u8], begin: [u8; 4], count: [u8; 4]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(index).update(&begin).update(&count);
    hasher.finalize().as_bytes()[..16].try_into().expect("a BLAKE3 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::chunk::{self, ChunkPacker, ChunkReader};

    fn contents() -> Vec<Vec<u8>> {
        let mut random = fastrand::Rng::with_seed(7);
        (0..40usize).map(|n| (0..n * 173).map(|_| random.u8(..1 + u8::try_from(n).unwrap())).collect()).collect()
    }

    fn pack() -> (bytes::Bytes, Vec<Indexed>) {
        let mut packer = ChunkPacker::new(chunk::LEVEL).unwrap();
        let mut builder = PackBuilder::default();
        let mut add = |content: &Vec<u8>| {
            let stored = packer.pack(content).unwrap();
            builder.add(&chunk::digest(content), &stored, u32::try_from(content.len()).unwrap())
        };
        let places = contents().iter().map(&mut add).collect();
        let size = builder.size();
        let pack = builder.content();
        assert_eq!(pack.len(), size);
        (pack, places)
    }

    #[test]
    fn every_chunk_is_found_again_by_the_index() {
        let (pack, places) = pack();
        let index = read_index(&pack).unwrap();
        assert_eq!(index, places);
        let mut reader = ChunkReader::new().unwrap();
        for (place, content) in index.iter().zip(contents()) {
            let stored = &pack[place.offset as usize..][..place.length as usize];
            assert_eq!(reader.read(stored, place.raw_length as usize, &place.digest).unwrap(), content);
        }
    }

    #[test]
    fn the_index_is_read_without_the_rest() {
        let (pack, places) = pack();
        let footer = Footer::read(&pack[pack.len() - FOOTER..], pack.len() as u64).unwrap();
        let (begin, end) = footer.index();
        let index = &pack[usize::try_from(begin).unwrap()..usize::try_from(end).unwrap()];
        assert_eq!(footer.chunks(index).unwrap(), places);
        assert!(footer.chunks(&index[1..]).is_err() && footer.chunks(&index[ENTRY..]).is_err());
        assert!(Footer::read(&pack[pack.len() - FOOTER..], pack.len() as u64 + 1).is_err(), "another size");
    }

    #[test]
    fn whatever_is_changed_is_found() {
        let (pack, places) = pack();
        let mut reader = ChunkReader::new().unwrap();
        for at in (0..pack.len()).step_by(131).chain(0..8).chain(pack.len() - FOOTER - 40..pack.len()) {
            let mut changed = pack.to_vec();
            changed[at] ^= 0x04;
            let index = read_index(&changed);
            match places.iter().zip(contents()).find(|(place, _)| (place.offset..place.offset + place.length).contains(&(at as u32))) {
                Some((place, content)) => {
                    assert_eq!(index.unwrap(), places);
                    let stored = &changed[place.offset as usize..][..place.length as usize];
                    let read = reader.read(stored, place.raw_length as usize, &place.digest);
                    assert!(read.map_or(true, |read| read == content), "byte {at}");
                }
                None => assert!(index.is_err(), "byte {at}"),
            }
        }
        for length in (0..pack.len()).step_by(997) {
            assert!(read_index(&pack[..length]).is_err(), "{length} bytes");
        }
        assert!(read_index(&[&pack[..], b"x"].concat()).is_err());
    }

    #[test]
    fn a_pack_is_full_at_its_target_also_when_its_chunks_are_tiny() {
        let mut builder = PackBuilder::default();
        let mut chunks = 0;
        while !builder.is_full() {
            builder.add(&[1; 16], &[0, 7], 1);
            chunks += 1;
        }
        let pack = builder.content();
        assert!(pack.len() as u64 <= LARGEST && chunks > 1_000_000);
        assert_eq!(read_index(&pack).unwrap().len(), chunks);
    }
}
