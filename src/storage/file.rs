//! The store in a directory: on a volume, or on whatever is mounted there.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Read, Seek, SeekFrom},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use jiff::Timestamp;
use tempfile::NamedTempFile;

use super::{Claim, Object, ObjectName, ObjectStore, StoreError, mark};
use crate::sys::files;

/// What a file is called until it is complete. No object's name begins so.
const UNFINISHED: &str = ".unfinished-";

/// No write takes so long: who has not finished by then never will.
const ABANDONED: Duration = Duration::from_secs(24 * 3600);

/// What tells a store from an empty directory, in which somebody has not mounted it.
const MARK: &str = ".spilo-store";

/// What a new file system has in it.
const LOST_AND_FOUND: &str = "lost+found";

/// A directory with objects in it.
#[derive(Clone)]
pub struct FileStore(Arc<Place>);

/// The directory.
struct Place {
    root: PathBuf,
    /// What its mark says. Another store may be mounted in its place, or nothing.
    mark: String,
}

impl FileStore {
    /// Makes a store of `root`, which has to be an empty directory, or is a store already.
    ///
    /// # Errors
    /// When `root` is no directory or has something else in it, and when it cannot be written to.
    pub fn init(root: &Path) -> Result<FileStore, StoreError> {
        make(root).map_err(|error| refused(root, &error.to_string()))?;
        FileStore::open(root)
    }

    /// The store in `root`.
    ///
    /// # Errors
    /// When there is none: a volume that is not mounted leaves an empty directory, which must not be taken for an empty store.
    pub fn open(root: &Path) -> Result<FileStore, StoreError> {
        match present(read_mark(root)) {
            Ok(Some(mark)) => {
                mark::check(MARK, mark.as_bytes()).map_err(|why| refused(root, &why))?;
                Ok(FileStore(Arc::new(Place { root: root.to_owned(), mark })))
            }
            Ok(None) => Err(refused(root, "there is no store; hint: mount its volume, or 'spilo wal init' for a new one")),
            Err(error) => Err(refused(root, &error.to_string())),
        }
    }

    /// Does that where it may take its time, and checks that the store was the same all along.
    async fn run<T: Send + 'static>(
        &self,
        object: &ObjectName,
        work: impl FnOnce(&Place, &Path) -> io::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (place, path) = (self.0.clone(), self.0.root.join(object.as_str()));
        let done = tokio::task::spawn_blocking(move || {
            place.check()?;
            let done = work(&place, &path)?;
            place.check()?;
            Ok(done)
        });
        done.await.unwrap_or_else(|error| Err(io::Error::other(error.to_string()))).map_err(|error| failure(object, &error))
    }
}

impl Place {
    fn check(&self) -> io::Result<()> {
        let gone = |why: String| io::Error::other(format!("'{}' {why}", self.root.display()));
        let mark = read_mark(&self.root).map_err(|error| gone(format!("is no store any more: {error}")))?;
        if mark == self.mark { Ok(()) } else { Err(gone("is another store than it was".to_owned())) }
    }

    fn create(&self, path: &Path, content: &[u8]) -> io::Result<Claim> {
        // Most often it is there because this is asked for again; then there is nothing to write.
        if present(fs::symlink_metadata(path))?.is_some() {
            return self.settled(path).map(|()| Claim::Taken);
        }
        let claim = match unfinished(path, content)?.persist_noclobber(path) {
            Ok(_) => Claim::Won,
            Err(kept) if kept.error.kind() == ErrorKind::AlreadyExists => Claim::Taken,
            Err(kept) => return Err(kept.error),
        };
        self.settled(path)?;
        Ok(claim)
    }

    fn replace(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        unfinished(path, content)?.persist(path).map_err(|kept| kept.error)?;
        self.settled(path)
    }

    /// The entry of `path` is durable, and those of all directories it lies in, whoever made them: who did may have died before it could see
    /// to that, and what is acknowledged here would go with a directory that it made.
    fn settled(&self, path: &Path) -> io::Result<()> {
        path.ancestors().take_while(|part| *part != self.root).try_for_each(files::sync_parent)
    }
}

impl ObjectStore for FileStore {
    async fn create(&self, name: &ObjectName, content: Bytes) -> Result<Claim, StoreError> {
        self.run(name, move |place, path| place.create(path, &content)).await
    }

    async fn replace(&self, name: &ObjectName, content: Bytes) -> Result<(), StoreError> {
        self.run(name, move |place, path| place.replace(path, &content)).await
    }

    async fn read(&self, name: &ObjectName) -> Result<Option<Bytes>, StoreError> {
        self.run(name, |_, path| Ok(present(fs::read(path))?.map(Bytes::from))).await
    }

    async fn read_range(&self, name: &ObjectName, offset: u64, length: u64) -> Result<Option<Bytes>, StoreError> {
        let read = move |path: &Path| {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(offset))?;
            let mut content = Vec::new();
            file.take(length).read_to_end(&mut content)?;
            Ok(Bytes::from(content))
        };
        self.run(name, move |_, path| present(read(path))).await
    }

    async fn size(&self, name: &ObjectName) -> Result<Option<u64>, StoreError> {
        self.run(name, |_, path| Ok(present(fs::metadata(path))?.filter(fs::Metadata::is_file).map(|file| file.len()))).await
    }

    async fn written(&self, name: &ObjectName) -> Result<Option<Timestamp>, StoreError> {
        let time = |file: fs::Metadata| Timestamp::from_second(file.mtime()).map_err(io::Error::other);
        self.run(name, move |_, path| present(fs::metadata(path))?.filter(fs::Metadata::is_file).map(time).transpose()).await
    }

    async fn list(&self, folder: &ObjectName) -> Result<Vec<Object>, StoreError> {
        let below = folder.clone();
        self.run(folder, move |_, path| {
            let mut found = Vec::new();
            collect(path, &below, &mut found)?;
            found.sort();
            Ok(found)
        })
        .await
    }

    async fn remove(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.run(name, |place, path| match present(fs::remove_file(path))? {
            Some(()) => place.settled(path),
            None => Ok(()),
        })
        .await
    }
}

/// Marks the directory, unless it is marked.
fn make(root: &Path) -> io::Result<()> {
    if present(read_mark(root))?.is_some() {
        return Ok(());
    }
    let told = |error: io::Error| match error.kind() {
        ErrorKind::NotFound => io::Error::new(ErrorKind::NotFound, "there is no such directory; hint: create it"),
        _ => error,
    };
    for entry in fs::read_dir(root).map_err(told)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        // A mark is that of somebody who does the same at this moment, and what did not get so far is nothing.
        if name != MARK && name != LOST_AND_FOUND && !name.starts_with(UNFINISHED) {
            let why = format!("something else is in it, such as '{name}'; hint: take an empty directory");
            return Err(io::Error::new(ErrorKind::DirectoryNotEmpty, why));
        }
    }
    let mark = root.join(MARK);
    // Never over another's mark: who works with that store would find it gone.
    match unfinished(&mark, mark::new()?.as_bytes())?.persist_noclobber(&mark) {
        Err(kept) if kept.error.kind() != ErrorKind::AlreadyExists => Err(kept.error),
        _ => files::sync_parent(&mark),
    }
}

/// Adds every object below `folder`.
fn collect(path: &Path, folder: &ObjectName, found: &mut Vec<Object>) -> io::Result<()> {
    let Some(entries) = present(fs::read_dir(path))? else { return Ok(()) };
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            forget_if_old(&entry.path());
            continue;
        }
        // What cannot be a name is not ours.
        let Some(name) = entry.file_name().to_str().and_then(|part| folder.join(part).ok()) else { continue };
        let Some(what) = present(entry.metadata())? else { continue };
        if what.is_dir() {
            collect(&entry.path(), &name, found)?;
        } else if what.is_file() {
            found.push(Object { name, size: what.len() });
        } else if what.is_symlink() {
            // Reading follows it. A list without it would have whoever expires backups remove what one behind it needs.
            let why = format!("'{}' is a symbolic link; hint: mount there what it leads to", entry.path().display());
            return Err(io::Error::new(ErrorKind::Unsupported, why));
        }
    }
    Ok(())
}

/// Removes what a write has left that cannot be under way any more: nothing else ever would, and a backup that was killed leaves much.
fn forget_if_old(path: &Path) {
    let is_old = |file: fs::Metadata| Ok(file.modified()?.elapsed().is_ok_and(|age| age > ABANDONED));
    match fs::symlink_metadata(path).and_then(is_old).and_then(|old| if old { fs::remove_file(path) } else { Ok(()) }) {
        // Somebody else was faster, or may only read here.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ReadOnlyFilesystem) => {}
        Err(error) => tracing::warn!("'{}', which an interrupted write has left, cannot be removed: {error}", path.display()),
        Ok(()) => {}
    }
}

/// The content in a file of nobody else's, synced, in the directory that it will be in.
fn unfinished(path: &Path, content: &[u8]) -> io::Result<NamedTempFile> {
    let folder = path.parent().unwrap_or(path);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    // One that a crash leaves is in nobody's way: it is not listed, its name is not used again, and it goes when it is old.
    let mut file = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(folder)?;
    files::write(file.as_file_mut(), content)?;
    file.as_file().sync_all()?;
    Ok(file)
}

fn read_mark(root: &Path) -> io::Result<String> {
    fs::read_to_string(root.join(MARK))
}

fn refused(root: &Path, why: &str) -> StoreError {
    StoreError::Refused { object: root.display().to_string(), why: why.to_owned() }
}

/// `None` for what is not there.
fn present<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// There is no such file: not even a directory that it could be in, or an object where that directory would be.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

fn failure(object: &ObjectName, error: &io::Error) -> StoreError {
    let (object, why) = (object.to_string(), error.to_string());
    match error.kind() {
        ErrorKind::PermissionDenied
        | ErrorKind::ReadOnlyFilesystem
        | ErrorKind::IsADirectory
        | ErrorKind::NotADirectory
        | ErrorKind::Unsupported => StoreError::Refused { object, why },
        _ => StoreError::Unavailable { object, why },
    }
}
