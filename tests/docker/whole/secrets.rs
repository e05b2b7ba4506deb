//! Passwords are in files for their owner, and nowhere that anybody else looks.

use std::io::ErrorKind;

use bollard::query_parameters::{InspectContainerOptions, InspectNetworkOptions};
use serde::Serialize;

use super::cluster::Cluster;
use crate::{shared::block, support::client};

/// Whose passwords there are.
const ROLES: [&str; 4] = ["replicator", "rewinder", "monitor", "app"];

/// A place where a secret must not be, and what is written there.
struct Place {
    name: String,
    text: String,
    /// Something that is written there, so that looking at nothing is noticed.
    known: String,
}

/// Fails if a password of this cluster is anywhere that others can read.
pub fn stay_where_they_belong(cluster: &Cluster) {
    let secrets: Vec<String> = ROLES.iter().map(|role| secret(cluster, role)).collect();
    let shown = cluster.spilo(&["dsn", &cluster.name, "--show-password"]).exits(0).stdout;
    assert!(shown.contains(&secrets[3]), "the password that is shown is that of 'app'");
    for place in [engine_objects(cluster), image(cluster), containers(cluster), commands(cluster)].into_iter().flatten() {
        assert!(place.text.contains(&place.known), "'{}' is not in {}: {}", place.known, place.name, place.text);
        for (role, secret) in ROLES.iter().zip(&secrets) {
            assert!(!place.text.contains(secret.as_str()), "the password of '{role}' is in {}", place.name);
        }
    }
}

fn secret(cluster: &Cluster, role: &str) -> String {
    let output = cluster.exec("1", &["cat", &format!("/etc/spilo/secrets/{role}")]);
    let secret = String::from_utf8(output.stdout).unwrap();
    assert_eq!(secret.len(), 32, "the password of '{role}' has 128 bits: {}", String::from_utf8_lossy(&output.stderr));
    secret
}

/// What the engine says of containers, volumes and networks: labels, commands, environment.
fn engine_objects(cluster: &Cluster) -> Vec<Place> {
    let remains = cluster.remains();
    let mut places = Vec::new();
    for (form, name) in remains.iter().flat_map(|(form, names)| names.iter().map(move |name| (*form, name))) {
        let text = block(async {
            let client = client().await;
            match form {
                "container" => json(client.inspect_container(name, None::<InspectContainerOptions>).await.unwrap()),
                "volume" => json(client.inspect_volume(name).await.unwrap()),
                _ => json(client.inspect_network(name, None::<InspectNetworkOptions>).await.unwrap()),
            }
        });
        places.push(Place { name: format!("what the engine says of {form} '{name}'"), text, known: "io.spilo.cluster".to_owned() });
    }
    assert!(places.len() > 10, "five containers, as many volumes, a network");
    places
}

fn image(cluster: &Cluster) -> Vec<Place> {
    let (config, history) = block(async {
        let client = client().await;
        let node = client.inspect_container(&cluster.container("1"), None::<InspectContainerOptions>).await.unwrap();
        let image = node.image.unwrap();
        (json(client.inspect_image(&image).await.unwrap()), json(client.image_history(&image).await.unwrap()))
    });
    let place = |name: &str, text, known: &str| Place { name: name.to_owned(), text, known: known.to_owned() };
    vec![place("the image", config, "io.spilo.inputs"), place("the image's history", history, "apt-get")]
}

/// What containers log, and what every process inside was started with.
fn containers(cluster: &Cluster) -> Vec<Place> {
    let mut places = Vec::new();
    for (part, program) in [("1", "postgres"), ("2", "postgres"), ("3", "postgres"), ("etcd-1", "etcd"), ("router", "haproxy")] {
        let container = cluster.container(part);
        places.push(Place { name: format!("the log of '{container}'"), text: cluster.log(&container, None), known: cluster.name.clone() });
        for (file, known) in [("cmdline", program), ("environ", "PATH=")] {
            let name = format!("/proc/*/{file} of '{container}'");
            places.push(Place { name, text: of_processes(cluster, part, file), known: known.to_owned() });
        }
    }
    places
}

/// What a file in `/proc` says of every process of a part. Root looks from outside, because the agent lets nobody look into it who has only
/// the rights that there are in a container; everybody else sees all but the agent, which has what its guard has.
fn of_processes(cluster: &Cluster, part: &str, file: &str) -> String {
    if rustix::process::geteuid().is_root() {
        let texts = cluster.processes(part).into_iter().map(|pid| match std::fs::read(format!("/proc/{pid}/{file}")) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).replace('\0', "\n"),
            Err(error) => {
                // One that has ended meanwhile has nothing to say.
                assert!(error.kind() != ErrorKind::PermissionDenied, "/proc/{pid}/{file} of '{part}': {error}");
                String::new()
            }
        });
        return texts.collect();
    }
    let output = cluster.exec(part, &["sh", "-c", &format!("cat /proc/[0-9]*/{file} | tr '\\0' '\\n'")]);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(errors.matches("denied").count() <= 1, "/proc/*/{file} cannot be read: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// What commands show, also when they are asked to say all they can.
fn commands(cluster: &Cluster) -> Vec<Place> {
    let name = cluster.name.as_str();
    let commands: [&[&str]; 5] = [
        &["plan", name, "-o", "json"],
        &["plan", name, "--nodes", "5", "-o", "json"],
        &["status", name, "-o", "json"],
        &["apply", name, "-vvv"],
        &["dsn", name, "-vvv"],
    ];
    let said = commands.iter().map(|arguments| {
        let run = cluster.spilo(arguments).exits(0);
        Place { name: format!("what '{}' says", arguments.join(" ")), text: run.stdout + &run.stderr, known: name.to_owned() }
    });
    said.collect()
}

fn json(data: impl Serialize) -> String {
    serde_json::to_string(&data).unwrap()
}
