//! What PostgreSQL wants archived: the notes in `pg_wal/archive_status`. They are PostgreSQL's own; nobody else changes them.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use crate::model::WalFile;

/// What waits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Backlog {
    /// The files that wait, in the order in which PostgreSQL asks for them: histories, then the oldest.
    pub waiting: Vec<WalFile>,
    /// Since when the first of them has been waiting.
    pub since: Option<SystemTime>,
    /// Their bytes.
    pub bytes: u64,
}

/// Where a file of `pg_wal` lies.
pub fn path_of(data_dir: &Path, file: WalFile) -> PathBuf {
    data_dir.join("pg_wal").join(file.to_string())
}

/// The files that wait. None, where there is no such directory yet.
pub fn waiting(data_dir: &Path) -> io::Result<Vec<WalFile>> {
    let entries = match fs::read_dir(data_dir.join("pg_wal/archive_status")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        found.extend(name.to_str().and_then(|name| name.strip_suffix(".ready")).and_then(|name| name.parse::<WalFile>().ok()));
    }
    found.sort_by_cached_key(|file| (!matches!(file, WalFile::History(_)), file.to_string()));
    Ok(found)
}

/// What waits, how long and how much it is.
pub fn backlog(data_dir: &Path) -> io::Result<Backlog> {
    let waiting = waiting(data_dir)?;
    let size = |file: &WalFile| fs::metadata(path_of(data_dir, *file)).map_or(0, |found| found.len());
    let bytes = waiting.iter().map(size).sum();
    let since =
        |file: &WalFile| fs::metadata(data_dir.join(format!("pg_wal/archive_status/{file}.ready"))).and_then(|note| note.modified());
    // One that was archived meanwhile has no time any more.
    let since = waiting.iter().filter_map(|file| since(file).ok()).min();
    Ok(Backlog { waiting, since, bytes })
}

/// True when PostgreSQL still wants the file archived.
pub fn waits(data_dir: &Path, file: WalFile) -> bool {
    data_dir.join(format!("pg_wal/archive_status/{file}.ready")).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histories_come_first_and_then_the_oldest() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(waiting(dir.path()).unwrap(), []);
        fs::create_dir_all(dir.path().join("pg_wal/archive_status")).unwrap();
        let names = ["000000020000000000000003", "000000010000000000000002", "00000002.history", "000000010000000000000002.partial"];
        for name in names {
            fs::write(dir.path().join(format!("pg_wal/archive_status/{name}.ready")), "").unwrap();
            fs::write(dir.path().join(format!("pg_wal/{name}")), [0; 10]).unwrap();
        }
        fs::write(dir.path().join("pg_wal/archive_status/000000010000000000000001.done"), "").unwrap();
        let order: Vec<String> = waiting(dir.path()).unwrap().iter().map(WalFile::to_string).collect();
        assert_eq!(order, [names[2], names[1], names[3], names[0]]);
        let backlog = backlog(dir.path()).unwrap();
        assert_eq!((backlog.bytes, backlog.waiting.len()), (40, 4));
        assert!(backlog.since.is_some_and(|since| since.elapsed().unwrap_or_default().as_secs() < 60));
        assert!(waits(dir.path(), backlog.waiting[0]) && !waits(dir.path(), "000000010000000000000001".parse().unwrap()));
    }
}
