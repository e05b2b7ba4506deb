//! What the guard and the agent say to each other: one JSON object a line over a socket pair.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::sys::clock::Moment;

/// How PostgreSQL is stopped, in PostgreSQL's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopMode {
    /// Sessions are ended, a shutdown checkpoint is written.
    Fast,
    /// Everything ends at once; the next start recovers from the WAL.
    Immediate,
    /// SIGKILL to every process.
    Kill,
}

/// From the agent to the guard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToGuard {
    /// First thing: may this agent work on this data directory?
    Claim {
        /// The directory.
        data: PathBuf,
    },
    /// Start a postmaster with these arguments, unless one is running.
    Start {
        /// Path of `postgres`.
        program: String,
        /// Its arguments.
        arguments: Vec<String>,
    },
    /// Stop it.
    Stop(StopMode),
    /// Use this watchdog device while there is a lease to prove.
    Watchdog {
        /// Its path.
        device: PathBuf,
        /// After how many seconds without a proof it resets the machine.
        timeout: u32,
    },
    /// Use none, and disarm the one that was used.
    NoWatchdog,
    /// Let it read its configuration again.
    Reload,
    /// Until when PostgreSQL may run as a primary; `None`: without limit, because it is not one.
    Deadline {
        /// The end of the lease, less the margin.
        until: Option<Moment>,
        /// How long an immediate stop may take before SIGKILL.
        grace: Duration,
    },
}

/// From the guard to the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromGuard {
    /// A postmaster runs. Sent after a start, and first thing to every new agent when there is one.
    Running {
        /// Its process id.
        pid: i32,
    },
    /// First thing to every new agent when there is no postmaster.
    Idle,
    /// The data directory is this agent's, and nothing of an earlier one is left on it.
    Claimed,
    /// It is not.
    Refused {
        /// Why, and what to do.
        why: String,
        /// Waiting does not help.
        hopeless: bool,
    },
    /// It could not be started.
    NotStarted {
        /// Why.
        why: String,
    },
    /// How the watchdog device is. Sent whenever one is asked for, when it fails, and when it does no more.
    Watchdog {
        /// Why it is of no use; `None`: it is.
        trouble: Option<String>,
    },
    /// Every process of it was sent SIGKILL, so that none of them will run again. One that the kernel holds back may be there still.
    Killed,
    /// It ended, and every process of it is gone.
    Ended {
        /// Its exit status in words.
        status: String,
        /// True when the guard stopped it because the deadline passed.
        fenced: bool,
    },
}
