//! `spilo backup key new FILE`: the key that backups and WAL are encrypted with.

use std::path::PathBuf;

use clap::Subcommand;
use serde::Serialize;

use crate::{
    backup::encryption::MasterKey,
    cli::{CommandError, Context, ErrorKind, Exit, output::Shown, store_arguments::parse_file},
};

const EXAMPLES: &str = "\
Examples:
  spilo backup key new orders.key
  spilo create cluster orders --store-key orders.key      everything that it archives is encrypted
  spilo backup restore /srv/pg --store file:///archive --cluster orders --store-key orders.key

Whoever has the file and the store can read the backups. Without it nobody can: keep a copy where neither the loss of the cluster nor that of
the store takes it along.";

/// Make the key that an archive is encrypted with
#[derive(Debug, Subcommand)]
pub enum Command {
    New(NewArgs),
}

/// Make a new key in a file that is not there yet
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct NewArgs {
    /// Where it goes; only you can read it
    #[arg(value_name = "FILE", value_parser = parse_file)]
    file: PathBuf,
}

/// The key that was made, as far as it is shown.
#[derive(Debug, Serialize)]
struct Made {
    id: String,
    file: PathBuf,
}

impl Shown for Made {
    const KIND: &'static str = "BackupKey";

    fn text(&self, _wide: bool) -> String {
        self.id.clone()
    }
}

/// Runs the command.
pub fn run(context: &Context, command: &Command) -> Result<Exit, CommandError> {
    let Command::New(NewArgs { file }) = command;
    let key = MasterKey::create(file).map_err(|error| CommandError::new(ErrorKind::Failed, error))?;
    context.show(&Made { id: key.id(), file: file.clone() })?;
    context.ui.say(format_args!(
        "'{}' has the key '{}': keep a copy of it, without which its backups are worth nothing",
        file.display(),
        key.id()
    ));
    Ok(Exit::OK)
}
