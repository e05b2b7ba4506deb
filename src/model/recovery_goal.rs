//! All that can be said of where recovery is to end, under the same words in spec files, in `agent.yml` and on command lines.

use std::fmt;

use serde_json::{Map, Value};

use super::{BackupId, Lsn, RecoveryTarget, TargetTimeline};

/// The words. On a command line they have dashes.
pub const GOAL_KEYS: &[&str] = &["at", "lsn", "xid", "restore_point", "immediate", "exclusive", "timeline", "backup"];

/// Of these one at most is said.
const TARGETS: [&str; 5] = ["at", "lsn", "xid", "restore_point", "immediate"];

/// Where recovery is to end, on which timeline, and from which backup.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecoveryGoal {
    /// Where it ends.
    pub target: RecoveryTarget,
    /// Just before the target instead of just after it.
    pub exclusive: bool,
    /// On which timeline.
    pub timeline: TargetTimeline,
    /// From which backup; `None`: from the newest that leads there.
    pub backup: Option<BackupId>,
}

/// One thing that is wrong with what was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrongGoal {
    /// Under which word.
    pub key: &'static str,
    /// What is wrong.
    pub problem: String,
}

impl RecoveryGoal {
    /// What differs from "all that was archived", under its words.
    pub fn section(&self) -> Map<String, Value> {
        let target = match &self.target {
            RecoveryTarget::End => None,
            RecoveryTarget::Immediate => Some(("immediate", true.into())),
            RecoveryTarget::Time(time) => Some(("at", time.to_string().into())),
            RecoveryTarget::Lsn(lsn) => Some(("lsn", lsn.to_string().into())),
            RecoveryTarget::Xid(xid) => Some(("xid", (*xid).into())),
            RecoveryTarget::Name(name) => Some(("restore_point", name.as_str().into())),
        };
        let exclusive = self.exclusive.then(|| ("exclusive", true.into()));
        let timeline = match self.timeline {
            TargetTimeline::Latest => None,
            TargetTimeline::Number(timeline) => Some(("timeline", timeline.0.into())),
            TargetTimeline::Current => Some(("timeline", self.timeline.to_string().into())),
        };
        let backup = self.backup.as_ref().map(|backup| ("backup", backup.as_str().into()));
        let said = [target, exclusive, timeline, backup].into_iter().flatten();
        said.map(|(key, value): (&str, Value)| (key.to_owned(), value)).collect()
    }

    /// The same as options of a command.
    pub fn options(&self) -> Vec<String> {
        let option = |(key, value): (String, Value)| match value {
            Value::Bool(_) => format!("--{key}"),
            Value::String(text) => format!("--{}={text}", key.replace('_', "-")),
            other => format!("--{key}={other}"),
        };
        self.section().into_iter().map(option).collect()
    }

    /// Reads what stands under the words; what stands beside them is not looked at.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn read(section: &Map<String, Value>) -> Result<RecoveryGoal, Vec<WrongGoal>> {
        let mut wrong = Vec::new();
        let mut target = None;
        for key in TARGETS {
            match said(section, key).map(|value| read_target(key, value)) {
                None | Some(Ok(RecoveryTarget::End)) => {}
                Some(Ok(_)) if target.is_some() => {
                    wrong.push(WrongGoal { key, problem: format!("one of {} is enough", TARGETS.join(", ")) })
                }
                Some(Ok(read)) => target = Some(read),
                Some(Err(problem)) => wrong.push(WrongGoal { key, problem }),
            }
        }
        let mut note = |key, read: Result<(), String>| wrong.extend(read.err().map(|problem| WrongGoal { key, problem }));
        let mut goal = RecoveryGoal { target: target.unwrap_or_default(), ..RecoveryGoal::default() };
        note("exclusive", said(section, "exclusive").map_or(Ok(false), truth).map(|read| goal.exclusive = read));
        note("timeline", read_text(section, "timeline").map(|read| goal.timeline = read.unwrap_or_default()));
        note("backup", read_text(section, "backup").map(|read| goal.backup = read));
        let can_stop_before = matches!(goal.target, RecoveryTarget::Time(_) | RecoveryTarget::Lsn(_) | RecoveryTarget::Xid(_));
        if goal.exclusive && !can_stop_before && wrong.is_empty() {
            wrong.push(WrongGoal { key: "exclusive", problem: "it goes with at, lsn or xid only".to_owned() });
        }
        if wrong.is_empty() { Ok(goal) } else { Err(wrong) }
    }
}

impl fmt::Display for RecoveryGoal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.exclusive {
            f.write_str("just before ")?;
        }
        self.target.fmt(f)?;
        if self.timeline != TargetTimeline::Latest {
            write!(f, " on timeline {}", self.timeline)?;
        }
        self.backup.iter().try_for_each(|backup| write!(f, " from backup {backup}"))
    }
}

impl fmt::Display for WrongGoal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}': {}", self.key, self.problem)
    }
}

fn said<'v>(section: &'v Map<String, Value>, key: &str) -> Option<&'v Value> {
    section.get(key).filter(|value| !value.is_null())
}

/// A word that is said with `false` says nothing.
fn read_target(key: &str, value: &Value) -> Result<RecoveryTarget, String> {
    if key == "immediate" {
        return truth(value).map(|said| if said { RecoveryTarget::Immediate } else { RecoveryTarget::End });
    }
    let text = text(value)?;
    match key {
        "at" => RecoveryTarget::time(&text).map_err(|error| error.to_string()),
        "lsn" => text.parse().map(|lsn: Lsn| RecoveryTarget::Lsn(lsn)).map_err(|error| error.to_string()),
        "xid" => RecoveryTarget::xid(&text).map_err(|error| error.to_string()),
        _ => RecoveryTarget::name(&text).map_err(|error| error.to_string()),
    }
}

fn read_text<T: std::str::FromStr<Err: fmt::Display>>(section: &Map<String, Value>, key: &str) -> Result<Option<T>, String> {
    let Some(value) = said(section, key) else { return Ok(None) };
    text(value)?.parse().map(Some).map_err(|error: T::Err| error.to_string())
}

/// A number is as good as its digits.
fn text(value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        other => Err(format!("it is {other}, a text is needed")),
    }
}

fn truth(value: &Value) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| format!("it is {value}, expected true or false"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::Timeline;

    fn read(section: &Value) -> Result<RecoveryGoal, Vec<String>> {
        let section = section.as_object().expect("a section").clone();
        RecoveryGoal::read(&section).map_err(|wrong| wrong.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn every_goal_reads_back_as_it_is_written_and_is_an_option_of_the_same_name() {
        let id = "20261121T204500Z-1a2b3c4d";
        for (section, options, words) in [
            (json!({}), "", "the end of the archived WAL"),
            (json!({"at": "2026-11-21T20:45:00Z"}), "--at=2026-11-21T20:45:00Z", "2026-11-21T20:45:00Z"),
            (json!({"lsn": "0/16B3748", "exclusive": true}), "--lsn=0/16B3748 --exclusive", "just before position 0/16B3748"),
            (json!({"xid": 742, "timeline": 3}), "--xid=742 --timeline=3", "transaction 742 on timeline 3"),
            (json!({"restore_point": "a b"}), "--restore-point=a b", "restore point 'a b'"),
            (
                json!({"immediate": true, "timeline": "current"}),
                "--immediate --timeline=current",
                "the end of the backup on timeline current",
            ),
            (
                json!({"backup": id}),
                "--backup=20261121T204500Z-1a2b3c4d",
                "the end of the archived WAL from backup 20261121T204500Z-1a2b3c4d",
            ),
        ] {
            let goal = read(&section).unwrap();
            assert_eq!(
                (Value::Object(goal.section()), goal.options().join(" "), goal.to_string()),
                (section, options.to_owned(), words.to_owned())
            );
        }
    }

    #[test]
    fn what_people_write_differs_and_means_the_same() {
        assert_eq!(read(&json!({"at": "2026-11-21 21:45:00+01"})), read(&json!({"at": "2026-11-21T20:45:00Z", "xid": null})));
        assert_eq!(read(&json!({"xid": "742", "immediate": false})), read(&json!({"xid": 742, "exclusive": false, "timeline": "latest"})));
        assert_eq!(read(&json!({"timeline": "2", "store": "s3://b"})).unwrap().timeline, TargetTimeline::Number(Timeline(2)));
    }

    #[test]
    fn all_that_is_wrong_is_named() {
        let wrong = read(&json!({"at": "yesterday", "lsn": 7, "immediate": "yes", "timeline": 0, "backup": "newest"})).unwrap_err();
        for (key, said) in [("at", "yesterday"), ("lsn", "'7'"), ("immediate", "true or false"), ("timeline", "'0'"), ("backup", "newest")]
        {
            assert!(wrong.iter().any(|told| told.starts_with(&format!("'{key}': ")) && told.contains(said)), "{key}: {wrong:?}");
        }
        let two = read(&json!({"at": "2026-11-21T20:45:00Z", "xid": 742})).unwrap_err();
        assert_eq!(two, ["'xid': one of at, lsn, xid, restore_point, immediate is enough"]);
        for aimless in [json!({"exclusive": true}), json!({"exclusive": true, "restore_point": "x"})] {
            assert_eq!(read(&aimless).unwrap_err(), ["'exclusive': it goes with at, lsn or xid only"]);
        }
    }
}
