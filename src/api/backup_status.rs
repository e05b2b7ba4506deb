//! How the backups of a cluster are, as the keeper of this node last saw them. The keeper writes it into a file beside the data directory; the
//! agent reads it there and shows it. Neither waits for the other.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    model::{DiskForecast, WalAccount, length_in_words},
    sys::files,
};

/// A keeper that has not written for so long is not there any more, or hangs.
const SILENT_AFTER: SignedDuration = SignedDuration::from_mins(15);

/// How old the oldest WAL that waits for being archived may be.
const WAL_PATIENCE: SignedDuration = SignedDuration::from_mins(5);

/// How the backups are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BackupStatus {
    /// When this was written.
    pub updated: Timestamp,
    /// Since when the keeper runs.
    pub since: Timestamp,
    /// When the store was last asked; `None`: it has not answered yet.
    pub seen: Option<Timestamp>,
    /// How many complete backups there are.
    pub backups: u64,
    /// When the newest one was complete.
    pub last_backup: Option<Timestamp>,
    /// When a backup was last read from beginning to end and found whole.
    pub last_verified: Option<Timestamp>,
    /// When a server was last started from a backup, and answered.
    pub last_restored: Option<Timestamp>,
    /// How long that took, from the beginning of the restore until the server answered.
    pub recovery_seconds: Option<f64>,
    /// Every moment since then can be gone back to.
    pub oldest_point: Option<Timestamp>,
    /// Bytes of all backups in the store.
    pub stored: u64,
    /// Pages that were damaged in the database already when the newest one was made.
    #[serde(default)]
    pub bad_pages: u64,
    /// This node has room for a test restore.
    pub room: bool,
    /// What this node is at.
    pub running: Option<Running>,
    /// What failed here last, unless it went well since.
    pub failure: Option<String>,
    /// What should have happened by now, or is damaged.
    pub overdue: Vec<String>,
    /// WAL of this node that waits for being archived.
    pub wal_waiting: WalWaiting,
    /// What the WAL service of this node has done since it was started; `None`: it did not say.
    #[serde(default)]
    pub wal_service: Option<WalAccount>,
}

/// What a node is at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// What, in words.
    pub job: String,
    /// Since when.
    pub since: Timestamp,
}

/// WAL that waits for being archived.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalWaiting {
    /// How many files.
    pub files: u64,
    /// Since when the oldest of them waits.
    pub since: Option<Timestamp>,
    /// How many bytes they have.
    #[serde(default)]
    pub bytes: u64,
    /// When they take all of the disk, if it goes on like this; `None`: they do not grow, or nobody knows yet.
    #[serde(default)]
    pub full: Option<Timestamp>,
}

impl WalWaiting {
    /// The same with the moment at which what is forecast now comes true.
    #[must_use]
    pub fn filling(self, disk: Option<DiskForecast>, now: Timestamp) -> WalWaiting {
        let left = disk.and_then(|disk| i64::try_from(disk.seconds_until_full).ok()).map(SignedDuration::from_secs);
        // What will not be in anybody's life is not told.
        WalWaiting { full: left.and_then(|left| now.checked_add(left).ok()), ..self }
    }
}

impl BackupStatus {
    /// The file of the node with this data directory.
    pub fn file(data_dir: &Path) -> PathBuf {
        files::beside(data_dir, ".backup-status.json")
    }

    /// Reads it. `None`: no keeper has ever written it here.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(data_dir: &Path) -> io::Result<Option<BackupStatus>> {
        match fs::read(BackupStatus::file(data_dir)) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes it, whole or not at all.
    ///
    /// # Errors
    /// When there is no room, or the directory cannot be written to.
    pub fn write(&self, data_dir: &Path) -> io::Result<()> {
        files::replace(&BackupStatus::file(data_dir), &serde_json::to_vec(self)?, 0o600)
    }

    /// What is wrong, in words for people; `leads`: this is the leader's node, whose WAL has to be archived.
    pub fn troubles(&self, leads: bool, now: Timestamp) -> Vec<String> {
        if now.duration_since(self.updated) > SILENT_AFTER {
            return vec![format!("nobody has seen to its backups for {}", length_in_words(now.duration_since(self.updated)))];
        }
        let mut found = self.overdue.clone();
        let silent = now.duration_since(self.seen.unwrap_or(self.since));
        if silent > SILENT_AFTER {
            found.push(format!("the backups' store has not answered for {}", length_in_words(silent)));
        }
        if leads {
            found.extend(self.wal_trouble(now));
        }
        if let Some(failure) = self.failure.as_ref().filter(|_| !found.is_empty()) {
            found.push(failure.clone());
        }
        found
    }

    /// Why what the leader writes is not in the archive: at once when somebody has to see to it, after a while when it may pass.
    fn wal_trouble(&self, now: Timestamp) -> Option<String> {
        let failing = self.wal_service.as_ref().and_then(|account| account.failing.as_ref());
        let refused = failing.filter(|failing| failing.refused);
        let waits = self.wal_waiting.since.map(|since| now.duration_since(since)).filter(|age| *age > WAL_PATIENCE);
        let Some(age) = waits else {
            return refused
                .map(|failing| format!("WAL is not archived for {}: {}", length_in_words(now.duration_since(failing.since)), failing.why));
        };
        let (files, s) = (self.wal_waiting.files, if self.wal_waiting.files == 1 { "" } else { "s" });
        let full = self.wal_waiting.full.map(|full| full.duration_since(now).max(SignedDuration::ZERO));
        let full = full.map_or(String::new(), |left| format!("; at this rate the disk is full in {}", length_in_words(left)));
        let why = failing.map_or(String::new(), |failing| format!("; {}", failing.why));
        let wait = if s.is_empty() { "waits" } else { "wait" };
        Some(format!("WAL is not archived: {files} file{s} {wait}, the oldest for {}{full}{why}", length_in_words(age)))
    }

    /// One line for people: when something was last backed up, and proven.
    pub fn line(&self, now: Timestamp) -> String {
        let ago = |time: Timestamp| format!("{} ago", length_in_words(now.duration_since(time)));
        let Some(last) = self.last_backup else {
            return match &self.running {
                // A new leader's node says nothing of backups before it has seen the store.
                _ if self.seen.is_none() => "the backups' store has not been looked at yet".to_owned(),
                Some(running) => format!("no backup yet, {} under way", running.job),
                None => "no backup yet".to_owned(),
            };
        };
        let verified = self.last_verified.map_or("never verified".to_owned(), |time| format!("last verified {}", ago(time)));
        let restored = match (self.last_restored, self.recovery_seconds) {
            (Some(time), Some(seconds)) => {
                format!("last proven restore {} in {}", ago(time), length_in_words(SignedDuration::from_secs_f64(seconds.max(1.0))))
            }
            (Some(time), None) => format!("last proven restore {}", ago(time)),
            _ if self.room => "no proven restore yet".to_owned(),
            _ => "no proven restore yet (there is no room for one)".to_owned(),
        };
        format!("last backup {}, {verified}, {restored}", ago(last))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::model::WalFailure;

    pub(crate) fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_795_000_000 + seconds).unwrap()
    }

    /// As of second 0, all well.
    pub(crate) fn well() -> BackupStatus {
        BackupStatus {
            updated: at(-20),
            since: at(-86_400),
            seen: Some(at(-60)),
            backups: 3,
            last_backup: Some(at(-3 * 3600)),
            last_verified: Some(at(-2 * 3600)),
            last_restored: Some(at(-2 * 86_400)),
            recovery_seconds: Some(95.0),
            oldest_point: Some(at(-8 * 86_400)),
            stored: 1 << 30,
            bad_pages: 0,
            room: true,
            running: None,
            failure: None,
            overdue: Vec::new(),
            wal_waiting: WalWaiting::default(),
            wal_service: None,
        }
    }

    #[test]
    fn one_line_says_when_something_was_last_proven() {
        assert_eq!(well().line(at(0)), "last backup 3 h ago, last verified 2 h ago, last proven restore 2 d ago in 1 min");
        let fresh = BackupStatus { last_verified: None, last_restored: None, ..well() };
        assert_eq!(fresh.line(at(0)), "last backup 3 h ago, never verified, no proven restore yet");
        let cramped = BackupStatus { last_restored: None, room: false, ..well() };
        assert!(cramped.line(at(0)).ends_with("no proven restore yet (there is no room for one)"));
        let running = Some(Running { job: "full backup".to_owned(), since: at(-5) });
        assert_eq!(BackupStatus { last_backup: None, running, ..well() }.line(at(0)), "no backup yet, full backup under way");
        assert_eq!(BackupStatus { last_backup: None, ..well() }.line(at(0)), "no backup yet");
        let unseen = BackupStatus { last_backup: None, seen: None, ..well() };
        assert_eq!(unseen.line(at(0)), "the backups' store has not been looked at yet");
    }

    #[test]
    fn what_is_overdue_or_not_archived_is_a_trouble() {
        assert_eq!(well().troubles(true, at(0)), [""; 0]);
        let late = BackupStatus { overdue: vec!["x".to_owned()], failure: Some("y".to_owned()), ..well() };
        assert_eq!(late.troubles(true, at(0)), ["x", "y"]);
        assert_eq!(BackupStatus { failure: Some("y".to_owned()), ..well() }.troubles(true, at(0)), [""; 0], "it is tried again");
        let waiting = BackupStatus { wal_waiting: WalWaiting { files: 7, since: Some(at(-301)), bytes: 7 << 20, full: None }, ..well() };
        assert_eq!(waiting.troubles(true, at(0)), ["WAL is not archived: 7 files wait, the oldest for 5 min"]);
        let full = BackupStatus { wal_waiting: waiting.wal_waiting.filling(DiskForecast::of(9 * 3600, 1), at(0)), ..well() };
        let told = "WAL is not archived: 7 files wait, the oldest for 5 min; at this rate the disk is full in 9 h";
        assert_eq!(full.troubles(true, at(0)), [told]);
        assert_eq!(waiting.troubles(false, at(0)), [""; 0], "a replica's may wait");
        let failing = |refused, status: &BackupStatus| {
            let failing = WalFailure { since: at(-60), why: "no such key".to_owned(), refused };
            BackupStatus { wal_service: Some(WalAccount { failing: Some(failing), ..WalAccount::default() }), ..status.clone() }
        };
        assert_eq!(failing(false, &well()).troubles(true, at(0)), [""; 0], "it may pass");
        assert_eq!(failing(true, &well()).troubles(true, at(0)), ["WAL is not archived for 1 min: no such key"]);
        assert_eq!(failing(true, &well()).troubles(false, at(0)), [""; 0], "it leads no more, and archives nothing");
        for refused in [false, true] {
            let told = "WAL is not archived: 7 files wait, the oldest for 5 min; no such key";
            assert_eq!(failing(refused, &waiting).troubles(true, at(0)), [told]);
        }
        assert_eq!(well().troubles(true, at(1000)), ["nobody has seen to its backups for 17 min"]);
        let mute = BackupStatus { updated: at(900), ..well() };
        assert_eq!(mute.troubles(true, at(900)), ["the backups' store has not answered for 16 min"]);
        let never = BackupStatus { seen: None, since: at(-890), ..well() };
        assert_eq!(never.troubles(true, at(0)), [""; 0]);
        assert_eq!(never.troubles(true, at(11)), ["the backups' store has not answered for 15 min"]);
    }

    #[test]
    fn what_does_not_grow_says_nothing_of_the_disk() {
        let full = |disk| WalWaiting { files: 1, ..WalWaiting::default() }.filling(disk, at(0)).full;
        assert_eq!((full(DiskForecast::of(1000, 10)), full(None)), (Some(at(100)), None));
        assert_eq!(full(DiskForecast::of(u64::MAX, 1)), None, "nor does what will not be in anybody's life");
    }

    #[test]
    fn it_comes_back_as_it_was_written() {
        let directory = tempfile::tempdir().unwrap();
        let data_dir = directory.path().join("data");
        assert_eq!(BackupStatus::read(&data_dir).unwrap(), None);
        well().write(&data_dir).unwrap();
        assert_eq!(BackupStatus::read(&data_dir).unwrap(), Some(well()));
        fs::write(BackupStatus::file(&data_dir), "x").unwrap();
        assert!(BackupStatus::read(&data_dir).is_err());
    }
}
