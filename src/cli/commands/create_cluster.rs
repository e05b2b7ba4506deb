//! `spilo create cluster NAME`

use serde::Serialize;

use super::dsn::connection;
use crate::{
    cli::{
        CommandError, Context, Exit,
        change::{Consent, PlanArgs, carry_out, show_plan},
        connection::ConnectionParameters,
        engine::{connect, expect_fit_machine},
        interrupt::{Interrupt, run_async},
        output::Shown,
        spec_arguments::SpecArgs,
        status::{ClusterStatus, NodeRole},
        wait::wait_until_healthy,
    },
    model::ClusterName,
    provisioner::{Wish, with_lock},
    spec::ClusterSpec,
};

const EXAMPLES: &str = "\
Examples:
  spilo create cluster orders                      three nodes, PostgreSQL 17, quorum durability
  spilo create cluster orders --nodes 1 --port 5432
  spilo create cluster -f orders.yaml --plan       what would be done

Repeating the command continues an interrupted creation; on a finished cluster it changes nothing.";

/// Create a cluster on this machine, and wait until it is healthy
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Name of the cluster; may be left out when the spec file has it
    name: Option<ClusterName>,

    #[command(flatten)]
    spec: SpecArgs,

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

async fn create(context: &Context, interrupt: Interrupt, args: &Args, spec: ClusterSpec) -> Result<Exit, CommandError> {
    let platform = connect().await?;
    let cluster = spec.name.clone();
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
    let leader = seen.status.nodes.iter().find(|node| node.role == Some(NodeRole::Leader)).map(|node| node.name.to_string());
    context.show(&Created { uri: connection.uri(), status: seen.status, connection: connection.parameters() })?;
    say_what_to_try(context, &cluster, leader.as_deref().unwrap_or("NODE"));
    Ok(Exit::OK)
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
