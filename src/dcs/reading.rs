//! What the values of the store's keys say, whichever store it is.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::DeserializeOwned;

use super::snapshot::{FailoverKey, Initialize, Snapshot, TermKey};

/// Takes in the key `relative`. A value that cannot be read is not taken for one that is not there.
pub fn take_key(snapshot: &mut Snapshot, relative: &str, value: &[u8], version: i64) {
    let text = std::str::from_utf8(value).unwrap_or_default();
    let unreadable = &mut snapshot.unreadable;
    match relative {
        "initialize" => snapshot.initialize = text.parse().map_or(Initialize::InProgress, Initialize::Done),
        "config" => {
            snapshot.config = parsed(text).filter(serde_json::Value::is_object);
            snapshot.config_version = Some(version);
        }
        "leader" => snapshot.leader = text.parse().ok(),
        "status" => snapshot.status = read_key(relative, value, unreadable),
        "sync" => {
            snapshot.sync = read_key(relative, value, unreadable);
            snapshot.sync_version = Some(version);
        }
        "term" => {
            let key: Option<TermKey> = read_key(relative, value, unreadable);
            (snapshot.term, snapshot.term_leader) = key.map(|key| (key.term, Some(key.leader))).unwrap_or_default();
            snapshot.term_version = Some(version);
        }
        "failsafe" => {
            let members: BTreeMap<String, String> = read_key(relative, value, unreadable);
            snapshot.failsafe = Some(members).filter(|members| !members.is_empty());
            snapshot.failsafe_version = Some(version);
        }
        "failover" => {
            snapshot.failover = parsed::<FailoverKey>(text).filter(|f| !f.is_empty());
            snapshot.failover_version = Some(version);
        }
        "timeline" => {
            snapshot.timelines = read_key(relative, value, unreadable);
            snapshot.timelines_version = Some(version);
        }
        "history" => snapshot.history = read_key(relative, value, unreadable),
        _ => {
            if let Some((name, data)) = relative.strip_prefix("members/").and_then(|n| Some((n.parse().ok()?, parsed(text)?))) {
                snapshot.members.insert(name, data);
            }
        }
    }
}

/// The key's value; nothing, as Patroni leaves it when it clears a key, and one that is no sense is noted in `unreadable`.
fn read_key<T: DeserializeOwned + Default>(key: &str, value: &[u8], unreadable: &mut BTreeSet<String>) -> T {
    if value.trim_ascii().is_empty() {
        return T::default();
    }
    serde_json::from_slice::<Option<T>>(value).map_or_else(
        |_| {
            unreadable.insert(key.to_owned());
            T::default()
        },
        Option::unwrap_or_default,
    )
}

fn parsed<T: DeserializeOwned>(value: &str) -> Option<T> {
    serde_json::from_str(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(keys: &[(&str, &str)]) -> Snapshot {
        let mut snapshot = Snapshot::default();
        keys.iter().for_each(|(key, value)| take_key(&mut snapshot, key, value.as_bytes(), 7));
        snapshot
    }

    #[test]
    fn a_value_that_makes_no_sense_is_not_taken_for_none() {
        for key in ["sync", "term", "timeline", "failsafe", "status", "history"] {
            let garbled = snapshot(&[(key, r#"{"leader": "a", "sync"#)]);
            assert_eq!(garbled.unreadable, BTreeSet::from([key.to_owned()]));
            assert_eq!(snapshot(&[(key, "true")]).unreadable, BTreeSet::from([key.to_owned()]));
        }
    }

    #[test]
    fn an_emptied_key_says_nothing_and_is_readable() {
        for key in ["sync", "term", "timeline", "failsafe", "status", "history"] {
            for empty in ["", " ", "null"] {
                assert_eq!(snapshot(&[(key, empty)]).unreadable, BTreeSet::new(), "{key}: '{empty}'");
            }
        }
    }
}
