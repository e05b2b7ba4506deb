//! What this member remembers of its cluster, on disk beside the data directory: a DCS may lose its content while every agent is down.
//!
//! It is written before this member acts on a change that others depend on, and otherwise at the end of the turn that saw one. A file that
//! cannot be read is no empty memory: it is said so, and as long as the DCS does not know the cluster this member keeps out of everything.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{past::Past, shell::Shell};
use crate::sys::files;

/// The file beside the data directory.
const SUFFIX: &str = ".past";

/// What a file that could not be read is called once the DCS has told what it is to say.
const ASIDE: &str = ".unreadable";

/// The form of the file: an agent that does not know it does not guess.
const FORMAT: u32 = 1;

/// What is on disk.
#[derive(Serialize, Deserialize)]
struct Record {
    format: u32,
    /// The cluster's name in the DCS.
    scope: String,
    #[serde(flatten)]
    past: Past,
}

/// The form alone, for files of other forms.
#[derive(Deserialize)]
struct Form {
    format: u32,
}

/// The file, and what it says.
#[derive(Debug)]
pub struct PastFile {
    path: PathBuf,
    scope: String,
    kept: Past,
    unreadable: Option<String>,
    complaint: Option<String>,
}

impl PastFile {
    /// Opens the file beside this data directory.
    pub fn open(data_dir: &Path, scope: &str) -> PastFile {
        let path = files::beside(data_dir, SUFFIX);
        let (kept, unreadable) = match read(&path, scope) {
            Ok(past) => (past, None),
            Err(why) => (Past::default(), Some(explained(&path, &why))),
        };
        if let Some(why) = &unreadable {
            tracing::error!("{why}");
        }
        PastFile { path, scope: scope.to_owned(), kept, unreadable, complaint: None }
    }

    /// What was remembered.
    pub fn kept(&self) -> &Past {
        &self.kept
    }

    /// Which file could not be read, why, and what to do.
    pub fn unreadable(&self) -> Option<&String> {
        self.unreadable.as_ref()
    }

    /// Brings the file up to date, on disk when this returns. One that could not be read is put aside first.
    pub fn keep(&mut self, past: &Past) -> io::Result<()> {
        if past.says_the_same_as(&self.kept) {
            return Ok(());
        }
        if self.unreadable.is_some() && self.path.exists() {
            files::rename(&self.path, &files::beside(&self.path, ASIDE))?;
        }
        let record = Record { format: FORMAT, scope: self.scope.clone(), past: past.clone() };
        let text = serde_json::to_string(&record).expect("names and numbers, so JSON cannot fail");
        files::replace(&self.path, text.as_bytes(), 0o600).map_err(|error| {
            let what = format!("'{}' cannot be written, where is kept what the DCS may forget: {error}", self.path.display());
            io::Error::new(error.kind(), what)
        })?;
        self.unreadable = None;
        self.kept = past.clone();
        Ok(())
    }
}

impl Shell {
    /// Has what is remembered on disk when this returns.
    pub(super) fn keep_past(&mut self) -> io::Result<()> {
        if self.memory.past_unreadable.is_some() {
            // What others have told is no substitute for what was lost here: after another start it would look like one.
            return Ok(());
        }
        self.past.keep(&self.memory.past)
    }

    /// The same, where nothing depends on it yet.
    pub(super) fn keep_past_for_later(&mut self) {
        let complaint = self.keep_past().err().map(|error| error.to_string());
        if let Some(new) = complaint.as_ref().filter(|_| complaint != self.past.complaint) {
            tracing::error!("{new}");
        }
        self.past.complaint = complaint;
    }
}

fn read(path: &Path, scope: &str) -> Result<Past, String> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Past::default()),
        Err(error) => return Err(error.to_string()),
    };
    match serde_json::from_slice::<Form>(&text) {
        Ok(Form { format: FORMAT }) => {}
        Ok(Form { format }) => return Err(format!("it has the form {format}, which a newer spilo may know")),
        Err(error) => return Err(format!("it is damaged: {error}")),
    }
    let record: Record = serde_json::from_slice(&text).map_err(|error| format!("it is damaged: {error}"))?;
    if record.scope != scope {
        return Err(format!("it is of the cluster '{}', this is '{scope}'", record.scope));
    }
    Ok(record.past)
}

/// What to do about it, for whoever reads the log or `/patroni`.
fn explained(path: &Path, why: &str) -> String {
    format!(
        "what this member remembers of the cluster cannot be read from '{}': {why}. As long as the DCS knows the cluster nothing is lost by it; \
         if the DCS has lost its content, put the right file there, or remove it, which may let commits be lost that no other member knows of, \
         and start the agent again",
        path.display()
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::model::{SystemId, Term};

    fn past(term: u64) -> Past {
        let mut past = Past { system: Some(SystemId(7_000_000_001)), leader: Some("a".parse().unwrap()), ..Past::default() };
        past.as_of.term = Term(term);
        past.members = ["a".parse().unwrap()].into();
        past
    }

    fn data() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        (dir, data)
    }

    #[test]
    fn what_is_kept_outlives_the_agent_and_is_nobody_elses_to_read() {
        let (dir, data) = data();
        let mut file = PastFile::open(&data, "orders");
        assert!(file.kept().is_nothing() && file.unreadable().is_none());
        file.keep(&past(3)).unwrap();
        assert_eq!(PastFile::open(&data, "orders").kept(), &past(3));
        let mode = fs::metadata(dir.path().join("data.past")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn only_what_matters_is_written() {
        let (dir, data) = data();
        let mut file = PastFile::open(&data, "orders");
        file.keep(&past(3)).unwrap();
        fs::remove_file(dir.path().join("data.past")).unwrap();
        let mut later = past(3);
        later.as_of.revision = 70;
        file.keep(&later).unwrap();
        assert!(!dir.path().join("data.past").exists(), "the same at a later moment");
        later.as_of.term = Term(4);
        file.keep(&later).unwrap();
        assert_eq!(PastFile::open(&data, "orders").kept(), &later);
    }

    #[test]
    fn a_file_that_makes_no_sense_is_no_empty_memory() {
        let (dir, data) = data();
        PastFile::open(&data, "orders").keep(&past(3)).unwrap();
        let path = dir.path().join("data.past");
        let good = fs::read_to_string(&path).unwrap();
        let newer = good.replacen(&format!("\"format\":{FORMAT}"), "\"format\":99", 1);
        let cut = &good[..good.len() / 2];
        for (text, why) in [(cut, "it is damaged"), ("", "it is damaged"), (newer.as_str(), "a newer spilo")] {
            fs::write(&path, text).unwrap();
            let file = PastFile::open(&data, "orders");
            let said = file.unreadable().unwrap();
            assert!(said.contains(why) && said.contains("data.past'"), "{said}");
            assert!(file.kept().is_nothing());
        }
        fs::write(&path, &good).unwrap();
        assert!(PastFile::open(&data, "stocks").unreadable().unwrap().contains("it is of the cluster 'orders', this is 'stocks'"));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(PastFile::open(&data, "orders").unreadable().is_some());
    }

    #[test]
    fn a_damaged_file_is_put_aside_when_the_dcs_has_told_what_it_is_to_say() {
        let (dir, data) = data();
        fs::write(dir.path().join("data.past"), "{").unwrap();
        let mut file = PastFile::open(&data, "orders");
        file.keep(&past(4)).unwrap();
        assert!(file.unreadable().is_none());
        assert_eq!(fs::read_to_string(dir.path().join("data.past.unreadable")).unwrap(), "{");
        assert_eq!(PastFile::open(&data, "orders").kept(), &past(4));
    }

    #[test]
    fn a_disk_that_does_not_take_it_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = PastFile::open(&dir.path().join("nowhere/data"), "orders");
        let error = file.keep(&past(1)).unwrap_err();
        assert!(error.to_string().contains("nowhere/data.past"), "{error}");
    }
}
