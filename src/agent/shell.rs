//! The loop: wait for something, look, decide, perform, publish.

use std::{collections::BTreeMap, net::ToSocketAddrs, os::unix::fs::DirBuilderExt, rc::Rc, sync::Arc, time::Duration};

use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::{Notify, mpsc, watch},
    task::LocalSet,
};

use super::{
    answers::Answers,
    archive_copy::CopyProgress,
    archiver::{self, Service},
    callbacks::Callbacks,
    config::{self, AgentConfig, Overrides},
    decide::decide,
    dynamic,
    failsafe::{Circle, Failsafe},
    guard::{FromGuard, GuardLink, LinkError},
    memory::{SETTLED, TaskEnd},
    namesake::Identity,
    past_file::PastFile,
    pending::Waiting,
    promise_book::PromiseBook,
    publish::PROTOCOL,
    reason::Reason,
    receiver::ReceiverWatch,
    requests::Requests,
    server::{Process, Server},
    start::{self, Place, Refused},
    tasks::{Running, Tools},
    view::{Local, Memory, Peer, Task, Trouble},
    vitality::{self, Disk},
};
use crate::{
    api::{self, Access, ApiRequest, NodeStatus},
    dcs::{Dcs, DcsError, Etcd, snapshot::MemberData, snapshot::Snapshot},
    model::MemberName,
    postgres::{PostgresError, clone, conf::ServerSettings, conninfo, parameter_check},
    spec::settings::Settings,
    sys::{clock::Moment, memory, process_table::has_ended, timer::Timer},
};

/// How often a starting server is asked whether it answers yet.
const FIRST_ANSWER: Duration = Duration::from_millis(20);

/// The agent could not begin its work.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The configuration is not usable.
    #[error(transparent)]
    Config(#[from] config::ConfigError),
    /// There is no guard.
    #[error(transparent)]
    Guard(#[from] LinkError),
    /// The start is refused.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The store's client could not be set up.
    #[error(transparent)]
    Dcs(#[from] DcsError),
    /// Files of the server could not be prepared.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// The REST API's address cannot be listened on.
    #[error("cannot listen on '{address}' for the REST API")]
    Listen {
        /// The address.
        address: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Something the process needs is not there.
    #[error("cannot {action}")]
    Process {
        /// What was tried.
        action: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

fn process(action: &'static str) -> impl FnOnce(std::io::Error) -> AgentError {
    move |source| AgentError::Process { action, source }
}

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
    wake: Rc<Notify>,
    receiver: ReceiverWatch,
    said: Option<Reason>,
    pub(super) complaint: Option<String>,
    /// What failed last, and how.
    failure: Option<(Task, String)>,
    pub(super) requests: Requests,
    pub(super) waiting: Waiting,
    pub(super) callbacks: Callbacks,
    /// Whom the REST API lets in, and what it is shown elsewhere.
    access: watch::Sender<Access>,
    source: (String, Overrides),
    pub(super) disk: Arc<Disk>,
    /// Nobody else works on the data directory while this is kept.
    _place: Place,
}

/// What the loop waits for, besides time.
struct Events {
    guard: mpsc::UnboundedReceiver<FromGuard>,
    requests: mpsc::UnboundedReceiver<ApiRequest>,
    terminate: Signal,
    interrupt: Signal,
    reload: Signal,
    timer: Timer,
}

/// Runs the agent until it is told to end. Returns the exit code that tells the guard what to do next.
pub fn run(path: &str, overrides: &Overrides) -> Result<u8, AgentError> {
    if let Err(error) = memory::keep_secret() {
        tracing::warn!("passwords in memory may end up in a core file: {error}");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(process("start the runtime"))?;
    LocalSet::new().block_on(&runtime, async {
        let (shell, events) = prepare(path, overrides).await?;
        Ok(shell.run(events).await)
    })
}

async fn prepare(path: &str, overrides: &Overrides) -> Result<(Shell, Events), AgentError> {
    let config = Rc::new(config::load(path, overrides)?);
    config.idle.iter().for_each(|line| tracing::warn!("configuration: {line}"));
    let (guard, mut messages) = GuardLink::connect()?;
    make_parent(&config.installation.data_dir)?;
    let place = start::claim(&guard, &mut messages, &config.installation.data_dir).await?;
    let major_version = major_version(&config).await;
    if !place.heard.iter().any(|said| matches!(said, FromGuard::Running { .. })) {
        start::inspect(&config, major_version.as_deref()).await?;
    }
    let identity = Identity::load(&config.installation.data_dir).map_err(process("keep this node's identity"))?;
    let past = PastFile::open(&config.installation.data_dir, &config.dcs.scope);
    clone::recover_interrupted(&config.installation)?;
    let mut roles = vec![&config.superuser, &config.replication];
    roles.extend(&config.rewind);
    let passfile = &config.installation.passfile;
    conninfo::write_passfile(passfile, &roles).map_err(PostgresError::file("write", passfile))?;
    let listener = listen(&config.api_listen).await?;
    let api_address = listener.local_addr().map_err(process("see where the REST API listens"))?;
    let last_config = dynamic::load(&config.installation.data_dir);
    let begin = last_config.as_ref().or(config.bootstrap.as_ref().map(|b| &b.dcs));
    let settings = begin.map_or_else(Settings::default, Settings::read);
    let dcs = Rc::new(Etcd::connect(&config.dcs, settings.retry_timeout).await?);
    let first = NodeStatus::unknown(config.name.clone(), &config.dcs.scope, PROTOCOL, Moment::now() + settings.ttl);
    let (status, published) = watch::channel(Arc::new(first));
    let status = Arc::new(status);
    let disk = Disk::watch(config.installation.data_dir.clone()).map_err(process("watch the disk"))?;
    let new_timer = || Timer::new().map_err(process("set up a timer"));
    let wake = Rc::new(Notify::new());
    let server = Rc::new(Server::new(config.clone(), guard));
    // The guard's first word tells whether there is a server to adopt.
    place.heard.iter().for_each(|said| server.hear(said));
    let (requests, asked) = mpsc::channel(64);
    let (to_the_loop, for_the_loop) = mpsc::unbounded_channel();
    let (access, demanded) = watch::channel(config.access.clone());
    tokio::spawn(api::serve(
        listener,
        published,
        requests,
        demanded,
        config.archive.as_ref().map(|_| config.installation.data_dir.clone()),
    ));
    let promises = Rc::new(PromiseBook::open(&config.installation.data_dir, settings.ttl, Moment::now()));
    let answers = Answers {
        server: server.clone(),
        dcs: dcs.clone(),
        status: status.clone(),
        promises: promises.clone(),
        to_the_loop,
        wake: wake.clone(),
    };
    tokio::task::spawn_local(answers.run(asked));
    tokio::task::spawn_local(vitality::watch(server.clone(), disk.clone(), config.local.clone(), wake.clone(), new_timer()?));
    tokio::task::spawn_local(watch_dcs(dcs.clone(), wake.clone()));
    if let Some(archive) = &config.archive {
        tokio::task::spawn_local(archiver::keep_running(Service::of_wal(archive, &config.installation.data_dir)));
        tokio::task::spawn_local(archiver::keep_running(Service::keeper(archive, &config, api_address)));
    }
    let events = Events {
        guard: messages,
        requests: for_the_loop,
        terminate: signal(SignalKind::terminate()).map_err(process("receive signals"))?,
        interrupt: signal(SignalKind::interrupt()).map_err(process("receive signals"))?,
        reload: signal(SignalKind::hangup()).map_err(process("receive signals"))?,
        timer: new_timer()?,
    };
    let http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build();
    let http = http.map_err(|e| AgentError::Process { action: "set up HTTP", source: std::io::Error::other(e) })?;
    let http_of_rounds = (http.clone(), access.subscribe());
    let failsafe = Failsafe::new(&config.installation.data_dir, http_of_rounds, server.clone(), status.clone(), wake.clone());
    let failsafe = Rc::new(failsafe);
    tokio::task::spawn_local(failsafe.clone().run(new_timer()?));
    let shell = Shell {
        config,
        dcs,
        server,
        http,
        status,
        settings,
        cluster: Snapshot::default(),
        dcs_answers: false,
        dcs_seen: None,
        lease_until: None,
        failsafe,
        promises,
        circle: None,
        peers: None,
        copy_progress: CopyProgress::default(),
        asked_at: None,
        deviates_since: None,
        decodes: None,
        memory: Memory { past: past.kept().clone(), past_unreadable: past.unreadable().cloned(), ..Memory::default() },
        past,
        task: None,
        stopping: false,
        ended: false,
        exit_code: 0,
        identity,
        major_version,
        published: None,
        configured: None,
        last_config: dynamic::Kept::of(last_config),
        wake,
        receiver: ReceiverWatch::default(),
        said: None,
        complaint: None,
        failure: None,
        requests: Requests::default(),
        waiting: Waiting::default(),
        callbacks: Callbacks::default(),
        access,
        source: (path.to_owned(), overrides.clone()),
        disk,
        _place: place,
    };
    Ok((shell, events))
}

/// The data directory itself appears when it is complete; what it lies in has to be there before.
fn make_parent(data_dir: &std::path::Path) -> Result<(), PostgresError> {
    let Some(parent) = data_dir.parent() else { return Ok(()) };
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent);
    made.map_err(PostgresError::file("create", parent))
}

/// Listens for the REST API. `SO_REUSEADDR` comes with tokio: an agent that was killed is back on its port at once.
async fn listen(address: &str) -> Result<TcpListener, AgentError> {
    let fail = |source| AgentError::Listen { address: address.to_owned(), source };
    let addresses: Vec<_> = address.to_socket_addrs().map_err(fail)?.collect();
    TcpListener::bind(&addresses[..]).await.map_err(fail)
}

/// The installed major version, such as `17`; `None` when `postgres` does not say.
async fn major_version(config: &AgentConfig) -> Option<String> {
    parameter_check::major_version(&config.installation).await.ok().map(|major| major.to_string())
}

/// Wakes the loop when something changed in the DCS.
async fn watch_dcs(dcs: Rc<Etcd>, wake: Rc<Notify>) {
    loop {
        dcs.changed().await;
        wake.notify_one();
    }
}

impl Shell {
    async fn run(mut self, mut events: Events) -> u8 {
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

    fn hear(&mut self, message: &FromGuard) {
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

    fn task_ended(&mut self, end: Result<TaskEnd, PostgresError>) {
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

    /// The guard is gone, and the kernel stops PostgreSQL with it. The leader key is given up as soon as nothing can write any more.
    async fn without_guard(&mut self) -> u8 {
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

    /// Logs a reason when it is a new one.
    fn say(&mut self, reason: &Reason) {
        if self.said.as_ref() != Some(reason) {
            tracing::info!("{reason}");
            self.said = Some(reason.clone());
        }
    }

    /// Logs that a task failed: once, while it is tried again and fails in the same way.
    fn say_failure(&mut self, kind: Task, error: &PostgresError) {
        let failure = (kind, error.to_string());
        if self.failure.as_ref() != Some(&failure) {
            tracing::warn!("{kind:?} failed: {error}");
            self.failure = Some(failure);
        }
    }

    /// Logs trouble with the DCS once, until it is another or gone.
    pub(super) fn complain(&mut self, error: &DcsError) {
        let text = error.to_string();
        if self.complaint.as_ref() != Some(&text) {
            tracing::warn!("{text}");
            self.complaint = Some(text);
        }
    }
}

/// The end of the running task; never, when there is none.
async fn task_end(task: &mut Option<Running>) -> Result<TaskEnd, PostgresError> {
    match task {
        None => std::future::pending().await,
        Some(running) => match (&mut running.handle).await {
            Ok(end) => end,
            Err(error) => Err(PostgresError::Sql(format!("the task ended abnormally: {error}"))),
        },
    }
}
