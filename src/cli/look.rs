//! Looking at a cluster: what the platform has of it, what it says of itself, judged.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::timeout;

use super::{
    CommandError, ErrorKind,
    status::{ClusterStatus, ContainerState, Endpoints, Evidence, ObservedContainer, Place, derive},
};
use crate::{
    api::report::ProbeReport,
    model::{ClusterName, MemberName},
    provisioner::{Condition, Inventory, Object, ObjectKind, Platform, ProvisionError, StoredSpec},
    spec::ClusterSpec,
};

/// Longest wait for one probe: each question that it asks inside has a shorter limit of its own.
const PROBE_LIMIT: Duration = Duration::from_secs(10);

/// A cluster as it was found.
#[derive(Debug, Clone)]
pub struct Look {
    /// What the platform has of it.
    pub inventory: Inventory,
    /// What it should be.
    pub stored: StoredSpec,
    /// How it is.
    pub status: ClusterStatus,
    /// The system identifier by which its DCS knows it: there is data that must not be begun anew.
    pub system: Option<String>,
}

impl Look {
    /// Containers in which a command can be run, the router first: it is the one that needs nothing of the node it runs on.
    pub fn places_to_ask(&self) -> impl Iterator<Item = &Object> {
        places_to_ask(&self.inventory)
    }
}

/// Looks at a cluster.
pub async fn look<P: Platform>(platform: &P, cluster: &ClusterName) -> Result<Look, CommandError> {
    let inventory = platform.observe(cluster).await?;
    let stored = stored_spec(&inventory)?.clone();
    let probe = probe(platform, &inventory).await;
    let containers = containers(&inventory, &stored)?;
    let status = derive(&Evidence {
        spec: &stored.spec,
        containers: &containers,
        endpoints: endpoints(&stored.spec),
        probe: probe.as_ref().map_err(String::as_str),
        now: Timestamp::now(),
    });
    let system = probe.ok().and_then(|report| report.initialize).filter(|identifier| !identifier.is_empty());
    Ok(Look { inventory, stored, status, system })
}

/// What the cluster should be, or why that is not known.
pub fn stored_spec(inventory: &Inventory) -> Result<&StoredSpec, CommandError> {
    let cluster = &inventory.cluster;
    match &inventory.stored {
        Some(stored) if stored.deleting => Err(ProvisionError::Deleting(cluster.clone()).into()),
        Some(stored) => Ok(stored),
        None if inventory.is_empty() => Err(no_such_cluster(cluster)),
        None => Err(CommandError::new(
            ErrorKind::PartlyApplied,
            format!("cluster '{cluster}' has no stored spec: its creation was interrupted"),
        )
        .hint(format!("to continue it: spilo create cluster {cluster}"))
        .hint(format!("to remove what there is: spilo delete cluster {cluster}"))),
    }
}

/// The error for a cluster of which nothing exists.
pub fn no_such_cluster(cluster: &ClusterName) -> CommandError {
    CommandError::new(ErrorKind::NotFound, format!("there is no cluster '{cluster}'"))
        .hint("which are there? spilo list")
        .hint(format!("to create it: spilo create cluster {cluster}"))
}

/// The published ports; every stored spec has its port fixed.
pub fn endpoints(spec: &ClusterSpec) -> Option<Endpoints> {
    let first = spec.port?;
    Some(Endpoints { read_write: first, read_only: first.checked_add(1)?, health: first.checked_add(2)? })
}

/// Asks the cluster about itself from inside. A container that is there but sees no DCS is not the last word: the next one may.
async fn probe<P: Platform>(platform: &P, inventory: &Inventory) -> Result<ProbeReport, String> {
    let mut answer = Err("neither its router nor any of its nodes runs".to_owned());
    for container in places_to_ask(inventory) {
        answer = probe_in(platform, &container.name).await;
        if matches!(&answer, Ok(report) if report.dcs_error.is_none()) {
            break;
        }
    }
    answer
}

async fn probe_in<P: Platform>(platform: &P, container: &str) -> Result<ProbeReport, String> {
    let command = ["spilo", "probe", "/etc/spilo/router.yml"].map(str::to_owned);
    let output = match timeout(PROBE_LIMIT, platform.exec(container, &command, None)).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_) => return Err(format!("the probe in '{container}' took longer than {} s", PROBE_LIMIT.as_secs())),
    };
    serde_json::from_slice(&output.stdout).map_err(|error| match last_line(&output.stderr) {
        Some(line) => format!("the probe in '{container}' failed: {line}"),
        None => format!("the probe in '{container}' ended with {} and no report: {error}", output.exit_code),
    })
}

/// The last line that a failed command wrote, which is where its error stands.
pub fn last_line(output: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(output);
    text.lines().rev().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
}

fn places_to_ask(inventory: &Inventory) -> impl Iterator<Item = &Object> {
    let reachable = |object: &&Object| object.condition == Condition::Running && object.attached;
    inventory.containers(ObjectKind::Router).chain(inventory.containers(ObjectKind::Node)).filter(reachable)
}

/// The containers there are, and those that should be there and are not.
fn containers(inventory: &Inventory, stored: &StoredSpec) -> Result<Vec<ObservedContainer>, CommandError> {
    let cluster = &inventory.cluster;
    let mut containers: Vec<ObservedContainer> = inventory.objects.iter().filter_map(observed).collect();
    let mut expect = |name: String, place: Place| {
        if inventory.container(&name).is_none() {
            containers.push(ObservedContainer { name, place, state: ContainerState::Missing, created: None });
        }
    };
    for number in 1..=stored.spec.etcd.get() {
        expect(format!("spilo-{cluster}-etcd-{number}"), Place::Etcd);
    }
    for number in &stored.members {
        expect(format!("spilo-{cluster}-{number}"), Place::Node(member(cluster, *number)?));
    }
    expect(format!("spilo-{cluster}-router"), Place::Router);
    containers.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(containers)
}

/// The member of this number.
pub fn member(cluster: &ClusterName, number: u16) -> Result<MemberName, CommandError> {
    format!("{cluster}-{number}").parse().map_err(|error| CommandError::new(ErrorKind::Failed, error))
}

fn observed(object: &Object) -> Option<ObservedContainer> {
    let place = match object.kind {
        ObjectKind::Node => Place::Node(object.member.clone()?),
        ObjectKind::Etcd => Place::Etcd,
        ObjectKind::Router => Place::Router,
        _ => return None,
    };
    let state = match object.condition {
        Condition::Running if !object.attached => ContainerState::Detached,
        Condition::Running => ContainerState::Running,
        Condition::Paused => ContainerState::Paused,
        Condition::Restarting => ContainerState::Restarting,
        Condition::Created => ContainerState::Created,
        Condition::Stopped | Condition::Dead => ContainerState::Stopped,
        // A network or volume: not a container.
        Condition::Present => return None,
    };
    Some(ObservedContainer { name: object.name.clone(), place, state, created: object.created })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::provisioner::Form;

    fn stored() -> StoredSpec {
        let spec = ClusterSpec { port: Some(5432), ..ClusterSpec::named("orders".parse().unwrap()) };
        StoredSpec {
            generation: 1,
            initialized: true,
            deleting: false,
            members: BTreeSet::from([1, 2, 4]),
            port_chosen: false,
            image: "spilo:pg17-0".to_owned(),
            spec,
        }
    }

    fn container(name: &str, kind: ObjectKind, condition: Condition, attached: bool) -> Object {
        Object {
            form: Form::Container,
            kind,
            name: format!("spilo-{name}"),
            id: name.to_owned(),
            member: (kind == ObjectKind::Node).then(|| name.parse().unwrap()),
            condition,
            created: None,
            image: None,
            definition: None,
            attached,
        }
    }

    fn inventory(objects: Vec<Object>) -> Inventory {
        Inventory { cluster: "orders".parse().unwrap(), stored: Some(stored()), objects, foreign: Vec::new() }
    }

    #[test]
    fn containers_that_should_be_there_are_missing() {
        let inventory = inventory(vec![container("orders-2", ObjectKind::Node, Condition::Running, true)]);
        let found = containers(&inventory, &stored()).unwrap();
        let names: Vec<_> = found.iter().map(|c| (c.name.as_str(), c.state)).collect();
        assert_eq!(
            names,
            [
                ("spilo-orders-1", ContainerState::Missing),
                ("spilo-orders-2", ContainerState::Running),
                ("spilo-orders-4", ContainerState::Missing),
                ("spilo-orders-etcd-1", ContainerState::Missing),
                ("spilo-orders-router", ContainerState::Missing),
            ]
        );
    }

    #[test]
    fn the_router_is_asked_first_and_nothing_that_cannot_answer() {
        let inventory = inventory(vec![
            container("orders-1", ObjectKind::Node, Condition::Paused, true),
            container("orders-2", ObjectKind::Node, Condition::Running, true),
            container("orders-4", ObjectKind::Node, Condition::Running, false),
            container("orders-router", ObjectKind::Router, Condition::Running, true),
        ]);
        let names: Vec<_> = places_to_ask(&inventory).map(|object| object.name.as_str()).collect();
        assert_eq!(names, ["spilo-orders-router", "spilo-orders-2"]);
    }

    #[test]
    fn a_container_without_its_network_is_cut_off() {
        let cut_off = observed(&container("orders-1", ObjectKind::Node, Condition::Running, false)).unwrap();
        assert_eq!(cut_off.state, ContainerState::Detached);
    }

    #[test]
    fn an_interrupted_creation_is_told_apart_from_no_cluster() {
        let nothing = Inventory { stored: None, ..inventory(Vec::new()) };
        assert_eq!(stored_spec(&nothing).unwrap_err().kind, ErrorKind::NotFound);
        let partly = Inventory { stored: None, ..inventory(vec![container("orders-1", ObjectKind::Node, Condition::Created, true)]) };
        assert_eq!(stored_spec(&partly).unwrap_err().kind, ErrorKind::PartlyApplied);
    }

    #[test]
    fn a_cluster_on_its_way_out_is_not_looked_at() {
        let going = Inventory { stored: Some(StoredSpec { deleting: true, ..stored() }), ..inventory(Vec::new()) };
        assert_eq!(stored_spec(&going).unwrap_err().to_string(), ProvisionError::Deleting("orders".parse().unwrap()).to_string());
    }

    #[test]
    fn the_ports_stand_in_a_row() {
        let ports = endpoints(&stored().spec).unwrap();
        assert_eq!((ports.read_write, ports.read_only, ports.health), (5432, 5433, 5434));
    }
}
