//! Restoring a base backup: into an empty directory, or over what is right of an old one.
//!
//! Everything that can be known is asked before anything is written: whether there is a way to the target, whether WAL is whole along it,
//! whether the directory may be written to and the files fit. Then the directory gets a mark and loses its control file, and until the very
//! end PostgreSQL cannot be started in it; the same request again goes on where it was interrupted, because what is right stays. What does not
//! belong there goes before anything is written, which may need its room.

mod choose;
mod control;
mod directory;
mod error;
mod finish;
mod layout;
mod outline;
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
    fs::File,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::task::spawn_blocking;

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
    outline::{Outline, is_left_out},
    window::{Target, Window},
};
use super::{
    Archive,
    archived_wal::read_settled,
    catalog::Catalog,
    manifest::{Entry, EntryKind, Header},
    manifest_file::Entries,
    marks::is_condemned,
    spooled_manifest::SpooledManifest,
};
use crate::{
    model::{Lsn, ObjectName, Timeline},
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
    let wal = read_settled(archive, segment_size).await?;
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
    let mut manifest = whole_manifest(archive, &way.backup).await?;
    let object = archive.manifest(&way.backup.id)?;
    let work = Work { archive, way, object, layout: Arc::new(layout), limits: request.limits, progress };
    let outline = work.outline(work.entries(&mut manifest)?, start).await?;
    room::check(&work.layout, &way.backup.id, &outline, &found)?;
    progress.expect(way.backup.size);
    let claimed = directory::claim(&request.directory, way.backup.data_dir_mode)?;
    if directory::inspect(&request.directory, archive.system(), request.delta)? != found {
        let why = format!("'{}' changed while the manifest was read", request.directory.display());
        return Err(RestoreError::refused(why, "who else works there?"));
    }
    directory::begin(&work.layout, &way.backup)?;
    let removed = if found == Found::Nothing { 0 } else { work.sweep(outline).await? };
    progress.enter(Phase::Writing);
    let control = work.write(work.entries(&mut manifest)?).await?;
    progress.enter(Phase::Finishing);
    work.finish(control, work.entries(&mut manifest)?, start, claimed).await?;
    let (backup, seen) = (way.backup.clone(), progress.seen());
    Ok(Report { backup, timeline: way.timeline, wal_end: way.end, seen, removed, took: begun.elapsed() })
}

/// The manifest, checked, and that which the way was found by.
async fn whole_manifest<S: ObjectStore>(archive: &Archive<S>, backup: &Header) -> Result<SpooledManifest, RestoreError> {
    let object = archive.manifest(&backup.id)?;
    let read = SpooledManifest::read(archive, &backup.id).await;
    match read? {
        Some(manifest) if manifest.header() == backup => Ok(manifest),
        Some(_) => Err(RestoreError::damaged(&object, "its header is another one than a moment ago")),
        None => Err(RestoreError::damaged(&object, "it was there a moment ago and is gone")),
    }
}

/// What the steps of a restore share.
struct Work<'a, S> {
    archive: &'a Archive<S>,
    way: &'a Way,
    /// The manifest.
    object: ObjectName,
    layout: Arc<Layout>,
    limits: Limits,
    progress: &'a Arc<Progress>,
}

/// A control file's content and permissions.
type Control = (Vec<u8>, u32);

impl<S: ObjectStore> Work<'_, S> {
    /// What is restored of the manifest, from the first entry on.
    fn entries(&self, manifest: &mut SpooledManifest) -> Result<RestoredEntries, RestoreError> {
        Ok(RestoredEntries { object: self.object.clone(), entries: manifest.entries()? })
    }

    async fn outline(&self, entries: RestoredEntries, start: &Start) -> Result<Outline, RestoreError> {
        let (layout, written) = (self.layout.clone(), finish::written(&self.layout, start));
        on_a_thread(move || Outline::of(&layout, entries, &written)).await
    }

    /// Removes what does not belong there, before anything needs its room. Returns how much that was.
    async fn sweep(&self, outline: Outline) -> Result<u64, RestoreError> {
        self.progress.enter(Phase::Sweeping);
        let layout = self.layout.clone();
        on_a_thread(move || {
            sweep::drop_wal(&layout)?;
            sweep::sweep(&layout, &outline.belonging)
        })
        .await
    }

    /// Restores every file but the control file, which is fetched.
    async fn write(&self, entries: RestoredEntries) -> Result<Control, RestoreError> {
        let (mut control, mut window) = (None, Window::default());
        for entry in entries {
            let entry = entry?;
            let (path, is_control) = (self.layout.path(&entry.path), entry.path == CONTROL_FILE.as_bytes());
            let mode = entry.mode;
            if matches!(entry.kind, EntryKind::Directory) {
                self.directory(&entry)?;
            } else if let Some(file) = Target::new(entry, path) {
                if is_control {
                    control = Some((control::fetch(self.archive, &self.way.backup, &file).await?, mode));
                    self.progress.has_done(file.size);
                    continue;
                }
                window.add(file);
                if window.is_full() {
                    self.transfer(std::mem::take(&mut window)).await?;
                }
            }
        }
        self.transfer(window).await?;
        control.ok_or_else(|| self.damaged("it has no control file"))
    }

    fn directory(&self, entry: &Entry) -> Result<(), RestoreError> {
        match self.layout.linked(&entry.path) {
            Some(space) => directory::make_link(&self.layout, space),
            None => directory::make_dir(&self.layout.path(&entry.path), entry.mode),
        }
    }

    async fn transfer(&self, window: Window) -> Result<(), RestoreError> {
        transfer::transfer(self.archive, &self.way.backup, window, self.limits, self.progress).await
    }

    /// Makes the directory one that can be started. Nobody else claims it before the last of that is done, whoever still waits for it.
    async fn finish(&self, control: Control, entries: RestoredEntries, start: &Start, claimed: File) -> Result<(), RestoreError> {
        let (layout, backup, needed, start) = (self.layout.clone(), self.way.backup.clone(), self.way.needed.clone(), start.clone());
        on_a_thread(move || {
            let _claimed = claimed;
            finish::describe(&layout, &backup, &start)?;
            finish::list(&layout, &backup, entries, &needed)?;
            finish::sync(&layout)?;
            finish::complete(layout.root(), &control.0, control.1)
        })
        .await
    }

    /// The manifest says something that cannot be.
    fn damaged(&self, why: impl Into<String>) -> RestoreError {
        RestoreError::damaged(&self.object, why)
    }
}

/// The entries of a manifest but those that are left out.
struct RestoredEntries {
    object: ObjectName,
    entries: Entries<File>,
}

impl Iterator for RestoredEntries {
    type Item = Result<Entry, RestoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.entries.find(|entry| !entry.as_ref().is_ok_and(is_left_out))?;
        Some(entry.map_err(|why| RestoreError::damaged(&self.object, why)))
    }
}

/// What takes long and is no waiting: progress is shown meanwhile, and Ctrl-C heard.
async fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> Result<T, RestoreError> + Send + 'static) -> Result<T, RestoreError> {
    spawn_blocking(work).await.map_err(|error| RestoreError::thread(&error))?
}
