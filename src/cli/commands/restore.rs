//! `spilo restore NEW --from OLD`: a cluster as another one was.

use std::path::PathBuf;

use super::create_cluster::{Birth, create};
use crate::{
    cli::{
        CommandError, Context, ErrorKind, Exit,
        change::PlanArgs,
        clone_source::expect_another_name,
        engine::connect,
        goal_arguments::GoalArgs,
        interrupt::{Interrupt, run_async},
        spec_arguments::SpecArgs,
        store_arguments::parse_file,
    },
    model::{ClusterName, SystemId},
    provisioner::Platform,
    spec::{CloneWish, ClusterSpec, SpecDocument},
};

const EXAMPLES: &str = "\
Examples:
  spilo restore orders-2 --from orders                                    all that was archived of it
  spilo restore orders-2 --from orders --at '2026-11-21 20:45:00+01'      as it was then
  spilo restore trial --from orders --restore-point before-import --nodes 1
  spilo restore orders-2 --from orders --lsn 0/16B3748 --exclusive --plan

The old cluster stays as it is, or may be gone: its archive is enough, in its volume, or in the bucket that --store names. Repeating the command continues an interrupted restore.";

/// Restore a cluster's backup into a new cluster, as it was at a moment
///
/// The new one has the old one's spec (nodes, version, parameters, kind of archive) where that is still known, unless options or a file say
/// otherwise, and other ports. Whether a backup leads to the moment is asked before anything is made, where a node of the old cluster runs.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Name of the new cluster
    #[arg(value_name = "NEW")]
    new: ClusterName,

    /// Whose backups
    #[arg(long, value_name = "OLD")]
    from: ClusterName,

    /// Where several database clusters had the old one's name: which, by its system identifier [default: the one there is now]
    #[arg(long, value_name = "NUMBER")]
    system: Option<SystemId>,

    /// Where its backups are encrypted with another key than is known here: the file with that key
    #[arg(long, value_name = "FILE", value_parser = parse_file)]
    from_key: Option<PathBuf>,

    #[command(flatten)]
    goal: GoalArgs,

    #[command(flatten)]
    spec: SpecArgs,

    #[command(flatten)]
    plan: PlanArgs,
}

/// Restores it.
pub fn run(context: &Context, args: &Args) -> Result<Exit, CommandError> {
    expect_another_name(&args.new, &args.from)?;
    // Mistakes in a file are told before anything is looked at.
    let of_file = args.spec.file.as_ref().map(|_| spec_of_file(args)).transpose()?;
    run_async(|interrupt| restore(context, interrupt, args, of_file))
}

async fn restore(context: &Context, interrupt: Interrupt, args: &Args, of_file: Option<ClusterSpec>) -> Result<Exit, CommandError> {
    let spec = match of_file {
        Some(spec) => spec,
        None => match connect().await?.observe(&args.from).await?.stored {
            Some(stored) => args.spec.spec_like(&args.new, &stored.spec)?,
            None => args.spec.spec(Some(&args.new))?.spec,
        },
    };
    let wish = Some(CloneWish { cluster: args.from.clone(), system: args.system, key_file: args.from_key.clone(), goal: args.goal.goal() });
    create(context, interrupt, Birth { spec, wish, image: &args.spec.image, plan: &args.plan, verb: "restore" }).await
}

fn spec_of_file(args: &Args) -> Result<ClusterSpec, CommandError> {
    let SpecDocument { spec, clone_from } = args.spec.spec(Some(&args.new))?;
    match clone_from {
        None => Ok(spec),
        Some(_) => Err(CommandError::new(ErrorKind::Usage, "the file says itself whose backup the cluster begins with")
            .hint("spilo create cluster -f FILE")
            .hint("or leave 'clone_from' out of it")),
    }
}
