//! What the agent needs before its first turn, in the order in which it may be refused.

use std::{net::ToSocketAddrs, os::unix::fs::DirBuilderExt, rc::Rc, sync::Arc};

use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::{Notify, mpsc, watch},
    task::LocalSet,
};

use super::{
    answers::Answers,
    archive_copy::CopyProgress,
    archiver::{self, Service},
    callbacks::Callbacks,
    config::{self, AgentConfig, Overrides},
    dynamic,
    failsafe::Failsafe,
    guard::{FromGuard, GuardLink, LinkError},
    namesake::Identity,
    past_file::PastFile,
    pending::Waiting,
    promise_book::PromiseBook,
    publish::PROTOCOL,
    receiver::ReceiverWatch,
    requests::Requests,
    server::Server,
    shell::{Events, Shell},
    start::{self, Place, Refused},
    view::Memory,
    vitality::{self, Disk},
};
use crate::{
    api::{self, Access, ApiRequest, NodeStatus},
    dcs::{Dcs, DcsError, Etcd, snapshot::Snapshot},
    postgres::{PostgresError, clone, conninfo, parameter_check},
    spec::settings::Settings,
    sys::{clock::Moment, memory, timer::Timer},
};

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
    let (ground, listener, guard) = Ground::prepare(config).await?;
    let (to_the_loop, requests) = mpsc::unbounded_channel();
    let services = ground.begin_services(listener, to_the_loop)?;
    let events = Events {
        guard,
        requests,
        terminate: signal(SignalKind::terminate()).map_err(process("receive signals"))?,
        interrupt: signal(SignalKind::interrupt()).map_err(process("receive signals"))?,
        reload: signal(SignalKind::hangup()).map_err(process("receive signals"))?,
        timer: new_timer()?,
    };
    Ok((ground.shell(services, (path.to_owned(), overrides.clone())), events))
}

/// What everything else stands on: the directory is ours, and what is known of it was read.
struct Ground {
    config: Rc<AgentConfig>,
    place: Place,
    major_version: Option<String>,
    identity: Identity,
    past: PastFile,
    last_config: Option<serde_json::Value>,
    settings: Settings,
    dcs: Rc<Etcd>,
    server: Rc<Server>,
    disk: Arc<Disk>,
    wake: Rc<Notify>,
}

/// What the shell shares with what goes on beside it.
struct Services {
    status: Arc<watch::Sender<Arc<NodeStatus>>>,
    access: watch::Sender<Access>,
    promises: Rc<PromiseBook>,
    failsafe: Rc<Failsafe>,
    http: reqwest::Client,
}

impl Ground {
    /// The REST API's place to listen and the guard's messages come with it.
    async fn prepare(config: Rc<AgentConfig>) -> Result<(Ground, TcpListener, mpsc::UnboundedReceiver<FromGuard>), AgentError> {
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
        write_passfile(&config)?;
        let listener = listen(&config.api_listen).await?;
        let last_config = dynamic::load(&config.installation.data_dir);
        let begin = last_config.as_ref().or(config.bootstrap.as_ref().map(|b| &b.dcs));
        let settings = begin.map_or_else(Settings::default, Settings::read);
        let dcs = Rc::new(Etcd::connect(&config.dcs, settings.retry_timeout).await?);
        let disk = Disk::watch(config.installation.data_dir.clone()).map_err(process("watch the disk"))?;
        let server = Rc::new(Server::new(config.clone(), guard));
        // The guard's first word tells whether there is a server to adopt.
        place.heard.iter().for_each(|said| server.hear(said));
        let wake = Rc::new(Notify::new());
        let ground = Ground { config, place, major_version, identity, past, last_config, settings, dcs, server, disk, wake };
        Ok((ground, listener, messages))
    }

    /// Begins what goes on beside the loop.
    fn begin_services(&self, listener: TcpListener, to_the_loop: mpsc::UnboundedSender<ApiRequest>) -> Result<Services, AgentError> {
        let Ground { config, dcs, server, disk, wake, .. } = self;
        let data_dir = &config.installation.data_dir;
        let api_address = listener.local_addr().map_err(process("see where the REST API listens"))?;
        let first = NodeStatus::unknown(config.name.clone(), &config.dcs.scope, PROTOCOL, Moment::now() + self.settings.ttl);
        let (status, published) = watch::channel(Arc::new(first));
        let status = Arc::new(status);
        let (requests, asked) = mpsc::channel(64);
        let (access, demanded) = watch::channel(config.access.clone());
        tokio::spawn(api::serve(listener, published, requests, demanded, config.archive.as_ref().map(|_| data_dir.clone())));
        let promises = Rc::new(PromiseBook::open(data_dir, self.settings.ttl, Moment::now()));
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
            tokio::task::spawn_local(archiver::keep_running(Service::of_wal(archive, data_dir)));
            tokio::task::spawn_local(archiver::keep_running(Service::keeper(archive, config, api_address)));
        }
        let http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build();
        let http = http.map_err(|e| AgentError::Process { action: "set up HTTP", source: std::io::Error::other(e) })?;
        let http_of_rounds = (http.clone(), access.subscribe());
        let failsafe = Rc::new(Failsafe::new(data_dir, http_of_rounds, server.clone(), status.clone(), wake.clone()));
        tokio::task::spawn_local(failsafe.clone().run(new_timer()?));
        Ok(Services { status, access, promises, failsafe, http })
    }

    /// The loop's state before its first turn.
    fn shell(self, services: Services, source: (String, Overrides)) -> Shell {
        let Ground { config, place, major_version, identity, past, last_config, settings, dcs, server, disk, wake } = self;
        let Services { status, access, promises, failsafe, http } = services;
        Shell {
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
            source,
            disk,
            _place: place,
        }
    }
}

fn new_timer() -> Result<Timer, AgentError> {
    Timer::new().map_err(process("set up a timer"))
}

/// Every password that connections of ours to other servers need.
fn write_passfile(config: &AgentConfig) -> Result<(), PostgresError> {
    let mut roles = vec![&config.superuser, &config.replication];
    roles.extend(&config.rewind);
    let passfile = &config.installation.passfile;
    conninfo::write_passfile(passfile, &roles).map_err(PostgresError::file("write", passfile))
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
