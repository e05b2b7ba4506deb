//! Which processes there are and whose children they are, read without allocating: whoever has to end PostgreSQL must be able to do it
//! when there is no memory left.

use std::{
    ffi::CStr,
    io::{self, Write},
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    fs::{CWD, Mode, OFlags, RawDir, SeekFrom, openat, seek},
    process::{Pid, Signal, kill_process},
};

/// When a process was started, in ticks since the machine was; `None` when there is no such process. Numbers of processes are used again, number
/// and start together are not.
pub fn started(pid: i32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in brackets, and may have anything in it.
    text.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// More processes than a machine that runs a database has in one place. What is beyond is found when the first are gone.
const CAPACITY: usize = 65_536;

/// How often the tree is looked at again while it still grows.
const ROUNDS: usize = 100;

/// The processes as they were when the table was last read. Its memory is reserved once.
pub struct ProcessTable {
    proc: OwnedFd,
    /// In the order of /proc: by process id.
    entries: Vec<Entry>,
}

/// One process.
#[derive(Debug, Clone, Copy)]
struct Entry {
    pid: i32,
    parent: i32,
    doomed: bool,
}

impl ProcessTable {
    /// An empty table.
    pub fn new() -> io::Result<ProcessTable> {
        let proc = openat(CWD, c"/proc", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(ProcessTable { proc, entries: Vec::with_capacity(CAPACITY) })
    }

    /// Kills a process and all its descendants: first they are stopped, parents first so that none can fork on, then killed.
    pub fn kill_tree(&mut self, root: i32) {
        signal(root, Signal::STOP);
        self.kill_below(root, &[]);
        signal(root, Signal::KILL);
    }

    /// Kills the descendants of `root`, but not those of `spared` nor those themselves. Returns how many there were, those included that
    /// are dead and not yet reaped.
    pub fn kill_below(&mut self, root: i32, spared: &[i32]) -> usize {
        let mut before = 0;
        for _ in 0..ROUNDS {
            self.read();
            let count = self.doom(root, spared);
            self.each_doomed(Signal::STOP);
            // A child that was forked before its parent was stopped shows in the next look.
            if count == before {
                break;
            }
            before = count;
        }
        self.each_doomed(Signal::KILL);
        before
    }

    /// The children of a process.
    pub fn children(&mut self, parent: i32) -> impl Iterator<Item = i32> + '_ {
        self.read();
        self.entries.iter().filter(move |entry| entry.parent == parent).map(|entry| entry.pid)
    }

    /// All processes.
    pub fn all(&mut self) -> impl Iterator<Item = i32> + '_ {
        self.read();
        self.entries.iter().map(|entry| entry.pid)
    }

    fn each_doomed(&self, what: Signal) {
        self.entries.iter().filter(|entry| entry.doomed).for_each(|entry| signal(entry.pid, what));
    }

    /// Marks the descendants of `root`; returns how many there are.
    fn doom(&mut self, root: i32, spared: &[i32]) -> usize {
        let mut count = 0;
        loop {
            let mut more = 0;
            for index in 0..self.entries.len() {
                let Entry { pid, parent, doomed } = self.entries[index];
                if !doomed && pid != root && !spared.contains(&pid) && (parent == root || self.is_doomed(parent)) {
                    self.entries[index].doomed = true;
                    more += 1;
                }
            }
            if more == 0 {
                return count;
            }
            count += more;
        }
    }

    fn is_doomed(&self, pid: i32) -> bool {
        self.entries.binary_search_by_key(&pid, |entry| entry.pid).is_ok_and(|index| self.entries[index].doomed)
    }

    fn read(&mut self) {
        self.entries.clear();
        let _ = seek(&self.proc, SeekFrom::Start(0));
        let mut buffer = [const { MaybeUninit::<u8>::uninit() }; 8192];
        let mut names = RawDir::new(self.proc.as_fd(), &mut buffer);
        while let Some(Ok(name)) = names.next() {
            if self.entries.len() == CAPACITY {
                return;
            }
            if let Some(pid) = number(name.file_name().to_bytes())
                && let Some(parent) = parent_of(&self.proc, pid)
            {
                self.entries.push(Entry { pid, parent, doomed: false });
            }
        }
    }
}

/// Sends a signal; a process that is gone is fine.
pub fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, signal);
    }
}

/// True when the process runs no more. One that is dead and that nobody has reaped yet (a zombie) has ended: when its parent looks at it is
/// the parent's affair, and process 1 may take its time.
pub fn has_ended(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_none_or(|(_, rest)| matches!(rest.trim_start().chars().next(), None | Some('Z' | 'X')))
}

/// The parent of a process, from the fourth field of its stat line. The second, the name, may hold spaces and parentheses.
fn parent_of(proc: &OwnedFd, pid: i32) -> Option<i32> {
    let mut path = [0_u8; 32];
    write!(&mut path[..31], "{pid}/stat").ok()?;
    let path = CStr::from_bytes_until_nul(&path).ok()?;
    let file = openat(proc, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut line = [0_u8; 512];
    let length = rustix::io::read(&file, &mut line[..]).ok()?;
    let line = &line[..length];
    let end_of_name = line.iter().rposition(|byte| *byte == b')')?;
    number(line[end_of_name..].split(|byte| *byte == b' ').nth(2)?)
}

fn number(digits: &[u8]) -> Option<i32> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{process::Command, time::Duration};

    fn shell(script: &str, children: usize) -> (std::process::Child, i32, Vec<i32>) {
        let child = Command::new("sh").args(["-c", script]).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let mut table = ProcessTable::new().unwrap();
        let found = (0..500).find_map(|_| {
            std::thread::sleep(Duration::from_millis(10));
            Some(table.children(pid).collect::<Vec<_>>()).filter(|found| found.len() == children)
        });
        (child, pid, found.expect("the shell has its children"))
    }

    #[test]
    fn who_is_dead_has_ended_though_nobody_reaped_it() {
        let mut child = Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        assert!(!has_ended(pid));
        drop(child.stdin.take());
        assert!((0..500).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            has_ended(pid)
        }));
        assert!(std::path::Path::new(&format!("/proc/{pid}")).exists(), "it was reaped");
        child.wait().unwrap();
        assert!(has_ended(pid));
    }

    #[test]
    fn a_tree_is_killed_to_its_leaves() {
        let (mut child, pid, leaves) = shell("sleep 60 & sleep 60 & wait", 2);
        ProcessTable::new().unwrap().kill_tree(pid);
        child.wait().unwrap();
        let dead = (0..500).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            leaves.iter().all(|leaf| has_ended(*leaf))
        });
        assert!(dead, "{leaves:?}");
    }

    #[test]
    fn who_is_spared_lives_with_all_its_children() {
        let (mut child, pid, middle) = shell("sh -c 'sleep 60 & wait' & sleep 60 & wait", 2);
        let mut table = ProcessTable::new().unwrap();
        // The inner shell makes its child a moment after it is there itself.
        let parent = |table: &mut ProcessTable| middle.iter().copied().find(|m| table.children(*m).count() == 1);
        let spared = (0..500).find_map(|_| {
            std::thread::sleep(Duration::from_millis(10));
            parent(&mut table)
        });
        let spared = spared.expect("one of them has a child");
        let below: Vec<i32> = table.children(spared).collect();
        assert_eq!(table.kill_below(pid, &[spared]), 1);
        std::thread::sleep(Duration::from_millis(100));
        assert!(!has_ended(spared) && below.iter().all(|pid| !has_ended(*pid)), "{spared} {below:?}");
        table.kill_tree(pid);
        child.wait().unwrap();
    }
}
