//! The dynamic configuration on disk, where Patroni keeps it too: a DCS that lost its content gets back what was in force, not the defaults.

use std::{fs, path::Path};

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

/// Keeps `config`, in memory and in the data directory, if there is one that is known to be of this cluster.
pub fn keep(last: &mut Option<Value>, config: &Value, data_dir: Option<&Path>) {
    if last.as_ref() != Some(config) {
        // Whoever wrote it past the REST API was not told.
        dynamic::mistakes_of_file(config).iter().for_each(|mistake| tracing::warn!("dynamic configuration: {mistake}"));
        idle::idle(config).iter().for_each(|line| tracing::warn!("dynamic configuration: {line}"));
        *last = Some(config.clone());
    }
    let Some(data_dir) = data_dir.filter(|dir| dir.join("PG_VERSION").exists() && load(dir).as_ref() != Some(config)) else { return };
    let file = data_dir.join(FILE);
    if let Err(error) = files::replace(&file, config.to_string().as_bytes(), 0o600) {
        tracing::warn!("the dynamic configuration could not be kept in '{}': {error}", file.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_was_kept_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let mut last = None;
        keep(&mut last, &json!({"ttl": 10}), Some(dir.path()));
        assert_eq!((load(dir.path()), last.clone()), (None, Some(json!({"ttl": 10}))), "there is no data directory yet");
        fs::write(dir.path().join("PG_VERSION"), "17").unwrap();
        keep(&mut last, &json!({"ttl": 10}), None);
        assert_eq!(load(dir.path()), None, "the directory is somebody else's");
        keep(&mut last, &json!({"ttl": 10}), Some(dir.path()));
        assert_eq!(load(dir.path()), last);
        keep(&mut last, &json!({"ttl": 20}), None);
        keep(&mut last, &json!({"ttl": 20}), Some(dir.path()));
        assert_eq!(load(dir.path()), Some(json!({"ttl": 20})), "it is known by now whose directory it is");
        fs::write(dir.path().join(FILE), "half of {").unwrap();
        assert_eq!(load(dir.path()), None);
    }
}
