//! Commands of ours that a node of a cluster runs, because only there the archive can be reached.

use std::io::Write as _;

use super::{
    CommandError, Context, ErrorKind, Exit, engine,
    interrupt::{Interrupt, interrupted},
    look::{Look, look},
    output::OutputFormat,
    which_archive::ASKED_FOR,
};
use crate::{
    model::ClusterName,
    provisioner::{Condition, DockerPlatform, Object, ObjectKind, Platform},
};

/// Runs a command and leaves its process id behind, so that it can be told to end: nobody tells it when this process ends.
const LEAVE_PID: &str = r#"echo $$ >"$0" && exec "$@""#;

/// Tells it.
const INTERRUPT: &str = r#"kill -INT "$(cat "$0")" && rm -f "$0""#;

/// It has ended by itself.
const FORGET_PID: &str = r#"rm -f "$0""#;

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
        self.running(|is_leader| !is_leader)
    }

    /// A node that runs: another rather than the leader, which has better things to do.
    pub fn node_at_leisure(&self) -> Result<&Object, CommandError> {
        self.running(|is_leader| is_leader)
    }

    fn running(&self, last: impl Fn(bool) -> bool) -> Result<&Object, CommandError> {
        let runs = |object: &&Object| object.condition == Condition::Running;
        let mut nodes: Vec<&Object> = self.seen.inventory.containers(ObjectKind::Node).filter(runs).collect();
        nodes.sort_by_key(|node| last(node.member == self.seen.status.leader));
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

    /// The same command, about the archive of the data that the cluster has now. Its hints are for whoever asks here.
    pub fn look_into(&self, context: &Context, words: &[&str], more: Vec<String>) -> Vec<String> {
        let system = self.seen.system.iter().map(|system| format!("--system={system}"));
        self.asked_for(context, words, system.chain(more))
    }

    /// The same, about what all data under the cluster's name have in common.
    pub fn asked_for(&self, context: &Context, words: &[&str], more: impl IntoIterator<Item = String>) -> Vec<String> {
        let whose = format!("{ASKED_FOR}={}", self.seen.status.name);
        let command = self.command(context, words).into_iter().chain(more);
        ["env".to_owned(), whose].into_iter().chain(command).collect()
    }

    /// Runs a command that may take long, on this node; what it prints is printed here, and its exit code is ours. An interrupt ends it there too.
    pub async fn run_attached(&self, node: &Object, command: &[String], interrupt: &Interrupt) -> Result<Exit, CommandError> {
        let chance = getrandom::u64().map_err(|error| CommandError::new(ErrorKind::Failed, format!("no random numbers: {error}")))?;
        let pid_file = format!("/run/spilo/command-{chance:016x}.pid");
        let sh = |script: &str| ["sh", "-c", script, &pid_file].map(str::to_owned).to_vec();
        let whole = [sh(LEAVE_PID), command.to_vec()].concat();
        let mut running = std::pin::pin!(self.platform.exec_attached(&node.name, &whole));
        tokio::select! {
            code = &mut running => {
                // It is in nobody's way where that fails.
                let _ = self.platform.exec(&node.name, &sh(FORGET_PID), None).await;
                return Ok(exit(code?));
            }
            () = interrupt.requested() => {}
        }
        let told = self.platform.exec(&node.name, &sh(INTERRUPT), None).await;
        if !told.is_ok_and(|output| output.exit_code == 0) {
            let goes_on = format!("interrupted here, but what was begun goes on in container '{}'", node.name);
            return Err(CommandError::new(ErrorKind::Interrupted, goes_on).hint(format!("docker top {}", node.name)));
        }
        running.await?;
        Err(interrupted())
    }

    /// Runs a command that is soon done; what it prints is printed here, and its exit code is ours.
    pub async fn run(&self, command: &[String]) -> Result<Exit, CommandError> {
        self.run_with(command, None).await
    }

    /// The same, with something that it reads from its standard input: what is in an argument can be seen by others.
    pub async fn run_with(&self, command: &[String], input: Option<&[u8]>) -> Result<Exit, CommandError> {
        let output = self.platform.exec(&self.node()?.name, command, input).await?;
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
