//! The dynamic configuration kept in the DCS (Patroni's `/config`), with defaults for what is absent.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    slots::{self, IgnoredSlot, LogicalSlot},
    standby_cluster::{self, StandbyCluster},
};

/// A century: nothing that is longer can be meant, and sums of such times still fit.
pub(super) const LONGEST: u64 = 100 * 365 * 24 * 3600;

/// How commits are made safe before they are acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyncMode {
    /// The primary alone acknowledges.
    #[default]
    Off,
    /// Every one of `synchronous_node_count` chosen standbys has to confirm.
    On,
    /// Any `synchronous_node_count` of the streaming standbys have to confirm.
    Quorum,
}

/// The dynamic configuration, as far as decisions depend on it. Durations are Patroni's whole seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// How long the leader's lease and a member's key last.
    pub ttl: Duration,
    /// Longest sleep between two turns of the loop.
    pub loop_wait: Duration,
    /// Budget of one DCS operation.
    pub retry_timeout: Duration,
    /// Bytes that a candidate may lack of the leader's last known position.
    pub maximum_lag_on_failover: u64,
    /// Bytes that a synchronous standby may be behind the furthest one before commits wait for others; `None`: any number.
    pub maximum_lag_on_syncnode: Option<u64>,
    /// How many past timelines the DCS keeps; 0: all.
    pub max_timelines_history: usize,
    /// How long a crashed primary may take to come back before somebody else takes over.
    pub primary_start_timeout: Duration,
    /// How long the slot of an absent member is kept.
    pub member_slots_ttl: Duration,
    /// Physical slots that outlive whoever leads.
    pub permanent_slots: BTreeSet<String>,
    /// Logical slots that outlive whoever leads, where PostgreSQL can do that.
    pub logical_slots: BTreeMap<String, LogicalSlot>,
    /// Slots that are left alone.
    pub ignore_slots: Vec<IgnoredSlot>,
    /// See [`SyncMode`].
    pub synchronous_mode: SyncMode,
    /// How many standbys have to confirm a commit.
    pub synchronous_node_count: u32,
    /// Never fall back to acknowledging alone.
    pub synchronous_mode_strict: bool,
    /// Without synchronous replication too, a leader that the DCS does not answer leads on while every member confirms it.
    pub failsafe_mode: bool,
    /// Nobody fails over, promotes, starts or stops anything by itself.
    pub pause: bool,
    /// The whole cluster follows the primary of another one.
    pub standby_cluster: Option<StandbyCluster>,
    /// Replicas stream through slots of their own.
    pub use_slots: bool,
    /// A former primary may be rewound instead of copied anew.
    pub use_pg_rewind: bool,
    /// PostgreSQL parameters for every member.
    pub parameters: BTreeMap<String, String>,
    /// Lines of pg_hba.conf for every member.
    pub pg_hba: Option<Vec<String>>,
    /// Lines of pg_ident.conf for every member.
    pub pg_ident: Option<Vec<String>>,
}

impl Default for Settings {
    /// Patroni's defaults.
    fn default() -> Settings {
        Settings {
            ttl: Duration::from_secs(30),
            loop_wait: Duration::from_secs(10),
            retry_timeout: Duration::from_secs(10),
            maximum_lag_on_failover: 1 << 20,
            maximum_lag_on_syncnode: None,
            max_timelines_history: 0,
            primary_start_timeout: Duration::from_secs(300),
            member_slots_ttl: Duration::from_secs(1800),
            permanent_slots: BTreeSet::new(),
            logical_slots: BTreeMap::new(),
            ignore_slots: Vec::new(),
            synchronous_mode: SyncMode::Off,
            synchronous_node_count: 1,
            synchronous_mode_strict: false,
            failsafe_mode: false,
            pause: false,
            standby_cluster: None,
            use_slots: true,
            use_pg_rewind: false,
            parameters: BTreeMap::new(),
            pg_hba: None,
            pg_ident: None,
        }
    }
}

impl Settings {
    /// Reads the configuration. What cannot be read keeps its default, as in Patroni: a typo in the DCS must not stop a running cluster.
    /// Timings that break `loop_wait + 2 * retry_timeout <= ttl` are brought down in Patroni's way.
    pub fn read(config: &Value) -> Settings {
        let default = Settings::default();
        let seconds = |key: &str, fallback: Duration, least: u64| {
            time(&config[key]).map_or(fallback, |n| Duration::from_secs(n.clamp(least, LONGEST)))
        };
        let postgresql = &config["postgresql"];
        let mut settings = Settings {
            ttl: seconds("ttl", default.ttl, 3),
            loop_wait: seconds("loop_wait", default.loop_wait, 1),
            retry_timeout: seconds("retry_timeout", default.retry_timeout, 1),
            maximum_lag_on_failover: number(&config["maximum_lag_on_failover"]).unwrap_or(default.maximum_lag_on_failover),
            max_timelines_history: number(&config["max_timelines_history"]).and_then(|n| usize::try_from(n).ok()).unwrap_or(0),
            maximum_lag_on_syncnode: number(&config["maximum_lag_on_syncnode"]).filter(|bytes| *bytes > 0),
            primary_start_timeout: seconds(
                if config["primary_start_timeout"].is_null() { "master_start_timeout" } else { "primary_start_timeout" },
                default.primary_start_timeout,
                0,
            ),
            member_slots_ttl: seconds("member_slots_ttl", default.member_slots_ttl, 0),
            permanent_slots: slots::permanent(config),
            logical_slots: slots::logical(config),
            ignore_slots: slots::ignored(config),
            synchronous_mode: sync_mode(&config["synchronous_mode"]),
            synchronous_node_count: number(&config["synchronous_node_count"]).and_then(|n| u32::try_from(n).ok()).unwrap_or(1).max(1),
            synchronous_mode_strict: flag(&config["synchronous_mode_strict"]).unwrap_or(false),
            failsafe_mode: flag(&config["failsafe_mode"]).unwrap_or(false),
            pause: flag(&config["pause"]).unwrap_or(false),
            standby_cluster: standby_cluster::read(config),
            use_slots: flag(&postgresql["use_slots"]).unwrap_or(true),
            use_pg_rewind: flag(&postgresql["use_pg_rewind"]).unwrap_or(false),
            parameters: all_parameters(postgresql),
            pg_hba: lines(&postgresql["pg_hba"]),
            pg_ident: lines(&postgresql["pg_ident"]),
        };
        settings.fit_timings();
        settings
    }

    fn fit_timings(&mut self) {
        let second = Duration::from_secs(1);
        if self.loop_wait + 2 * self.retry_timeout <= self.ttl {
            return;
        }
        self.loop_wait = self.ttl.saturating_sub(2 * self.retry_timeout);
        if self.loop_wait < second {
            self.loop_wait = second;
            self.retry_timeout = Duration::from_secs(((self.ttl.as_secs() - 1) / 2).max(1));
        }
    }
}

/// PostgreSQL parameters from a mapping; numbers and booleans become what PostgreSQL writes.
pub fn parameters(mapping: &Value) -> BTreeMap<String, String> {
    let text = |value: &Value| match value {
        Value::String(s) => Some(s.clone()),
        Value::Bool(b) => Some(if *b { "on" } else { "off" }.to_owned()),
        Value::Number(n) => Some(n.to_string()),
        _ => None,
    };
    mapping.as_object().into_iter().flatten().filter_map(|(k, v)| Some((k.to_lowercase(), text(v)?))).collect()
}

/// Parameters that Patroni has in a section of their own, because PostgreSQL 11 had them in another file. The rest of what was there the agent
/// sets itself.
const RECOVERY: [&str; 4] = ["restore_command", "archive_cleanup_command", "recovery_end_command", "recovery_min_apply_delay"];

/// True for what has an effect in the section `recovery_conf`.
pub fn is_recovery_parameter(name: &str) -> bool {
    RECOVERY.contains(&name)
}

/// The parameters of a section `postgresql`, in its sections `parameters` and `recovery_conf`.
pub fn all_parameters(postgresql: &Value) -> BTreeMap<String, String> {
    let mut all = parameters(&postgresql["parameters"]);
    all.extend(parameters(&postgresql["recovery_conf"]).into_iter().filter(|(name, _)| is_recovery_parameter(name)));
    all
}

/// A list of lines, or `None` where there is no list.
pub fn lines(list: &Value) -> Option<Vec<String>> {
    Some(list.as_array()?.iter().filter_map(Value::as_str).map(str::to_owned).collect())
}

/// A boolean in any of Patroni's spellings.
pub fn flag(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(b) => Some(*b),
        Value::Number(n) => n.as_u64().filter(|n| *n < 2).map(|n| n == 1),
        Value::String(s) => match s.to_lowercase().as_str() {
            "on" | "true" | "yes" | "1" => Some(true),
            "off" | "false" | "no" | "0" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.trim().parse().ok())
}

/// A time in whole seconds: a number of them, or a text with one of PostgreSQL's units.
pub fn time(value: &Value) -> Option<u64> {
    if let Some(seconds) = number(value) {
        return Some(seconds);
    }
    let text = value.as_str()?.trim();
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let count: u64 = digits.parse().ok()?;
    match unit.trim() {
        "ms" => Some(count / 1000),
        "s" => Some(count),
        "min" => count.checked_mul(60),
        "h" => count.checked_mul(3600),
        "d" => count.checked_mul(24 * 3600),
        _ => None,
    }
}

/// True for the value of `synchronous_mode` that lets any of the standbys confirm.
pub fn is_quorum(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.eq_ignore_ascii_case("quorum"))
}

fn sync_mode(value: &Value) -> SyncMode {
    match flag(value) {
        _ if is_quorum(value) => SyncMode::Quorum,
        Some(true) => SyncMode::On,
        _ => SyncMode::Off,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_empty_configuration_means_patronis_defaults() {
        assert_eq!(Settings::read(&json!({})), Settings::default());
    }

    #[test]
    fn timings_that_do_not_fit_are_brought_down() {
        let fitted = |ttl: u64, wait: u64, retry: u64| {
            let s = Settings::read(&json!({"ttl": ttl, "loop_wait": wait, "retry_timeout": retry}));
            (s.ttl.as_secs(), s.loop_wait.as_secs(), s.retry_timeout.as_secs())
        };
        assert_eq!(fitted(10, 2, 4), (10, 2, 4));
        assert_eq!(fitted(20, 2, 10), (20, 1, 9));
        assert_eq!(fitted(30, 15, 10), (30, 10, 10));
    }

    #[test]
    fn times_may_have_a_unit() {
        let seconds = |v: Value| Settings::read(&json!({ "member_slots_ttl": v })).member_slots_ttl.as_secs();
        let read = [json!(90), json!("90"), json!("90s"), json!("2 min"), json!("1h"), json!("1d"), json!("soon")];
        assert_eq!(read.map(seconds), [90, 90, 90, 120, 3600, 86400, 1800]);
    }

    #[test]
    fn modes_and_flags_come_in_many_spellings() {
        let mode = |v: Value| Settings::read(&json!({ "synchronous_mode": v })).synchronous_mode;
        assert_eq!(mode(json!("Quorum")), SyncMode::Quorum);
        assert_eq!(mode(json!("on")), SyncMode::On);
        assert_eq!(mode(json!(true)), SyncMode::On);
        assert_eq!(mode(json!("maybe")), SyncMode::Off);
        let parameters = Settings::read(&json!({"postgresql": {"parameters": {"Fsync": true, "max_connections": 7}}})).parameters;
        assert_eq!(parameters["fsync"], "on");
        assert_eq!(parameters["max_connections"], "7");
    }
}
