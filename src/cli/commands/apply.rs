//! `spilo apply NAME`

use std::path::PathBuf;

use crate::{
    cli::{
        CommandError, Context, Exit,
        apply_wish::Asked,
        change::{Consent, PlanArgs, carry_out, show_plan},
        engine::connect,
        interrupt::{Interrupt, run_async},
        spec_arguments::{ArchiveArgs, ImageArgs, SpecArgs},
        wait::wait_until_healthy,
    },
    model::ClusterName,
    provisioner::with_lock,
};

const EXAMPLES: &str = "\
Examples:
  spilo apply orders                 restore what was lost of it: containers, network, volumes
  spilo apply -f orders.yaml         make it as the file says; create it if it is not there
  spilo apply orders --store-credentials FILE
                                     give its nodes new credentials of the archive's bucket, while they run";

/// Make a cluster as it should be again: by its stored spec, or by a file
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The cluster; may be left out when the spec file has its name
    #[arg(required_unless_present = "file")]
    name: Option<ClusterName>,

    /// Read the spec from this file, `-` for standard input (spilo help spec)
    #[arg(short, long, value_name = "SPEC")]
    file: Option<PathBuf>,

    /// File with new credentials of the archive's bucket; they are tried out, and then go to the nodes, which need no restart
    #[arg(long, value_name = "FILE")]
    store_credentials: Option<PathBuf>,

    /// File with another key that opens the archive (spilo backup key); it goes the same way
    #[arg(long, value_name = "FILE")]
    store_key: Option<PathBuf>,

    #[command(flatten)]
    image: ImageArgs,

    #[command(flatten)]
    plan: PlanArgs,

    /// Agree to destroying data, as when the file asks for fewer nodes
    #[arg(short, long)]
    yes: bool,
}

/// Applies.
pub fn run(context: &Context, args: &Args) -> Result<Exit, CommandError> {
    let archive =
        ArchiveArgs { store_credentials: args.store_credentials.clone(), store_key: args.store_key.clone(), ..ArchiveArgs::default() };
    let spec = SpecArgs { file: args.file.clone(), archive, image: args.image.clone(), ..SpecArgs::default() };
    let asked = Asked::of(args.name.as_ref(), &spec)?;
    run_async(|interrupt| apply(context, interrupt, args, asked))
}

async fn apply(context: &Context, interrupt: Interrupt, args: &Args, asked: Asked) -> Result<Exit, CommandError> {
    let platform = connect().await?;
    let cluster = asked.cluster().clone();
    if args.plan.plan {
        let wish = asked.wish(context, &platform, &args.image).await?;
        return show_plan(context, &platform, &cluster, &wish, args.plan.exit_code).await;
    }
    let consent = if args.yes { Consent::Given } else { Consent::Ask };
    let command = format!("apply {cluster}");
    let seen = with_lock(&platform, &cluster, &command, async {
        // What there is, and who leads, is read under the lock: it decides what is to be done.
        let wish = asked.wish(context, &platform, &args.image).await?;
        let plan = carry_out(context, &interrupt, &platform, &cluster, &wish, consent).await?;
        if plan.is_empty() {
            context.ui.say(format_args!("all of cluster '{cluster}' is in place, nothing to do"));
        }
        wait_until_healthy(context, &interrupt, &platform, &cluster).await
    })
    .await?;
    context.ui.say(format_args!("cluster '{cluster}' is healthy: {}", seen.status.reason));
    Ok(Exit::OK)
}
