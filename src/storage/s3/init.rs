//! What makes a store of a place in a bucket: a mark, and the proof that of several writers one wins there.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::future::join_all;

use super::{
    S3Store, list,
    read::{WHOLE, read},
};
use crate::{
    model::ObjectName,
    storage::{Claim, ObjectStore, StoreError, mark},
};

/// The object that tells a store from a prefix with a spelling mistake. Clusters have shorter lives than it, and other names.
const MARK: &str = "spilo-store";

/// Where writes are tried out.
const PROBE: &str = "spilo-probe";

/// So many races of so many writers: a server that looks before it writes, and not while it does, loses one of them.
const RACES: usize = 3;
const RACERS: usize = 8;

/// For so long after it was seen nobody looks at the mark again: a standby asks for what is not there all the time.
const BELIEVED: Duration = Duration::from_secs(10);

/// The same for what is written, over connections over which the mark was seen.
const BELIEVED_BY_WRITERS: Duration = Duration::from_secs(60);

/// The mark of the store that was opened, and when it was last seen there.
pub struct Mark {
    text: Bytes,
    seen: Mutex<Seen>,
}

/// When the mark was found as it was. `None`: never, or the last look has found something else or did not come to its end.
#[derive(Debug, Clone, Copy)]
struct Seen {
    /// By who has found nothing under some name.
    by_readers: Option<Instant>,
    /// By who writes.
    by_writers: Option<Instant>,
    /// How many connections there had been by then.
    connections: u64,
}

impl Mark {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A look has ended that began then, when there had been so many connections.
    fn note(&self, begun: Instant, connections: u64, is_the_same: bool) {
        let mut seen = self.seen();
        *seen = if is_the_same {
            // Another one may have begun later and ended before.
            let [by_readers, by_writers] = [seen.by_readers, seen.by_writers].map(|before| before.max(Some(begun)));
            Seen { by_readers, by_writers, connections: seen.connections.max(connections) }
        } else {
            Seen { by_readers: None, by_writers: None, ..*seen }
        };
    }
}

/// The mark of the place, which has to be a store.
pub async fn check(store: &S3Store) -> Result<Mark, StoreError> {
    let begun = Instant::now();
    let found = known(store).await?;
    let text = found.ok_or_else(|| refused(store, "there is no store; hint: 'spilo wal init' makes a new one".to_owned()))?;
    // Nobody else has used the store yet: the connections that there are led to it just now.
    let seen = Seen { by_readers: None, by_writers: Some(begun), connections: store.access.connections() };
    Ok(Mark { text, seen: Mutex::new(seen) })
}

/// Whether the store is still the one that was opened: only then is it true that it has nothing under some name.
pub async fn check_nothing(store: &S3Store, mark: &Mark) -> Result<(), StoreError> {
    let seen = mark.seen().by_readers;
    if is_within(seen, BELIEVED) { Ok(()) } else { look(store, mark).await }
}

/// The same before something is written, now and then: a proxy keeps its connections whoever is behind it.
pub async fn check_before_write(store: &S3Store, mark: &Mark) -> Result<(), StoreError> {
    let seen = mark.seen().by_writers;
    if is_within(seen, BELIEVED_BY_WRITERS) { Ok(()) } else { look(store, mark).await }
}

fn is_within(seen: Option<Instant>, time: Duration) -> bool {
    seen.is_some_and(|seen| seen.elapsed() < time)
}

/// The same after something was written: not durable in this store is what went to another one. With connections that are known it costs nothing.
pub async fn check_after_write(store: &S3Store, mark: &Mark, had_trouble: bool) -> Result<(), StoreError> {
    let is_new = store.access.connections() > mark.seen().connections;
    if had_trouble || is_new { look(store, mark).await } else { Ok(()) }
}

async fn look(store: &S3Store, mark: &Mark) -> Result<(), StoreError> {
    let (begun, connections) = (Instant::now(), store.access.connections());
    let found = read(store, &name(MARK), WHOLE).await;
    let is_the_same = matches!(&found, Ok(Some(text)) if *text == mark.text);
    mark.note(begun, connections, is_the_same);
    let what = match found? {
        Some(_) if is_the_same => return Ok(()),
        Some(_) => "is another one than it was; hint: bring back the one that it was, or restart the agent if this one is meant",
        None => "is no store any more; hint: has it been emptied, or is another server at its address?",
    };
    Err(StoreError::Unavailable { object: MARK.to_owned(), why: format!("'{}' {what}", store.place()) })
}

/// The place becomes a store, if it is none.
pub async fn make(store: &S3Store) -> Result<(), StoreError> {
    let marked = known(store).await?.is_some();
    if !marked {
        check_empty(store).await?;
    }
    let probe = name(PROBE).join(&mark::chance().map_err(|error| no_chance(&error))?).map_err(|error| refused(store, error.to_string()))?;
    let tried = try_out(store, &probe).await;
    let cleaned = clean(store, &probe).await;
    tried?;
    cleaned?;
    if !marked {
        // Somebody else may do the same at this moment; both marks are good.
        store.create(&name(MARK), mark::new().map_err(|error| no_chance(&error))?.into()).await?;
    }
    Ok(())
}

/// The mark that is there, if this version knows it.
async fn known(store: &S3Store) -> Result<Option<Bytes>, StoreError> {
    let Some(mark) = read(store, &name(MARK), WHOLE).await? else { return Ok(None) };
    mark::check(MARK, &mark).map(|()| Some(mark)).map_err(|why| refused(store, why))
}

async fn check_empty(store: &S3Store) -> Result<(), StoreError> {
    let prefix = if store.place().prefix.is_empty() { String::new() } else { format!("{}/", store.place().prefix) };
    let probes = format!("{prefix}{PROBE}/");
    let page = list::page(store, &mut store.patience_for(&name(MARK)), &prefix, None).await?;
    // What an interrupted attempt has left is nothing, and a mark is that of somebody who does the same at this moment.
    let mark = store.place().key(&name(MARK));
    let is_nothing = |key: &str| key.starts_with(&probes) || key == prefix || key == mark;
    match page.contents().iter().filter_map(|object| object.key()).find(|key| !is_nothing(key)) {
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

fn no_chance(error: &std::io::Error) -> StoreError {
    StoreError::Unavailable { object: MARK.to_owned(), why: error.to_string() }
}
