//! After the end of the agent or of the postmaster: nothing of it may go on.

use rustix::process::{WaitStatus, getpid};

use super::{Guard, in_words, protocol::FromGuard};

impl Guard {
    /// The postmaster is gone; that it ended is told when everything it has started is gone too.
    pub(super) fn postmaster_ended(&mut self, status: WaitStatus) {
        if let Some(postmaster) = &mut self.postmaster {
            postmaster.ended = Some(in_words(status));
        }
        self.unclean = true;
    }

    /// Kills every child that is neither the agent nor the postmaster: backends of a postmaster that was killed, and programs that a dead
    /// agent had running. Either would write to a directory that somebody else believes to own. One that the kernel holds back is waited
    /// for, however long that takes.
    pub(super) fn clear_up(&mut self) {
        if !self.unclean {
            return;
        }
        let worker = self.worker.as_ref().map_or(0, |worker| worker.pid);
        let postmaster = self.running().map_or(0, |postmaster| postmaster.pid);
        if self.processes.kill_below(getpid().as_raw_nonzero().get(), &[worker, postmaster]) > 0 {
            // Reaped in the next turn, or the one after it.
            return;
        }
        self.unclean = false;
        if let Some(postmaster) = self.postmaster.take_if(|p| p.ended.is_some()) {
            self.deadline = None;
            self.disarm_watchdog();
            self.tell(&FromGuard::Ended { status: postmaster.ended.unwrap_or_default(), fenced: postmaster.fenced });
        }
    }
}
