//! Operators' requests as the shell holds them: who waits for which answer.

use std::{collections::VecDeque, time::Duration};

use tokio::sync::oneshot;

use super::{
    memory::BringingUp,
    perform::{Failure, Flow},
    shell::Shell,
    view::{Local, Task, View},
    wish::{Refusal, Request, Restart, Scheduled, Wishes},
};
use crate::{api::ApiRequest, model::MemberName};

/// Where an answer goes: status code and sentence.
type Asker = oneshot::Sender<(u16, String)>;

/// What was asked and is not answered.
#[derive(Default)]
pub(super) struct Requests {
    waiting: VecDeque<(Request, Asker)>,
    restarting: Option<Asker>,
    /// A restart that is to come.
    pub(super) scheduled: Option<Scheduled>,
}

impl Requests {
    /// Answers the first that waits.
    fn answer(&mut self, code: u16, text: &str) {
        if let Some((_, asker)) = self.waiting.pop_front() {
            let _ = asker.send((code, text.to_owned()));
        }
    }

    /// Tells the first that waits why not.
    pub(super) fn refuse(&mut self, why: &Refusal) {
        tracing::info!("not doing what an operator asked for: {why}");
        self.answer(503, &why.to_string());
    }

    /// A restart did not end well.
    pub(super) fn restart_failed(&mut self) {
        if let Some(asker) = self.restarting.take() {
            let _ = asker.send((503, "restart failed".to_owned()));
        }
    }

    /// Time until a scheduled restart is due.
    pub(super) fn until_due(&self) -> Option<Duration> {
        let until = self.scheduled.as_ref()?.at.saturating_sub(wall_clock());
        // One that is overdue waits for the server, which wakes the loop.
        u64::try_from(until).ok().filter(|ms| *ms > 0).map(Duration::from_millis)
    }

    fn schedule(&mut self, scheduled: Option<Scheduled>) -> (u16, String) {
        match scheduled {
            _ if self.scheduled.is_some() => (409, "Another restart is already scheduled".to_owned()),
            None => (503, "PostgreSQL does not answer: there is nothing to restart".to_owned()),
            scheduled => {
                self.scheduled = scheduled;
                (202, "Restart scheduled".to_owned())
            }
        }
    }

    fn unschedule(&mut self) -> (u16, String) {
        match self.scheduled.take() {
            Some(_) => (200, "scheduled restart deleted".to_owned()),
            None => (404, "no restarts are scheduled".to_owned()),
        }
    }
}

impl Shell {
    /// Takes in what the API passes on to the loop.
    pub(super) fn take_request(&mut self, request: ApiRequest) {
        match request {
            ApiRequest::Ask { request, answer } => self.requests.waiting.push_back((request, answer)),
            ApiRequest::Schedule { at, restart, body, answer } => {
                let started = self.server_start();
                let scheduled = started.map(|postmaster_start_time| Scheduled { at, restart, body, postmaster_start_time });
                let _ = answer.send(self.requests.schedule(scheduled));
            }
            ApiRequest::Unschedule { answer } => drop(answer.send(self.requests.unschedule())),
            ApiRequest::Reload => self.reload(),
            // Answered beside the loop.
            ApiRequest::Handover { .. }
            | ApiRequest::Withdraw { .. }
            | ApiRequest::Configure { .. }
            | ApiRequest::Promise { .. }
            | ApiRequest::Observe { .. } => {}
        }
    }

    /// When the present server started, as last seen.
    pub(super) fn server_start(&self) -> Option<String> {
        self.status.borrow().postmaster_start_time.clone()
    }

    /// What operators wish, for the view.
    pub(super) fn wishes(&self) -> Wishes {
        Wishes {
            wall_clock: wall_clock(),
            asked: self.requests.waiting.front().map(|(request, _)| request.clone()),
            scheduled: self.requests.scheduled.clone(),
            pending: self.waiting.parameters.clone(),
            blocks_replay: self.waiting.blocks_replay,
        }
    }

    /// Stops the server; the rules start it again in the role that the leader key gives it.
    pub(super) fn restart(&mut self, patience: Option<Duration>, view: &View) -> Flow {
        let (kind, before) = match &view.local {
            Local::Primary(server) => (Task::RestartPrimary, Some(server.started.clone())),
            Local::Standby(server) => (Task::Restart, Some(server.started.clone())),
            _ => (Task::Restart, None),
        };
        let runs = before.is_some();
        tracing::info!("restarting PostgreSQL, as an operator asked for");
        self.memory.try_at_once();
        self.memory.failed_starts = 0;
        self.memory.bringing_up = Some(BringingUp { before, patience });
        let asked = matches!(self.requests.waiting.front(), Some((Request::Restart(Restart { .. }), _)));
        self.requests.restarting = if asked { self.requests.waiting.pop_front().map(|(_, asker)| asker) } else { None };
        if runs {
            let stop = self.tools().stop_for_restart();
            self.begin(kind, stop);
        }
        Flow::LookAgain
    }

    /// Tells whoever asked for a restart what came of it.
    pub(super) fn answer_restart(&mut self, view: &View) {
        if self.requests.restarting.is_none() || self.task.is_some() {
            return;
        }
        if self.memory.failed_starts > 0 {
            self.requests.restart_failed();
        } else if self.memory.bringing_up.is_none()
            && matches!(view.local, Local::Primary(_) | Local::Standby(_))
            && let Some(asker) = self.requests.restarting.take()
        {
            let _ = asker.send((200, "restarted successfully".to_owned()));
        }
    }

    /// Begins to replace the data directory by a copy.
    pub(super) fn reinitialize(&mut self, leader: MemberName, view: &View) -> Result<(), Failure> {
        let source = match self.address_of(&leader) {
            Ok(source) => source,
            Err(error) => {
                self.requests.answer(503, &error.to_string());
                return Err(error);
            }
        };
        tracing::info!("copying '{leader}' anew, as an operator asked for");
        let before = match &view.local {
            Local::Primary(server) | Local::Standby(server) => Some(server.started.clone()),
            _ => None,
        };
        self.memory.try_at_once();
        self.memory.bringing_up = Some(BringingUp { before, patience: None });
        self.task = None;
        let copy = self.tools().reinitialize(leader, source, self.cluster_system(), self.settings.use_slots);
        self.begin(Task::Reinitialize, copy);
        self.requests.answer(200, "reinitialize started");
        Ok(())
    }
}

/// The time of day, in milliseconds since 1970.
pub(super) fn wall_clock() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
