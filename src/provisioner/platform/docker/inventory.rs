//! What there is, found by label.

use std::collections::{BTreeMap, HashMap, HashSet};

use bollard::{
    Docker,
    models::{ContainerInspectResponse, ContainerStateStatusEnum, Network, Volume},
    query_parameters::{InspectContainerOptions, ListContainersOptionsBuilder, ListNetworksOptions, ListVolumesOptions},
};
use futures_util::future::try_join_all;
use jiff::Timestamp;

use super::{
    engine::{failed, or_missing},
    names, spec_store,
};
use crate::{
    model::ClusterName,
    provisioner::{
        error::ProvisionError,
        observe::{ClusterSummary, Condition, Foreign, Form, Inventory, Object, ObjectKind},
    },
};

/// Most etcd members and nodes that a cluster can have, for the names that may stand in the way.
const MOST_ETCD: u8 = 3;
const MOST_NODES: u16 = 9;

type Labels = HashMap<String, String>;

/// A listed thing before it is known whose it is.
struct Listed {
    form: Form,
    name: String,
    id: String,
    labels: Labels,
    created: Option<Timestamp>,
}

/// Everything there is of one cluster.
pub(super) async fn observe(docker: &Docker, cluster: &ClusterName) -> Result<Inventory, ProvisionError> {
    let listed = list_all(docker).await?;
    let candidates = candidate_names(cluster);
    let networks = listed.iter().filter(|thing| thing.form == Form::Network && names::ours(&thing.labels, cluster).is_some());
    let networks: Vec<String> = networks.map(|thing| thing.id.clone()).collect();
    let mut inventory = Inventory { cluster: cluster.clone(), stored: None, objects: Vec::new(), foreign: Vec::new() };
    let mut containers = Vec::new();
    let mut specs = Vec::new();
    for thing in listed {
        match names::ours(&thing.labels, cluster) {
            Some(ObjectKind::Lock) => {}
            Some(_) if thing.form == Form::Container => containers.push(thing),
            Some(kind) => {
                inventory.objects.push(present(kind, &thing));
                if kind == ObjectKind::Spec {
                    specs.push(thing);
                }
            }
            None if candidates.contains(&thing.name) => inventory.foreign.push(foreign(thing)),
            None => {}
        }
    }
    inventory.stored = spec_store::newest(specs.iter().map(|thing| (thing.name.as_str(), &thing.labels)))?;
    let inspected = try_join_all(containers.iter().map(|thing| inspect(docker, cluster, &networks, thing))).await?;
    inventory.objects.extend(inspected.into_iter().flatten());
    inventory.objects.sort_by(|a, b| (a.form, &a.name).cmp(&(b.form, &b.name)));
    Ok(inventory)
}

/// Every cluster, each with its newest spec and the count of its containers.
pub(super) async fn clusters(docker: &Docker) -> Result<Vec<ClusterSummary>, ProvisionError> {
    let mut by_cluster: BTreeMap<ClusterName, Vec<Listed>> = BTreeMap::new();
    for thing in list_all(docker).await? {
        let name = thing.labels.get(names::CLUSTER).and_then(|name| name.parse::<ClusterName>().ok());
        if let Some(name) = name
            && names::ours(&thing.labels, &name).is_some_and(|kind| kind != ObjectKind::Lock)
        {
            by_cluster.entry(name).or_default().push(thing);
        }
    }
    let running = running_containers(docker).await?;
    Ok(by_cluster.into_iter().map(|(name, things)| summarize(name, &things, &running)).collect())
}

fn summarize(name: ClusterName, things: &[Listed], running: &HashSet<String>) -> ClusterSummary {
    let specs = things.iter().filter(|thing| thing.labels.get(names::KIND).is_some_and(|kind| kind == ObjectKind::Spec.as_str()));
    let containers: Vec<&Listed> = things.iter().filter(|thing| thing.form == Form::Container).collect();
    let stored = spec_store::newest(specs.map(|thing| (thing.name.as_str(), &thing.labels)));
    ClusterSummary {
        unreadable: stored.as_ref().err().map(ToString::to_string),
        stored: stored.unwrap_or_default(),
        running: containers.iter().filter(|thing| running.contains(&thing.id)).count(),
        containers: containers.len(),
        created: things.iter().filter_map(|thing| thing.created).min(),
        only_backups: things.iter().all(|thing| names::ours(&thing.labels, &name) == Some(ObjectKind::Archive)),
        name,
    }
}

async fn running_containers(docker: &Docker) -> Result<HashSet<String>, ProvisionError> {
    let filters = HashMap::from([("label", vec![format!("{}=true", names::MANAGED)]), ("status", vec!["running".to_owned()])]);
    let options = ListContainersOptionsBuilder::default().filters(&filters).build();
    let containers = docker.list_containers(Some(options)).await.map_err(failed("list running containers"))?;
    Ok(containers.into_iter().filter_map(|container| container.id).collect())
}

/// Containers, volumes and networks of everybody: what is not ours may still stand in the way.
async fn list_all(docker: &Docker) -> Result<Vec<Listed>, ProvisionError> {
    let all = ListContainersOptionsBuilder::default().all(true).build();
    let (containers, volumes, networks) = tokio::try_join!(
        docker.list_containers(Some(all)),
        docker.list_volumes(None::<ListVolumesOptions>),
        docker.list_networks(None::<ListNetworksOptions>),
    )
    .map_err(failed("list its containers, volumes and networks"))?;
    let containers = containers.into_iter().map(|container| Listed {
        form: Form::Container,
        name: container.names.unwrap_or_default().first().map(|name| name.trim_start_matches('/').to_owned()).unwrap_or_default(),
        id: container.id.unwrap_or_default(),
        labels: container.labels.unwrap_or_default(),
        created: container.created.and_then(|seconds| Timestamp::from_second(seconds).ok()),
    });
    let volumes = volumes.volumes.unwrap_or_default().into_iter().map(listed_volume);
    let networks = networks.into_iter().map(listed_network);
    Ok(containers.chain(volumes).chain(networks).collect())
}

fn listed_volume(volume: Volume) -> Listed {
    Listed {
        form: Form::Volume,
        id: volume.name.clone(),
        name: volume.name,
        labels: volume.labels,
        created: volume.created_at.and_then(|time| time.parse().ok()),
    }
}

fn listed_network(network: Network) -> Listed {
    Listed {
        form: Form::Network,
        name: network.name.unwrap_or_default(),
        id: network.id.unwrap_or_default(),
        labels: network.labels.unwrap_or_default(),
        created: network.created.and_then(|time| time.parse().ok()),
    }
}

/// The names that a cluster's objects could have.
fn candidate_names(cluster: &ClusterName) -> HashSet<String> {
    let etcd = (1..=MOST_ETCD).map(|number| names::object(&names::etcd_alias(cluster, number)));
    let nodes = (1..=MOST_NODES).map(|number| names::object(names::member(cluster, number).as_str()));
    let single = [
        names::network(cluster),
        names::config(cluster),
        names::config_writer(cluster),
        names::archive(cluster),
        names::archive_starter(cluster),
        names::object(&names::router_alias(cluster)),
    ];
    etcd.chain(nodes).chain(single).collect()
}

fn foreign(thing: Listed) -> Foreign {
    let managed = thing.labels.contains_key(names::MANAGED);
    let cluster = thing.labels.get(names::CLUSTER).filter(|_| managed).cloned();
    Foreign { form: thing.form, name: thing.name, cluster }
}

fn present(kind: ObjectKind, thing: &Listed) -> Object {
    Object {
        form: thing.form,
        kind,
        name: thing.name.clone(),
        id: thing.id.clone(),
        member: thing.labels.get(names::MEMBER).and_then(|member| member.parse().ok()),
        condition: Condition::Present,
        created: thing.created,
        image: None,
        definition: thing.labels.get(names::DEFINITION).cloned(),
        attached: false,
    }
}

/// Looks closer at one container; `None` when it has gone since it was listed.
async fn inspect(docker: &Docker, cluster: &ClusterName, networks: &[String], thing: &Listed) -> Result<Option<Object>, ProvisionError> {
    let answer = docker.inspect_container(&thing.id, None::<InspectContainerOptions>).await;
    let Some(container) = or_missing(answer).map_err(failed(format!("inspect container '{}'", thing.name)))? else {
        return Ok(None);
    };
    let Some(kind) = names::ours(&thing.labels, cluster) else { return Ok(None) };
    Ok(Some(Object {
        condition: condition(&container),
        image: container.config.as_ref().and_then(|config| config.image.clone()),
        attached: is_attached(&container, &names::network(cluster), networks),
        ..present(kind, thing)
    }))
}

/// The condition of a container.
pub(super) fn condition(container: &ContainerInspectResponse) -> Condition {
    match container.state.as_ref().and_then(|state| state.status) {
        Some(ContainerStateStatusEnum::RUNNING) => Condition::Running,
        Some(ContainerStateStatusEnum::PAUSED) => Condition::Paused,
        Some(ContainerStateStatusEnum::RESTARTING) => Condition::Restarting,
        Some(ContainerStateStatusEnum::CREATED) => Condition::Created,
        Some(ContainerStateStatusEnum::DEAD | ContainerStateStatusEnum::REMOVING) => Condition::Dead,
        _ => Condition::Stopped,
    }
}

/// Whether a container is connected to one of these very networks of that name under the name that it has inside: its host name, which is also its alias.
pub(super) fn is_attached(container: &ContainerInspectResponse, network: &str, ids: &[impl AsRef<str>]) -> bool {
    let alias = container.config.as_ref().and_then(|config| config.hostname.as_deref());
    let networks = container.network_settings.as_ref().and_then(|settings| settings.networks.as_ref());
    let Some(endpoint) = networks.and_then(|networks| networks.get(network)) else { return false };
    // A container that never ran has no endpoint yet, and no network identifier either.
    let known = endpoint.network_id.as_deref().filter(|known| !known.is_empty());
    let same = !ids.is_empty() && known.is_none_or(|known| ids.iter().any(|id| id.as_ref() == known));
    let aliases = endpoint.aliases.iter().flatten().map(String::as_str);
    same && alias.is_some_and(|alias| aliases.into_iter().any(|known| known == alias))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_that_could_be_a_clusters_are_looked_at() {
        let names = candidate_names(&"orders".parse().unwrap());
        for name in ["spilo-orders", "spilo-orders-9", "spilo-orders-etcd-3", "spilo-orders-router", "spilo-orders-config"] {
            assert!(names.contains(name), "{name}");
        }
        assert!(!names.contains("spilo-order-1"));
    }

    fn connected(network_id: Option<&str>, aliases: &[&str]) -> ContainerInspectResponse {
        use bollard::models::{ContainerConfig, EndpointSettings, NetworkSettings};
        let endpoint = EndpointSettings {
            network_id: network_id.map(str::to_owned),
            aliases: Some(aliases.iter().map(|&alias| alias.to_owned()).collect()),
            ..Default::default()
        };
        ContainerInspectResponse {
            config: Some(ContainerConfig { hostname: Some("orders-1".into()), ..Default::default() }),
            network_settings: Some(NetworkSettings {
                networks: Some(HashMap::from([("spilo-orders".to_owned(), endpoint)])),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn a_container_is_attached_only_to_this_very_network_and_under_its_name() {
        assert!(is_attached(&connected(Some("n1"), &["orders-1", "0123"]), "spilo-orders", &["n1"]));
        assert!(is_attached(&connected(Some(""), &["orders-1"]), "spilo-orders", &["n1"]));
        assert!(!is_attached(&connected(Some("n0"), &["orders-1"]), "spilo-orders", &["n1"]));
        assert!(!is_attached(&connected(Some("n1"), &["0123"]), "spilo-orders", &["n1"]));
        assert!(!is_attached(&connected(Some("n1"), &["orders-1"]), "spilo-other", &["n1"]));
    }

    #[test]
    fn a_cluster_of_another_version_is_no_other_clusters_trouble() {
        let name: ClusterName = "orders".parse().unwrap();
        let mut labels = names::labels(&name, ObjectKind::Spec, None);
        labels.insert(names::GENERATION.to_owned(), "1".to_owned());
        labels.insert(names::SPEC.to_owned(), "{\"from\": \"the future\"}".to_owned());
        let spec = Listed { form: Form::Volume, name: "spilo-orders-spec-1".to_owned(), id: String::new(), labels, created: None };
        let summary = summarize(name, &[spec], &HashSet::new());
        assert_eq!(summary.stored, None);
        assert!(summary.unreadable.is_some_and(|why| why.contains("'spilo-orders-spec-1'")));
    }
}
