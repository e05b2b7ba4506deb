//! Restoring a base backup: into an empty directory, or over what is right of an old one.
//!
//! Everything that can be known is asked before anything is written: whether there is a way to the target, whether WAL is whole along it,
//! whether the directory may be written to and the files fit. Then the directory gets a mark and loses its control file, and until the very
//! end PostgreSQL cannot be started in it; the same request again goes on where it was interrupted, because what is right stays.

mod choose;
mod control;
mod directory;
mod error;
mod finish;
mod layout;
mod place_file;
mod progress;
mod ranges;
mod room;
mod settings;
mod sweep;
#[cfg(test)]
mod tests;
mod transfer;
mod window;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

pub use choose::{NoWay, Way, Wish, choose};
pub use error::RestoreError;
pub use finish::Start;
pub use layout::Space;
pub use progress::{Phase, Progress, Seen};
pub use settings::{Recovery, TargetAction};
pub use transfer::Limits;

use self::{
    directory::{CONTROL_FILE, Found},
    layout::Layout,
    sweep::Belonging,
    window::{Target, Window},
};
use super::{
    Archive, ArchiveError,
    archived_wal::ArchivedWal,
    catalog::Catalog,
    manifest::{Entry, EntryKind, Header},
    marks::is_condemned,
    spooled_manifest::SpooledManifest,
};
use crate::{
    model::{Lsn, Timeline},
    postgres::clone::AGENTS_OWN,
    storage::ObjectStore,
};

/// What is to be restored, and how.
#[derive(Debug, Clone)]
pub struct Request {
    /// Where to.
    pub directory: PathBuf,
    /// What is right of the data in the directory is kept.
    pub delta: bool,
    /// Tablespaces that go elsewhere than they were.
    pub moved: Vec<Space>,
    /// What may be used.
    pub limits: Limits,
}

/// What was restored.
#[derive(Debug, Clone)]
pub struct Report {
    /// The backup.
    pub backup: Header,
    /// The timeline on which recovery ends.
    pub timeline: Timeline,
    /// How far WAL is whole along it.
    pub wal_end: Lsn,
    /// What was counted.
    pub seen: Seen,
    /// Files and directories that did not belong there.
    pub removed: u64,
    /// How long it took.
    pub took: Duration,
}

/// Finds the way to the target. Writes nothing.
///
/// # Errors
/// When there is none, or the store does not say.
pub async fn find_way<S: ObjectStore>(archive: &Archive<S>, wish: &Wish) -> Result<Way, RestoreError> {
    let catalog = Catalog::read(archive).await?;
    let segment_size = catalog.backups.last().map(|header| header.segment_size);
    let wal = ArchivedWal::read(archive, segment_size).await?;
    let mut way = choose(&catalog, &wal.graph, wish)?;
    if is_condemned(archive, &way.backup.id).await? {
        way.doubts.push(format!("backup '{}' is to be removed from the store soon: keep it with 'spilo backup pin'", way.backup.id));
    }
    way.doubts.extend(wal.unreadable.iter().map(|found| format!("'{}' in the archive cannot be used: {}", found.object, found.why)));
    Ok(way)
}

/// Restores the backup of that way. When this returns well, the directory is complete, on disk, and can be started.
///
/// # Errors
/// Whatever went wrong: the directory was not changed, or cannot be started.
pub async fn restore<S: ObjectStore>(
    archive: &Archive<S>,
    way: &Way,
    start: &Start,
    request: &Request,
    progress: &Arc<Progress>,
) -> Result<Report, RestoreError> {
    let begun = Instant::now();
    let layout = Layout::new(&request.directory, &way.backup, &request.moved)
        .map_err(|why| RestoreError::refused(why, "name each with --tablespace OID=DIRECTORY"))?;
    let found = directory::inspect(&request.directory, archive.system(), request.delta)?;
    directory::inspect_spaces(&layout, &found)?;
    room::check(&layout, &way.backup, &found)?;
    let mut manifest = whole_manifest(archive, &way.backup).await?;
    progress.expect(way.backup.size);
    progress.enter(Phase::Writing);
    let _claimed = directory::claim(&request.directory, way.backup.data_dir_mode)?;
    if directory::inspect(&request.directory, archive.system(), request.delta)? != found {
        let why = format!("'{}' changed while the manifest was read", request.directory.display());
        return Err(RestoreError::refused(why, "who else works there?"));
    }
    directory::begin(&layout, &way.backup)?;
    if found != Found::Nothing {
        sweep::drop_wal(&layout)?;
    }
    let work = Work { archive, way, layout: &layout, limits: request.limits, progress };
    let entries = manifest.entries().map_err(|why| work.damaged(why))?;
    let written = work.write(entries).await?;
    progress.enter(Phase::Finishing);
    let entries = manifest.entries().map_err(|why| work.damaged(why))?;
    let removed = work.finish(written, entries, start)?;
    let (backup, seen) = (way.backup.clone(), progress.seen());
    Ok(Report { backup, timeline: way.timeline, wal_end: way.end, seen, removed, took: begun.elapsed() })
}

/// The manifest, checked, and that which the way was found by.
async fn whole_manifest<S: ObjectStore>(archive: &Archive<S>, backup: &Header) -> Result<SpooledManifest, RestoreError> {
    let object = archive.manifest(&backup.id)?;
    let mut read = SpooledManifest::read(archive, &backup.id).await;
    if matches!(read, Err(ArchiveError::Damaged { .. })) {
        // The network may have changed it on its way.
        read = SpooledManifest::read(archive, &backup.id).await;
    }
    match read? {
        Some(manifest) if manifest.header() == backup => Ok(manifest),
        Some(_) => Err(RestoreError::Damaged { object, why: "its header is another one than a moment ago".to_owned() }),
        None => Err(RestoreError::Damaged { object, why: "it was there a moment ago and is gone".to_owned() }),
    }
}

/// What the steps of a restore share.
struct Work<'a, S> {
    archive: &'a Archive<S>,
    way: &'a Way,
    layout: &'a Layout,
    limits: Limits,
    progress: &'a Arc<Progress>,
}

/// What is known when everything but the control file is in its place.
#[derive(Default)]
struct Written {
    belonging: Belonging,
    /// The control file's content and permissions.
    control: Option<(Vec<u8>, u32)>,
}

impl<S: ObjectStore> Work<'_, S> {
    /// Restores every file but the control file, which is fetched.
    async fn write(&self, entries: impl Iterator<Item = Result<Entry, String>>) -> Result<Written, RestoreError> {
        let (mut written, mut window) = (Written::default(), Window::default());
        for entry in entries {
            let entry = entry.map_err(|why| self.damaged(why))?;
            // The agent of another cluster's node has kept something there that would say the wrong thing here.
            if entry.path == AGENTS_OWN.as_bytes() {
                continue;
            }
            written.belonging.add(&entry.path);
            let (path, is_control) = (self.layout.path(&entry.path), entry.path == CONTROL_FILE.as_bytes());
            let mode = entry.mode;
            if matches!(entry.kind, EntryKind::Directory) {
                self.directory(&entry)?;
            } else if let Some(file) = Target::new(entry, path) {
                if is_control {
                    written.control = Some((control::fetch(self.archive, &self.way.backup, &file).await?, mode));
                    self.progress.has(file.size);
                    continue;
                }
                window.add(file);
                if window.is_full() {
                    self.transfer(std::mem::take(&mut window)).await?;
                }
            }
        }
        self.transfer(window).await?;
        Ok(written)
    }

    fn directory(&self, entry: &Entry) -> Result<(), RestoreError> {
        match self.layout.linked(&entry.path) {
            Some(space) => directory::make_link(self.layout, space),
            None => directory::make_dir(&self.layout.path(&entry.path), entry.mode),
        }
    }

    async fn transfer(&self, window: Window) -> Result<(), RestoreError> {
        transfer::transfer(self.archive, &self.way.backup, window, self.limits, self.progress).await
    }

    /// Makes the directory one that can be started. Returns how much did not belong there.
    fn finish(
        &self,
        mut written: Written,
        entries: impl Iterator<Item = Result<Entry, String>>,
        start: &Start,
    ) -> Result<u64, RestoreError> {
        let (control, mode) = written.control.take().ok_or_else(|| self.damaged("it has no control file".to_owned()))?;
        for name in finish::written(self.layout, start) {
            written.belonging.add(name.as_bytes());
        }
        let removed = sweep::sweep(self.layout, &written.belonging)?;
        finish::describe(self.layout, &self.way.backup, start)?;
        let files = entries.filter(|entry| entry.as_ref().map_or(true, |entry| entry.path != AGENTS_OWN.as_bytes()));
        let files = files.map(|entry| entry.map_err(|why| self.damaged(why)));
        finish::list(self.layout, &self.way.backup, files, &self.way.needed)?;
        finish::sync(self.layout)?;
        finish::complete(self.layout.root(), &control, mode)?;
        Ok(removed)
    }

    /// The manifest says something that cannot be.
    fn damaged(&self, why: String) -> RestoreError {
        match self.archive.manifest(&self.way.backup.id) {
            Ok(object) => RestoreError::Damaged { object, why },
            Err(error) => error.into(),
        }
    }
}
