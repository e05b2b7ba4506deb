//! Reading every chunk of a backup, in the order of its packs and within bounded memory, and then going through its files to see what is lost.
//!
//! Chunks of an incremental backup are spread over packs of many backups, and the list of all chunks of a large database does not fit into
//! memory. So packs are taken in groups, and the manifest is gone through once for each group. Of a chunk that was read no more is kept than
//! the CRC of its content, of which the file's is put together in the end.

use std::{cell::Cell, collections::BTreeMap, fs::File, io, ops::Range};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};

use super::{
    archive::{Archive, ArchiveError},
    chunk::{self, ChunkReader, Digest},
    manifest::{Entry, EntryKind, Header},
    manifest_file::Entries,
    problem::{Findings, Part, Problem},
    spooled_manifest::SpooledManifest,
    verdict::Depth,
    verify::{Look, PackStates},
};
use crate::{
    model::ObjectName,
    storage::{ObjectStore, StoreError},
};

/// Whether a pack is whole, and if not, why.
pub type Whole = Result<(), String>;

/// So many chunks are looked for at once: 20 MB of memory.
const GROUP: u64 = 500_000;

/// Reads the packs of one backup.
pub struct PackReader<'a, S> {
    archive: &'a Archive<S>,
    states: &'a PackStates,
    look: &'a Look<'a>,
    done: Cell<u64>,
    total: u64,
}

/// A chunk that is to be found in a pack.
#[derive(Clone, Copy)]
struct Wanted {
    pack: u32,
    offset: u32,
    length: u32,
    raw_length: u32,
    digest: Digest,
    /// Its number among all stored chunks of the backup.
    ordinal: usize,
}

/// What is known of a chunk.
#[derive(Clone, Copy, PartialEq)]
enum Seen {
    Not,
    Sound(u32),
    Lost,
}

/// What is known of all of them, and why some are lost.
struct Chunks {
    seen: Vec<Seen>,
    /// For each pack the first thing that is wrong with it.
    why: BTreeMap<u32, String>,
}

impl<'a, S: ObjectStore> PackReader<'a, S> {
    /// A reader that has `total` bytes before it.
    pub fn new(archive: &'a Archive<S>, states: &'a PackStates, look: &'a Look<'a>, total: u64) -> PackReader<'a, S> {
        PackReader { archive, states, look, done: Cell::new(0), total }
    }

    /// So many bytes more were read.
    pub fn advance(&self, bytes: u64) {
        self.done.set(self.done.get() + bytes);
        (self.look.progress)(self.done.get(), self.total);
    }

    /// Reads all packs, unless only their presence is asked for, and says what of the database is damaged or missing.
    pub async fn read(&self, manifest: &mut SpooledManifest) -> Result<Findings, ArchiveError> {
        let header = manifest.header().clone();
        let object = self.archive.manifest(&header.id)?;
        let damaged = |why: String| Ok(Findings::from(Problem::new(&object, why)));
        let counts = match count(manifest.entries()?, header.packs.len()) {
            Ok(counts) => counts,
            Err(why) => return damaged(why),
        };
        let total = usize::try_from(counts.iter().sum::<u64>()).unwrap_or(usize::MAX);
        let mut chunks = Chunks { seen: vec![Seen::Not; total], why: BTreeMap::new() };
        for group in groups(&counts) {
            match collect(manifest.entries()?, &group) {
                Ok(wanted) => self.read_group(&header, wanted, &mut chunks).await?,
                Err(why) => return damaged(why),
            }
        }
        let names = header.packs.iter().map(|pack| self.archive.pack(&pack.backup, pack.number));
        let names = names.collect::<Result<Vec<_>, _>>()?;
        let mut judge = FileJudge {
            header: &header,
            names: &names,
            object: &object,
            chunks: &chunks,
            depth: self.look.depth,
            ordinal: 0,
            zeros: Zeros::default(),
        };
        let mut findings = Findings::default();
        // A pack of which nothing is needed is missing all the same.
        for (pack, _) in (0..).zip(&counts).filter(|(_, count)| **count == 0) {
            if let Err(why) = self.states.state(pack) {
                findings.add(Problem::new(&names[pack as usize], why));
            }
        }
        match judge.all(manifest.entries()?, &mut findings) {
            Ok(()) => Ok(findings),
            Err(why) => damaged(why),
        }
    }

    /// Looks for the chunks of a group, each pack once.
    async fn read_group(&self, header: &Header, mut wanted: Vec<Wanted>, chunks: &mut Chunks) -> Result<(), ArchiveError> {
        wanted.sort_unstable_by_key(|chunk| (chunk.pack, chunk.offset));
        let packs: Vec<&[Wanted]> = wanted.chunk_by(|a, b| a.pack == b.pack).collect();
        let mut reads = stream::iter(packs).map(|wanted| self.read_pack(header, wanted)).buffer_unordered(self.look.lanes.max(1));
        while let Some(read) = reads.next().await {
            for (wanted, found) in read? {
                chunks.seen[wanted.ordinal] = match found {
                    Ok(crc) => Seen::Sound(crc),
                    Err(why) => {
                        chunks.why.entry(wanted.pack).or_insert(why);
                        Seen::Lost
                    }
                };
            }
        }
        Ok(())
    }

    /// Reads what is wanted of one pack, a second time if something of it is wrong: the way from the store may be what is damaged.
    async fn read_pack(&self, header: &Header, wanted: &[Wanted]) -> Result<Vec<(Wanted, Result<u32, String>)>, ArchiveError> {
        let Some(first) = wanted.first() else { return Ok(Vec::new()) };
        let missing = |why: &str| Ok(wanted.iter().map(|chunk| (*chunk, Err(why.to_owned()))).collect());
        if let Err(why) = self.states.state(first.pack) {
            return missing(&why);
        }
        let pack = &header.packs[first.pack as usize];
        if self.look.depth == Depth::Presence {
            return Ok(wanted.iter().map(|chunk| (*chunk, Ok(0))).collect());
        }
        let object = self.archive.pack(&pack.backup, pack.number)?;
        let begin = u64::from(first.offset);
        let end = wanted.iter().map(|chunk| u64::from(chunk.offset) + u64::from(chunk.length)).max().unwrap_or(begin);
        let mut found = Vec::new();
        for _ in 0..2 {
            let content = match self.archive.store().read_range(&object, begin, end - begin).await {
                Ok(Some(content)) => content,
                Ok(None) => return missing("it was listed and is gone"),
                Err(ArchiveError::Damaged { .. }) => {
                    found = self.read_one_by_one(&object, wanted).await?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let list = wanted.to_vec();
            let checked = tokio::task::spawn_blocking(move || check(&content, begin, list)).await;
            found = checked.map_err(|error| unlooked(&object, &error))?.map_err(|error| unlooked(&object, &error))?;
            if found.iter().all(|(_, found)| found.is_ok()) {
                break;
            }
        }
        self.advance(pack.size);
        Ok(found)
    }

    /// Reads each chunk by itself: of an encrypted pack nothing is handed out with what is damaged, and the rest of it is none the worse.
    async fn read_one_by_one(&self, object: &ObjectName, wanted: &[Wanted]) -> Result<Vec<(Wanted, Result<u32, String>)>, ArchiveError> {
        let mut found = Vec::new();
        for chunk in wanted {
            match self.archive.store().read_range(object, chunk.offset.into(), chunk.length.into()).await {
                Ok(Some(content)) => {
                    let checked = check(&content, chunk.offset.into(), vec![*chunk]);
                    found.extend(checked.map_err(|error| unlooked(object, &error))?);
                }
                Ok(None) => found.push((*chunk, Err("it was listed and is gone".to_owned()))),
                Err(ArchiveError::Damaged { why, .. }) => found.push((*chunk, Err(why))),
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }
}

/// This machine could not look at it. That is no finding.
pub fn unlooked(object: &impl ToString, error: &impl ToString) -> ArchiveError {
    StoreError::Unavailable { object: object.to_string(), why: format!("it could not be looked at: {}", error.to_string()) }.into()
}

/// The CRC of each chunk's content, or why it is lost. `content` begins at this offset of the pack.
fn check(content: &Bytes, begin: u64, wanted: Vec<Wanted>) -> io::Result<Vec<(Wanted, Result<u32, String>)>> {
    let mut reader = ChunkReader::new()?;
    let mut one = |chunk: &Wanted| {
        let at = usize::try_from(u64::from(chunk.offset) - begin).unwrap_or(usize::MAX);
        let stored = at.checked_add(chunk.length as usize).and_then(|end| content.get(at..end));
        let stored = stored.ok_or_else(|| "it ends too early".to_owned())?;
        reader.read(stored, chunk.raw_length as usize, &chunk.digest).map(crc32c::crc32c)
    };
    Ok(wanted.into_iter().map(|chunk| (chunk, one(&chunk))).collect())
}

/// How many chunks the backup has in each pack.
fn count(entries: Entries<File>, packs: usize) -> Result<Vec<u64>, String> {
    let mut counts = vec![0; packs];
    let mut last = None;
    for entry in entries {
        let entry = entry?;
        // Entries were checked against the header: a place is in a pack.
        stored(&entry).for_each(|(_, place)| counts[place.pack as usize] += 1);
        last = Some(entry.path);
    }
    match last {
        Some(path) if path == b"global/pg_control" => Ok(counts),
        _ => Err("it has no 'global/pg_control', without which no server starts".to_owned()),
    }
}

/// The chunks of a file that are stored, each with its number in the file.
fn stored(entry: &Entry) -> impl Iterator<Item = (usize, super::manifest::ChunkPlace)> {
    let chunks = match &entry.kind {
        EntryKind::File { chunks, .. } => chunks.as_slice(),
        EntryKind::Directory => &[],
    };
    chunks.iter().enumerate().filter_map(|(number, chunk)| Some((number, chunk.place?)))
}

/// Packs that follow one another, with no more chunks together than are looked for at once.
fn groups(counts: &[u64]) -> Vec<Range<u32>> {
    let mut groups = Vec::new();
    let (mut begin, mut sum) = (0, 0);
    for (pack, count) in (0..).zip(counts) {
        if sum + count > GROUP && sum > 0 {
            groups.push(begin..pack);
            (begin, sum) = (pack, 0);
        }
        sum += count;
    }
    let end = u32::try_from(counts.len()).unwrap_or(u32::MAX);
    if begin < end {
        groups.push(begin..end);
    }
    groups
}

/// The chunks that lie in these packs.
fn collect(entries: Entries<File>, packs: &Range<u32>) -> Result<Vec<Wanted>, String> {
    let (mut wanted, mut ordinal) = (Vec::new(), 0);
    for entry in entries {
        let entry = entry?;
        let EntryKind::File { chunks, .. } = &entry.kind else { continue };
        for (number, place) in stored(&entry) {
            if packs.contains(&place.pack) {
                let raw_length = u32::try_from(entry.chunk_length(number)).unwrap_or(u32::MAX);
                let digest = chunks[number].digest;
                wanted.push(Wanted { pack: place.pack, offset: place.offset, length: place.length, raw_length, digest, ordinal });
            }
            ordinal += 1;
        }
    }
    Ok(wanted)
}

/// Goes through the files: what is lost of each, and whether what is sound adds up to what was read when it was backed up.
struct FileJudge<'a> {
    header: &'a Header,
    names: &'a [ObjectName],
    /// The manifest.
    object: &'a ObjectName,
    chunks: &'a Chunks,
    depth: Depth,
    ordinal: usize,
    zeros: Zeros,
}

impl FileJudge<'_> {
    fn all(&mut self, entries: Entries<File>, findings: &mut Findings) -> Result<(), String> {
        for entry in entries {
            self.one(&entry?, findings);
        }
        Ok(())
    }

    fn one(&mut self, entry: &Entry, findings: &mut Findings) {
        let EntryKind::File { size, crc32c, chunks, .. } = &entry.kind else { return };
        let (mut sum, mut sound) = (0, true);
        let mut lost: Vec<(u32, Range<u64>)> = Vec::new();
        for (number, chunk) in chunks.iter().enumerate() {
            let length = entry.chunk_length(number);
            let crc = match chunk.place {
                None => self.zeros.crc(length, &chunk.digest),
                Some(place) => {
                    let seen = self.chunks.seen[self.ordinal];
                    self.ordinal += 1;
                    match seen {
                        Seen::Sound(crc) => Some(crc),
                        Seen::Not | Seen::Lost => {
                            add_range(&mut lost, place.pack, range(entry, number));
                            None
                        }
                    }
                }
            };
            match crc {
                Some(crc) => sum = crc32c::crc32c_combine(sum, crc, length),
                None => sound = false,
            }
        }
        for (pack, range) in &lost {
            let why = self.chunks.why.get(pack).map_or("it is damaged", String::as_str);
            findings.add(self.problem(&self.names[*pack as usize], why, entry, range.clone()));
        }
        if self.depth > Depth::Presence && lost.is_empty() && !(sound && sum == *crc32c) {
            let why = "the chunks that it names for a file are whole, and are not what was read when it was backed up";
            findings.add(self.problem(self.object, why, entry, 0..*size));
        }
    }

    fn problem(&self, object: &ObjectName, why: &str, entry: &Entry, range: Range<u64>) -> Problem {
        let part = Part::new(self.header, &entry.path, range.start, range.end);
        Problem { part: Some(part), ..Problem::new(object, why) }
    }
}

/// The bytes of the file in this chunk.
fn range(entry: &Entry, number: usize) -> Range<u64> {
    let EntryKind::File { chunk_size, .. } = &entry.kind else { return 0..0 };
    let begin = number as u64 * u64::from(*chunk_size);
    begin..begin + entry.chunk_length(number) as u64
}

/// Adds it to what is lost before it, where it goes on from there in the same pack.
fn add_range(lost: &mut Vec<(u32, Range<u64>)>, pack: u32, range: Range<u64>) {
    match lost.last_mut() {
        Some((before, known)) if *before == pack && known.end == range.start => known.end = range.end,
        _ => lost.push((pack, range)),
    }
}

/// Chunks that are nowhere because there is nothing but zeros in them.
#[derive(Default)]
struct Zeros(BTreeMap<usize, (Digest, u32)>);

impl Zeros {
    /// The CRC of so many zeros, if this is their digest.
    fn crc(&mut self, length: usize, digest: &Digest) -> Option<u32> {
        let (expected, crc) = self.0.entry(length).or_insert_with(|| {
            let zeros = vec![0; length];
            (chunk::digest(&zeros), crc32c::crc32c(&zeros))
        });
        (expected == digest).then_some(*crc)
    }
}
