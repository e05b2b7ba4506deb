//! Commands of ours that a node of a cluster runs, because only there the archive can be reached.

use std::io::Write as _;

use super::{
    CommandError, Context, ErrorKind, Exit, engine,
    look::{Look, look},
    output::OutputFormat,
};
use crate::{
    model::ClusterName,
    provisioner::{Condition, DockerPlatform, Object, ObjectKind, Platform},
};

/// A cluster with an archive.
pub struct Inside {
    /// The platform that it lives on.
    pub platform: DockerPlatform,
    /// The cluster.
    pub seen: Look,
    /// The options that tell a command inside where the archive is.
    archive: Vec<String>,
}

impl Inside {
    /// Looks at the cluster; one without an archive is refused.
    pub async fn of(cluster: &ClusterName) -> Result<Inside, CommandError> {
        let platform = engine::connect().await?;
        let seen = look(&platform, cluster).await?;
        let Some(archive) = DockerPlatform::archive_options(&seen.stored.spec) else {
            let refused = format!("cluster '{cluster}' has no archive: it was made without one");
            return Err(CommandError::new(ErrorKind::Refused, refused)
                .hint("a cluster gets its archive when it is created, unless --store none says otherwise"));
        };
        Ok(Inside { platform, seen, archive })
    }

    /// A node that runs: the leader rather than another.
    pub fn node(&self) -> Result<&Object, CommandError> {
        let runs = |object: &&Object| object.condition == Condition::Running;
        let mut nodes: Vec<&Object> = self.seen.inventory.containers(ObjectKind::Node).filter(runs).collect();
        nodes.sort_by_key(|node| node.member != self.seen.status.leader);
        let cluster = &self.seen.status.name;
        nodes.first().copied().ok_or_else(|| {
            CommandError::new(ErrorKind::Failed, format!("no node of cluster '{cluster}' runs, and its archive is reached from there"))
                .hint(format!("spilo apply {cluster}"))
        })
    }

    /// A command of ours as a node runs it: with the archive of this cluster, and data in the form that was asked for here.
    pub fn command(&self, context: &Context, words: &[&str]) -> Vec<String> {
        let format = match context.output {
            OutputFormat::Table => "table",
            OutputFormat::Wide => "wide",
            OutputFormat::Json => "json",
            OutputFormat::Yaml => "yaml",
        };
        let own = ["spilo"].iter().chain(words).map(|&word| word.to_owned());
        own.chain(self.archive.iter().cloned()).chain(["-o".to_owned(), format.to_owned()]).collect()
    }

    /// The system identifier of the cluster's data, as an option.
    pub fn system_option(&self) -> Vec<String> {
        self.seen.system.iter().flat_map(|system| ["--system".to_owned(), system.clone()]).collect()
    }

    /// Runs a command that is soon done; what it prints is printed here, and its exit code is ours.
    pub async fn run(&self, command: &[String]) -> Result<Exit, CommandError> {
        let output = self.platform.exec(&self.node()?.name, command, None).await?;
        let unwritable = |error: std::io::Error| CommandError::new(ErrorKind::Failed, format!("cannot write the output: {error}"));
        std::io::stdout().write_all(&output.stdout).map_err(unwritable)?;
        std::io::stderr().write_all(&output.stderr).map_err(unwritable)?;
        Ok(exit(output.exit_code))
    }
}

/// What does not fit an exit code of ours (a signal, say) is a failure all the same.
pub fn exit(code: i64) -> Exit {
    Exit(u8::try_from(code).unwrap_or(1))
}
