//! The guard: the container's first process, small and without an async runtime. It is the parent of the agent and of the postmaster,
//! reaps, restarts a dead agent at once, and holds the lease deadline that the agent last proved. When that passes, because the agent is
//! dead, stopped, hung or cut off, the guard stops PostgreSQL. When the guard itself dies, the kernel stops the postmaster.

mod aftermath;
#[cfg(test)]
mod allocations;
mod claim;
mod deadline;
mod endurance;
mod leftovers;
mod link;
mod postmaster;
mod protocol;
mod signals;
mod watchdog;
mod worker;

use std::time::Duration;

pub use claim::take_agents_byte;
pub use link::{Guard as GuardLink, LinkError};
pub use protocol::{FromGuard, StopMode, ToGuard};
use rustix::process::{Signal, WaitOptions, WaitStatus, getpid, set_child_subreaper, wait};

use self::{
    postmaster::{FAST_STOP, Postmaster, limit},
    signals::{Signals, drain},
    worker::Worker,
};
use crate::sys::{
    clock::Moment,
    process_table::{ProcessTable, signal},
};

/// Exit code of the agent that says: do not start me again, what is wrong will not change by itself.
pub const EXIT_FATAL: u8 = 2;

/// The guard could not do its work.
#[derive(Debug, thiserror::Error)]
#[error("the guard cannot {action}")]
pub struct GuardError {
    action: &'static str,
    #[source]
    source: std::io::Error,
}

fn cannot(action: &'static str) -> impl FnOnce(std::io::Error) -> GuardError {
    move |source| GuardError { action, source }
}

/// What the guard knows.
struct Guard {
    arguments: Vec<String>,
    worker: Option<Worker>,
    restart_at: Option<Moment>,
    quick_deaths: u32,
    postmaster: Option<Postmaster>,
    deadline: Option<Moment>,
    grace: Duration,
    terminating: bool,
    exit_code: u8,
    processes: ProcessTable,
    /// The data directory, once the agent has named it.
    claim: Option<claim::Claim>,
    watchdog: Option<watchdog::Watchdog>,
    /// Something that ended may have left processes behind.
    unclean: bool,
    /// How much the kernel's killer spared this process before it was asked to do so more.
    oom_before: Option<i32>,
}

/// Runs until the agent has ended for good; `arguments` start it. Returns the process's exit code.
pub fn run(arguments: Vec<String>) -> Result<u8, GuardError> {
    // Orphans of PostgreSQL become our children: they can be found, and killed.
    set_child_subreaper(Some(getpid())).map_err(|e| cannot("become the reaper of orphans")(e.into()))?;
    let signals = signals::listen().map_err(cannot("receive signals"))?;
    let mut guard = Guard::new(arguments)?;
    guard.ask_to_be_spared();
    guard.start_worker()?;
    guard.stay_ready();
    while !guard.is_done() {
        guard.wait_for_something(&signals)?;
        guard.take_signals(&signals);
        guard.take_messages();
        guard.reap();
        guard.enforce();
        guard.clear_up();
        guard.restart_worker_if_due()?;
    }
    Ok(guard.exit_code)
}

impl Guard {
    fn new(arguments: Vec<String>) -> Result<Guard, GuardError> {
        Ok(Guard {
            arguments,
            worker: None,
            restart_at: None,
            quick_deaths: 0,
            postmaster: None,
            deadline: None,
            grace: Duration::from_millis(500),
            terminating: false,
            exit_code: 0,
            processes: ProcessTable::new().map_err(cannot("look at the processes"))?,
            claim: None,
            watchdog: None,
            unclean: false,
            oom_before: None,
        })
    }

    /// The postmaster, unless it has ended.
    fn running(&self) -> Option<&Postmaster> {
        self.postmaster.as_ref().filter(|postmaster| postmaster.ended.is_none())
    }

    fn is_done(&self) -> bool {
        self.terminating && self.worker.is_none() && self.postmaster.is_none() && !self.unclean
    }

    fn take_signals(&mut self, signals: &Signals) {
        drain(&signals.child);
        if drain(&signals.reload) > 0
            && let Some(worker) = &self.worker
        {
            signal(worker.pid, Signal::HUP);
        }
        if drain(&signals.terminate) > 0 {
            self.terminate();
        }
    }

    /// A request to end: the agent hands over and stops PostgreSQL; without one we stop PostgreSQL ourselves. A second request hastens.
    fn terminate(&mut self) {
        let again = std::mem::replace(&mut self.terminating, true);
        match &self.worker {
            Some(worker) if !again => signal(worker.pid, Signal::TERM),
            _ => self.stop_postmaster(if again { StopMode::Immediate } else { StopMode::Fast }, FAST_STOP, false),
        }
    }

    fn take_messages(&mut self) {
        while let Some(message) = self.next_message() {
            match message {
                ToGuard::Claim { data } => self.claim(data),
                ToGuard::Start { program, arguments } => self.start_postmaster(&program, &arguments),
                ToGuard::Stop(mode) => self.stop_postmaster(mode, limit(mode), false),
                ToGuard::Reload => {
                    if let Some(postmaster) = self.running() {
                        signal(postmaster.pid, Signal::HUP);
                    }
                }
                ToGuard::Watchdog { device, timeout } => self.use_watchdog(device, timeout),
                ToGuard::NoWatchdog => self.use_no_watchdog(),
                ToGuard::Deadline { until, grace } => {
                    (self.deadline, self.grace) = (until, grace);
                    self.proved(until);
                }
            }
        }
    }

    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let pid = pid.as_raw_nonzero().get();
            if self.running().is_some_and(|p| p.pid == pid) {
                self.postmaster_ended(status);
            } else if self.worker.as_ref().is_some_and(|w| w.pid == pid) {
                self.worker_ended(status);
            }
        }
    }
}

fn in_words(status: WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown status".to_owned(),
    }
}
