//! The resident memory of guards and agents, watched over a long time.

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

use super::{
    cluster::{Cluster, command_line},
    processes::start_time,
};

/// A process still gets its working set in the beginning.
const WARM_UP: Duration = Duration::from_secs(20);

/// How much a process's own memory may grow after that, in kB: an allocator's slack, and no more however long it lives. Pages of the
/// program's file do not count: they come as code is used for the first time, and go as the kernel likes.
const MOST_GROWTH: u64 = 1024;

/// What is known of one process.
struct Process {
    title: String,
    seen_first: Instant,
    /// Of its own memory, in kB.
    warm: Option<u64>,
    own: u64,
    /// Of everything resident, in kB.
    peak: u64,
}

/// Samples of all guards and agents. A process is known by its id and when it was started: within an hour ids come again.
#[derive(Default)]
pub struct Memory(BTreeMap<(i32, u64), Process>);

impl Memory {
    /// Looks at all guards and agents that run now.
    pub fn sample(&mut self, cluster: &Cluster) {
        for node in cluster.nodes.iter().filter(|n| n.is_running()) {
            for (title, pid) in [("guard", Some(node.guard_pid())), ("agent", node.agent_pid_if_any())] {
                let known = pid.and_then(|pid| Some(((pid, start_time(pid)?), sizes(pid)?)));
                let Some((process, sizes)) = known else { continue };
                self.0.entry(process).or_insert_with(|| Process::new(&format!("{title} of {}", node.name))).note(sizes);
            }
        }
    }

    /// The largest guard and agent of one member together that were seen at the end, in kB.
    pub fn largest(&self) -> u64 {
        let of = |title: &str| self.0.values().filter(|p| p.title.starts_with(title)).map(|p| p.peak).max().unwrap_or_default();
        of("guard") + of("agent")
    }

    /// How much the process's own memory grew that grew most after its warm-up, in kB, and which process that is.
    pub fn growth(&self) -> (u64, &str) {
        let grown = self.0.values().filter_map(|p| Some((p.own.saturating_sub(p.warm?), p.title.as_str())));
        grown.max().unwrap_or((0, "nobody"))
    }

    /// How many processes were seen long enough to say something of their growth.
    pub fn judged(&self) -> usize {
        self.0.values().filter(|p| p.warm.is_some()).count()
    }

    /// Fails when a process grew.
    pub fn check(&self) {
        let (grown, who) = self.growth();
        assert!(self.judged() > 0, "no process lived long enough to see whether it grows");
        assert!(grown <= MOST_GROWTH, "the {who} grew by {grown} kB after its warm-up, at most {MOST_GROWTH} kB are in order");
    }
}

impl Process {
    fn new(title: &str) -> Process {
        Process { title: title.to_owned(), seen_first: Instant::now(), warm: None, own: 0, peak: 0 }
    }

    fn note(&mut self, (resident, own): (u64, u64)) {
        if self.seen_first.elapsed() >= WARM_UP {
            self.warm.get_or_insert(own);
        }
        (self.own, self.peak) = (own, self.peak.max(resident));
    }
}

/// What is resident, and what of it is the process's own, in kB; `None` for one that is gone, or is no program of ours yet.
fn sizes(pid: i32) -> Option<(u64, u64)> {
    if !command_line(pid).contains("spilo") {
        return None;
    }
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let number = |key: &str| text.lines().find_map(|line| line.strip_prefix(key))?.trim().strip_suffix(" kB")?.parse().ok();
    Some((number("VmRSS:")?, number("RssAnon:")?))
}
