//! The loop: wait for something, look, decide, perform, publish.

use std::{collections::BTreeMap, rc::Rc, sync::Arc, time::Duration};

use tokio::{
    signal::unix::Signal,
    sync::{Notify, mpsc, watch},
};

use super::{
    archive_copy::CopyProgress,
    callbacks::Callbacks,
    config::{self, AgentConfig, Overrides},
    decide::decide,
    dynamic,
    ends::task_end,
    failsafe::{Circle, Failsafe},
    guard::FromGuard,
    namesake::Identity,
    past_file::PastFile,
    pending::Waiting,
    promise_book::PromiseBook,
    reason::Reason,
    receiver::ReceiverWatch,
    requests::Requests,
    server::{Process, Server},
    start::Place,
    tasks::{Running, Tools},
    view::{Local, Memory, Peer, Task},
    vitality::Disk,
};
use crate::{
    api::{Access, ApiRequest, NodeStatus},
    dcs::{Etcd, snapshot::MemberData, snapshot::Snapshot},
    model::MemberName,
    postgres::conf::ServerSettings,
    spec::settings::Settings,
    sys::{clock::Moment, memory, timer::Timer},
};

/// How often a starting server is asked whether it answers yet.
const FIRST_ANSWER: Duration = Duration::from_millis(20);

/// The agent's state between turns.
pub(super) struct Shell {
    pub(super) config: Rc<AgentConfig>,
    pub(super) dcs: Rc<Etcd>,
    pub(super) server: Rc<Server>,
    pub(super) http: reqwest::Client,
    pub(super) status: Arc<watch::Sender<Arc<NodeStatus>>>,
    pub(super) settings: Settings,
    pub(super) cluster: Snapshot,
    pub(super) dcs_answers: bool,
    pub(super) dcs_seen: Option<Moment>,
    pub(super) lease_until: Option<Moment>,
    pub(super) failsafe: Rc<Failsafe>,
    pub(super) promises: Rc<PromiseBook>,
    /// Everybody who may take this member's place while it leads; `None`: anybody may, or it is not known.
    pub(super) circle: Option<Circle>,
    pub(super) peers: Option<BTreeMap<MemberName, Peer>>,
    /// How far the copy has come that is being made.
    pub(super) copy_progress: CopyProgress,
    pub(super) asked_at: Option<Moment>,
    /// Since when another `primary_conninfo` is in force than the one that was written.
    pub(super) deviates_since: Option<Moment>,
    /// Whether the running server can decode WAL; `None`: there is none.
    pub(super) decodes: Option<bool>,
    pub(super) memory: Memory,
    /// What of it outlives this agent.
    pub(super) past: PastFile,
    pub(super) task: Option<Running>,
    pub(super) stopping: bool,
    pub(super) ended: bool,
    /// What the process ends with.
    pub(super) exit_code: u8,
    /// Who this is, beyond its name.
    pub(super) identity: Identity,
    pub(super) major_version: Option<String>,
    pub(super) published: Option<MemberData>,
    pub(super) configured: Option<ServerSettings>,
    /// The dynamic configuration as the DCS last had it.
    pub(super) last_config: dynamic::Kept,
    pub(super) wake: Rc<Notify>,
    pub(super) receiver: ReceiverWatch,
    pub(super) said: Option<Reason>,
    pub(super) complaint: Option<String>,
    /// What failed last, and how.
    pub(super) failure: Option<(Task, String)>,
    pub(super) requests: Requests,
    pub(super) waiting: Waiting,
    pub(super) callbacks: Callbacks,
    /// Whom the REST API lets in, and what it is shown elsewhere.
    pub(super) access: watch::Sender<Access>,
    pub(super) source: (String, Overrides),
    pub(super) disk: Arc<Disk>,
    /// Nobody else works on the data directory while this is kept.
    pub(super) _place: Place,
}

/// What the loop waits for, besides time.
pub(super) struct Events {
    pub(super) guard: mpsc::UnboundedReceiver<FromGuard>,
    pub(super) requests: mpsc::UnboundedReceiver<ApiRequest>,
    pub(super) terminate: Signal,
    pub(super) interrupt: Signal,
    pub(super) reload: Signal,
    pub(super) timer: Timer,
}

impl Shell {
    pub(super) async fn run(mut self, mut events: Events) -> u8 {
        self.resume_leading();
        tracing::info!("agent of '{}' in cluster '{}' started", self.config.name, self.config.dcs.scope);
        memory::give_back_code();
        loop {
            let pause = self.turn().await;
            if self.ended {
                self.finish_callbacks().await;
                return self.exit_code;
            }
            if !self.wait(&mut events, pause).await {
                return self.without_guard().await;
            }
        }
    }

    /// One turn; returns how long to wait for the next when nothing happens.
    async fn turn(&mut self) -> Duration {
        loop {
            let view = self.observe().await;
            if self.ended {
                return Duration::ZERO;
            }
            self.watch_receiver(&view.local);
            if let Err(error) = self.refresh_configuration(&view).await {
                tracing::warn!("the configuration could not be brought up to date: {error}");
            }
            if let Err(error) = self.enforce_conninfo(&view).await {
                tracing::warn!("the primary to follow could not be enforced: {error}");
            }
            self.keep_read_only(&view);
            let decision = decide(&view);
            self.say(&decision.reason);
            let again = self.perform(decision.actions, &view).await;
            self.keep_past_for_later();
            self.publish(&view).await;
            self.answer_restart(&view);
            self.tell_callbacks(&view);
            if again && !self.ended {
                continue;
            }
            let pause = self.memory.pause(decision.recheck, view.settings.loop_wait, Moment::now());
            let soon = [self.requests.until_due(), self.waiting.until_look(Moment::now())];
            return soon.into_iter().flatten().fold(pause, Duration::min);
        }
    }

    /// Waits for an event or for `pause`. False when the guard is gone.
    async fn wait(&mut self, events: &mut Events, pause: Duration) -> bool {
        let wake = self.wake.clone();
        tokio::select! {
            message = events.guard.recv() => match message {
                Some(message) => self.hear(&message),
                None => return false,
            },
            () = wake.notified() => {}
            Some(request) = events.requests.recv() => self.take_request(request),
            end = task_end(&mut self.task) => self.task_ended(end),
            _ = events.terminate.recv() => self.stopping = true,
            _ = events.interrupt.recv() => self.stopping = true,
            _ = events.reload.recv() => self.reload(),
            () = events.timer.pause(pause) => {}
        }
        true
    }

    fn watch_receiver(&mut self, local: &Local) {
        let receiver = match local {
            Local::Standby(facts) => facts.receiver,
            _ => None,
        };
        self.receiver.look(receiver, &self.wake);
    }

    /// SIGHUP: the local configuration again. One that has a mistake is not taken.
    pub(super) fn reload(&mut self) {
        match config::load(&self.source.0, &self.source.1) {
            Ok(config) => {
                let told = config.news(&self.config);
                self.config = Rc::new(self.config.reloaded(config));
                self.access.send_replace(self.config.access.clone());
                tracing::info!("configuration read again");
                told.iter().for_each(|line| tracing::warn!("configuration: {line}"));
            }
            Err(error) => tracing::error!("configuration not read again: {error}"),
        }
    }

    /// Wakes the loop as soon as the server that was just started answers.
    pub(super) fn announce_first_answer(&self) {
        let (server, wake) = (self.server.clone(), self.wake.clone());
        tokio::task::spawn_local(async move {
            while server.process() != Process::None && !server.has_answered() {
                if server.new_session("spilo start").await.is_ok() {
                    wake.notify_one();
                    return;
                }
                tokio::time::sleep(FIRST_ANSWER).await;
            }
        });
    }

    /// Something is being promoted.
    pub(super) fn promotes(&self) -> bool {
        self.task.as_ref().is_some_and(|t| t.kind == Task::Promote)
    }

    /// Tools for a task.
    pub(super) fn tools(&self) -> Tools {
        Tools {
            config: self.config.clone(),
            server: self.server.clone(),
            dcs: self.dcs.clone(),
            copy_progress: self.copy_progress.clone(),
            goal: self.goal(),
        }
    }
}
