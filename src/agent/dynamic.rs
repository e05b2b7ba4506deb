//! The dynamic configuration on disk, where Patroni keeps it too: a DCS that lost its content gets back what was in force, not the defaults.

use std::{fs, path::Path};

use serde_json::Value;

use crate::sys::files;

/// The file's name in the data directory.
const FILE: &str = "patroni.dynamic.json";

/// What was in force when this data directory was last used.
pub fn load(data_dir: &Path) -> Option<Value> {
    let text = fs::read_to_string(data_dir.join(FILE)).ok()?;
    serde_json::from_str(&text).ok().filter(Value::is_object)
}

/// Keeps `config`, in memory and, where there is a data directory, on disk.
pub fn keep(last: &mut Option<Value>, config: &Value, data_dir: &Path) {
    let file = data_dir.join(FILE);
    if last.as_ref() == Some(config) && file.exists() {
        return;
    }
    if data_dir.join("PG_VERSION").exists()
        && let Err(error) = files::replace(&file, config.to_string().as_bytes(), 0o600)
    {
        tracing::warn!("the dynamic configuration could not be kept in '{}': {error}", file.display());
    }
    *last = Some(config.clone());
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_was_kept_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let mut last = None;
        keep(&mut last, &json!({"ttl": 10}), dir.path());
        assert_eq!((load(dir.path()), last.clone()), (None, Some(json!({"ttl": 10}))), "there is no data directory yet");
        fs::write(dir.path().join("PG_VERSION"), "17").unwrap();
        keep(&mut last, &json!({"ttl": 10}), dir.path());
        assert_eq!(load(dir.path()), last);
        fs::write(dir.path().join(FILE), "half of {").unwrap();
        assert_eq!(load(dir.path()), None);
    }
}
