//! The status of a cluster: what it is judged from, what is said about it, and the one rule that judges.

mod derive;
mod evidence;

use jiff::Timestamp;
use serde::Serialize;

pub use derive::derive;
pub use evidence::{ContainerState, Evidence, ObservedContainer, Place};

use crate::{
    api::backup_status::BackupStatus,
    model::{ClusterName, MemberName, Timeline, WalConflict},
};

/// How a cluster is, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Everything that the spec asks for works.
    Healthy,
    /// Writes are accepted, something else is missing.
    Degraded,
    /// Nobody takes writes, or more than one would.
    Critical,
}

impl Health {
    /// The exit code of `spilo status`.
    pub fn exit_code(self) -> u8 {
        match self {
            Health::Healthy => 0,
            Health::Degraded => 20,
            Health::Critical => 21,
        }
    }

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Health::Healthy => "healthy",
            Health::Degraded => "degraded",
            Health::Critical => "critical",
        }
    }
}

/// What a node does, in the words of Patroni's `/cluster`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeRole {
    /// Holds the leader key.
    Leader,
    /// Holds the leader key of a cluster that follows another one.
    StandbyLeader,
    /// Every commit waits for it.
    SyncStandby,
    /// Commits wait for some of these.
    QuorumStandby,
    /// Follows without being waited for.
    Replica,
}

impl NodeRole {
    /// The words for people.
    pub fn as_str(self) -> &'static str {
        match self {
            NodeRole::Leader => "leader",
            NodeRole::StandbyLeader => "standby leader",
            NodeRole::SyncStandby => "sync standby",
            NodeRole::QuorumStandby => "quorum standby",
            NodeRole::Replica => "replica",
        }
    }
}

/// Where clients connect: all on 127.0.0.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Endpoints {
    /// Leads to the primary.
    pub read_write: u16,
    /// Leads to the replicas.
    pub read_only: u16,
    /// The router's health page.
    pub health: u16,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeStatus {
    /// Member name.
    pub name: MemberName,
    /// What it does, where the DCS knows it.
    pub role: Option<NodeRole>,
    /// `streaming` for a replica that does, otherwise what the member says of itself.
    pub state: String,
    /// The timeline it is on.
    pub timeline: Option<Timeline>,
    /// Bytes that it is behind the leader; absent for the leader and where unknown.
    pub lag_bytes: Option<u64>,
    /// Where PostgreSQL listens inside the cluster's network.
    pub address: Option<String>,
    /// Age of the container.
    pub age_seconds: Option<u64>,
    /// State of the container.
    pub container: ContainerState,
    /// Why this node does not count as well; absent when it does.
    pub trouble: Option<String>,
}

/// A container that is not a PostgreSQL node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServiceStatus {
    /// Name of the container.
    pub name: String,
    /// State of the container.
    pub container: ContainerState,
}

/// A WAL file that a node cannot archive, because the archive has another content under its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeConflict {
    /// Whose it is.
    pub node: MemberName,
    /// What, since when, and where its content is.
    #[serde(flatten)]
    pub conflict: WalConflict,
}

/// What `spilo status` shows.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClusterStatus {
    /// The cluster.
    pub name: ClusterName,
    /// How it is.
    pub health: Health,
    /// Why, in one sentence.
    pub reason: String,
    /// When this was observed.
    pub observed_at: Timestamp,
    /// Where clients connect, while something publishes ports.
    pub endpoints: Option<Endpoints>,
    /// Who holds the leader key.
    pub leader: Option<MemberName>,
    /// The leader's timeline.
    pub timeline: Option<Timeline>,
    /// Whether automatic failover is switched off.
    pub paused: bool,
    /// Its nodes, by name.
    pub nodes: Vec<NodeStatus>,
    /// etcd and the router.
    pub services: Vec<ServiceStatus>,
    /// How the backups are, where somebody sees to them.
    pub backup: Option<BackupStatus>,
    /// WAL that cannot be archived because the archive has something else, the first few files of each node.
    pub wal_conflicts: Vec<NodeConflict>,
}
