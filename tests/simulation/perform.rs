//! Doing what was decided, in the order in which the real shell does it. Each effect takes its time, and may be the last.

use std::time::Duration;

use spilo::{
    agent::{
        action::{Action, PgSync, Stop},
        decide::{claim, names_at_start},
        guard::{StopMode, ToGuard},
        rejoin::Rejoin,
        view::{Local, Peer, Task, View},
    },
    dcs::{
        Dcs, DcsError,
        snapshot::{FailoverKey, HistoryEntry, StatusKey, TimelineKey},
    },
    model::{MemberName, Timeline},
};

use crate::{
    agent::{Process, Shell},
    mutations::Mutation,
    postgres_model::Conf,
    tasks,
    world::Id,
};

const RELOAD: Duration = Duration::from_secs(1);
const CUT: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(3);
const PEERS: Duration = Duration::from_millis(1500);

/// How an action ended the turn, or did not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Next,
    LookAgain,
    Enough,
}

/// An action that did not work.
#[derive(Debug)]
struct Failed;

impl From<DcsError> for Failed {
    fn from(_: DcsError) -> Failed {
        Failed
    }
}

impl Shell {
    /// Performs the actions. True when the world should be looked at again at once.
    pub async fn perform(&mut self, actions: Vec<Action>, view: &View) -> bool {
        for action in actions {
            self.sim.world().counters.action(&action);
            match self.perform_one(action, view).await {
                Ok(Flow::Next) => {}
                Ok(Flow::LookAgain) => return true,
                Ok(Flow::Enough) | Err(Failed) => return false,
            }
        }
        false
    }

    async fn perform_one(&mut self, action: Action, view: &View) -> Result<Flow, Failed> {
        let me = self.me.clone();
        if matches!(action, Action::SetSyncNames(_) | Action::Promote | Action::StartPrimary | Action::Clone(_)) {
            self.keep_past();
        }
        match action {
            Action::ClaimInitialize => return self.claim_initialize(view).await,
            Action::RecordInitialize(id) => {
                self.memory.holds_initialize = false;
                if !self.dcs.record_initialize(id).await? {
                    return Ok(Flow::Enough);
                }
            }
            Action::EnsureConfig => {
                let first = self.last_config.clone().unwrap_or_else(|| self.sim.world().schedule.config.clone());
                self.dcs.put_config_if_absent(&first).await?;
            }
            Action::EnsureRoles => self.sim.sleep(self.id, Duration::from_millis(20)).await,
            Action::BootstrapIsRecorded => {
                self.sim.world().members[self.id].disk.unrecorded = false;
                return Ok(Flow::LookAgain);
            }
            Action::SetDataAside => {
                let mut world = self.sim.world();
                world.check_removal(self.id);
                let disk = &mut world.members[self.id].disk;
                disk.data = None;
                disk.unrecorded = false;
                return Ok(Flow::LookAgain);
            }
            Action::Fence => return self.fence(view).await,
            Action::AskPeers(names) => {
                let names: Vec<MemberName> = names.into_iter().filter(|name| self.cluster.members.contains_key(name)).collect();
                self.asked_at = Some(self.now());
                let answers = self.ask(names.clone());
                let all = self.sim.until(|_| (answers.borrow().len() == names.len()).then_some(()));
                self.sim.timeout(self.id, PEERS, all).await;
                let mut answers = answers.take();
                for name in names {
                    answers.entry(name).or_insert(Peer::Silent);
                }
                self.peers = Some(answers);
                return Ok(Flow::LookAgain);
            }
            Action::ClaimLeader => return self.claim_leader(view).await,
            Action::LeaveToSuccessor => self.memory.leaves_to_successor(self.now()),
            Action::ReleaseLeader => {
                if self.memory.has_left() {
                    self.sim.world().check_leaving(self.id);
                }
                let released = self.dcs.release_leader(&me, None).await;
                if !self.sim.world().mutated(Mutation::UnknownIsFailed) {
                    released?;
                }
                self.lease_until = None;
                return Ok(Flow::LookAgain);
            }
            Action::StartPrimary => {
                let names = names_at_start(&self.cluster.sync, &self.me, self.settings.synchronous_mode_strict);
                let sync = if self.sim.world().mutated(Mutation::NamesAtStartEmpty) { PgSync::default() } else { names };
                self.memory.knows_barrier = false;
                self.arm(self.lease_until);
                self.start(Conf { sync, ..Conf::default() }, false);
            }
            Action::StartStandby(leader) => {
                let conf = Conf { upstream: self.upstream(leader.as_ref()), slot: self.slot(), sync: PgSync::default() };
                self.start(conf, true);
            }
            Action::Follow(leader) => self.follow(leader.as_ref()),
            Action::Clone(leader) => {
                let source = self.address_of(&leader)?;
                self.begin(Task::Clone, tasks::copy(self.tools(), leader, source));
            }
            Action::Rejoin(leader) => {
                let Local::Stopped(data) = &view.local else { return Ok(Flow::Next) };
                let how = Rejoin {
                    may_rewind: self.settings.use_pg_rewind,
                    slots: self.settings.use_slots,
                    known_diverged: self.memory.diverged,
                    failures: self.memory.failed_rejoins,
                    archive_command: None,
                    may_restore: false,
                    disk_full: false,
                    copy_waits: false,
                };
                let source = self.address_of(&leader)?;
                self.begin(Task::Rejoin, tasks::rejoin(self.tools(), data.clone(), leader, source, how));
            }
            Action::CompareHistories(leader) => {
                if let Local::Standby(facts) = &view.local {
                    let source = self.address_of(&leader)?;
                    self.begin(Task::CompareHistories, tasks::compare(self.tools(), facts.timeline, facts.position, source));
                }
            }
            Action::ReserveTimeline(least) => return self.reserve_timeline(least, view).await,
            Action::RecordTimeline(begun) => {
                let key = TimelineKey {
                    reserved: self.cluster.timelines.reserved.max(begun.0),
                    by: me.to_string(),
                    begun: Some(begun),
                    remote: None,
                };
                self.dcs.put_timelines(&me, &key, self.cluster.timelines_version).await?;
            }
            Action::Promote => {
                let reserved = self.memory.reserved_timeline.or_else(|| self.sim.world().mutation.map(|_| Timeline(0)));
                let Some(reserved) = reserved else { return Ok(Flow::Enough) };
                self.arm(self.lease_until);
                self.begin(Task::Promote, tasks::promote(self.tools(), reserved));
            }
            Action::CancelTask => self.task = None,
            // There are no scripts and no kept slots here.
            Action::RunPrePromote | Action::EnsureKeptSlots(_) | Action::CreateLogicalSlots(_) | Action::AdvanceSlots(_) => {}
            // Nobody asks for these here.
            Action::Restart { .. } | Action::Reinitialize(_) | Action::Refuse(_) | Action::ForgetScheduledRestart => {}
            Action::RefuseToStart => return Ok(Flow::Enough),
            Action::GiveUpStarting => self.memory.failed_starts = u32::MAX,
            Action::StopServer(how) => {
                self.task = None;
                self.stop(if how == Stop::Fast { StopMode::Fast } else { StopMode::Immediate });
            }
            // There is no other cluster in this world.
            Action::DemoteCluster | Action::Remote(_) => {}
            Action::HandOver => self.begin(Task::HandOver, tasks::hand_over(self.tools())),
            Action::SetSyncNames(names) => return self.set_sync_names(&names, view).await,
            Action::PutSync(sync) => {
                self.memory.sync_in_doubt.written(self.cluster.sync_version, sync.clone());
                let written = self.dcs.put_sync(&me, &sync, self.cluster.sync_version).await?;
                return Ok(if written { Flow::LookAgain } else { Flow::Enough });
            }
            Action::PutFailsafe(members) => {
                let value = Some(members.clone()).filter(|members| !members.is_empty());
                self.memory.failsafe_in_doubt.written(self.cluster.failsafe_version, value);
                self.dcs.put_failsafe(&me, &members, self.cluster.failsafe_version).await?;
            }
            Action::PutStatus => {
                if let Local::Primary(facts) = &view.local {
                    let status = StatusKey { optime: facts.position, ..StatusKey::default() };
                    if self.cluster.status != status {
                        self.dcs.put_status(&me, &status).await?;
                    }
                }
            }
            Action::ForgetCleanEnd => {
                let status = StatusKey { final_lsn: None, final_timeline: None, ..self.cluster.status.clone() };
                let written = self.dcs.put_status(&me, &status).await?;
                return Ok(if written { Flow::LookAgain } else { Flow::Enough });
            }
            Action::EnsureHistory => {
                let lines = {
                    let world = self.sim.world();
                    world.members[self.id].disk.data.as_ref().map(|d| world.wal.history(d.branch)).unwrap_or_default()
                };
                let entry = |l: spilo::model::HistoryLine| HistoryEntry(l.timeline, l.switch, l.reason, String::new(), me.to_string());
                let entries: Vec<HistoryEntry> = lines.into_iter().map(entry).collect();
                let timeline = match &view.local {
                    Local::Primary(facts) => facts.timeline,
                    _ => return Ok(Flow::Next),
                };
                if self.dcs.put_history(&me, &entries).await? {
                    self.memory.history_of = Some(timeline);
                }
            }
            Action::ClearFailover => {
                self.dcs.put_failover(&FailoverKey::default(), self.cluster.failover_version).await?;
                return Ok(Flow::LookAgain);
            }
            Action::EnsureSlots(members) => {
                let answers = self.query().await.ok_or(Failed)?;
                let mut world = self.sim.world();
                let data = world.members[self.id].disk.data.as_mut().ok_or(Failed)?;
                data.slots.extend(answers.slots.into_keys());
                data.slots.extend(members.iter().map(MemberName::slot_name));
            }
            Action::DropSlots(slots) => {
                self.query().await.ok_or(Failed)?;
                let mut world = self.sim.world();
                let used: Vec<String> =
                    world.members[self.id].server.iter().flat_map(|s| s.senders.iter().filter_map(|s| s.slot.clone())).collect();
                let data = world.members[self.id].disk.data.as_mut().ok_or(Failed)?;
                data.slots.retain(|slot| !slots.contains(slot) || used.contains(slot));
            }
            Action::Checkpoint => self.begin(Task::Checkpoint, tasks::checkpoint(self.tools())),
            Action::DropOldData => {
                let mut world = self.sim.world();
                world.check_drop(self.id);
                world.members[self.id].disk.old = None;
            }
            Action::End => {
                self.ended = true;
                self.dcs.remove_member(&me).await?;
            }
        }
        Ok(Flow::Next)
    }

    async fn claim_initialize(&mut self, view: &View) -> Result<Flow, Failed> {
        if !self.dcs.claim_initialize().await? {
            return Ok(Flow::Enough);
        }
        self.memory.holds_initialize = true;
        if view.local == Local::Empty {
            self.sim.world().members[self.id].disk.unrecorded = true;
            self.begin(Task::Initialize, tasks::initialize(self.tools()));
            return Ok(Flow::Next);
        }
        Ok(Flow::LookAgain)
    }

    async fn claim_leader(&mut self, view: &View) -> Result<Flow, Failed> {
        let sent = self.now();
        self.dcs.keep_session(self.settings.ttl).await?;
        let mut claim = claim(view);
        if self.sim.world().mutated(Mutation::NothingBroughtBack) {
            claim = claim.seen.into();
        }
        if !self.dcs.claim_leader(&self.me.clone(), &claim).await? {
            return Ok(Flow::Enough);
        }
        self.lease_until = Some(self.deadline(sent, self.settings.ttl));
        Ok(Flow::LookAgain)
    }

    fn start(&mut self, conf: Conf, standby: bool) {
        self.withdraw();
        if self.memory.has_to_wait(self.now()) {
            return;
        }
        if let Some(data) = &mut self.sim.world().members[self.id].disk.data {
            data.conf = conf.clone();
            data.standby_signal = standby;
            if standby {
                data.places.clear();
            }
        }
        self.server.process.set(Process::Launching(self.now()));
        self.server.answered.set(None);
        self.sim.world().tell_guard(self.id, ToGuard::Start { program: String::new(), arguments: Vec::new() });
        self.configured = Some(conf);
    }

    /// Stops the server.
    fn stop(&self, mode: StopMode) {
        self.server.stopping.set(true);
        self.sim.world().tell_guard(self.id, ToGuard::Stop(mode));
    }

    /// Writes the configuration file, and has it read when it has changed.
    fn configure(&self, conf: &Conf) {
        let mut world = self.sim.world();
        let Some(data) = &mut world.members[self.id].disk.data else { return };
        if data.conf != *conf {
            data.conf = conf.clone();
            world.tell_guard(self.id, ToGuard::Reload);
        }
    }

    /// From now on votes are given no more.
    fn withdraw(&self) {
        self.sim.world().members[self.id].agent.promise = None;
    }

    /// Cuts the standby off, promises, and sees that it is cut off.
    async fn fence(&mut self, view: &View) -> Result<Flow, Failed> {
        let promised = self.sim.world().members[self.id].agent.promise;
        if promised != Some(view.cluster.term) {
            self.withdraw();
            self.task = None;
            if !self.sim.world().mutated(Mutation::FenceWithoutCut) {
                self.follow(None);
                let deadline = self.now() + RELOAD;
                while !self.query().await.ok_or(Failed)?.primary_conninfo.is_empty() {
                    if self.now() >= deadline {
                        return Err(Failed);
                    }
                    self.sim.sleep(self.id, PAUSE).await;
                }
            }
            self.sim.world().members[self.id].agent.promise = Some(view.cluster.term);
        }
        let deadline = self.now() + CUT;
        while self.sim.world().vote(self.id).is_none() {
            if self.now() >= deadline {
                return Ok(Flow::Enough);
            }
            self.sim.sleep(self.id, PAUSE).await;
        }
        Ok(Flow::LookAgain)
    }

    async fn reserve_timeline(&mut self, least: Timeline, view: &View) -> Result<Flow, Failed> {
        if self.sim.world().mutated(Mutation::TimelineNotReserved) {
            self.memory.reserved_timeline = Some(Timeline(0));
            self.begin(Task::Promote, tasks::promote(self.tools(), Timeline(0)));
            return Ok(Flow::Next);
        }
        let highest = {
            let world = self.sim.world();
            let data = world.members[self.id].disk.data.as_ref().ok_or(Failed)?;
            data.histories.iter().chain(&data.places).copied().max().unwrap_or(1)
        };
        let number = least.max(Timeline(highest + 1));
        let key = TimelineKey { reserved: number.0, by: self.me.to_string(), begun: view.cluster.timelines.begun, remote: None };
        if !self.dcs.put_timelines(&self.me.clone(), &key, view.cluster.timelines_version).await? {
            return Ok(Flow::Enough);
        }
        self.memory.reserved_timeline = Some(number);
        Ok(Flow::LookAgain)
    }

    fn follow(&mut self, leader: Option<&MemberName>) {
        if leader.is_some() {
            self.withdraw();
        }
        let upstream = self.upstream(leader);
        let standby = self.sim.world().members[self.id].disk.data.as_ref().is_some_and(|d| d.standby_signal);
        let configured = match &self.configured {
            Some(configured) => configured.clone(),
            None if standby => Conf::default(),
            None => return,
        };
        if configured.upstream == upstream && configured.slot == self.slot() {
            return;
        }
        let conf = Conf { upstream, slot: self.slot(), ..configured };
        self.configure(&conf);
        self.configured = Some(conf);
    }

    async fn set_sync_names(&mut self, names: &PgSync, view: &View) -> Result<Flow, Failed> {
        let Some(configured) = &self.configured else { return Ok(Flow::Enough) };
        let conf = Conf { sync: names.clone(), ..configured.clone() };
        self.memory.names_change();
        self.configure(&conf);
        self.configured = Some(conf);
        self.sim.world().note(|_| format!("{}  commits wait for {}", self.me, names.render()));
        let deadline = self.now() + RELOAD;
        let mut seen = 0;
        while seen < 2 {
            let facts = self.query().await.ok_or(Failed)?;
            let heeded = self.sim.world().members[self.id].server.as_ref().is_some_and(|s| !s.busy);
            seen = if heeded && facts.synchronous_standby_names == names.render() { seen + 1 } else { 0 };
            if self.now() >= deadline {
                return Err(Failed);
            }
            self.sim.sleep(self.id, Duration::from_millis(if seen == 1 { 15 } else { 5 })).await;
        }
        self.memory.names_are_heeded(names);
        if matches!(view.local, Local::Primary(_)) {
            let insert = self.sim.world().members[self.id].server.as_ref().map(|s| s.insert);
            self.memory.barrier_is(insert.ok_or(Failed)?);
            self.sim.world().commit_locally(self.id);
        }
        Ok(Flow::LookAgain)
    }

    fn upstream(&self, leader: Option<&MemberName>) -> Option<Id> {
        leader.filter(|l| self.cluster.members.contains_key(*l)).and_then(|l| self.sim.world().id(l))
    }

    fn slot(&self) -> Option<String> {
        self.settings.use_slots.then(|| self.me.slot_name())
    }

    fn address_of(&self, member: &MemberName) -> Result<Id, Failed> {
        self.upstream(Some(member)).ok_or(Failed)
    }

    /// Brings what the server is configured with up to date, or takes over what is in force.
    pub fn refresh_configuration(&mut self, view: &View) {
        let (Local::Primary(facts) | Local::Standby(facts)) = &view.local else { return };
        if self.configured.is_some() {
            return;
        }
        let upstream = facts.primary_conninfo.parse().ok().and_then(|name| self.sim.world().id(&name));
        let conf = Conf { upstream, slot: self.slot(), sync: PgSync::parse(&facts.synchronous_standby_names) };
        self.configure(&conf);
        self.configured = Some(conf);
    }
}
