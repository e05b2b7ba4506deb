//! The local server as the shell drives it: through the guard, and through one SQL session.

use std::{
    cell::{Cell, RefCell},
    fs,
    path::Path,
    rc::Rc,
    time::Duration,
};

use tokio::sync::Notify;

use super::{
    config::AgentConfig,
    fence::Fence,
    guard::{FromGuard, GuardLink, LinkError, StopMode, ToGuard},
    watchdog::{self, Mode},
};
use crate::{
    model::{Term, timeline_at},
    postgres::{
        Installation, PostgresError,
        conf::{self, ServerSettings},
        control_data,
        sql::{ServerFacts, Session},
        timelines,
    },
    spec::settings::Settings,
    sys::clock::Moment,
};

/// What is known of the server's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Process {
    /// There is none.
    None,
    /// A start was asked for.
    Launching(Moment),
    /// It runs since then, or since this agent found it.
    Running(i32, Moment),
}

/// The local server.
pub struct Server {
    config: Rc<AgentConfig>,
    guard: GuardLink,
    process: Cell<Process>,
    stopping: Cell<bool>,
    answered: Cell<Option<Moment>>,
    hanging: Cell<bool>,
    killed: Cell<bool>,
    /// Why the watchdog device is of no use.
    watchdog_trouble: RefCell<Option<String>>,
    /// What the guard was last told of it: the timeout, none, or why none.
    watchdog_told: RefCell<Option<Result<Option<u32>, String>>>,
    fence: Cell<Option<Fence>>,
    session: RefCell<Option<Rc<Session>>>,
    /// Wakes whoever waits for the process to start or end.
    changed: Notify,
}

impl Server {
    /// A server behind this guard.
    pub fn new(config: Rc<AgentConfig>, guard: GuardLink) -> Server {
        let server = Server {
            config,
            guard,
            process: Cell::new(Process::None),
            stopping: Cell::new(false),
            answered: Cell::new(None),
            hanging: Cell::new(false),
            killed: Cell::new(false),
            watchdog_trouble: RefCell::new(None),
            watchdog_told: RefCell::new(None),
            fence: Cell::new(None),
            session: RefCell::new(None),
            changed: Notify::new(),
        };
        // The guard's own answer comes too late for the first decision.
        if server.config.watchdog.mode != Mode::Off {
            server.note_watchdog(watchdog::usable(&server.config.watchdog.device).err());
        }
        server
    }

    /// Its directories.
    pub fn installation(&self) -> &Installation {
        &self.config.installation
    }

    /// The role that standbys stream as.
    pub fn replication(&self) -> &str {
        &self.config.replication.username
    }

    /// What is known of the process.
    pub fn process(&self) -> Process {
        self.process.get()
    }

    /// It was told to stop.
    pub fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    /// It has answered since it was started.
    pub fn has_answered(&self) -> bool {
        self.answered.get().is_some()
    }

    /// When it last answered, since it was started.
    pub fn last_answer(&self) -> Option<Moment> {
        self.answered.get()
    }

    /// Takes in what the guard says.
    pub fn hear(&self, message: &FromGuard) {
        match message {
            FromGuard::Running { pid } => self.process.set(Process::Running(*pid, Moment::now())),
            FromGuard::Idle => self.forget(),
            FromGuard::Watchdog { trouble } => self.note_watchdog(trouble.clone()),
            FromGuard::Killed => self.killed.set(true),
            FromGuard::Claimed | FromGuard::Refused { .. } => {}
            FromGuard::NotStarted { why } => {
                tracing::error!("PostgreSQL was not started: {why}");
                self.forget();
            }
            FromGuard::Ended { status, fenced } => {
                if *fenced {
                    tracing::error!("PostgreSQL was stopped by the guard: the lease had ended");
                } else {
                    tracing::info!("PostgreSQL ended ({status})");
                }
                self.forget();
            }
        }
        self.changed.notify_waiters();
    }

    fn forget(&self) {
        self.process.set(Process::None);
        self.stopping.set(false);
        self.answered.set(None);
        self.fence.set(None);
        self.hanging.set(false);
        self.killed.set(false);
        self.session.replace(None);
    }

    /// Has the guard use the watchdog device as configured for this lease, or none.
    pub async fn keep_watchdog(&self, lease: &Settings) -> Result<(), PostgresError> {
        let wanted = self.config.watchdog.wanted(lease);
        if self.watchdog_told.borrow().as_ref() == Some(&wanted) {
            return Ok(());
        }
        let message = match &wanted {
            Ok(Some(timeout)) => ToGuard::Watchdog { device: self.config.watchdog.device.clone(), timeout: *timeout },
            Ok(None) | Err(_) => ToGuard::NoWatchdog,
        };
        self.say(&message).await?;
        if let Err(why) = &wanted {
            self.note_watchdog(Some(why.clone()));
        }
        self.watchdog_told.replace(Some(wanted));
        Ok(())
    }

    fn note_watchdog(&self, trouble: Option<String>) {
        if *self.watchdog_trouble.borrow() == trouble {
            return;
        }
        match &trouble {
            Some(why) => tracing::warn!("no watchdog guards this machine while it leads: {why}"),
            None => tracing::info!("the watchdog '{}' can be used", self.config.watchdog.device.display()),
        }
        self.watchdog_trouble.replace(trouble);
    }

    /// Why this member must not lead for want of a watchdog.
    pub fn required_watchdog_trouble(&self) -> Option<String> {
        (self.config.watchdog.mode == Mode::Required).then(|| self.watchdog_trouble.borrow().clone()).flatten()
    }

    /// Notes whether it has stopped taking connections.
    pub fn set_hanging(&self, hanging: bool) {
        self.hanging.set(hanging);
    }

    /// It takes no new connections, whatever its sessions say.
    pub fn is_hanging(&self) -> bool {
        self.hanging.get()
    }

    /// All of it was sent SIGKILL.
    pub fn is_killed(&self) -> bool {
        self.killed.get()
    }

    /// The promise that holds at this moment.
    pub fn fence(&self) -> Option<Fence> {
        self.fence.get()
    }

    /// From now on votes may be given.
    pub fn promise(&self, fence: Fence) {
        self.fence.set(Some(fence));
    }

    /// From now on votes are given no more. To be called before anything that lets the standby follow somebody.
    pub fn withdraw(&self) {
        self.fence.set(None);
    }

    /// True for a session that can tell whether this server is cut off.
    pub fn is_current(&self, session: &Session) -> bool {
        !session.is_closed() && self.fence.get().is_none_or(|fence| session.begun() > fence.since)
    }

    /// What the server says through this session, and the vote that may be given with it. The position is read after the server was seen cut
    /// off, and the promise has to hold from before to after both.
    pub async fn observe_through(&self, session: &Session) -> Result<(ServerFacts, Option<Term>), PostgresError> {
        let promised = self.fence.get().filter(|_| self.is_current(session));
        let cut_off = promised.is_some() && session.is_cut_off().await?;
        let facts = self.placed(session.observe().await?);
        let vote = promised.filter(|promised| cut_off && self.fence.get() == Some(*promised)).map(|fence| fence.term);
        Ok((facts, vote))
    }

    /// The SQL session, connected if need be.
    pub async fn session(&self) -> Result<Rc<Session>, PostgresError> {
        if let Some(session) = self.session.borrow().as_ref().filter(|s| self.is_current(s)) {
            return Ok(session.clone());
        }
        let session = Rc::new(self.new_session("Patroni heartbeat").await?);
        self.session.replace(Some(session.clone()));
        Ok(session)
    }

    /// A session of one's own, for long statements.
    pub async fn new_session(&self, application: &str) -> Result<Session, PostgresError> {
        Session::connect(&self.config.local, &self.config.superuser, "postgres", application).await
    }

    /// A session of one's own in this database.
    pub async fn new_session_in(&self, database: &str, application: &str) -> Result<Session, PostgresError> {
        Session::connect(&self.config.local, &self.config.superuser, database, application).await
    }

    /// Observes the running server, with its vote if it has one; a session that fails is given up.
    pub async fn observe(&self) -> Result<(ServerFacts, Option<Term>), PostgresError> {
        let observed = match self.session().await {
            Ok(session) => self.observe_through(&session).await.and_then(|(facts, vote)| Ok((self.checked(facts)?, vote))),
            Err(error) => Err(error),
        };
        match &observed {
            Ok(_) => self.answered.set(Some(Moment::now())),
            Err(_) => drop(self.session.replace(None)),
        }
        observed
    }

    /// A standby's timeline is the one that its position lies on.
    fn placed(&self, facts: ServerFacts) -> ServerFacts {
        if !facts.in_recovery {
            return facts;
        }
        let past = timelines::lineage(&self.config.installation.data_dir, facts.timeline).unwrap_or_default();
        ServerFacts { timeline: timeline_at(&past, facts.timeline, facts.position), ..facts }
    }

    /// The facts, if they are of this server and not of another one that has taken its port.
    fn checked(&self, facts: ServerFacts) -> Result<ServerFacts, PostgresError> {
        let (ours, theirs) = (&self.config.installation.data_dir, Path::new(&facts.data_directory));
        let same = ours == theirs || fs::canonicalize(ours).is_ok_and(|ours| fs::canonicalize(theirs).is_ok_and(|theirs| ours == theirs));
        // A directory that was deleted under a running server has no canonical form, and its server is ours until it notices.
        if same || !ours.exists() {
            return Ok(facts);
        }
        let port = self.config.local.port;
        Err(PostgresError::Sql(format!("another server answers on port {port}, with its data in '{}'", theirs.display())))
    }

    /// How long it has been running, as far as this agent knows.
    pub fn age(&self) -> Duration {
        match self.process.get() {
            Process::Running(_, since) => Moment::now().since(since),
            _ => Duration::ZERO,
        }
    }

    /// Starts it with these settings, as a standby or as a primary.
    pub async fn start(&self, settings: &ServerSettings, standby: bool) -> Result<(), PostgresError> {
        let installation = &self.config.installation;
        let data = &installation.data_dir;
        conf::write(installation, settings)?;
        conf::set_standby_signal(data, standby)?;
        remove_stale_pid_file(data)?;
        if standby {
            timelines::clear_places(data, control_data::read(installation).await?.checkpoint_timeline)?;
        }
        let mut arguments = vec!["-D".to_owned(), data.to_string_lossy().into_owned()];
        arguments.extend(settings.command_line());
        let program = installation.program("postgres").to_string_lossy().into_owned();
        self.process.set(Process::Launching(Moment::now()));
        self.answered.set(None);
        self.say(&ToGuard::Start { program, arguments }).await
    }

    /// Stops it. Repeatable; a sharper mode may follow a milder one.
    pub async fn stop(&self, mode: StopMode) -> Result<(), PostgresError> {
        self.stopping.set(true);
        self.say(&ToGuard::Stop(mode)).await
    }

    /// Waits until it is gone, at most `limit`.
    pub async fn gone(&self, limit: Duration) -> bool {
        let wait = async {
            loop {
                let changed = self.changed.notified();
                if self.process.get() == Process::None {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(limit, wait).await.is_ok()
    }

    /// Lets it read these settings, if they differ from what it has. Returns whether they did.
    pub async fn configure(&self, settings: &ServerSettings) -> Result<bool, PostgresError> {
        let changed = conf::write(&self.config.installation, settings)?;
        if changed {
            self.say(&ToGuard::Reload).await?;
        }
        Ok(changed)
    }

    /// Takes back what `ALTER SYSTEM` has set over a parameter of ours. Where our value is not in force, nothing that rests on it holds.
    pub async fn enforce(&self, parameter: &str) -> Result<(), PostgresError> {
        let session = self.session().await?;
        if session.is_altered(parameter).await? {
            tracing::error!("'{parameter}' was changed by ALTER SYSTEM, which would let commits be lost: resetting it");
            session.execute(&format!("alter system reset {parameter}")).await?;
        }
        self.say(&ToGuard::Reload).await
    }

    /// Tells the guard until when it may run as a primary.
    pub async fn arm(&self, until: Option<Moment>, grace: Duration) -> Result<(), PostgresError> {
        self.say(&ToGuard::Deadline { until, grace }).await
    }

    async fn say(&self, message: &ToGuard) -> Result<(), PostgresError> {
        self.guard.tell(message).await.map_err(|e: LinkError| PostgresError::Sql(e.to_string()))
    }
}

/// Removes a postmaster.pid whose process is no postmaster of this directory. In a container that was started again the same small process
/// ids come back for other programs, and PostgreSQL would refuse to start.
fn remove_stale_pid_file(data: &Path) -> Result<(), PostgresError> {
    let path = data.join("postmaster.pid");
    let Ok(text) = fs::read_to_string(&path) else { return Ok(()) };
    let pid = text.lines().next().and_then(|line| line.trim().parse::<i32>().ok());
    if pid.is_some_and(|pid| is_postmaster(pid, data)) {
        let what = format!("'{}' belongs to a running postmaster (process {})", path.display(), pid.unwrap_or_default());
        return Err(PostgresError::Sql(format!("{what} that is not mine")));
    }
    fs::remove_file(&path).map_err(PostgresError::file("remove", path))
}

fn is_postmaster(pid: i32, data: &Path) -> bool {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let same_place = fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| fs::canonicalize(data).is_ok_and(|data| cwd == data));
    name.trim() == "postgres" && same_place
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_of_another_program_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("postmaster.pid");
        fs::write(&path, format!("{}\n/data\n", std::process::id())).unwrap();
        remove_stale_pid_file(dir.path()).unwrap();
        assert!(!path.exists());
        remove_stale_pid_file(dir.path()).unwrap();
    }
}
