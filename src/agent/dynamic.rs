//! The dynamic configuration on disk, where Patroni keeps it too: a DCS that lost its content gets back what was in force, not the defaults.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::{
    postgres::clone::AGENTS_OWN as FILE,
    spec::{dynamic, idle},
    sys::files,
};

/// What was in force when this data directory was last used.
pub fn load(data_dir: &Path) -> Option<Value> {
    let text = fs::read_to_string(data_dir.join(FILE)).ok()?;
    serde_json::from_str(&text).ok().filter(Value::is_object)
}

/// The dynamic configuration as the DCS last had it.
#[derive(Debug, Default)]
pub struct Kept {
    last: Option<Value>,
    /// A file that was seen to say the same, and what it looked like then.
    seen: Option<(PathBuf, Looks)>,
}

/// What changes with a file's content: its inode, its size, when it was written (seconds, nanoseconds).
type Looks = (u64, u64, i64, i64);

impl Kept {
    /// What a data directory had kept.
    pub fn of(last: Option<Value>) -> Kept {
        Kept { last, seen: None }
    }

    /// The last one; `None`: there never was one.
    pub fn last(&self) -> Option<&Value> {
        self.last.as_ref()
    }

    /// Keeps `config`, in memory and in the data directory, if there is one that is known to be of this cluster.
    pub fn keep(&mut self, config: &Value, data_dir: Option<&Path>) {
        if self.last.as_ref() != Some(config) {
            self.seen = None;
            // Whoever wrote it past the REST API was not told.
            dynamic::mistakes_of_file(config).iter().for_each(|mistake| tracing::warn!("dynamic configuration: {mistake}"));
            idle::idle(config).iter().for_each(|line| tracing::warn!("dynamic configuration: {line}"));
            self.last = Some(config.clone());
        }
        let Some(data_dir) = data_dir else { return };
        let file = data_dir.join(FILE);
        // This is asked in every turn: what still looks as it did when it was right is not read again.
        if self.seen.as_ref().is_some_and(|(path, looks)| *path == file && looks_of(&file) == Some(*looks)) {
            return;
        }
        if !data_dir.join("PG_VERSION").exists() {
            return;
        }
        let looks = looks_of(&file);
        if load(data_dir).as_ref() == Some(config) {
            self.seen = looks.map(|looks| (file, looks));
            return;
        }
        if let Err(error) = files::replace(&file, config.to_string().as_bytes(), 0o600) {
            tracing::warn!("the dynamic configuration could not be kept in '{}': {error}", file.display());
        }
    }
}

fn looks_of(file: &Path) -> Option<Looks> {
    fs::metadata(file).ok().map(|file| (file.ino(), file.size(), file.mtime(), file.mtime_nsec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_was_kept_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let mut kept = Kept::default();
        kept.keep(&json!({"ttl": 10}), Some(dir.path()));
        assert_eq!((load(dir.path()), kept.last()), (None, Some(&json!({"ttl": 10}))), "there is no data directory yet");
        fs::write(dir.path().join("PG_VERSION"), "17").unwrap();
        kept.keep(&json!({"ttl": 10}), None);
        assert_eq!(load(dir.path()), None, "the directory is somebody else's");
        kept.keep(&json!({"ttl": 10}), Some(dir.path()));
        assert_eq!(load(dir.path()).as_ref(), kept.last());
        kept.keep(&json!({"ttl": 20}), None);
        kept.keep(&json!({"ttl": 20}), Some(dir.path()));
        assert_eq!(load(dir.path()), Some(json!({"ttl": 20})), "it is known by now whose directory it is");
        kept.keep(&json!({"ttl": 20}), Some(dir.path()));
        fs::write(dir.path().join(FILE), json!({"ttl": 7}).to_string()).unwrap();
        kept.keep(&json!({"ttl": 20}), Some(dir.path()));
        assert_eq!(load(dir.path()), Some(json!({"ttl": 20})), "what a hand has written over it does not stay");
        fs::write(dir.path().join(FILE), "half of {").unwrap();
        assert_eq!(load(dir.path()), None);
    }
}
