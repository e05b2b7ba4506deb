//! The postmaster below the guard: started so that it cannot outlive the guard, stopped, and cleared up after.

use std::{
    os::unix::process::CommandExt,
    process::{Command, Stdio},
    time::Duration,
};

use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal, setsid};

use super::{
    Guard, leftovers,
    protocol::{FromGuard, StopMode},
};
use crate::sys::{clock::Moment, process_table::signal};

/// How long PostgreSQL may take for a fast shutdown when the guard has to end it without the agent.
pub(super) const FAST_STOP: Duration = Duration::from_secs(20);

/// The running postmaster.
pub(super) struct Postmaster {
    pub(super) pid: i32,
    /// Set once it was stopped by us: when SIGKILL follows.
    pub(super) kill_at: Option<Moment>,
    pub(super) fenced: bool,
    /// How it ended; what it has started may be there still.
    pub(super) ended: Option<String>,
}

impl Guard {
    pub(super) fn start_postmaster(&mut self, program: &str, arguments: &[String]) {
        if let Some(postmaster) = &self.postmaster {
            let pid = postmaster.pid;
            return self.tell(&FromGuard::Running { pid });
        }
        let guard = getpid();
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).env(leftovers::MARK, guard.as_raw_nonzero().to_string());
        if let Some(before) = self.oom_before {
            // PostgreSQL's own way to let its processes be chosen while the postmaster is spared.
            command.env("PG_OOM_ADJUST_FILE", "/proc/self/oom_score_adj").env("PG_OOM_ADJUST_VALUE", before.to_string());
        }
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
                self.postmaster = Some(Postmaster { pid, kill_at: None, fenced: false, ended: None });
                self.tell(&FromGuard::Running { pid });
            }
            Err(error) => self.tell(&FromGuard::NotStarted { why: format!("cannot run '{program}': {error}") }),
        }
    }

    pub(super) fn stop_postmaster(&mut self, mode: StopMode, limit: Duration, fenced: bool) {
        let Some(postmaster) = self.postmaster.as_mut().filter(|p| p.ended.is_none()) else { return };
        postmaster.fenced |= fenced;
        match mode {
            StopMode::Fast => signal(postmaster.pid, Signal::INT),
            StopMode::Immediate => signal(postmaster.pid, Signal::QUIT),
            StopMode::Kill => self.processes.kill_tree(postmaster.pid),
        }
        let kill_at = Moment::now() + limit;
        postmaster.kill_at = Some(postmaster.kill_at.map_or(kill_at, |earlier| earlier.min(kill_at)));
        if mode == StopMode::Kill {
            self.tell(&FromGuard::Killed);
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
