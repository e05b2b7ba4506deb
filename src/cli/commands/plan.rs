//! `spilo plan NAME`

use crate::{
    cli::{
        CommandError, Context, Exit, apply_wish::Asked, change::show_plan, engine::connect, interrupt::run_async, spec_arguments::SpecArgs,
    },
    model::ClusterName,
};

const EXAMPLES: &str = "\
Examples:
  spilo plan orders                        what spilo apply orders would do
  spilo plan orders --nodes 5              what it would take to have five nodes
  spilo plan -f orders.yaml --exit-code    10 when there is something to do, for scripts";

/// Show what would be done to make a cluster as it should be, and do nothing
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The cluster; may be left out when the spec file has its name
    #[arg(required_unless_present = "file")]
    name: Option<ClusterName>,

    #[command(flatten)]
    spec: SpecArgs,

    /// Exit with 10 when there is something to do
    #[arg(long)]
    exit_code: bool,
}

/// Shows the plan.
pub fn run(context: &Context, args: &Args) -> Result<Exit, CommandError> {
    let asked = Asked::of(args.name.as_ref(), &args.spec)?;
    run_async(|_| async {
        let platform = connect().await?;
        let wish = asked.wish(context, &platform, &args.spec.image).await?;
        show_plan(context, &platform, asked.cluster(), &wish, args.exit_code).await
    })
}
