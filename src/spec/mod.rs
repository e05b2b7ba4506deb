//! What users write, checked once: raw text becomes a [`ClusterSpec`], in which values cannot be wrong.

mod archive;
pub mod backup_policy;
mod check;
mod clone;
mod cluster;
mod difference;
pub mod dynamic;
pub mod idle;
mod mistake;
mod parameters;
mod raw;
pub mod settings;
pub mod slots;
pub mod standby_cluster;

pub use archive::{ArchiveOptions, ArchiveSpec, ArchiveStore, check_endpoint, check_region};
pub use check::{SpecDocument, SpecOverrides, check_first_port, check_spec, misspelt, nearest, parse_spec};
pub use clone::{CloneSource, CloneWish};
pub use cluster::{ClusterSpec, Durability, EtcdCount, HaTimings, NodeCount, OutOfRange, PostgresVersion};
pub use difference::{Difference, archive_differences, differences};
pub use mistake::{InvalidSpec, Mistake, Origin};
pub use raw::{UnreadableSpec, parse_spec_text};
