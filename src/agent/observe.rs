//! Looking: the DCS, the lease, the local server. Everything that takes time is bounded.

use std::{collections::BTreeSet, fs, time::Duration};

use super::{
    dynamic, lease,
    server::Process,
    shell::{SETTLED, Shell},
    view::{Local, Lock, Past, StoppedData, View},
};
use crate::{
    dcs::{Dcs, DcsError, Renewal, snapshot::Initialize},
    model::MemberName,
    postgres::{bootstrap, clone, conf, control_data, rewind},
    spec::settings::Settings,
    sys::{clock::Moment, files},
};

/// Least time that one DCS operation gets, however little of the lease is left.
const LEAST_BUDGET: Duration = Duration::from_millis(300);

impl Shell {
    /// Takes one look.
    pub(super) async fn observe(&mut self) -> View {
        let lock = self.observe_dcs().await;
        let local = self.observe_local().await;
        self.remember(&local, &lock);
        self.arm_guard(&local).await;
        let tags = &self.config.tags;
        let tagged = |tag: &str| tags.get(tag).is_some_and(|v| v.as_bool() != Some(false) && !v.is_null());
        View {
            now: Moment::now(),
            me: self.config.name.clone(),
            settings: self.settings.clone(),
            nofailover: tagged("nofailover"),
            may_initialize: self.config.bootstrap.is_some(),
            stopping: self.stopping,
            cluster: self.cluster.clone(),
            dcs_answers: self.dcs_answers,
            lock,
            local,
            peers: self.peers.take(),
            task: self.task.as_ref().map(|t| t.kind),
            memory: self.memory.clone(),
        }
    }

    /// Reads the cluster and renews what is ours. The order matters for nothing but speed: the lease counts from before the renewal left.
    async fn observe_dcs(&mut self) -> Lock {
        self.dcs.set_budget(self.budget());
        let lock = match self.dcs.snapshot().await {
            Ok(snapshot) => {
                self.cluster = snapshot;
                if let Some(config) = &self.cluster.config {
                    self.settings = Settings::read(config);
                    dynamic::keep(&mut self.last_config, config, &self.config.installation.data_dir);
                }
                self.renew().await
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
                Lock::Unknown { until: self.lease_until }
            }
        }
    }

    /// `retry_timeout`, but never so long that the lease would end meanwhile without our acting on it.
    fn budget(&self) -> Duration {
        let all = self.settings.retry_timeout;
        self.lease_until.map_or(all, |until| all.min(until.since(Moment::now() + LEAST_BUDGET)).max(LEAST_BUDGET))
    }

    /// Keeps what the DCS knows, in case it loses it, and notices when it has.
    fn remember_cluster(&mut self, now: Moment) {
        if !self.dcs_answers {
            return;
        }
        let cluster = &self.cluster;
        match (&cluster.config, cluster.initialize, &cluster.leader) {
            (Some(_), Initialize::Done(_), _) => {
                self.memory.past = Past { members: cluster.members.clone(), sync: cluster.sync.clone() };
                self.memory.forgotten_since = None;
            }
            (None, _, None) => drop(self.memory.forgotten_since.get_or_insert(now)),
            _ => self.memory.forgotten_since = None,
        }
    }

    async fn renew(&mut self) -> Result<Lock, DcsError> {
        let (me, ttl) = (&self.config.name, self.settings.ttl);
        let sent = Moment::now();
        if self.cluster.leader.as_ref() != Some(me) {
            self.lease_until = None;
            self.dcs.keep_session(ttl).await?;
            return Ok(self.cluster.leader.clone().map_or(Lock::Free, Lock::Other));
        }
        match self.dcs.renew_leader(me, ttl).await? {
            Renewal::Kept => {
                let until = lease::deadline(sent, ttl);
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

    async fn observe_local(&mut self) -> Local {
        match self.server.process() {
            Process::None => self.observe_directory().await,
            Process::Launching(since) | Process::Running(_, since) => match self.server.observe().await {
                Ok(facts) if facts.in_recovery => Local::Standby(facts),
                Ok(facts) => Local::Primary(facts),
                // It may have ended while it was asked.
                Err(_) if self.server.process() == Process::None => self.observe_directory().await,
                Err(_) => Local::Silent { since: self.server.last_answer().map_or(since, |answer| answer.max(since)) },
            },
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
        let now = Moment::now();
        self.memory.unrecorded_bootstrap = bootstrap::unrecorded_mark(&self.config.installation).exists();
        self.memory.has_old_data = clone::has_old(&self.config.installation);
        self.remember_slots(local, now);
        self.remember_cluster(now);
        self.memory.unled_since = (*lock == Lock::Free).then(|| self.memory.unled_since.unwrap_or(now));
        let no_standby = match local {
            Local::Primary(facts) => !facts.standbys.iter().any(|s| s.state == "streaming"),
            _ => false,
        };
        self.memory.no_standby_since = no_standby.then(|| self.memory.no_standby_since.unwrap_or(now));
        let not_streaming = matches!((local, lock), (Local::Standby(facts), Lock::Other(_)) if !facts.streaming);
        self.memory.not_streaming_since = not_streaming.then(|| self.memory.not_streaming_since.unwrap_or(now));
        if matches!(local, Local::Primary(_) | Local::Standby(_)) && self.server.age() > SETTLED {
            self.memory.failed_starts = 0;
        }
        match local {
            // A primary that this agent found running: whom it waits for now may not have had time to confirm the past.
            Local::Primary(facts) if !self.knows_barrier => {
                self.knows_barrier = true;
                self.memory.sync_barrier = Some(facts.position);
            }
            Local::Primary(_) => {}
            Local::Standby(facts) if facts.streaming => {
                self.memory.failed_rejoins = 0;
                self.memory.copied = false;
                self.memory.wal_gone = false;
                self.memory.diverged = false;
                self.memory.ready_behind = None;
                self.knows_barrier = false;
            }
            Local::Standby(_) => self.knows_barrier = false,
            _ => {}
        }
    }

    /// Notes slots that nobody present streams through. The server is what tells, not this agent's memory of members: it may be new.
    fn remember_slots(&mut self, local: &Local, now: Moment) {
        let (Local::Primary(facts) | Local::Standby(facts)) = local else { return };
        let claimed: BTreeSet<String> = self.cluster.members.keys().map(MemberName::slot_name).collect();
        let known = std::mem::take(&mut self.memory.unclaimed_slots);
        let unclaimed = facts.slots.difference(&claimed).map(|slot| (slot.clone(), known.get(slot).copied().unwrap_or(now)));
        self.memory.unclaimed_slots = unclaimed.collect();
    }

    /// Passes the lease on to the guard while PostgreSQL accepts writes or is about to.
    async fn arm_guard(&mut self, local: &Local) {
        let writes = matches!(local, Local::Primary(_) | Local::Silent { .. }) || self.promotes();
        let grace = lease::margin(self.settings.ttl) / 2;
        let armed = match (writes, self.lease_until) {
            (true, Some(until)) => self.server.arm(Some(until), grace).await,
            // Without a lease the guard keeps the deadline it has: only a renewal moves it.
            (true, None) => Ok(()),
            (false, _) => self.server.arm(None, grace).await,
        };
        if let Err(error) = armed {
            tracing::error!("the guard does not listen: {error}");
        }
    }
}
