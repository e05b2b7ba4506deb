//! The key of an archive as it lies in the store: wrapped by a master key.

use aws_lc_rs::aead::{Aad, Nonce};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    KeyError,
    archive_key::{ArchiveKey, ID, KEY, cipher},
    chance,
    key_file::{Kind, MasterKey, wrapping},
    wrappings::FORMAT,
};
use crate::{model::ObjectName, storage::KmsError};

/// How a key is wrapped: by one in a file, or by one in AWS KMS.
const BY_FILE: &str = "AES-256-GCM";
const BY_KMS: &str = "AWS-KMS";

/// What the object says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrappedKey {
    format: u32,
    /// The archive, so that nobody takes another one's key for this one's.
    archive: String,
    /// By which name the archive's key is known.
    pub id: String,
    /// When it was wrapped.
    pub made: Timestamp,
    /// By which name the key is known that opens it.
    pub master: String,
    algorithm: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    nonce: String,
    wrapped: String,
}

impl WrappedKey {
    /// The archive's key, wrapped, and unwrapped once: what cannot be opened again does not get into the store.
    ///
    /// # Errors
    /// When there are no random numbers, and when a KMS does not do both.
    pub async fn new(key: &ArchiveKey, master: &MasterKey, archive: &ObjectName, made: Timestamp) -> Result<WrappedKey, KeyError> {
        let mut wrapped = WrappedKey {
            format: FORMAT,
            archive: archive.to_string(),
            id: hex::encode(key.id),
            made,
            master: master.id(),
            algorithm: String::new(),
            nonce: String::new(),
            wrapped: String::new(),
        };
        match master.kind() {
            Kind::Secret(secret) => {
                BY_FILE.clone_into(&mut wrapped.algorithm);
                // A master wraps a handful of keys in its life: chance is enough for a nonce.
                let (nonce, mut content) = (chance::<12>()?, key.expose().to_vec());
                let sealed = cipher(&wrapping(secret)).seal_in_place_append_tag(
                    Nonce::assume_unique_for_key(nonce),
                    Aad::from(wrapped.bound()),
                    &mut content,
                );
                sealed.expect("32 bytes are fewer than what AES-GCM encrypts at once");
                (wrapped.nonce, wrapped.wrapped) = (hex::encode(nonce), hex::encode(content));
            }
            Kind::Kms(kms) => {
                BY_KMS.clone_into(&mut wrapped.algorithm);
                wrapped.wrapped = hex::encode(kms.wrap(key.expose(), &wrapped.purpose()).await?.content);
            }
        }
        let again = wrapped.unwrap(archive, master).await?;
        if again.expose() != key.expose() {
            let why = "what it has wrapped comes back as something else".to_owned();
            return Err(KeyError::File { file: master.file().to_owned(), why });
        }
        Ok(wrapped)
    }

    /// Whether this version knows it, and it is this archive's.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, archive: &ObjectName) -> Result<(), String> {
        if self.format != FORMAT || ![BY_FILE, BY_KMS].contains(&self.algorithm.as_str()) {
            return Err(format!("it is of format {} with {}, which this version does not know", self.format, self.algorithm));
        }
        if self.archive != archive.as_str() {
            return Err(format!("it is that of the archive '{}'", self.archive));
        }
        Ok(())
    }

    /// The archive's key; the caller has seen that the master is the one that is named. `object` is where this lies.
    ///
    /// # Errors
    /// When it is not what was written, and when a KMS does not answer, or refuses.
    pub async fn unwrap(&self, object: &ObjectName, master: &MasterKey) -> Result<ArchiveKey, KeyError> {
        let damaged = |why: &str| KeyError::Damaged { object: object.clone(), why: why.to_owned() };
        let changed = || damaged("it is not what was written");
        let mut id = [0; ID];
        hex::decode_to_slice(&self.id, &mut id).map_err(|_| changed())?;
        let mut wrapped = hex::decode(&self.wrapped).map_err(|_| changed())?;
        let secret = match (master.kind(), self.algorithm.as_str()) {
            (Kind::Secret(secret), BY_FILE) => {
                let mut nonce = [0; 12];
                hex::decode_to_slice(&self.nonce, &mut nonce).map_err(|_| changed())?;
                let (nonce, bound) = (Nonce::assume_unique_for_key(nonce), Aad::from(self.bound()));
                cipher(&wrapping(secret)).open_in_place(nonce, bound, &mut wrapped).map_err(|_| changed())?.to_vec()
            }
            (Kind::Kms(kms), BY_KMS) => kms.unwrap(&wrapped, &self.purpose()).await.map_err(|error| match error {
                KmsError::NotWrappedSo { .. } => damaged(&format!("it is not what was written, or not for this archive: {error}")),
                error => error.into(),
            })?,
            (_, algorithm) => return Err(damaged(&format!("it says {algorithm}, and its key is of another kind"))),
        };
        let secret: [u8; KEY] = secret.try_into().map_err(|_| changed())?;
        Ok(ArchiveKey::from_parts(id, secret))
    }

    /// What cannot be changed without its being found out.
    fn bound(&self) -> Vec<u8> {
        let parts = [&self.format.to_string(), &self.archive, &self.id, &self.master, &self.algorithm];
        parts.map(String::as_str).join("\n").into_bytes()
    }

    /// The same, as KMS takes it. The master is what it is asked for.
    fn purpose(&self) -> [(&str, &str); 2] {
        [("spilo-archive", &self.archive), ("spilo-key", &self.id)]
    }
}
