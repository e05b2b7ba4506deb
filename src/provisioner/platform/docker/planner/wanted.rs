//! What the cluster should be from now on: the spec that will be stored with it.

use std::collections::BTreeSet;

use crate::{
    model::{ClusterName, MemberName},
    provisioner::{
        error::ProvisionError,
        image::ImageSource,
        observe::{Inventory, StoredSpec, Surroundings},
        plan::Wish,
        platform::docker::names,
        store_secrets::{StoreSecret, StoreSecrets},
    },
    spec::{CloneSource, ClusterSpec, NodeCount, archive_differences},
};

/// The first port that is tried when the choice is ours.
pub(in crate::provisioner::platform::docker) const FIRST_PORT: u16 = 5432;

/// The spec to store. Its generation is the stored one's exactly when nothing about it changes.
pub(super) fn wanted(
    wish: &Wish,
    image: &ImageSource,
    inventory: &Inventory,
    surroundings: &Surroundings,
) -> Result<StoredSpec, ProvisionError> {
    let Some(stored) = &inventory.stored else {
        return match wish {
            Wish::Create { spec, .. } => first(spec, image, surroundings),
            _ => Err(ProvisionError::NoCluster(inventory.cluster.clone())),
        };
    };
    if stored.deleting {
        return Err(ProvisionError::Deleting(inventory.cluster.clone()));
    }
    let mut wanted = stored.clone();
    match wish {
        Wish::Create { spec, .. } => refuse_differences(stored, spec)?,
        Wish::Scale { nodes, leader, .. } => scale(&mut wanted, *nodes, leader.as_ref())?,
        Wish::Apply { .. } | Wish::Delete { .. } => {}
    }
    if let Some(secrets) = wish.secrets() {
        change_secrets(&mut wanted.spec, secrets)?;
    }
    settle_ports(&mut wanted, surroundings)?;
    if !surroundings.images.contains(&stored.image) {
        wanted.image = image.reference();
    }
    if wanted != *stored {
        wanted.generation += 1;
    }
    Ok(wanted)
}

/// From now on other files have the secrets of the archive.
fn change_secrets(spec: &mut ClusterSpec, secrets: &StoreSecrets) -> Result<(), ProvisionError> {
    if *secrets == StoreSecrets::default() {
        return Ok(());
    }
    let changed = secrets.over(&spec.stored_archive());
    let added = |secret: StoreSecret| ProvisionError::NewKindOfSecret { cluster: spec.name.clone(), key: secret.spec_key() };
    spec.archive = Some(changed.map_err(added)?);
    Ok(())
}

/// The first generation of a new cluster.
fn first(spec: &ClusterSpec, image: &ImageSource, surroundings: &Surroundings) -> Result<StoredSpec, ProvisionError> {
    let mut stored = StoredSpec {
        generation: 1,
        initialized: false,
        deleting: false,
        members: (1..=spec.nodes.get().into()).collect(),
        port_chosen: spec.port.is_none(),
        image: image.reference(),
        spec: ClusterSpec { archive: Some(spec.archive.clone().unwrap_or_default()), ..spec.clone() },
    };
    if stored.port_chosen {
        stored.spec.port = Some(free_port(surroundings)?);
    }
    settle_ports(&mut stored, surroundings)?;
    Ok(stored)
}

/// Chooses other ports when somebody took ours before anything listened on them; ports that a user named or knows are not changed.
fn settle_ports(wanted: &mut StoredSpec, surroundings: &Surroundings) -> Result<(), ProvisionError> {
    match surroundings.ports_in_use.first() {
        None => Ok(()),
        Some(_) if wanted.port_chosen && !wanted.initialized => {
            wanted.spec.port = Some(free_port(surroundings)?);
            Ok(())
        }
        Some(port) => Err(ProvisionError::PortInUse { port: *port }),
    }
}

fn free_port(surroundings: &Surroundings) -> Result<u16, ProvisionError> {
    surroundings.free_port.ok_or(ProvisionError::NoFreePorts { from: FIRST_PORT })
}

/// Adds the lowest free numbers, or takes away the highest that do not lead.
fn scale(wanted: &mut StoredSpec, nodes: NodeCount, leader: Option<&MemberName>) -> Result<(), ProvisionError> {
    let cluster = wanted.spec.name.clone();
    let count = usize::from(nodes.get());
    while wanted.members.len() < count {
        let free = (1..).find(|number| !wanted.members.contains(number)).expect("there are more numbers than nodes");
        wanted.members.insert(free);
    }
    while wanted.members.len() > count {
        // Without a leader nobody knows which node has the newest data.
        let leader = leader.ok_or_else(|| ProvisionError::NoLeader(cluster.clone()))?;
        let surplus = last_but_leader(&cluster, &wanted.members, leader);
        wanted.members.remove(&surplus);
    }
    wanted.spec.nodes = nodes;
    Ok(())
}

fn last_but_leader(cluster: &ClusterName, members: &BTreeSet<u16>, leader: &MemberName) -> u16 {
    let leads = |number: &&u16| names::member(cluster, **number) == *leader;
    *members.iter().rev().find(|number| !leads(number)).expect("more members than wanted, which is at least one")
}

/// Creating a cluster again continues it; creating it as something else is a mistake.
fn refuse_differences(stored: &StoredSpec, spec: &ClusterSpec) -> Result<(), ProvisionError> {
    let is = &stored.spec;
    let mut differences = Vec::new();
    let mut compare = |what: &str, is: String, wanted: String| {
        if is != wanted {
            differences.push(format!("{what} is {is}, not {wanted}"));
        }
    };
    compare("nodes", is.nodes.to_string(), spec.nodes.to_string());
    compare("pg", is.postgres.to_string(), spec.postgres.to_string());
    compare("durability", format!("{:?}", is.durability).to_lowercase(), format!("{:?}", spec.durability).to_lowercase());
    compare("etcd", is.etcd.to_string(), spec.etcd.to_string());
    compare("parameters", format!("{:?}", is.parameters), format!("{:?}", spec.parameters));
    let timings =
        |spec: &ClusterSpec| format!("{:?}/{:?}/{:?}", spec.timings.ttl(), spec.timings.loop_wait(), spec.timings.retry_timeout());
    compare("ttl/loop_wait/retry_timeout", timings(is), timings(spec));
    if let Some(wanted) = &spec.clone_of {
        let shown = |source: &CloneSource| format!("{} at {}", source.cluster, source.goal);
        compare("clone-from", is.clone_of.as_deref().map_or("nobody".to_owned(), shown), shown(wanted));
        let known = is.clone_of.as_deref().and_then(|source| source.system);
        // Whoever was not asked at first, because it did not answer, is not known to have been another one.
        if let Some(wanted) = wanted.system.filter(|_| known.is_some() || !stored.initialized) {
            compare("clone-system", known.map_or("the only one".to_owned(), |known| known.to_string()), wanted.to_string());
        }
    }
    if let (Some(is), Some(wanted)) = (is.port, spec.port) {
        compare("port", is.to_string(), wanted.to_string());
    }
    if let Some(wanted) = &spec.image {
        compare("image", stored.image.clone(), wanted.clone());
    }
    if let Some(wanted) = &spec.archive {
        differences.extend(archive_differences(&is.stored_archive(), wanted).iter().map(ToString::to_string));
    }
    if differences.is_empty() {
        return Ok(());
    }
    Err(ProvisionError::Differs { cluster: is.name.clone(), differences: differences.join(", ") })
}
