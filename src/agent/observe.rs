//! Looking: the DCS, the lease, the local server. Everything that takes time is bounded.

use std::{fs, time::Duration};

use super::{
    lease,
    memory::Look,
    server::Process,
    shell::Shell,
    view::{Local, Lock, StoppedData, View},
    vitality,
};
use crate::{
    dcs::{Dcs, DcsError, Renewal, snapshot::Initialize, snapshot::Snapshot},
    model::Term,
    postgres::{bootstrap, clone, conf, control_data, restore_mark, rewind, timelines},
    spec::settings::Settings,
    sys::{clock::Moment, files},
};

/// What became of the session for the `ttl` that was asked for, by a request that was sent then: from then on the lease counts.
struct Session {
    sent: Moment,
    ttl: Duration,
    kept: Result<(), DcsError>,
}

impl Shell {
    /// Takes one look.
    pub(super) async fn observe(&mut self) -> View {
        let asked = Moment::now();
        let lock = self.observe_dcs().await;
        self.memory.trouble = vitality::trouble(&self.server, &self.disk);
        self.memory.killed = self.server.is_killed();
        self.memory.no_watchdog = self.server.required_watchdog_trouble();
        let (local, vote) = self.observe_local().await;
        self.note_decoding(&local);
        self.look_for_waiting_parameters(&local).await;
        // Promises may have come in meanwhile.
        let lock = if matches!(lock, Lock::Unknown { .. }) { Lock::Unknown { until: self.leads_until() } } else { lock };
        self.remember(&local, &lock);
        self.warn_of_slots();
        self.keep_configuration(&local);
        self.look_at_promises(&local, &lock, asked);
        self.arm_guard(&local).await;
        self.look_for_trouble(&local).await;
        View {
            now: Moment::now(),
            me: self.config.name.clone(),
            settings: self.settings.clone(),
            tags: self.config.tags.clone(),
            pre_promote: self.config.hooks.pre_promote.is_some(),
            may_initialize: self.config.bootstrap.is_some(),
            stopping: self.stopping,
            cluster: self.cluster.clone(),
            dcs_answers: self.dcs_answers,
            lock,
            local,
            peers: self.peers.take(),
            asked_at: self.asked_at,
            vote,
            task: self.task.as_ref().map(|t| t.kind),
            memory: self.memory.clone(),
            wishes: self.wishes(),
        }
    }

    /// Reads the cluster and extends the session, both at once as long as that works: a session that is extended while the leader key is seen
    /// bound to it proves that the key is still there, without another request. While the store cannot be read the session is not extended:
    /// who cannot lead must not keep the key from others.
    async fn ask_dcs(&self) -> Result<(Snapshot, Session), DcsError> {
        let ttl = self.settings.ttl;
        if self.dcs_answers {
            let sent = Moment::now();
            let (snapshot, kept) = tokio::join!(self.dcs.snapshot(), self.dcs.keep_session(ttl));
            return Ok((snapshot?, Session { sent, ttl, kept }));
        }
        let snapshot = self.dcs.snapshot().await?;
        let sent = Moment::now();
        let kept = self.dcs.keep_session(ttl).await;
        Ok((snapshot, Session { sent, ttl, kept }))
    }

    /// Reads the cluster and renews what is ours.
    async fn observe_dcs(&mut self) -> Lock {
        self.dcs.set_budget(lease::budget(self.settings.retry_timeout, self.leads_until(), Moment::now()));
        let asked = self.ask_dcs().await;
        let lock = match asked {
            Ok((snapshot, session)) => {
                if !snapshot.unreadable.is_empty() && snapshot.unreadable != self.cluster.unreadable {
                    tracing::warn!("values in the DCS make no sense: {:?}", snapshot.unreadable);
                }
                let changed = snapshot.config != self.cluster.config;
                self.cluster = snapshot;
                if let Some(config) = self.cluster.config.as_ref().filter(|_| changed) {
                    self.settings = Settings::read(config);
                }
                if !self.name_is_ours().await {
                    self.dcs_answers = false;
                    return Lock::Unknown { until: None };
                }
                self.renew(session).await
            }
            Err(error) => Err(error),
        };
        self.dcs_answers = lock.is_ok();
        match lock {
            Ok(lock) => {
                self.dcs_seen = Some(Moment::now());
                self.complaint = None;
                lock
            }
            Err(error) => {
                self.complain(&error);
                self.failsafe.hurry();
                Lock::Unknown { until: self.lease_until }
            }
        }
    }

    /// Keeps the dynamic configuration with the data that it is for: another cluster's data stays as it is.
    fn keep_configuration(&mut self, local: &Local) {
        let system = match local {
            Local::Stopped(data) => Some(data.control.system_id),
            Local::Primary(server) | Local::Standby(server) => Some(server.system_id),
            _ => None,
        };
        let ours = system.is_some_and(|id| self.cluster.initialize == Initialize::Done(id));
        if let Some(config) = &self.cluster.config {
            self.last_config.keep(config, ours.then_some(&self.config.installation.data_dir));
        }
    }

    /// What becomes of the lock.
    async fn renew(&mut self, session: Session) -> Result<Lock, DcsError> {
        let Session { mut sent, mut ttl, mut kept } = session;
        if ttl != self.settings.ttl {
            (sent, ttl) = (Moment::now(), self.settings.ttl);
            kept = self.dcs.keep_session(ttl).await;
        }
        let me = &self.config.name;
        if self.cluster.leader.as_ref() != Some(me) {
            self.lease_until = None;
            // Whoever leads is known, whatever became of the session.
            return match self.cluster.leader.clone() {
                Some(leader) => Ok(Lock::Other(leader)),
                None => kept.map(|()| Lock::Free),
            };
        }
        kept?;
        match self.dcs.confirm_leader(me, self.cluster.leader_session).await? {
            Renewal::Kept => {
                let until = lease::deadline(sent, ttl);
                self.lease_until = Some(until);
                self.failsafe.renewed(sent);
                Ok(Lock::Mine { until })
            }
            Renewal::Lost { holder } => {
                self.lease_until = None;
                self.cluster.leader = holder.clone();
                Ok(holder.map_or(Lock::Free, Lock::Other))
            }
        }
    }

    /// The local server, and its vote if it is fenced.
    async fn observe_local(&mut self) -> (Local, Option<Term>) {
        let (Process::Launching(since) | Process::Running(_, since)) = self.server.process() else {
            return (self.observe_directory().await, None);
        };
        if self.memory.trouble.is_some() {
            // What it says on a session that exists does not count any more.
            return (Local::Silent { since }, None);
        }
        match self.server.observe().await {
            Ok((facts, vote)) if facts.in_recovery => (Local::Standby(facts), vote),
            Ok((facts, _)) => (Local::Primary(facts), None),
            // It may have ended while it was asked.
            Err(_) if self.server.process() == Process::None => (self.observe_directory().await, None),
            Err(_) => (Local::Silent { since: self.server.last_answer().map_or(since, |answer| answer.max(since)) }, None),
        }
    }

    async fn observe_directory(&self) -> Local {
        let installation = &self.config.installation;
        // A task that works on the directory leaves it half-done for anybody else's eyes.
        if self.task.as_ref().is_some_and(|t| !matches!(t.kind, super::view::Task::HandOver)) {
            return Local::Silent { since: Moment::now() };
        }
        match files::is_empty_dir(&installation.data_dir) {
            Ok(true) => return Local::Empty,
            Ok(false) => {}
            Err(error) => return Local::Unusable { why: format!("'{}' cannot be read: {error}", installation.data_dir.display()) },
        }
        if restore_mark::is_unfinished(&installation.data_dir) {
            let path = installation.data_dir.display();
            return Local::Unusable {
                why: format!("a backup was not restored to the end into '{path}': the same 'spilo backup restore' goes on"),
            };
        }
        match fs::read_to_string(installation.data_dir.join("PG_VERSION")) {
            Ok(version) if self.major_version.as_deref().is_none_or(|major| version.trim() == major) => {}
            Ok(version) => {
                let ours = self.major_version.as_deref().unwrap_or("unknown");
                return Local::Unusable { why: format!("it is of PostgreSQL {}, installed is {ours}", version.trim()) };
            }
            Err(_) => {
                let path = installation.data_dir.display();
                return Local::Unusable { why: format!("'{path}' is not empty and no PostgreSQL data directory") };
            }
        }
        match control_data::read(installation).await {
            Ok(control) => Local::Stopped(StoppedData {
                past: timelines::lineage(&installation.data_dir, control.timeline()),
                control,
                standby_signal: conf::has_standby_signal(&installation.data_dir),
                half_rewound: rewind::is_unfinished(installation),
                fresh_copy: installation.data_dir.join("backup_label").exists(),
            }),
            Err(error) => Local::Unusable { why: error.to_string() },
        }
    }

    /// Keeps what later turns need to know.
    fn remember(&mut self, local: &Local, lock: &Lock) {
        self.memory.look(&Look {
            now: Moment::now(),
            me: &self.config.name,
            cluster: &self.cluster,
            dcs_answers: self.dcs_answers,
            lock,
            local,
            server_age: self.server.age(),
            unrecorded_bootstrap: bootstrap::unrecorded_mark(&self.config.installation).exists(),
            has_old_data: clone::has_old(&self.config.installation),
        });
    }

    /// Passes the lease on to the guard while PostgreSQL accepts writes or is about to.
    async fn arm_guard(&mut self, local: &Local) {
        let writes = matches!(local, Local::Primary(_) | Local::Silent { .. }) || self.promotes();
        let watched = self.server.keep_watchdog(&self.settings).await;
        let told = match lease::guarding(writes, self.leads_until()) {
            Some(until) => self.server.arm(until, lease::margin(self.settings.ttl) / 2).await,
            None => Ok(()),
        };
        if let Err(error) = watched.and(told) {
            tracing::error!("the guard does not listen: {error}");
        }
    }
}
