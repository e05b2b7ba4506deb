//! How the archive fares, in a form for people and programs, and what of it belongs into the log.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashSet},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::vault::Vault;
use crate::{
    backup::{archive::ArchiveError, wal_push::Pushed},
    model::{WalAccount, WalConflict, WalFailure, WalFile},
    postgres::{
        archive_status::{self, Backlog},
        backlog_growth::BacklogGrowth,
    },
    storage::StoreError,
    sys::{causes, files},
};

/// While the store is away, every file says so after every attempt, each time in other words: the log says it so often.
const TOLD_AGAIN: Duration = Duration::from_secs(300);

/// What is told of conflicts at most.
const MOST: usize = 100;

/// What has happened so far.
#[derive(Default)]
pub struct Health(RefCell<Known>);

#[derive(Default)]
struct Known {
    /// The numbers; which conflicts there are is beside it.
    account: WalAccount,
    last: Option<(WalFile, Timestamp)>,
    failing: Option<Failing>,
    /// What has another content than the archive, since when that is known, and where this one is.
    conflicts: BTreeMap<WalFile, (Timestamp, String)>,
    /// What the archive has and cannot be read.
    damaged: BTreeMap<WalFile, String>,
    fetch_error: Option<(Timestamp, String)>,
    /// When the log last told of it.
    fetch_told: Option<Timestamp>,
    growth: BacklogGrowth,
}

struct Failing {
    since: Timestamp,
    why: String,
    /// It does not pass by itself.
    refused: bool,
    /// When the log last said so.
    told: Instant,
}

impl Failing {
    /// The log has this to say: what may pass is told now and then, what somebody has to see to whenever it is something else.
    fn is_to_be_told(&self, why: &str, passes: bool, now: Instant) -> bool {
        if passes { now.duration_since(self.told) >= TOLD_AGAIN } else { self.why != why }
    }
}

impl Known {
    /// What waits by now: how fast that grows, and that what does not wait any more, because it was rewound or removed, is in nobody's way.
    fn looked(&mut self, backlog: &Backlog) {
        self.growth.sample(Instant::now(), backlog.bytes);
        if self.conflicts.is_empty() && self.damaged.is_empty() {
            return;
        }
        let waiting: HashSet<WalFile> = backlog.waiting.iter().copied().collect();
        self.conflicts.retain(|file, _| waiting.contains(file));
        self.damaged.retain(|file, _| waiting.contains(file));
    }

    fn account(&self) -> WalAccount {
        let conflict = |(file, (since, aside)): (&WalFile, &(Timestamp, String))| WalConflict {
            file: file.to_string(),
            since: *since,
            aside: aside.clone(),
        };
        WalAccount {
            conflicting: self.conflicts.len() as u64,
            conflicts: self.conflicts.iter().take(MOST).map(conflict).collect(),
            failing: self.failing.as_ref().map(|failing| WalFailure {
                since: failing.since,
                why: failing.why.clone(),
                refused: failing.refused,
            }),
            ..self.account.clone()
        }
    }
}

impl Health {
    /// Nothing has happened yet.
    pub fn new() -> Health {
        Health::default()
    }

    /// A file is in the archive; so many bytes were sent for it.
    pub fn archived(&self, file: WalFile, how: &Pushed, bytes: u64) {
        let mut known = self.0.borrow_mut();
        known.account.archived += 1;
        known.last = Some((file, Timestamp::now()));
        known.conflicts.remove(&file);
        known.damaged.remove(&file);
        if let Some(failing) = known.failing.take() {
            tracing::info!("'{file}' was archived: it works again, after it had not since {}", failing.since);
        }
        match how {
            Pushed::Stored => known.account.stored_bytes += bytes,
            Pushed::WasThere => tracing::debug!("'{file}' was in the archive"),
            Pushed::SameRecords => tracing::warn!("'{file}' was in the archive with the same records, and other bytes behind them"),
            Pushed::Aside(aside) => tracing::warn!("'{file}' was in the archive with another content; this one is kept as '{aside}'"),
        }
    }

    /// A file could not be archived.
    pub fn failed(&self, file: WalFile, error: &ArchiveError) {
        let why = causes::in_one_line(error);
        let mut known = self.0.borrow_mut();
        known.account.failures += 1;
        match error {
            ArchiveError::Conflict { aside, .. } => {
                // PostgreSQL asks for it again and again.
                known.conflicts.entry(file).or_insert_with(|| (Timestamp::now(), aside.to_string()));
            }
            ArchiveError::Damaged { .. } => drop(known.damaged.insert(file, why.clone())),
            _ => {}
        }
        let passes = error.is_unavailable();
        let (before, now) = (known.failing.take(), Instant::now());
        let is_told = before.as_ref().is_none_or(|before| before.is_to_be_told(&why, passes, now));
        let (since, told) = before.map_or_else(|| (Timestamp::now(), now), |before| (before.since, before.told));
        let refused = !passes
            && matches!(error, ArchiveError::Store(StoreError::Refused { .. }) | ArchiveError::Key(_) | ArchiveError::Damaged { .. });
        if is_told {
            tracing::error!("'{file}' could not be archived: {why} (failing since {since})");
        }
        known.failing = Some(Failing { since, why, refused, told: if is_told { now } else { told } });
    }

    /// Why the last attempt to archive failed, if it did.
    pub fn why_failing(&self) -> Option<String> {
        self.0.borrow().failing.as_ref().map(|failing| failing.why.clone())
    }

    /// A file of so many bytes has come from the archive.
    pub fn fetched(&self, bytes: u64) {
        let mut known = self.0.borrow_mut();
        known.account.fetched += 1;
        known.account.fetched_bytes += bytes;
        if known.fetch_error.take().is_some() {
            tracing::info!("the archive answers again");
        }
    }

    /// The archive said that it has none: it answers.
    pub fn answered(&self) {
        self.0.borrow_mut().fetch_error = None;
    }

    /// A file could not be restored, and nobody knows whether it is there.
    pub fn not_fetched(&self, file: WalFile, why: &str) {
        let mut known = self.0.borrow_mut();
        // A standby asks ten times a second, each time for another file.
        let now = Timestamp::now();
        if known.fetch_told.is_none_or(|told| now.duration_since(told).as_secs() >= 60) || known.fetch_error.is_none() {
            known.fetch_told = Some(now);
            tracing::warn!("'{file}' could not be restored: {why}");
        }
        known.fetch_error = Some((now, why.to_owned()));
    }

    /// What waits, and how much: that is what it grows by, and of conflicts what is still to be told. Returns the file that waits longest
    /// where the store has refused: somebody may have seen to it by now.
    pub async fn look(&self, vault: &Vault) -> Option<WalFile> {
        let backlog = backlog(vault).await?;
        let mut known = self.0.borrow_mut();
        known.looked(&backlog);
        known.failing.as_ref().filter(|failing| failing.refused)?;
        backlog.waiting.first().copied()
    }

    /// All of it, as JSON.
    pub async fn told(&self, vault: &Vault, left_behind: Value) -> String {
        let backlog = backlog(vault).await;
        let free = files::free_space(&vault.data_dir.join("pg_wal")).ok();
        if let Some(backlog) = &backlog {
            // What has been caught up with since the last look fills nothing any more.
            self.0.borrow_mut().looked(backlog);
        }
        let known = self.0.borrow();
        let account = known.account();
        let forecast = known.growth.forecast(free);
        let time = |at: &Timestamp| at.to_string();
        json!({
            "store": vault.url().to_string(),
            "cluster": vault.cluster().as_str(),
            "archived": account.archived,
            "stored_bytes": account.stored_bytes,
            "failures": account.failures,
            "last_archived": known.last.as_ref().map(|(file, at)| json!({"file": file.to_string(), "at": time(at)})),
            "waiting": backlog.as_ref().map_or(Value::Null, waiting),
            "failing_since": known.failing.as_ref().map(|failing| time(&failing.since)),
            "last_error": known.failing.as_ref().map(|failing| &failing.why),
            "failing": account.failing,
            "left_behind": left_behind,
            "conflicting": account.conflicting,
            "conflicts": account.conflicts,
            "damaged": named(&known.damaged),
            "fetched": account.fetched,
            "fetched_bytes": account.fetched_bytes,
            "fetch_error": known.fetch_error.as_ref().map(|(at, why)| json!({"at": time(at), "error": why})),
            "free_bytes": free,
            "growth_bytes_per_second": known.growth.rate(),
            "hours_until_full": forecast.map(|forecast| forecast.seconds_until_full as f64 / 3600.0),
            "disk": forecast,
        })
        .to_string()
    }
}

fn waiting(backlog: &Backlog) -> Value {
    json!({
        "files": backlog.waiting.len(),
        "bytes": backlog.bytes,
        "oldest": backlog.waiting.first().map(WalFile::to_string),
        "oldest_age_seconds": backlog.since.map(|since| since.elapsed().unwrap_or_default().as_secs()),
    })
}

fn named(files: &BTreeMap<WalFile, String>) -> Vec<Value> {
    files.iter().take(MOST).map(|(file, what)| json!({"file": file.to_string(), "what": what})).collect()
}

async fn backlog(vault: &Vault) -> Option<Backlog> {
    let data_dir = vault.data_dir.clone();
    tokio::task::spawn_blocking(move || archive_status::backlog(&data_dir)).await.ok()?.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_is_away_is_told_of_now_and_then_and_a_conflict_at_once() {
        let begun = Instant::now();
        let failing = Failing { since: Timestamp::now(), why: "asked 3 times".to_owned(), refused: false, told: begun };
        let told = |why, passes, seconds| failing.is_to_be_told(why, passes, begun + Duration::from_secs(seconds));
        assert!(!told("asked 4 times", true, 299) && told("asked 4 times", true, 300));
        assert!(told("another content", false, 1) && !told("asked 3 times", false, 1));
    }
}
