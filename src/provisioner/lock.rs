//! One operation per cluster at a time: a lock with an owner and an expiry.

use std::{fmt, future::Future, time::Duration};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{error::ProvisionError, platform::Platform};
use crate::{model::ClusterName, sys::machine};

/// How long a lock is good for. Long enough that a sleeping laptop rarely loses it, short enough to wait for.
pub const LEASE: SignedDuration = SignedDuration::from_mins(15);

/// How often a lock is renewed while its operation goes on.
const RENEWAL: Duration = Duration::from_secs(5 * 60);

/// Who holds a lock, and until when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockRecord {
    /// `user@host`.
    pub owner: String,
    /// The process.
    pub pid: u32,
    /// Which boot of which machine, and which process namespace on it, `pid` belongs to; empty where that cannot be told.
    pub machine: String,
    /// When the process began, in the kernel's ticks since boot: process numbers are used again.
    pub process_start: u64,
    /// What it does, such as `create cluster orders`.
    pub command: String,
    /// Since when.
    pub since: Timestamp,
    /// Until when, unless it is renewed.
    pub expires: Timestamp,
}

impl LockRecord {
    /// The record of this process, from now on.
    pub fn of_this_process(command: &str, now: Timestamp) -> LockRecord {
        let pid = std::process::id();
        LockRecord {
            owner: format!("{}@{}", user_name(), machine::name()),
            pid,
            machine: machine::process_space(),
            process_start: process_start(pid).unwrap_or_default(),
            command: command.to_owned(),
            since: now,
            expires: now + LEASE,
        }
    }

    /// The same, good for another lease from now on.
    #[must_use]
    pub fn renewed(&self, now: Timestamp) -> LockRecord {
        LockRecord { expires: now + LEASE, ..self.clone() }
    }

    /// Whether nobody stands behind it any more. `start_of` tells when a process of this machine began, if it runs.
    pub fn is_dead(&self, now: Timestamp, machine: &str, start_of: impl Fn(u32) -> Option<u64>) -> bool {
        // Only on the same boot and in the same process namespace does a missing process prove anything.
        let provable = !machine.is_empty() && machine == self.machine;
        self.expires <= now || (provable && start_of(self.pid) != Some(self.process_start))
    }

    /// [`LockRecord::is_dead`], asked of this machine.
    pub fn is_dead_here(&self, now: Timestamp) -> bool {
        self.is_dead(now, &machine::process_space(), process_start)
    }
}

impl fmt::Display for LockRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' by {} (process {}) since {:.0}", self.command, self.owner, self.pid, self.since)
    }
}

/// A lock that this process holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldLock {
    /// The cluster.
    pub cluster: ClusterName,
    /// The platform's object that stands for it.
    pub object: String,
    /// What it says.
    pub record: LockRecord,
}

/// Runs `work` while holding the cluster's lock, renewing it as long as it takes.
///
/// If the process dies or this future is dropped, the lock stays behind; it is passed over as soon as its owner is known to be gone.
pub async fn with_lock<P, T, E>(
    platform: &P,
    cluster: &ClusterName,
    command: &str,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E>
where
    P: Platform,
    E: From<ProvisionError>,
{
    let mut held = platform.acquire_lock(cluster, command).await?;
    let mut work = std::pin::pin!(work);
    let result = loop {
        tokio::select! {
            result = &mut work => break result,
            () = tokio::time::sleep(RENEWAL) => {}
        }
        match platform.renew_lock(&held).await {
            Ok(renewed) => held = renewed,
            // Somebody else may be at work already: stopping here is what a crash would do, and every step stands that.
            Err(error @ ProvisionError::LockLost { .. }) => return Err(error.into()),
            // The lease outlasts three renewals, so that one that fails is simply tried again.
            Err(error) => tracing::warn!(%cluster, %error, "the lock could not be renewed yet"),
        }
    };
    if let Err(error) = platform.release_lock(&held).await {
        // The work is done, and the lock dies with this process: no reason to report a failure.
        tracing::warn!(%cluster, %error, "the lock could not be released");
    }
    result
}

/// When a process began, in ticks since boot; `None` when there is no such process.
fn process_start(pid: u32) -> Option<u64> {
    parse_process_start(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Field 22 of `/proc/PID/stat`. The second field, the command in parentheses, may hold spaces and parentheses itself.
fn parse_process_start(stat: &str) -> Option<u64> {
    let (_, after_command) = stat.rsplit_once(')')?;
    after_command.split_whitespace().nth(19)?.parse().ok()
}

fn user_name() -> String {
    ["SUDO_USER", "USER", "LOGNAME"]
        .iter()
        .find_map(|variable| std::env::var(variable).ok())
        .unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2025-03-01T12:00:00Z".parse().unwrap()
    }

    fn record() -> LockRecord {
        LockRecord {
            owner: "ann@desk".into(),
            pid: 77,
            machine: "boot-1/pid:[4]".into(),
            process_start: 900,
            command: "create cluster orders".into(),
            since: now(),
            expires: now() + LEASE,
        }
    }

    #[test]
    fn a_lock_lives_while_its_process_runs_and_its_lease_lasts() {
        assert!(!record().is_dead(now(), "boot-1/pid:[4]", |_| Some(900)));
    }

    #[test]
    fn a_lock_dies_with_its_process() {
        assert!(record().is_dead(now(), "boot-1/pid:[4]", |_| None));
    }

    #[test]
    fn another_process_with_the_same_number_does_not_keep_it_alive() {
        assert!(record().is_dead(now(), "boot-1/pid:[4]", |_| Some(901)));
    }

    #[test]
    fn a_missing_process_proves_nothing_on_another_machine() {
        assert!(!record().is_dead(now(), "boot-2/pid:[4]", |_| None));
        let nameless = LockRecord { machine: String::new(), ..record() };
        assert!(!nameless.is_dead(now(), "", |_| None));
    }

    #[test]
    fn a_lock_ends_with_its_lease_wherever_its_owner_is() {
        assert!(record().is_dead(now() + LEASE, "boot-2/pid:[4]", |_| Some(900)));
        assert!(!record().renewed(now() + LEASE).is_dead(now() + LEASE, "boot-2/pid:[4]", |_| None));
    }

    #[test]
    fn the_start_of_a_process_is_found_behind_any_command_name() {
        let fields: Vec<String> = (3..=30).map(|field| field.to_string()).collect();
        let stat = format!("77 (a) b (c) {}", fields.join(" "));
        assert_eq!(parse_process_start(&stat), Some(22));
        assert_eq!(parse_process_start("nonsense"), None);
    }

    #[test]
    fn this_process_is_alive() {
        assert!(!LockRecord::of_this_process("test", now()).is_dead_here(now()));
    }

    #[test]
    fn the_holder_is_named_with_command_process_and_time() {
        assert_eq!(record().to_string(), "'create cluster orders' by ann@desk (process 77) since 2025-03-01T12:00:00Z");
    }
}
