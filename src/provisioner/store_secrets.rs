//! The secrets that a cluster's nodes reach their archive with: what they are, and which files they are to have from now on.

use std::{fmt, path::PathBuf};

use serde::Serialize;

use crate::spec::ArchiveSpec;

/// One of the secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StoreSecret {
    /// What opens the bucket.
    Credentials,
    /// What opens the archive, which is encrypted.
    Key,
}

impl StoreSecret {
    /// Every one.
    pub const ALL: [StoreSecret; 2] = [StoreSecret::Credentials, StoreSecret::Key];

    /// Where a spec says in which file it is.
    pub fn path_in(self, archive: &ArchiveSpec) -> Option<&PathBuf> {
        match self {
            StoreSecret::Credentials => archive.credentials_file.as_ref(),
            StoreSecret::Key => archive.key_file.as_ref(),
        }
    }

    /// The key of a spec's section `archive` that names the file.
    pub fn spec_key(self) -> &'static str {
        match self {
            StoreSecret::Credentials => "archive.credentials_file",
            StoreSecret::Key => "archive.key_file",
        }
    }
}

impl fmt::Display for StoreSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StoreSecret::Credentials => "credentials of the store",
            StoreSecret::Key => "key of the archive",
        })
    }
}

/// The files, on the machine of whoever asks, whose content the nodes are to have. What is not said stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreSecrets {
    /// With the credentials of the store.
    pub credentials_file: Option<PathBuf>,
    /// With the key of the archive.
    pub key_file: Option<PathBuf>,
}

impl StoreSecrets {
    /// Those that a spec names, and those that it says nothing of.
    pub fn of(archive: Option<&ArchiveSpec>) -> StoreSecrets {
        let path = |secret: StoreSecret| archive.and_then(|archive| secret.path_in(archive)).cloned();
        StoreSecrets { credentials_file: path(StoreSecret::Credentials), key_file: path(StoreSecret::Key) }
    }

    /// The file with this one.
    pub fn path(&self, secret: StoreSecret) -> Option<&PathBuf> {
        match secret {
            StoreSecret::Credentials => self.credentials_file.as_ref(),
            StoreSecret::Key => self.key_file.as_ref(),
        }
    }

    /// The archive with these files instead of those that it names.
    ///
    /// # Errors
    /// The secret that it was made without: its nodes do not ask for one.
    pub fn over(&self, archive: &ArchiveSpec) -> Result<ArchiveSpec, StoreSecret> {
        if let Some(added) = StoreSecret::ALL.into_iter().find(|secret| self.path(*secret).is_some() && secret.path_in(archive).is_none()) {
            return Err(added);
        }
        Ok(ArchiveSpec {
            credentials_file: self.credentials_file.clone().or(archive.credentials_file.clone()),
            key_file: self.key_file.clone().or(archive.key_file.clone()),
            ..archive.clone()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_stays_and_what_was_not_there_is_not_added() {
        let archive = ArchiveSpec { credentials_file: Some("/old".into()), ..ArchiveSpec::volume() };
        let credentials = |path: &str| StoreSecrets { credentials_file: Some(path.into()), key_file: None };
        assert_eq!(credentials("/new").over(&archive).unwrap(), ArchiveSpec { credentials_file: Some("/new".into()), ..archive.clone() });
        assert_eq!(StoreSecrets::default().over(&archive).unwrap(), archive);
        assert_eq!(credentials("/new").over(&ArchiveSpec::volume()), Err(StoreSecret::Credentials));
        let key = StoreSecrets { key_file: Some("/key".into()), ..StoreSecrets::of(Some(&archive)) };
        assert_eq!(key.over(&archive), Err(StoreSecret::Key), "an archive is encrypted from its beginning or not at all");
    }
}
