//! Ends of what the agent has begun: its tasks, its server, its guard.

use std::time::Duration;

use super::{
    guard::FromGuard,
    memory::{SETTLED, TaskEnd},
    server::Process,
    shell::Shell,
    tasks::Running,
    view::{Task, Trouble},
};
use crate::{
    dcs::Dcs,
    postgres::PostgresError,
    sys::{clock::Moment, process_table::has_ended},
};

impl Shell {
    pub(super) fn hear(&mut self, message: &FromGuard) {
        if matches!(message, FromGuard::Ended { .. } | FromGuard::NotStarted { .. }) {
            let fenced = matches!(message, FromGuard::Ended { fenced: true, .. });
            let stopped = fenced || self.server.is_stopping();
            // One that hung was killed, which is not what it had been asked to do.
            if !stopped || (!fenced && self.memory.trouble == Some(Trouble::PostmasterHangs)) {
                self.memory.server_crashed(Moment::now());
            }
            if self.server.age() < SETTLED && !stopped {
                self.memory.start_failed(self.server.has_answered(), Moment::now());
            }
            if fenced {
                self.memory.stopped_by_us(self.server_start());
            }
            self.configured = None;
            self.memory.server_ended();
        }
        self.server.hear(message);
    }

    pub(super) fn task_ended(&mut self, end: Result<TaskEnd, PostgresError>) {
        let Some(kind) = self.task.take().map(|t| t.kind) else { return };
        if kind == Task::HandOver {
            self.let_go();
        }
        match end {
            Ok(end) => {
                if kind == Task::HandOver {
                    self.lease_until = None;
                }
                self.failure = None;
                self.memory.task_ended(kind, end, Moment::now());
            }
            Err(error) => {
                self.say_failure(kind, &error);
                if matches!(kind, Task::Restart | Task::RestartPrimary) {
                    self.requests.restart_failed();
                }
                if matches!(kind, Task::Initialize | Task::Clone | Task::Rejoin | Task::CompareHistories) {
                    self.note_remote_fault(&error);
                }
                let source_answered = !matches!(error, PostgresError::NoOrigin { .. } | PostgresError::NotYet(_));
                self.memory.task_failed(kind, source_answered, Moment::now());
                if let PostgresError::NoRoom { free, .. } = error {
                    self.memory.copy_did_not_fit(error.to_string(), free, Moment::now());
                }
            }
        }
    }

    /// The guard is gone, and the kernel stops PostgreSQL with it. The leader key is given up as soon as nothing can write any more.
    pub(super) async fn without_guard(&mut self) -> u8 {
        tracing::error!("the guard is gone: PostgreSQL stops, so this agent ends too");
        if let Process::Running(pid, _) = self.server.process() {
            for _ in 0..200 {
                if has_ended(pid) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            if !has_ended(pid) {
                // The lease runs out by itself; giving it up now could let a second primary write beside this one.
                return 1;
            }
        }
        self.mark_read_only();
        if self.lease_until.is_some() {
            let _ = self.dcs.release_leader(&self.config.name, None).await;
        }
        1
    }
}

/// The end of the running task; never, when there is none.
pub(super) async fn task_end(task: &mut Option<Running>) -> Result<TaskEnd, PostgresError> {
    match task {
        None => std::future::pending().await,
        Some(running) => match (&mut running.handle).await {
            Ok(end) => end,
            Err(error) => Err(PostgresError::Sql(format!("the task ended abnormally: {error}"))),
        },
    }
}
