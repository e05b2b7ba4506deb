//! What a base backup is made of. The manifest is written last and under a name of its own, so a backup exists when its manifest does; it
//! names the place of every chunk itself, also of those that earlier backups have stored, so a restore never looks at another backup.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::BackupId;
use crate::model::{Lsn, SystemId, Timeline};

/// All but the files: kept as JSON at the object's beginning, so that a catalogue is read without the rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The backup's name.
    pub id: BackupId,
    /// Which version of spilo has made it.
    pub made_by: String,
    /// The cluster it is of, as its users call it.
    pub cluster: String,
    /// The member whose files were read.
    pub member: String,
    /// Whether that member was a standby.
    pub from_standby: bool,
    /// Whose data it is.
    pub system: SystemId,
    /// PostgreSQL's `server_version_num`.
    pub server_version: u32,
    /// The version of its catalogues: the last part of a tablespace's directory, `PG_15_202209061`.
    pub catalog_version: u32,
    /// Permissions of the data directory itself.
    pub data_dir_mode: u32,
    /// Bytes of a WAL segment.
    pub segment_size: u32,
    /// Bytes of a page.
    pub page_size: u32,
    /// Whether pages carry checksums.
    pub checksums: bool,
    /// Where recovery begins.
    pub start: Moment,
    /// Where the data becomes consistent: all WAL from start to here is needed.
    pub stop: Moment,
    /// The content of `backup_label`.
    pub label: String,
    /// The content of `tablespace_map`, empty without tablespaces.
    pub tablespace_map: String,
    /// Tablespaces besides the two of every cluster.
    pub tablespaces: Vec<Tablespace>,
    /// The backup it was compared with; it is not needed for a restore.
    pub parent: Option<BackupId>,
    /// Every pack that has a chunk of this backup. [`ChunkPlace::pack`] counts in it.
    pub packs: Vec<Pack>,
    /// How many files and directories follow.
    pub entries: u64,
    /// Bytes of all files.
    pub size: u64,
    /// Bytes that were stored for this backup alone.
    pub stored: u64,
    /// How many pages had a wrong checksum, though nobody was writing them.
    pub bad_page_count: u64,
    /// The first [`BAD_PAGES_NAMED`] of them.
    pub bad_pages: Vec<BadPage>,
}

#[cfg(test)]
impl Header {
    /// Of an empty backup that took a minute, for tests to change.
    pub fn example(id: BackupId) -> Header {
        let at = |second, lsn| Moment { time: Timestamp::from_second(second).unwrap(), lsn: Lsn(lsn), timeline: Timeline(1) };
        Header {
            id,
            made_by: "test".to_owned(),
            cluster: "orders".to_owned(),
            member: "orders-1".to_owned(),
            from_standby: false,
            system: SystemId(7_300_000_000_000_000_001),
            server_version: 150_008,
            catalog_version: 202_209_061,
            data_dir_mode: 0o700,
            segment_size: 16 << 20,
            page_size: 8192,
            checksums: true,
            start: at(1_795_293_900, 0x200_0028),
            stop: at(1_795_293_960, 0x300_0100),
            label: String::new(),
            tablespace_map: String::new(),
            tablespaces: Vec::new(),
            parent: None,
            packs: Vec::new(),
            entries: 0,
            size: 0,
            stored: 0,
            bad_page_count: 0,
            bad_pages: Vec::new(),
        }
    }
}

/// A broken disk has more bad pages than anybody reads.
pub const BAD_PAGES_NAMED: usize = 1000;

/// A point in time and WAL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// When.
    pub time: Timestamp,
    /// At which position.
    pub lsn: Lsn,
    /// Of which timeline.
    pub timeline: Timeline,
}

/// A tablespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tablespace {
    /// Its number, which is the name of its link in `pg_tblspc`.
    pub oid: u32,
    /// The directory that it was in.
    pub location: String,
}

/// One object with chunks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Pack {
    /// The backup that has stored it.
    pub backup: BackupId,
    /// Its number among that backup's.
    pub number: u32,
    /// Its size in bytes.
    pub size: u64,
}

/// A page that was stored as it was found: damaged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadPage {
    /// The file, from the data directory.
    pub file: String,
    /// Which page of the file, from 0.
    pub page: u32,
}

/// A file or a directory. They follow in the order of their paths' bytes; `global/pg_control` stands last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// From the data directory, `/` between parts. A tablespace's files lie below `pg_tblspc/OID/`. File systems do not ask for UTF-8.
    pub path: Vec<u8>,
    /// Permissions.
    pub mode: u32,
    /// Seconds since 1970 of the last change.
    pub modified: i64,
    /// What it is.
    pub kind: EntryKind,
}

impl Entry {
    /// How many bytes of content the chunk with this number has; nothing for a directory, or where there is no such chunk.
    pub fn chunk_length(&self, number: usize) -> usize {
        match &self.kind {
            EntryKind::File { size, chunk_size, chunks, .. } if number < chunks.len() => {
                let begin = number as u64 * u64::from(*chunk_size);
                usize::try_from(size.saturating_sub(begin).min(u64::from(*chunk_size))).unwrap_or(0)
            }
            _ => 0,
        }
    }
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A file.
    File {
        /// Bytes that were read of it.
        size: u64,
        /// CRC-32C of them.
        crc32c: u32,
        /// Bytes of each chunk but the last.
        chunk_size: u32,
        /// Its chunks in order.
        chunks: Vec<Chunk>,
    },
}

/// A piece of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// The first half of its BLAKE3.
    pub digest: [u8; 16],
    /// Where it is; `None`: all of it is zero, and it is nowhere.
    pub place: Option<ChunkPlace>,
}

/// Where a chunk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkPlace {
    /// Which of [`Header::packs`].
    pub pack: u32,
    /// At which byte of it.
    pub offset: u32,
    /// How many bytes it takes there.
    pub length: u32,
}
