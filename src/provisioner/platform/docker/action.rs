//! The instructions of a plan on Docker, one per step. None holds a secret.

use std::collections::BTreeSet;

use serde::Serialize;

use super::definition::Definition;
use crate::provisioner::{image::ImageSource, observe::StoredSpec, store_secrets::StoreSecret};

/// What a step does. Each may be repeated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum DockerAction {
    /// The image is there.
    EnsureImage {
        /// Which.
        image: ImageSource,
    },
    /// The spec is stored in this generation and in no older one.
    EnsureSpec {
        /// What it says.
        stored: Box<StoredSpec>,
    },
    /// The cluster has its network.
    EnsureNetwork,
    /// The configuration volume holds a complete set of files. A complete set keeps its passwords.
    EnsureConfig {
        /// What the files are made from.
        stored: Box<StoredSpec>,
    },
    /// The nodes have these secrets of the archive as they are in their files now, which were found to open it.
    EnsureSecrets {
        /// Whose, with the names of the files.
        stored: Box<StoredSpec>,
        /// Which.
        secrets: BTreeSet<StoreSecret>,
    },
    /// The archive is there and can be written to; a new one is begun.
    EnsureArchive {
        /// Whose.
        stored: Box<StoredSpec>,
    },
    /// The container exists, with its volume, connected, and runs.
    EnsureRunning {
        /// What it is made of.
        definition: Box<Definition>,
        /// Whether one that exists is removed first, because it cannot become what it should be.
        replace: bool,
    },
    /// The container is stopped, which lets a leader hand over, and then it and its volume are gone.
    RetireNode {
        /// The container's name and the volume's.
        name: String,
    },
    /// The container is gone, without waiting for anything in it.
    RemoveContainer {
        /// The engine's identifier.
        id: String,
    },
    /// The volume is gone.
    RemoveVolume {
        /// Its name.
        name: String,
    },
    /// The network is gone.
    RemoveNetwork {
        /// The engine's identifier.
        id: String,
    },
}
