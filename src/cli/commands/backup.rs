//! `spilo backup …`: what is done with base backups in a store, on a node or anywhere else that reaches the store.

use clap::Subcommand;

use super::{backup_create, backup_drill, backup_expire, backup_keep, backup_key, backup_list, backup_restore, backup_take, backup_verify};
use crate::cli::{CommandError, Context, Exit};

/// Every command for base backups in a store.
#[derive(Debug, Subcommand)]
#[allow(missing_docs)]
pub enum Command {
    Create(backup_create::Args),
    List(backup_list::ListArgs),
    Show(backup_list::ShowArgs),
    #[command(hide = true)]
    Take(backup_take::Args),
    Restore(backup_restore::Args),
    Verify(backup_verify::Args),
    Drill(backup_drill::Args),
    Expire(backup_expire::Args),
    Pin(backup_expire::PinArgs),
    /// Leave a pinned backup to retention again
    Unpin(backup_expire::PinArgs),
    #[command(subcommand)]
    Key(backup_key::Command),
    #[command(hide = true)]
    Keep(backup_keep::Args),
}

/// Runs the command.
pub fn run(context: &Context, command: &Command) -> Result<Exit, CommandError> {
    match command {
        Command::Create(args) => backup_create::run(context, args),
        Command::List(args) => backup_list::list(context, args),
        Command::Show(args) => backup_list::show(context, args),
        Command::Take(args) => backup_take::run(context, args),
        Command::Restore(args) => backup_restore::run(context, args),
        Command::Verify(args) => backup_verify::run(context, args),
        Command::Drill(args) => backup_drill::run(context, args),
        Command::Expire(args) => backup_expire::run(context, args),
        Command::Pin(args) => backup_expire::pin(context, args, true),
        Command::Unpin(args) => backup_expire::pin(context, args, false),
        Command::Key(command) => backup_key::run(context, command),
        Command::Keep(args) => backup_keep::run(context, args),
    }
}
