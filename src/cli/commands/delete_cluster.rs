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
    provisioner::{Inventory, Platform, Wish, with_lock},
};

const EXAMPLES: &str = "\
Examples:
  spilo delete cluster orders                      asks for the name
  spilo delete cluster orders --confirm orders     in scripts
  spilo delete cluster orders --backups            its backups too, also those that an earlier deletion left
  spilo delete cluster orders --plan               what would be removed";

/// Delete a cluster with all its data; its backups stay unless they are named
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

    /// Delete its backups too
    #[arg(long)]
    backups: bool,

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
    let wish = Wish::Delete { backups: args.backups };
    let before = platform.observe(cluster).await?;
    if before.is_empty() && !(args.backups && before.archive().is_some()) {
        return nothing_there(context, args, &before);
    }
    if args.plan.plan {
        return show_plan(context, &platform, cluster, &wish, args.plan.exit_code).await;
    }
    confirm(context, &interrupt, args).await?;
    let command = format!("delete cluster {cluster}");
    let plan =
        with_lock(&platform, cluster, &command, async { carry_out(context, &interrupt, &platform, cluster, &wish, Consent::Given).await })
            .await?;
    forget_password(context, cluster);
    match plan.untouched.first() {
        None => context.ui.say(format_args!("cluster '{cluster}' is deleted, nothing of it is left")),
        Some(kept) => {
            context.ui.say(format_args!("cluster '{cluster}' is deleted; its backups stay in {}", kept.object));
            let archive = before.stored.as_ref().map(|stored| stored.spec.stored_archive());
            if let Some(key) = archive.and_then(|archive| archive.key_file) {
                context.ui.say(format_args!("they are encrypted: without the key in '{}' nobody can read them", key.display()));
            }
            if before.archive().is_some() {
                context.ui.hint(format_args!("to remove them too: spilo delete cluster {cluster} --backups"));
            }
        }
    }
    Ok(Exit::OK)
}

fn nothing_there(context: &Context, args: &Args, left: &Inventory) -> Result<Exit, CommandError> {
    if !args.if_exists {
        let error = no_such_cluster(&args.name);
        return Err(match left.archive() {
            Some(archive) => error.hint(format!(
                "backups of one that was deleted are in volume '{}'; to remove them: spilo delete cluster {} --backups",
                archive.name, args.name
            )),
            None => error,
        });
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
        return Err(CommandError::new(ErrorKind::Refused, refused)
            .hint(format!("spilo delete cluster {name} --confirm {name}{}", if args.backups { " --backups" } else { "" })));
    }
    let what = if args.backups { "all its data and all its backups" } else { "all its data" };
    let question = format!("cluster '{name}' and {what} will be gone. Type its name to go on:");
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
