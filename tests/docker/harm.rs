//! What somebody may do to a container behind our back, as `docker kill`, `docker rm -f`, `docker pause` and `docker network disconnect` do.

use bollard::{
    models::NetworkDisconnectRequest,
    query_parameters::{KillContainerOptions, RemoveContainerOptionsBuilder, RemoveVolumeOptions},
};

use crate::support::client;

pub async fn kill(container: &str) {
    client().await.kill_container(container, None::<KillContainerOptions>).await.unwrap();
}

pub async fn remove(container: &str) {
    let force = RemoveContainerOptionsBuilder::default().force(true).build();
    client().await.remove_container(container, Some(force)).await.unwrap();
}

pub async fn pause(container: &str) {
    client().await.pause_container(container).await.unwrap();
}

pub async fn disconnect(network: &str, container: &str) {
    let request = NetworkDisconnectRequest { container: container.to_owned(), force: Some(true) };
    client().await.disconnect_network(network, request).await.unwrap();
}

pub async fn remove_volume(volume: &str) {
    client().await.remove_volume(volume, None::<RemoveVolumeOptions>).await.unwrap();
}
