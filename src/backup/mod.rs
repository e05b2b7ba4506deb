//! Base backups and the WAL archive: stories over a store and a server.

mod archive;
pub mod archived_wal;
mod backup_id;
pub mod base_backup;
pub mod catalog;
pub mod chunk;
pub mod drill;
pub mod expire;
pub mod expire_plan;
pub mod manifest;
mod manifest_entries;
pub mod manifest_file;
pub mod marks;
pub mod pack;
pub mod postgres_manifest;
pub mod problem;
pub mod restore;
pub mod retention;
pub mod schedule;
pub mod spooled_manifest;
pub mod verdict;
pub mod verify;
mod verify_packs;
pub mod wal_check;
mod wal_fetch;
pub mod wal_graph;
pub mod wal_need;
mod wal_object;
mod wal_push;
pub mod wal_service;
pub mod wal_silence;
pub mod wal_wire;

pub use archive::{Archive, ArchiveError};
pub use backup_id::{BackupId, InvalidBackupId};
pub use wal_fetch::{Fetched, fetch};
pub use wal_push::{Pushed, push};
