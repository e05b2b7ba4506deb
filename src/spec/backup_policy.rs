//! The section `spilo.backup` of the dynamic configuration: how often backups are taken, looked at and restored, and what is kept of them.
//! Patroni has nothing like it; the section is our addition.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Mistake, nearest, raw::kind_of, settings};

/// Every key that the section may have.
const KEYS: [&str; 7] = ["every", "full_every", "verify_every", "drill_every", "keep", "window", "from"];

/// Less than this is a typo, and would keep a cluster busy with backing itself up.
const SHORTEST: u64 = 300;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Which member's files are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// A replica that streams, if there is one.
    #[default]
    Replica,
    /// The leader, as long as it is there.
    Leader,
}

/// What was promised, and how it is kept. For all times `None` means never.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupPolicy {
    /// From the end of one backup to the beginning of the next.
    pub every: Option<Duration>,
    /// After so long a backup takes nothing over from earlier ones.
    pub full_every: Option<Duration>,
    /// After so long a backup that was read once is read again.
    pub verify_every: Option<Duration>,
    /// From one restore that proves a backup to the next.
    pub drill_every: Option<Duration>,
    /// So many of the newest backups are kept, at least one.
    pub keep: usize,
    /// Every moment of so long ago until now can be gone back to.
    pub window: Option<Duration>,
    /// Whose files are read.
    pub from: Source,
    /// Promises that are written down and cannot be read. The default may be less than what was promised.
    pub unreadable: Vec<String>,
}

impl Default for BackupPolicy {
    /// A backup a day, a full one, a second look and a test restore a week; a week of moments, and never fewer than two backups.
    fn default() -> BackupPolicy {
        BackupPolicy {
            every: Some(DAY),
            full_every: Some(7 * DAY),
            verify_every: Some(7 * DAY),
            drill_every: Some(7 * DAY),
            keep: 2,
            window: Some(7 * DAY),
            from: Source::Replica,
            unreadable: Vec::new(),
        }
    }
}

impl BackupPolicy {
    /// Whether anything may be removed: only when it is known what was promised.
    pub fn may_expire(&self) -> bool {
        self.unreadable.is_empty()
    }

    /// Reads it off a dynamic configuration. What cannot be read keeps its default: a typo must not end the backups of a cluster. Nor must it
    /// end older ones, which somebody has promised to keep.
    pub fn read(config: &Value) -> BackupPolicy {
        let (section, default) = (&config["spilo"]["backup"], BackupPolicy::default());
        let time = |key: &str, default: Option<Duration>| match interval(&section[key]) {
            Some(0) => None,
            Some(seconds) => Some(Duration::from_secs(seconds)),
            None => default,
        };
        BackupPolicy {
            every: time("every", default.every),
            full_every: time("full_every", default.full_every),
            verify_every: time("verify_every", default.verify_every),
            drill_every: time("drill_every", default.drill_every),
            keep: count(&section["keep"]).unwrap_or(default.keep),
            window: time("window", default.window),
            from: source(&section["from"]).unwrap_or_default(),
            unreadable: unreadable_promises(config),
        }
    }
}

/// The paths of promises that are there and say nothing. Whoever writes past the REST API is told of no mistake.
fn unreadable_promises(config: &Value) -> Vec<String> {
    let (spilo, section) = (&config["spilo"], &config["spilo"]["backup"]);
    let is_no_section = |value: &Value| !value.is_null() && !value.is_object();
    let (keep, window) = (&section["keep"], &section["window"]);
    let found = [
        ("spilo", is_no_section(spilo)),
        ("spilo.backup", is_no_section(section)),
        ("spilo.backup.keep", !keep.is_null() && count(keep).is_none()),
        ("spilo.backup.window", !window.is_null() && interval(window).is_none()),
    ];
    found.into_iter().filter(|(_, unreadable)| *unreadable).map(|(path, _)| path.to_owned()).collect()
}

/// Seconds: none at all, or at least the shortest.
fn interval(value: &Value) -> Option<u64> {
    settings::time(value).filter(|seconds| *seconds == 0 || (SHORTEST..=settings::LONGEST).contains(seconds))
}

fn count(value: &Value) -> Option<usize> {
    let count = value.as_u64().or_else(|| value.as_str()?.trim().parse().ok())?;
    usize::try_from(count).ok().filter(|count| (1..=1000).contains(count))
}

fn source(value: &Value) -> Option<Source> {
    match value.as_str()? {
        "replica" => Some(Source::Replica),
        "leader" => Some(Source::Leader),
        _ => None,
    }
}

/// What is wrong with the section `spilo`.
pub fn mistakes(section: &Value) -> Vec<Mistake> {
    let Some(keys) = section.as_object() else {
        return vec![Mistake { path: "spilo".to_owned(), value: None, problem: format!("it is {}, expected a mapping", kind_of(section)) }];
    };
    let mut found = Vec::new();
    for (key, value) in keys {
        match (key.as_str(), value) {
            ("backup", Value::Object(keys)) => found.extend(keys.iter().filter_map(|(key, value)| mistake(key, value))),
            ("backup", Value::Null) => {}
            ("backup", other) => {
                let problem = format!("it is {}, expected a mapping", kind_of(other));
                found.push(Mistake { path: "spilo.backup".to_owned(), value: None, problem });
            }
            (unknown, _) => {
                let problem = "there is no such setting: did you mean 'spilo.backup'?".to_owned();
                found.push(Mistake { path: format!("spilo.{unknown}"), value: None, problem });
            }
        }
    }
    found
}

fn mistake(key: &str, value: &Value) -> Option<Mistake> {
    let path = format!("spilo.backup.{key}");
    let wrong = |problem: &str| Some(Mistake { path: path.clone(), value: Some(value.to_string()), problem: problem.to_owned() });
    match key {
        _ if value.is_null() => None,
        "keep" if count(value).is_none() => wrong("expected a whole number from 1 to 1000"),
        "from" if source(value).is_none() => wrong("expected replica or leader"),
        "keep" | "from" => None,
        known if KEYS.contains(&known) => {
            interval(value).is_none().then(|| wrong("expected 0 for never, or at least 5min, such as '24h' or '7d'"))?
        }
        unknown => {
            let hint = nearest(unknown, &KEYS).map(|near| format!(": did you mean '{near}'?")).unwrap_or_default();
            Some(Mistake { path, value: None, problem: format!("there is no such setting{hint}") })
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_said_has_its_default() {
        assert_eq!(BackupPolicy::read(&json!({})), BackupPolicy::default());
        let policy = BackupPolicy::read(&json!({"spilo": {"backup": {"every": "12h", "drill_every": 0, "keep": 5, "from": "leader"}}}));
        assert_eq!(policy.every, Some(Duration::from_secs(12 * 3600)));
        assert_eq!((policy.drill_every, policy.keep, policy.from), (None, 5, Source::Leader));
        assert_eq!(policy.window, BackupPolicy::default().window);
    }

    #[test]
    fn a_typo_does_not_end_the_backups() {
        let policy = BackupPolicy::read(&json!({"spilo": {"backup": {"every": "daily", "verify_every": 7, "from": "moon"}}}));
        assert_eq!(policy, BackupPolicy::default());
        assert!(policy.may_expire());
    }

    #[test]
    fn a_promise_that_cannot_be_read_lets_nothing_go() {
        let unreadable = |config: Value| BackupPolicy::read(&config).unreadable.join(" ");
        for (key, value) in [("window", json!("30 days")), ("window", json!(7)), ("keep", json!(2000)), ("keep", json!(0))] {
            assert_eq!(unreadable(json!({"spilo": {"backup": {key: value}}})), format!("spilo.backup.{key}"), "{value}");
        }
        assert_eq!(unreadable(json!({"spilo": {"backup": {"window": "x", "keep": []}}})), "spilo.backup.keep spilo.backup.window");
        assert_eq!(unreadable(json!({"spilo": {"backup": "x"}})), "spilo.backup");
        assert_eq!(unreadable(json!({"spilo": "x"})), "spilo");
        assert_eq!(unreadable(json!({"spilo": {"backup": {"window": null, "keep": "3"}}})), "");
        assert_eq!(unreadable(json!({"spilo": {"backup": {"window": 0}}})), "");
    }

    #[test]
    fn every_mistake_is_named() {
        let told = |section: Value| mistakes(&section).iter().map(Mistake::to_string).collect::<Vec<_>>().join("\n");
        assert_eq!(
            told(json!({"backup": {"every": "24h", "full_every": "7d", "keep": 3, "window": 0, "from": "replica", "drill_every": null}})),
            ""
        );
        let several = told(json!({"backup": {"evry": 1, "every": "5s", "keep": 0, "from": 7}, "archive": {}}));
        for part in ["did you mean 'every'?", "at least 5min", "from 1 to 1000", "expected replica or leader", "'spilo.archive'"] {
            assert!(several.contains(part), "{part} not in {several}");
        }
        assert!(told(json!([])).contains("expected a mapping") && told(json!({"backup": 7})).contains("expected a mapping"));
    }
}
