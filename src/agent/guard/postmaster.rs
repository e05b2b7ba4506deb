//! The postmaster below the guard: started so that it cannot outlive the guard, stopped, and cleared up after.

use std::{
    os::unix::process::CommandExt,
    process::{Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, getpid, getppid, set_parent_process_death_signal, setsid};

use super::{
    Guard, children, in_words,
    protocol::{FromGuard, StopMode},
};
use crate::sys::clock::Moment;

/// How long PostgreSQL may take for a fast shutdown when the guard has to end it without the agent.
pub(super) const FAST_STOP: Duration = Duration::from_secs(20);

/// The running postmaster.
pub(super) struct Postmaster {
    pub(super) pid: i32,
    /// Set once it was stopped by us: when SIGKILL follows.
    pub(super) kill_at: Option<Moment>,
    pub(super) fenced: bool,
}

impl Guard {
    pub(super) fn start_postmaster(&mut self, program: &str, arguments: &[String]) {
        if let Some(postmaster) = &self.postmaster {
            let pid = postmaster.pid;
            return self.tell(&FromGuard::Running { pid });
        }
        let guard = getpid();
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null());
        // SAFETY: these calls are async-signal-safe system calls without allocation.
        unsafe {
            command.pre_exec(move || {
                // When the guard dies, nobody enforces the lease any more: PostgreSQL stops with it.
                set_parent_process_death_signal(Some(Signal::QUIT))?;
                // It may have died already.
                if getppid() != Some(guard) {
                    return Err(std::io::ErrorKind::BrokenPipe.into());
                }
                // Its own session: a Ctrl-C for us is not one for PostgreSQL.
                setsid()?;
                Ok(())
            });
        }
        match command.spawn() {
            Ok(child) => {
                let pid = i32::try_from(child.id()).unwrap_or_default();
                self.postmaster = Some(Postmaster { pid, kill_at: None, fenced: false });
                self.tell(&FromGuard::Running { pid });
            }
            Err(error) => self.tell(&FromGuard::NotStarted { why: format!("cannot run '{program}': {error}") }),
        }
    }

    pub(super) fn stop_postmaster(&mut self, mode: StopMode, limit: Duration, fenced: bool) {
        let Some(postmaster) = &mut self.postmaster else { return };
        postmaster.fenced |= fenced;
        match mode {
            StopMode::Fast => children::signal(postmaster.pid, Signal::INT),
            StopMode::Immediate => children::signal(postmaster.pid, Signal::QUIT),
            StopMode::Kill => children::kill_tree(postmaster.pid),
        }
        let kill_at = Moment::now() + limit;
        postmaster.kill_at = Some(postmaster.kill_at.map_or(kill_at, |earlier| earlier.min(kill_at)));
    }

    pub(super) fn postmaster_ended(&mut self, status: WaitStatus) {
        let fenced = self.postmaster.take().is_some_and(|p| p.fenced);
        self.kill_orphans();
        self.deadline = None;
        self.tell(&FromGuard::Ended { status: in_words(status), fenced });
    }

    /// Kills every child that is neither the agent nor the postmaster: backends of a postmaster that was killed, and programs that a dead
    /// agent had running. Either would write to a directory that somebody else believes to own.
    pub(super) fn kill_orphans(&self) {
        let known = [self.worker.as_ref().map(|w| w.pid), self.postmaster.as_ref().map(|p| p.pid)];
        for _ in 0..100 {
            let orphans: Vec<i32> =
                children::of(getpid().as_raw_nonzero().get()).into_iter().filter(|c| !known.contains(&Some(*c))).collect();
            if orphans.is_empty() {
                return;
            }
            for orphan in orphans {
                children::kill_tree(orphan);
                if let Some(pid) = Pid::from_raw(orphan) {
                    let _ = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG);
                }
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// After how long SIGKILL follows. PostgreSQL itself kills what does not heed an immediate stop within five seconds, unless it is the
/// postmaster that hangs.
pub(super) fn limit(mode: StopMode) -> Duration {
    match mode {
        StopMode::Fast => Duration::from_secs(3600),
        StopMode::Immediate | StopMode::Kill => Duration::from_secs(8),
    }
}
