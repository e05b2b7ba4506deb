//! What each container of a cluster is made of. Pure: the same stored spec gives the same definitions.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, EndpointSettings, HostConfig, HostConfigLogConfig, Mount, MountType, MountVolumeOptions, NetworkingConfig,
    PortBinding, RestartPolicy, RestartPolicyNameEnum,
};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::{archive, names};
use crate::{
    model::{ClusterName, MemberName},
    provisioner::observe::{ObjectKind, StoredSpec},
    templates::{
        agent_config::CONFIG_DIRECTORY,
        dockerfile::POSTGRES_UID,
        router_config::{HEALTH_PORT, READ_ONLY_PORT, READ_WRITE_PORT},
    },
};

/// Where a container keeps what must outlive it.
const DATA_DIRECTORY: &str = "/var/lib/spilo";

/// Where a node keeps temporary files: beside the data, because the manifest of a large database fits into no memory. The agent makes it.
const TEMPORARY: &str = "/var/lib/spilo/tmp";

/// `/dev/shm`: PostgreSQL passes tuples between the workers of a parallel query through it, and Docker's 64 MB are soon too little.
const SHM_BYTES: i64 = 256 * 1024 * 1024;

/// How long a node may take to hand over and stop.
const NODE_STOP_SECONDS: i64 = 30;

/// How long anything else may take to stop.
const STOP_SECONDS: i64 = 10;

/// The argument that forbids a node to initialise a new cluster. Not part of the digest: a node that has been there from the beginning lacks
/// it and is as good as one that has it.
const JOIN_ONLY: &str = "--join-only";

/// One container, in our own words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Definition {
    /// Its name, and that of its volume.
    pub name: String,
    /// What it is for.
    pub kind: ObjectKind,
    /// The member it runs.
    pub member: Option<MemberName>,
    /// What the other containers call it.
    pub alias: String,
    /// What it runs.
    pub image: String,
    /// The command and its arguments.
    pub command: Vec<String>,
    /// Whether it keeps data in a volume of its name.
    pub keeps_data: bool,
    /// Archives that it mounts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub archives: Vec<ArchiveMount>,
    /// Ports on 127.0.0.1 and what they lead to inside.
    pub ports: Vec<(u16, u16)>,
    /// Seconds it may take to stop.
    pub stop_seconds: i64,
    /// Most processes and threads it may have.
    pub most_processes: i64,
}

/// An archive in a volume, mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ArchiveMount {
    /// The volume.
    pub volume: String,
    /// The cluster whose archive it is.
    pub of: ClusterName,
    /// Where it is mounted.
    pub target: String,
    /// Whether nothing is written there.
    pub read_only: bool,
}

impl Definition {
    /// Digest of everything that would make a running container differ from this, its image, `--join-only` and what only the beginning needs
    /// excepted.
    pub(super) fn digest(&self) -> String {
        let judged = Definition {
            image: String::new(),
            command: self.command.iter().filter(|argument| *argument != JOIN_ONLY).cloned().collect(),
            archives: self.archives.iter().filter(|mount| !mount.read_only).cloned().collect(),
            ..self.clone()
        };
        let text = serde_json::to_string(&judged).expect("a definition is plain data");
        hex::encode(&Sha256::digest(text)[..8])
    }

    /// The request that creates the container.
    pub(super) fn to_request(&self, cluster: &ClusterName) -> ContainerCreateBody {
        let mut labels = names::labels(cluster, self.kind, self.member.as_ref());
        labels.insert(names::DEFINITION.to_owned(), self.digest());
        ContainerCreateBody {
            hostname: Some(self.alias.clone()),
            user: Some(format!("{POSTGRES_UID}:{POSTGRES_UID}")),
            image: Some(self.image.clone()),
            cmd: Some(self.command.clone()),
            env: (self.kind == ObjectKind::Node).then(|| vec![format!("TMPDIR={TEMPORARY}")]),
            labels: Some(labels),
            stop_timeout: Some(self.stop_seconds),
            exposed_ports: Some(self.ports.iter().map(|(_, inside)| format!("{inside}/tcp")).collect()),
            host_config: Some(self.host_config(cluster)),
            networking_config: Some(NetworkingConfig {
                endpoints_config: Some(HashMap::from([(names::network(cluster), self.endpoint())])),
            }),
            ..Default::default()
        }
    }

    /// How the container is connected to its cluster's network.
    pub(super) fn endpoint(&self) -> EndpointSettings {
        EndpointSettings { aliases: Some(vec![self.alias.clone()]), ..Default::default() }
    }

    fn host_config(&self, cluster: &ClusterName) -> HostConfig {
        HostConfig {
            network_mode: Some(names::network(cluster)),
            mounts: Some(self.mounts(cluster)),
            port_bindings: Some(self.ports.iter().map(published).collect()),
            restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::UNLESS_STOPPED), maximum_retry_count: None }),
            readonly_rootfs: Some(true),
            tmpfs: Some(HashMap::from([tmpfs("/tmp", "1777", "256m"), tmpfs("/run/spilo", "0700", "64m")])),
            shm_size: Some(SHM_BYTES),
            cap_drop: Some(vec!["ALL".to_owned()]),
            security_opt: Some(vec!["no-new-privileges".to_owned()]),
            pids_limit: Some(self.most_processes),
            log_config: Some(HostConfigLogConfig {
                typ: Some("json-file".to_owned()),
                config: Some(HashMap::from([("max-size".to_owned(), "10m".to_owned()), ("max-file".to_owned(), "3".to_owned())])),
            }),
            ..Default::default()
        }
    }

    fn mounts(&self, cluster: &ClusterName) -> Vec<Mount> {
        let mut mounts = vec![config_mount(cluster, true)];
        if self.keeps_data {
            let labels = names::labels(cluster, self.kind, self.member.as_ref());
            mounts.push(volume_mount(self.name.clone(), labels, DATA_DIRECTORY, false));
        }
        mounts.extend(self.archives.iter().cloned().map(archive_mount));
        mounts
    }
}

/// Every container of the cluster, in the order of starting.
pub(super) fn definitions(stored: &StoredSpec) -> Vec<Definition> {
    let etcd = (1..=stored.spec.etcd.get()).map(|number| etcd(stored, number));
    let nodes = stored.members.iter().map(|number| node(stored, *number));
    etcd.chain(nodes).chain([router(stored)]).collect()
}

/// `host:port` of every etcd member.
pub(super) fn etcd_hosts(stored: &StoredSpec) -> Vec<String> {
    (1..=stored.spec.etcd.get()).map(|number| format!("{}:2379", names::etcd_alias(&stored.spec.name, number))).collect()
}

fn etcd(stored: &StoredSpec, number: u8) -> Definition {
    let cluster = &stored.spec.name;
    let alias = names::etcd_alias(cluster, number);
    let peers: Vec<String> = (1..=stored.spec.etcd.get())
        .map(|peer| names::etcd_alias(cluster, peer))
        .map(|peer| format!("{peer}=http://{peer}:2380"))
        .collect();
    // A single member elects itself, and nobody can be slow to answer it: no need to wait as long as a group has to.
    let election = if stored.spec.etcd.get() == 1 { ("50", "300") } else { ("100", "1000") };
    let command = [
        "etcd".to_owned(),
        format!("--heartbeat-interval={}", election.0),
        format!("--election-timeout={}", election.1),
        format!("--name={alias}"),
        format!("--data-dir={DATA_DIRECTORY}/etcd"),
        "--listen-client-urls=http://0.0.0.0:2379".to_owned(),
        format!("--advertise-client-urls=http://{alias}:2379"),
        "--listen-peer-urls=http://0.0.0.0:2380".to_owned(),
        format!("--initial-advertise-peer-urls=http://{alias}:2380"),
        format!("--initial-cluster={}", peers.join(",")),
        format!("--initial-cluster-token=spilo-{cluster}"),
        "--initial-cluster-state=new".to_owned(),
        // Leases and heartbeats write all the time; without compaction the history would fill the quota.
        "--auto-compaction-mode=periodic".to_owned(),
        "--auto-compaction-retention=1h".to_owned(),
    ];
    Definition {
        name: names::object(&alias),
        kind: ObjectKind::Etcd,
        member: None,
        alias,
        image: stored.image.clone(),
        command: command.into(),
        keeps_data: true,
        archives: Vec::new(),
        ports: Vec::new(),
        stop_seconds: STOP_SECONDS,
        most_processes: 512,
    }
}

fn node(stored: &StoredSpec, number: u16) -> Definition {
    let member = names::member(&stored.spec.name, number);
    let alias = member.to_string();
    let config = format!("{CONFIG_DIRECTORY}/agent.yml");
    let mut command: Vec<String> =
        ["spilo", "agent", &config, "--name", &alias, "--address", &alias].iter().map(|&argument| argument.to_owned()).collect();
    if stored.initialized {
        command.push(JOIN_ONLY.to_owned());
    }
    Definition {
        name: names::object(&alias),
        kind: ObjectKind::Node,
        member: Some(member),
        alias,
        image: stored.image.clone(),
        command,
        keeps_data: true,
        archives: archive::mounts(stored),
        ports: Vec::new(),
        stop_seconds: NODE_STOP_SECONDS,
        most_processes: 4096,
    }
}

fn router(stored: &StoredSpec) -> Definition {
    let alias = names::router_alias(&stored.spec.name);
    Definition {
        name: names::object(&alias),
        kind: ObjectKind::Router,
        member: None,
        alias,
        image: stored.image.clone(),
        command: vec!["spilo".to_owned(), "router".to_owned(), format!("{CONFIG_DIRECTORY}/router.yml")],
        keeps_data: false,
        archives: Vec::new(),
        ports: stored.spec.port.map(published_ports).unwrap_or_default(),
        stop_seconds: STOP_SECONDS,
        most_processes: 1024,
    }
}

/// The three ports of a cluster: read-write, read-only, health.
fn published_ports(first: u16) -> Vec<(u16, u16)> {
    (first..).zip([READ_WRITE_PORT, READ_ONLY_PORT, HEALTH_PORT]).collect()
}

/// Only this machine can reach a cluster: whoever wants more puts something in front of it knowingly.
fn published(&(outside, inside): &(u16, u16)) -> (String, Option<Vec<PortBinding>>) {
    let binding = PortBinding { host_ip: Some("127.0.0.1".to_owned()), host_port: Some(outside.to_string()) };
    (format!("{inside}/tcp"), Some(vec![binding]))
}

fn tmpfs(path: &str, mode: &str, size: &str) -> (String, String) {
    (path.to_owned(), format!("rw,noexec,nosuid,nodev,size={size},mode={mode},uid={POSTGRES_UID},gid={POSTGRES_UID}"))
}

/// The configuration, mounted where everybody looks for it.
pub(super) fn config_mount(cluster: &ClusterName, read_only: bool) -> Mount {
    let labels = names::labels(cluster, ObjectKind::Config, None);
    volume_mount(names::config(cluster), labels, CONFIG_DIRECTORY, read_only)
}

/// An archive, mounted.
pub(super) fn archive_mount(mount: ArchiveMount) -> Mount {
    let labels = names::labels(&mount.of, ObjectKind::Archive, None);
    volume_mount(mount.volume, labels, &mount.target, mount.read_only)
}

/// A volume mounted at a path. It exists already; if it has been removed a moment ago, the engine makes another one by itself, and without these
/// labels nobody would know whose it is.
fn volume_mount(volume: String, labels: HashMap<String, String>, path: &str, read_only: bool) -> Mount {
    Mount {
        typ: Some(MountType::VOLUME),
        source: Some(volume),
        target: Some(path.to_owned()),
        read_only: Some(read_only),
        volume_options: Some(MountVolumeOptions { labels: Some(labels), ..Default::default() }),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{ArchiveSpec, ClusterSpec, EtcdCount};

    fn stored(etcd: u8, initialized: bool) -> StoredSpec {
        let mut spec = ClusterSpec::named("orders".parse().unwrap());
        spec.port = Some(5432);
        spec.archive = Some(ArchiveSpec::volume());
        spec.etcd = EtcdCount::try_from(etcd).unwrap();
        StoredSpec {
            generation: 1,
            initialized,
            deleting: false,
            members: [1, 3].into(),
            port_chosen: true,
            image: "spilo:pg17-0".into(),
            spec,
        }
    }

    fn named<'a>(definitions: &'a [Definition], name: &str) -> &'a Definition {
        definitions.iter().find(|definition| definition.name == name).unwrap()
    }

    #[test]
    fn a_cluster_is_etcd_its_members_and_one_router() {
        let names: Vec<String> = definitions(&stored(3, false)).into_iter().map(|definition| definition.name).collect();
        let expected = [
            "spilo-orders-etcd-1",
            "spilo-orders-etcd-2",
            "spilo-orders-etcd-3",
            "spilo-orders-1",
            "spilo-orders-3",
            "spilo-orders-router",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn only_the_router_publishes_ports_and_only_on_this_machine() {
        for definition in definitions(&stored(1, false)) {
            let bindings = definition.to_request(&"orders".parse().unwrap()).host_config.unwrap().port_bindings.unwrap();
            assert_eq!(bindings.is_empty(), definition.kind != ObjectKind::Router);
            for binding in bindings.values().flatten().flatten() {
                assert_eq!(binding.host_ip.as_deref(), Some("127.0.0.1"));
            }
        }
        let router = named(&definitions(&stored(1, false)), "spilo-orders-router").clone();
        assert_eq!(router.ports, [(5432, 5000), (5433, 5001), (5434, 7000)]);
    }

    #[test]
    fn nobody_runs_as_root_or_keeps_a_capability() {
        for definition in definitions(&stored(3, false)) {
            let request = definition.to_request(&"orders".parse().unwrap());
            assert_eq!(request.user.as_deref(), Some("10432:10432"));
            let host = request.host_config.unwrap();
            assert_eq!(host.readonly_rootfs, Some(true));
            assert_eq!(host.cap_drop, Some(vec!["ALL".to_owned()]));
            assert_eq!(host.security_opt, Some(vec!["no-new-privileges".to_owned()]));
        }
    }

    #[test]
    fn the_configuration_is_read_only_and_data_is_in_the_containers_own_volume() {
        for definition in definitions(&stored(1, false)) {
            let mounts = definition.to_request(&"orders".parse().unwrap()).host_config.unwrap().mounts.unwrap();
            assert_eq!((mounts[0].source.as_deref(), mounts[0].read_only), (Some("spilo-orders-config"), Some(true)));
            for mount in &mounts {
                let labels = mount.volume_options.as_ref().unwrap().labels.as_ref().unwrap();
                assert!(names::ours(labels, &"orders".parse().unwrap()).is_some(), "{mount:?}");
            }
            let data: Vec<_> = mounts[1..].iter().map(|mount| mount.source.clone().unwrap()).collect();
            let archive = (definition.kind == ObjectKind::Node).then(|| "spilo-orders-archive".to_owned());
            let own = definition.keeps_data.then_some(definition.name);
            assert_eq!(data, own.into_iter().chain(archive).collect::<Vec<_>>());
        }
    }

    #[test]
    fn temporary_files_of_a_node_are_on_its_volume() {
        for definition in definitions(&stored(1, false)) {
            let expected = (definition.kind == ObjectKind::Node).then(|| vec!["TMPDIR=/var/lib/spilo/tmp".to_owned()]);
            assert_eq!(definition.to_request(&"orders".parse().unwrap()).env, expected, "{}", definition.name);
        }
        assert!(TEMPORARY.starts_with(DATA_DIRECTORY));
    }

    #[test]
    fn nodes_made_after_the_first_healthy_moment_only_join_and_are_otherwise_the_same() {
        let (before, after) = (definitions(&stored(1, false)), definitions(&stored(1, true)));
        let (before, after) = (named(&before, "spilo-orders-1"), named(&after, "spilo-orders-1"));
        assert!(!before.command.contains(&JOIN_ONLY.to_owned()));
        assert!(after.command.contains(&JOIN_ONLY.to_owned()));
        assert_eq!(before.digest(), after.digest());
    }

    #[test]
    fn the_digest_notices_other_ports_and_arguments_but_not_another_image() {
        let all = definitions(&stored(1, false));
        let router = named(&all, "spilo-orders-router");
        assert_eq!(router.digest(), Definition { image: "other".into(), ..router.clone() }.digest());
        assert_ne!(router.digest(), Definition { ports: vec![(1, 5000)], ..router.clone() }.digest());
        assert_ne!(router.digest(), Definition { command: vec!["sh".into()], ..router.clone() }.digest());
    }

    #[test]
    fn a_cluster_without_an_archive_is_made_as_it_always_was() {
        let with = stored(1, true);
        let mut without = with.clone();
        without.spec.archive = None;
        let (with, without) = (definitions(&with), definitions(&without));
        let text = serde_json::to_string(named(&without, "spilo-orders-1")).unwrap();
        assert!(!text.contains("archive"), "its digest would change: {text}");
        assert_ne!(named(&with, "spilo-orders-1").digest(), named(&without, "spilo-orders-1").digest());
        let archives = &named(&with, "spilo-orders-1").archives;
        assert_eq!((archives[0].target.as_str(), archives[0].read_only), ("/archive", false));
    }

    #[test]
    fn three_etcd_members_know_each_other_from_the_start() {
        let all = definitions(&stored(3, false));
        let expected = "--initial-cluster=orders-etcd-1=http://orders-etcd-1:2380,orders-etcd-2=http://orders-etcd-2:2380,\
                        orders-etcd-3=http://orders-etcd-3:2380";
        assert!(named(&all, "spilo-orders-etcd-2").command.contains(&expected.to_owned()));
    }
}
