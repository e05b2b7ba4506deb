//! Whoever is killed at any moment and runs again ends where an undisturbed run ends.

use std::{
    collections::BTreeSet,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bollard::Docker;
use spilo::provisioner::{DockerPlatform, ImageSource, Platform as _, Progress, ProvisionError, Remark, Wish, apply, make_plan, with_lock};

use crate::support::{Scratch, essence};

/// Lets a number of steps begin and no more.
struct FirstSteps(AtomicUsize);

impl Progress for FirstSteps {
    fn may_start(&self, _name: &str) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }

    fn started(&self, _name: &str, _title: &str) {}

    fn remark(&self, _name: &str, _remark: Remark<'_>) {}

    fn finished(&self, _name: &str, _elapsed: Duration, _failure: Option<&str>) {}
}

#[tokio::test]
async fn a_creation_stopped_after_any_step_is_continued_to_the_same_cluster() {
    let Some(scratch) = Scratch::new(2).await else { return };
    let steps = scratch.plan(&scratch.create_wish()).await.unwrap().steps.len();
    let mut undisturbed: Option<BTreeSet<String>> = None;
    for allowed in (0..=steps).rev() {
        let plan = scratch.plan(&scratch.create_wish()).await.unwrap();
        let result = apply(&scratch.platform, &plan, &FirstSteps(AtomicUsize::new(allowed))).await;
        match result {
            Ok(applied) => assert_eq!(applied.steps, steps),
            Err(ProvisionError::Interrupted { done, .. }) => assert_eq!(done, allowed),
            Err(error) => panic!("{error}"),
        }
        scratch.create().await;
        scratch.expect_settled().await;
        let reached = essence(&scratch.observe().await);
        assert_eq!(&reached, undisturbed.get_or_insert_with(|| reached.clone()), "after {allowed} steps");
        scratch.fulfil(&Wish::Delete { backups: true }).await;
        assert!(scratch.observe().await.is_empty());
    }
}

/// Does the work in a thread of its own, which dies when it is about to send its `fatal`-th changing request to the engine, as if by kill -9:
/// nothing is cleaned up, locks stay, requests under way are abandoned. Returns whether it died.
fn dies_at_request<F>(fatal: usize, work: impl FnOnce(DockerPlatform) -> F + Send + 'static) -> bool
where
    F: Future<Output = Result<(), ProvisionError>>,
{
    let sent = Arc::new(AtomicUsize::new(0));
    let thread = std::thread::spawn(move || {
        let docker = Docker::connect_with_defaults().unwrap().with_request_modifier(move |request| {
            if request.method().as_str() != "GET" && sent.fetch_add(1, Ordering::Relaxed) + 1 >= fatal {
                std::panic::resume_unwind(Box::new("killed"));
            }
            request
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let docker = docker.negotiate_version().await.unwrap();
            work(DockerPlatform::with_client(docker)).await.unwrap();
        });
    });
    thread.join().is_err()
}

fn create_and_die(scratch: &Scratch, fatal: usize) -> bool {
    let (name, wish) = (scratch.name.clone(), scratch.create_wish());
    dies_at_request(fatal, move |platform| async move { fulfil(&platform, &name, &wish).await })
}

async fn fulfil(platform: &DockerPlatform, name: &spilo::model::ClusterName, wish: &Wish) -> Result<(), ProvisionError> {
    let plan = make_plan(platform, name, wish).await?;
    apply(platform, &plan, &spilo::provisioner::Silent).await.map(|_| ())
}

#[tokio::test]
async fn a_creation_killed_at_any_request_is_continued_to_the_same_cluster() {
    let Some(scratch) = Scratch::new(1).await else { return };
    scratch.create().await;
    let undisturbed = essence(&scratch.observe().await);
    scratch.fulfil(&Wish::Delete { backups: true }).await;
    let mut fatal = 1;
    while create_and_die(&scratch, fatal) {
        scratch.create().await;
        assert_eq!(essence(&scratch.observe().await), undisturbed, "killed at request {fatal}");
        scratch.expect_settled().await;
        scratch.fulfil(&Wish::Delete { backups: true }).await;
        fatal += 1;
    }
    assert!(fatal > 15, "a creation sends more than {fatal} changing requests");
}

#[tokio::test]
async fn a_creation_killed_at_any_request_can_be_deleted_without_a_trace() {
    let Some(scratch) = Scratch::new(1).await else { return };
    let mut fatal = 1;
    while create_and_die(&scratch, fatal) {
        match scratch.plan(&Wish::Delete { backups: true }).await {
            Ok(plan) => drop(apply(&scratch.platform, &plan, &spilo::provisioner::Silent).await.unwrap()),
            Err(ProvisionError::NoCluster(_)) => assert_eq!(fatal, 1, "only before the first request there is nothing"),
            Err(error) => panic!("{error}"),
        }
        assert!(scratch.observe().await.is_empty(), "killed at request {fatal}");
        fatal += 1;
    }
}

#[tokio::test]
async fn a_deletion_killed_at_any_request_is_continued_and_never_taken_for_a_creation() {
    let Some(scratch) = Scratch::new(1).await else { return };
    for fatal in 1.. {
        scratch.create().await;
        let name = scratch.name.clone();
        let died = dies_at_request(fatal, move |platform| async move { fulfil(&platform, &name, &Wish::Delete { backups: true }).await });
        if !died {
            assert!(fatal > 8, "a deletion sends more than {fatal} changing requests");
            break;
        }
        if fatal > 1 {
            let error = scratch.plan(&scratch.create_wish()).await.unwrap_err();
            assert!(matches!(error, ProvisionError::Deleting(_)), "killed at request {fatal}: {error}");
        }
        scratch.fulfil(&Wish::Delete { backups: true }).await;
        assert!(scratch.observe().await.is_empty(), "killed at request {fatal}");
    }
}

#[tokio::test]
async fn a_failing_step_is_named_and_the_rest_continues_once_the_cause_is_gone() {
    let Some(scratch) = Scratch::new(1).await else { return };
    let plan = scratch.plan(&scratch.create_wish()).await.unwrap();
    // Somebody takes the port between planning and applying.
    let listener = std::net::TcpListener::bind(("127.0.0.1", scratch.spec.port.unwrap())).unwrap();
    let error = apply(&scratch.platform, &plan, &spilo::provisioner::Silent).await.unwrap_err();
    assert!(error.to_string().contains("router") && error.to_string().contains("address already in use"), "{error}");
    assert_eq!(error.class(), spilo::provisioner::ErrorClass::PartlyApplied);
    drop(listener);
    scratch.create().await;
    scratch.expect_settled().await;
}

#[tokio::test]
async fn ports_chosen_for_the_user_are_chosen_anew_when_somebody_took_them_meanwhile() {
    let Some(mut scratch) = Scratch::new(1).await else { return };
    scratch.spec.port = None;
    let plan = scratch.plan(&scratch.create_wish()).await.unwrap();
    let chosen = plan.spec.as_ref().unwrap().port.unwrap();
    let listener = std::net::TcpListener::bind(("127.0.0.1", chosen)).unwrap();
    apply(&scratch.platform, &plan, &spilo::provisioner::Silent).await.unwrap_err();
    scratch.create().await;
    assert_ne!(scratch.observe().await.stored.unwrap().spec.port, Some(chosen));
    drop(listener);
    scratch.expect_settled().await;
}

#[tokio::test]
async fn an_image_that_does_not_build_changes_nothing() {
    let Some(scratch) = Scratch::new(1).await else { return };
    let (_directory, mut recipe) = crate::support::recipe_of_script("#!/bin/sh\nexit 7\n");
    recipe.dockerfile = "FROM debian:trixie-slim\nRUN echo no such luck && exit 7\n".to_owned();
    recipe.inputs = format!("{:064x}", std::process::id());
    let wish = Wish::Create { spec: scratch.spec.clone(), image: ImageSource::Built(recipe) };
    let plan = scratch.plan(&wish).await.unwrap();
    let error = apply(&scratch.platform, &plan, &spilo::provisioner::Silent).await.unwrap_err();
    assert!(error.to_string().contains("no such luck") && error.to_string().contains("code: 7"), "{error}");
    assert_eq!(error.class(), spilo::provisioner::ErrorClass::Failed);
    assert!(scratch.observe().await.is_empty());
}

#[tokio::test]
async fn a_lock_is_given_back_when_the_work_fails() {
    let Some(scratch) = Scratch::new(1).await else { return };
    let failing = async { Err::<(), _>(ProvisionError::NoCluster(scratch.name.clone())) };
    with_lock(&scratch.platform, &scratch.name, "fail", failing).await.unwrap_err();
    let held = scratch.platform.acquire_lock(&scratch.name, "try").await.unwrap();
    scratch.platform.release_lock(&held).await.unwrap();
}
