//! `spilo backup key list`: which master keys open an archive.

use jiff::Timestamp;
use serde::Serialize;

use super::backup_key_change::expect_no_system;
use crate::{
    backup::encryption::{MasterKey, Wrappings},
    cli::{
        CommandError, Context, ErrorKind, Exit,
        cluster_store::ClusterStoreArgs,
        inside::Inside,
        interrupt::run_async,
        output::{Shown, table},
        which_archive::{WhichArchive, Whose},
    },
    model::ClusterName,
    storage::Store,
};

/// List the keys that open an archive
///
/// None of them is needed for it, and a KMS is not asked.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Whose.
    #[command(flatten)]
    archive: WhichArchive,
}

/// The keys of an archive.
#[derive(Debug, Serialize)]
struct KeyList {
    cluster: ClusterName,
    keys: Vec<Key>,
    /// What is there and cannot be read.
    damaged: Vec<Damaged>,
}

/// One of them.
#[derive(Debug, Serialize)]
struct Key {
    /// It is in `CLUSTER/key/NUMBER`.
    number: u32,
    id: String,
    /// When it was made to open the archive.
    made: Timestamp,
    /// It is the one that was said with `--store-key`, or that the cluster has.
    configured: bool,
}

/// An object that cannot be read.
#[derive(Debug, Serialize)]
struct Damaged {
    object: String,
    why: String,
}

impl Shown for KeyList {
    const KIND: &'static str = "BackupKeyList";

    fn text(&self, _: bool) -> String {
        let configured = |key: &Key| if key.configured { "configured" } else { "-" }.to_owned();
        let made = |key: &Key| key.made.strftime("%Y-%m-%d %H:%M:%SZ").to_string();
        let rows = self.keys.iter().map(|key| [key.number.to_string(), key.id.clone(), made(key), configured(key)]);
        let mut text = table(["NUMBER", "KEY", "SINCE", "WHAT"], rows);
        self.damaged.iter().for_each(|damaged| text += &format!("unreadable: '{}': {}\n", damaged.object, damaged.why));
        text
    }
}

/// Lists them.
pub fn run(context: &Context, args: &Args) -> Result<Exit, CommandError> {
    expect_no_system(&args.archive)?;
    run_async(async |_| match args.archive.whose()? {
        Whose::InStore(place) => list(context, &place).await,
        Whose::OfCluster(cluster) => {
            let inside = Inside::of(&cluster).await?;
            inside.run(&inside.asked_for(context, &["backup", "key", "list"], None)).await
        }
    })
}

async fn list(context: &Context, place: &ClusterStoreArgs) -> Result<Exit, CommandError> {
    let failed = |error| CommandError::new(ErrorKind::Failed, error);
    let config = place.place.config();
    let own = config.key_file.as_deref().map(MasterKey::read).transpose().map_err(|error| CommandError::new(ErrorKind::Failed, error))?;
    let store = Store::open(&config).await.map_err(|error| CommandError::new(ErrorKind::Failed, error))?;
    let there = Wrappings::read(&store, &place.root()?).await.map_err(failed)?;
    let own = own.map(|own| own.id());
    let keys = there.in_use().map(|(number, wrapped)| Key {
        number,
        id: wrapped.master.clone(),
        made: wrapped.made,
        configured: own.as_ref() == Some(&wrapped.master),
    });
    let damaged = there.damaged().iter().map(|(object, why)| Damaged { object: object.to_string(), why: why.clone() });
    context.show(&KeyList { cluster: place.cluster.clone(), keys: keys.collect(), damaged: damaged.collect() })?;
    if there.is_empty() {
        context.ui.say(format_args!("the archive of '{}' has no keys: it is not encrypted, or nothing was archived yet", place.cluster));
    }
    Ok(Exit::OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_told_beside_what_can() {
        let key = Key { number: 2, id: "0011223344556677".to_owned(), made: Timestamp::UNIX_EPOCH, configured: true };
        let damaged = Damaged { object: "orders/key/00000001".to_owned(), why: "it cannot be read".to_owned() };
        let list = KeyList { cluster: "orders".parse().unwrap(), keys: vec![key], damaged: vec![damaged] };
        let expected = "NUMBER  KEY               SINCE                 WHAT\n\
            2       0011223344556677  1970-01-01 00:00:00Z  configured\n\
            unreadable: 'orders/key/00000001': it cannot be read\n";
        assert_eq!(list.text(false), expected);
    }
}
