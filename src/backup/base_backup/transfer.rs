//! The way of the data from files into packs: one thread finds, some read and compress, one packs, and this one stores.

use std::{
    sync::{Arc, Mutex, mpsc},
    thread,
};

use tokio::sync::{mpsc as lanes, oneshot};

use super::{
    Request,
    budget::Budget,
    data_files::DataFiles,
    error::BackupError,
    known_chunks::StoredChunks,
    packer::{Packed, Packer},
    piece::PieceReader,
    prepare::Prepared,
    progress::Progress,
    read_limit::ReadLimit,
    reader::{self, InOrder, Open, Walk},
    upload,
};
use crate::{
    backup::{Archive, BackupId, pack::NewPacks},
    model::Lsn,
    postgres::backup_mode::CopiedServer,
    storage::ObjectStore,
};

/// Pieces that wait for a thread. Each keeps a file open.
const WAITING: usize = 64;

/// Entries that wait for their pieces.
const ENTRIES: usize = 4096;

/// Where the data come from.
pub struct Sources<'a> {
    /// What was asked for.
    pub request: &'a Request,
    /// The server.
    pub server: &'a CopiedServer,
    /// Where recovery begins.
    pub start: Lsn,
}

/// Reads everything and stores what is new of it. When this returns well, every pack is in the store.
///
/// # Errors
/// The first thing that went wrong, wherever. Threads end by themselves then.
pub async fn transfer<S: ObjectStore>(
    archive: &Archive<S>,
    sources: &Sources<'_>,
    id: &BackupId,
    prepared: Prepared,
    progress: &Arc<Progress>,
) -> Result<Packed, BackupError> {
    let budget = Budget::new(sources.request.memory.saturating_sub(prepared.leftovers.bytes()));
    let over = EndOfWork(budget.clone());
    let (failures, mut failed) = lanes::unbounded_channel();
    let (packs, ready) = lanes::unbounded_channel();
    let (done, packed) = oneshot::channel();
    let sealer = upload::patiently(async || archive.store.sealer().await).await?;
    let new_packs = NewPacks { folder: archive.packs(id)?, sealer };
    start(sources, id, new_packs, prepared, progress, &budget, &failures, packs, done)?;
    drop(failures);
    let stored = async {
        let packed = async { packed.await.unwrap_or(Err(BackupError::Broken("the packing thread is gone"))) };
        let ((), packed) = tokio::try_join!(upload::upload(archive, ready), packed)?;
        Ok(packed)
    };
    let result = tokio::select! {
        biased;
        Some(failure) = failed.recv() => Err(failure),
        stored = stored => stored,
    };
    drop(over);
    match result {
        // Somebody else has the reason for which nothing came any more.
        Err(BackupError::Interrupted) => Err(failed.recv().await.unwrap_or(BackupError::Interrupted)),
        result => result,
    }
}

/// Starts all threads.
#[allow(clippy::too_many_arguments, reason = "each is one end of something")]
fn start(
    sources: &Sources<'_>,
    id: &BackupId,
    new_packs: NewPacks,
    prepared: Prepared,
    progress: &Arc<Progress>,
    budget: &Budget,
    failures: &lanes::UnboundedSender<BackupError>,
    packs: lanes::UnboundedSender<super::packer::ReadyPack>,
    done: oneshot::Sender<Result<Packed, BackupError>>,
) -> Result<(), BackupError> {
    let Sources { request, server, start } = sources;
    let Prepared { others, parent, leftovers, memory, begun, remember, .. } = prepared;
    let (pieces, to_read) = mpsc::sync_channel(WAITING);
    let (next, to_pack) = mpsc::sync_channel(ENTRIES);
    let (read, in_order) = mpsc::channel();
    let (leftovers, open, to_read) = (Arc::new(leftovers), Arc::new(Open::default()), Arc::new(Mutex::new(to_read)));
    for _ in 0..request.threads.max(1) {
        let page_size = server.checksums.then_some(server.page_size);
        let reader = PieceReader::new(page_size, *start, Arc::<StoredChunks>::clone(&leftovers), progress.clone());
        let reader = reader.map_err(BackupError::file("get memory to read", &request.data_dir))?;
        let (to_read, open, read) = (to_read.clone(), open.clone(), read.clone());
        spawn("backup read", budget, failures, move || reader::read_pieces(reader, &to_read, &open, &read))?;
    }
    let files = Arc::new(DataFiles::new(&request.data_dir, server.version, server.catalog_version));
    let (walk_budget, walk_progress, limit) = (budget.clone(), progress.clone(), ReadLimit::new(request.rate));
    let (segment_pages, page_size) = (server.segment_pages, server.page_size);
    spawn("backup walk", budget, failures, move || {
        let total = reader::total(&files)?;
        walk_progress.expect(total);
        let (budget, progress) = (walk_budget, walk_progress);
        Walk { files, total, segment_pages, page_size, parent, memory, begun, limit, budget, open, progress, pieces, next, number: 0 }.run()
    })?;
    let packer = Packer::new(id.clone(), new_packs, Arc::new(others), packs, progress.clone(), remember);
    spawn("backup pack", budget, failures, move || {
        // Whoever waits for it may be gone.
        let _ = done.send(packer.run(&to_pack, InOrder::new(in_order)));
        Ok(())
    })
}

/// Starts a thread whose failure is heard, also when it is a mistake of ours.
fn spawn(
    name: &str,
    budget: &Budget,
    failures: &lanes::UnboundedSender<BackupError>,
    work: impl FnOnce() -> Result<(), BackupError> + Send + 'static,
) -> Result<(), BackupError> {
    let (alarm, failures) = (Alarm { budget: budget.clone(), failures: failures.clone() }, failures.clone());
    let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
        let _alarm = alarm;
        match work() {
            Ok(()) | Err(BackupError::Interrupted) => {}
            Err(failure) => drop(failures.send(failure)),
        }
    });
    thread.map(drop).map_err(BackupError::file("start a thread to read", "the data directory"))
}

/// Nobody waits for a thread that has died of a mistake of ours.
struct Alarm {
    budget: Budget,
    failures: lanes::UnboundedSender<BackupError>,
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if thread::panicking() {
            let _ = self.failures.send(BackupError::Broken("a thread has panicked"));
            self.budget.close();
        }
    }
}

/// However the work ends, all threads do too.
struct EndOfWork(Budget);

impl Drop for EndOfWork {
    fn drop(&mut self) {
        self.0.close();
    }
}
