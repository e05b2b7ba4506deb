//! What makes a store of a place in a bucket: a mark, and the proof that of several writers one wins there.

use bytes::Bytes;
use futures_util::future::join_all;

use super::{S3Store, list};
use crate::{
    model::ObjectName,
    storage::{Claim, ObjectStore, StoreError},
};

/// The object that tells a store from a prefix with a spelling mistake. Clusters have shorter lives than it, and other names.
const MARK: &str = "spilo-store";

/// What the mark begins with.
const FORMAT: &str = "a store of spilo, format 1";

/// Where writes are tried out.
const PROBE: &str = "spilo-probe";

/// So many races of so many writers: a server that looks before it writes, and not while it does, loses one of them.
const RACES: usize = 3;
const RACERS: usize = 8;

/// The place is a store.
pub async fn check(store: &S3Store) -> Result<(), StoreError> {
    if marked(store).await? { Ok(()) } else { Err(refused(store, "there is no store; hint: 'spilo wal init' makes a new one".to_owned())) }
}

/// The place becomes a store, if it is none.
pub async fn make(store: &S3Store) -> Result<(), StoreError> {
    let marked = marked(store).await?;
    if !marked {
        check_empty(store).await?;
    }
    let probe = name(PROBE).join(&chance()?).map_err(|error| refused(store, error.to_string()))?;
    let tried = try_out(store, &probe).await;
    let cleaned = clean(store, &probe).await;
    tried?;
    cleaned?;
    if !marked {
        // Somebody else may do the same at this moment; both marks are good.
        store.create(&name(MARK), format!("{FORMAT}, {}\n", chance()?).into()).await?;
    }
    Ok(())
}

async fn marked(store: &S3Store) -> Result<bool, StoreError> {
    let Some(mark) = store.read(&name(MARK)).await? else { return Ok(false) };
    if mark.starts_with(FORMAT.as_bytes()) {
        return Ok(true);
    }
    let said = String::from_utf8_lossy(&mark[..mark.len().min(100)]).into_owned();
    Err(refused(store, format!("its '{MARK}' says '{}', which this version does not know", said.trim())))
}

async fn check_empty(store: &S3Store) -> Result<(), StoreError> {
    let prefix = if store.place().prefix.is_empty() { String::new() } else { format!("{}/", store.place().prefix) };
    let probes = format!("{prefix}{PROBE}/");
    let page = list::page(store, &mut store.patience_for(&name(MARK)), &prefix, None).await?;
    // What an interrupted attempt has left is nothing.
    match page.contents().iter().filter_map(|object| object.key()).find(|key| !key.starts_with(&probes) && *key != prefix) {
        Some(key) => Err(refused(store, format!("something else is there, such as '{key}'; hint: take an empty prefix"))),
        None => Ok(()),
    }
}

/// Writes twice under a name, and then from many sides at once.
async fn try_out(store: &S3Store, probe: &ObjectName) -> Result<(), StoreError> {
    let name = below(store, probe, 0)?;
    store.create(&name, Bytes::from_static(b"first")).await?;
    let again = store.create(&name, Bytes::from_static(b"second")).await?;
    let left = store.read(&name).await?;
    if again == Claim::Won || left.as_deref() != Some(b"first") {
        return Err(no_winner(store, "it takes a second write under a name"));
    }
    for race in 1..=RACES {
        let name = below(store, probe, race)?;
        let claims = join_all((0..RACERS).map(|racer| store.create(&name, racer.to_string().into()))).await;
        let claims: Vec<Claim> = claims.into_iter().collect::<Result<_, _>>()?;
        let winners: Vec<String> = (0..RACERS).filter(|racer| claims[*racer] == Claim::Won).map(|racer| racer.to_string()).collect();
        let left = store.read(&name).await?;
        // Nobody knows of a win whose answer got lost.
        let one = match &winners[..] {
            [] => true,
            [winner] => left.as_deref() == Some(winner.as_bytes()),
            _ => false,
        };
        if !one {
            return Err(no_winner(store, &format!("{} of {RACERS} writers at the same time were told that they had won", winners.len())));
        }
    }
    Ok(())
}

async fn clean(store: &S3Store, probe: &ObjectName) -> Result<(), StoreError> {
    for race in 0..=RACES {
        store.remove(&below(store, probe, race)?).await?;
    }
    Ok(())
}

fn no_winner(store: &S3Store, what: &str) -> StoreError {
    let why = format!(
        "{} has no conditional writes ({what}), so two members could write over each other's WAL; hint: take a server that honours \
         'If-None-Match: *', or a newer version of this one",
        store.place().server
    );
    refused(store, why)
}

fn refused(store: &S3Store, why: String) -> StoreError {
    StoreError::Refused { object: store.place().to_string(), why }
}

fn below(store: &S3Store, probe: &ObjectName, race: usize) -> Result<ObjectName, StoreError> {
    probe.join(&race.to_string()).map_err(|error| refused(store, error.to_string()))
}

fn name(text: &str) -> ObjectName {
    text.parse().expect("it is one word of letters")
}

fn chance() -> Result<String, StoreError> {
    let mut chance = [0; 16];
    let filled = getrandom::fill(&mut chance);
    filled.map_err(|error| StoreError::Unavailable { object: MARK.to_owned(), why: format!("no random numbers: {error}") })?;
    Ok(hex::encode(chance))
}
