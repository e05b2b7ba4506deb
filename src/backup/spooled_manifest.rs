//! A manifest that is read as often as needed without being in memory: its object goes to a temporary file once, and its digest is checked on
//! the way.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
};

use super::{
    BackupId,
    archive::{Archive, ArchiveError},
    manifest::Header,
    manifest_file::{self, Entries, ManifestCheck, PREFIX},
};
use crate::{model::ObjectName, storage::ObjectStore};

/// How much is read at once.
const PIECE: u64 = 8 << 20;

/// The manifest of a backup in a file that nobody else sees, and that goes with the process.
pub struct SpooledManifest {
    header: Header,
    file: File,
    end_of_header: u64,
}

impl SpooledManifest {
    /// Reads it. `None`: there is no such backup.
    ///
    /// # Errors
    /// When the store does not say, when it is damaged, and when there is no room for it in the directory of temporary files.
    pub async fn read<S: ObjectStore>(archive: &Archive<S>, backup: &BackupId) -> Result<Option<SpooledManifest>, ArchiveError> {
        // The way from the store may be what is damaged.
        match SpooledManifest::read_once(archive, backup).await {
            Err(ArchiveError::Damaged { .. }) => SpooledManifest::read_once(archive, backup).await,
            read => read,
        }
    }

    async fn read_once<S: ObjectStore>(archive: &Archive<S>, backup: &BackupId) -> Result<Option<SpooledManifest>, ArchiveError> {
        let object = archive.manifest(backup)?;
        let Some(first) = archive.store().read_range(&object, 0, PIECE).await? else { return Ok(None) };
        let damaged = |why| ArchiveError::Damaged { object: object.clone(), why };
        let mut check = ManifestCheck::begin(&first).map_err(damaged)?;
        let mut file = tempfile::tempfile().map_err(unwritable)?;
        file.write_all(&first).map_err(unwritable)?;
        let (mut length, mut last) = (first.len() as u64, first.len() as u64);
        while last == PIECE {
            let piece = archive.store().read_range(&object, length, PIECE).await?;
            let piece = piece.ok_or_else(|| damaged("it was there and is gone".to_owned()))?;
            check.update(&piece);
            file.write_all(&piece).map_err(unwritable)?;
            last = piece.len() as u64;
            length += last;
        }
        check.finish().map_err(damaged)?;
        SpooledManifest::open(file, &object).map(Some)
    }

    /// From here on it is what was written.
    fn open(mut file: File, object: &ObjectName) -> Result<SpooledManifest, ArchiveError> {
        let damaged = |why| ArchiveError::Damaged { object: object.clone(), why };
        let beginning = read_beginning(&mut file, PREFIX).map_err(unwritable)?;
        let end = manifest_file::header_end(&beginning).map_err(damaged)?;
        let beginning = read_beginning(&mut file, end).map_err(unwritable)?;
        let header = manifest_file::read_header(&beginning).map_err(damaged)?;
        Ok(SpooledManifest { header, file, end_of_header: end as u64 })
    }

    /// Its header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Its entries from the first on. One reader at a time: they share the file's position.
    ///
    /// # Errors
    /// When the file cannot be read, or there is no memory for the decompressor: that says nothing of the manifest.
    pub fn entries(&mut self) -> Result<Entries<File>, ArchiveError> {
        let again = || {
            let mut file = self.file.try_clone()?;
            file.seek(SeekFrom::Start(self.end_of_header))?;
            Entries::new(file, &self.header).map_err(io::Error::other)
        };
        again().map_err(unwritable)
    }
}

fn read_beginning(file: &mut File, length: usize) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(0))?;
    let mut beginning = Vec::new();
    file.take(length as u64).read_to_end(&mut beginning)?;
    Ok(beginning)
}

fn unwritable(source: io::Error) -> ArchiveError {
    ArchiveError::file("keep a manifest in", std::env::temp_dir())(source)
}
