//! `spilo backup key add` and `remove`: which master keys open an archive, from now on.

use std::{io::Read as _, path::PathBuf};

use serde::Serialize;

use crate::{
    backup::{
        ArchiveError,
        encryption::{Changed, KeyError, MasterKey, SealedStore},
    },
    cli::{
        CommandError, Context, ErrorKind, Exit,
        change::ask,
        cluster_store::ClusterStoreArgs,
        inside::Inside,
        interrupt::{Interrupt, run_async},
        output::Shown,
        which_archive::{WhichArchive, Whose},
    },
    model::Secret,
    storage::Store,
};

/// Where a node reads the new key from: what is in an argument can be seen by others.
const STANDARD_INPUT: &str = "-";

const ADD_EXAMPLES: &str = "\
Examples:
  spilo backup key new new.key
  spilo backup key add orders new.key
  spilo backup key add --store s3://backups/prod --cluster orders --store-key old.key new.key

Then give the nodes the new file with 'spilo apply NAME --store-key FILE', and take the old key away with 'spilo backup key remove'.";

const REMOVE_EXAMPLES: &str = "\
Examples:
  spilo backup key list orders
  spilo backup key remove orders 8c1f6c8ae4dd5be0                               asks for the key's name
  spilo backup key remove orders 8c1f6c8ae4dd5be0 --confirm 8c1f6c8ae4dd5be0    in scripts

Whoever had the key before may have kept the archive's own key, which stays the same: to be safe from them, begin a new archive.";

/// Have another key open an archive too
///
/// The archive's own key, with which all of it is encrypted, stays the same: it is kept there once more, wrapped by the new key.
#[derive(Debug, clap::Args)]
#[command(after_help = ADD_EXAMPLES, allow_missing_positional = true)]
pub struct AddArgs {
    /// Whose.
    #[command(flatten)]
    archive: WhichArchive,
    /// File with the key that is added; - for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Take away from a key that it opens an archive
#[derive(Debug, clap::Args)]
#[command(after_help = REMOVE_EXAMPLES, allow_missing_positional = true)]
pub struct RemoveArgs {
    /// Whose.
    #[command(flatten)]
    archive: WhichArchive,
    /// The key, as 'spilo backup key list' names it; never the one that is configured
    #[arg(value_name = "KEY")]
    id: String,
    /// Confirm by repeating the key's name, where nobody can be asked
    #[arg(long, value_name = "KEY")]
    confirm: Option<String>,
}

/// What was done.
#[derive(Debug, Serialize)]
struct Done {
    id: String,
    /// It was not so before.
    changed: bool,
}

impl Shown for Done {
    const KIND: &'static str = "BackupKeyChange";

    fn text(&self, _: bool) -> String {
        self.id.clone()
    }
}

/// Adds a key.
pub fn add(context: &Context, args: &AddArgs) -> Result<Exit, CommandError> {
    expect_no_system(&args.archive)?;
    let (text, origin) = read(args)?;
    let new = MasterKey::parse(text.expose(), &origin).map_err(|error| CommandError::new(ErrorKind::Usage, error))?;
    run_async(async |_| {
        let place = match args.archive.whose()? {
            Whose::InStore(place) => place,
            Whose::OfCluster(cluster) => {
                let inside = Inside::of(&cluster).await?;
                let command = inside.asked_for(context, &["backup", "key", "add"], [STANDARD_INPUT.to_owned()]);
                return inside.run_with(&command, Some(text.expose().as_bytes())).await;
            }
        };
        let new = new.with_credentials(place.place.store_credentials.as_deref());
        let changed = opened(&place).await?.add_master(&new).await.map_err(failed)?;
        context.show(&Done { id: new.id(), changed: changed == Changed::Now })?;
        match changed {
            Changed::Now => context.ui.say(format_args!("the key '{}' opens the archive of '{}' too", new.id(), place.cluster)),
            Changed::Already => context.ui.say(format_args!("the key '{}' opens the archive of '{}' already", new.id(), place.cluster)),
        }
        Ok(Exit::OK)
    })
}

/// Removes a key.
pub fn remove(context: &Context, args: &RemoveArgs) -> Result<Exit, CommandError> {
    expect_no_system(&args.archive)?;
    // A wrong confirmation is refused whatever there is to remove.
    if let Some(word) = args.confirm.as_ref().filter(|word| **word != args.id) {
        return Err(not_confirmed(&args.id, word));
    }
    run_async(async |interrupt| {
        let id = &args.id;
        match args.archive.whose()? {
            Whose::InStore(place) => {
                let archive = opened(&place).await?;
                confirm(context, &interrupt, args).await?;
                let changed = archive.remove_master(id).await.map_err(failed)?;
                context.show(&Done { id: id.clone(), changed: changed == Changed::Now })?;
                context.ui.say(format_args!("the key '{id}' does not open the archive of '{}' any more", place.cluster));
                Ok(Exit::OK)
            }
            Whose::OfCluster(cluster) => {
                let inside = Inside::of(&cluster).await?;
                confirm(context, &interrupt, args).await?;
                let command = inside.asked_for(context, &["backup", "key", "remove"], [format!("--confirm={id}"), id.clone()]);
                inside.run(&command).await
            }
        }
    })
}

async fn confirm(context: &Context, interrupt: &Interrupt, args: &RemoveArgs) -> Result<(), CommandError> {
    let id = &args.id;
    if args.confirm.is_some() {
        return Ok(());
    }
    if !context.ui.can_ask() {
        let refused = format!("removing the key '{id}' needs a confirmation, and nobody is here to ask");
        let hint = args.archive.command("backup key remove", None, &format!("{id} --confirm {id}"));
        return Err(CommandError::new(ErrorKind::Refused, refused).hint(hint));
    }
    let question = format!("the key '{id}' will not open the archive any more, and nothing brings that back. Type it to go on:");
    match ask(&context.ui, interrupt, question).await? {
        Some(answer) if answer == *id => Ok(()),
        answer => Err(not_confirmed(id, answer.as_deref().unwrap_or_default())),
    }
}

fn not_confirmed(id: &str, word: &str) -> CommandError {
    CommandError::new(ErrorKind::Refused, format!("'{word}' is not the key '{id}'; nothing was removed"))
}

/// The text of the new key, and where it comes from.
fn read(args: &AddArgs) -> Result<(Secret, String), CommandError> {
    let mut text = String::new();
    let (read, origin) = match args.file.to_str() {
        Some(STANDARD_INPUT) => (std::io::stdin().read_to_string(&mut text).map(|_| text), "standard input".to_owned()),
        _ => (std::fs::read_to_string(&args.file), args.file.display().to_string()),
    };
    let unread = |error| CommandError::new(ErrorKind::Usage, format!("the key in '{origin}' cannot be read: {error}"));
    let text = read.map_err(unread)?;
    Ok((Secret::new(text), origin))
}

/// The archive, which the key that is configured opens.
async fn opened(place: &ClusterStoreArgs) -> Result<SealedStore<Store>, CommandError> {
    SealedStore::open(&place.place.config(), place.root()?).await.map_err(failed)
}

/// An archive has one key for all the data that there ever were under its name.
pub fn expect_no_system(archive: &WhichArchive) -> Result<(), CommandError> {
    match archive.system {
        None => Ok(()),
        Some(_) => Err(CommandError::new(ErrorKind::Usage, "all data under a cluster's name have the same keys: leave out '--system'")),
    }
}

fn failed(error: ArchiveError) -> CommandError {
    match error {
        ArchiveError::Key(error @ KeyError::InUse { .. }) => CommandError::new(ErrorKind::Refused, error)
            .hint("give the nodes another key first, or name the file of another one with --store-key"),
        ArchiveError::Key(error @ (KeyError::Unknown { .. } | KeyError::NotBegun { .. })) => CommandError::new(ErrorKind::NotFound, error),
        error => CommandError::new(ErrorKind::Failed, error),
    }
}
