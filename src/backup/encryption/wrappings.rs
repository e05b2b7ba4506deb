//! Every wrapping of an archive's key, below `CLUSTER/key`: a log whose records have the numbers from 1 on. A record is the key, wrapped by a
//! master key, or the removal of an earlier record. Each is written with one winner under the number behind the last one; so whoever adds or
//! removes has seen all that came before, and two who each remove the other's key do not both succeed.
//!
//! No number is ever free again: what was removed is written over with its removal. An archive's own key is made only where there is no
//! record at all, as number 1, with one winner; so nobody who looked, and then slept for however long, can put a second key beside the first.

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{KeyError, wrapped_key::WrappedKey};
use crate::{
    backup::archive::ArchiveError,
    model::{InvalidObjectName, ObjectName},
    storage::ObjectStore,
};

/// The version that this program writes and reads.
pub const FORMAT: u32 = 1;

/// Where the wrapped keys of an archive lie.
pub fn folder(archive: &ObjectName) -> Result<ObjectName, InvalidObjectName> {
    archive.join("key")
}

/// One of them.
pub fn object(archive: &ObjectName, number: u32) -> Result<ObjectName, InvalidObjectName> {
    folder(archive)?.join(&format!("{number:08}"))
}

/// An earlier record is not to be used any more; it may be there no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removal {
    format: u32,
    archive: String,
    /// The master key of that record.
    pub master: String,
    made: Timestamp,
    /// Its number. That of this record itself, where this one was written over it.
    pub removes: u32,
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// The key, wrapped.
    Wrapped(WrappedKey),
    /// An earlier one is removed.
    Removal(Removal),
}

impl Record {
    /// The removal of that record.
    pub fn removal(archive: &ObjectName, number: u32, master: &str, made: Timestamp) -> Record {
        Record::Removal(Removal { format: FORMAT, archive: archive.to_string(), master: master.to_owned(), made, removes: number })
    }

    /// As an object.
    pub fn object(&self) -> Bytes {
        let text = match self {
            Record::Wrapped(wrapped) => serde_json::to_vec_pretty(wrapped),
            Record::Removal(removal) => serde_json::to_vec_pretty(removal),
        };
        let mut text = text.expect("it has only texts and numbers");
        text.push(b'\n');
        text.into()
    }

    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with it.
    fn read(object: &[u8], archive: &ObjectName) -> Result<Record, String> {
        let cannot = |error: serde_json::Error| format!("it cannot be read: {error}");
        let read: serde_json::Value = serde_json::from_slice(object).map_err(cannot)?;
        if read.get("removes").is_none() {
            let wrapped: WrappedKey = serde_json::from_value(read).map_err(cannot)?;
            return wrapped.check(archive).map(|()| Record::Wrapped(wrapped));
        }
        let removal: Removal = serde_json::from_value(read).map_err(cannot)?;
        match (removal.format, removal.archive == archive.as_str()) {
            (FORMAT, true) => Ok(Record::Removal(removal)),
            (FORMAT, false) => Err(format!("it is that of the archive '{}'", removal.archive)),
            (format, _) => Err(format!("it is of format {format}, which this version does not know")),
        }
    }
}

/// All there is below `CLUSTER/key`.
#[derive(Debug)]
pub struct Wrappings {
    archive: ObjectName,
    records: Vec<(u32, Record)>,
    /// What cannot be read, and why.
    damaged: Vec<(ObjectName, String)>,
    /// The highest number that there is, whatever is in it.
    highest: u32,
}

impl Wrappings {
    /// Reads them. No key is needed for it.
    ///
    /// # Errors
    /// When the store does not say.
    pub async fn read(store: &impl ObjectStore, archive: &ObjectName) -> Result<Wrappings, ArchiveError> {
        let mut all = Wrappings { archive: archive.clone(), records: Vec::new(), damaged: Vec::new(), highest: 0 };
        for found in store.list(&folder(archive)?).await? {
            let last = found.name.as_str().rsplit('/').next().unwrap_or_default();
            let number = last.parse::<u32>().ok().filter(|number| object(archive, *number).is_ok_and(|name| name == found.name));
            let Some(number) = number.filter(|number| *number > 0) else {
                all.damaged.push((found.name, "its name is no number of eight digits".to_owned()));
                continue;
            };
            all.highest = all.highest.max(number);
            let Some(content) = store.read(&found.name).await? else {
                all.damaged.push((found.name, "it was removed by somebody while it was read".to_owned()));
                continue;
            };
            match Record::read(&content, archive) {
                Ok(record) => all.records.push((number, record)),
                Err(why) => all.damaged.push((found.name, why)),
            }
        }
        Ok(all)
    }

    /// There is nothing at all: only then an archive may be begun.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.damaged.is_empty()
    }

    /// Those that open the archive, the oldest first.
    pub fn in_use(&self) -> impl DoubleEndedIterator<Item = (u32, &WrappedKey)> {
        let removed: Vec<u32> = self.removals().map(|removal| removal.removes).collect();
        self.records.iter().filter_map(move |(number, record)| match record {
            Record::Wrapped(wrapped) if !removed.contains(number) => Some((*number, wrapped)),
            _ => None,
        })
    }

    /// The newest that this master key opens.
    pub fn of(&self, master: &str) -> Option<(u32, &WrappedKey)> {
        self.in_use().rev().find(|(_, wrapped)| wrapped.master == master)
    }

    /// Every removal, also that of what is removed already.
    pub fn removals(&self) -> impl Iterator<Item = &Removal> {
        self.records.iter().filter_map(|(_, record)| match record {
            Record::Removal(removal) => Some(removal),
            Record::Wrapped(_) => None,
        })
    }

    /// Removed, and not yet written over: who removed them has died in between.
    pub fn left_behind(&self) -> Vec<(u32, String)> {
        let removed: Vec<u32> = self.removals().map(|removal| removal.removes).collect();
        let there = self.records.iter().filter_map(|(number, record)| match record {
            Record::Wrapped(wrapped) if removed.contains(number) => Some((*number, wrapped.master.clone())),
            _ => None,
        });
        there.collect()
    }

    /// What cannot be read, and why.
    pub fn damaged(&self) -> &[(ObjectName, String)] {
        &self.damaged
    }

    /// Where the next record goes.
    pub fn next(&self) -> Result<ObjectName, InvalidObjectName> {
        object(&self.archive, self.highest + 1)
    }

    /// By which names the keys are known that open the archive.
    ///
    /// # Errors
    /// When none does.
    pub fn masters(&self) -> Result<Vec<String>, ArchiveError> {
        let mut masters: Vec<String> = self.in_use().map(|(_, wrapped)| wrapped.master.clone()).collect();
        masters.dedup();
        if !masters.is_empty() {
            return Ok(masters);
        }
        self.expect_undamaged()?;
        Err(KeyError::Gone { object: object(&self.archive, 1)? }.into())
    }

    /// There is none that cannot be read.
    ///
    /// # Errors
    /// The first one.
    pub fn expect_undamaged(&self) -> Result<(), KeyError> {
        let first = self.damaged.first().cloned();
        first.map_or(Ok(()), |(object, why)| Err(KeyError::Damaged { object, why }))
    }

    /// All wrap one key. It takes somebody's hand in the store to have it otherwise; then nothing is written with either.
    ///
    /// # Errors
    /// The two that do not.
    pub fn expect_one_key(&self) -> Result<(), ArchiveError> {
        let Some((first, wrapped)) = self.in_use().next() else { return Ok(()) };
        let Some((other, _)) = self.in_use().find(|(_, other)| other.id != wrapped.id) else { return Ok(()) };
        Err(KeyError::TwoKeys { first: object(&self.archive, first)?, other: object(&self.archive, other)? }.into())
    }
}
