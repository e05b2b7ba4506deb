//! `spilo scale NAME N`

use crate::{
    cli::{
        CommandError, Context, ErrorKind, Exit,
        change::{Consent, PlanArgs, carry_out, show_plan},
        engine::connect,
        interrupt::{Interrupt, run_async},
        look::{Look, look},
        spec_arguments::{ImageArgs, parse_checked},
        status::Health,
        wait::wait_until_healthy,
    },
    model::{ClusterName, counted},
    provisioner::{StoreSecrets, Wish, with_lock},
    spec::NodeCount,
};

const EXAMPLES: &str = "\
Examples:
  spilo scale orders 5
  spilo scale orders 2 --yes         removes nodes with their copies of the data, never the leader";

/// Change the number of nodes of a cluster
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The cluster
    name: ClusterName,

    /// How many PostgreSQL nodes it shall have, 1 to 9
    #[arg(value_name = "N", value_parser = parse_checked::<NodeCount>)]
    nodes: NodeCount,

    #[command(flatten)]
    image: ImageArgs,

    #[command(flatten)]
    plan: PlanArgs,

    /// Agree to removing nodes with their data
    #[arg(short, long)]
    yes: bool,
}

/// Scales.
pub fn run(context: &Context, args: &Args) -> Result<Exit, CommandError> {
    run_async(|interrupt| scale(context, interrupt, args))
}

async fn scale(context: &Context, interrupt: Interrupt, args: &Args) -> Result<Exit, CommandError> {
    let platform = connect().await?;
    let cluster = &args.name;
    if args.plan.plan {
        let wish = wish(args, &look(&platform, cluster).await?)?;
        return show_plan(context, &platform, cluster, &wish, args.plan.exit_code).await;
    }
    let consent = if args.yes { Consent::Given } else { Consent::Ask };
    let command = format!("scale {cluster} {}", args.nodes);
    let seen = with_lock(&platform, cluster, &command, async {
        // Who leads is read under the lock: it decides which nodes may go.
        let wish = wish(args, &look(&platform, cluster).await?)?;
        carry_out(context, &interrupt, &platform, cluster, &wish, consent).await?;
        wait_until_healthy(context, &interrupt, &platform, cluster).await
    })
    .await?;
    context.ui.say(format_args!("cluster '{cluster}' has {}: {}", counted(u64::from(args.nodes.get()), "node"), seen.status.reason));
    Ok(Exit::OK)
}

/// Removing nodes needs a leader that works: without one, the newest copy might be the one that goes.
fn wish(args: &Args, seen: &Look) -> Result<Wish, CommandError> {
    let fewer = usize::from(args.nodes.get()) < seen.stored.members.len();
    if fewer && seen.status.health == Health::Critical {
        let refused = format!("cluster '{}' is critical: {}; no node can be removed safely", args.name, seen.status.reason);
        return Err(CommandError::new(ErrorKind::Refused, refused).hint(format!("spilo apply {}", args.name)));
    }
    let image = args.image.source(&seen.stored.spec)?;
    Ok(Wish::Scale { nodes: args.nodes, leader: seen.status.leader.clone(), image, secrets: StoreSecrets::default() })
}
