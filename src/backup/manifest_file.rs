//! The manifest as an object: `spiloM1\n`, SHA-256 of all that follows, length of the header, header as JSON, and one zstd stream of entries.
//! It is written and read one entry at a time: that of a large database does not fit into memory beside it.

use std::io::{self, Read, Write};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::manifest::{Entry, Header};

pub use super::manifest_entries::Entries;

/// What every manifest begins with; the digit is the format's version.
const MAGIC: &[u8; 8] = b"spiloM1\n";

/// Bytes before the header: magic, digest, length.
pub const PREFIX: usize = 44;

/// The length of magic and digest.
const DIGESTED_FROM: usize = 40;

/// No header is longer: it has a line for each pack, and 64 MiB of them are 30 TB.
const LONGEST_HEADER: usize = 64 << 20;

/// The entry of a file with so many bytes is too large. At 1 MiB a chunk that is a file of 2 TB.
pub const LONGEST_ENTRY: usize = 64 << 20;

/// Most of it is digests, which do not compress.
const LEVEL: i32 = 1;

/// Where `global/pg_control` stands: last, and all others in the order of their bytes.
pub fn place(path: &[u8]) -> (bool, &[u8]) {
    (path == b"global/pg_control", path)
}

/// Entries on their way into a manifest.
pub struct EntryWriter<W: Write> {
    stream: zstd::Encoder<'static, W>,
    last: Option<Vec<u8>>,
    count: u64,
}

impl<W: Write> EntryWriter<W> {
    /// Entries go to `out` compressed.
    ///
    /// # Errors
    /// When the compressor has no memory.
    pub fn new(out: W) -> io::Result<EntryWriter<W>> {
        Ok(EntryWriter { stream: zstd::Encoder::new(out, LEVEL)?, last: None, count: 0 })
    }

    /// Appends the entry. They come in order.
    ///
    /// # Errors
    /// When it is out of order or too large, and when it cannot be written.
    pub fn add(&mut self, entry: &Entry) -> io::Result<()> {
        let told = |why: &str| io::Error::other(format!("'{}' {why}", entry.path.escape_ascii()));
        if self.last.as_ref().is_some_and(|last| place(last) >= place(&entry.path)) {
            return Err(told("is out of order"));
        }
        let packed = postcard::to_stdvec(entry).map_err(|error| told(&format!("does not fit into a manifest: {error}")))?;
        if packed.len() > LONGEST_ENTRY {
            return Err(told("is too large a file to be backed up"));
        }
        let length = u32::try_from(packed.len()).expect("it was compared with less");
        self.stream.write_all(&length.to_le_bytes())?;
        self.stream.write_all(&packed)?;
        self.last = Some(entry.path.clone());
        self.count += 1;
        Ok(())
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Ends the stream.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(self) -> io::Result<W> {
        self.stream.finish()
    }
}

/// Writes the whole object: the header and the stream that an [`EntryWriter`] has written. `entries` gives the same stream each time it is asked.
///
/// # Errors
/// When the header is too large, and when reading or writing fails.
pub fn write<R: Read>(header: &Header, mut entries: impl FnMut() -> io::Result<R>, out: &mut impl Write) -> io::Result<()> {
    let json = serde_json::to_vec(header)?;
    let length = u32::try_from(json.len()).ok().filter(|_| json.len() <= LONGEST_HEADER);
    let length = length.ok_or_else(|| io::Error::other("the header of the manifest is too large"))?.to_le_bytes();
    let mut hasher = Sha256::new();
    hasher.update(length);
    hasher.update(&json);
    io::copy(&mut entries()?, &mut HashWriter(&mut hasher))?;
    out.write_all(MAGIC)?;
    out.write_all(&hasher.finalize())?;
    out.write_all(&length)?;
    out.write_all(&json)?;
    io::copy(&mut entries()?, out)?;
    Ok(())
}

/// The whole object in memory, of a backup that is small enough.
///
/// # Errors
/// As for [`EntryWriter::add`] and [`write`].
pub fn object<'a>(header: &Header, entries: impl IntoIterator<Item = &'a Entry>) -> io::Result<Bytes> {
    let mut writer = EntryWriter::new(Vec::new())?;
    entries.into_iter().try_for_each(|entry| writer.add(entry))?;
    let stream = writer.finish()?;
    let mut out = Vec::new();
    write(header, || Ok(&stream[..]), &mut out)?;
    Ok(out.into())
}

/// How many bytes from the beginning of the object its header ends at, read off at least the first [`PREFIX`] bytes.
///
/// # Errors
/// What is wrong with it.
pub fn header_end(beginning: &[u8]) -> Result<usize, String> {
    let prefix = beginning.get(..PREFIX).ok_or_else(|| format!("it ends after {} bytes", beginning.len()))?;
    if &prefix[..8] != MAGIC {
        return Err("it is no manifest of ours, or of a newer version".to_owned());
    }
    let length = u32::from_le_bytes(prefix[DIGESTED_FROM..].try_into().expect("four bytes"));
    let length = usize::try_from(length).ok().filter(|length| *length <= LONGEST_HEADER);
    length.map(|length| PREFIX + length).ok_or_else(|| "it names an impossible length of its header".to_owned())
}

/// The header, from at least the first [`header_end`] bytes of the object. Whether it is what was written only the whole object says.
///
/// # Errors
/// What is wrong with it.
pub fn read_header(beginning: &[u8]) -> Result<Header, String> {
    let json = beginning.get(PREFIX..header_end(beginning)?).ok_or("it ends within its header")?;
    serde_json::from_slice(json).map_err(|error| format!("its header cannot be read: {error}"))
}

/// Checks the digest of an object that is read piece by piece.
pub struct ManifestCheck {
    hasher: Sha256,
    expected: Vec<u8>,
}

impl ManifestCheck {
    /// Begins, with at least the first [`PREFIX`] bytes.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn begin(beginning: &[u8]) -> Result<ManifestCheck, String> {
        header_end(beginning)?;
        let mut hasher = Sha256::new();
        hasher.update(&beginning[DIGESTED_FROM..]);
        Ok(ManifestCheck { hasher, expected: beginning[MAGIC.len()..DIGESTED_FROM].to_vec() })
    }

    /// What follows what was given before.
    pub fn update(&mut self, piece: &[u8]) {
        self.hasher.update(piece);
    }

    /// The end.
    ///
    /// # Errors
    /// When what was read is not what was written.
    pub fn finish(self) -> Result<(), String> {
        let whole = self.hasher.finalize()[..] == self.expected[..];
        if whole { Ok(()) } else { Err("its content is not what was written".to_owned()) }
    }
}

/// Reads an object that is in memory: its header, and its entries one after the other.
///
/// # Errors
/// What is wrong with it. Nothing of it is handed out before its digest was checked.
pub fn read(object: &Bytes) -> Result<(Header, Entries<io::Cursor<Bytes>>), String> {
    ManifestCheck::begin(object)?.finish()?;
    let header = read_header(object)?;
    let entries = object.slice(header_end(object)?..);
    let entries = Entries::new(io::Cursor::new(entries), &header)?;
    Ok((header, entries))
}

/// A digest as something to write to.
struct HashWriter<'a>(&'a mut Sha256);

impl Write for HashWriter<'_> {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.0.update(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[path = "manifest_file_tests.rs"]
mod tests;
