//! Whatever somebody does to a container, `apply` puts it right with the same data, and then has nothing more to do.

use bollard::query_parameters::StopContainerOptionsBuilder;

use crate::{
    harm::{disconnect, kill, pause, remove},
    support::{Scratch, client, essence},
};

/// Writes a mark into the node's volume, does the harm, applies, and compares.
async fn heals<F: Future<Output = ()>>(harm: impl FnOnce(String, String) -> F) {
    let Some(scratch) = Scratch::new(2).await else { return };
    scratch.create().await;
    let before = essence(&scratch.observe().await);
    let node = scratch.container("1");
    let touch = ["touch", "/var/lib/spilo/mark"].map(str::to_owned);
    assert_eq!(spilo::provisioner::Platform::exec(&scratch.platform, &node, &touch, None).await.unwrap().exit_code, 0);
    harm(node.clone(), format!("spilo-{}", scratch.name)).await;
    assert_ne!(essence(&scratch.observe().await), before, "the harm shows");
    scratch.fulfil(&scratch.apply_wish()).await;
    assert_eq!(essence(&scratch.observe().await), before);
    let look = ["ls", "/var/lib/spilo/mark"].map(str::to_owned);
    assert_eq!(spilo::provisioner::Platform::exec(&scratch.platform, &node, &look, None).await.unwrap().exit_code, 0);
    scratch.expect_settled().await;
}

#[tokio::test]
async fn a_killed_container_is_started() {
    heals(|node, _| async move { kill(&node).await }).await;
}

#[tokio::test]
async fn a_removed_container_is_made_again_over_its_volume() {
    heals(|node, _| async move { remove(&node).await }).await;
}

#[tokio::test]
async fn a_paused_container_is_unpaused() {
    heals(|node, _| async move { pause(&node).await }).await;
}

#[tokio::test]
async fn a_disconnected_container_is_connected_under_its_name() {
    heals(|node, network| async move { disconnect(&network, &node).await }).await;
}

#[tokio::test]
async fn a_container_that_was_stopped_and_disconnected_comes_back() {
    heals(|node, network| async move {
        let at_once = StopContainerOptionsBuilder::default().t(1).build();
        client().await.stop_container(&node, Some(at_once)).await.unwrap();
        disconnect(&network, &node).await;
    })
    .await;
}

#[tokio::test]
async fn a_cluster_whose_network_was_removed_while_it_was_stopped_comes_back() {
    let Some(scratch) = Scratch::new(1).await else { return };
    scratch.create().await;
    let before = essence(&scratch.observe().await);
    for part in ["1", "etcd-1", "router"] {
        kill(&scratch.container(part)).await;
    }
    client().await.remove_network(&format!("spilo-{}", scratch.name)).await.unwrap();
    scratch.fulfil(&scratch.apply_wish()).await;
    assert_eq!(essence(&scratch.observe().await), before);
}
