//! The words of the field as types: what each may hold is checked once, when it is parsed. No I/O.

mod backup_id;
mod count;
mod disk_forecast;
mod kms_key;
mod length;
mod lsn;
mod names;
mod object_name;
mod recovery_goal;
mod recovery_target;
mod secret;
mod store_config;
mod store_url;
mod system_id;
mod term;
mod timeline;
mod wal_account;
mod wal_file;

pub use backup_id::{BackupId, InvalidBackupId};
pub use count::counted;
pub use disk_forecast::DiskForecast;
pub use kms_key::{InvalidKmsKey, KmsKey};
pub use length::length_in_words;
pub use lsn::Lsn;
pub use names::{ClusterName, InvalidName, MemberName};
pub use object_name::{InvalidObjectName, ObjectName};
pub use recovery_goal::{GOAL_KEYS, RecoveryGoal, WrongGoal};
pub use recovery_target::{InvalidTarget, RecoveryTarget, TargetTimeline};
pub use secret::Secret;
pub use store_config::StoreConfig;
pub use store_url::{InvalidStoreUrl, StoreUrl};
pub use system_id::SystemId;
pub use term::Term;
pub use timeline::{HistoryLine, Timeline, parse_history, timeline_at};
pub use wal_account::{WalAccount, WalConflict, WalFailure};
pub use wal_file::{InvalidWalFile, WalFile, WalSegment};
