//! Long work, done beside the loop: at most one at a time, and cancelled by dropping it.

use std::{collections::BTreeMap, rc::Rc, time::Duration};

use super::{
    archive_copy::{CopyProgress, Goal, Shown},
    config::AgentConfig,
    guard::StopMode,
    memory::TaskEnd,
    rejoin::{self, Rejoin, Way},
    server::{Process, Server},
    view::{StoppedData, Task},
};
use crate::{
    dcs::{Dcs, Etcd, snapshot::StatusKey},
    model::{Lsn, MemberName, SystemId, Timeline},
    postgres::{
        Address, PostgresError, bootstrap, clone, conf, control_data,
        rewind::{self, Relation},
        timelines,
    },
    spec::slots::LogicalSlot,
};

/// How long a clean shutdown may take before it is cut short; what was not confirmed by then is recovered at the next start.
const CLEAN_STOP: Duration = Duration::from_secs(60);

/// What every task works with.
#[derive(Clone)]
pub struct Tools {
    /// Configuration.
    pub config: Rc<AgentConfig>,
    /// The local server.
    pub server: Rc<Server>,
    /// The DCS.
    pub dcs: Rc<Etcd>,
    /// How far a copy has come.
    pub copy_progress: CopyProgress,
    /// Where a replica has to come to, as far as that is known.
    pub goal: Option<Goal>,
}

impl Tools {
    /// initdb, or another cluster's backup.
    pub async fn initialize(self) -> Result<TaskEnd, PostgresError> {
        let Some(begin) = &self.config.bootstrap else { return Ok(TaskEnd::Done) };
        let begun = match &begin.from {
            Some(origin) => self.begin_from(origin).await,
            None => bootstrap::initdb(&self.config.installation, &begin.init, &self.config.superuser).await,
        };
        let Err(error) = begun else { return Ok(TaskEnd::Done) };
        // Another member may be luckier: nobody waits for a claim that leads to nothing.
        if let Err(kept) = self.dcs.release_initialize().await {
            tracing::warn!("the claim to initialise could not be given up: {kept}");
        }
        Err(error)
    }

    /// Makes a replica of the leader, whose data have to be of this `system`: from the archive or by copying it.
    pub async fn copy(self, leader: MemberName, source: Address, system: Option<SystemId>, slots: bool) -> Result<TaskEnd, PostgresError> {
        let slot = self.config.name.slot_name();
        self.fill(&source, slots.then_some(slot.as_str()), system).await?;
        Ok(TaskEnd::Copied(leader))
    }

    /// Puts a copy of the server at `source` in the data directory's place.
    pub(super) async fn base_backup(&self, source: &Address, slot: Option<&str>, system: Option<SystemId>) -> Result<(), PostgresError> {
        let config = &self.config;
        let shown = Shown::at(&self.copy_progress);
        shown.say(source.host.clone());
        let far = |so_far: String| shown.say(format!("{} ({so_far})", source.host));
        let mut attempt = 0;
        loop {
            let user = &config.replication.username;
            match clone::basebackup(&config.installation, source, user, config.name.as_str(), slot, system, far).await {
                Ok(()) => break,
                // The leader makes our slot as soon as it sees us.
                Err(PostgresError::Program(error)) if attempt < 20 && error.to_string().contains("does not exist") => {
                    attempt += 1;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(error) => return Err(error),
            }
        }
        // What an earlier life of the directory left beside it does not belong to the copy.
        rewind::forget_unfinished(&config.installation)?;
        bootstrap::forget_unrecorded(&config.installation)
    }

    /// Makes stopped data fit to follow the leader: as it is, rewound, or replaced by a copy. What is replaced stays beside it.
    pub async fn rejoin(self, data: StoppedData, leader: MemberName, source: Address, how: Rejoin) -> Result<TaskEnd, PostgresError> {
        let installation = &self.config.installation;
        let origin = rewind::origin(installation, &source, &self.config.replication.username).await?;
        match rejoin::way(&data, &origin, &how) {
            Way::Refuse => {
                let (ours, theirs) = (data.control.system_id, origin.system_id);
                Err(PostgresError::Sql(format!("my data belongs to the system {ours}, '{leader}' serves {theirs}")))
            }
            Way::NoRoom => {
                Err(PostgresError::NotYet("what is here has diverged, and there is no room to change that: make some".to_owned()))
            }
            Way::AsItIs => Ok(TaskEnd::ReadyToFollow(leader)),
            Way::Rewind => {
                rewind::ensure_ready_source(installation, &source, self.config.rewinder(), origin.timeline).await?;
                self.keep_what_diverged(&data, &origin, leader.as_str(), how.archive_command.as_deref()).await;
                rewind::rewind(installation, &source, self.config.rewinder(), how.may_restore).await?;
                tracing::info!("rewound to the history of '{leader}'");
                Ok(TaskEnd::ReadyToFollow(leader))
            }
            Way::Copy => {
                tracing::info!("copying '{leader}' anew: what is here has diverged and is not rewound");
                self.keep_what_diverged(&data, &origin, leader.as_str(), how.archive_command.as_deref()).await;
                self.copy(leader, source, Some(origin.system_id), how.slots).await
            }
        }
    }

    /// Compares the running standby's history with the leader's. `archive`: WAL may come from elsewhere too.
    pub async fn compare(self, timeline: Timeline, position: Lsn, source: Address, archive: bool) -> Result<TaskEnd, PostgresError> {
        let origin = rewind::origin(&self.config.installation, &source, &self.config.replication.username).await?;
        let past = timelines::lineage(&self.config.installation.data_dir, timeline);
        if rewind::standby_relation((timeline, position), past.as_deref(), &origin) != Relation::Ancestor {
            return Ok(TaskEnd::Diverged);
        }
        // An archive may have what the leader has recycled.
        if archive || rewind::has_wal_from(&self.config.installation, &source, self.config.rewinder(), position).await? {
            return Ok(TaskEnd::Done);
        }
        tracing::warn!("the leader has no longer the WAL from {position} on");
        Ok(TaskEnd::WalGone)
    }

    /// Promotes to the timeline that was reserved for it, and waits for it.
    pub async fn promote(self, reserved: Timeline) -> Result<TaskEnd, PostgresError> {
        let session = self.server.new_session("spilo promotion").await?;
        let data = &self.config.installation.data_dir;
        let present = session.observe().await?.timeline;
        timelines::hold_places(data, present, reserved)?;
        if !session.promote(Duration::from_secs(60)).await? {
            return Err(PostgresError::Sql("the promotion did not end within 60 s".to_owned()));
        }
        let begun = session.observe().await?.timeline;
        if begun < reserved {
            // Somebody else may have begun that number: what is written here would be mistaken for theirs.
            conf::set_standby_signal(data, true)?;
            self.server.stop(StopMode::Immediate).await?;
            return Err(PostgresError::Sql(format!("PostgreSQL began timeline {begun}, not the reserved {reserved}: stopping it")));
        }
        tracing::info!("promoted to timeline {begun}");
        let position = session.text("select pg_current_wal_insert_lsn()::text").await?;
        let position = position.parse().map_err(|e| PostgresError::Sql(format!("{e}")))?;
        Ok(TaskEnd::Promoted(position))
    }

    /// Stops the primary cleanly, so that its standbys have everything, and gives the leader key up with its last position.
    /// `known`: what the DCS has of slots stays there.
    pub async fn hand_over(self, known: StatusKey) -> Result<TaskEnd, PostgresError> {
        self.stop_cleanly().await?;
        // From here on somebody else may lead: started by hand, this server must not accept writes.
        conf::set_standby_signal(&self.config.installation.data_dir, true)?;
        let control = control_data::read(&self.config.installation).await?;
        let clean = control.state == control_data::ClusterState::ShutDown;
        let status = clean.then_some(StatusKey {
            optime: control.checkpoint,
            final_lsn: Some(control.checkpoint),
            final_timeline: Some(control.checkpoint_timeline),
            ..known
        });
        let released = self.dcs.release_leader(&self.config.name, status.as_ref()).await;
        released.map_err(|e| PostgresError::Sql(format!("the leader key could not be given up: {e}")))?;
        Ok(TaskEnd::Done)
    }

    /// Stops the primary cleanly, so that its standbys have everything. The leader key stays ours.
    pub async fn demote_cluster(self) -> Result<TaskEnd, PostgresError> {
        self.stop_cleanly().await?;
        // Started by hand, it must not accept writes any more.
        conf::set_standby_signal(&self.config.installation.data_dir, true)?;
        Ok(TaskEnd::Done)
    }

    /// Stops the server, to be started again in the role it had.
    pub async fn stop_for_restart(self) -> Result<TaskEnd, PostgresError> {
        self.stop_cleanly().await?;
        Ok(TaskEnd::Done)
    }

    /// Replaces the data directory by a copy of the leader's. What is there stays beside it until the copy has proved itself.
    pub async fn reinitialize(
        self,
        leader: MemberName,
        source: Address,
        system: Option<SystemId>,
        slots: bool,
    ) -> Result<TaskEnd, PostgresError> {
        if self.server.process() != Process::None {
            self.stop_cleanly().await?;
        }
        self.copy(leader, source, system, slots).await
    }

    async fn stop_cleanly(&self) -> Result<(), PostgresError> {
        self.before_stop().await;
        // What is written now does not have to be written while nobody can write.
        if let Ok(session) = self.server.new_session("spilo checkpoint").await {
            let checkpoint = session.execute_at_length("checkpoint");
            let _ = tokio::time::timeout(CLEAN_STOP, checkpoint).await;
        }
        self.server.stop(StopMode::Fast).await?;
        if self.server.gone(CLEAN_STOP).await {
            return Ok(());
        }
        tracing::warn!("PostgreSQL did not stop within {CLEAN_STOP:?}: stopping it at once");
        self.server.stop(StopMode::Immediate).await?;
        if !self.server.gone(Duration::from_secs(10)).await {
            self.server.stop(StopMode::Kill).await?;
            self.server.gone(Duration::from_secs(10)).await;
        }
        Ok(())
    }

    /// Creates logical slots that standbys take over, each in its database.
    pub async fn create_logical_slots(self, slots: BTreeMap<String, LogicalSlot>) -> Result<TaskEnd, PostgresError> {
        for (name, slot) in slots {
            let session = self.server.new_session_in(&slot.database, "spilo slots").await?;
            session.create_failover_slot(&name, &slot.plugin).await?;
            tracing::info!("created the logical slot '{name}' in the database '{}'", slot.database);
        }
        Ok(TaskEnd::Done)
    }

    /// A checkpoint.
    pub async fn checkpoint(self) -> Result<TaskEnd, PostgresError> {
        let session = self.server.new_session("spilo checkpoint").await?;
        session.execute_at_length("checkpoint").await?;
        Ok(TaskEnd::Done)
    }
}

/// A running task.
pub struct Running {
    /// What it does.
    pub kind: Task,
    /// Its end.
    pub handle: tokio::task::JoinHandle<Result<TaskEnd, PostgresError>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.handle.abort();
    }
}
