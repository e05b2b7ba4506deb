//! Putting chunks into packs and files into the manifest, in the order in which they were found: so what lies together in the database lies
//! together in the store.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, BufWriter},
    sync::{Arc, mpsc::Receiver},
};

use tokio::sync::mpsc::UnboundedSender;

use super::{
    budget::Held,
    error::BackupError,
    file_memory::{FileState, MemoryWriter},
    known_chunks::{OtherPacks, Stored},
    parent::Before,
    piece::{BadBlock, ChunkRead, Fate, PieceRead},
    progress::Progress,
    reader::{InOrder, Next},
};
use crate::{
    backup::{
        BackupId,
        encryption::Sealed,
        manifest::{BAD_PAGES_NAMED, BadPage, Chunk, ChunkPlace, Entry, EntryKind, Pack},
        manifest_file::EntryWriter,
        pack::{NewPacks, PackBuilder},
    },
    model::Lsn,
};

/// A pack that is complete and wants to be stored.
pub struct ReadyPack {
    /// Its object.
    pub object: Sealed,
    /// The memory that it takes.
    pub held: Option<Held>,
}

/// What came of it all.
pub struct Packed {
    /// The stream of entries, from its beginning.
    pub entries: File,
    /// How many there are.
    pub count: u64,
    /// Bytes of all files.
    pub size: u64,
    /// Bytes of this backup's own packs.
    pub stored: u64,
    /// Every pack that has a chunk of this backup.
    pub packs: Vec<Pack>,
    /// Damaged pages.
    pub bad_pages: BadPages,
    /// What was left out although nobody asked for that.
    pub strange: Vec<Vec<u8>>,
    /// Bytes of files that were not read, because nobody has written to them since the backup before.
    pub unread: u64,
    /// What the next backup may need of this one, or why there is nothing.
    pub memory: io::Result<MemoryWriter>,
}

/// Damaged pages, and those that may be.
#[derive(Default)]
pub struct BadPages {
    count: u64,
    first: Vec<BadPage>,
    /// Wrong, and written after the backup had begun, as they say.
    doubtful: Vec<(BadPage, Lsn)>,
}

impl BadPages {
    fn add(&mut self, path: &[u8], block: BadBlock) {
        let page = BadPage { file: String::from_utf8_lossy(path).into_owned(), page: block.page };
        match block.written {
            Some(written) if self.doubtful.len() < BAD_PAGES_NAMED => self.doubtful.push((page, written)),
            // So many pages are not torn at once: something is wrong with them.
            _ => self.count(page),
        }
    }

    fn count(&mut self, page: BadPage) {
        self.count += 1;
        if self.first.len() < BAD_PAGES_NAMED {
            self.first.push(page);
        }
    }

    /// How many there are, and the first of them. A page that says it was written after the backup had ended was not: its position is part
    /// of the damage.
    pub fn settle(mut self, end: Lsn) -> (u64, Vec<BadPage>) {
        for (page, _) in std::mem::take(&mut self.doubtful).into_iter().filter(|(_, written)| *written > end) {
            self.count(page);
        }
        (self.count, self.first)
    }
}

/// The thread that packs.
pub struct Packer {
    id: BackupId,
    other_packs: Arc<OtherPacks>,
    /// Where each of the other packs stands in the manifest, once one of its chunks does.
    others_used: Vec<Option<u32>>,
    packs: Vec<Pack>,
    new_packs: NewPacks,
    builder: Option<PackBuilder>,
    held: Option<Held>,
    /// The own pack that is being built: its number, and where it stands in the manifest.
    open: (u32, Option<u32>),
    ready: UnboundedSender<ReadyPack>,
    progress: Arc<Progress>,
    bad_pages: BadPages,
    strange: VecDeque<Vec<u8>>,
    size: u64,
    stored: u64,
    unread: u64,
    memory: io::Result<MemoryWriter>,
}

impl Packer {
    /// For the backup of this name. Packs go to `ready`, and what is to be remembered of files to `memory`.
    pub fn new(
        id: BackupId,
        new_packs: NewPacks,
        other_packs: Arc<OtherPacks>,
        ready: UnboundedSender<ReadyPack>,
        progress: Arc<Progress>,
        memory: io::Result<MemoryWriter>,
    ) -> Packer {
        Packer {
            id,
            others_used: vec![None; other_packs.len()],
            other_packs,
            packs: Vec::new(),
            new_packs,
            builder: None,
            held: None,
            open: (0, None),
            ready,
            progress,
            bad_pages: BadPages::default(),
            strange: VecDeque::new(),
            size: 0,
            stored: 0,
            unread: 0,
            memory,
        }
    }

    /// Packs everything.
    ///
    /// # Errors
    /// When the manifest's entries cannot be kept.
    pub fn run(mut self, next: &Receiver<Next>, mut pieces: InOrder) -> Result<Packed, BackupError> {
        let file = tempfile::tempfile().and_then(|file| EntryWriter::new(BufWriter::with_capacity(1 << 18, file)));
        let mut writer = file.map_err(kept)?;
        loop {
            let entry = match next.recv() {
                Ok(Next::Directory { path, mode, modified }) => Entry { path, mode, modified, kind: EntryKind::Directory },
                Ok(Next::File { path, mode, modified, chunk_size, pieces: count, settled }) => {
                    let file = self.file(&path, chunk_size, count, &mut pieces)?;
                    let Some((kind, is_whole)) = file else { return Err(BackupError::Interrupted) };
                    // A damaged page is to be told of each time.
                    settled.filter(|_| is_whole).into_iter().for_each(|state| self.remember(&path, &state));
                    Entry { path, mode, modified, kind }
                }
                Ok(Next::Unread { path, mode, modified, before, settled, held }) => {
                    self.remember(&path, &settled);
                    let kind = self.unread(before);
                    drop(held);
                    Entry { path, mode, modified, kind }
                }
                Ok(Next::Strange(path)) => {
                    self.strange.push_back(path);
                    self.strange.truncate(BAD_PAGES_NAMED);
                    continue;
                }
                Ok(Next::End) => break,
                Err(_) => return Err(BackupError::Interrupted),
            };
            writer.add(&entry).map_err(kept)?;
        }
        self.close();
        let count = writer.count();
        let entries = writer.finish().and_then(|file| file.into_inner().map_err(std::io::Error::from)).map_err(kept)?;
        let Packer { size, stored, packs, bad_pages, strange, unread, memory, .. } = self;
        Ok(Packed { entries, count, size, stored, packs, bad_pages, strange: strange.into(), unread, memory })
    }

    /// The next backup need not read the file, if it is like this then. Without room for that it reads everything.
    fn remember(&mut self, path: &[u8], state: &FileState) {
        if let Ok(memory) = &mut self.memory
            && let Err(error) = memory.add(path, state)
        {
            self.memory = Err(error);
        }
    }

    /// A file as the backup before has it.
    fn unread(&mut self, before: Before) -> EntryKind {
        let Before { chunk_size, size, crc32c, chunks } = before;
        self.size += size;
        self.unread += size;
        let place = |(digest, stored): (_, Option<Stored>)| Chunk { digest, place: stored.map(|stored| self.known(stored)) };
        let chunks = chunks.into_iter().map(place).collect();
        EntryKind::File { size, crc32c, chunk_size, chunks }
    }

    /// The file whose pieces come next, and whether all of its pages are right; `None` when they do not come.
    fn file(&mut self, path: &[u8], chunk_size: u32, count: u64, pieces: &mut InOrder) -> Result<Option<(EntryKind, bool)>, BackupError> {
        let (mut size, mut crc32c, mut chunks, mut is_whole) = (0, 0, Vec::new(), true);
        for _ in 0..count {
            let Some(piece) = pieces.take() else { return Ok(None) };
            let Ok(length) = usize::try_from(piece.length) else { return Ok(None) };
            // Most files are one piece, and to combine takes as long as to sum up 300 KB.
            crc32c = match size {
                0 => piece.crc32c,
                _ => crc32c::crc32c_combine(crc32c, piece.crc32c, length),
            };
            size += piece.length;
            is_whole &= piece.bad_pages.is_empty();
            piece.bad_pages.iter().for_each(|bad| self.bad_pages.add(path, *bad));
            self.add(piece, &mut chunks)?;
        }
        self.size += size;
        Ok(Some((EntryKind::File { size, crc32c, chunk_size, chunks }, is_whole)))
    }

    fn add(&mut self, piece: PieceRead, chunks: &mut Vec<Chunk>) -> Result<(), BackupError> {
        let PieceRead { chunks: read, packed, mut held, .. } = piece;
        let mut rest = &packed[..];
        for chunk in read {
            let place = match chunk.fate {
                Fate::Zero => None,
                Fate::Known(stored) => Some(self.known(stored)),
                Fate::New(length) => {
                    let (content, after) = rest.split_at((length as usize).min(rest.len()));
                    rest = after;
                    Some(self.store(&chunk, content)?)
                }
            };
            chunks.push(Chunk { digest: chunk.digest, place });
        }
        held.shrink(packed.len() as u64);
        match &mut self.held {
            Some(all) => all.absorb(held),
            none => *none = Some(held),
        }
        if self.builder.as_ref().is_some_and(PackBuilder::is_full) {
            self.close();
        }
        Ok(())
    }

    fn known(&mut self, stored: Stored) -> ChunkPlace {
        let (packs, others) = (&mut self.packs, &self.other_packs);
        let used = self.others_used.get_mut(stored.pack as usize).expect("it came from the same list");
        let pack = *used.get_or_insert_with(|| {
            packs.push(others.get(stored.pack).expect("it came from the same list").clone());
            last_of(packs)
        });
        ChunkPlace { pack, offset: stored.offset, length: stored.length }
    }

    fn store(&mut self, chunk: &ChunkRead, content: &[u8]) -> Result<ChunkPlace, BackupError> {
        let (packs, id, number) = (&mut self.packs, &self.id, self.open.0);
        let pack = *self.open.1.get_or_insert_with(|| {
            packs.push(Pack { backup: id.clone(), number, size: 0 });
            last_of(packs)
        });
        let builder = match &mut self.builder {
            Some(builder) => builder,
            none => none.insert(self.new_packs.begin(number).map_err(BackupError::file("encrypt a pack of", "the data directory"))?),
        };
        let place = builder.add(&chunk.digest, content, chunk.length);
        Ok(ChunkPlace { pack, offset: place.offset, length: place.length })
    }

    /// Closes the pack that is open, if there is anything in it.
    fn close(&mut self) {
        let Some((place, builder)) = self.open.1.take().zip(self.builder.take()) else { return };
        let object = builder.finish();
        let size = object.size();
        if let Some(pack) = self.packs.get_mut(place as usize) {
            pack.size = size;
        }
        self.stored += size;
        self.progress.has_moved(size);
        self.open.0 += 1;
        // Where nobody takes it any more the end has another reason, which somebody else tells.
        let _ = self.ready.send(ReadyPack { object, held: self.held.take() });
    }
}

fn last_of(packs: &[Pack]) -> u32 {
    u32::try_from(packs.len() - 1).expect("four thousand million packs are more than all stores hold")
}

fn kept(source: std::io::Error) -> BackupError {
    BackupError::file("keep the manifest's entries in", std::env::temp_dir())(source)
}

#[cfg(test)]
#[path = "packer_tests.rs"]
mod tests;
