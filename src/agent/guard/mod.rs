//! The guard: the container's first process, small and without an async runtime. It is the parent of the agent and of the postmaster,
//! reaps, restarts a dead agent at once, and holds the lease deadline that the agent last proved. When that passes, because the agent is
//! dead, stopped, hung or cut off, the guard stops PostgreSQL. When the guard itself dies, the kernel stops the postmaster.

mod children;
mod link;
mod protocol;

use std::{
    io::{Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{net::UnixStream, process::CommandExt},
    },
    process::{Command, Stdio},
    time::Duration,
};

pub use link::{Guard as GuardLink, LinkError};
pub use protocol::{FromGuard, StopMode, ToGuard};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, Signal, WaitOptions, WaitStatus, getpid, getppid, set_child_subreaper, set_parent_process_death_signal, setsid, wait},
};
use signal_hook::{consts, low_level::pipe};

use crate::sys::{clock::Moment, memory};

/// Exit code of the agent that says: do not start me again, what is wrong will not change by itself.
pub const EXIT_FATAL: u8 = 2;

/// Longest pause before an agent that keeps dying is started again.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// An agent that lived this long was not failing at its start.
const SETTLED: Duration = Duration::from_secs(10);

/// How long PostgreSQL may take for a fast shutdown when the guard has to end it without the agent.
const FAST_STOP: Duration = Duration::from_secs(20);

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

struct Worker {
    pid: i32,
    link: UnixStream,
    /// What was read and is not yet a whole line.
    unread: Vec<u8>,
    started: Moment,
}

struct Postmaster {
    pid: i32,
    /// Set once it was stopped by us: when SIGKILL follows.
    kill_at: Option<Moment>,
    fenced: bool,
}

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
}

/// Runs until the agent has ended for good; `arguments` start it. Returns the process's exit code.
pub fn run(arguments: Vec<String>) -> Result<u8, GuardError> {
    // Orphans of PostgreSQL become our children: they can be found, and killed.
    set_child_subreaper(Some(getpid())).map_err(|e| cannot("become the reaper of orphans")(e.into()))?;
    let signals = signal_pipe().map_err(cannot("receive signals"))?;
    let mut guard = Guard {
        arguments,
        worker: None,
        restart_at: None,
        quick_deaths: 0,
        postmaster: None,
        deadline: None,
        grace: Duration::from_millis(500),
        terminating: false,
        exit_code: 0,
    };
    guard.start_worker()?;
    memory::give_back_code();
    while !guard.is_done() {
        guard.wait_for_something(&signals)?;
        guard.take_signals(&signals);
        guard.take_messages();
        guard.reap();
        guard.enforce();
        guard.restart_worker_if_due()?;
    }
    Ok(guard.exit_code)
}

/// A pipe from which the numbers of received signals are read, one byte each.
struct Signals {
    child: UnixStream,
    terminate: UnixStream,
    reload: UnixStream,
}

fn signal_pipe() -> std::io::Result<Signals> {
    let listen = |signals: &[i32]| -> std::io::Result<UnixStream> {
        let (read, write) = UnixStream::pair()?;
        read.set_nonblocking(true)?;
        for signal in signals {
            pipe::register(*signal, write.try_clone()?)?;
        }
        Ok(read)
    };
    Ok(Signals {
        child: listen(&[consts::SIGCHLD])?,
        terminate: listen(&[consts::SIGTERM, consts::SIGINT])?,
        reload: listen(&[consts::SIGHUP])?,
    })
}

/// Empties a signal's pipe; returns how many came.
fn drain(mut stream: &UnixStream) -> usize {
    let mut buffer = [0_u8; 64];
    let mut count = 0;
    while let Ok(read) = stream.read(&mut buffer) {
        if read == 0 {
            break;
        }
        count += read;
    }
    count
}

impl Guard {
    fn is_done(&self) -> bool {
        self.terminating && self.worker.is_none() && self.postmaster.is_none()
    }

    fn start_worker(&mut self) -> Result<(), GuardError> {
        let (ours, theirs) = UnixStream::pair().map_err(cannot("make a socket pair"))?;
        // The executable itself, even when the file has been replaced meanwhile: agent and guard stay one version.
        let mut command = Command::new("/proc/self/exe");
        command.arg0("spilo").args(&self.arguments).stdin(Stdio::from(OwnedFd::from(theirs)));
        let child = command.spawn().map_err(cannot("start the agent"))?;
        ours.set_nonblocking(true).map_err(cannot("use the socket pair"))?;
        let pid = i32::try_from(child.id()).unwrap_or_default();
        self.worker = Some(Worker { pid, link: ours, unread: Vec::new(), started: Moment::now() });
        self.restart_at = None;
        match &self.postmaster {
            Some(postmaster) => self.tell(&FromGuard::Running { pid: postmaster.pid }),
            None => self.tell(&FromGuard::Idle),
        }
        Ok(())
    }

    fn restart_worker_if_due(&mut self) -> Result<(), GuardError> {
        match self.restart_at {
            Some(at) if Moment::now() >= at && !self.terminating => self.start_worker(),
            _ => Ok(()),
        }
    }

    /// Sleeps until a signal, a message, or the next moment at which something is due.
    fn wait_for_something(&self, signals: &Signals) -> Result<(), GuardError> {
        let due = [self.deadline.filter(|_| self.is_guarding()), self.postmaster.as_ref().and_then(|p| p.kill_at), self.restart_at];
        let now = Moment::now();
        let timeout = due.into_iter().flatten().min().map(|at| at.since(now) + Duration::from_millis(1));
        let mut fds = vec![
            PollFd::from_borrowed_fd(signals.child.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(signals.terminate.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(signals.reload.as_fd(), PollFlags::IN),
        ];
        if let Some(worker) = &self.worker {
            fds.push(PollFd::from_borrowed_fd(worker.link.as_fd(), PollFlags::IN));
        }
        let timeout =
            timeout.map(|t| Timespec { tv_sec: i64::try_from(t.as_secs()).unwrap_or(i64::MAX), tv_nsec: t.subsec_nanos().into() });
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(cannot("wait")(error.into())),
        }
    }

    fn take_signals(&mut self, signals: &Signals) {
        drain(&signals.child);
        if drain(&signals.reload) > 0
            && let Some(worker) = &self.worker
        {
            children::signal(worker.pid, Signal::HUP);
        }
        if drain(&signals.terminate) > 0 {
            self.terminate();
        }
    }

    /// A request to end: the agent hands over and stops PostgreSQL; without one we stop PostgreSQL ourselves. A second request hastens.
    fn terminate(&mut self) {
        let again = std::mem::replace(&mut self.terminating, true);
        match &self.worker {
            Some(worker) if !again => children::signal(worker.pid, Signal::TERM),
            _ => self.stop_postmaster(if again { StopMode::Immediate } else { StopMode::Fast }, FAST_STOP, false),
        }
    }

    fn take_messages(&mut self) {
        while let Some(message) = self.next_message() {
            match message {
                ToGuard::Start { program, arguments } => self.start_postmaster(&program, &arguments),
                ToGuard::Stop(mode) => self.stop_postmaster(mode, limit(mode), false),
                ToGuard::Reload => {
                    if let Some(postmaster) = &self.postmaster {
                        children::signal(postmaster.pid, Signal::HUP);
                    }
                }
                ToGuard::Deadline { until, grace } => (self.deadline, self.grace) = (until, grace),
            }
        }
    }

    fn next_message(&mut self) -> Option<ToGuard> {
        let worker = self.worker.as_mut()?;
        let mut buffer = [0_u8; 4096];
        while let Ok(read @ 1..) = worker.link.read(&mut buffer) {
            worker.unread.extend_from_slice(&buffer[..read]);
        }
        // Half a line stays where it is: an agent that was stopped in the middle of it must not stop us.
        let end = worker.unread.iter().position(|byte| *byte == b'\n')?;
        let line: Vec<u8> = worker.unread.drain(..=end).collect();
        serde_json::from_slice(&line).map_err(|e| tracing::error!("the agent said something unreadable: {e}")).ok()
    }

    fn tell(&mut self, message: &FromGuard) {
        if let Some(worker) = &mut self.worker {
            let mut line = serde_json::to_string(message).expect("numbers and texts, so JSON cannot fail");
            line.push('\n');
            // An agent that is gone is restarted and told the state then.
            let _ = worker.link.write_all(line.as_bytes());
        }
    }

    fn start_postmaster(&mut self, program: &str, arguments: &[String]) {
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

    fn stop_postmaster(&mut self, mode: StopMode, limit: Duration, fenced: bool) {
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

    /// True while there is a postmaster that the deadline is about and that is not yet being stopped for it.
    fn is_guarding(&self) -> bool {
        self.postmaster.as_ref().is_some_and(|p| !p.fenced)
    }

    /// Stops PostgreSQL when the lease has ended, and kills what does not stop.
    fn enforce(&mut self) {
        let now = Moment::now();
        if self.is_guarding() && self.deadline.is_some_and(|deadline| now >= deadline) {
            tracing::error!("the lease was not renewed in time: stopping PostgreSQL");
            self.stop_postmaster(StopMode::Immediate, self.grace, true);
        }
        if let Some(postmaster) = &mut self.postmaster
            && postmaster.kill_at.is_some_and(|at| now >= at)
        {
            postmaster.kill_at = Some(now + Duration::from_millis(200));
            children::kill_tree(postmaster.pid);
        }
    }

    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let pid = pid.as_raw_nonzero().get();
            if self.postmaster.as_ref().is_some_and(|p| p.pid == pid) {
                self.postmaster_ended(status);
            } else if self.worker.as_ref().is_some_and(|w| w.pid == pid) {
                self.worker_ended(status);
            }
        }
    }

    fn postmaster_ended(&mut self, status: WaitStatus) {
        let fenced = self.postmaster.take().is_some_and(|p| p.fenced);
        self.kill_orphans();
        self.deadline = None;
        self.tell(&FromGuard::Ended { status: in_words(status), fenced });
    }

    fn worker_ended(&mut self, status: WaitStatus) {
        let lived = self.worker.take().map_or(Duration::ZERO, |w| Moment::now().since(w.started));
        self.kill_orphans();
        match status.exit_status() {
            Some(0) if self.terminating => {}
            Some(code) if code == i32::from(EXIT_FATAL) => {
                self.terminating = true;
                self.exit_code = EXIT_FATAL;
            }
            _ if self.terminating => tracing::warn!("the agent ended while stopping: {}", in_words(status)),
            _ => {
                self.quick_deaths = if lived > SETTLED { 0 } else { self.quick_deaths + 1 };
                let pause = (Duration::from_millis(100) * self.quick_deaths.saturating_sub(1)).min(LONGEST_PAUSE);
                tracing::warn!("the agent ended ({}): starting it again in {pause:?}", in_words(status));
                self.restart_at = Some(Moment::now() + pause);
                return;
            }
        }
        self.stop_postmaster(StopMode::Fast, FAST_STOP, false);
    }

    /// Kills every child that is neither the agent nor the postmaster: backends of a postmaster that was killed, and programs that a dead
    /// agent had running. Either would write to a directory that somebody else believes to own.
    fn kill_orphans(&self) {
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
fn limit(mode: StopMode) -> Duration {
    match mode {
        StopMode::Fast => Duration::from_secs(3600),
        StopMode::Immediate | StopMode::Kill => Duration::from_secs(8),
    }
}

fn in_words(status: WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown status".to_owned(),
    }
}
