//! Encryption of an archive, on this side of the store: who can read or write the store learns neither what is in it nor can pass off
//! anything else as it.
//!
//! Each archive has one random key of its own, kept in the store wrapped by a master key that never gets there. Each write of an object has a
//! key of its own, derived from that, from the object's name and from 128 bits of chance; so no nonce is ever used twice under one key, however
//! many objects there are, and no object passes for another. [`SealedStore`] is the only way to the objects of an archive: there is no reader
//! and no writer that could forget it.

mod archive_key;
mod frames;
mod key_file;
mod masters;
mod sealed_store;
#[cfg(test)]
mod test_place;
mod wrapped_key;
mod wrappings;

pub use archive_key::Sealer;
pub use frames::{Sealed, Sealing};
pub use key_file::MasterKey;
pub use masters::Changed;
pub use sealed_store::SealedStore;
pub use wrapped_key::WrappedKey;
pub use wrappings::Wrappings;

use crate::{model::ObjectName, storage::KmsError};

/// Why an archive cannot be read or written for its key's sake. Nothing is ever read or written without encryption instead.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// No key was said, and one is needed.
    #[error(
        "the archive '{archive}' is encrypted with the key '{}', and no key is configured: name its file, with --store-key or as 'key_file' \
         beside 'store'", keys.join("' or '")
    )]
    Needed {
        /// The archive.
        archive: ObjectName,
        /// The identifiers of the keys that open it.
        keys: Vec<String>,
    },
    /// Another key was said.
    #[error("the archive '{archive}' is encrypted with the key '{}', and '{file}' has the key '{ours}': use the file with the former", keys.join("' or '"))]
    Other {
        /// The archive.
        archive: ObjectName,
        /// The identifiers of the keys that open it.
        keys: Vec<String>,
        /// That of the key that was said.
        ours: String,
        /// Where it was read from.
        file: String,
    },
    /// A key was said, and the archive was begun without one.
    #[error(
        "'{object}' is not encrypted, and '{file}' is configured as the key of this archive: an archive is encrypted from its beginning or not \
         at all; leave out the key, or give the cluster another name or another store"
    )]
    NotEncrypted {
        /// The first such object.
        object: ObjectName,
        /// Where the key was read from.
        file: String,
    },
    /// The archive has encrypted objects, and its own key is not there any more.
    #[error(
        "'{object}' is gone, which holds the key of an archive that has encrypted objects: without it nobody can read them; bring it back from an \
         earlier version or a copy of the store"
    )]
    Gone {
        /// The object that should be there.
        object: ObjectName,
    },
    /// The object with the archive's key cannot be used.
    #[error(
        "'{object}', which holds the key of the archive, is damaged: {why}; bring it back from an earlier version or a copy of the store"
    )]
    Damaged {
        /// The object.
        object: ObjectName,
        /// What is wrong with it.
        why: String,
    },
    /// There is more than one key of the archive.
    #[error(
        "'{first}' and '{other}' wrap two different keys, and an archive has one: somebody has put one of them there by hand; take away the one that \
         is not the archive's"
    )]
    TwoKeys {
        /// The first.
        first: ObjectName,
        /// The first that is another one.
        other: ObjectName,
    },
    /// The archive has no key.
    #[error("the archive '{archive}' has no key of its own: it is not encrypted, or nothing was ever archived there")]
    NotBegun {
        /// The archive.
        archive: ObjectName,
    },
    /// The key that is to be removed is the one that is used.
    #[error("the key '{id}' is the one in '{file}', which is configured: what it opens the archive with is not taken away from it")]
    InUse {
        /// By which name it is known.
        id: String,
        /// Where it was read from.
        file: String,
    },
    /// There is no such key to remove.
    #[error("the archive '{archive}' is not opened by a key '{id}', but by '{}'", keys.join("' or '"))]
    Unknown {
        /// The archive.
        archive: ObjectName,
        /// The key that was meant.
        id: String,
        /// Those that open it.
        keys: Vec<String>,
    },
    /// Others change the keys of the archive at the same time, time and again.
    #[error("others add and remove keys of the archive '{archive}' at the same time; look at what there is, and try again")]
    Busy {
        /// The archive.
        archive: ObjectName,
    },
    /// The key is in a KMS, which did not do what it was asked for.
    #[error(transparent)]
    Kms(#[from] KmsError),
    /// The file with the master key cannot be used.
    #[error("the key in '{file}' cannot be used: {why}")]
    File {
        /// The file.
        file: String,
        /// What is wrong with it.
        why: String,
    },
    /// The machine gives no random numbers.
    #[error("no random numbers for a key: {0}")]
    Chance(String),
}

/// So many bytes that nobody can guess.
fn chance<const N: usize>() -> Result<[u8; N], KeyError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| KeyError::Chance(error.to_string()))?;
    Ok(bytes)
}
