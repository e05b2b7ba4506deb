//! The key of an archive as it lies in the store: wrapped by a master key, under `CLUSTER/key/NUMBER`. The lowest number is written with one
//! winner before anything else of the archive, so that of many members that begin at the same time all use one key; each next number has the
//! same key, wrapped by another master.

use aws_lc_rs::aead::{Aad, Nonce};
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    KeyError,
    archive_key::{ArchiveKey, ID, KEY, cipher},
    chance,
    key_file::MasterKey,
};
use crate::model::{InvalidObjectName, ObjectName};

/// The version that this program writes and reads.
const FORMAT: u32 = 1;

/// How a key is wrapped.
const ALGORITHM: &str = "AES-256-GCM";

/// What the object says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrappedKey {
    format: u32,
    /// The archive, so that nobody takes another one's key for this one's.
    archive: String,
    /// By which name the archive's key is known.
    id: String,
    made: Timestamp,
    /// By which name the key is known that opens it.
    pub master: String,
    algorithm: String,
    nonce: String,
    wrapped: String,
}

/// Where the wrapped keys of an archive lie.
pub fn folder(archive: &ObjectName) -> Result<ObjectName, InvalidObjectName> {
    archive.join("key")
}

/// One of them.
pub fn object(archive: &ObjectName, number: u32) -> Result<ObjectName, InvalidObjectName> {
    folder(archive)?.join(&format!("{number:08}"))
}

impl WrappedKey {
    /// The archive's key, wrapped.
    ///
    /// # Errors
    /// When there are no random numbers.
    pub fn new(key: &ArchiveKey, master: &MasterKey, archive: &ObjectName, made: Timestamp) -> Result<WrappedKey, KeyError> {
        let mut wrapped = WrappedKey {
            format: FORMAT,
            archive: archive.to_string(),
            id: hex::encode(key.id),
            made,
            master: master.id(),
            algorithm: ALGORITHM.to_owned(),
            nonce: String::new(),
            wrapped: String::new(),
        };
        // A master wraps a handful of keys in its life: chance is enough for a nonce.
        let (nonce, mut secret) = (chance::<12>()?, key.expose().to_vec());
        let sealed = cipher(&master.wrapping()).seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(wrapped.bound()),
            &mut secret,
        );
        sealed.expect("32 bytes are fewer than what AES-GCM encrypts at once");
        (wrapped.nonce, wrapped.wrapped) = (hex::encode(nonce), hex::encode(secret));
        Ok(wrapped)
    }

    /// As an object.
    pub fn object(&self) -> Bytes {
        let mut text = serde_json::to_vec_pretty(self).expect("it has only texts and numbers");
        text.push(b'\n');
        text.into()
    }

    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(object: &[u8], archive: &ObjectName) -> Result<WrappedKey, String> {
        let read: WrappedKey = serde_json::from_slice(object).map_err(|error| format!("it cannot be read: {error}"))?;
        if read.format != FORMAT || read.algorithm != ALGORITHM {
            return Err(format!("it is of format {} with {}, which this version does not know", read.format, read.algorithm));
        }
        if read.archive != archive.as_str() {
            return Err(format!("it is that of the archive '{}'", read.archive));
        }
        Ok(read)
    }

    /// The archive's key; the caller has seen that the master is the one that is named.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn unwrap(&self, master: &MasterKey) -> Result<ArchiveKey, String> {
        let changed = || "it is not what was written".to_owned();
        let mut id = [0; ID];
        hex::decode_to_slice(&self.id, &mut id).map_err(|_| changed())?;
        let mut nonce = [0; 12];
        hex::decode_to_slice(&self.nonce, &mut nonce).map_err(|_| changed())?;
        let mut wrapped = hex::decode(&self.wrapped).map_err(|_| changed())?;
        let opened = cipher(&master.wrapping()).open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(self.bound()), &mut wrapped);
        let secret: [u8; KEY] = opened.ok().and_then(|secret| (&*secret).try_into().ok()).ok_or_else(changed)?;
        Ok(ArchiveKey::from_parts(id, secret))
    }

    /// What cannot be changed without its being found out.
    fn bound(&self) -> Vec<u8> {
        let parts = [&self.format.to_string(), &self.archive, &self.id, &self.master, &self.algorithm];
        parts.map(String::as_str).join("\n").into_bytes()
    }
}
