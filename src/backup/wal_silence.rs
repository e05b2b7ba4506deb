//! What it means to PostgreSQL that nobody knows whether the archive has a file.

use std::path::Path;

use crate::model::{Timeline, WalFile};

/// True when "there is none" does no harm, though nobody knows. A standby asks again by itself, and goes on with streaming meanwhile. A server
/// that is done with recovery has neither signal file any more: all it wants then is the history of the timeline that it comes from, which
/// `pg_wal` has, because it was there before; to fail would end its promotion half-way. Whatever else recovers would take silence for the end
/// of all WAL.
pub fn ends_nothing(data_dir: &Path, file: Option<WalFile>) -> bool {
    if data_dir.join("standby.signal").exists() {
        return true;
    }
    match file {
        Some(WalFile::History(timeline)) if !data_dir.join("recovery.signal").exists() => {
            is_never_there(WalFile::History(timeline)) || data_dir.join(format!("pg_wal/{}", WalFile::History(timeline))).exists()
        }
        _ => false,
    }
}

/// The first timeline comes from nowhere: no store has to be asked for its history.
pub fn is_never_there(file: WalFile) -> bool {
    file == WalFile::History(Timeline(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promotion_goes_on_and_a_recovery_does_not_end() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("pg_wal")).unwrap();
        let history = |number| Some(WalFile::History(Timeline(number)));
        let segment = "000000010000000000000001".parse().ok();
        let ends_nothing = |file| ends_nothing(dir.path(), file);
        assert!(ends_nothing(history(1)) && !ends_nothing(history(2)) && !ends_nothing(segment) && !ends_nothing(None));
        std::fs::write(dir.path().join("pg_wal/00000002.history"), "").unwrap();
        assert!(ends_nothing(history(2)) && !ends_nothing(segment));
        std::fs::write(dir.path().join("recovery.signal"), "").unwrap();
        assert!(!ends_nothing(history(2)) && !ends_nothing(history(1)) && !ends_nothing(segment));
        std::fs::write(dir.path().join("standby.signal"), "").unwrap();
        assert!(ends_nothing(history(2)) && ends_nothing(segment) && ends_nothing(None), "of both signals that of a standby counts");
    }
}
