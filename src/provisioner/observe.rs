//! What there is of a cluster on a platform, found by its ownership labels.

use std::{collections::BTreeSet, fmt};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::store_secrets::StoreSecret;
use crate::{
    model::{ClusterName, MemberName},
    spec::ClusterSpec,
};

/// What an object is for: the value of the label `io.spilo.kind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ObjectKind {
    /// The cluster's network.
    Network,
    /// Configuration and secrets.
    Config,
    /// Base backups and WAL. It outlives the cluster.
    Archive,
    /// The short-lived container that begins the archive.
    ArchiveStarter,
    /// The short-lived container through which the configuration is read and written.
    ConfigWriter,
    /// What the cluster should be.
    Spec,
    /// One operation's lock on the cluster.
    Lock,
    /// A member of etcd.
    Etcd,
    /// A PostgreSQL node.
    Node,
    /// The router.
    Router,
    /// An image that was built for clusters.
    Image,
}

/// Every kind with its label text.
const KINDS: [(ObjectKind, &str); 11] = [
    (ObjectKind::Network, "network"),
    (ObjectKind::Config, "config"),
    (ObjectKind::Archive, "archive"),
    (ObjectKind::ArchiveStarter, "archive-starter"),
    (ObjectKind::ConfigWriter, "config-writer"),
    (ObjectKind::Spec, "spec"),
    (ObjectKind::Lock, "lock"),
    (ObjectKind::Etcd, "etcd"),
    (ObjectKind::Node, "node"),
    (ObjectKind::Router, "router"),
    (ObjectKind::Image, "image"),
];

impl ObjectKind {
    /// The label's text.
    pub fn as_str(self) -> &'static str {
        KINDS.iter().find(|(kind, _)| *kind == self).map_or("unknown", |(_, text)| text)
    }

    /// Reads the label's text.
    pub fn parse(text: &str) -> Option<ObjectKind> {
        KINDS.iter().find(|(_, known)| *known == text).map(|(kind, _)| *kind)
    }
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What sort of thing the platform keeps it as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// A network.
    Network,
    /// A volume.
    Volume,
    /// A container.
    Container,
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Form::Network => "network",
            Form::Volume => "volume",
            Form::Container => "container",
        })
    }
}

/// The condition an object is in. Networks and volumes are `Present`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    /// It exists.
    Present,
    /// A container that was created and never started.
    Created,
    /// A container that runs.
    Running,
    /// A container that is frozen.
    Paused,
    /// A container that ended and is being started again by the engine.
    Restarting,
    /// A container that ended.
    Stopped,
    /// A container that the engine is removing or failed to remove.
    Dead,
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Condition::Present => "present",
            Condition::Created => "created",
            Condition::Running => "running",
            Condition::Paused => "paused",
            Condition::Restarting => "restarting",
            Condition::Stopped => "stopped",
            Condition::Dead => "dead",
        })
    }
}

/// One object of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Object {
    /// What sort of thing it is.
    pub form: Form,
    /// What it is for.
    pub kind: ObjectKind,
    /// Its name, such as `spilo-orders-1`.
    pub name: String,
    /// The platform's own identifier.
    pub id: String,
    /// The member it belongs to.
    pub member: Option<MemberName>,
    /// The condition it is in.
    pub condition: Condition,
    /// When it was created.
    pub created: Option<Timestamp>,
    /// The image a container runs.
    pub image: Option<String>,
    /// Digest of the definition a container was made from.
    pub definition: Option<String>,
    /// Whether a container is connected to its cluster's network under the name that the others know it by.
    pub attached: bool,
}

impl Object {
    /// Whether it is a volume with backups.
    pub fn is_archive(&self) -> bool {
        self.form == Form::Volume && self.kind == ObjectKind::Archive
    }
}

/// What the cluster should be, as it is stored with the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredSpec {
    /// Grows by one with every change.
    pub generation: u64,
    /// Whether the cluster has once been healthy. Nodes made after that never initialise a new one.
    pub initialized: bool,
    /// Whether it is being deleted. Such a cluster can only be deleted further.
    pub deleting: bool,
    /// The nodes' numbers. Not always `1..=n`: scaling down never removes the leader.
    pub members: BTreeSet<u16>,
    /// Whether the ports were chosen for the user, so that others may be chosen while nothing listens on them yet.
    pub port_chosen: bool,
    /// The image that its containers run.
    pub image: String,
    /// The spec, with its port fixed.
    pub spec: ClusterSpec,
}

/// An object that has a name we need and is not this cluster's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Foreign {
    /// What sort of thing it is.
    pub form: Form,
    /// Its name.
    pub name: String,
    /// The cluster it belongs to, if it carries our labels.
    pub cluster: Option<String>,
}

/// Everything there is of one cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Inventory {
    /// The cluster.
    pub cluster: ClusterName,
    /// What it should be; `None` when it was never created or its creation did not get that far.
    pub stored: Option<StoredSpec>,
    /// Its objects, locks excepted.
    pub objects: Vec<Object>,
    /// What stands in the way.
    pub foreign: Vec<Foreign>,
}

impl Inventory {
    /// Whether nothing of the cluster exists. The backups that a deleted one left behind are no cluster.
    pub fn is_empty(&self) -> bool {
        self.objects.iter().all(Object::is_archive)
    }

    /// The volume with backups, if there is one.
    pub fn archive(&self) -> Option<&Object> {
        self.objects.iter().find(|object| object.is_archive())
    }

    /// The container of this name.
    pub fn container(&self, name: &str) -> Option<&Object> {
        self.objects.iter().find(|object| object.form == Form::Container && object.name == name)
    }

    /// The containers of one kind, in the order of their names.
    pub fn containers(&self, kind: ObjectKind) -> impl Iterator<Item = &Object> {
        self.objects.iter().filter(move |object| object.form == Form::Container && object.kind == kind)
    }

    /// Whether a volume of this name is there.
    pub fn has_volume(&self, name: &str) -> bool {
        self.objects.iter().any(|object| object.form == Form::Volume && object.name == name)
    }
}

/// What the platform around the cluster looks like, as far as a plan depends on it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Surroundings {
    /// The images, among those the plan may need, that are there.
    pub images: BTreeSet<String>,
    /// The first of three consecutive free ports, when the wish leaves the choice to us.
    pub free_port: Option<u16>,
    /// Wanted ports that somebody else listens on.
    pub ports_in_use: Vec<u16>,
    /// The secrets of the archive whose wanted files say something else than the nodes have.
    pub changed_secrets: BTreeSet<StoreSecret>,
}

/// One line of a list of clusters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClusterSummary {
    /// The cluster.
    pub name: ClusterName,
    /// What it should be; `None` for the remains of a cluster without a spec.
    pub stored: Option<StoredSpec>,
    /// Why what is stored cannot be read: another version has written it. That is its own trouble, and no other cluster's.
    pub unreadable: Option<String>,
    /// How many of its containers run.
    pub running: usize,
    /// How many containers it has.
    pub containers: usize,
    /// When its oldest object was created.
    pub created: Option<Timestamp>,
    /// Whether it is gone and only its backups are left.
    pub only_backups: bool,
}
