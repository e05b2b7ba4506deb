//! `spilo delete cluster NAME`

use crate::{
    cli::{
        CommandError, Context, ErrorKind, Exit,
        change::{Consent, PlanArgs, ask, carry_out, show_plan},
        connection::PasswordFiles,
        engine::connect,
        interrupt::{Interrupt, run_async},
        look::no_such_cluster,
    },
    model::ClusterName,
    provisioner::{Platform, Wish, with_lock},
};

const EXAMPLES: &str = "\
Examples:
  spilo delete cluster orders                      asks for the name
  spilo delete cluster orders --confirm orders     in scripts
  spilo delete cluster orders --plan               what would be removed";

/// Delete a cluster with all its data
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The cluster
    name: ClusterName,

    /// Confirm by repeating the name, where nobody can be asked
    #[arg(long, value_name = "NAME")]
    confirm: Option<String>,

    /// Succeed when there is no such cluster
    #[arg(long)]
    if_exists: bool,

    #[command(flatten)]
    plan: PlanArgs,
}

/// Deletes.
pub fn run(context: &Context, args: &Args) -> Result<Exit, CommandError> {
    run_async(|interrupt| delete(context, interrupt, args))
}

async fn delete(context: &Context, interrupt: Interrupt, args: &Args) -> Result<Exit, CommandError> {
    // A wrong confirmation is refused whatever there is to delete.
    if let Some(word) = args.confirm.as_ref().filter(|word| *word != args.name.as_str()) {
        return Err(not_confirmed(&args.name, word));
    }
    let platform = connect().await?;
    let cluster = &args.name;
    if platform.observe(cluster).await?.is_empty() {
        return nothing_there(context, args);
    }
    if args.plan.plan {
        return show_plan(context, &platform, cluster, &Wish::Delete, args.plan.exit_code).await;
    }
    confirm(context, &interrupt, args).await?;
    let command = format!("delete cluster {cluster}");
    with_lock(&platform, cluster, &command, async {
        carry_out(context, &interrupt, &platform, cluster, &Wish::Delete, Consent::Given).await
    })
    .await?;
    forget_password(context, cluster);
    context.ui.say(format_args!("cluster '{cluster}' is deleted, nothing of it is left"));
    Ok(Exit::OK)
}

fn nothing_there(context: &Context, args: &Args) -> Result<Exit, CommandError> {
    if !args.if_exists {
        return Err(no_such_cluster(&args.name));
    }
    context.ui.say(format_args!("there is no cluster '{}', nothing to do", args.name));
    Ok(Exit::OK)
}

async fn confirm(context: &Context, interrupt: &Interrupt, args: &Args) -> Result<(), CommandError> {
    let name = &args.name;
    if args.confirm.is_some() {
        return Ok(());
    }
    if !context.ui.can_ask() {
        let refused = format!("deleting cluster '{name}' with all its data needs a confirmation, and nobody is here to ask");
        return Err(CommandError::new(ErrorKind::Refused, refused).hint(format!("spilo delete cluster {name} --confirm {name}")));
    }
    let question = format!("cluster '{name}' and all its data will be gone. Type its name to go on:");
    match ask(&context.ui, interrupt, question).await? {
        Some(answer) if answer == name.as_str() => Ok(()),
        answer => Err(not_confirmed(name, answer.as_deref().unwrap_or_default())),
    }
}

fn not_confirmed(name: &ClusterName, word: &str) -> CommandError {
    CommandError::new(ErrorKind::Refused, format!("'{word}' is not the name of cluster '{name}'; nothing was deleted"))
}

/// The cluster is gone whether or not the file with its last password is.
fn forget_password(context: &Context, cluster: &ClusterName) {
    if let Err(error) = PasswordFiles::of_this_user().and_then(|files| files.remove(cluster)) {
        context.ui.warn(error);
    }
}
