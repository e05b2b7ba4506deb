//! The key of an archive, and the keys that come of it.

use std::{fmt, io, sync::Arc};

use aws_lc_rs::{
    aead::{AES_256_GCM, LessSafeKey, UnboundKey},
    hkdf::{HKDF_SHA256, KeyType, Salt},
};
use bytes::Bytes;

use super::{
    KeyError, chance,
    frames::{self, Sealed, Sealing},
};
use crate::model::ObjectName;

/// Bytes of every key here.
pub const KEY: usize = 32;

/// Bytes by which a key is known.
pub const ID: usize = 8;

/// Bytes of chance of one write of an object.
pub const SALT: usize = 16;

/// The key of an archive. Everything else is derived from it, and it encrypts nothing itself.
pub struct ArchiveKey {
    /// By which name it is known.
    pub id: [u8; ID],
    secret: [u8; KEY],
}

impl ArchiveKey {
    /// A new one.
    ///
    /// # Errors
    /// When there are no random numbers.
    pub fn new() -> Result<ArchiveKey, KeyError> {
        Ok(ArchiveKey { id: chance()?, secret: chance()? })
    }

    /// One that was unwrapped.
    pub fn from_parts(id: [u8; ID], secret: [u8; KEY]) -> ArchiveKey {
        ArchiveKey { id, secret }
    }

    /// The key itself, to be wrapped.
    pub(super) fn expose(&self) -> &[u8; KEY] {
        &self.secret
    }

    /// The key of one write of the object: the same for nobody else.
    pub(super) fn of_object(&self, name: &ObjectName, salt: &[u8; SALT]) -> LessSafeKey {
        cipher(&derived(&self.secret, salt, &[b"spilo object ", name.as_str().as_bytes()]))
    }

    /// What tells contents apart in names, where everybody can read it: who has not the key learns only whether two are the same.
    fn name_digest(&self, digest: &[u8; 32]) -> [u8; 32] {
        let key = derived(&self.secret, &[], &[b"spilo names"]);
        blake3::keyed_hash(&key, digest).into()
    }
}

impl fmt::Debug for ArchiveKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ArchiveKey({}, …)", hex::encode(self.id))
    }
}

struct Length;

impl KeyType for Length {
    fn len(&self) -> usize {
        KEY
    }
}

/// A key derived from another one, for this use.
pub fn derived(secret: &[u8; KEY], salt: &[u8], purpose: &[&[u8]]) -> [u8; KEY] {
    let mut key = [0; KEY];
    let root = Salt::new(HKDF_SHA256, salt).extract(secret);
    root.expand(purpose, Length).and_then(|derived| derived.fill(&mut key)).expect("32 bytes are fewer than HKDF can give");
    key
}

/// AES-256-GCM with this key.
pub fn cipher(key: &[u8; KEY]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("AES-256 takes keys of 32 bytes"))
}

/// What makes objects of contents, and contents of objects: with the key of an archive, or, in an archive that is not encrypted, as they are.
#[derive(Debug, Clone, Default)]
pub struct Sealer(Option<Arc<ArchiveKey>>);

impl Sealer {
    /// With this key.
    pub(super) fn with(key: Arc<ArchiveKey>) -> Sealer {
        Sealer(Some(key))
    }

    /// The key itself, if there is one.
    pub(super) fn into_key(self) -> Option<Arc<ArchiveKey>> {
        self.0
    }

    /// Begins an object of which not everything is there yet.
    ///
    /// # Errors
    /// When there are no random numbers.
    pub fn begin(&self, name: &ObjectName) -> io::Result<Sealing> {
        match &self.0 {
            Some(key) => Sealing::with(key, name.clone()),
            None => Ok(Sealing::plain(name.clone())),
        }
    }

    /// Makes an object of this content.
    ///
    /// # Errors
    /// When there are no random numbers, and no room for what is too large to be in memory twice.
    pub fn seal(&self, name: &ObjectName, content: Bytes) -> io::Result<Sealed> {
        match &self.0 {
            Some(key) => frames::seal(key, name, &content),
            None => Ok(Sealed::plain(name.clone(), content)),
        }
    }

    /// The content of this object.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn open(&self, name: &ObjectName, object: Bytes) -> Result<Bytes, String> {
        match &self.0 {
            Some(key) => frames::open(key, name, object),
            None => Ok(object),
        }
    }

    /// The content of an object that this has made.
    ///
    /// # Errors
    /// When another one has made it.
    pub fn content(&self, sealed: &Sealed) -> Result<Bytes, String> {
        self.open(sealed.name(), sealed.object().clone())
    }

    /// The content of frames from this number on; with `to_the_end` the last of them has to be the object's last.
    pub(super) fn open_frames(&self, name: &ObjectName, frames: Bytes, first: u64, to_the_end: bool) -> Result<Bytes, String> {
        match &self.0 {
            Some(key) => frames::open_frames(key, name, frames, first, to_the_end),
            None => Ok(frames),
        }
    }

    pub(super) fn expect_header(&self, object: &[u8]) -> Result<(), String> {
        self.0.as_ref().map_or(Ok(()), |key| frames::expect_header(key, object))
    }

    /// What stands for a content of this digest in an object's name.
    pub fn name_digest(&self, digest: &[u8; 32]) -> [u8; 32] {
        self.0.as_ref().map_or(*digest, |key| key.name_digest(digest))
    }
}
