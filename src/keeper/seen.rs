//! What the store has of a cluster, as far as the schedule and the status depend on it.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::{
    api::backup_status::{BackupStatus, WalWaiting},
    backup::{
        Archive, ArchiveError,
        archived_wal::read_settled,
        catalog::Catalog,
        schedule::SeenBackup,
        verdict::{Depth, Verdict, Verdicts, read_verdicts},
        wal_graph::WalGraph,
    },
    storage::ObjectStore,
};

/// How often all WAL is listed: that of a busy cluster takes hundreds of questions.
const WAL_EVERY: Duration = Duration::from_secs(1800);

/// One look.
#[derive(Debug, Clone, Default)]
pub struct Store {
    /// The backups, in the order in which they were complete.
    pub backups: Vec<SeenBackup>,
    /// Bytes of the largest of the newest two.
    pub largest: u64,
    at: Option<Timestamp>,
    stored: u64,
    verified: Option<Timestamp>,
    restored: Option<Verdict>,
    unreadable: Vec<String>,
    oldest_point: Option<(Option<Timestamp>, Instant)>,
}

impl Store {
    /// Looks; `before` is what the last look has found.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn look<S: ObjectStore>(archive: &Archive<S>, before: Option<&Store>) -> Result<Store, ArchiveError> {
        let catalog = Catalog::read(archive).await?;
        let mut store = Store { at: Some(Timestamp::now()), ..Store::default() };
        for header in &catalog.backups {
            let verdicts = match read_verdicts(archive, &header.id).await {
                // What nobody can read proves nothing; the next look replaces it.
                Err(ArchiveError::Damaged { .. }) => Verdicts::default(),
                read => read?,
            };
            store.verified = store.verified.max(verdicts.proven());
            let drill = verdicts.of(Depth::Restored).filter(|verdict| verdict.ok);
            if drill.map(|drill| drill.at) > store.restored.as_ref().map(|known| known.at) {
                store.restored = drill.cloned();
            }
            store.stored = store.stored.saturating_add(header.stored);
            store.backups.push(SeenBackup::new(header, &verdicts));
        }
        store.largest = catalog.backups.iter().rev().take(2).map(|header| header.size).max().unwrap_or(0);
        store.unreadable = catalog.unreadable.iter().map(|found| format!("'{}' cannot be read: {}", found.object, found.why)).collect();
        // A backup that has come since is newer than the oldest point; where there is none, it may be the first.
        let is_known = |before: &&Store| {
            let same = before.backups.iter().map(|backup| &backup.id).eq(store.backups.iter().map(|backup| &backup.id));
            before.oldest_point.is_some_and(|(point, at)| at.elapsed() < WAL_EVERY && (point.is_some() || same))
        };
        let known = before.filter(is_known).and_then(|before| before.oldest_point);
        store.oldest_point = Some(match known {
            Some(known) => known,
            None => {
                let wal = read_settled(archive, catalog.backups.last().map(|header| header.segment_size)).await?;
                (oldest_point(&catalog, &store.backups, &wal.graph), Instant::now())
            }
        });
        Ok(store)
    }

    /// The store has answered to something else since.
    pub fn answered(&mut self, at: Timestamp) {
        self.at = self.at.max(Some(at));
    }

    /// What of it is shown, by a keeper that runs since then.
    pub fn status(&self, since: Timestamp, now: Timestamp) -> BackupStatus {
        BackupStatus {
            updated: now,
            since,
            seen: self.at,
            backups: self.backups.len() as u64,
            last_backup: self.backups.last().map(|backup| backup.complete),
            last_verified: self.verified,
            last_restored: self.restored.as_ref().map(|verdict| verdict.at),
            recovery_seconds: self.restored.as_ref().and_then(|verdict| verdict.recovery_seconds),
            oldest_point: self.oldest_point.and_then(|(point, _)| point),
            stored: self.stored,
            bad_pages: self.backups.last().map_or(0, |backup| backup.bad_pages),
            room: true,
            running: None,
            failure: None,
            overdue: self.unreadable.clone(),
            wal_waiting: WalWaiting::default(),
            wal_service: None,
        }
    }
}

/// Since when every moment can be gone back to: when the oldest backup was complete from which WAL is whole to the end.
fn oldest_point(catalog: &Catalog, seen: &[SeenBackup], graph: &WalGraph) -> Option<Timestamp> {
    let whole = |header: &&crate::backup::manifest::Header| {
        let timeline = graph.newest_from(header.stop.timeline, header.stop.lsn);
        graph.path(timeline).is_ok_and(|path| {
            let reach = graph.reach(&path, header.start.lsn);
            reach.hole.is_none() && reach.end >= header.stop.lsn && path.contains(header.start.timeline, header.start.lsn)
        })
    };
    let sound = catalog.backups.iter().zip(seen).filter(|(_, seen)| !seen.broken).map(|(header, _)| header);
    sound.filter(|header| whole(header)).map(|header| header.stop.time).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_answers_whoever_is_at_work_has_been_seen() {
        let at = |seconds: i64| Timestamp::from_second(1_795_000_000 + seconds).unwrap();
        let mut store = Store { at: Some(at(0)), ..Store::default() };
        for (answered, seen) in [(7200, 7200), (7100, 7200)] {
            store.answered(at(answered));
            let status = store.status(at(0), at(7210));
            assert_eq!((status.seen, status.troubles(true, at(7210))), (Some(at(seen)), Vec::new()));
        }
    }
}
