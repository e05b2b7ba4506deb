//! The words of the field as types: what each may hold is checked once, when it is parsed. No I/O.

mod lsn;
mod names;
mod secret;
mod system_id;
mod term;
mod timeline;
mod wal_file;

pub use lsn::Lsn;
pub use names::{ClusterName, InvalidName, MemberName};
pub use secret::Secret;
pub use system_id::SystemId;
pub use term::Term;
pub use timeline::{HistoryLine, Timeline, parse_history, timeline_at};
pub use wal_file::{InvalidWalFile, WalFile, WalSegment};
