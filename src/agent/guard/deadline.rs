//! The deadline: until when PostgreSQL may run as a primary, and what happens then.

use std::{os::fd::AsFd, time::Duration};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{Guard, GuardError, cannot, children, protocol::StopMode, signals::Signals};
use crate::sys::clock::Moment;

impl Guard {
    /// Sleeps until a signal, a message, or the next moment at which something is due.
    pub(super) fn wait_for_something(&self, signals: &Signals) -> Result<(), GuardError> {
        let due = [self.deadline.filter(|_| self.is_guarding()), self.postmaster.as_ref().and_then(|p| p.kill_at), self.restart_at];
        let now = Moment::now();
        let timeout = due.into_iter().flatten().min().map(|at| at.since(now) + Duration::from_millis(1));
        let mut fds = vec![
            PollFd::from_borrowed_fd(signals.child.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(signals.terminate.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(signals.reload.as_fd(), PollFlags::IN),
        ];
        if let Some(worker) = &self.worker {
            fds.push(PollFd::from_borrowed_fd(worker.link.as_fd(), PollFlags::IN));
        }
        let timeout =
            timeout.map(|t| Timespec { tv_sec: i64::try_from(t.as_secs()).unwrap_or(i64::MAX), tv_nsec: t.subsec_nanos().into() });
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(cannot("wait")(error.into())),
        }
    }

    /// True while there is a postmaster that the deadline is about and that is not yet being stopped for it.
    pub(super) fn is_guarding(&self) -> bool {
        self.postmaster.as_ref().is_some_and(|p| !p.fenced)
    }

    /// Stops PostgreSQL when the lease has ended, and kills what does not stop.
    pub(super) fn enforce(&mut self) {
        let now = Moment::now();
        if self.is_guarding() && self.deadline.is_some_and(|deadline| now >= deadline) {
            tracing::error!("the lease was not renewed in time: stopping PostgreSQL");
            self.stop_postmaster(StopMode::Immediate, self.grace, true);
        }
        if let Some(postmaster) = &mut self.postmaster
            && postmaster.kill_at.is_some_and(|at| now >= at)
        {
            postmaster.kill_at = Some(now + Duration::from_millis(200));
            children::kill_tree(postmaster.pid);
        }
    }
}
