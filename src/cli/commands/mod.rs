//! One file per command: its help, its arguments, and `run`.

pub mod agent;
pub mod agent_worker;
pub mod apply;
pub mod backup;
pub mod backup_verify;
pub mod completion;
pub mod connect;
pub mod create_cluster;
pub mod delete_cluster;
pub mod doctor;
pub mod dsn;
pub mod help;
pub mod image;
pub mod list;
pub mod logs;
pub mod plan;
pub mod probe;
pub mod request;
pub mod router;
pub mod scale;
pub mod status;
pub mod switchover;
pub mod version;
pub mod wal;
pub mod wal_check;
