//! Why provisioning did not go through.

use super::{image::ImageError, lock::LockRecord};
use crate::model::ClusterName;

/// How a caller has to treat an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// It failed, and repeating it may or may not help.
    Failed,
    /// What was asked for cannot be.
    Usage,
    /// There is no such thing.
    NotFound,
    /// We are not allowed to.
    NotPermitted,
    /// It would be unsafe or somebody else is at it.
    Refused,
    /// Some of it was done; the same command again continues.
    PartlyApplied,
    /// It was interrupted between two steps.
    Interrupted,
}

/// An error of the provisioner: a sentence that names the object; [`ProvisionError::hint`] says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    /// The engine does not answer.
    #[error("the Docker engine does not answer at '{address}': {reason}")]
    EngineUnreachable {
        /// Where it was looked for.
        address: String,
        /// What happened.
        reason: String,
    },
    /// The engine's socket is closed to this user.
    #[error("permission denied on the Docker engine's socket '{address}'")]
    EngineForbidden {
        /// The socket.
        address: String,
    },
    /// The engine refused a request.
    #[error("the Docker engine could not {doing}: {reason}")]
    Engine {
        /// What was tried, such as `start container 'spilo-orders-1'`.
        doing: String,
        /// What the engine said.
        reason: String,
    },
    /// A name that is needed belongs to something else.
    #[error("the {form} '{name}' exists and does not belong to cluster '{cluster}'{owner}")]
    Foreign {
        /// `container`, `volume` or `network`.
        form: String,
        /// Its name.
        name: String,
        /// The cluster that wanted the name.
        cluster: ClusterName,
        /// Empty, or which cluster it belongs to.
        owner: String,
    },
    /// Another command works on the cluster.
    #[error("another command is working on cluster '{cluster}': {holder}")]
    Busy {
        /// The cluster.
        cluster: ClusterName,
        /// Who it is.
        holder: Box<LockRecord>,
    },
    /// Our lock was removed while we were working.
    #[error("the lock on cluster '{cluster}' was lost while working on it")]
    LockLost {
        /// The cluster.
        cluster: ClusterName,
    },
    /// Somebody listens on a port that is wanted.
    #[error("port {port} on 127.0.0.1 is in use")]
    PortInUse {
        /// The port.
        port: u16,
    },
    /// No three consecutive free ports.
    #[error("no three consecutive ports are free on 127.0.0.1 from {from} on")]
    NoFreePorts {
        /// Where the search began.
        from: u16,
    },
    /// The disk is nearly full.
    #[error("only {free_mib} MiB are free on the disk of the Docker engine ('{path}'), at least {needed_mib} MiB are needed")]
    DiskFull {
        /// Where the engine keeps its data.
        path: String,
        /// What is free.
        free_mib: u64,
        /// What is needed.
        needed_mib: u64,
    },
    /// There is no such cluster.
    #[error("there is no cluster '{0}'")]
    NoCluster(ClusterName),
    /// The cluster exists and is something else.
    #[error("cluster '{cluster}' exists with other settings: {differences}")]
    Differs {
        /// The cluster.
        cluster: ClusterName,
        /// Which settings, as `nodes is 3, not 5`.
        differences: String,
    },
    /// Its deletion was begun.
    #[error("cluster '{0}' is half deleted")]
    Deleting(ClusterName),
    /// Nobody leads, so that nobody knows whose data is the newest.
    #[error("cluster '{0}' has no leader now, so that no node can be removed safely")]
    NoLeader(ClusterName),
    /// The volume with the passwords of a cluster that has data is gone.
    #[error("volume '{volume}' with the passwords of cluster '{cluster}' is gone; its data is still there")]
    SecretsLost {
        /// The cluster.
        cluster: ClusterName,
        /// The volume.
        volume: String,
    },
    /// What is stored with the cluster cannot be read.
    #[error("the stored spec in volume '{volume}' cannot be read: {reason}")]
    UnreadableSpec {
        /// The volume whose labels hold it.
        volume: String,
        /// Why.
        reason: String,
    },
    /// The archive could not be begun.
    #[error("the archive in '{store}' cannot be used: {reason}")]
    Archive {
        /// Where it is to be.
        store: String,
        /// What it said.
        reason: String,
    },
    /// New secrets do not open the archive.
    #[error("the new {what} cannot be used with '{store}': {reason}; nothing was changed")]
    UnfitSecrets {
        /// Which.
        what: String,
        /// Where the archive is.
        store: String,
        /// What came of the attempt.
        reason: String,
    },
    /// A secret that the archive was made without.
    #[error("the archive of cluster '{cluster}' was made without '{key}', and that cannot be added to it yet")]
    NewKindOfSecret {
        /// The cluster.
        cluster: ClusterName,
        /// As in the spec file.
        key: &'static str,
    },
    /// What is in a bucket is not removed from here.
    #[error("the backups of cluster '{cluster}' are in '{store}', and are not removed from there")]
    BackupsInBucket {
        /// The cluster.
        cluster: ClusterName,
        /// The bucket.
        store: String,
    },
    /// A secret or configuration file is not there.
    #[error("cluster '{cluster}' has no file '{file}' in its configuration")]
    NoConfigFile {
        /// The cluster.
        cluster: ClusterName,
        /// The file below `/etc/spilo`.
        file: String,
    },
    /// A local file or process could not be used.
    #[error("cannot {doing}: {source}")]
    Local {
        /// What was tried.
        doing: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// The image could not be had.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A step failed.
    #[error("could not {title}: {source}")]
    Step {
        /// What the step was to do.
        title: String,
        /// How many steps had been done before.
        done: usize,
        /// Why it failed.
        #[source]
        source: Box<ProvisionError>,
    },
    /// Stopped between two steps.
    #[error("interrupted after {done} of {steps} steps")]
    Interrupted {
        /// Steps that were done.
        done: usize,
        /// Steps that the plan has.
        steps: usize,
    },
    /// Objects remain where none should.
    #[error("cluster '{cluster}' is not gone: {remains} remain")]
    Remains {
        /// The cluster.
        cluster: ClusterName,
        /// The objects.
        remains: String,
    },
}

impl ProvisionError {
    /// How to treat it.
    pub fn class(&self) -> ErrorClass {
        match self {
            ProvisionError::EngineForbidden { .. } => ErrorClass::NotPermitted,
            ProvisionError::NoCluster(_) | ProvisionError::NoConfigFile { .. } => ErrorClass::NotFound,
            ProvisionError::Foreign { .. }
            | ProvisionError::Busy { .. }
            | ProvisionError::PortInUse { .. }
            | ProvisionError::NoFreePorts { .. }
            | ProvisionError::DiskFull { .. }
            | ProvisionError::Differs { .. }
            | ProvisionError::Deleting(_)
            | ProvisionError::NoLeader(_)
            | ProvisionError::BackupsInBucket { .. }
            | ProvisionError::UnfitSecrets { .. }
            | ProvisionError::NewKindOfSecret { .. }
            | ProvisionError::SecretsLost { .. } => ErrorClass::Refused,
            ProvisionError::Step { done: 0, source, .. } => source.class(),
            ProvisionError::Step { .. } | ProvisionError::Remains { .. } | ProvisionError::LockLost { .. } => ErrorClass::PartlyApplied,
            ProvisionError::Interrupted { .. } => ErrorClass::Interrupted,
            ProvisionError::Image(error) => error.class(),
            ProvisionError::EngineUnreachable { .. }
            | ProvisionError::Engine { .. }
            | ProvisionError::UnreadableSpec { .. }
            | ProvisionError::Archive { .. }
            | ProvisionError::Local { .. } => ErrorClass::Failed,
        }
    }

    /// What the user can do about it: a command or a question.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            ProvisionError::EngineUnreachable { .. } => {
                "is Docker installed and started? try: sudo systemctl start docker (or set DOCKER_HOST)".to_owned()
            }
            ProvisionError::EngineForbidden { .. } => {
                "join the group 'docker' (sudo usermod -aG docker $USER, then log in again) or run the command with sudo".to_owned()
            }
            ProvisionError::Foreign { form, .. } => format!("remove that {form} yourself or choose another name for the cluster"),
            ProvisionError::Busy { cluster, .. } => {
                format!("wait for it to finish; a lock whose owner is gone is passed over by itself (cluster '{cluster}')")
            }
            ProvisionError::PortInUse { .. } => "leave out --port to get the next free ones, or stop what listens there".to_owned(),
            ProvisionError::NoFreePorts { .. } => "name three free ports by their first: --port N".to_owned(),
            ProvisionError::DiskFull { .. } => "make room, for example: docker image prune".to_owned(),
            ProvisionError::NoCluster(_) => "which clusters are there? spilo list".to_owned(),
            ProvisionError::Differs { cluster, .. } => {
                format!("use spilo scale for the number of nodes, or delete it first: spilo delete cluster {cluster}")
            }
            ProvisionError::Deleting(cluster) => format!("finish it first: spilo delete cluster {cluster}"),
            ProvisionError::NoLeader(cluster) => format!("wait until it has one: spilo status {cluster} -w"),
            ProvisionError::SecretsLost { volume, .. } => format!("can you restore the volume '{volume}' from a backup?"),
            ProvisionError::UnfitSecrets { .. } => {
                "the nodes go on with those that they have: put that right, and run the same command again".to_owned()
            }
            ProvisionError::NewKindOfSecret { key: "archive.key_file", .. } => {
                "an archive is encrypted from its beginning or not at all: leave out the key".to_owned()
            }
            ProvisionError::NewKindOfSecret { key, .. } => format!("leave out '{key}'; its nodes find what opens the store by themselves"),
            ProvisionError::Archive { .. } => "a cluster without backups is made with --store none".to_owned(),
            ProvisionError::BackupsInBucket { cluster, .. } => {
                format!("leave out --backups, and remove what lies below '{cluster}/' there with the bucket's own tools")
            }
            ProvisionError::Step { done: 0, source, .. } => return source.hint(),
            ProvisionError::Step { source, .. } => {
                return Some(source.hint().unwrap_or_else(|| "run the same command again to continue".to_owned()));
            }
            ProvisionError::Interrupted { .. } | ProvisionError::Remains { .. } | ProvisionError::LockLost { .. } => {
                "run the same command again to continue".to_owned()
            }
            ProvisionError::Image(error) => return error.hint(),
            ProvisionError::NoConfigFile { cluster, .. } => format!("was its creation interrupted? spilo create cluster {cluster}"),
            ProvisionError::Engine { reason, .. } if reason.contains("active endpoints") => {
                "is a container of yours connected to that network? disconnect it; if there is none, restart the engine".to_owned()
            }
            ProvisionError::Engine { reason, .. } if reason.contains("volume is in use") => {
                "is a container of yours using that volume? remove the container first".to_owned()
            }
            ProvisionError::Engine { .. } | ProvisionError::UnreadableSpec { .. } | ProvisionError::Local { .. } => return None,
        })
    }
}
