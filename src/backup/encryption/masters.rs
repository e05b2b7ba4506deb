//! Which master keys open an archive: another one is added, one is removed. The archive's own key stays what it is.

use jiff::Timestamp;

use super::{
    KeyError,
    key_file::MasterKey,
    sealed_store::SealedStore,
    wrapped_key::WrappedKey,
    wrappings::{self, Record, Wrappings},
};
use crate::{
    backup::archive::ArchiveError,
    storage::{Claim, ObjectStore},
};

/// How often somebody else may be quicker. Each time another record was written, and there are never many.
const ATTEMPTS: u32 = 20;

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// It was done now.
    Now,
    /// It was so already.
    Already,
}

impl<S: ObjectStore> SealedStore<S> {
    /// From now on `new` opens the archive too.
    ///
    /// # Errors
    /// When the key that is configured does not open the archive, and when the new one does not do what it is for.
    pub async fn add_master(&self, new: &MasterKey) -> Result<Changed, ArchiveError> {
        let (_, key) = self.own_key().await?;
        let mut wrapped = None;
        for _ in 0..ATTEMPTS {
            let there = self.wrappings().await?;
            there.expect_one_key()?;
            if let Some((number, present)) = there.of(&new.id()) {
                present.unwrap(&wrappings::object(self.root(), number)?, new).await?;
                return Ok(Changed::Already);
            }
            let wrapped = match &wrapped {
                Some(wrapped) => wrapped,
                None => wrapped.insert(WrappedKey::new(&key, new, self.root(), Timestamp::now()).await?),
            };
            let record = Record::Wrapped(wrapped.clone());
            // Taken: by somebody else, or by an attempt of ours whose answer got lost.
            if self.store.create(&there.next()?, record.object()).await? == Claim::Won {
                return Ok(Changed::Now);
            }
        }
        Err(KeyError::Busy { archive: self.root().clone() }.into())
    }

    /// The key of this name opens the archive no more. What it wrapped is written over; a bucket with versions keeps it all the same.
    ///
    /// # Errors
    /// When it is the one that is configured, or none of the archive's, and when the one that is configured does not open the archive.
    pub async fn remove_master(&self, id: &str) -> Result<Changed, ArchiveError> {
        let (master, _) = self.own_key().await?;
        if master.id() == id {
            return Err(KeyError::InUse { id: id.to_owned(), file: master.file().to_owned() }.into());
        }
        let mut changed = Changed::Already;
        for _ in 0..ATTEMPTS {
            let there = self.wrappings().await?;
            // What cannot be read might say that ours is removed.
            there.expect_undamaged()?;
            there.expect_one_key()?;
            // Somebody else may have removed ours meanwhile: then theirs is the last one.
            let (own, wrapped) = there.of(&master.id()).ok_or_else(|| self.is_not_ours(&there, &master))?;
            // What opened it a moment ago may be another record than the one that stays.
            wrapped.unwrap(&wrappings::object(self.root(), own)?, &master).await?;
            let Some((number, _)) = there.of(id) else {
                if !there.removals().any(|removal| removal.master == id) {
                    return Err(KeyError::Unknown { archive: self.root().clone(), id: id.to_owned(), keys: there.masters()? }.into());
                }
                self.write_over(&there, id).await?;
                return Ok(changed);
            };
            let record = Record::removal(self.root(), number, id, Timestamp::now());
            if self.store.create(&there.next()?, record.object()).await? == Claim::Won {
                changed = Changed::Now;
            }
        }
        Err(KeyError::Busy { archive: self.root().clone() }.into())
    }

    /// What was removed is there no more. The order matters: nothing is written over before everybody can know that it is removed.
    async fn write_over(&self, there: &Wrappings, id: &str) -> Result<(), ArchiveError> {
        for (number, master) in there.left_behind().into_iter().filter(|(_, master)| master == id) {
            let record = Record::removal(self.root(), number, &master, Timestamp::now());
            self.store.replace(&wrappings::object(self.root(), number)?, record.object()).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "masters_tests.rs"]
mod tests;
