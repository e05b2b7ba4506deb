//! Names of a cluster's objects and the labels that say whose they are.

use std::collections::HashMap;

use crate::{
    model::{ClusterName, MemberName},
    provisioner::observe::ObjectKind,
};

/// Marks everything made here.
pub(super) const MANAGED: &str = "io.spilo.managed";
/// Which cluster an object belongs to.
pub(super) const CLUSTER: &str = "io.spilo.cluster";
/// What an object is for.
pub(super) const KIND: &str = "io.spilo.kind";
/// Which member an object belongs to.
pub(super) const MEMBER: &str = "io.spilo.member";
/// Digest of the definition a container was made from.
pub(super) const DEFINITION: &str = "io.spilo.definition";
/// Generation of a stored spec.
pub(super) const GENERATION: &str = "io.spilo.generation";
/// Whether the cluster has once been healthy.
pub(super) const INITIALIZED: &str = "io.spilo.initialized";
/// A stored spec, as JSON.
pub(super) const SPEC: &str = "io.spilo.spec";
/// A lock's record, as JSON.
pub(super) const LOCK: &str = "io.spilo.lock";
/// The version of spilo that made an image.
pub(super) const VERSION: &str = "io.spilo.version";
/// PostgreSQL's major version in an image.
pub(super) const POSTGRES: &str = "io.spilo.postgres";
/// Digest of what an image was built from.
pub(super) const INPUTS: &str = "io.spilo.inputs";

/// The network of a cluster.
pub(super) fn network(cluster: &ClusterName) -> String {
    format!("spilo-{cluster}")
}

/// The volume with configuration and secrets.
pub(super) fn config(cluster: &ClusterName) -> String {
    format!("spilo-{cluster}-config")
}

/// The volume with the backups and the WAL, which outlives the cluster.
pub(super) fn archive(cluster: &ClusterName) -> String {
    format!("spilo-{cluster}-archive")
}

/// The short-lived container that begins the archive.
pub(super) fn archive_starter(cluster: &ClusterName) -> String {
    format!("spilo-{cluster}-archive-starter")
}

/// The short-lived container through which the configuration is read and written.
pub(super) fn config_writer(cluster: &ClusterName) -> String {
    format!("spilo-{cluster}-config-writer")
}

/// The volume that carries one generation of the spec.
pub(super) fn spec(cluster: &ClusterName, generation: u64) -> String {
    format!("spilo-{cluster}-spec-{generation}")
}

/// The volume that stands for a lock.
pub(super) fn lock(cluster: &ClusterName, distinction: &str) -> String {
    format!("spilo-{cluster}-lock-{distinction}")
}

/// What the other containers call an etcd member.
pub(super) fn etcd_alias(cluster: &ClusterName, number: u8) -> String {
    format!("{cluster}-etcd-{number}")
}

/// What the other containers call the router.
pub(super) fn router_alias(cluster: &ClusterName) -> String {
    format!("{cluster}-router")
}

/// A node's member name, which is also what the other containers call it.
pub(super) fn member(cluster: &ClusterName, number: u16) -> MemberName {
    format!("{cluster}-{number}").parse().expect("a cluster's name with a number is a member's name")
}

/// The number in a node's member name.
pub(super) fn member_number(cluster: &ClusterName, member: &MemberName) -> Option<u16> {
    member.as_str().strip_prefix(cluster.as_str())?.strip_prefix('-')?.parse().ok()
}

/// The container, and the volume of the same name, behind an alias.
pub(super) fn object(alias: &str) -> String {
    format!("spilo-{alias}")
}

/// The labels of an object of a cluster.
pub(super) fn labels(cluster: &ClusterName, kind: ObjectKind, member: Option<&MemberName>) -> HashMap<String, String> {
    let mut labels = HashMap::from([
        (MANAGED.to_owned(), "true".to_owned()),
        (CLUSTER.to_owned(), cluster.to_string()),
        (KIND.to_owned(), kind.to_string()),
    ]);
    if let Some(member) = member {
        labels.insert(MEMBER.to_owned(), member.to_string());
    }
    labels
}

/// What an object with these labels is for, if it is this cluster's.
pub(super) fn ours(labels: &HashMap<String, String>, cluster: &ClusterName) -> Option<ObjectKind> {
    let managed = labels.get(MANAGED).is_some_and(|value| value == "true");
    let same = labels.get(CLUSTER).is_some_and(|name| name == cluster.as_str());
    if managed && same { ObjectKind::parse(labels.get(KIND)?) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orders() -> ClusterName {
        "orders".parse().unwrap()
    }

    #[test]
    fn a_members_number_is_read_back_from_its_name() {
        assert_eq!(member_number(&orders(), &member(&orders(), 12)), Some(12));
        assert_eq!(member_number(&orders(), &"other-1".parse().unwrap()), None);
        assert_eq!(member_number(&orders(), &"orders-etcd-1".parse().unwrap()), None);
    }

    #[test]
    fn only_our_own_labels_of_the_same_cluster_make_an_object_ours() {
        let mut labels = labels(&orders(), ObjectKind::Node, None);
        assert_eq!(ours(&labels, &orders()), Some(ObjectKind::Node));
        assert_eq!(ours(&labels, &"order".parse().unwrap()), None);
        labels.remove(MANAGED);
        assert_eq!(ours(&labels, &orders()), None);
        assert_eq!(ours(&HashMap::new(), &orders()), None);
    }
}
