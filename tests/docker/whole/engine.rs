//! A cluster as the engine has it: its objects, their logs, and commands inside.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bollard::{
    container::LogOutput,
    exec::{StartExecOptions, StartExecResults},
    models::ExecConfig,
    query_parameters::{ListContainersOptionsBuilder, ListNetworksOptionsBuilder, ListVolumesOptionsBuilder},
};
use futures_util::TryStreamExt as _;
use spilo::provisioner::{DockerPlatform, ExecOutput, LogLine, LogWish, Platform as _};

use super::cluster::Cluster;
use crate::{shared::block, support::client};

impl Cluster {
    /// Runs a command in the container of a part.
    pub fn exec(&self, part: &str, command: &[&str]) -> ExecOutput {
        let command: Vec<String> = command.iter().map(|&word| word.to_owned()).collect();
        block(async { platform().await.exec(&self.container(part), &command, None).await.unwrap() })
    }

    /// Runs a command in the container of a part with rights that nothing there has otherwise; returns what it printed, errors included.
    pub fn exec_with_all_rights(&self, part: &str, command: &[&str]) -> String {
        let config = ExecConfig {
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            privileged: Some(true),
            user: Some("root".to_owned()),
            cmd: Some(command.iter().map(|&word| word.to_owned()).collect()),
            ..ExecConfig::default()
        };
        block(async {
            let client = client().await;
            let created = client.create_exec(&self.container(part), config).await.unwrap();
            let started = client.start_exec(&created.id, None::<StartExecOptions>).await.unwrap();
            let StartExecResults::Attached { output, .. } = started else { panic!("it was started without its output") };
            let pieces: Vec<LogOutput> = output.try_collect().await.unwrap();
            pieces.iter().map(ToString::to_string).collect()
        })
    }

    /// The log of a container, from its beginning or its last lines.
    pub fn log(&self, container: &str, tail: Option<u32>) -> String {
        let mut text = String::new();
        let mut collect = |line: LogLine| text += &format!("{}\n", line.text);
        block(async { platform().await.logs(container, LogWish { tail, ..LogWish::default() }, &mut collect).await.unwrap() });
        text
    }

    /// Everything that carries the cluster's label, as the engine lists it: containers, volumes, networks.
    pub fn remains(&self) -> BTreeMap<&'static str, BTreeSet<String>> {
        let label = HashMap::from([("label".to_owned(), vec![format!("io.spilo.cluster={}", self.name)])]);
        block(async {
            let client = client().await;
            let containers = ListContainersOptionsBuilder::default().all(true).filters(&label).build();
            let containers = client.list_containers(Some(containers)).await.unwrap().into_iter().filter_map(|found| found.names?.pop());
            let volumes = ListVolumesOptionsBuilder::default().filters(&label).build();
            let volumes = client.list_volumes(Some(volumes)).await.unwrap().volumes.unwrap_or_default().into_iter().map(|found| found.name);
            let networks = ListNetworksOptionsBuilder::default().filters(&label).build();
            let networks = client.list_networks(Some(networks)).await.unwrap().into_iter().filter_map(|found| found.name);
            let without_slash = |name: String| name.trim_start_matches('/').to_owned();
            let found =
                [("container", containers.map(without_slash).collect()), ("volume", volumes.collect()), ("network", networks.collect())];
            found.into_iter().filter(|(_, names): &(_, BTreeSet<String>)| !names.is_empty()).collect()
        })
    }

    /// The names of its containers.
    pub fn containers(&self) -> BTreeSet<String> {
        self.remains().remove("container").unwrap_or_default()
    }

    /// Fails if anything of it is left.
    #[track_caller]
    pub fn expect_gone(&self) {
        let remains = self.remains();
        assert!(remains.is_empty(), "this is left: {remains:?}");
    }
}

/// The platform that the test process itself uses.
async fn platform() -> DockerPlatform {
    DockerPlatform::connect().await.expect("it answered at the beginning of the test")
}
