//! Effects on the engine, each named by its end state and repeatable at any point. Nothing without our label is touched.

use std::{collections::HashMap, time::Duration};

use bollard::{
    Docker,
    models::{
        ContainerCreateBody, ContainerInspectResponse, EndpointSettings, NetworkConnectRequest, NetworkCreateRequest,
        NetworkDisconnectRequest, VolumeCreateRequest,
    },
    query_parameters::{
        CreateContainerOptionsBuilder, InspectContainerOptions, InspectNetworkOptions, ListNetworksOptionsBuilder,
        RemoveContainerOptionsBuilder, RemoveVolumeOptions, StartContainerOptions, StopContainerOptions,
    },
};

use super::{
    definition::Definition,
    engine::{failed, is_conflict, is_missing, or_missing},
    inventory::{condition, is_attached},
    names,
};
use crate::{
    model::ClusterName,
    provisioner::{
        error::ProvisionError,
        observe::{Condition, Form, ObjectKind},
    },
};

type Labels = HashMap<String, String>;

/// How often something that is under way in the engine is looked at again, and how long is waited in between.
const PATIENCE: u32 = 50;
const PAUSE: Duration = Duration::from_millis(100);

/// The cluster has its network, and only one.
pub(super) async fn network(docker: &Docker, cluster: &ClusterName) -> Result<(), ProvisionError> {
    if settled_network(docker, cluster).await?.is_some() {
        return Ok(());
    }
    let name = names::network(cluster);
    let request = NetworkCreateRequest {
        name: name.clone(),
        driver: Some("bridge".to_owned()),
        labels: Some(names::labels(cluster, ObjectKind::Network, None)),
        ..Default::default()
    };
    docker.create_network(request).await.map_err(failed(format!("create network '{name}'")))?;
    settled_network(docker, cluster).await.map(|_| ())
}

/// The identifier of the cluster's network, if it has one.
///
/// Engines before 25 take any number of networks of the same name and can use none of them by that name. A second one comes up when a run of
/// ours was killed whose request the engine then carried out all the same. The one that is in use stays, else the oldest.
async fn settled_network(docker: &Docker, cluster: &ClusterName) -> Result<Option<String>, ProvisionError> {
    let mut found = Vec::new();
    let ids = network_ids(docker, cluster).await?;
    if ids.len() < 2 {
        return Ok(ids.into_iter().next());
    }
    for id in ids {
        let answer = docker.inspect_network(&id, None::<InspectNetworkOptions>).await;
        if let Some(network) = or_missing(answer).map_err(failed("inspect a network"))? {
            let users = network.containers.unwrap_or_default().len();
            found.push((std::cmp::Reverse(users), network.created, id));
        }
    }
    found.sort();
    let mut ids = found.into_iter().map(|(_, _, id)| id);
    let kept = ids.next();
    for surplus in ids {
        network_removed(docker, cluster, &surplus).await?;
    }
    Ok(kept)
}

/// Every network that has the name of the cluster's.
async fn network_ids(docker: &Docker, cluster: &ClusterName) -> Result<Vec<String>, ProvisionError> {
    let name = names::network(cluster);
    let filters = HashMap::from([("name", vec![name.clone()])]);
    let options = ListNetworksOptionsBuilder::default().filters(&filters).build();
    let networks = docker.list_networks(Some(options)).await.map_err(failed("list networks"))?;
    let mut ids = Vec::new();
    // The engine's filter takes parts of names too.
    for network in networks.into_iter().filter(|network| network.name.as_deref() == Some(&name)) {
        refuse_foreign(Form::Network, &name, network.labels.as_ref(), cluster)?;
        ids.extend(network.id);
    }
    Ok(ids)
}

/// The volume is there.
pub(super) async fn volume(docker: &Docker, cluster: &ClusterName, name: &str, labels: Labels) -> Result<(), ProvisionError> {
    let request = VolumeCreateRequest { name: Some(name.to_owned()), labels: Some(labels), ..Default::default() };
    let volume = docker.create_volume(request).await.map_err(failed(format!("create volume '{name}'")))?;
    // The engine hands out an existing volume of that name as if it had made it.
    refuse_foreign(Form::Volume, name, Some(&volume.labels), cluster)
}

/// The container exists, with its volume, connected, and runs.
pub(super) async fn running(docker: &Docker, cluster: &ClusterName, definition: &Definition, replace: bool) -> Result<(), ProvisionError> {
    if definition.keeps_data {
        let labels = names::labels(cluster, definition.kind, definition.member.as_ref());
        volume(docker, cluster, &definition.name, labels).await?;
    }
    let network = settled_network(docker, cluster).await?.unwrap_or_default();
    match inspect(docker, cluster, &definition.name).await? {
        Some(container) if !replace && condition(&container) != Condition::Dead && !is_stale(&container, cluster, &network) => {
            if !is_attached(&container, &names::network(cluster), &[&network]) {
                connect(docker, &container, cluster, definition, &network).await?;
            }
            if condition(&container) == Condition::Paused {
                let unpaused = docker.unpause_container(&definition.name).await;
                unpaused.map_err(failed(format!("unpause container '{}'", definition.name)))?;
            }
        }
        Some(container) => {
            removed(docker, container.id.as_deref().unwrap_or(&definition.name)).await?;
            created(docker, cluster, &definition.name, definition.to_request(cluster)).await?;
        }
        None => {
            created(docker, cluster, &definition.name, definition.to_request(cluster)).await?;
        }
    }
    if let Err(error) = start(docker, &definition.name).await {
        // A second network may have come up since we looked.
        if network_ids(docker, cluster).await?.len() < 2 {
            return Err(error);
        }
        settled_network(docker, cluster).await?;
        start(docker, &definition.name).await?;
    }
    Ok(())
}

/// Whether a container that is at rest belongs to a network that has been removed since: it could never start again.
fn is_stale(container: &ContainerInspectResponse, cluster: &ClusterName, network: &str) -> bool {
    let known = endpoint_of(container, cluster).and_then(|endpoint| endpoint.network_id.as_deref());
    known.is_some_and(|known| !known.is_empty() && known != network)
}

/// A container of this name exists; returns its identifier.
///
/// Its name may be taken for a moment by one that is coming or going: by the request of a run of ours that was killed. One that came is as good
/// as ours, because it was made by the same plan.
pub(super) async fn created(
    docker: &Docker,
    cluster: &ClusterName,
    name: &str,
    request: ContainerCreateBody,
) -> Result<String, ProvisionError> {
    let mut patience = PATIENCE;
    loop {
        let options = CreateContainerOptionsBuilder::default().name(name).build();
        match docker.create_container(Some(options), request.clone()).await {
            Ok(created) => return Ok(created.id),
            Err(error) if is_conflict(&error) && patience > 0 => patience -= 1,
            Err(error) => return Err(failed(format!("create container '{name}'"))(error)),
        }
        tokio::time::sleep(PAUSE).await;
        let came = inspect(docker, cluster, name).await?.filter(|container| condition(container) != Condition::Dead);
        if let Some(id) = came.and_then(|container| container.id) {
            return Ok(id);
        }
    }
}

/// Connects under the alias; a connection without it is renewed.
async fn connect(
    docker: &Docker,
    container: &ContainerInspectResponse,
    cluster: &ClusterName,
    definition: &Definition,
    network: &str,
) -> Result<(), ProvisionError> {
    let name = definition.name.as_str();
    let doing = || format!("connect container '{name}' to network '{}'", names::network(cluster));
    if endpoint_of(container, cluster).is_some() {
        let request = NetworkDisconnectRequest { container: name.to_owned(), force: Some(true) };
        docker.disconnect_network(network, request).await.map_err(failed(doing()))?;
    }
    let request = NetworkConnectRequest { container: name.to_owned(), endpoint_config: Some(definition.endpoint()) };
    docker.connect_network(network, request).await.map_err(failed(doing()))
}

/// What the engine knows about the container's connection to its cluster's network.
fn endpoint_of<'a>(container: &'a ContainerInspectResponse, cluster: &ClusterName) -> Option<&'a EndpointSettings> {
    container.network_settings.as_ref()?.networks.as_ref()?.get(&names::network(cluster))
}

/// Starting a container that runs is no error. A container that somebody killed is not restarted by the engine until it is started once.
pub(super) async fn start(docker: &Docker, name: &str) -> Result<(), ProvisionError> {
    docker.start_container(name, None::<StartContainerOptions>).await.map_err(failed(format!("start container '{name}'")))
}

/// Our container of this name.
pub(super) async fn inspect(
    docker: &Docker,
    cluster: &ClusterName,
    name: &str,
) -> Result<Option<ContainerInspectResponse>, ProvisionError> {
    let answer = docker.inspect_container(name, None::<InspectContainerOptions>).await;
    let Some(container) = or_missing(answer).map_err(failed(format!("inspect container '{name}'")))? else { return Ok(None) };
    let labels = container.config.as_ref().and_then(|config| config.labels.as_ref());
    refuse_foreign(Form::Container, name, labels, cluster)?;
    Ok(Some(container))
}

/// The node is stopped, which lets a leader hand over, and then its container and its volume are gone.
pub(super) async fn retired(docker: &Docker, cluster: &ClusterName, name: &str) -> Result<(), ProvisionError> {
    if let Some(container) = inspect(docker, cluster, name).await? {
        let id = container.id.unwrap_or_else(|| name.to_owned());
        let stopped = docker.stop_container(&id, None::<StopContainerOptions>).await;
        or_missing(stopped).map_err(failed(format!("stop container '{name}'")))?;
        removed(docker, &id).await?;
    }
    volume_removed(docker, cluster, name).await
}

/// The container is gone, without waiting for anything in it.
pub(super) async fn removed(docker: &Docker, id: &str) -> Result<(), ProvisionError> {
    let options = RemoveContainerOptionsBuilder::default().force(true).build();
    match docker.remove_container(id, Some(options)).await {
        Ok(()) => Ok(()),
        Err(error) if is_missing(&error) => Ok(()),
        // Somebody else is removing it already, such as an interrupted run of ours whose request the engine still carries out.
        Err(error) if is_conflict(&error) => wait_until_removed(docker, id).await,
        Err(error) => Err(failed(format!("remove container '{id}'"))(error)),
    }
}

async fn wait_until_removed(docker: &Docker, id: &str) -> Result<(), ProvisionError> {
    for _ in 0..PATIENCE {
        match docker.inspect_container(id, None::<InspectContainerOptions>).await {
            Err(error) if is_missing(&error) => return Ok(()),
            _ => tokio::time::sleep(PAUSE).await,
        }
    }
    Err(ProvisionError::Engine { doing: format!("remove container '{id}'"), reason: "its removal does not come to an end".to_owned() })
}

/// Our volume of this name is gone.
pub(super) async fn volume_removed(docker: &Docker, cluster: &ClusterName, name: &str) -> Result<(), ProvisionError> {
    let doing = || format!("remove volume '{name}'");
    let Some(volume) = or_missing(docker.inspect_volume(name).await).map_err(failed(doing()))? else { return Ok(()) };
    refuse_foreign(Form::Volume, name, Some(&volume.labels), cluster)?;
    let removal = docker.remove_volume(name, None::<RemoveVolumeOptions>).await;
    or_missing(removal).map(|_| ()).map_err(failed(doing()))
}

/// Our network of this identifier is gone.
pub(super) async fn network_removed(docker: &Docker, cluster: &ClusterName, id: &str) -> Result<(), ProvisionError> {
    let name = names::network(cluster);
    let doing = || format!("remove network '{name}'");
    let answer = docker.inspect_network(id, None::<InspectNetworkOptions>).await;
    let Some(network) = or_missing(answer).map_err(failed(doing()))? else { return Ok(()) };
    refuse_foreign(Form::Network, &name, network.labels.as_ref(), cluster)?;
    or_missing(docker.remove_network(id).await).map(|_| ()).map_err(failed(doing()))
}

/// Whoever does not carry our labels is not ours, whatever its name.
pub(super) fn refuse_foreign(form: Form, name: &str, labels: Option<&Labels>, cluster: &ClusterName) -> Result<(), ProvisionError> {
    if labels.is_some_and(|labels| names::ours(labels, cluster).is_some()) {
        return Ok(());
    }
    let owner = labels.and_then(|labels| labels.get(names::CLUSTER));
    Err(ProvisionError::Foreign {
        form: form.to_string(),
        name: name.to_owned(),
        cluster: cluster.clone(),
        owner: owner.map(|owner| format!(" but to cluster '{owner}'")).unwrap_or_default(),
    })
}
