//! Clusters as containers of a Docker engine.

mod action;
mod archive;
mod base;
mod build_output;
mod config_volume;
mod definition;
mod engine;
mod ensure;
mod exec;
mod images;
mod inventory;
mod labelled_volumes;
mod locks;
mod names;
mod planner;
mod ports;
mod preflight;
mod secrets;
mod spec_store;

use std::collections::BTreeSet;

use bollard::Docker;

pub use action::DockerAction;
pub use definition::Definition;

use super::{Check, ExecOutput, LogLine, LogWish, Platform};
use crate::{
    model::{ClusterName, Secret},
    provisioner::{
        error::ProvisionError,
        image::{ImageInfo, ImageSource},
        lock::HeldLock,
        observe::{ClusterSummary, Condition, Inventory, ObjectKind, StoredSpec, Surroundings},
        plan::{Plan, Wish},
        progress::Say,
    },
    spec::ClusterSpec,
};

/// A Docker engine.
#[derive(Debug, Clone)]
pub struct DockerPlatform {
    docker: Docker,
}

impl DockerPlatform {
    /// Connects to the engine that `DOCKER_HOST` names, or to the usual one.
    pub async fn connect() -> Result<DockerPlatform, ProvisionError> {
        Ok(DockerPlatform { docker: engine::connect(&engine::address()).await? })
    }

    /// Uses a connection that is there already.
    pub fn with_client(docker: Docker) -> DockerPlatform {
        DockerPlatform { docker }
    }

    /// What can be said about the machine when connecting to its engine failed.
    pub fn check_of_failure(error: &ProvisionError) -> Check {
        preflight::unreachable(error)
    }

    /// Which of the ports that the cluster has, or is to have, somebody else listens on. Nobody else can while its router runs.
    fn ports_in_use(wish: &Wish, inventory: &Inventory, reserved: &BTreeSet<u16>) -> Vec<u16> {
        let first = match (&inventory.stored, wish) {
            (Some(stored), _) if stored.initialized => None,
            (Some(stored), _) => stored.spec.port,
            (None, Wish::Create { spec, .. }) => spec.port,
            (None, _) => None,
        };
        let listens = |object: &crate::provisioner::observe::Object| matches!(object.condition, Condition::Running | Condition::Paused);
        if inventory.containers(ObjectKind::Router).any(listens) {
            return Vec::new();
        }
        first.into_iter().flat_map(ports::ports_from).filter(|port| reserved.contains(port) || ports::is_in_use(*port)).collect()
    }

    /// The ports of the other clusters, whether or not they run now.
    async fn reserved_ports(&self, cluster: &ClusterName) -> Result<BTreeSet<u16>, ProvisionError> {
        let others = self.clusters().await?.into_iter().filter(|summary| summary.name != *cluster);
        let firsts = others.filter_map(|summary| summary.stored?.spec.port);
        Ok(firsts.flat_map(ports::ports_from).collect())
    }
}

impl Platform for DockerPlatform {
    type Action = DockerAction;

    async fn check_machine(&self) -> Vec<Check> {
        preflight::check(&self.docker).await
    }

    fn archive_options(spec: &ClusterSpec) -> Option<Vec<String>> {
        archive::options(spec)
    }

    async fn clusters(&self) -> Result<Vec<ClusterSummary>, ProvisionError> {
        inventory::clusters(&self.docker).await
    }

    async fn observe(&self, cluster: &ClusterName) -> Result<Inventory, ProvisionError> {
        inventory::observe(&self.docker, cluster).await
    }

    async fn survey(&self, wish: &Wish, inventory: &Inventory) -> Result<Surroundings, ProvisionError> {
        let mut surroundings = Surroundings::default();
        let Some(image) = wish.image() else { return Ok(surroundings) };
        if inventory.stored.is_none() {
            preflight::refuse_full_disk(&self.docker).await?;
        }
        let stored = inventory.stored.as_ref().map(|stored| stored.image.clone());
        for reference in stored.into_iter().chain([image.reference()]) {
            if images::is_present(&self.docker, &reference).await? {
                surroundings.images.insert(reference);
            }
        }
        let reserved = self.reserved_ports(&inventory.cluster).await?;
        surroundings.ports_in_use = DockerPlatform::ports_in_use(wish, inventory, &reserved);
        surroundings.free_port = ports::first_free(planner::FIRST_PORT, &reserved, ports::is_in_use);
        if let Some(wanted) = wish.secrets() {
            surroundings.changed_secrets = secrets::changed(&self.docker, inventory, wanted).await?;
        }
        Ok(surroundings)
    }

    fn plan(wish: &Wish, inventory: &Inventory, surroundings: &Surroundings) -> Result<Plan<DockerAction>, ProvisionError> {
        planner::plan(wish, inventory, surroundings)
    }

    async fn perform(&self, cluster: &ClusterName, action: &DockerAction, say: Say<'_>) -> Result<(), ProvisionError> {
        let docker = &self.docker;
        match action {
            DockerAction::EnsureImage { image } => images::ensure(docker, image, say).await.map(|_| ()),
            DockerAction::EnsureSpec { stored } => spec_store::ensure(docker, stored).await,
            DockerAction::EnsureNetwork => ensure::network(docker, cluster).await.map(|_| ()),
            DockerAction::EnsureConfig { stored } => config_volume::ensure_config(docker, stored).await,
            DockerAction::EnsureSecrets { stored, secrets } => secrets::ensure_brought(docker, stored, secrets).await,
            DockerAction::EnsureArchive { stored } => archive::ensure_archive(docker, stored).await,
            DockerAction::EnsureRunning { definition, replace } => ensure::running(docker, cluster, definition, *replace).await,
            DockerAction::RetireNode { name } => ensure::retired(docker, cluster, name).await,
            DockerAction::RemoveContainer { id } => ensure::removed(docker, id).await,
            DockerAction::RemoveVolume { name } => ensure::volume_removed(docker, cluster, name).await,
            DockerAction::RemoveNetwork { id } => ensure::network_removed(docker, cluster, id).await,
        }
    }

    async fn acquire_lock(&self, cluster: &ClusterName, command: &str) -> Result<HeldLock, ProvisionError> {
        locks::acquire(&self.docker, cluster, command).await
    }

    async fn renew_lock(&self, lock: &HeldLock) -> Result<HeldLock, ProvisionError> {
        locks::renew(&self.docker, lock).await
    }

    async fn release_lock(&self, lock: &HeldLock) -> Result<(), ProvisionError> {
        locks::release(&self.docker, lock).await
    }

    async fn record_initialized(&self, cluster: &ClusterName) -> Result<(), ProvisionError> {
        let inventory = self.observe(cluster).await?;
        let stored = inventory.stored.ok_or_else(|| ProvisionError::NoCluster(cluster.clone()))?;
        if stored.initialized {
            return Ok(());
        }
        let initialized = StoredSpec { generation: stored.generation + 1, initialized: true, ..stored };
        spec_store::ensure(&self.docker, &initialized).await
    }

    async fn read_secret(&self, cluster: &ClusterName, role: &str) -> Result<Secret, ProvisionError> {
        config_volume::read_secret(&self.docker, cluster, role).await
    }

    async fn exec(&self, container: &str, command: &[String], input: Option<&[u8]>) -> Result<ExecOutput, ProvisionError> {
        exec::collect(&self.docker, container, command, input).await
    }

    async fn exec_attached(&self, container: &str, command: &[String]) -> Result<i64, ProvisionError> {
        exec::attached(&self.docker, container, command).await
    }

    async fn logs(&self, container: &str, wish: LogWish, sink: &mut dyn FnMut(LogLine)) -> Result<(), ProvisionError> {
        exec::logs(&self.docker, container, wish, sink).await
    }

    async fn ensure_image(&self, image: &ImageSource, say: Say<'_>) -> Result<String, ProvisionError> {
        images::ensure(&self.docker, image, say).await
    }

    async fn images(&self) -> Result<Vec<ImageInfo>, ProvisionError> {
        images::list(&self.docker).await
    }
}
