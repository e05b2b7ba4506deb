//! What lets the guard act when the machine is short of memory or time: it is asked for once, at the start, and done without where it is
//! not permitted.

use super::Guard;
use crate::sys::{memory, priority};

/// No process has this id: the largest that Linux gives out is far below.
const NOBODY: i32 = i32::MAX;

impl Guard {
    /// To be spared when memory is short; the agent, started after this, is spared too. PostgreSQL's own processes are not, but for the
    /// postmaster: one of them that eats the memory is to be killed, not the one that watches over it.
    pub(super) fn ask_to_be_spared(&mut self) {
        self.oom_before = priority::spare_from_oom();
    }

    /// Locks what is in memory, and makes sure that the way to the kill is: it is walked once, with nobody at its end.
    pub(super) fn stay_ready(&mut self) {
        memory::give_back_code();
        if let Err(error) = memory::lock() {
            tracing::warn!("the guard's memory is not locked ({error}): its pages may have to be read while the disk hangs");
        }
        self.processes.kill_tree(NOBODY);
        if let Some(granted) = priority::run_first() {
            tracing::debug!("the guard has {granted}");
        }
    }
}
