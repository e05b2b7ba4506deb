//! The running haproxy: its master process, and bringing what it does in line with the routes.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, set_parent_process_death_signal, wait, waitpid};
use tokio::time::{Instant, sleep};

use super::{
    Machine, RouterConfig, Routes, RoutingError,
    runtime::{ask, parse_workers, tell_workers},
};
use crate::sys::files;

/// A start or a reload takes some ten milliseconds.
const START_LIMIT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(10);
/// How long sessions may finish when the router is stopped.
const FINISH_LIMIT: Duration = Duration::from_secs(3);
/// How long haproxy may take to end the sessions that did not.
const END_LIMIT: Duration = Duration::from_secs(2);

/// haproxy in master-worker mode.
#[derive(Debug)]
pub struct Haproxy {
    program: PathBuf,
    config: RouterConfig,
    machine: Machine,
    routes: Routes,
    master: Option<Pid>,
    /// The running haproxy may differ from the routes: what is needed to make it the same failed.
    behind: bool,
}

impl Haproxy {
    /// A haproxy that does not run yet.
    pub fn new(program: impl Into<PathBuf>, config: RouterConfig, machine: Machine) -> Haproxy {
        Haproxy { program: program.into(), config, machine, routes: Routes::default(), master: None, behind: false }
    }

    /// Whether its master process runs, as far as [`Haproxy::reap`] has seen.
    pub fn is_running(&self) -> bool {
        self.master.is_some()
    }

    /// Starts it with the present routes.
    pub async fn start(&mut self) -> Result<(), RoutingError> {
        let run_dir = &self.config.run_dir;
        fs::create_dir_all(run_dir).map_err(|source| RoutingError::Write { path: run_dir.clone(), source })?;
        self.write()?;
        let mut command = Command::new(&self.program);
        let socket = format!("{},mode,600,level,admin", self.socket().display());
        command.args(["-W", "-db", "-S", &socket, "-f"]).arg(self.file()).stdin(Stdio::null());
        // A group of its own: a terminal's Ctrl-C is for the router, which ends haproxy gracefully.
        command.process_group(0);
        // SAFETY: between fork and exec only one system call is made.
        unsafe {
            command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::TERM))?));
        }
        let child = command.spawn().map_err(|source| RoutingError::Start { program: self.program.clone(), source })?;
        self.master = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        self.worker_other_than(None, "start").await?;
        self.settle().await?;
        self.behind = false;
        Ok(())
    }

    /// Brings it in line with `routes`: at once over the command socket where only the leader changed, else by a reload too.
    pub async fn apply(&mut self, routes: Routes) -> Result<(), RoutingError> {
        if routes == self.routes && !self.behind {
            return Ok(());
        }
        let before = std::mem::replace(&mut self.routes, routes);
        let reload = self.behind || self.routes.needs_reload(&before);
        self.behind = true;
        self.write()?;
        if self.master.is_some() {
            // Who must not be written to any more is cut off first, in the workers that have the sessions.
            let writer = self.routes.writer.clone().filter(|name| before.members.contains_key(name));
            let told = tell_workers(&self.socket(), &Routes { members: before.members, writer }).await;
            if let Err(error) = &told {
                tracing::warn!(%error, "haproxy is reloaded instead of told");
            }
            if reload || told.is_err() {
                self.reload().await?;
            }
        }
        self.behind = false;
        Ok(())
    }

    /// Notes the end of the master process and, as the container's first process, of everybody else's children. `true`: it ended now.
    pub fn reap(&mut self) -> bool {
        let mut ended = false;
        while let Some((pid, status)) = self.next_end() {
            if Some(pid) == self.master {
                tracing::warn!(?status, "haproxy has ended");
                self.master = None;
                ended = true;
            }
        }
        ended
    }

    /// A child that has ended and that nobody has noted yet.
    fn next_end(&self) -> Option<(Pid, WaitStatus)> {
        // Only the first process inherits others' children; anywhere else they belong to somebody.
        let child = match self.master {
            _ if std::process::id() == 1 => wait(WaitOptions::NOHANG),
            Some(master) => waitpid(Some(master), WaitOptions::NOHANG),
            None => return None,
        };
        child.ok().flatten()
    }

    /// Lets sessions finish for a moment, then ends it.
    pub async fn stop(&mut self) {
        for (signal, limit) in [(Signal::USR1, FINISH_LIMIT), (Signal::TERM, END_LIMIT), (Signal::KILL, END_LIMIT)] {
            let Some(master) = self.master else { return };
            // It may just have ended, which the next look finds out.
            let _ = kill_process(master, signal);
            let deadline = Instant::now() + limit;
            while self.master.is_some() && Instant::now() < deadline {
                sleep(POLL).await;
                self.reap();
            }
        }
    }

    /// Where haproxy's configuration is.
    pub fn file(&self) -> PathBuf {
        self.config.run_dir.join("haproxy.cfg")
    }

    fn socket(&self) -> PathBuf {
        self.config.run_dir.join("haproxy-master.sock")
    }

    fn write(&self) -> Result<(), RoutingError> {
        let path = self.file();
        let text = self.routes.render(&self.config, &self.machine);
        files::replace(&path, text.as_bytes(), 0o640).map_err(|source| RoutingError::Write { path, source })
    }

    async fn reload(&mut self) -> Result<(), RoutingError> {
        let Some(master) = self.master else { return Ok(()) };
        let before = current_worker(&self.socket()).await;
        let failed = |error: rustix::io::Errno| RoutingError::Command { command: "reload".to_owned(), fault: error.to_string() };
        kill_process(master, Signal::USR2).map_err(failed)?;
        self.worker_other_than(before, "reload").await?;
        self.settle().await
    }

    /// A fresh worker knows from the file who takes writes, yet a single failed check would take it out; and workers that a reload has
    /// just made old may still have sessions to cut.
    async fn settle(&self) -> Result<(), RoutingError> {
        tell_workers(&self.socket(), &self.routes).await
    }

    async fn worker_other_than(&mut self, before: Option<u32>, doing: &str) -> Result<(), RoutingError> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            let worker = current_worker(&self.socket()).await;
            if worker.is_some() && worker != before {
                return Ok(());
            }
            let failed = |fault: &str| Err(RoutingError::Command { command: doing.to_owned(), fault: fault.to_owned() });
            if self.reap() || self.master.is_none() {
                return failed("it ended; it has said why above");
            }
            if Instant::now() > deadline {
                return failed("no new worker appeared");
            }
            sleep(POLL).await;
        }
    }
}

async fn current_worker(socket: &Path) -> Option<u32> {
    // While it re-executes itself the master does not answer.
    ask(socket, "show proc").await.ok().and_then(|text| parse_workers(&text).current)
}
