//! `spilo create cluster NAME`

use std::path::PathBuf;

use serde::Serialize;

use super::dsn::connection;
use crate::{
    cli::{
        CommandError, Context, ErrorKind, Exit,
        change::{Consent, PlanArgs, carry_out, show_plan},
        connection::ConnectionParameters,
        engine::{connect, expect_fit_machine},
        interrupt::{Interrupt, run_async},
        look::{look, no_such_cluster},
        output::Shown,
        spec_arguments::{SpecArgs, expect_store_keys},
        status::{ClusterStatus, NodeRole},
        store_arguments::parse_file,
        wait::wait_until_healthy,
    },
    model::{ClusterName, RecoveryTarget, SystemId},
    provisioner::{Platform, Wish, with_lock},
    spec::{ArchiveSpec, ArchiveStore, CloneSource, ClusterSpec},
};

const EXAMPLES: &str = "\
Examples:
  spilo create cluster orders                      three nodes, PostgreSQL 17, quorum durability
  spilo create cluster orders --nodes 1 --port 5432
  spilo create cluster -f orders.yaml --plan       what would be done
  spilo create cluster trial --clone-from orders   with the data of another cluster's backup

Repeating the command continues an interrupted creation; on a finished cluster it changes nothing.";

/// Create a cluster on this machine, and wait until it is healthy
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Name of the cluster; may be left out when the spec file has it
    name: Option<ClusterName>,

    #[command(flatten)]
    spec: SpecArgs,

    /// Begin with the newest backup of this cluster, and the WAL after it, instead of nothing
    #[arg(long, value_name = "CLUSTER")]
    clone_from: Option<ClusterName>,

    /// With --clone-from: as the other cluster was then, such as 2026-11-21T20:45:00Z
    #[arg(long, value_name = "TIME", requires = "clone_from", value_parser = parse_time)]
    at: Option<String>,

    /// With --clone-from, where several database clusters had that name: which, by its system identifier [default: the one there is now]
    #[arg(long, value_name = "NUMBER", requires = "clone_from")]
    clone_system: Option<SystemId>,

    /// With --clone-from, where its backups are encrypted with another key than it knows of: the file with that key
    #[arg(long, value_name = "FILE", requires = "clone_from", value_parser = parse_file)]
    clone_key: Option<PathBuf>,

    #[command(flatten)]
    plan: PlanArgs,
}

/// What was created.
#[derive(Debug, Serialize)]
struct Created {
    uri: String,
    #[serde(flatten)]
    status: ClusterStatus,
    connection: ConnectionParameters,
}

impl Shown for Created {
    const KIND: &'static str = "Cluster";

    fn text(&self, _wide: bool) -> String {
        self.uri.clone()
    }
}

/// Creates the cluster.
pub fn run(context: &Context, args: &Args) -> Result<Exit, CommandError> {
    let spec = args.spec.spec(args.name.as_ref())?;
    run_async(|interrupt| create(context, interrupt, args, spec))
}

async fn create(context: &Context, interrupt: Interrupt, args: &Args, mut spec: ClusterSpec) -> Result<Exit, CommandError> {
    let platform = connect().await?;
    if let Some(other) = &args.clone_from {
        spec.clone_of = Some(Box::new(clone_source(&platform, &spec.name, other, args).await?));
    }
    let cluster = spec.name.clone();
    if platform.observe(&cluster).await?.stored.is_none() {
        expect_store_keys(&spec)?;
    }
    let key = spec.archive.as_ref().and_then(|archive| archive.key_file.clone());
    let wish = Wish::Create { image: args.spec.image.source(&spec)?, spec };
    if args.plan.plan {
        return show_plan(context, &platform, &cluster, &wish, args.plan.exit_code).await;
    }
    expect_fit_machine(context, &platform).await?;
    let command = format!("create cluster {cluster}");
    let (seen, connection) = with_lock(&platform, &cluster, &command, async {
        let plan = carry_out(context, &interrupt, &platform, &cluster, &wish, Consent::Ask).await?;
        if plan.is_empty() {
            context.ui.say(format_args!("all of cluster '{cluster}' is in place already"));
        }
        let seen = wait_until_healthy(context, &interrupt, &platform, &cluster).await?;
        let connection = connection(&platform, &seen.stored, false, false).await?;
        Ok::<_, CommandError>((seen, connection))
    })
    .await?;
    context.ui.say(format_args!("cluster '{cluster}' is healthy: {}", seen.status.reason));
    if let Some(key) = key {
        context.ui.say(format_args!("its backups are worth nothing without the key in '{}': keep a copy of that elsewhere", key.display()));
    }
    let leader = seen.status.nodes.iter().find(|node| node.role == Some(NodeRole::Leader)).map(|node| node.name.to_string());
    context.show(&Created { uri: connection.uri(), status: seen.status, connection: connection.parameters() })?;
    say_what_to_try(context, &cluster, leader.as_deref().unwrap_or("NODE"));
    Ok(Exit::OK)
}

/// Where the other cluster has its backups: it is asked, or, where it is gone, the volume that it left.
async fn clone_source<P: Platform>(
    platform: &P,
    name: &ClusterName,
    other: &ClusterName,
    args: &Args,
) -> Result<CloneSource, CommandError> {
    if name == other {
        // Both would have one system identifier, and one place in the archive.
        let refused = format!("cluster '{other}' cannot be begun with a backup of itself under its own name");
        return Err(CommandError::new(ErrorKind::Refused, refused).hint("choose another name for the new cluster"));
    }
    let inventory = platform.observe(other).await?;
    let mut archive = match &inventory.stored {
        Some(stored) => stored.spec.stored_archive(),
        None if inventory.archive().is_some() => ArchiveSpec::volume(),
        None => return Err(no_such_cluster(other)),
    };
    if args.clone_key.is_some() {
        archive.key_file.clone_from(&args.clone_key);
    }
    let there = match archive.store {
        ArchiveStore::None => false,
        ArchiveStore::Volume => inventory.archive().is_some(),
        ArchiveStore::S3(_) => true,
    };
    if !there {
        return Err(CommandError::new(ErrorKind::Refused, format!("cluster '{other}' has no archive, and so no backup to begin with")));
    }
    // What an earlier cluster of that name has left is not meant where there is one.
    let system = match (args.clone_system, inventory.stored.is_some()) {
        (None, true) => look(platform, other).await?.system.and_then(|system| system.parse().ok()),
        (said, _) => said,
    };
    Ok(CloneSource { cluster: other.clone(), archive, system, at: args.at.clone() })
}

/// Whether it is a time is found out here, and not by the node that has to recover to it.
fn parse_time(text: &str) -> Result<String, String> {
    RecoveryTarget::time(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

fn say_what_to_try(context: &Context, cluster: &ClusterName, leader: &str) {
    let spilo = std::env::args().next().unwrap_or_else(|| "spilo".to_owned());
    let commands = [
        (format!("{spilo} connect {cluster}"), "psql on its primary"),
        (format!("{spilo} status {cluster} -w"), "watch it"),
        (format!("{spilo} switchover {cluster}"), "hand over to a replica"),
        (format!("docker kill spilo-{leader}"), "lose the primary, and go on writing through the same port"),
        (format!("{spilo} apply {cluster}"), "bring back what was lost"),
        (format!("{spilo} delete cluster {cluster}"), "remove it with all its data, but not its backups"),
    ];
    let width = commands.iter().map(|(command, _)| command.len()).max().unwrap_or_default() + 3;
    let next: Vec<String> = commands.iter().map(|(command, what)| format!("  {command:width$}{what}")).collect();
    context.ui.say(format_args!("\nwhat to try next:\n{}", next.join("\n")));
}
