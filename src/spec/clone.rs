//! Whose backup a cluster is begun with, and how far it is recovered.

use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Map, Value};

use super::{ArchiveSpec, Mistake};
use crate::model::{ClusterName, GOAL_KEYS, RecoveryGoal, SystemId};

/// What somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloneWish {
    /// The other cluster.
    pub cluster: ClusterName,
    /// Which database cluster of that name, by its system identifier; `None`: that which there is now.
    pub system: Option<SystemId>,
    /// The file with the key that its archive is encrypted with; `None`: the one that is stored with it.
    pub key_file: Option<PathBuf>,
    /// How far it is recovered.
    pub goal: RecoveryGoal,
}

/// The backup of another cluster that a cluster is begun with. It is stored with the cluster, the goal's words beside the others: of `at` alone
/// every version of spilo knows what it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloneSource {
    /// The other cluster.
    pub cluster: ClusterName,
    /// Where its backups are.
    pub archive: ArchiveSpec,
    /// Which database cluster of that name, by its system identifier; `None`: there is only one.
    pub system: Option<SystemId>,
    /// How far it is recovered.
    pub goal: RecoveryGoal,
}

impl CloneSource {
    /// Why what is wished for is something else than what this was. Systems are compared where both are known.
    pub fn differences(&self, wish: &CloneWish) -> Vec<String> {
        let mut found = Vec::new();
        let mut compare = |what: &str, is: String, wanted: String| {
            if is != wanted {
                found.push(format!("{what} is {is}, not {wanted}"));
            }
        };
        compare("clone-from", self.cluster.to_string(), wish.cluster.to_string());
        compare("the moment it begins with", self.goal.to_string(), wish.goal.to_string());
        if let (Some(is), Some(wanted)) = (self.system, wish.system) {
            compare("clone-system", is.to_string(), wanted.to_string());
        }
        found
    }
}

/// The section's own keys, and the goal's.
pub(super) fn keys() -> Vec<&'static str> {
    ["cluster", "system", "key_file"].iter().chain(GOAL_KEYS).copied().collect()
}

/// Reads the section `clone_from` of a spec file.
pub(super) fn read(section: &Map<String, Value>, mistakes: &mut Vec<Mistake>) -> Option<CloneWish> {
    let mut mistake = |key: &str, problem: String| {
        mistakes.push(Mistake { path: format!("clone_from.{key}"), value: section.get(key).map(Value::to_string), problem });
    };
    let cluster = match section.get("cluster").filter(|value| !value.is_null()) {
        Some(Value::String(name)) => name.parse().map_err(|error: crate::model::InvalidName| mistake("cluster", error.to_string())).ok(),
        Some(_) => {
            mistake("cluster", "expected the name of a cluster".to_owned());
            None
        }
        None => {
            mistake("cluster", "whose backup? name the other cluster".to_owned());
            None
        }
    };
    let system = match section.get("system").filter(|value| !value.is_null()) {
        None => Some(None),
        // A number is as good as its digits.
        Some(value) => match value.as_str().map_or_else(|| value.to_string(), str::to_owned).parse() {
            Ok(system) => Some(Some(system)),
            Err(error) => {
                mistake("system", format!("{error}"));
                None
            }
        },
    };
    let key_file = match section.get("key_file").filter(|value| !value.is_null()) {
        None => Some(None),
        Some(Value::String(path)) if !path.is_empty() => Some(Some(PathBuf::from(path))),
        Some(_) => {
            mistake("key_file", "expected the path of a file".to_owned());
            None
        }
    };
    let goal = RecoveryGoal::read(section).map_err(|wrong| wrong.into_iter().for_each(|wrong| mistake(wrong.key, wrong.problem)));
    Some(CloneWish { cluster: cluster?, system: system?, key_file: key_file?, goal: goal.ok()? })
}

impl Serialize for CloneSource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap as _;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("cluster", &self.cluster)?;
        map.serialize_entry("archive", &self.archive)?;
        if let Some(system) = self.system {
            map.serialize_entry("system", &system)?;
        }
        self.goal.section().iter().try_for_each(|(key, value)| map.serialize_entry(key, value))?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for CloneSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<CloneSource, D::Error> {
        let mut said = Map::deserialize(deserializer)?;
        let mut take = |key: &'static str| said.remove(key).filter(|value| !value.is_null());
        let (cluster, archive, system) = (take("cluster"), take("archive"), take("system"));
        // What it does not know, a newer version has written, who meant something by it.
        if let Some(unknown) = said.keys().find(|key| !GOAL_KEYS.contains(&key.as_str())) {
            return Err(de::Error::custom(format!("unknown key '{unknown}' of a cluster's origin")));
        }
        let goal = RecoveryGoal::read(&said).map_err(|wrong| {
            let wrong: Vec<String> = wrong.iter().map(ToString::to_string).collect();
            de::Error::custom(wrong.join(", "))
        })?;
        Ok(CloneSource {
            cluster: stored("cluster", cluster)?,
            archive: stored("archive", archive)?,
            system: system.map(|system| stored("system", Some(system))).transpose()?,
            goal,
        })
    }
}

fn stored<T: de::DeserializeOwned, E: de::Error>(key: &'static str, value: Option<Value>) -> Result<T, E> {
    let value = value.ok_or_else(|| de::Error::missing_field(key))?;
    serde_json::from_value(value).map_err(|error| de::Error::custom(format!("'{key}': {error}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{
        super::{ClusterSpec, SpecOverrides, parse_spec},
        *,
    };
    use crate::model::{RecoveryTarget, TargetTimeline};

    #[test]
    fn what_an_earlier_version_has_stored_is_read_and_what_is_stored_now_reads_back() {
        let of_old = r#"{"cluster":"old","archive":{"store":"volume"},"system":7710753353203642389,"at":"2026-11-21 21:45:00+01"}"#;
        let source: CloneSource = serde_json::from_str(of_old).unwrap();
        assert_eq!(source.goal.target, RecoveryTarget::time("2026-11-21T20:45:00Z").unwrap());
        let written = serde_json::to_string(&source).unwrap();
        assert_eq!(written, of_old.replace("2026-11-21 21:45:00+01", "2026-11-21T20:45:00Z"), "an earlier version reads it too");
        let plain = r#"{"cluster":"old","archive":{"store":"volume"}}"#;
        assert_eq!(serde_json::to_string(&serde_json::from_str::<CloneSource>(plain).unwrap()).unwrap(), plain);
        let all = json!({"cluster": "old", "archive": {"store": "s3://backups"}, "xid": 742, "exclusive": true, "timeline": "current",
            "backup": "20261121T204500Z-1a2b3c4d"});
        let source: CloneSource = serde_json::from_value(all.clone()).unwrap();
        assert_eq!(serde_json::to_value(&source).unwrap(), all);
        let spec = ClusterSpec { clone_of: Some(Box::new(source)), ..ClusterSpec::named("new".parse().unwrap()) };
        assert_eq!(serde_json::from_str::<ClusterSpec>(&serde_json::to_string(&spec).unwrap()).unwrap(), spec);
    }

    #[test]
    fn what_only_a_newer_version_knows_is_not_passed_over() {
        for (text, named) in [
            (r#"{"cluster":"old","archive":{"store":"volume"},"moon":1}"#, "'moon'"),
            (r#"{"cluster":"old","archive":{"store":"volume"},"at":"then"}"#, "'at'"),
            (r#"{"cluster":"old"}"#, "archive"),
        ] {
            assert!(serde_json::from_str::<CloneSource>(text).unwrap_err().to_string().contains(named), "{text}");
        }
    }

    #[test]
    fn a_file_says_whose_backup_and_how_far() {
        let text = "name: new\nclone_from:\n  cluster: old\n  system: 7710753353203642389\n  restore_point: before\n  timeline: 2\n";
        let wish = parse_spec(text, &SpecOverrides::default()).unwrap().clone_from.unwrap();
        assert_eq!((wish.cluster.as_str(), wish.system), ("old", Some(SystemId(7_710_753_353_203_642_389))));
        assert_eq!((wish.goal.target.to_string(), wish.goal.timeline.to_string()), ("restore point 'before'".to_owned(), "2".to_owned()));
        let quoted = parse_spec("name: new\nclone_from: {cluster: old, at: 2026-11-21T20:45:00Z}", &SpecOverrides::default()).unwrap();
        assert_eq!(quoted.clone_from.unwrap().goal.target.to_string(), "2026-11-21T20:45:00Z");
    }

    #[test]
    fn mistakes_in_a_file_are_named_with_their_path() {
        let mistakes = |section: &str| -> Vec<String> {
            let invalid = parse_spec(&format!("name: new\nclone_from: {section}"), &SpecOverrides::default()).expect_err(section);
            invalid.mistakes.iter().map(Mistake::to_string).collect()
        };
        assert_eq!(mistakes("{at: 2026-11-21T20:45:00Z}"), ["'clone_from.cluster': whose backup? name the other cluster"]);
        assert_eq!(mistakes("{cluster: old, resore_point: x}"), ["'clone_from.resore_point': unknown key, did you mean 'restore_point'?"]);
        let found = mistakes("{cluster: Old, system: 7, at: 2026-11-21T20:45:00, timeline: newest}");
        let named = ["cluster: \"Old\"", "system: 7", "at: \"2026-11-21T20:45:00\"", "timeline: \"newest\""];
        assert!(found.len() == 4 && named.iter().all(|named| found.iter().any(|told| told.contains(named))), "{found:#?}");
        assert!(mistakes("{cluster: old, at: 2026-11-21T20:45:00Z, xid: 7}")[0].contains("one of at, lsn"));
        assert!(mistakes("orders")[0].contains("it is a text, expected a mapping with: cluster, system, key_file, at"));
    }

    #[test]
    fn whoever_wishes_for_something_else_is_told_what_differs() {
        let goal = |text: &str| RecoveryGoal { target: RecoveryTarget::time(text).unwrap(), ..RecoveryGoal::default() };
        let source = CloneSource {
            cluster: "old".parse().unwrap(),
            archive: ArchiveSpec::volume(),
            system: Some(SystemId(7)),
            goal: goal("2026-11-21T20:45:00Z"),
        };
        let wish = CloneWish { cluster: "old".parse().unwrap(), system: None, key_file: None, goal: goal("2026-11-21 21:45:00+01") };
        assert_eq!(source.differences(&wish), [""; 0], "it is the same moment");
        let other =
            CloneWish { system: Some(SystemId(8)), goal: RecoveryGoal { timeline: TargetTimeline::Current, ..wish.goal.clone() }, ..wish };
        assert_eq!(
            source.differences(&other),
            ["the moment it begins with is 2026-11-21T20:45:00Z, not 2026-11-21T20:45:00Z on timeline current", "clone-system is 7, not 8"]
        );
    }
}
