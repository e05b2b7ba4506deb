//! Where two specs of the same cluster differ, in the words of the spec file.

use std::{collections::BTreeSet, fmt, path::PathBuf, time::Duration};

use serde::Serialize;

use super::{ArchiveSpec, ClusterSpec};

/// One value that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Dotted path as in the spec file.
    pub path: String,
    /// What the cluster has.
    pub current: String,
    /// What is asked for.
    pub wanted: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' is {}, not {}", self.path, self.current, self.wanted)
    }
}

/// What would have to change for `current` to become `wanted`. A wanted spec that leaves port or image open asks for no change of them:
/// "the next free port" is answered by whichever port the cluster has.
pub fn differences(current: &ClusterSpec, wanted: &ClusterSpec) -> Vec<Difference> {
    let mut found = vec![
        compare("nodes", current.nodes, wanted.nodes),
        compare("postgres.version", current.postgres, wanted.postgres),
        compare("ha.durability", current.durability, wanted.durability),
        compare_seconds("ha.ttl", current.timings.ttl(), wanted.timings.ttl()),
        compare_seconds("ha.loop_wait", current.timings.loop_wait(), wanted.timings.loop_wait()),
        compare_seconds("ha.retry_timeout", current.timings.retry_timeout(), wanted.timings.retry_timeout()),
        compare("docker.etcd", current.etcd, wanted.etcd),
    ];
    for name in current.parameters.keys().chain(wanted.parameters.keys()).collect::<BTreeSet<_>>() {
        let value = |spec: &ClusterSpec| spec.parameters.get(name).map_or("unset".to_owned(), |value| format!("'{value}'"));
        found.push(compare(&format!("postgres.parameters.{name}"), value(current), value(wanted)));
    }
    if let Some(port) = wanted.port {
        let current = current.port.map_or("any free one".to_owned(), |port| port.to_string());
        found.push(compare("docker.port", current, port.to_string()));
    }
    if let Some(image) = &wanted.image {
        found.push(compare("docker.image", current.image.as_deref().unwrap_or("built here"), image));
    }
    let mut found: Vec<Difference> = found.into_iter().flatten().collect();
    if let Some(wanted) = &wanted.archive {
        found.extend(archive_differences(&current.stored_archive(), wanted));
    }
    found
}

/// The same of an archive. What is left open beside the store agrees with what there is, as for ports.
pub fn archive_differences(current: &ArchiveSpec, wanted: &ArchiveSpec) -> Vec<Difference> {
    let shown = |text: Option<String>| text.unwrap_or_else(|| "unset".to_owned());
    let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
    let extra = |key: &str, current: Option<String>, wanted: Option<String>| {
        let wanted = wanted?;
        compare(&format!("archive.{key}"), shown(current), wanted)
    };
    let found = [
        compare("archive.store", &current.store, &wanted.store),
        extra("endpoint", current.endpoint.clone(), wanted.endpoint.clone()),
        extra("region", current.region.clone(), wanted.region.clone()),
        extra("credentials_file", path(&current.credentials_file), path(&wanted.credentials_file)),
        extra("key_file", path(&current.key_file), path(&wanted.key_file)),
    ];
    found.into_iter().flatten().collect()
}

fn compare<T: fmt::Display>(path: &str, current: T, wanted: T) -> Option<Difference> {
    let (current, wanted) = (current.to_string(), wanted.to_string());
    (current != wanted).then(|| Difference { path: path.to_owned(), current, wanted })
}

fn compare_seconds(path: &str, current: Duration, wanted: Duration) -> Option<Difference> {
    compare(path, format!("{} s", current.as_secs()), format!("{} s", wanted.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> ClusterSpec {
        ClusterSpec::named("orders".parse().unwrap())
    }

    #[test]
    fn a_spec_does_not_differ_from_itself() {
        assert_eq!(differences(&spec(), &spec()), []);
    }

    #[test]
    fn each_value_that_differs_is_named_as_in_the_file() {
        let mut wanted = spec();
        wanted.nodes = 5.try_into().unwrap();
        wanted.parameters.insert("work_mem".to_owned(), "8MB".to_owned());
        let words: Vec<String> = differences(&spec(), &wanted).iter().map(Difference::to_string).collect();
        assert_eq!(words, ["'nodes' is 3, not 5", "'postgres.parameters.work_mem' is unset, not '8MB'"]);
    }

    #[test]
    fn a_cluster_from_before_there_were_archives_has_none_and_agrees_with_whoever_says_nothing_of_it() {
        assert_eq!(differences(&spec(), &spec()), []);
        let with = ClusterSpec { archive: Some(ArchiveSpec::volume()), ..spec() };
        assert_eq!(differences(&with, &spec()), []);
        assert_eq!(differences(&spec(), &with)[0].to_string(), "'archive.store' is none, not volume");
        assert_eq!(differences(&spec(), &ClusterSpec { archive: Some(ArchiveSpec::none()), ..spec() }), []);
    }

    #[test]
    fn a_port_left_open_agrees_with_any_port() {
        let current = ClusterSpec { port: Some(5432), ..spec() };
        assert_eq!(differences(&current, &spec()), []);
        let other = ClusterSpec { port: Some(6000), ..spec() };
        assert_eq!(differences(&current, &other).len(), 1);
    }
}
