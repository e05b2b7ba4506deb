//! The only way to the objects of an archive. In one that is encrypted, contents are encrypted on their way to the store and checked and
//! decrypted on their way back; sizes are those of contents. Whoever is not sure of the key reads and writes nothing.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use jiff::Timestamp;

use super::{
    KeyError,
    archive_key::{ArchiveKey, Sealer},
    frames::{self, FRAME, HEADER, MAGIC, Sealed, WHOLE},
    key_file::MasterKey,
    wrapped_key::WrappedKey,
    wrappings::{self, Record, Wrappings},
};
use crate::{
    backup::archive::ArchiveError,
    model::ObjectName,
    storage::{Claim, Object, ObjectStore, Store, StoreConfig},
};

/// More bytes than these are encrypted on a thread of their own.
const LONG: usize = 256 << 10;

/// A store, as far as it is the archive of one cluster.
#[derive(Clone)]
pub struct SealedStore<S> {
    pub(super) store: S,
    /// What every object of the archive begins with.
    root: ObjectName,
    lock: Lock,
}

/// What stands before the contents.
#[derive(Clone)]
enum Lock {
    /// Nothing. Once it is known that the archive has no key, it may be written to.
    Open(Arc<OnceLock<()>>),
    /// The key of the archive, once it is known.
    Key(Arc<MasterKey>, Arc<OnceLock<Sealer>>),
}

impl SealedStore<Store> {
    /// Opens the archive of this cluster with the key that is configured, if one is. A store that does not answer is an error.
    ///
    /// # Errors
    /// When the store cannot be opened, and when the key is not that of the archive.
    pub async fn open(config: &StoreConfig, root: ObjectName) -> Result<SealedStore<Store>, ArchiveError> {
        let master = config.key_file.as_deref().map(MasterKey::read).transpose()?;
        let master = master.map(|master| master.with_credentials(config.credentials_file.as_deref()));
        let opened = SealedStore::over(Store::open(config).await?, root, master);
        if let Lock::Key(master, key) = &opened.lock {
            // A wrong key is better told before anything else goes wrong.
            opened.known_key(master, key).await?;
        }
        Ok(opened)
    }
}

impl<S> SealedStore<S> {
    /// The archive below `root`, encrypted if there is a key.
    pub fn over(store: S, root: ObjectName, master: Option<MasterKey>) -> SealedStore<S> {
        let lock = match master {
            None => Lock::Open(Arc::default()),
            Some(master) => Lock::Key(Arc::new(master), Arc::default()),
        };
        SealedStore { store, root, lock }
    }

    /// The store itself, which shows names and sizes, and contents only as they lie there.
    #[cfg(test)]
    pub fn bare(&self) -> &S {
        &self.store
    }

    /// What every object of the archive begins with.
    pub fn root(&self) -> &ObjectName {
        &self.root
    }

    /// Whether contents are encrypted.
    pub fn is_encrypted(&self) -> bool {
        matches!(self.lock, Lock::Key(..))
    }
}

impl<S: ObjectStore> SealedStore<S> {
    /// What makes objects of contents. The archive has its key from here on.
    ///
    /// # Errors
    /// When the store does not answer, when the archive is encrypted and no key is configured, and the other way round.
    pub async fn sealer(&self) -> Result<Sealer, ArchiveError> {
        match &self.lock {
            Lock::Open(seen) => {
                if seen.get().is_none() {
                    let wrappings = self.wrappings().await?;
                    if !wrappings.is_empty() {
                        return Err(self.key_is_needed(&wrappings));
                    }
                    let _ = seen.set(());
                }
                Ok(Sealer::default())
            }
            Lock::Key(master, key) => match self.known_key(master, key).await? {
                Some(sealer) => Ok(sealer),
                None => self.begin(master, key).await,
            },
        }
    }

    /// The archive was begun, and what is configured opens it. Nothing is begun.
    ///
    /// # Errors
    /// When it is not so, and when the store does not say.
    pub async fn expect_begun(&self) -> Result<(), ArchiveError> {
        match &self.lock {
            Lock::Open(_) => self.sealer().await.map(drop),
            Lock::Key(master, key) => match self.known_key(master, key).await? {
                Some(_) => Ok(()),
                None => Err(self.key_is_gone()?.into()),
            },
        }
    }

    /// Creates the object if there is none of this name, as [`ObjectStore::create`].
    ///
    /// # Errors
    /// As [`SealedStore::sealer`], and when the store does not take it.
    pub async fn create(&self, name: &ObjectName, content: Bytes) -> Result<Claim, ArchiveError> {
        let sealed = self.seal(name, content).await?;
        self.create_sealed(&sealed).await
    }

    /// Creates an object that was made with this archive's [`Sealer`], if there is none of its name.
    ///
    /// # Errors
    /// When the store does not take it.
    pub async fn create_sealed(&self, sealed: &Sealed) -> Result<Claim, ArchiveError> {
        Ok(self.store.create(sealed.name(), sealed.object().clone()).await?)
    }

    /// Writes the object over whatever has its name.
    ///
    /// # Errors
    /// As [`SealedStore::create`].
    pub async fn replace(&self, name: &ObjectName, content: Bytes) -> Result<(), ArchiveError> {
        let sealed = self.seal(name, content).await?;
        Ok(self.store.replace(name, sealed.object().clone()).await?)
    }

    /// The object of this content, made where that may take its time.
    ///
    /// # Errors
    /// As [`SealedStore::sealer`].
    pub async fn seal(&self, name: &ObjectName, content: Bytes) -> Result<Sealed, ArchiveError> {
        let sealer = self.sealer().await?;
        let unsealed = ArchiveError::file("encrypt for", name.as_str());
        if content.len() < LONG || !self.is_encrypted() {
            return sealer.seal(name, content).map_err(unsealed);
        }
        let of = name.clone();
        on_a_thread(move || sealer.seal(&of, content)).await?.map_err(unsealed)
    }

    /// Reads all of it.
    ///
    /// # Errors
    /// When the store does not say, and when it is not what was written there.
    pub async fn read(&self, name: &ObjectName) -> Result<Option<Bytes>, ArchiveError> {
        let Some(object) = self.store.read(name).await? else { return Ok(None) };
        let Some(sealer) = self.reading(name, &object).await? else { return Ok(Some(object)) };
        let of = name.clone();
        let opened = match object.len() {
            0..LONG => sealer.open(name, object),
            _ => on_a_thread(move || sealer.open(&of, object)).await?,
        };
        opened.map(Some).map_err(|why| damaged(name, why))
    }

    /// Reads `length` bytes of the content from `offset` on, or as many as there are.
    ///
    /// # Errors
    /// As [`SealedStore::read`].
    pub async fn read_range(&self, name: &ObjectName, offset: u64, length: u64) -> Result<Option<Bytes>, ArchiveError> {
        let Lock::Key(master, key) = &self.lock else {
            let content = self.store.read_range(name, offset, length).await?;
            if let Some(content) = content.as_ref().filter(|_| offset == 0) {
                self.reading(name, content).await?;
            }
            return Ok(content);
        };
        if length == 0 {
            return Ok(self.store.size(name).await?.map(|_| Bytes::new()));
        }
        let (first, last) = (offset / FRAME as u64, (offset + length - 1) / FRAME as u64);
        let begin = if first == 0 { 0 } else { HEADER as u64 + first * WHOLE as u64 };
        let end = HEADER as u64 + (last + 1) * WHOLE as u64;
        let Some(mut frames) = self.store.read_range(name, begin, end - begin).await? else { return Ok(None) };
        let Some(sealer) = self.known_key(master, key).await? else { return Err(self.keyless(name, &frames).await) };
        let whole = frames.len() as u64 == end - begin;
        if first > 0 && frames.is_empty() {
            // Behind its end, or where it was cut off: the frame before tells.
            let before = (first - 1) * FRAME as u64;
            return Ok(Box::pin(self.read_range(name, before, FRAME as u64 + 1)).await?.map(|_| Bytes::new()));
        }
        if first == 0 {
            sealer.expect_header(&frames).map_err(|why| damaged(name, why))?;
            frames = frames.split_off(HEADER);
        }
        let of = name.clone();
        let opened = match frames.len() {
            0..LONG => sealer.open_frames(name, frames, first, !whole),
            _ => on_a_thread(move || sealer.open_frames(&of, frames, first, !whole)).await?,
        };
        let mut content = opened.map_err(|why| damaged(name, why))?;
        let skipped = usize::try_from(offset - first * FRAME as u64).unwrap_or(usize::MAX).min(content.len());
        content = content.split_off(skipped);
        content.truncate(usize::try_from(length).unwrap_or(usize::MAX));
        Ok(Some(content))
    }

    /// The size of its content.
    ///
    /// # Errors
    /// When the store does not say.
    pub async fn size(&self, name: &ObjectName) -> Result<Option<u64>, ArchiveError> {
        Ok(self.store.size(name).await?.map(|size| self.content_size(size)))
    }

    /// When the object was last written, by the store's clock.
    ///
    /// # Errors
    /// When the store does not say.
    pub async fn written(&self, name: &ObjectName) -> Result<Option<Timestamp>, ArchiveError> {
        Ok(self.store.written(name).await?)
    }

    /// Every object below `folder`, with the sizes of their contents.
    ///
    /// # Errors
    /// When the store does not say.
    pub async fn list(&self, folder: &ObjectName) -> Result<Vec<Object>, ArchiveError> {
        let mut objects = self.store.list(folder).await?;
        for object in &mut objects {
            object.size = self.content_size(object.size);
        }
        Ok(objects)
    }

    /// Removes the object; one that is not there is fine.
    ///
    /// # Errors
    /// When the store does not do it.
    pub async fn remove(&self, name: &ObjectName) -> Result<(), ArchiveError> {
        Ok(self.store.remove(name).await?)
    }

    fn content_size(&self, object: u64) -> u64 {
        if self.is_encrypted() { frames::content_size(object) } else { object }
    }

    /// With what the object is read; `None`: as it is, because it is not encrypted and need not be.
    async fn reading(&self, name: &ObjectName, object: &[u8]) -> Result<Option<Sealer>, ArchiveError> {
        match &self.lock {
            Lock::Open(_) if !object.starts_with(MAGIC) => Ok(None),
            Lock::Open(_) => Err(self.key_is_needed(&self.wrappings().await?)),
            Lock::Key(master, key) => match self.known_key(master, key).await? {
                Some(sealer) => Ok(Some(sealer)),
                None => Err(self.keyless(name, object).await),
            },
        }
    }

    /// What it means that there is this object, and no key of the archive.
    async fn keyless(&self, name: &ObjectName, beginning: &[u8]) -> ArchiveError {
        let Lock::Key(master, _) = &self.lock else { return damaged(name, "it is encrypted".to_owned()) };
        match self.key_is_gone() {
            Err(error) => error,
            Ok(gone) if beginning.starts_with(MAGIC) => gone.into(),
            // Whether it is encrypted its beginning tells, which need not be what was read.
            Ok(gone) => match self.store.read_range(name, 0, MAGIC.len() as u64).await {
                Ok(Some(found)) if found.starts_with(MAGIC) => gone.into(),
                Ok(_) => KeyError::NotEncrypted { object: name.clone(), file: master.file().to_owned() }.into(),
                Err(error) => error.into(),
            },
        }
    }

    fn key_is_gone(&self) -> Result<KeyError, ArchiveError> {
        Ok(KeyError::Gone { object: wrappings::object(&self.root, 1)? })
    }

    fn key_is_needed(&self, wrappings: &Wrappings) -> ArchiveError {
        match wrappings.masters() {
            Ok(keys) => KeyError::Needed { archive: self.root.clone(), keys }.into(),
            Err(error) => error,
        }
    }

    /// The master key that is configured, and the archive's own, which it opens.
    pub(super) async fn own_key(&self) -> Result<(Arc<MasterKey>, Arc<ArchiveKey>), ArchiveError> {
        let Lock::Key(master, key) = &self.lock else {
            let wrappings = self.wrappings().await?;
            return Err(if wrappings.is_empty() { self.not_begun() } else { self.key_is_needed(&wrappings) });
        };
        let known = self.known_key(master, key).await?.and_then(Sealer::into_key);
        Ok((master.clone(), known.ok_or_else(|| self.not_begun())?))
    }

    fn not_begun(&self) -> ArchiveError {
        KeyError::NotBegun { archive: self.root.clone() }.into()
    }

    /// The archive's key, if it has one: it is asked for once.
    async fn known_key(&self, master: &MasterKey, key: &OnceLock<Sealer>) -> Result<Option<Sealer>, ArchiveError> {
        if let Some(sealer) = key.get() {
            return Ok(Some(sealer.clone()));
        }
        let wrappings = self.wrappings().await?;
        if wrappings.is_empty() {
            return Ok(None);
        }
        wrappings.expect_one_key()?;
        let (number, ours) = wrappings.of(&master.id()).ok_or_else(|| self.is_not_ours(&wrappings, master))?;
        let unwrapped = ours.unwrap(&wrappings::object(&self.root, number)?, master).await?;
        Ok(Some(key.get_or_init(|| Sealer::with(Arc::new(unwrapped))).clone()))
    }

    /// The master key that is configured opens nothing of what is there.
    pub(super) fn is_not_ours(&self, wrappings: &Wrappings, master: &MasterKey) -> ArchiveError {
        // What cannot be read may be ours.
        match wrappings.expect_undamaged().map_err(ArchiveError::from).and_then(|()| wrappings.masters()) {
            Ok(keys) => {
                let (archive, ours, file) = (self.root.clone(), master.id(), master.file().to_owned());
                KeyError::Other { archive, keys, ours, file }.into()
            }
            Err(error) => error,
        }
    }

    /// Gives the archive its key, before there is anything else of it. Whoever comes second takes the key of the first; who dies here leaves a key
    /// that nothing is encrypted with, which the next one takes.
    async fn begin(&self, master: &MasterKey, key: &OnceLock<Sealer>) -> Result<Sealer, ArchiveError> {
        let object = wrappings::object(&self.root, 1)?;
        if let Some(first) = self.store.list(&self.root).await?.into_iter().find(|object| !self.is_key(&object.name)) {
            let beginning = self.store.read_range(&first.name, 0, MAGIC.len() as u64).await?.unwrap_or_default();
            return Err(self.keyless(&first.name, &beginning).await);
        }
        let wrapped = WrappedKey::new(&ArchiveKey::new()?, master, &self.root, Timestamp::now()).await?;
        self.store.create(&object, Record::Wrapped(wrapped).object()).await?;
        // What is there now is what counts, whoever has written it.
        match self.known_key(master, key).await? {
            Some(sealer) => Ok(sealer),
            None => Err(KeyError::Gone { object }.into()),
        }
    }

    fn is_key(&self, name: &ObjectName) -> bool {
        wrappings::folder(&self.root)
            .is_ok_and(|folder| name.as_str().strip_prefix(folder.as_str()).is_some_and(|rest| rest.starts_with('/')))
    }

    /// Every wrapping of the archive's key.
    pub(super) async fn wrappings(&self) -> Result<Wrappings, ArchiveError> {
        Wrappings::read(&self.store, &self.root).await
    }
}

fn damaged(name: &ObjectName, why: String) -> ArchiveError {
    ArchiveError::Damaged { object: name.clone(), why }
}

async fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ArchiveError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| ArchiveError::Thread(error.to_string()))
}

#[cfg(test)]
#[path = "sealed_store_tests.rs"]
mod tests;
