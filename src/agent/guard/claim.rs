//! One guard and one agent per data directory. Both hold a byte of a file that lies beside it; the kernel takes the byte back when they
//! die, so nothing stale is ever in the way.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Guard, leftovers, protocol::FromGuard};
use crate::sys::{clock::Moment, files, lock::LockFile, process_table::ProcessTable};

/// The guard's byte.
const GUARD: i64 = 0;

/// The agent's byte.
const AGENT: i64 = 1;

/// How long an agent whose guard has died may take to be gone after it was killed.
const PATIENCE: Duration = Duration::from_secs(5);

/// The file beside a data directory whose bytes say who works on it.
fn lock_path(data: &Path) -> PathBuf {
    files::beside(&data.canonicalize().unwrap_or_else(|_| data.to_owned()), ".lock")
}

/// Why the directory cannot be worked on.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) why: String,
    pub(super) hopeless: bool,
}

impl Refusal {
    /// Waiting does not help.
    pub(super) fn hopeless(why: String) -> Refusal {
        Refusal { why, hopeless: true }
    }

    /// It may be different soon.
    pub(super) fn for_now(why: String) -> Refusal {
        Refusal { why, hopeless: false }
    }
}

/// The guard's right to a data directory.
pub(super) struct Claim {
    data: PathBuf,
    _lock: LockFile,
}

impl Guard {
    /// Answers an agent that wants to work on this directory. Once granted it holds for the guard's whole life.
    pub(super) fn claim(&mut self, data: PathBuf) {
        let answer = match &self.claim {
            Some(claim) if claim.data == data => Ok(()),
            Some(claim) => {
                let (ours, theirs) = (claim.data.display(), data.display());
                Err(Refusal::hopeless(format!("this guard works on '{ours}': to work on '{theirs}' it has to be started anew")))
            }
            None => take(&mut self.processes, data).map(|claim| self.claim = Some(claim)),
        };
        self.tell(&match answer {
            Ok(()) => FromGuard::Claimed,
            Err(Refusal { why, hopeless }) => FromGuard::Refused { why, hopeless },
        });
    }
}

fn take(processes: &mut ProcessTable, data: PathBuf) -> Result<Claim, Refusal> {
    let path = lock_path(&data);
    let unusable = |error: std::io::Error| Refusal::hopeless(format!("'{}' cannot be locked: {error}", path.display()));
    let lock = LockFile::open(&path).map_err(unusable)?;
    if !lock.take(GUARD).map_err(unusable)? {
        let holder = lock.holder(GUARD).map_err(unusable)?;
        let place = match holder {
            Some(0) | None => "in another container".to_owned(),
            Some(pid) => format!("process {pid}"),
        };
        return Err(Refusal::hopeless(format!("another agent ({place}) works on '{}': end it first", data.display())));
    }
    let deadline = Moment::now() + PATIENCE;
    while let Some(agent) = lock.holder(AGENT).map_err(unusable)? {
        // Its guard is dead, or ours would not be here. It may be frozen, and would go on with whatever it was about to do.
        if agent > 0 {
            processes.kill_tree(agent);
        }
        if Moment::now() >= deadline {
            return Err(Refusal::for_now(format!("an earlier agent (process {agent}) on '{}' does not end", data.display())));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    leftovers::end(processes, &data)?;
    Ok(Claim { data, _lock: lock })
}

/// The agent's own byte, once the guard has granted the directory: as long as the agent lives, no other guard takes it for dead.
pub fn take_agents_byte(data: &Path) -> std::io::Result<LockFile> {
    let lock = LockFile::open(&lock_path(data))?;
    if lock.take(AGENT)? { Ok(lock) } else { Err(std::io::Error::other("an earlier agent still holds it")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_place_is_claimed_and_a_lock_that_cannot_be_made_is_a_refusal() {
        let dir = tempfile::tempdir().unwrap();
        let mut processes = ProcessTable::new().unwrap();
        assert!(take(&mut processes, dir.path().join("data")).is_ok());
        let refusal = take(&mut processes, dir.path().join("none/data")).err().unwrap();
        assert!(refusal.hopeless && refusal.why.contains("data.lock"), "{refusal:?}");
    }
}
