//! What operators ask of a member: read from the body of a request, and judged as far as the body alone tells. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    dcs::snapshot::MemberRole,
    spec::settings::{flag, time},
};

/// Something that only the agent's loop can decide and do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Restart PostgreSQL.
    Restart(Restart),
    /// Replace the data directory by a copy of the leader's.
    Reinitialize {
        /// Even when other long work has to be cut short for it.
        force: bool,
        /// From the leader, even where another member is tagged as a source of copies.
        from_leader: bool,
    },
}

/// A restart, and when it should not happen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restart {
    /// Only in this role.
    pub role: Option<MemberRole>,
    /// Only while PostgreSQL is older than this, such as 150004.
    pub older_than: Option<u32>,
    /// Only when parameters wait for it.
    pub pending: bool,
    /// How long the start may take; `None`: as long as `primary_start_timeout`.
    pub timeout: Option<Duration>,
}

/// A restart that is to come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheduled {
    /// When, in milliseconds since 1970.
    pub at: i64,
    /// What it is.
    pub restart: Restart,
    /// The request as it came, for whoever asks what is scheduled.
    pub body: Map<String, Value>,
    /// Start time of the server that it was asked for: one that was restarted meanwhile needs it no more.
    pub postmaster_start_time: String,
}

/// A refusal: status code and sentence.
pub type Refused = (u16, String);

/// The body of `POST /restart`: what to restart and, if not at once, when in milliseconds since 1970.
pub fn parse_restart(body: &Map<String, Value>, now: i64) -> Result<(Restart, Option<i64>), Refused> {
    let mut mistakes = Vec::new();
    let mut restart = Restart::default();
    let mut at = Ok(None);
    for (key, value) in body.iter().filter(|(_, value)| !value.is_null()) {
        let expected = match key.as_str() {
            "schedule" => {
                at = parse_moment(value, "restart", now).map(Some);
                None
            }
            "role" => {
                restart.role = parse_role(value);
                restart.role.is_none().then_some("primary, standby_leader or replica")
            }
            "postgres_version" => {
                restart.older_than = value.as_str().and_then(parse_version);
                restart.older_than.is_none().then_some("a version such as '15.4'")
            }
            "timeout" => {
                restart.timeout = time(value).filter(|seconds| *seconds > 0).map(Duration::from_secs);
                restart.timeout.is_none().then_some("whole seconds, at least 1, or a text such as '5min'")
            }
            "restart_pending" => {
                restart.pending = flag(value).unwrap_or_default();
                flag(value).is_none().then_some("true or false")
            }
            _ => {
                mistakes.push(format!("unknown key '{key}': possible are schedule, role, postgres_version, timeout, restart_pending"));
                None
            }
        };
        mistakes.extend(expected.map(|expected| format!("'{key}' is {value}, expected {expected}")));
    }
    if !mistakes.is_empty() {
        return Err((400, mistakes.join("; ")));
    }
    at.map(|at| (restart, at))
}

/// The body of `POST /reinitialize`.
pub fn parse_reinitialize(body: &Map<String, Value>) -> Result<Request, Refused> {
    let mut mistakes = Vec::new();
    let mut wish = |key: &str| match body.get(key) {
        None | Some(Value::Null) => false,
        Some(value) => flag(value).unwrap_or_else(|| {
            mistakes.push(format!("'{key}' is {value}, expected true or false"));
            false
        }),
    };
    let (force, from_leader) = (wish("force"), wish("from_leader") | wish("from-leader"));
    let known = ["force", "from_leader", "from-leader"];
    mistakes.extend(body.keys().filter(|key| !known.contains(&key.as_str())).map(|key| format!("unknown key '{key}'")));
    if mistakes.is_empty() { Ok(Request::Reinitialize { force, from_leader }) } else { Err((400, mistakes.join("; "))) }
}

/// A moment in the future, in milliseconds since 1970, with Patroni's words for what it cannot be.
pub fn parse_moment(value: &Value, action: &str, now: i64) -> Result<i64, Refused> {
    let text = value.as_str().unwrap_or_default().trim();
    let Ok(moment) = text.parse::<jiff::Timestamp>() else {
        return Err(match text.parse::<jiff::civil::DateTime>() {
            Ok(_) => (400, format!("Timezone information is mandatory for the scheduled {action}")),
            Err(_) => {
                let words = "Unable to parse scheduled timestamp. It should be in an unambiguous format, e.g. ISO 8601";
                (422, words.to_owned())
            }
        });
    };
    if moment.as_millisecond() <= now {
        return Err((422, format!("Cannot schedule {action} in the past")));
    }
    Ok(moment.as_millisecond())
}

fn parse_role(value: &Value) -> Option<MemberRole> {
    match value.as_str()? {
        "primary" => Some(MemberRole::Primary),
        "standby_leader" | "standby-leader" => Some(MemberRole::StandbyLeader),
        "replica" => Some(MemberRole::Replica),
        _ => None,
    }
}

/// `15.4` is 150004, and before version 10 `9.6.3` was 90603.
fn parse_version(text: &str) -> Option<u32> {
    let parts: Vec<u32> = text.split('.').map(|part| part.parse().ok().filter(|n| *n < 100)).collect::<Option<_>>()?;
    match parts[..] {
        [major, minor] if major >= 10 => Some(major * 10_000 + minor),
        [first, second, minor] if first < 10 => Some(first * 10_000 + second * 100 + minor),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: i64 = 1_900_000_000_000;

    fn restart(body: &Value) -> Result<(Restart, Option<i64>), Refused> {
        parse_restart(body.as_object().unwrap(), NOW)
    }

    #[test]
    fn a_restart_may_be_bound_to_conditions() {
        let body = json!({"role": "replica", "postgres_version": "15.4", "timeout": "2min", "restart_pending": true, "schedule": null});
        let expected =
            Restart { role: Some(MemberRole::Replica), older_than: Some(150_004), pending: true, timeout: Some(Duration::from_secs(120)) };
        assert_eq!(restart(&body), Ok((expected, None)));
        assert_eq!(restart(&json!({})), Ok((Restart::default(), None)));
    }

    #[test]
    fn every_mistake_in_a_request_is_named() {
        let (code, text) =
            restart(&json!({"role": "master", "postgres_version": "15", "timeout": 0, "restart_pending": 5, "x": 1})).unwrap_err();
        assert_eq!(code, 400);
        for part in ["'role' is \"master\"", "'postgres_version' is \"15\"", "'timeout' is 0", "'restart_pending' is 5", "unknown key 'x'"]
        {
            assert!(text.contains(part), "{part} not in {text}");
        }
        assert_eq!(parse_reinitialize(json!({"force": "perhaps"}).as_object().unwrap()).unwrap_err().0, 400);
    }

    #[test]
    fn moments_are_in_the_future_and_have_a_zone() {
        assert_eq!(restart(&json!({"schedule": "2030-03-17T19:46:41+02:00"})).unwrap().1, Some(NOW + 1000));
        let refused = |text: &str| restart(&json!({ "schedule": text })).unwrap_err();
        assert_eq!(refused("2031-01-01T00:00:00"), (400, "Timezone information is mandatory for the scheduled restart".to_owned()));
        assert_eq!(refused("2020-01-01T00:00Z"), (422, "Cannot schedule restart in the past".to_owned()));
        assert_eq!(refused("tomorrow").0, 422);
    }

    #[test]
    fn versions_are_numbers_as_postgresql_counts_them() {
        assert_eq!(
            ["17.0", "9.6.24", "15", "15.4.1", "9.6", "x"].map(parse_version),
            [Some(170_000), Some(90_624), None, None, None, None]
        );
    }

    #[test]
    fn a_copy_may_be_forced() {
        let body = json!({"force": true, "from-leader": true});
        assert_eq!(parse_reinitialize(body.as_object().unwrap()), Ok(Request::Reinitialize { force: true, from_leader: true }));
    }
}
