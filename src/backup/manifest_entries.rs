//! The entries of a manifest, one after the other, each checked against the header before it is handed out.

use std::io::{self, BufReader, Read};

use super::{
    chunk::{LONGEST, LONGEST_STORED},
    manifest::{ChunkPlace, Entry, EntryKind, Header},
    manifest_file::{LONGEST_ENTRY, place},
};

/// The compressor looks back this far at most (2 to the power of it), so that a hostile stream cannot ask for more memory.
const WINDOW: u32 = 23;

/// Entries, read as they are asked for. After an error there are no more.
pub struct Entries<R: Read> {
    stream: zstd::Decoder<'static, BufReader<R>>,
    last: Option<Vec<u8>>,
    left: u64,
    packs: Vec<u64>,
    ended: bool,
}

impl<R: Read> Entries<R> {
    /// `stream` begins after the header of a manifest whose digest was checked.
    ///
    /// # Errors
    /// When the decompressor has no memory.
    pub fn new(stream: R, header: &Header) -> Result<Entries<R>, String> {
        let begin = || {
            let mut stream = zstd::Decoder::new(stream)?;
            stream.window_log_max(WINDOW)?;
            Ok(stream)
        };
        let stream = begin().map_err(|error: io::Error| unreadable(&error))?;
        let packs = header.packs.iter().map(|pack| pack.size).collect();
        Ok(Entries { stream, last: None, left: header.entries, packs, ended: false })
    }

    fn read(&mut self) -> Result<Option<Entry>, String> {
        if self.left == 0 {
            return if read_some(&mut self.stream, 1)?.is_empty() { Ok(None) } else { Err("it has more entries than it says".to_owned()) };
        }
        let length = read_exactly(&mut self.stream, 4)?;
        let length = u32::from_le_bytes(length[..].try_into().expect("four bytes")) as usize;
        if length > LONGEST_ENTRY {
            return Err(format!("an entry has an impossible length of {length} bytes"));
        }
        let packed = read_exactly(&mut self.stream, length)?;
        let (entry, rest) = postcard::take_from_bytes(&packed).map_err(|error| format!("an entry cannot be read: {error}"))?;
        if !rest.is_empty() {
            return Err("an entry is longer than what it says".to_owned());
        }
        self.check(&entry).map_err(|why| format!("the entry '{}' {why}", entry.path.escape_ascii()))?;
        self.left -= 1;
        self.last = Some(entry.path.clone());
        Ok(Some(entry))
    }

    /// What every reader relies on.
    fn check(&self, entry: &Entry) -> Result<(), String> {
        if !stays_inside(&entry.path) {
            return Err("leads out of the data directory".to_owned());
        }
        if self.last.as_ref().is_some_and(|last| place(last) >= place(&entry.path)) {
            return Err("is out of order".to_owned());
        }
        let EntryKind::File { size, chunk_size, chunks, .. } = &entry.kind else { return Ok(()) };
        if *chunk_size == 0 || *chunk_size as usize > LONGEST || size.div_ceil(u64::from(*chunk_size)) != chunks.len() as u64 {
            return Err(format!("has {} chunks for {size} bytes", chunks.len()));
        }
        if chunks.iter().filter_map(|chunk| chunk.place.as_ref()).all(|place| self.lies(place)) {
            Ok(())
        } else {
            Err("has a chunk in no pack, or a longer one than there are".to_owned())
        }
    }

    /// Whether that is a place for a chunk. Somebody is going to have memory for its length.
    fn lies(&self, place: &ChunkPlace) -> bool {
        let pack = usize::try_from(place.pack).ok().and_then(|pack| self.packs.get(pack));
        let inside = pack.is_some_and(|size| u64::from(place.offset) + u64::from(place.length) <= *size);
        inside && place.length as usize <= LONGEST_STORED
    }
}

impl<R: Read> Iterator for Entries<R> {
    type Item = Result<Entry, String>;

    fn next(&mut self) -> Option<Result<Entry, String>> {
        if self.ended {
            return None;
        }
        let read = self.read().transpose();
        self.ended = !matches!(read, Some(Ok(_)));
        read
    }
}

/// Whether the path has only names between slashes.
fn stays_inside(path: &[u8]) -> bool {
    path.split(|byte| *byte == b'/').all(|part| !matches!(part, b"" | b"." | b"..")) && !path.contains(&0)
}

fn read_exactly(stream: &mut impl Read, length: usize) -> Result<Vec<u8>, String> {
    let found = read_some(stream, length)?;
    if found.len() == length { Ok(found) } else { Err("its entries end too early".to_owned()) }
}

/// Memory is taken for what is there, not for what is promised.
fn read_some(stream: &mut impl Read, length: usize) -> Result<Vec<u8>, String> {
    let mut found = Vec::new();
    stream.take(length as u64).read_to_end(&mut found).map_err(|error| unreadable(&error))?;
    Ok(found)
}

fn unreadable(error: &io::Error) -> String {
    format!("its entries cannot be decompressed: {error}")
}
