//! History files of timelines in `pg_wal`: where this directory's timelines forked off, and which number a promotion takes.
//!
//! PostgreSQL begins the timeline after the last of an unbroken row of history files. Numbers that belong to other members' timelines are
//! kept from being taken by a file that holds their place: it has only a comment, so that it is no timeline's parent or child.

use std::{fs, path::Path};

use super::PostgresError;
use crate::{
    model::{HistoryLine, Timeline, parse_history},
    sys::files,
};

/// How a file that only holds a number's place begins. The query that observes a server knows it too.
pub const PLACE: &str = "# place held";

/// More numbers than this are never skipped at once: what asks for it is a mistake.
const MOST: u32 = 1000;

fn file_name(timeline: Timeline) -> String {
    format!("{:08X}.history", timeline.0)
}

fn path(data: &Path, timeline: Timeline) -> std::path::PathBuf {
    data.join("pg_wal").join(file_name(timeline))
}

/// The timelines that came before `timeline`, as this directory knows them. `None`: it has no history file of it, or one that says nothing.
pub fn lineage(data: &Path, timeline: Timeline) -> Option<Vec<HistoryLine>> {
    if timeline <= Timeline(1) {
        return Some(Vec::new());
    }
    let text = fs::read_to_string(path(data, timeline)).ok()?;
    parse_history(&text).filter(|lines| !lines.is_empty())
}

/// The highest number that any history file of this directory has; 1 where there is none.
pub fn highest(data: &Path) -> Result<Timeline, PostgresError> {
    let directory = data.join("pg_wal");
    let entries = fs::read_dir(&directory).map_err(PostgresError::file("read", &directory))?;
    let numbers = entries.flatten().filter_map(|entry| u32::from_str_radix(entry.file_name().to_str()?.strip_suffix(".history")?, 16).ok());
    Ok(Timeline(numbers.max().unwrap_or(1).max(1)))
}

/// Makes the next promotion of this standby, which is on `present`, begin the timeline `next` and no lower one. Ancestors whose file is
/// missing get their real history, because other standbys ask for the files of all numbers in between.
pub fn hold_places(data: &Path, present: Timeline, next: Timeline) -> Result<(), PostgresError> {
    if next.0.saturating_sub(present.0) > MOST {
        return Err(PostgresError::Sql(format!("timeline {next} does not follow timeline {present}: look at the DCS key 'timeline'")));
    }
    let past = lineage(data, present).unwrap_or_default();
    let lowest = next.0.saturating_sub(MOST).max(2);
    for number in (lowest..next.0).map(Timeline) {
        let file = path(data, number);
        if file.exists() {
            continue;
        }
        let text = if past.iter().any(|line| line.timeline == number) {
            past.iter().filter(|line| line.timeline < number).map(render).collect()
        } else {
            format!("{PLACE}: timeline {number} is no part of this history\n")
        };
        files::replace(&file, text.as_bytes(), 0o600).map_err(PostgresError::file("write", file))?;
    }
    Ok(())
}

fn render(line: &HistoryLine) -> String {
    format!("{}\t{}\t{}\n", line.timeline, line.switch, line.reason)
}

/// Removes files that hold places above the newest timeline that is real. A standby that starts looks for the newest timeline, without
/// asking whether it is its own: it would wait for one that will never be.
pub fn clear_places(data: &Path, present: Timeline) -> Result<(), PostgresError> {
    let mut newest = present;
    while path(data, Timeline(newest.0 + 1)).exists() {
        newest.0 += 1;
    }
    while newest > present && holds_place(data, newest) {
        let file = path(data, newest);
        files::remove_file(&file).map_err(PostgresError::file("remove", file))?;
        newest.0 -= 1;
    }
    Ok(())
}

fn holds_place(data: &Path, timeline: Timeline) -> bool {
    fs::read_to_string(path(data, timeline)).is_ok_and(|text| text.starts_with(PLACE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Lsn;

    fn wal(files: &[(u32, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("pg_wal")).unwrap();
        for (number, text) in files {
            fs::write(path(dir.path(), Timeline(*number)), text).unwrap();
        }
        dir
    }

    fn text(dir: &tempfile::TempDir, number: u32) -> Option<String> {
        fs::read_to_string(path(dir.path(), Timeline(number))).ok()
    }

    #[test]
    fn numbers_in_between_are_held_and_ancestors_keep_their_history() {
        let dir = wal(&[(4, "1\t0/100\tx\n3\t0/200\ty\n")]);
        hold_places(dir.path(), Timeline(4), Timeline(7)).unwrap();
        assert_eq!(text(&dir, 3).unwrap(), "1\t0/100\tx\n");
        assert!([2, 5, 6].iter().all(|n| text(&dir, *n).unwrap().starts_with(PLACE)));
        assert_eq!(text(&dir, 4).unwrap(), "1\t0/100\tx\n3\t0/200\ty\n");
        assert!(text(&dir, 7).is_none());
    }

    #[test]
    fn a_number_that_cannot_be_meant_is_refused() {
        let dir = wal(&[]);
        let error = hold_places(dir.path(), Timeline(1), Timeline(u32::MAX)).unwrap_err().to_string();
        assert!(error.contains("DCS key 'timeline'"), "{error}");
        assert!(text(&dir, 2).is_none());
    }

    #[test]
    fn a_standby_that_starts_finds_no_held_place_at_the_end() {
        let held = format!("{PLACE}\n");
        let dir = wal(&[(2, &held), (3, "1\t0/100\tx\n"), (4, &held), (5, &held)]);
        clear_places(dir.path(), Timeline(1)).unwrap();
        assert!(text(&dir, 4).is_none() && text(&dir, 5).is_none());
        assert!(text(&dir, 2).is_some() && text(&dir, 3).is_some(), "below a real timeline they are needed");
    }

    #[test]
    fn a_lineage_is_known_only_from_a_file_that_says_something() {
        let held = format!("{PLACE}\n");
        let dir = wal(&[(2, &held), (3, "1\t0/100\tx\n")]);
        assert_eq!(lineage(dir.path(), Timeline(1)), Some(Vec::new()));
        assert_eq!((lineage(dir.path(), Timeline(2)), lineage(dir.path(), Timeline(4))), (None, None));
        assert_eq!(lineage(dir.path(), Timeline(3)).unwrap()[0].switch, Lsn(0x100));
        assert_eq!(highest(dir.path()).unwrap(), Timeline(3));
    }
}
