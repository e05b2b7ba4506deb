//! Room on the disk: for copies, and for the server to go on.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Memory;
use crate::sys::clock::Moment;

/// Pause after a copy that did not fit: it has moved as many bytes as there is room, and kept the disk full for a while.
const COPY_AGAIN: Duration = Duration::from_secs(60);

/// With fewer free bytes than this, a segment and a little, the disk is full: PostgreSQL ends when it cannot make its next segment.
const DISK_FULL: u64 = 24 << 20;

/// With more free bytes than this it is not full any more.
const ROOM_AGAIN: u64 = 64 << 20;

/// A copy did not fit on the disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoRoom {
    /// What there was and what can be done.
    pub why: String,
    /// Bytes that were free for it.
    pub free: u64,
    /// No other copy is begun before this, unless there is clearly more room.
    pub until: Moment,
}

impl Memory {
    /// A copy did not fit on the disk.
    pub fn copy_did_not_fit(&mut self, why: String, free: u64, now: Moment) {
        self.no_room = Some(NoRoom { why, free, until: now + COPY_AGAIN });
    }

    /// Why no copy is begun now, if it is for want of room.
    pub fn waits_for_room(&self, now: Moment) -> Option<&str> {
        self.no_room.as_ref().filter(|no_room| now < no_room.until).map(|no_room| no_room.why.as_str())
    }

    /// Takes in how much room there is on the disk. Having been full, it has to be more than not quite full.
    pub fn room_is(&mut self, free: u64) {
        let was_full = self.disk_full;
        self.disk_full = free < if was_full { ROOM_AGAIN } else { DISK_FULL };
        if was_full && !self.disk_full {
            self.trouble_is_over();
        }
        if let Some(no_room) = self.no_room.as_mut().filter(|no_room| free > no_room.free.saturating_mul(2).max(ROOM_AGAIN)) {
            no_room.until = Moment(0);
        }
    }
}
