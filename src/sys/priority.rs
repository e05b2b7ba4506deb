//! What the kernel should spare and prefer when the machine is short of memory or time. All of it needs permissions that a container
//! seldom has; without them everything goes on as before.

use std::{fs, io};

/// What the kernel's killer adds to a process's badness when memory is short, from -1000 (never) to 1000.
const OOM_FILE: &str = "/proc/self/oom_score_adj";

/// Almost never: a process that is never chosen could itself be the one that eats the memory.
const SPARED: i32 = -900;

/// Asks to be spared when memory is short, as are all later children. Returns what it was before, if that was permitted.
pub fn spare_from_oom() -> Option<i32> {
    let before = fs::read_to_string(OOM_FILE).ok()?.trim().parse().ok()?;
    if before <= SPARED {
        return None;
    }
    fs::write(OOM_FILE, SPARED.to_string()).ok()?;
    Some(before)
}

/// Gives up what an earlier process of ours was granted by [`spare_from_oom`]: what takes much memory is to be ended before the database.
pub fn be_ordinary() {
    let spared = fs::read_to_string(OOM_FILE).is_ok_and(|text| text.trim().parse::<i32>().is_ok_and(|badness| badness < 0));
    if spared {
        // Asking to be spared less is always permitted.
        let _ = fs::write(OOM_FILE, "0");
    }
}

/// Runs before everything that is not as urgent; children begin as everybody else. Returns what was granted, in words.
pub fn run_first() -> Option<&'static str> {
    if schedule(libc::SCHED_FIFO, 1).is_ok() {
        return Some("real-time scheduling");
    }
    // Children of a process with a better niceness lose it only when this is set first.
    schedule(libc::SCHED_OTHER, 0).ok()?;
    rustix::process::setpriority_process(None, -10).ok()?;
    Some("a better niceness")
}

/// Runs behind everything that is more urgent, on processors and disks, as do all later children. Nothing of it needs a permission.
pub fn run_last() {
    // Whatever is not granted costs the others a little time, and is no reason not to work.
    let _ = rustix::process::setpriority_process(None, 15);
    // The lowest priority of the class in which everybody is: what is idle-only may starve.
    const OF_PROCESS: libc::c_int = 1;
    const BEST_EFFORT_LOWEST: libc::c_int = 2 << 13 | 7;
    // SAFETY: a system call with three numbers.
    unsafe { libc::syscall(libc::SYS_ioprio_set, OF_PROCESS, 0, BEST_EFFORT_LOWEST) };
}

fn schedule(policy: i32, priority: i32) -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: priority };
    // SAFETY: the pointer is to a structure that lives through the call.
    let result = unsafe { libc::sched_setscheduler(0, policy | libc::SCHED_RESET_ON_FORK, &raw const parameters) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
