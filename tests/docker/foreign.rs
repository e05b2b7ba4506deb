//! What does not carry a cluster's labels is nobody's to touch.

use std::collections::HashMap;

use bollard::{
    models::{ContainerCreateBody, NetworkCreateRequest, VolumeCreateRequest},
    query_parameters::{CreateContainerOptionsBuilder, InspectNetworkOptions, RemoveVolumeOptions},
};
use spilo::provisioner::{ProvisionError, Silent, Wish, apply};

use crate::{
    harm,
    support::{Scratch, client},
};

async fn foreign_volume(name: &str) {
    let labels = HashMap::from([("owner".to_owned(), "somebody".to_owned())]);
    let request = VolumeCreateRequest { name: Some(name.to_owned()), labels: Some(labels), ..Default::default() };
    client().await.create_volume(request).await.unwrap();
}

#[tokio::test]
async fn a_volume_of_somebody_else_is_refused_before_anything_is_made() {
    let Some(scratch) = Scratch::new(1).await else { return };
    let name = scratch.container("1");
    foreign_volume(&name).await;
    let error = scratch.plan(&scratch.create_wish()).await.unwrap_err();
    assert!(matches!(&error, ProvisionError::Foreign { .. }), "{error}");
    assert!(error.to_string().contains(&format!("volume '{name}'")), "{error}");
    assert!(scratch.observe().await.is_empty());
    client().await.remove_volume(&name, None::<RemoveVolumeOptions>).await.unwrap();
}

#[tokio::test]
async fn a_container_and_a_network_of_somebody_else_are_refused_and_stay() {
    let Some(scratch) = Scratch::new(1).await else { return };
    let network = format!("spilo-{}", scratch.name);
    client().await.create_network(NetworkCreateRequest { name: network.clone(), ..Default::default() }).await.unwrap();
    let error = scratch.plan(&scratch.create_wish()).await.unwrap_err().to_string();
    assert!(error.contains(&format!("network '{network}'")), "{error}");
    client().await.remove_network(&network).await.unwrap();

    let router = scratch.container("router");
    let body = ContainerCreateBody { image: Some(scratch.image.reference()), ..Default::default() };
    let options = CreateContainerOptionsBuilder::default().name(&router).build();
    client().await.create_container(Some(options), body).await.unwrap();
    let error = scratch.plan(&scratch.create_wish()).await.unwrap_err().to_string();
    assert!(error.contains(&format!("container '{router}'")), "{error}");
    harm::remove(&router).await;
}

#[tokio::test]
async fn what_appears_between_planning_and_applying_is_not_taken_over() {
    let Some(scratch) = Scratch::new(1).await else { return };
    let plan = scratch.plan(&scratch.create_wish()).await.unwrap();
    let name = scratch.container("1");
    foreign_volume(&name).await;
    let error = apply(&scratch.platform, &plan, &Silent).await.unwrap_err().to_string();
    assert!(error.contains(&format!("volume '{name}' exists and does not belong")), "{error}");
    scratch.fulfil(&Wish::Delete { backups: true }).await;
    // Deleting the cluster has left it alone.
    assert_eq!(client().await.inspect_volume(&name).await.unwrap().labels["owner"], "somebody");
    client().await.remove_volume(&name, None::<RemoveVolumeOptions>).await.unwrap();
}

#[tokio::test]
async fn an_object_of_another_cluster_is_named_as_such() {
    let Some(scratch) = Scratch::new(1).await else { return };
    let name = scratch.container("etcd-1");
    let labels = [("io.spilo.managed", "true"), ("io.spilo.cluster", "other"), ("io.spilo.kind", "node")];
    let labels = labels.map(|(label, value)| (label.to_owned(), value.to_owned())).into();
    client()
        .await
        .create_volume(VolumeCreateRequest { name: Some(name.clone()), labels: Some(labels), ..Default::default() })
        .await
        .unwrap();
    let error = scratch.plan(&scratch.create_wish()).await.unwrap_err().to_string();
    assert!(error.contains("but to cluster 'other'"), "{error}");
    client().await.remove_volume(&name, None::<RemoveVolumeOptions>).await.unwrap();
}

#[tokio::test]
async fn deleting_leaves_networks_of_the_same_name_pattern_alone() {
    let Some(scratch) = Scratch::new(1).await else { return };
    scratch.create().await;
    let near = format!("spilo-{}-1", scratch.name);
    client().await.create_network(NetworkCreateRequest { name: near.clone(), ..Default::default() }).await.unwrap();
    scratch.fulfil(&Wish::Delete { backups: true }).await;
    client().await.inspect_network(&near, None::<InspectNetworkOptions>).await.unwrap();
    client().await.remove_network(&near).await.unwrap();
}
