//! What a created cluster consists of, and that it goes without a trace.

use std::time::Instant;

use bollard::query_parameters::InspectContainerOptions;
use spilo::{
    provisioner::{Condition, Form, ObjectKind, Platform as _, ProvisionError, StoreSecrets, Wish},
    spec::{ArchiveSpec, ClusterSpec, EtcdCount, NodeCount},
};

use crate::support::{Scratch, client, essence};

#[tokio::test]
async fn a_created_cluster_is_complete_and_creating_it_again_plans_nothing() {
    let Some(scratch) = Scratch::new(3).await else { return };
    let begin = Instant::now();
    scratch.create().await;
    println!("created in {:?}", begin.elapsed());
    let inventory = scratch.observe().await;
    assert_eq!(inventory.containers(ObjectKind::Node).count(), 3);
    assert_eq!(inventory.containers(ObjectKind::Etcd).count(), 1);
    assert_eq!(inventory.containers(ObjectKind::Router).count(), 1);
    assert_eq!(inventory.containers(ObjectKind::ConfigWriter).count(), 0);
    for container in inventory.objects.iter().filter(|object| object.form == Form::Container) {
        assert_eq!((container.condition, container.attached), (Condition::Running, true), "{container:?}");
    }
    scratch.expect_settled().await;
    let begin = Instant::now();
    scratch.fulfil(&Wish::Delete { backups: true }).await;
    println!("deleted in {:?}", begin.elapsed());
    assert!(scratch.observe().await.is_empty());
    assert!(matches!(scratch.plan(&Wish::Delete { backups: true }).await, Err(ProvisionError::NoCluster(_))));
}

#[tokio::test]
async fn three_etcd_members_form_one_cluster() {
    let Some(mut scratch) = Scratch::new(1).await else { return };
    scratch.spec.etcd = EtcdCount::try_from(3).unwrap();
    scratch.create().await;
    for member in ["etcd-1", "etcd-2", "etcd-3"] {
        wait_for_log(&scratch, member, "ready to serve client requests").await;
    }
}

async fn wait_for_log(scratch: &Scratch, part: &str, wanted: &str) {
    let mut log = Vec::new();
    for _ in 0..100 {
        log.clear();
        let mut collect = |line: spilo::provisioner::LogLine| log.push(line.text);
        scratch.platform.logs(&scratch.container(part), Default::default(), &mut collect).await.unwrap();
        if log.iter().any(|line| line.contains(wanted)) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("'{wanted}' is not in the log of {part}: {log:#?}");
}

#[tokio::test]
async fn containers_can_do_no_more_than_they_must() {
    let Some(scratch) = Scratch::new(1).await else { return };
    scratch.create().await;
    for part in ["1", "router", "etcd-1"] {
        let script = "id -u; grep -E 'CapEff|NoNewPrivs' /proc/self/status | tr -d '\\t'; touch /x /etc/spilo/x /usr/bin/x; \
                      touch /tmp/x /run/spilo/x && stat -c '%a %u' /tmp /run/spilo; hostname";
        let answer = run(&scratch, part, script).await;
        let lines: Vec<&str> = answer.lines().collect();
        let alias = format!("{}-{part}", scratch.name);
        assert_eq!(lines, ["10432", "CapEff:0000000000000000", "NoNewPrivs:1", "1777 10432", "700 10432", &alias], "{part}");
    }
    assert_eq!(run(&scratch, "1", "touch /var/lib/spilo/x && stat -c '%a %U' /var/lib/spilo").await, "700 postgres\n");
}

#[tokio::test]
async fn passwords_are_files_for_their_owner_and_nowhere_else() {
    let Some(scratch) = Scratch::new(1).await else { return };
    scratch.create().await;
    let secret = scratch.platform.read_secret(&scratch.name, "app").await.unwrap();
    assert_eq!(secret.expose().len(), 32);
    let listing = run(&scratch, "1", "cd /etc/spilo; stat -c '%a %u %n' secrets secrets/* agent.yml router.yml; cat secrets/app").await;
    let expected = "700 10432 secrets\n600 10432 secrets/app\n600 10432 secrets/monitor\n600 10432 secrets/pgpass\n\
                    600 10432 secrets/replicator\n600 10432 secrets/rewinder\n640 10432 agent.yml\n640 10432 router.yml\n";
    assert_eq!(listing, format!("{expected}{}", secret.expose()));
    for container in scratch.observe().await.objects.iter().filter(|object| object.form == Form::Container) {
        let inspected = client().await.inspect_container(&container.id, None::<InspectContainerOptions>).await.unwrap();
        assert!(!serde_json::to_string(&inspected).unwrap().contains(secret.expose()), "{}", container.name);
    }
    let missing = scratch.platform.read_secret(&scratch.name, "nobody").await.unwrap_err();
    assert!(missing.to_string().contains("secrets/nobody"), "{missing}");
}

#[tokio::test]
async fn passwords_can_be_read_when_every_container_is_gone_and_survive_their_return() {
    let Some(scratch) = Scratch::new(1).await else { return };
    scratch.create().await;
    let before = scratch.platform.read_secret(&scratch.name, "app").await.unwrap();
    for container in scratch.observe().await.objects.iter().filter(|object| object.form == Form::Container) {
        crate::harm::remove(&container.id).await;
    }
    assert_eq!(scratch.platform.read_secret(&scratch.name, "app").await.unwrap(), before);
    scratch.create().await;
    assert_eq!(scratch.platform.read_secret(&scratch.name, "app").await.unwrap(), before);
}

async fn run(scratch: &Scratch, part: &str, script: &str) -> String {
    let command = ["sh", "-c", script].map(str::to_owned);
    let output = scratch.platform.exec(&scratch.container(part), &command, None).await.unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn ports_are_chosen_once_and_two_clusters_get_different_ones() {
    let (Some(mut one), Some(mut other)) = (Scratch::new(1).await, Scratch::new(1).await) else { return };
    (one.spec.port, other.spec.port) = (None, None);
    one.create().await;
    let first = one.observe().await;
    other.create().await;
    let port = |inventory: &spilo::provisioner::Inventory| inventory.stored.as_ref().unwrap().spec.port.unwrap();
    let (p, q) = (port(&first), port(&other.observe().await));
    assert!(p.abs_diff(q) >= 3, "{p} and {q} overlap");
    one.expect_settled().await;
    // What is done to the other leaves the first as it is.
    other.fulfil(&Wish::Delete { backups: true }).await;
    assert_eq!(essence(&one.observe().await), essence(&first));
}

#[tokio::test]
async fn a_port_in_use_is_refused_before_anything_is_made() {
    let Some(scratch) = Scratch::new(1).await else { return };
    let listener = std::net::TcpListener::bind(("127.0.0.1", scratch.spec.port.unwrap() + 1)).unwrap();
    let error = scratch.plan(&scratch.create_wish()).await.unwrap_err();
    assert!(error.to_string().contains(&listener.local_addr().unwrap().port().to_string()), "{error}");
    assert!(scratch.observe().await.is_empty());
}

#[tokio::test]
async fn scaling_adds_nodes_that_only_join_and_retires_the_highest() {
    let Some(scratch) = Scratch::new(1).await else { return };
    scratch.create().await;
    scratch.platform.record_initialized(&scratch.name).await.unwrap();
    scratch.platform.record_initialized(&scratch.name).await.unwrap();
    assert_eq!(scratch.observe().await.stored.unwrap().generation, 2);
    let scale = |nodes: u8| Wish::Scale {
        nodes: NodeCount::try_from(nodes).unwrap(),
        leader: Some(format!("{}-1", scratch.name).parse().unwrap()),
        image: scratch.image.clone(),
        secrets: StoreSecrets::default(),
    };
    scratch.fulfil(&scale(3)).await;
    let arguments = |part: &str| {
        let name = scratch.container(part);
        async move { client().await.inspect_container(&name, None::<InspectContainerOptions>).await.unwrap().args.unwrap() }
    };
    assert!(!arguments("1").await.contains(&"--join-only".to_owned()));
    assert!(arguments("3").await.contains(&"--join-only".to_owned()));
    let plan = scratch.plan(&scale(2)).await.unwrap();
    assert_eq!(plan.destroying_steps().count(), 1);
    scratch.fulfil(&scale(2)).await;
    let left = scratch.observe().await;
    assert_eq!(left.containers(ObjectKind::Node).count(), 2);
    assert!(!left.has_volume(&scratch.container("3")));
    assert!(scratch.plan(&scale(2)).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_cluster_is_listed_with_its_spec_as_long_as_anything_is_left() {
    let Some(scratch) = Scratch::new(1).await else { return };
    scratch.create().await;
    let listed = scratch.platform.clusters().await.unwrap();
    let summary = listed.iter().find(|summary| summary.name == scratch.name).expect("it is listed");
    assert_eq!((summary.running, summary.containers, summary.only_backups), (3, 3, false));
    let expected = ClusterSpec { archive: Some(ArchiveSpec::volume()), ..scratch.spec.clone() };
    assert_eq!(summary.stored.as_ref().unwrap().spec, expected);
    assert!(summary.created.is_some());
}
