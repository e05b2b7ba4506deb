//! The deadline: until when PostgreSQL may run as a primary, and what happens then.

use std::{os::fd::AsFd, time::Duration};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{Guard, GuardError, cannot, protocol::StopMode, signals::Signals};
use crate::sys::clock::Moment;

/// How soon it is looked again whether a process that was killed is gone; its parent's signal mostly says so earlier.
const CLEARING: Duration = Duration::from_millis(5);

/// How soon what was killed is killed again.
const AGAIN: Duration = Duration::from_millis(200);

impl Guard {
    /// Sleeps until a signal, a message, or the next moment at which something is due.
    pub(super) fn wait_for_something(&self, signals: &Signals) -> Result<(), GuardError> {
        let timeout = self.next_due().map(|at| at.since(Moment::now()) + Duration::from_millis(1)).map(|timeout| Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        let link = self.worker.as_ref().map_or(signals.child.as_fd(), |worker| worker.link.as_fd());
        let mut fds = [signals.child.as_fd(), signals.terminate.as_fd(), signals.reload.as_fd(), link]
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(cannot("wait")(error.into())),
        }
    }

    fn next_due(&self) -> Option<Moment> {
        let fence = self.deadline.filter(|_| self.is_guarding());
        let kill = self.running().and_then(|p| p.kill_at);
        let clearing = self.unclean.then(|| Moment::now() + CLEARING);
        let restart = self.restart_at.filter(|_| !self.unclean && !self.terminating);
        [fence, kill, clearing, restart].into_iter().flatten().min()
    }

    /// True while there is a postmaster that the deadline is about and that is not yet being stopped for it.
    pub(super) fn is_guarding(&self) -> bool {
        self.running().is_some_and(|p| !p.fenced)
    }

    /// Stops PostgreSQL when the lease has ended, and kills what does not stop. Up to the last signal nothing is allocated and nothing is
    /// written: this has to work when there is no memory and the log hangs.
    pub(super) fn enforce(&mut self) {
        let now = Moment::now();
        let late = self.is_guarding() && self.deadline.is_some_and(|deadline| now >= deadline);
        if late {
            self.stop_postmaster(StopMode::Immediate, self.grace, true);
        }
        let kill = self.running().filter(|p| p.kill_at.is_some_and(|at| now >= at)).map(|p| p.pid);
        if let Some(pid) = kill {
            self.processes.kill_tree(pid);
            self.postmaster.iter_mut().for_each(|p| p.kill_at = Some(now + AGAIN));
        }
        if late {
            tracing::error!("the lease was not renewed in time: stopping PostgreSQL");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::super::{allocations, postmaster::Postmaster};
    use super::*;

    /// A guard over a shell that heeds nothing but SIGKILL, and two children of it.
    fn guard_of_a_stubborn_one() -> (Guard, std::process::Child) {
        let script = "trap '' QUIT; sleep 60 & sleep 60 & wait; sleep 60";
        let child = Command::new("sh").args(["-c", script]).spawn().unwrap();
        let mut guard = Guard::new(Vec::new()).unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        guard.postmaster = Some(Postmaster { pid, kill_at: None, fenced: false, ended: None });
        let ready = (0..500).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            guard.processes.children(pid).count() == 2
        });
        assert!(ready);
        (guard, child)
    }

    #[test]
    fn the_way_to_the_kill_allocates_nothing() {
        let (mut guard, mut child) = guard_of_a_stubborn_one();
        (guard.deadline, guard.grace) = (Some(Moment::now()), Duration::ZERO);
        assert_eq!(allocations::during(|| guard.enforce()), 0);
        let again = allocations::during(|| {
            std::thread::sleep(Duration::from_millis(2));
            guard.enforce();
        });
        assert_eq!(again, 0);
        let status = child.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{status}");
    }

    #[test]
    fn a_lease_that_lasts_stops_nobody() {
        let (mut guard, mut child) = guard_of_a_stubborn_one();
        guard.deadline = Some(Moment::now() + Duration::from_secs(60));
        guard.enforce();
        assert!(child.try_wait().unwrap().is_none() && guard.is_guarding());
        guard.processes.kill_tree(i32::try_from(child.id()).unwrap());
        child.wait().unwrap();
    }
}
