//! Which processes are whose: PostgreSQL's must all be gone before anything is started again on the same directory.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

/// Process ids of the children of `parent`.
pub fn of(parent: i32) -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| parent_of(*pid) == Some(parent)).collect()
}

/// The parent of a process, from the fourth field of its stat line. The second, the name, may hold spaces and parentheses.
fn parent_of(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Sends a signal; a process that is gone is fine.
pub fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, signal);
    }
}

/// Kills a process and all its descendants, parents first so that none can fork on.
pub fn kill_tree(pid: i32) {
    signal(pid, Signal::STOP);
    for child in of(pid) {
        kill_tree(child);
    }
    signal(pid, Signal::KILL);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_killed_to_its_leaves() {
        let mut child = std::process::Command::new("sh").args(["-c", "sleep 60 & sleep 60 & wait"]).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let leaves = (0..200).find_map(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            Some(of(pid)).filter(|c| c.len() == 2)
        });
        kill_tree(pid);
        child.wait().unwrap();
        // Reparented and killed: soon gone, or a zombie that somebody else has yet to reap.
        let is_dead = |leaf: &i32| fs::read_to_string(format!("/proc/{leaf}/stat")).map_or(true, |stat| stat.contains(") Z"));
        let dead = (0..500).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            leaves.iter().flatten().all(is_dead)
        });
        assert!(dead && leaves.is_some(), "{leaves:?}");
    }
}
