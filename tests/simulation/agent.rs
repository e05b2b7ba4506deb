//! The agent around the decisions that ship: it looks, decides, performs and publishes as the real shell does, in virtual time.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    rc::Rc,
    time::Duration,
};

use spilo::{
    agent::{
        decide::decide,
        guard::{FromGuard, ToGuard},
        lease,
        memory::{Look, SETTLED, TaskEnd},
        past,
        reason::Reason,
        standing,
        view::{Local, Lock, Memory, Peer, ServerFacts, Task, View, Wishes},
    },
    dcs::{
        Dcs, DcsError, Renewal,
        snapshot::{MemberData, Snapshot},
    },
    model::{MemberName, Term},
    spec::settings::Settings,
    sys::clock::Moment,
};

use crate::{
    dcs_client::Client,
    exec::{Sim, TaskId},
    mutations::Mutation,
    postgres_model::{Conf, Phase},
    tasks::{Failure, Running},
    world::{Id, MILLI, World},
};

/// What the world knows of an agent's process.
#[derive(Default)]
pub struct AgentProcess {
    pub life: u64,
    pub alive: bool,
    pub frozen: bool,
    pub orphaned: bool,
    /// Tasks that were to run while it was frozen.
    pub held: Vec<TaskId>,
    pub inbox: VecDeque<FromGuard>,
    /// The term under which it has promised to follow nobody who led before.
    pub promise: Option<Term>,
    woken: bool,
    main: Option<TaskId>,
}

impl AgentProcess {
    /// A new life, with the guard's first word.
    pub fn begin(&mut self, life: u64, first: FromGuard) {
        *self = AgentProcess { life, alive: true, inbox: VecDeque::from([first]), ..AgentProcess::default() };
    }
}

impl World {
    /// The vote that a member may give at this moment: its promise, while its standby is seen cut off.
    pub fn vote(&self, id: Id) -> Option<Term> {
        let server = self.members[id].server.as_ref().filter(|s| s.phase == Phase::Up && !s.frozen && !s.deaf && !s.primary)?;
        let cut_off = server.upstream.is_none() && server.shown_upstream.is_none() && server.receiver.is_none();
        self.members[id].agent.promise.filter(|_| cut_off || self.mutated(Mutation::FenceWithoutCut))
    }

    /// Something has happened that the agent's loop should see.
    pub fn wake_agent(&mut self, id: Id) {
        let agent = &mut self.members[id].agent;
        agent.woken = true;
        if let Some(main) = agent.main {
            self.wake(main);
        }
    }
}

/// What is known of the server's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Process {
    None,
    Launching(Moment),
    Running(Moment),
}

/// What shell and tasks share of the local server.
pub struct ServerState {
    pub process: Cell<Process>,
    pub stopping: Cell<bool>,
    pub answered: Cell<Option<Moment>>,
}

/// The agent's state between turns.
pub struct Shell {
    pub sim: Sim,
    pub id: Id,
    pub me: MemberName,
    pub dcs: Rc<Client>,
    pub server: Rc<ServerState>,
    pub settings: Settings,
    pub cluster: Snapshot,
    pub dcs_answers: bool,
    pub lease_until: Option<Moment>,
    pub peers: Option<BTreeMap<MemberName, Peer>>,
    pub asked_at: Option<Moment>,
    pub memory: Memory,
    pub task: Option<Running>,
    pub stopping: bool,
    pub ended: bool,
    pub configured: Option<Conf>,
    published: Option<MemberData>,
    pub last_config: Option<serde_json::Value>,
    said: Option<Reason>,
}

/// Starts the agents that are due.
pub fn start_agents(sim: &Sim) {
    let births = std::mem::take(&mut sim.world().births);
    for id in births {
        let process = (id, sim.world().members[id].agent.life);
        let task = sim.spawn(process, live(sim.clone(), id, process.1));
        sim.world().members[id].agent.main = Some(task);
    }
}

async fn live(sim: Sim, id: Id, life: u64) {
    let start = sim.world().between(20 * MILLI, 80 * MILLI);
    sim.sleep(id, Duration::from_nanos(start)).await;
    Shell::new(&sim, id).run().await;
    let mut world = sim.world();
    if world.members[id].agent.life == life {
        world.agent_ended(id);
    }
}

/// What became of the session for the `ttl` that was asked for, by a request that was sent then: from then on the lease counts.
struct Session {
    sent: Moment,
    ttl: Duration,
    kept: Result<(), DcsError>,
}

impl Shell {
    fn new(sim: &Sim, id: Id) -> Shell {
        let mut world = sim.world();
        let first = world.schedule.config.clone();
        let disk = &mut world.members[id].disk;
        // A copy was cut off between its two renames: the former directory comes back.
        if disk.data.is_none() {
            disk.data = disk.old.take();
        }
        let past = disk.past.clone();
        let last_config = disk.data.is_some().then(|| disk.config.clone()).flatten();
        let settings = Settings::read(last_config.as_ref().unwrap_or(&first));
        let dcs = Rc::new(Client::new(sim.clone(), id, settings.retry_timeout));
        Shell {
            sim: sim.clone(),
            id,
            me: world.members[id].name.clone(),
            dcs,
            server: Rc::new(ServerState { process: Cell::new(Process::None), stopping: Cell::new(false), answered: Cell::new(None) }),
            settings,
            cluster: Snapshot::default(),
            dcs_answers: false,
            lease_until: None,
            peers: None,
            asked_at: None,
            memory: Memory { past, ..Memory::default() },
            task: None,
            stopping: false,
            ended: false,
            configured: None,
            published: None,
            last_config,
            said: None,
        }
    }

    pub fn now(&self) -> Moment {
        self.sim.world().clock(self.id)
    }

    async fn run(mut self) {
        self.hear_all();
        loop {
            let pause = self.turn().await;
            if self.ended {
                return;
            }
            self.wait(pause).await;
            if self.sim.world().members[self.id].agent.orphaned {
                return self.without_guard().await;
            }
        }
    }

    async fn turn(&mut self) -> Duration {
        loop {
            let mut view = self.observe().await;
            self.refresh_configuration(&view);
            let mutation = self.sim.world().mutation;
            let decision = match mutation {
                None => decide(&view),
                Some(mutation) => {
                    mutation.change_view(&mut view);
                    mutation.change_decision(&view, decide(&view))
                }
            };
            self.say(&decision.reason, &decision.actions);
            let again = self.perform(decision.actions, &view).await;
            self.keep_past();
            self.publish(&view).await;
            if again && !self.ended {
                continue;
            }
            return self.memory.pause(decision.recheck, view.settings.loop_wait, self.now());
        }
    }

    /// Waits for a message of the guard, a task's end, a wake-up, or the time.
    async fn wait(&mut self, pause: Duration) {
        let (sim, id, task) = (self.sim.clone(), self.id, self.task.as_ref().map(|t| t.result.clone()));
        let something = sim.until(|w| {
            let agent = &mut w.members[id].agent;
            let ended = task.as_ref().is_some_and(|t| t.borrow().is_some());
            (std::mem::take(&mut agent.woken) || !agent.inbox.is_empty() || agent.orphaned || ended).then_some(())
        });
        sim.timeout(id, pause, something).await;
        self.hear_all();
        if let Some(end) = self.task.as_ref().and_then(|t| t.result.borrow_mut().take()) {
            self.task_ended(end);
        }
    }

    /// Takes in what the guard has said.
    pub fn hear_all(&mut self) {
        loop {
            let message = self.sim.world().members[self.id].agent.inbox.pop_front();
            let Some(message) = message else { return };
            let now = self.now();
            if let FromGuard::Ended { .. } | FromGuard::NotStarted { .. } = message {
                let stopped = matches!(message, FromGuard::Ended { fenced: true, .. }) || self.server.stopping.get();
                if !stopped {
                    self.memory.server_crashed(now);
                }
                if self.server_age() < SETTLED && !stopped {
                    self.memory.start_failed(self.server.answered.get().is_some(), now);
                }
                self.configured = None;
                self.memory.server_ended();
            }
            match message {
                FromGuard::Running { .. } => self.server.process.set(Process::Running(now)),
                _ => {
                    self.sim.world().members[self.id].agent.promise = None;
                    self.server.process.set(Process::None);
                    self.server.stopping.set(false);
                    self.server.answered.set(None);
                }
            }
        }
    }

    fn server_age(&self) -> Duration {
        match self.server.process.get() {
            Process::Running(since) => self.now().since(since),
            _ => Duration::ZERO,
        }
    }

    fn task_ended(&mut self, end: Result<TaskEnd, Failure>) {
        let Some(kind) = self.task.take().map(|t| t.kind) else { return };
        let now = self.now();
        self.sim.world().counters.task(kind);
        match end {
            Ok(end) => {
                if kind == Task::HandOver {
                    self.lease_until = None;
                }
                self.memory.task_ended(kind, end, now);
            }
            Err(failure) => {
                self.sim.world().note(|_| format!("{}     {kind:?} failed: {failure:?}", self.me));
                self.memory.task_failed(kind, failure != Failure::NoSource, now);
            }
        }
    }

    /// The guard is gone, and PostgreSQL with it: the key is given up when nothing can write any more.
    async fn without_guard(mut self) {
        for _ in 0..100 {
            if self.sim.world().members[self.id].server.is_none() {
                break;
            }
            self.sim.sleep(self.id, Duration::from_millis(20)).await;
        }
        if self.sim.world().members[self.id].server.is_none() && self.lease_until.take().is_some() {
            let _ = self.dcs.release_leader(&self.me, None).await;
        }
    }

    async fn observe(&mut self) -> View {
        let lock = self.observe_dcs().await;
        let local = self.observe_local().await;
        self.remember(&local, &lock);
        self.arm_guard(&local);
        let may_initialize = !self.sim.world().members[self.id].join_only;
        View {
            now: self.now(),
            me: self.me.clone(),
            settings: self.settings.clone(),
            tags: Default::default(),
            pre_promote: false,
            may_initialize,
            stopping: self.stopping,
            cluster: self.cluster.clone(),
            dcs_answers: self.dcs_answers,
            lock,
            local,
            peers: self.peers.take(),
            asked_at: self.asked_at,
            vote: self.sim.world().vote(self.id),
            wishes: Wishes::default(),
            task: self.task.as_ref().map(|t| t.kind),
            memory: self.memory.clone(),
        }
    }

    async fn ask_dcs(&self) -> Result<(Snapshot, Session), DcsError> {
        let ttl = self.settings.ttl;
        if self.dcs_answers {
            let sent = self.now();
            let (snapshot, kept) = tokio::join!(self.dcs.snapshot(), self.dcs.keep_session(ttl));
            return Ok((snapshot?, Session { sent, ttl, kept }));
        }
        let snapshot = self.dcs.snapshot().await?;
        let sent = self.now();
        let kept = self.dcs.keep_session(ttl).await;
        Ok((snapshot, Session { sent, ttl, kept }))
    }

    async fn observe_dcs(&mut self) -> Lock {
        self.dcs.set_budget(lease::budget(self.settings.retry_timeout, self.lease_until, self.now()));
        let asked = self.ask_dcs().await;
        let lock = match asked {
            Ok((snapshot, session)) => {
                self.cluster = snapshot;
                if let Some(config) = &self.cluster.config {
                    if self.last_config.as_ref() != Some(config) {
                        self.settings = Settings::read(config);
                        self.last_config = Some(config.clone());
                    }
                    let disk = &mut self.sim.world().members[self.id].disk;
                    if disk.data.is_some() && disk.config.as_ref() != Some(config) {
                        disk.config = Some(config.clone());
                    }
                }
                self.renew(session).await
            }
            Err(error) => Err(error),
        };
        self.dcs_answers = lock.is_ok();
        lock.unwrap_or(Lock::Unknown { until: self.lease_until })
    }

    async fn renew(&mut self, session: Session) -> Result<Lock, DcsError> {
        let Session { mut sent, mut ttl, mut kept } = session;
        if ttl != self.settings.ttl {
            (sent, ttl) = (self.now(), self.settings.ttl);
            kept = self.dcs.keep_session(ttl).await;
        }
        let me = self.me.clone();
        if self.cluster.leader.as_ref() != Some(&me) {
            self.lease_until = None;
            // Whoever leads is known, whatever became of the session.
            return match self.cluster.leader.clone() {
                Some(leader) => Ok(Lock::Other(leader)),
                None => kept.map(|()| Lock::Free),
            };
        }
        kept?;
        match self.dcs.confirm_leader(&me, self.cluster.leader_session).await? {
            Renewal::Kept => {
                let until = self.deadline(sent, ttl);
                self.lease_until = Some(until);
                Ok(Lock::Mine { until })
            }
            Renewal::Lost { holder } => {
                self.lease_until = None;
                self.cluster.leader = holder.clone();
                Ok(holder.map_or(Lock::Free, Lock::Other))
            }
        }
    }

    /// The end of a lease whose renewal was sent then.
    pub fn deadline(&self, sent: Moment, ttl: Duration) -> Moment {
        let mutation = self.sim.world().mutation;
        match mutation {
            Some(Mutation::DeadlineFromReply) => lease::deadline(self.now(), ttl),
            Some(Mutation::NoMargin) => sent + ttl + ttl / 10,
            _ => lease::deadline(sent, ttl),
        }
    }

    /// Asks the local server; one whose processes do not run lets the question time out.
    pub async fn query(&self) -> Option<ServerFacts> {
        let takes = self.sim.world().between(MILLI / 2, 4 * MILLI);
        self.sim.sleep(self.id, Duration::from_nanos(takes)).await;
        let frozen = self.sim.world().members[self.id].server.as_ref().is_some_and(|s| s.frozen || s.deaf);
        if frozen {
            self.sim.sleep(self.id, Duration::from_millis(2500)).await;
        }
        self.sim.world().facts(self.id)
    }

    async fn observe_local(&mut self) -> Local {
        match self.server.process.get() {
            Process::None => self.observe_directory(),
            Process::Launching(since) | Process::Running(since) => match self.query().await {
                Some(facts) => {
                    self.server.answered.set(Some(self.now()));
                    if facts.in_recovery { Local::Standby(facts) } else { Local::Primary(facts) }
                }
                None if self.server.process.get() == Process::None => self.observe_directory(),
                None => Local::Silent { since: self.server.answered.get().map_or(since, |answer| answer.max(since)) },
            },
        }
    }

    fn observe_directory(&self) -> Local {
        if self.task.as_ref().is_some_and(|t| t.kind != Task::HandOver) {
            return Local::Silent { since: self.now() };
        }
        self.sim.world().stopped(self.id).map_or(Local::Empty, Local::Stopped)
    }

    fn remember(&mut self, local: &Local, lock: &Lock) {
        let (now, age) = (self.now(), self.server_age());
        let world = self.sim.world();
        let disk = &world.members[self.id].disk;
        let own = world.mutated(Mutation::OwnMemoryOnly).then(|| self.memory.past.clone());
        self.memory.look(&Look {
            now,
            me: &self.me,
            cluster: &self.cluster,
            dcs_answers: self.dcs_answers,
            lock,
            local,
            server_age: age,
            unrecorded_bootstrap: disk.unrecorded,
            has_old_data: disk.old.is_some(),
        });
        if let Some(own) = own.filter(|_| self.memory.forgotten_since.is_some()) {
            self.memory.past = own;
        }
    }

    /// What the DCS may lose, on disk.
    pub fn keep_past(&self) {
        if self.sim.world().mutated(Mutation::PastNotKept) {
            return;
        }
        let disk = &mut self.sim.world().members[self.id].disk;
        if !self.memory.past.says_the_same_as(&disk.past) {
            disk.past = self.memory.past.clone();
        }
    }

    fn arm_guard(&self, local: &Local) {
        let promotes = self.task.as_ref().is_some_and(|t| t.kind == Task::Promote);
        let writes = matches!(local, Local::Primary(_) | Local::Silent { .. }) || promotes;
        if let Some(until) = lease::guarding(writes, self.lease_until) {
            self.arm(until);
        }
    }

    /// Tells the guard until when.
    pub fn arm(&self, until: Option<Moment>) {
        let grace = lease::margin(self.settings.ttl) / 2;
        self.sim.world().tell_guard(self.id, ToGuard::Deadline { until, grace });
    }

    fn say(&mut self, reason: &Reason, actions: &[spilo::agent::action::Action]) {
        let mut world = self.sim.world();
        world.counters.reason(reason);
        if self.said.as_ref() != Some(reason) {
            world.note(|_| format!("{}  {reason} {actions:?}", self.me));
            drop(world);
            self.said = Some(reason.clone());
        }
    }

    async fn publish(&mut self, view: &View) {
        if !view.dcs_answers || self.ended {
            return;
        }
        let member = self.member_data(view);
        let known = view.cluster.members.get(&self.me).is_some_and(|seen| past::says_the_same(seen, &member));
        if known && self.published.as_ref() == Some(&member) {
            return;
        }
        if self.dcs.put_member(&self.me.clone(), &member).await.is_ok() {
            self.published = Some(member);
        }
    }

    fn member_data(&self, view: &View) -> MemberData {
        let facts = match &view.local {
            Local::Primary(facts) | Local::Standby(facts) => Some(facts),
            _ => None,
        };
        let task = self.task.as_ref().map(|t| t.kind);
        MemberData {
            api_url: self.me.to_string(),
            state: standing::state(&view.local, task, self.server.stopping.get()),
            role: standing::role(view),
            checkpoint_after_promote: (self.memory.checkpoint_due && facts.is_some_and(|f| !f.in_recovery)).then_some(false),
            xlog_location: facts.map(|f| f.position),
            timeline: match &view.local {
                Local::Stopped(data) => Some(data.control.timeline()),
                _ => facts.map(|f| f.timeline),
            },
            pause: view.settings.pause.then_some(true),
            other: self.memory.tells(&view.cluster).map(|past| (past::FIELD.to_owned(), past)).into_iter().collect(),
            ..MemberData::default()
        }
    }

    /// What others are told when they ask.
    pub fn ask(&self, names: Vec<MemberName>) -> Rc<RefCell<BTreeMap<MemberName, Peer>>> {
        let answers = Rc::new(RefCell::new(BTreeMap::new()));
        let (me, task) = (self.id, self.sim.current());
        let mut world = self.sim.world();
        for name in names {
            let Some(peer) = world.id(&name) else { continue };
            if !world.connected(me, peer) && !world.net.passes(me, peer) {
                continue;
            }
            let travel = world.travel() + world.between(MILLI, 4 * MILLI);
            let answers = answers.clone();
            world.after(travel, move |w| {
                let agent = &w.members[peer].agent;
                if !agent.alive || agent.frozen || !w.members[peer].host_up || !w.net.passes(peer, me) {
                    return;
                }
                let answer = w.facts(peer).map_or(Peer::Silent, |facts| {
                    if facts.in_recovery {
                        let vote = w.vote(peer);
                        Peer::Standby { timeline: facts.timeline, position: facts.position, nofailover: false, vote }
                    } else {
                        Peer::Primary
                    }
                });
                let travel = w.travel();
                w.after(travel, move |w| {
                    answers.borrow_mut().insert(name, answer);
                    w.wake(task);
                });
            });
        }
        answers
    }
}
