//! Empty volumes whose labels say something: what Docker offers to keep a few words in without running anything.

use std::collections::HashMap;

use bollard::{
    Docker,
    models::{Volume, VolumeCreateRequest},
    query_parameters::{ListVolumesOptionsBuilder, RemoveVolumeOptions},
};

use super::{
    engine::{failed, or_missing},
    names,
};
use crate::{
    model::ClusterName,
    provisioner::{error::ProvisionError, observe::ObjectKind},
};

/// Makes it. The engine hands out an existing volume of that name as if it had made it: whoever cares compares the labels.
pub(super) async fn put(docker: &Docker, name: &str, labels: HashMap<String, String>) -> Result<Volume, ProvisionError> {
    let request = VolumeCreateRequest { name: Some(name.to_owned()), labels: Some(labels), ..Default::default() };
    docker.create_volume(request).await.map_err(failed(format!("create volume '{name}'")))
}

/// The volumes of this kind that belong to the cluster.
pub(super) async fn list(docker: &Docker, cluster: &ClusterName, kind: ObjectKind) -> Result<Vec<Volume>, ProvisionError> {
    let wanted = names::labels(cluster, kind, None).into_iter().map(|(label, value)| format!("{label}={value}"));
    let filters = HashMap::from([("label", wanted.collect::<Vec<_>>())]);
    let options = ListVolumesOptionsBuilder::default().filters(&filters).build();
    let answer = docker.list_volumes(Some(options)).await.map_err(failed("list volumes"))?;
    Ok(answer.volumes.unwrap_or_default())
}

/// Makes sure that it is gone.
pub(super) async fn remove(docker: &Docker, name: &str) -> Result<(), ProvisionError> {
    let removal = docker.remove_volume(name, None::<RemoveVolumeOptions>).await;
    or_missing(removal).map(|_| ()).map_err(failed(format!("remove volume '{name}'")))
}
