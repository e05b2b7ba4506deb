//! `spilo backup key …`: the keys that backups and WAL are encrypted with.

use std::path::PathBuf;

use clap::Subcommand;
use serde::Serialize;

use super::{backup_key_change, backup_key_list};
use crate::{
    backup::encryption::MasterKey,
    cli::{CommandError, Context, ErrorKind, Exit, interrupt::run_async, output::Shown, store_arguments::parse_file},
    model::KmsKey,
};

const EXAMPLES: &str = "\
Examples:
  spilo backup key new orders.key
  spilo create cluster orders --store-key orders.key      everything that it archives is encrypted
  spilo backup restore /srv/pg --store file:///archive --cluster orders --store-key orders.key
  spilo backup key new orders.key --kms arn:aws:kms:eu-central-1:111122223333:alias/backups

Whoever has the file and the store can read the backups. Without it nobody can: keep a copy where neither the loss of the cluster nor that of
the store takes it along. With --kms the key is in AWS KMS and the file only says which one it is: it is no secret, and whoever may use the
key there (kms:Decrypt, to begin an archive kms:Encrypt too) can read the backups.";

/// Make, add, list and remove the keys that an archive is encrypted with
#[derive(Debug, Subcommand)]
#[allow(missing_docs)]
pub enum Command {
    New(NewArgs),
    Add(backup_key_change::AddArgs),
    List(backup_key_list::Args),
    Remove(backup_key_change::RemoveArgs),
}

/// Make a new key in a file that is not there yet, or have the file say which key in AWS KMS it is
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct NewArgs {
    /// Where it goes; only you can read it
    #[arg(value_name = "FILE", value_parser = parse_file)]
    file: PathBuf,
    /// The key is this one in AWS KMS; it is tried out whether it encrypts and decrypts
    #[arg(long, value_name = "ARN")]
    kms: Option<String>,
    /// Where the KMS answers, if that is not Amazon's
    #[arg(long, value_name = "URL", requires = "kms")]
    kms_endpoint: Option<String>,
    /// File with the credentials to try it out with, in the form of ~/.aws/credentials; whoever opens the store uses those of the store
    #[arg(long, value_name = "FILE", requires = "kms", value_parser = parse_file)]
    store_credentials: Option<PathBuf>,
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
    match command {
        Command::New(args) => new(context, args),
        Command::Add(args) => backup_key_change::add(context, args),
        Command::List(args) => backup_key_list::run(context, args),
        Command::Remove(args) => backup_key_change::remove(context, args),
    }
}

fn new(context: &Context, args: &NewArgs) -> Result<Exit, CommandError> {
    let failed = |error| CommandError::new(ErrorKind::Failed, error);
    let file = &args.file;
    let Some(arn) = &args.kms else {
        let key = MasterKey::create(file).map_err(failed)?;
        context.show(&Made { id: key.id(), file: file.clone() })?;
        context.ui.say(format_args!(
            "'{}' has the key '{}': keep a copy of it, without which its backups are worth nothing",
            file.display(),
            key.id()
        ));
        return Ok(Exit::OK);
    };
    let named = KmsKey::new(arn, args.kms_endpoint.as_deref()).map_err(|error| CommandError::new(ErrorKind::Usage, error))?;
    let made = run_async(async |_| MasterKey::create_in_kms(file, &named, args.store_credentials.as_deref()).await.map_err(failed))?;
    context.show(&Made { id: made.id(), file: file.clone() })?;
    context.ui.say(format_args!(
        "'{}' names the key '{}', which encrypts and decrypts: when it is deleted in KMS, its backups are worth nothing",
        file.display(),
        made.id()
    ));
    Ok(Exit::OK)
}
