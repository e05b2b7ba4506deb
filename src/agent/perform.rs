//! Doing what was decided. Every effect may be repeated; one that fails ends the turn, and the next look decides anew.

use super::{
    action::{Action, Stop},
    decide::{claim, leader_status, names_at_start},
    guard::StopMode,
    memory::TaskEnd,
    peers,
    rejoin::Rejoin,
    shell::Shell,
    tasks::Running,
    view::{Local, Task, View},
};
use crate::{
    dcs::{
        Dcs,
        snapshot::{Initialize, MemberData, StatusKey},
        tags,
    },
    model::{MemberName, SystemId},
    postgres::{
        Address, PostgresError, bootstrap, clone,
        conf::{self, ServerSettings},
        conninfo::conninfo,
    },
    sys::{clock::Moment, files},
};

/// How an action ended the turn, or did not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    /// Go on with the next action.
    Next,
    /// Look again at once: something that decides has changed.
    LookAgain,
    /// Leave the rest for the next turn.
    Enough,
}

/// An action that did not work, in words.
pub(super) type Failure = Box<dyn std::error::Error>;

impl Shell {
    /// Performs the actions in order. Returns true when the world should be looked at again at once.
    pub(super) async fn perform(&mut self, actions: Vec<Action>, view: &View) -> bool {
        for action in actions {
            let name = format!("{action:?}");
            match self.perform_one(action, view).await {
                Ok(Flow::Next) => {}
                Ok(Flow::LookAgain) => return true,
                Ok(Flow::Enough) => return false,
                Err(error) => {
                    tracing::warn!("{name}: {error}");
                    return false;
                }
            }
        }
        false
    }

    async fn perform_one(&mut self, action: Action, view: &View) -> Result<Flow, Failure> {
        let me = self.config.name.clone();
        // Others depend on what this member knows as soon as it acts upon it: the DCS may lose it while no agent runs.
        if matches!(action, Action::SetSyncNames(_) | Action::Promote | Action::StartPrimary | Action::Clone(_)) {
            self.keep_past()?;
        }
        match action {
            Action::ClaimInitialize => return self.claim_initialize(view).await,
            Action::RecordInitialize(id) => {
                // Recorded or not, our own claim is over: somebody else's has to run its course, without our asking again and again.
                self.memory.holds_initialize = false;
                if !self.dcs.record_initialize(id).await? {
                    return Ok(Flow::Enough);
                }
            }
            Action::EnsureConfig => {
                let begin = self.config.bootstrap.as_ref().map(|b| b.dcs.clone());
                let first = self.last_config.last().cloned().or(begin).unwrap_or_else(|| serde_json::json!({}));
                self.dcs.put_config_if_absent(&first).await?;
            }
            Action::EnsureRoles => {
                let session = self.server.new_session("spilo bootstrap").await?;
                let others = self.config.bootstrap.as_ref().map_or(&[][..], |b| &b.roles);
                bootstrap::ensure_roles(&session, &self.config.replication, self.config.rewind.as_ref(), others).await?;
            }
            Action::BootstrapIsRecorded => {
                bootstrap::forget_unrecorded(&self.config.installation)?;
                return Ok(Flow::LookAgain);
            }
            Action::SetDataAside => {
                clone::set_aside(&self.config.installation)?;
                bootstrap::forget_unrecorded(&self.config.installation)?;
                return Ok(Flow::LookAgain);
            }
            Action::Fence => {
                // A vote helps somebody to lead.
                if !self.begin_to_lead() {
                    return Ok(Flow::LookAgain);
                }
                return self.fence(view).await;
            }
            Action::AskPeers(names) => {
                let urls = names.into_iter().filter_map(|n| Some((n.clone(), self.cluster.members.get(&n)?.api_url.clone())));
                self.asked_at = Some(Moment::now());
                self.peers = Some(peers::ask(&self.http, urls.collect()).await);
                return Ok(Flow::LookAgain);
            }
            Action::ClaimLeader => return self.claim_leader(view).await,
            Action::LeaveToSuccessor => self.memory.leaves_to_successor(Moment::now()),
            Action::ReleaseLeader => {
                self.let_go();
                self.dcs.release_leader(&me, None).await?;
                self.lease_until = None;
                return Ok(Flow::LookAgain);
            }
            Action::StartPrimary => {
                if !self.begin_to_lead() {
                    return Ok(Flow::LookAgain);
                }
                self.widen_circle()?;
                self.start_primary().await?;
            }
            Action::StartStandby(leader) => self.start_standby(leader.as_ref()).await?,
            Action::Follow(leader) => self.follow(leader.as_ref()).await?,
            Action::Clone(leader) => {
                let source = self.address_of(&leader)?;
                // Only the leader has a slot for who is not there yet; it keeps what comes after the copy of anybody else too.
                let slots = self.slot().is_some() && view.cluster.leader.as_ref() == Some(&leader);
                let copy = self.tools().copy(leader, source, self.cluster_system(), slots);
                self.begin(Task::Clone, copy);
            }
            Action::Rejoin(leader) => self.rejoin(leader, view)?,
            Action::CompareHistories(leader) => {
                if let Local::Standby(facts) = &view.local {
                    let source = self.address_of(&leader)?;
                    let compare = self.tools().compare(facts.timeline, facts.position, source, self.has_archive());
                    self.begin(Task::CompareHistories, compare);
                }
            }
            Action::RunPrePromote => {
                let ask = self.tools().pre_promote(self.settings.ttl);
                self.begin(Task::PrePromote, ask);
            }
            Action::CancelTask => {
                self.task = None;
                return Ok(Flow::LookAgain);
            }
            Action::ReserveTimeline(least) => return self.reserve_timeline(least, view).await,
            Action::RecordTimeline(begun) => self.record_timeline(begun).await?,
            Action::Promote => {
                let Some(reserved) = self.memory.reserved_timeline else { return Ok(Flow::Enough) };
                if !self.begin_to_lead() {
                    return Ok(Flow::LookAgain);
                }
                self.widen_circle()?;
                // The guard first: from the promotion on, somebody has to stop this server in time should the agent hang here.
                self.server.arm(self.lease_until, super::lease::margin(self.settings.ttl) / 2).await?;
                let promote = self.tools().promote(reserved);
                self.begin(Task::Promote, promote);
            }
            Action::GiveUpStarting => self.memory.failed_starts = u32::MAX,
            Action::StopServer(how) => self.stop_server(how, view).await?,
            Action::DemoteCluster => {
                self.memory.stopped_by_us(self.server_start());
                let demote = self.tools().demote_cluster();
                self.begin(Task::DemoteCluster, demote);
            }
            Action::Remote(remote) => return self.perform_remote(remote, view).await,
            Action::HandOver => {
                self.memory.stopped_by_us(self.server_start());
                let hand_over = self.tools().hand_over(self.cluster.status.clone());
                self.begin(Task::HandOver, hand_over);
            }
            Action::SetSyncNames(names) => return self.set_sync_names(&names, view).await,
            Action::PutSync(sync) => {
                self.memory.sync_in_doubt.written(self.cluster.sync_version, sync.clone());
                self.widen_circle()?;
                let written = self.dcs.put_sync(&me, &sync, self.cluster.sync_version).await?;
                tracing::info!("voters in the DCS: {sync:?}{}", if written { "" } else { ": changed by somebody else meanwhile" });
                return Ok(if written { Flow::LookAgain } else { Flow::Enough });
            }
            Action::PutFailsafe(members) => {
                let value = Some(members.clone()).filter(|members| !members.is_empty());
                self.memory.failsafe_in_doubt.written(self.cluster.failsafe_version, value);
                self.widen_circle()?;
                self.dcs.put_failsafe(&me, &members, self.cluster.failsafe_version).await?;
            }
            Action::PutStatus => self.put_status(view).await?,
            Action::ForgetCleanEnd => {
                let status = StatusKey { final_lsn: None, final_timeline: None, ..self.cluster.status.clone() };
                let written = self.dcs.put_status(&me, &status).await?;
                return Ok(if written { Flow::LookAgain } else { Flow::Enough });
            }
            Action::EnsureHistory => self.put_history(view).await?,
            Action::ClearFailover => {
                self.dcs.put_failover(&crate::dcs::snapshot::FailoverKey::default(), self.cluster.failover_version).await?;
                return Ok(Flow::LookAgain);
            }
            Action::EnsureSlots(members) => {
                let session = self.server.session().await?;
                for member in members {
                    session.ensure_slot(&member.slot_name()).await?;
                }
            }
            Action::EnsureKeptSlots(slots) => {
                let session = self.server.session().await?;
                for slot in slots {
                    session.ensure_slot(&slot).await?;
                }
            }
            Action::CreateLogicalSlots(slots) => {
                let create = self.tools().create_logical_slots(slots);
                self.begin(Task::CreateSlots, create);
            }
            Action::AdvanceSlots(slots) => {
                let session = self.server.session().await?;
                for (slot, position) in slots {
                    session.advance_slot(&slot, position).await?;
                }
            }
            Action::DropSlots(slots) => {
                let session = self.server.session().await?;
                for slot in slots {
                    session.drop_slot(&slot).await?;
                }
            }
            Action::Checkpoint => {
                let checkpoint = self.tools().checkpoint();
                self.begin(Task::Checkpoint, checkpoint);
            }
            Action::DropOldData => clone::drop_old(&self.config.installation)?,
            Action::Restart { patience } => return Ok(self.restart(patience, view)),
            Action::Reinitialize(leader) => self.reinitialize(leader, view)?,
            Action::Refuse(why) => self.requests.refuse(&why),
            Action::ForgetScheduledRestart => self.requests.scheduled = None,
            Action::RefuseToStart => self.refuse("this cannot be started here, and waiting does not help"),
            Action::End => {
                self.ended = true;
                // Whoever asks who is there should not be told of a member that has left on purpose. A DCS that does not answer forgets it
                // with its session.
                self.dcs.remove_member(&me).await?;
            }
        }
        Ok(Flow::Next)
    }

    async fn claim_initialize(&mut self, view: &View) -> Result<Flow, Failure> {
        if !self.dcs.claim_initialize().await? {
            return Ok(Flow::Enough);
        }
        self.memory.holds_initialize = true;
        if view.local == Local::Empty {
            if let Some(cluster) = self.settings.standby_cluster.clone() {
                self.begin_as_copy(&cluster);
                return Ok(Flow::Next);
            }
            // The mark comes first: from here until it is recorded, the directory is nobody's data.
            files::replace(&bootstrap::unrecorded_mark(&self.config.installation), b"", 0o600)?;
            let initialize = self.tools().initialize();
            self.begin(Task::Initialize, initialize);
            return Ok(Flow::Next);
        }
        Ok(Flow::LookAgain)
    }

    async fn claim_leader(&mut self, view: &View) -> Result<Flow, Failure> {
        if !self.begin_to_lead() {
            return Ok(Flow::LookAgain);
        }
        let sent = Moment::now();
        // A fresh session, so that the lease is known to begin no earlier than `sent`.
        self.dcs.keep_session(self.settings.ttl).await?;
        if !self.dcs.claim_leader(&self.config.name, &claim(view)).await? {
            tracing::info!("somebody else was faster");
            return Ok(Flow::Enough);
        }
        self.lease_until = Some(super::lease::deadline(sent, self.settings.ttl));
        Ok(Flow::LookAgain)
    }

    async fn start_primary(&mut self) -> Result<(), PostgresError> {
        // The commits it acknowledges have to meet the voters that the DCS names, from the first one on.
        let names = names_at_start(&self.cluster.sync, &self.config.name, self.settings.synchronous_mode_strict);
        let settings = ServerSettings { synchronous_standby_names: names.render(), ..self.base_settings() };
        self.memory.knows_barrier = false;
        let grace = super::lease::margin(self.settings.ttl) / 2;
        self.server.arm(self.leads_until(), grace).await?;
        self.start(settings, false).await
    }

    pub(super) async fn start_standby(&mut self, leader: Option<&MemberName>) -> Result<(), PostgresError> {
        let settings = ServerSettings {
            primary_conninfo: leader.and_then(|l| self.conninfo_to(l)),
            primary_slot_name: self.slot(),
            ..self.base_settings()
        };
        self.start(settings, true).await
    }

    pub(super) async fn start(&mut self, settings: ServerSettings, standby: bool) -> Result<(), PostgresError> {
        self.server.withdraw();
        if self.memory.has_to_wait(Moment::now()) {
            return Ok(());
        }
        let settings = self.with_limits(settings, standby).await?;
        if let Err(error) = self.server.start(&settings, standby).await {
            // A disk that is full or not ours any more: whoever leads must not go on trying for ever.
            self.memory.start_failed(false, Moment::now());
            return Err(error);
        }
        self.configured = Some(settings);
        self.announce_first_answer();
        Ok(())
    }

    pub(super) async fn follow(&mut self, leader: Option<&MemberName>) -> Result<(), PostgresError> {
        if leader.is_some() {
            // Before anything changes: no vote may be given that does not hold any more.
            self.server.withdraw();
        }
        let wanted = leader.and_then(|l| self.conninfo_to(l));
        self.point_at(wanted, self.slot()).await
    }

    /// Points the standby at what is not a member: no vote may be given that does not hold any more.
    pub(super) async fn stream_from(&mut self, wanted: Option<String>, slot: Option<String>) -> Result<(), PostgresError> {
        self.server.withdraw();
        self.point_at(wanted, slot).await
    }

    async fn point_at(&mut self, wanted: Option<String>, slot: Option<String>) -> Result<(), PostgresError> {
        let configured = match &self.configured {
            Some(configured) => configured.clone(),
            // Adopted, and it has not answered yet. A primary would acknowledge what waits if it lost its synchronous standbys here.
            None if conf::has_standby_signal(&self.config.installation.data_dir) => self.base_settings(),
            None => return Ok(()),
        };
        if configured.primary_conninfo == wanted && configured.primary_slot_name == slot {
            return Ok(());
        }
        let settings = ServerSettings { primary_conninfo: wanted, primary_slot_name: slot, ..configured };
        self.server.configure(&settings).await?;
        self.configured = Some(settings);
        Ok(())
    }

    fn rejoin(&mut self, leader: MemberName, view: &View) -> Result<(), Failure> {
        let Local::Stopped(data) = &view.local else { return Ok(()) };
        let how = self.ways_back();
        let source = self.address_of(&leader)?;
        let rejoin = self.tools().rejoin(data.clone(), leader, source, how);
        self.begin(Task::Rejoin, rejoin);
        Ok(())
    }

    /// What this member may do to come back behind another server.
    pub(super) fn ways_back(&self) -> Rejoin {
        let parameters = self.base_settings().parameters;
        let command = |name: &str| parameters.get(name).filter(|command| !command.is_empty()).cloned();
        let archives = parameters.get("archive_mode").is_some_and(|mode| mode != "off");
        Rejoin {
            archive_command: command("archive_command").filter(|_| archives),
            disk_full: self.memory.disk_full,
            copy_waits: self.memory.waits_for_room(Moment::now()).is_some(),
            may_restore: command("restore_command").is_some(),
            may_rewind: self.config.use_pg_rewind.unwrap_or(self.settings.use_pg_rewind),
            slots: self.slot().is_some(),
            known_diverged: self.memory.diverged,
            failures: self.memory.failed_rejoins,
        }
    }

    /// WAL may come from an archive.
    pub(super) fn has_archive(&self) -> bool {
        self.base_settings().parameters.get("restore_command").is_some_and(|command| !command.is_empty())
    }

    async fn stop_server(&mut self, how: Stop, view: &View) -> Result<(), PostgresError> {
        let mode = match how {
            Stop::Fast => StopMode::Fast,
            Stop::Immediate => StopMode::Immediate,
            Stop::Kill => StopMode::Kill,
        };
        // A task that talks to the server has nothing left to do.
        if self.task.take().is_some_and(|task| task.kind == Task::HandOver) {
            self.let_go();
        }
        self.memory.stopped_by_us(self.server_start());
        // Only where time does no harm: a primary that has lost its lease is stopped at once.
        let in_good_order = how == Stop::Fast && matches!(view.local, Local::Standby(_)) && !self.server.is_stopping();
        if in_good_order && self.config.hooks.before_stop.is_some() {
            self.task = Some(Running { kind: Task::Stop, handle: tokio::task::spawn_local(self.tools().stop_standby()) });
            return Ok(());
        }
        self.server.stop(mode).await
    }

    async fn put_status(&mut self, view: &View) -> Result<(), Failure> {
        let (Local::Primary(facts) | Local::Standby(facts)) = &view.local else { return Ok(()) };
        let status = leader_status(view, facts);
        if self.cluster.status != status {
            self.dcs.put_status(&self.config.name, &status).await?;
        }
        Ok(())
    }

    /// Starts a task, unless one like it failed a moment ago.
    pub(super) fn begin(&mut self, kind: Task, work: impl Future<Output = Result<TaskEnd, PostgresError>> + 'static) {
        if self.task.is_some() || self.memory.has_to_wait_for(kind, Moment::now()) {
            return;
        }
        self.task = Some(Running { kind, handle: tokio::task::spawn_local(work) });
    }

    pub(super) fn cluster_system(&self) -> Option<SystemId> {
        match self.cluster.initialize {
            Initialize::Done(system) => Some(system),
            _ => None,
        }
    }

    pub(super) fn slot(&self) -> Option<String> {
        let streams = self.settings.use_slots && !tags::nostream(&self.config.tags);
        streams.then(|| self.config.name.slot_name())
    }

    pub(super) fn address_of(&self, member: &MemberName) -> Result<Address, Failure> {
        let known = self.cluster.members.get(member).and_then(MemberData::postgres_address);
        let (host, port) =
            known.or_else(|| self.promised_address(member)).ok_or_else(|| format!("the address of '{member}' is not known"))?;
        Ok(Address { host, port })
    }

    fn conninfo_to(&self, member: &MemberName) -> Option<String> {
        let address = self.address_of(member).ok()?;
        let config = &self.config;
        let mut extra = vec![("application_name", config.name.as_str()), ("connect_timeout", "3")];
        if self.keeps_logical_slots() {
            // Asked over SQL, by whoever takes the slots over; streaming takes no notice of it.
            extra.push(("dbname", "postgres"));
        }
        Some(conninfo(&address, &config.replication.username, &config.installation.passfile, &extra))
    }
}
