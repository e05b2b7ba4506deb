//! A cluster as the engine has it: its objects, their logs, and commands inside.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bollard::query_parameters::{ListContainersOptionsBuilder, ListNetworksOptionsBuilder, ListVolumesOptionsBuilder, TopOptionsBuilder};
use spilo::provisioner::{DockerPlatform, ExecOutput, LogLine, LogWish, Platform as _};

use super::cluster::Cluster;
use crate::{shared::block, support::client};

impl Cluster {
    /// Runs a command in the container of a part.
    pub fn exec(&self, part: &str, command: &[&str]) -> ExecOutput {
        let command: Vec<String> = command.iter().map(|&word| word.to_owned()).collect();
        block(async { platform().await.exec(&self.container(part), &command, None).await.unwrap() })
    }

    /// The process ids, as this machine has them, of all that runs in the container of a part.
    pub fn processes(&self, part: &str) -> Vec<String> {
        let options = TopOptionsBuilder::default().ps_args("-eo pid").build();
        let top = block(async { client().await.top_processes(&self.container(part), Some(options)).await.unwrap() });
        top.processes.unwrap_or_default().into_iter().flatten().collect()
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
