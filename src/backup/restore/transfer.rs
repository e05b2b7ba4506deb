//! Files of a backup onto this machine: what is not there is read in parts of packs, several at a time, and each chunk is checked before it is
//! written.

use std::{
    os::unix::fs::FileExt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::{sync::Semaphore, task::spawn_blocking, time::sleep};

use super::{
    error::RestoreError,
    place_file,
    progress::Progress,
    ranges::{self, LONGEST, Part},
    window::{Need, OpenFiles, Window},
};
use crate::{
    backup::{Archive, ArchiveError, chunk::ChunkReader, encryption::SealedStore, manifest::Header},
    model::ObjectName,
    storage::ObjectStore,
};

/// More lanes than this gain nothing: the store's and the network's limits come before.
const MOST_LANES: usize = 24;

/// What a lane may hold: what it has read, and about as much that the store's driver holds.
const LANE: u64 = 2 * LONGEST;

/// For so long a store that is not available is asked again.
const PATIENCE: Duration = Duration::from_secs(300);

/// How long between two questions, at first and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(8));

/// So often a part is read again whose chunks are not what was stored, before the store is believed to have nothing else.
pub const READ_AGAIN: u32 = 2;

/// What a restore may use.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Threads that decompress, check and write.
    pub threads: usize,
    /// Bytes of data in memory at the same time.
    pub memory: u64,
}

/// Everything that the work on one window needs.
struct Work<'a, S> {
    archive: &'a Archive<S>,
    header: &'a Header,
    window: Arc<Window>,
    limits: Limits,
    progress: &'a Arc<Progress>,
}

/// Restores all files of the window. When this returns well, each of them has been seen to be what was backed up.
///
/// # Errors
/// When the store does not give what is needed, when that is damaged, and when a file cannot be written.
pub async fn transfer<S: ObjectStore>(
    archive: &Archive<S>,
    header: &Header,
    window: Window,
    limits: Limits,
    progress: &Arc<Progress>,
) -> Result<(), RestoreError> {
    let work = Work { archive, header, window: Arc::new(window), limits, progress };
    let mut needs = work.prepare().await?;
    let parts = ranges::parts(&mut needs);
    work.fetch(Arc::new(needs), parts).await?;
    for file in &work.window.files {
        if !file.is_whole() {
            let why = format!("its chunks do not make the file '{}' that was backed up", file.shown());
            return Err(RestoreError::damaged(&archive.manifest(&header.id)?, why));
        }
    }
    progress.has_files(work.window.files.len() as u64);
    Ok(())
}

impl<S: ObjectStore> Work<'_, S> {
    /// Makes every file, and finds out what has to be fetched.
    async fn prepare(&self) -> Result<Vec<Need>, RestoreError> {
        let next = Arc::new(AtomicUsize::new(0));
        let threads = (0..self.limits.threads.max(1)).map(|_| {
            let (window, next, progress) = (self.window.clone(), next.clone(), self.progress.clone());
            spawn_blocking(move || prepare_files(&window, &next, &progress))
        });
        let mut needs = Vec::new();
        for found in futures_util::future::join_all(threads).await {
            needs.extend(found.map_err(|error| RestoreError::thread(&error))??);
        }
        Ok(needs)
    }

    async fn fetch(&self, needs: Arc<Vec<Need>>, parts: Vec<Part>) -> Result<(), RestoreError> {
        let lanes = usize::try_from(self.limits.memory / LANE).unwrap_or(MOST_LANES).clamp(1, MOST_LANES);
        let threads = Semaphore::new(self.limits.threads.max(1));
        let lane = |part: Part| self.fetch_part(needs.clone(), part, &threads);
        stream::iter(parts).map(lane).buffer_unordered(lanes).try_collect::<()>().await
    }

    async fn fetch_part(&self, needs: Arc<Vec<Need>>, part: Part, threads: &Semaphore) -> Result<(), RestoreError> {
        let Some(pack) = self.header.packs.get(part.pack as usize) else {
            return Err(RestoreError::damaged(&self.archive.manifest(&self.header.id)?, "it names a pack that it does not have"));
        };
        let object = self.archive.pack(&pack.backup, pack.number)?;
        let mut attempts = 0;
        loop {
            let content = match read_patiently(self.archive.store(), &object, part.offset, part.length).await {
                // The network may have changed it on its way, and what is encrypted is checked before it is handed out.
                Err(RestoreError::Archive(ArchiveError::Damaged { .. })) if attempts < READ_AGAIN => {
                    attempts += 1;
                    continue;
                }
                read => read?,
            };
            self.progress.has_moved(content.len() as u64);
            let _thread = threads.acquire().await.expect("nobody closes it");
            let (window, needs, part) = (self.window.clone(), needs.clone(), part.clone());
            let wrote = spawn_blocking(move || write_chunks(&window, &needs[part.needs.clone()], part.offset, &content));
            match wrote.await.map_err(|error| RestoreError::thread(&error))? {
                Ok(bytes) => {
                    self.progress.has_done(bytes);
                    return Ok(());
                }
                Err(Unfit::File(error)) => return Err(error),
                // The network may have changed it on its way.
                Err(Unfit::Chunk(_)) if attempts < READ_AGAIN => attempts += 1,
                Err(Unfit::Chunk(why)) => return Err(RestoreError::damaged(&object, why)),
            }
        }
    }
}

/// Takes one file after the other until there are no more.
fn prepare_files(window: &Window, next: &AtomicUsize, progress: &Progress) -> Result<Vec<Need>, RestoreError> {
    let mut needs = Vec::new();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let Some(file) = window.files.get(number) else { return Ok(needs) };
        let number = u32::try_from(number).expect("a window has far fewer files");
        let (found, right) = place_file::prepare(number, file).map_err(RestoreError::file("restore", &file.path))?;
        let missing: u64 = found.iter().map(|need| file.length(need.chunk as usize) as u64).sum();
        progress.has_done(file.size - missing);
        progress.has_spared(right);
        needs.extend(found);
    }
}

/// Why the chunks of a part were not written.
enum Unfit {
    /// A file of this machine.
    File(RestoreError),
    /// What was read.
    Chunk(String),
}

/// Writes them all, or as many as are right; returns how many bytes they have.
fn write_chunks(window: &Window, needs: &[Need], offset: u64, content: &Bytes) -> Result<u64, Unfit> {
    let mut bytes = 0;
    let Some(first) = needs.first() else { return Ok(bytes) };
    let no_memory = RestoreError::file("get memory to decompress", &window.files[first.file as usize].path);
    let mut reader = ChunkReader::new().map_err(no_memory).map_err(Unfit::File)?;
    let mut files = OpenFiles::default();
    for need in needs {
        let (file, at) = (&window.files[need.file as usize], need.chunk as usize);
        let begin = usize::try_from(u64::from(need.offset) - offset).unwrap_or(usize::MAX);
        let stored = content.get(begin..).and_then(|rest| rest.get(..need.length as usize));
        let told = |why: &str| format!("the chunk at {} cannot be restored to '{}': {why}", need.offset, file.shown());
        let stored = stored.ok_or_else(|| Unfit::Chunk(told("it ends too early")))?;
        let raw = reader.read(stored, file.length(at), file.digest(at)).map_err(|why| Unfit::Chunk(told(&why)))?;
        let written = files.get(need.file, || place_file::open(&file.path)).and_then(|open| open.write_all_at(raw, file.begin(at)));
        written.map_err(RestoreError::file("write", &file.path)).map_err(Unfit::File)?;
        file.has(at, raw);
        bytes += raw.len() as u64;
    }
    Ok(bytes)
}

/// Reads that part of the object, however long the store takes to be available, within reason.
///
/// # Errors
/// When it is not, and when the object has no such part.
pub async fn read_patiently<S: ObjectStore>(
    store: &SealedStore<S>,
    object: &ObjectName,
    offset: u64,
    length: u64,
) -> Result<Bytes, RestoreError> {
    let (begun, mut pause) = (Instant::now(), PAUSES.0);
    loop {
        let damaged = |why: String| RestoreError::damaged(object, why);
        match store.read_range(object, offset, length).await {
            Ok(Some(content)) if content.len() as u64 == length => return Ok(content),
            Ok(Some(content)) => return Err(damaged(format!("it ends at byte {}", offset + content.len() as u64))),
            Ok(None) => return Err(damaged("it is not there".to_owned())),
            Err(error) if error.is_unavailable() && begun.elapsed() < PATIENCE => sleep(pause).await,
            Err(error) => return Err(error.into()),
        }
        pause = (pause * 2).min(PAUSES.1);
    }
}
