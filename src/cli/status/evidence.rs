//! What a status is judged from: the spec, the containers, and the probe's report or why there is none.

use std::fmt;

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use super::Endpoints;
use crate::{api::report::ProbeReport, model::MemberName, spec::ClusterSpec};

/// All that is known of a cluster at one moment.
#[derive(Debug, Clone)]
pub struct Evidence<'a> {
    /// What the cluster should be.
    pub spec: &'a ClusterSpec,
    /// Its containers, those that should exist but do not among them.
    pub containers: &'a [ObservedContainer],
    /// The published ports.
    pub endpoints: Option<Endpoints>,
    /// What the cluster says of itself, or why it could not be asked.
    pub probe: Result<&'a ProbeReport, &'a str>,
    /// When all this was observed.
    pub now: Timestamp,
}

/// One container, as the engine sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedContainer {
    /// Name in the engine.
    pub name: String,
    /// What it is for.
    pub place: Place,
    /// Whether it runs.
    pub state: ContainerState,
    /// When it was created.
    pub created: Option<Timestamp>,
}

/// What a container is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A PostgreSQL node.
    Node(MemberName),
    /// An etcd member.
    Etcd,
    /// The router.
    Router,
}

/// Whether a container runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerState {
    /// It runs.
    Running,
    /// It runs, but is not connected to its cluster's network.
    Detached,
    /// Its processes are frozen.
    Paused,
    /// It ended and is being started again.
    Restarting,
    /// It was created and never started.
    Created,
    /// It ended.
    Stopped,
    /// It does not exist.
    Missing,
}

impl fmt::Display for ContainerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ContainerState::Running => "running",
            ContainerState::Detached => "cut off from the network",
            ContainerState::Paused => "paused",
            ContainerState::Restarting => "restarting",
            ContainerState::Created => "created",
            ContainerState::Stopped => "stopped",
            ContainerState::Missing => "missing",
        })
    }
}

impl Serialize for ContainerState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
