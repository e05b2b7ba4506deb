//! How a data directory that no server uses comes to follow the leader.

use super::view::StoppedData;
use crate::postgres::rewind::{self, Origin, Relation};

/// A rewind that failed this often is given up for a copy.
const REWINDS: u32 = 2;

/// What decides between a rewind and a copy, besides the data and the leader's history.
#[derive(Debug, Clone)]
pub struct Rejoin {
    /// `use_pg_rewind`.
    pub may_rewind: bool,
    /// `use_slots`.
    pub slots: bool,
    /// A comparison while running has shown that the histories parted.
    pub known_diverged: bool,
    /// Attempts so far.
    pub failures: u32,
    /// The disk is full: a rewind would end half-way.
    pub disk_full: bool,
    /// A copy did not fit on the disk a moment ago.
    pub copy_waits: bool,
    /// `archive_command`, where WAL is archived.
    pub archive_command: Option<String>,
    /// There is a `restore_command`: pg_rewind may fetch WAL with it that is no longer here.
    pub may_restore: bool,
}

/// What is done with the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// It is another database cluster's: nothing.
    Refuse,
    /// It can follow as it is.
    AsItIs,
    /// It is taken back to where the histories parted.
    Rewind,
    /// It is replaced by a copy.
    Copy,
    /// It would have to be changed, and there is no room for that.
    NoRoom,
}

/// Chooses the way.
pub fn way(data: &StoppedData, origin: &Origin, how: &Rejoin) -> Way {
    match rewind::relation(&data.control, data.past.as_deref(), origin) {
        Relation::Foreign => return Way::Refuse,
        Relation::Ancestor if !data.half_rewound && !how.known_diverged => return Way::AsItIs,
        _ => {}
    }
    if how.disk_full {
        return Way::NoRoom;
    }
    // Two histories of one timeline: pg_rewind compares its number, and would find nothing to do.
    let same_timeline = data.control.timeline() == origin.timeline;
    match how.may_rewind && data.control.rewindable && how.failures < REWINDS && !same_timeline {
        true => Way::Rewind,
        false if how.copy_waits => Way::NoRoom,
        false => Way::Copy,
    }
}
