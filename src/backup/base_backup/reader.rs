//! Reading the data directory: one thread goes through it in order and hands out pieces, others read them.

use std::{
    collections::HashMap,
    fs::{File, Metadata},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, Sender, SyncSender},
    },
    time::Instant,
};

use jiff::Timestamp;

use super::{
    budget::{Budget, Held},
    control_file,
    data_files::{CONTROL_FILE, DataFiles, Found},
    error::BackupError,
    file_memory::{FileMemory, FileState},
    parent::{Before, ParentFiles},
    piece::{PIECE, Piece, PieceRead, PieceReader},
    progress::Progress,
    read_limit::ReadLimit,
    relation_file::RelationFile,
};
use crate::backup::chunk;

/// A piece takes at least so much: there are structures around it.
const LEAST: u64 = 4096;

/// A server cannot run without these, so that no drop or truncation explains why they are gone.
const NEVER_GONE: [&[u8]; 2] = [b"PG_VERSION", b"global/pg_filenode.map"];

/// What comes next in the manifest.
pub enum Next {
    /// A directory.
    Directory {
        /// Its path.
        path: Vec<u8>,
        /// Permissions.
        mode: u32,
        /// Last change.
        modified: i64,
    },
    /// A file.
    File {
        /// Its path.
        path: Vec<u8>,
        /// Permissions.
        mode: u32,
        /// Last change.
        modified: i64,
        /// Bytes of a chunk.
        chunk_size: u32,
        /// How many pieces follow.
        pieces: u64,
        /// How the kernel tells that nobody has written to it since, if it does.
        settled: Option<FileState>,
    },
    /// A file that nobody has written to since the backup before has read it.
    Unread {
        /// Its path.
        path: Vec<u8>,
        /// Permissions.
        mode: u32,
        /// Last change.
        modified: i64,
        /// What the backup before has of it.
        before: Before,
        /// How the kernel tells that.
        settled: FileState,
        /// The memory that `before` takes.
        held: Held,
    },
    /// Something that is no file or directory and is left out.
    Strange(Vec<u8>),
    /// That was all.
    End,
}

/// What the thread has that goes through the data directory.
pub struct Walk {
    /// The data directory.
    pub files: Arc<DataFiles>,
    /// Bytes of all files.
    pub total: u64,
    /// Pages of a segment file of a relation.
    pub segment_pages: u32,
    /// Bytes of a page.
    pub page_size: u32,
    /// The backup before, if this one is compared with one.
    pub parent: Option<ParentFiles>,
    /// What that one remembers of the files.
    pub memory: Option<FileMemory>,
    /// When this backup began.
    pub begun: Timestamp,
    /// How fast.
    pub limit: ReadLimit,
    /// How much at once.
    pub budget: Budget,
    /// Pieces that were handed out and not read yet.
    pub open: Arc<Open>,
    /// To be told.
    pub progress: Arc<Progress>,
    /// To the threads that read.
    pub pieces: SyncSender<Piece>,
    /// To the thread that packs.
    pub next: SyncSender<Next>,
    /// Number of the next piece.
    pub number: u64,
}

/// Counts pieces that were not read yet.
#[derive(Default)]
pub struct Open(AtomicU64);

impl Open {
    fn add(&self, pieces: u64) {
        self.0.fetch_add(pieces, Ordering::AcqRel);
    }

    fn done(&self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }

    fn none(&self) -> bool {
        self.0.load(Ordering::Acquire) == 0
    }
}

/// Bytes of all files, about: they change while they are counted.
///
/// # Errors
/// When a directory cannot be read.
pub fn total(files: &DataFiles) -> Result<u64, BackupError> {
    let mut total = 0;
    files.walk(&mut |found| {
        if let Found::File(path, _) = found {
            total += std::fs::symlink_metadata(files.path(path)).map_or(0, |file| file.len());
        }
        Ok(())
    })?;
    Ok(total)
}

impl Walk {
    /// Goes through everything, the control file last.
    ///
    /// # Errors
    /// When something cannot be read. That the work is over is no error here: somebody else has one.
    pub fn run(mut self) -> Result<(), BackupError> {
        let files = self.files.clone();
        files.walk(&mut |found| match found {
            Found::Directory(path) => self.directory(&files, path),
            Found::File(path, relation) => self.file(&files, path, relation),
            Found::Strange(path) => self.say(Next::Strange(path.to_vec())),
        })?;
        self.control_file(&files)?;
        self.say(Next::End)
    }

    fn directory(&mut self, files: &DataFiles, path: &[u8]) -> Result<(), BackupError> {
        let here = files.path(path);
        match std::fs::metadata(&here) {
            Ok(found) => self.say(Next::Directory { path: path.to_vec(), mode: mode(&found), modified: found.mtime() }),
            // Below pg_wal some are named that this server may not have.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.say(Next::Directory { path: path.to_vec(), mode: 0o700, modified: 0 })
            }
            Err(error) => Err(BackupError::file("read", here)(error)),
        }
    }

    fn file(&mut self, files: &DataFiles, path: &[u8], relation: Option<RelationFile>) -> Result<(), BackupError> {
        let here = files.path(path);
        // Never waits for whoever writes to a pipe that was put there meanwhile.
        let opened = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW).open(&here);
        let opened = opened.and_then(|file| file.metadata().map(|found| (file, found)));
        let (file, found) = match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !NEVER_GONE.contains(&path) => return Ok(()),
            opened => opened.map_err(BackupError::file("read", &here))?,
        };
        let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Sequential);
        // What a relation has grown by is in the WAL. Another small file may just be written anew, longer than it was.
        let length = if relation.is_none() && (1..PIECE).contains(&found.len()) { PIECE } else { found.len() };
        let before = match &mut self.parent {
            Some(parent) => parent.file(path)?,
            None => None,
        };
        let before = before.filter(|before| chunk::may_stay(before.chunk_size, self.total, length));
        let state = FileState::of(&found);
        let settled = (relation.is_some() && state.is_settled(&file, self.begun)).then_some(state);
        if let Some(settled) = settled
            && self.memory.as_mut().and_then(|memory| memory.state(path)) == Some(settled)
            && let Some(before) = before.as_ref().filter(|before| before.size == found.len())
        {
            let Some(held) = self.budget.take(before.bytes().max(LEAST)) else { return Err(BackupError::Interrupted) };
            self.progress.has_done(before.size);
            self.progress.has_spared(before.size);
            let (path, before) = (path.to_vec(), before.clone());
            return self.say(Next::Unread { path, mode: mode(&found), modified: found.mtime(), before, settled, held });
        }
        let chunk_size = before.as_ref().map_or_else(|| chunk::size_for(self.total, length), |before| before.chunk_size);
        let pieces = length.div_ceil(PIECE);
        self.open.add(pieces);
        self.say(Next::File { path: path.to_vec(), mode: mode(&found), modified: found.mtime(), chunk_size, pieces, settled })?;
        let (file, here): (_, Arc<Path>) = (Arc::new(file), here.into());
        let per_piece = usize::try_from(PIECE / u64::from(chunk_size)).unwrap_or(1);
        for part in 0..pieces {
            let offset = part * PIECE;
            let length = PIECE.min(length - offset);
            let skip = usize::try_from(part).unwrap_or(usize::MAX).saturating_mul(per_piece);
            let stored = |(digest, stored): &(_, Option<_>)| stored.map(|stored| (*digest, stored));
            let before = before.as_ref().map(|before| before.chunks.iter().skip(skip).take(per_piece).map(stored).collect());
            let first_block = relation.map(|file| {
                let pages = offset / u64::from(self.page_size.max(1));
                file.segment.wrapping_mul(self.segment_pages).wrapping_add(u32::try_from(pages).unwrap_or(0))
            });
            // Only what is smaller than it was when it was opened.
            let expected = length.min(found.len().saturating_sub(offset)).max(1);
            std::thread::sleep(self.limit.wait(expected, Instant::now()));
            let Some(held) = self.budget.take(length.max(LEAST)) else { return Err(BackupError::Interrupted) };
            let number = self.take_number();
            let (padded, before) = (pieces > 1, before.unwrap_or_default());
            let (path, file) = (here.clone(), file.clone());
            let piece = Piece { number, path, file, offset, length, padded, first_block, chunk_size, before, held };
            self.pieces.send(piece).map_err(|_| BackupError::Interrupted)?;
        }
        Ok(())
    }

    /// On a standby it says how far the pages may have come, so it has to be read after all of them.
    fn control_file(&mut self, files: &DataFiles) -> Result<(), BackupError> {
        while !self.open.none() {
            if self.budget.is_closed() {
                return Err(BackupError::Interrupted);
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        let here = files.path(CONTROL_FILE.as_bytes());
        let (content, found) = control_file::read(&here).map_err(BackupError::file("read", &here))?;
        let whole = tempfile::tempfile().and_then(|mut file| io::Write::write_all(&mut file, &content).map(|()| file));
        let file = Arc::new(whole.map_err(BackupError::file("copy", &here))?);
        let (chunk_size, length) = (chunk::size_for(self.total, 0), content.len() as u64);
        let path = CONTROL_FILE.as_bytes().to_vec();
        self.open.add(1);
        self.say(Next::File { path, mode: mode(&found), modified: found.mtime(), chunk_size, pieces: 1, settled: None })?;
        let Some(held) = self.budget.take(length.max(LEAST)) else { return Err(BackupError::Interrupted) };
        let (number, before) = (self.take_number(), Vec::new());
        let piece =
            Piece { number, path: here.into(), file, offset: 0, length, padded: false, first_block: None, chunk_size, before, held };
        self.pieces.send(piece).map_err(|_| BackupError::Interrupted)
    }

    fn take_number(&mut self) -> u64 {
        self.number += 1;
        self.number - 1
    }

    fn say(&self, next: Next) -> Result<(), BackupError> {
        if matches!(next, Next::File { .. } | Next::Unread { .. }) {
            self.progress.has_files(1);
        }
        self.next.send(next).map_err(|_| BackupError::Interrupted)
    }
}

/// Reads pieces until there are no more.
///
/// # Errors
/// When one cannot be read.
pub fn read_pieces(
    mut reader: PieceReader,
    pieces: &Mutex<Receiver<Piece>>,
    open: &Open,
    read: &Sender<PieceRead>,
) -> Result<(), BackupError> {
    loop {
        let next = pieces.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(piece) = next else { return Ok(()) };
        let path = piece.path.clone();
        let done = reader.read(piece).map_err(BackupError::file("read", &*path))?;
        open.done();
        if read.send(done).is_err() {
            return Ok(());
        }
    }
}

/// Pieces that came before their turn.
pub struct InOrder {
    read: Receiver<PieceRead>,
    early: HashMap<u64, PieceRead>,
    next: u64,
}

impl InOrder {
    /// From this channel.
    pub fn new(read: Receiver<PieceRead>) -> InOrder {
        InOrder { read, early: HashMap::new(), next: 0 }
    }

    /// The next one; `None` when whoever reads has ended.
    pub fn take(&mut self) -> Option<PieceRead> {
        loop {
            if let Some(piece) = self.early.remove(&self.next) {
                self.next += 1;
                return Some(piece);
            }
            let piece = self.read.recv().ok()?;
            self.early.insert(piece.number, piece);
        }
    }
}

fn mode(found: &Metadata) -> u32 {
    found.mode() & 0o7777
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
