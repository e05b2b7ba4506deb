//! The agent below the guard: started, heard, told, and started again when it dies.

use std::{
    io::{Read, Write},
    os::{
        fd::OwnedFd,
        unix::{net::UnixStream, process::CommandExt},
    },
    process::{Command, Stdio},
    time::Duration,
};

use rustix::process::WaitStatus;

use super::{
    EXIT_FATAL, Guard, GuardError, cannot, in_words,
    postmaster::FAST_STOP,
    protocol::{FromGuard, StopMode, ToGuard},
};
use crate::sys::clock::Moment;

/// Longest pause before an agent that keeps dying is started again.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// An agent that lived this long was not failing at its start.
const SETTLED: Duration = Duration::from_secs(10);

/// The running agent.
pub(super) struct Worker {
    pub(super) pid: i32,
    pub(super) link: UnixStream,
    /// What was read and is not yet a whole line.
    pub(super) unread: Vec<u8>,
    pub(super) started: Moment,
}

impl Guard {
    pub(super) fn start_worker(&mut self) -> Result<(), GuardError> {
        let (ours, theirs) = UnixStream::pair().map_err(cannot("make a socket pair"))?;
        // The executable itself, even when the file has been replaced meanwhile: agent and guard stay one version.
        let mut command = Command::new("/proc/self/exe");
        command.arg0("spilo").args(&self.arguments).stdin(Stdio::from(OwnedFd::from(theirs)));
        let child = command.spawn().map_err(cannot("start the agent"))?;
        ours.set_nonblocking(true).map_err(cannot("use the socket pair"))?;
        let pid = i32::try_from(child.id()).unwrap_or_default();
        self.worker = Some(Worker { pid, link: ours, unread: Vec::new(), started: Moment::now() });
        self.restart_at = None;
        match &self.postmaster {
            Some(postmaster) => self.tell(&FromGuard::Running { pid: postmaster.pid }),
            None => self.tell(&FromGuard::Idle),
        }
        Ok(())
    }

    pub(super) fn restart_worker_if_due(&mut self) -> Result<(), GuardError> {
        match self.restart_at {
            Some(at) if Moment::now() >= at && !self.terminating && !self.unclean => self.start_worker(),
            _ => Ok(()),
        }
    }

    pub(super) fn next_message(&mut self) -> Option<ToGuard> {
        let worker = self.worker.as_mut()?;
        let mut buffer = [0_u8; 4096];
        while let Ok(read @ 1..) = worker.link.read(&mut buffer) {
            worker.unread.extend_from_slice(&buffer[..read]);
        }
        // Half a line stays where it is: an agent that was stopped in the middle of it must not stop us.
        let end = worker.unread.iter().position(|byte| *byte == b'\n')?;
        let line: Vec<u8> = worker.unread.drain(..=end).collect();
        serde_json::from_slice(&line).map_err(|e| tracing::error!("the agent said something unreadable: {e}")).ok()
    }

    pub(super) fn tell(&mut self, message: &FromGuard) {
        if let Some(worker) = &mut self.worker {
            let mut line = serde_json::to_string(message).expect("numbers and texts, so JSON cannot fail");
            line.push('\n');
            // An agent that is gone is restarted and told the state then.
            let _ = worker.link.write_all(line.as_bytes());
        }
    }

    pub(super) fn worker_ended(&mut self, status: WaitStatus) {
        let lived = self.worker.take().map_or(Duration::ZERO, |w| Moment::now().since(w.started));
        self.unclean = true;
        match status.exit_status() {
            Some(0) if self.terminating => {}
            Some(code) if code == i32::from(EXIT_FATAL) => {
                self.terminating = true;
                self.exit_code = EXIT_FATAL;
            }
            _ if self.terminating => tracing::warn!("the agent ended while stopping: {}", in_words(status)),
            _ => {
                self.quick_deaths = if lived > SETTLED { 0 } else { self.quick_deaths + 1 };
                let pause = (Duration::from_millis(100) * self.quick_deaths.saturating_sub(1)).min(LONGEST_PAUSE);
                tracing::warn!("the agent ended ({}): starting it again in {pause:?}", in_words(status));
                self.restart_at = Some(Moment::now() + pause);
                return;
            }
        }
        self.stop_postmaster(StopMode::Fast, FAST_STOP, false);
    }
}
