//! What the leader of a standby cluster does towards the other cluster's primary: find it, copy it, compare with it, follow it.

use super::{
    action::Remote,
    memory::TaskEnd,
    perform::{Failure, Flow},
    rejoin::{self, Rejoin, Way},
    shell::Shell,
    tasks::Tools,
    view::{Local, Lock, StoppedData, Task, View},
};
use crate::{
    dcs::Dcs,
    model::{Lsn, SystemId, Timeline},
    postgres::{
        Address, PostgresError,
        conf::ServerSettings,
        conninfo::conninfo_to_any,
        control_data::ClusterState,
        rewind::{self, Origin, Relation, Standing},
        timelines,
    },
    spec::standby_cluster::{STREAMS_AS, StandbyCluster},
};

/// Where the other cluster's primary is to be found.
#[derive(Debug, Clone)]
pub(super) struct Elsewhere {
    addresses: Vec<Address>,
    slot: Option<String>,
}

impl Elsewhere {
    fn of(cluster: &StandbyCluster) -> Elsewhere {
        let addresses = cluster.hosts.iter().map(|(host, port)| Address { host: host.clone(), port: *port });
        Elsewhere { addresses: addresses.collect(), slot: cluster.slot.clone() }
    }
}

/// A server of the other cluster, and who it says it is.
struct Found {
    address: Address,
    origin: Origin,
    standing: Standing,
}

impl Shell {
    pub(super) async fn perform_remote(&mut self, remote: Remote, view: &View) -> Result<Flow, Failure> {
        let Some(elsewhere) = self.settings.standby_cluster.as_ref().map(Elsewhere::of) else { return Ok(Flow::Enough) };
        match remote {
            Remote::Start => {
                let settings = ServerSettings {
                    primary_conninfo: self.conninfo_elsewhere(&elsewhere),
                    primary_slot_name: elsewhere.slot,
                    ..self.base_settings()
                };
                self.start(settings, true).await?;
            }
            Remote::Follow => self.stream_from(self.conninfo_elsewhere(&elsewhere), elsewhere.slot).await?,
            Remote::Copy => self.begin(Task::Clone, self.tools().copy_elsewhere(elsewhere, self.cluster_system())),
            Remote::Rejoin => {
                if let Local::Stopped(data) = &view.local {
                    self.begin(Task::Rejoin, self.tools().rejoin_elsewhere(data.clone(), elsewhere, self.ways_back()));
                }
            }
            Remote::Compare => {
                if let Local::Standby(facts) = &view.local {
                    let here = (facts.system_id, facts.timeline, facts.position);
                    self.begin(Task::CompareHistories, self.tools().compare_elsewhere(here, elsewhere, self.has_archive()));
                }
            }
            Remote::RecordTimeline(timeline) => self.record_remote_timeline(timeline).await?,
        }
        Ok(Flow::Next)
    }

    /// Begins a new cluster as a copy of the other one. No mark is left beside the directory: if somebody else is faster, this is a copy of the
    /// same data, and a replica.
    pub(super) fn begin_as_copy(&mut self, cluster: &StandbyCluster) {
        self.begin(Task::Initialize, self.tools().initialize_elsewhere(Elsewhere::of(cluster)));
    }

    fn conninfo_elsewhere(&self, elsewhere: &Elsewhere) -> Option<String> {
        if elsewhere.addresses.is_empty() {
            return None;
        }
        let config = &self.config;
        let name = format!("{STREAMS_AS}{}/{}", config.dcs.scope, config.name);
        let mut extra = vec![("application_name", name.as_str()), ("connect_timeout", "3")];
        if elsewhere.addresses.len() > 1 {
            extra.push(("target_session_attrs", "read-write"));
        }
        Some(conninfo_to_any(&elsewhere.addresses, &config.replication.username, &config.installation.passfile, &extra))
    }

    /// Notes why the other cluster cannot be followed, for whoever looks at this member.
    pub(super) fn note_remote_fault(&mut self, error: &PostgresError) {
        let leads = self.lease_until.is_some() || self.memory.holds_initialize;
        if self.settings.standby_cluster.is_some() && leads {
            self.memory.remote_fault = Some(error.to_string());
        }
    }

    /// The slot that the present configuration streams through, where it is not known: on a server that was found running.
    pub(super) fn slot_of_adopted(&self, view: &View) -> Option<String> {
        match (&self.settings.standby_cluster, &view.lock) {
            (Some(cluster), Lock::Mine { .. }) => cluster.slot.clone(),
            _ => self.slot(),
        }
    }
}

impl Tools {
    /// The first of the addresses that answers; of several, one that is no standby itself rather than one that is.
    async fn find(&self, elsewhere: &Elsewhere) -> Result<Found, PostgresError> {
        let mut last = PostgresError::NotYet("the section 'standby_cluster' names no host".to_owned());
        let mut standby = None;
        for address in &elsewhere.addresses {
            match self.ask(address).await {
                Ok(found) if !found.standing.in_recovery => return Ok(found),
                Ok(found) => drop(standby.get_or_insert(found)),
                Err(error) => last = error,
            }
        }
        standby.ok_or(last)
    }

    async fn ask(&self, address: &Address) -> Result<Found, PostgresError> {
        let (installation, user) = (&self.config.installation, &self.config.replication.username);
        let origin = rewind::origin(installation, address, user).await?;
        let standing = rewind::standing(installation, address, user).await?;
        Ok(Found { address: address.clone(), origin, standing })
    }

    /// Copies the other cluster's primary, whose data have to be of this `system`.
    async fn copy_elsewhere(self, elsewhere: Elsewhere, system: Option<SystemId>) -> Result<TaskEnd, PostgresError> {
        let found = self.find(&elsewhere).await?;
        check_system(&found, system)?;
        self.base_backup(&found.address, elsewhere.slot.as_deref(), Some(found.origin.system_id)).await?;
        Ok(TaskEnd::CopiedRemote)
    }

    async fn initialize_elsewhere(self, elsewhere: Elsewhere) -> Result<TaskEnd, PostgresError> {
        let Err(error) = self.clone().copy_elsewhere(elsewhere, None).await else { return Ok(TaskEnd::CopiedRemote) };
        // Another member may reach what this one does not: nobody waits for a claim that leads to nothing.
        if let Err(kept) = self.dcs.release_initialize().await {
            tracing::warn!("the claim to initialise could not be given up: {kept}");
        }
        Err(error)
    }

    /// Makes stopped data fit to follow the other cluster: as they are, rewound, or replaced by a copy.
    async fn rejoin_elsewhere(self, data: StoppedData, elsewhere: Elsewhere, how: Rejoin) -> Result<TaskEnd, PostgresError> {
        let installation = &self.config.installation;
        let Found { address, origin, standing } = self.find(&elsewhere).await?;
        match way(&data, &origin, standing, &how) {
            Way::Refuse => Err(foreign(data.control.system_id, &address, &origin)),
            Way::NoRoom => {
                Err(PostgresError::NotYet("what is here has diverged, and there is no room to change that: make some".to_owned()))
            }
            Way::AsItIs => Ok(TaskEnd::FitsRemote),
            Way::Rewind => {
                let name = place(&address);
                rewind::ensure_ready_source(installation, &address, self.config.rewinder(), origin.timeline).await?;
                self.keep_what_diverged(&data, &origin, &name, how.archive_command.as_deref()).await;
                rewind::rewind(installation, &address, self.config.rewinder(), how.may_restore).await?;
                tracing::info!("rewound to the history of the other cluster at {name}");
                Ok(TaskEnd::FitsRemote)
            }
            Way::Copy => {
                let name = place(&address);
                tracing::info!("copying the other cluster at {name} anew: what is here has diverged and is not rewound");
                self.keep_what_diverged(&data, &origin, &name, how.archive_command.as_deref()).await;
                self.base_backup(&address, elsewhere.slot.as_deref(), Some(origin.system_id)).await?;
                Ok(TaskEnd::CopiedRemote)
            }
        }
    }

    /// Compares the running standby with the other cluster. `archive`: WAL may come from elsewhere too.
    async fn compare_elsewhere(
        self,
        here: (SystemId, Timeline, Lsn),
        elsewhere: Elsewhere,
        archive: bool,
    ) -> Result<TaskEnd, PostgresError> {
        let (system, timeline, position) = here;
        let Found { address, origin, standing } = self.find(&elsewhere).await?;
        if origin.system_id != system {
            return Err(foreign(system, &address, &origin));
        }
        let past = timelines::lineage(&self.config.installation.data_dir, timeline);
        if rewind::standby_relation((timeline, position), past.as_deref(), &origin) != Relation::Ancestor {
            return Ok(TaskEnd::Diverged);
        }
        // A server that has not come as far cannot have lost what comes next: it may be a standby of what was the primary here.
        let behind = origin.timeline == timeline && standing.position < position;
        if archive || behind || rewind::has_wal_from(&self.config.installation, &address, self.config.rewinder(), position).await? {
            return Ok(TaskEnd::FitsRemote);
        }
        tracing::warn!("the other cluster has no longer the WAL from {position} on");
        Ok(TaskEnd::WalGone)
    }
}

/// As towards a leader, except that the other side may be a standby of what was a primary here until now: then everything that it has is from
/// here, and nothing may be thrown away for it.
fn way(data: &StoppedData, origin: &Origin, standing: Standing, how: &Rejoin) -> Way {
    let same_history = data.control.system_id == origin.system_id && data.control.timeline() == origin.timeline;
    let clean = data.control.state == ClusterState::ShutDown;
    if same_history && clean && standing.in_recovery && !data.half_rewound && !how.known_diverged {
        return Way::AsItIs;
    }
    rejoin::way(data, origin, how)
}

fn place(address: &Address) -> String {
    format!("{}:{}", address.host, address.port)
}

fn check_system(found: &Found, system: Option<SystemId>) -> Result<(), PostgresError> {
    match system {
        Some(ours) if ours != found.origin.system_id => Err(foreign(ours, &found.address, &found.origin)),
        _ => Ok(()),
    }
}

/// Nothing that is here could ever follow it.
fn foreign(ours: SystemId, address: &Address, origin: &Origin) -> PostgresError {
    let (theirs, place) = (origin.system_id, place(address));
    PostgresError::Sql(format!("{place} serves the system {theirs}, this cluster is {ours}: is 'standby_cluster.host' the right one?"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::control_data::ControlData;

    fn data(state: ClusterState) -> StoppedData {
        let control = ControlData {
            system_id: SystemId(7_000_000_001),
            state,
            checkpoint_timeline: Timeline(1),
            checkpoint: Lsn(900),
            redo: Lsn(900),
            min_recovery: None,
            rewindable: true,
        };
        StoppedData { control, past: Some(Vec::new()), standby_signal: true, half_rewound: false, fresh_copy: false }
    }

    fn how() -> Rejoin {
        Rejoin {
            may_rewind: true,
            slots: true,
            known_diverged: false,
            failures: 0,
            disk_full: false,
            copy_waits: false,
            archive_command: None,
            may_restore: false,
        }
    }

    fn towards(system: u64, state: ClusterState, in_recovery: bool) -> Way {
        let origin = Origin { system_id: SystemId(system), timeline: Timeline(1), history: Vec::new() };
        way(&data(state), &origin, Standing { position: Lsn(800), in_recovery }, &how())
    }

    #[test]
    fn a_primary_that_was_stopped_keeps_what_its_standby_has_not_received() {
        let ours = 7_000_000_001;
        assert_eq!(towards(ours, ClusterState::ShutDown, true), Way::AsItIs);
        assert_eq!(towards(ours, ClusterState::InProduction, true), Way::Copy, "its end is not known");
        assert_eq!(towards(ours, ClusterState::ShutDown, false), Way::Copy, "two primaries of one timeline");
        assert_eq!(towards(7_000_000_009, ClusterState::ShutDown, true), Way::Refuse);
    }
}
