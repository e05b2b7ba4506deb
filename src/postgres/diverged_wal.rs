//! WAL that a directory has and the leader does not: copied aside before a rewind or a copy discards it, so that whoever misses what was
//! written there can look. Nothing reads it again by itself.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::{Installation, PostgresError, rewind::Parting};
use crate::{
    model::{Lsn, Timeline, WalFile},
    sys::files,
};

/// How many sets are kept, the newest ones.
const SETS: usize = 3;

/// What became of the WAL that a directory is about to lose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// There is none.
    Nothing,
    /// It was copied to this directory.
    In(PathBuf),
    /// It was not copied: it needs this many bytes, and they must be free twice, so that coming back does not fill the disk.
    NoRoom {
        /// What it takes.
        needs: u64,
        /// What is free.
        free: u64,
    },
}

/// Where the sets lie: beside the data directory.
pub fn place(installation: &Installation) -> PathBuf {
    files::beside(&installation.data_dir, ".diverged")
}

/// Copies the segments from `parting` on, those that were never archived, and the histories of timelines. `story` says whose they are and
/// why they were set aside; it lies beside them.
pub fn keep(installation: &Installation, parting: Parting, story: &str) -> Result<Kept, PostgresError> {
    let wal = installation.data_dir.join("pg_wal");
    let segments = doomed(&wal, parting).map_err(PostgresError::file("read", &wal))?;
    if segments.is_empty() {
        return Ok(Kept::Nothing);
    }
    let place = place(installation);
    let needs: u64 = segments.iter().map(|segment| segment.bytes).sum();
    prune(&place, SETS - 1).map_err(PostgresError::file("clear up", &place))?;
    let free =
        files::free_space(&installation.data_dir).map_err(PostgresError::file("ask for the free space of", &installation.data_dir))?;
    if free < needs.saturating_mul(2) {
        return Ok(Kept::NoRoom { needs, free });
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let set = place.join(format!("{now}-timeline-{}-from-{}", parting.timeline, parting.position.to_string().replace('/', "-")));
    copy_set(&wal, &segments, &set, story).map_err(PostgresError::file("write", &set))?;
    Ok(Kept::In(set))
}

/// One segment that would be lost.
struct Segment {
    name: String,
    bytes: u64,
}

/// Segments with something from behind the parting, and those that still wait to be archived.
fn doomed(wal: &Path, parting: Parting) -> io::Result<Vec<Segment>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(wal)? {
        let entry = entry?;
        let (name, kind) = (entry.file_name().to_string_lossy().into_owned(), entry.metadata()?);
        if kind.is_file()
            && let Some((timeline, log, number)) = parse_name(&name)
        {
            all.push((name, timeline, log, number, kind.len()));
        }
    }
    // Every segment has the same size; a file cut short is none.
    let size = all.iter().map(|segment| segment.4).max().unwrap_or_default().max(1);
    let mut doomed = Vec::new();
    for (name, timeline, log, number, bytes) in all {
        let start = (u64::from(log) << 32) | u64::from(number).saturating_mul(size);
        let behind = timeline > parting.timeline || (timeline == parting.timeline && start.saturating_add(size) > parting.position.0);
        let waits = wal.join("archive_status").join(format!("{name}.ready")).exists();
        if waits || (behind && holds(&wal.join(&name), Lsn(start))?) {
            doomed.push(Segment { name, bytes });
        }
    }
    doomed.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(doomed)
}

/// Timeline and the two halves of the number, of a whole or partial segment's name.
fn parse_name(name: &str) -> Option<(Timeline, u32, u32)> {
    match name.parse() {
        Ok(WalFile::Segment(segment) | WalFile::Partial(segment)) => Some((segment.timeline, segment.log, segment.number)),
        _ => None,
    }
}

/// False for a segment that was only renamed for later use: its first page still says where it was used before.
fn holds(path: &Path, start: Lsn) -> io::Result<bool> {
    let mut header = [0_u8; 16];
    if let Err(error) = File::open(path)?.read_exact(&mut header) {
        return if error.kind() == io::ErrorKind::UnexpectedEof { Ok(false) } else { Err(error) };
    }
    let address = header[8..].try_into().map(u64::from_ne_bytes).expect("eight bytes are eight bytes");
    Ok(address == start.0)
}

fn copy_set(wal: &Path, segments: &[Segment], set: &Path, story: &str) -> io::Result<()> {
    let building = files::beside(set, ".new");
    files::remove_dir(&building)?;
    fs::create_dir_all(&building)?;
    let histories = fs::read_dir(wal)?.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).filter(|n| n.ends_with(".history"));
    for name in segments.iter().map(|s| s.name.clone()).chain(histories) {
        fs::copy(wal.join(&name), building.join(&name))?;
        File::open(building.join(&name))?.sync_all()?;
    }
    fs::write(building.join("README"), story)?;
    File::open(building.join("README"))?.sync_all()?;
    files::sync_parent(&building.join("README"))?;
    files::remove_dir(set)?;
    files::rename(&building, set)
}

/// Removes all but the newest `keep` sets, and what a killed attempt left.
fn prune(place: &Path, keep: usize) -> io::Result<()> {
    let entries = match fs::read_dir(place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let mut sets: Vec<(u64, PathBuf)> = entries.flatten().map(|entry| (age_rank(&entry.path()), entry.path())).collect();
    sets.sort();
    let surplus = sets.len().saturating_sub(keep);
    sets.iter().enumerate().filter(|(i, (rank, _))| *i < surplus || *rank == 0).try_for_each(|(_, (_, path))| files::remove_dir(path))
}

/// The time in a set's name; 0 for what is no complete set.
fn age_rank(path: &Path) -> u64 {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if name.ends_with(".new") { 0 } else { name.split('-').next().and_then(|n| n.parse().ok()).unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 1 << 20;

    fn installation(dir: &tempfile::TempDir) -> Installation {
        let data_dir = dir.path().join("data");
        fs::create_dir_all(data_dir.join("pg_wal/archive_status")).unwrap();
        Installation { data_dir, bin_dir: "".into(), passfile: "".into() }
    }

    fn segment(installation: &Installation, name: &str, address: u64) {
        let mut content = vec![0_u8; usize::try_from(SIZE).unwrap()];
        content[8..16].copy_from_slice(&address.to_ne_bytes());
        fs::write(installation.data_dir.join("pg_wal").join(name), content).unwrap();
    }

    fn names(set: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(set).unwrap().flatten().map(|e| e.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_lies_behind_the_parting_is_kept_and_what_was_only_renamed_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let here = installation(&dir);
        for number in 3..=5 {
            segment(&here, &format!("0000000200000000{number:08X}"), number * SIZE);
        }
        segment(&here, "000000020000000000000006", 2 * SIZE);
        segment(&here, "000000010000000000000002", 2 * SIZE);
        fs::write(here.data_dir.join("pg_wal/archive_status/000000010000000000000002.ready"), "").unwrap();
        fs::write(here.data_dir.join("pg_wal/00000002.history"), "1\t0/1\tx\n").unwrap();
        let parting = Parting { timeline: Timeline(2), position: Lsn(4 * SIZE + 100) };
        let Kept::In(set) = keep(&here, parting, "the story").unwrap() else { panic!("nothing was kept") };
        let expected = ["000000010000000000000002", "00000002.history", "000000020000000000000004", "000000020000000000000005", "README"];
        assert_eq!(names(&set), expected);
        assert_eq!(fs::read_to_string(set.join("README")).unwrap(), "the story");
    }

    #[test]
    fn only_the_newest_sets_stay() {
        let dir = tempfile::tempdir().unwrap();
        let here = installation(&dir);
        segment(&here, "000000010000000000000001", SIZE);
        for number in ["1", "2", "3", "4"] {
            fs::create_dir_all(place(&here).join(format!("{number}-timeline-1-from-0-0"))).unwrap();
        }
        fs::create_dir_all(place(&here).join("9-timeline-1-from-0-0.new")).unwrap();
        keep(&here, Parting { timeline: Timeline(1), position: Lsn(0) }, "").unwrap();
        let sets = names(&place(&here));
        assert_eq!(sets.len(), SETS, "{sets:?}");
        assert!(sets.contains(&"4-timeline-1-from-0-0".to_owned()) && !sets.iter().any(|s| s.ends_with(".new")), "{sets:?}");
    }

    #[test]
    fn nothing_is_made_where_nothing_would_be_lost() {
        let dir = tempfile::tempdir().unwrap();
        let here = installation(&dir);
        segment(&here, "000000010000000000000001", SIZE);
        assert_eq!(keep(&here, Parting { timeline: Timeline(1), position: Lsn(2 * SIZE) }, "").unwrap(), Kept::Nothing);
        assert!(!place(&here).exists());
    }
}
