//! A change of the dynamic configuration: merged in Patroni's way, and judged before anything is written. Pure.

mod access_line;
mod parameter;

use serde_json::{Map, Value};

use super::{
    Mistake, Origin, backup_policy, nearest,
    raw::kind_of,
    settings::{Settings, flag, is_quorum, time},
    slots, standby_cluster,
};

/// What a setting may hold.
enum Kind {
    /// A whole number from the least to the most.
    Whole(i64, i64),
    /// Seconds from the least on, or a text with a unit.
    Time(u64),
    /// On or off.
    Flag,
    /// Off, on, or quorum.
    Sync,
    /// A mapping.
    Mapping,
    /// Permanent slots.
    Slots,
    /// A list.
    List,
    /// The section of PostgreSQL.
    Postgresql,
    /// The section of a standby cluster.
    StandbyCluster,
    /// Our own section.
    Spilo,
}

const MOST: i64 = i32::MAX as i64;

/// Patroni's dynamic settings, and one section of ours.
const SETTINGS: &[(&str, Kind)] = &[
    ("ttl", Kind::Time(3)),
    ("loop_wait", Kind::Time(1)),
    ("retry_timeout", Kind::Time(1)),
    ("maximum_lag_on_failover", Kind::Whole(0, i64::MAX)),
    ("maximum_lag_on_syncnode", Kind::Whole(-1, i64::MAX)),
    ("max_timelines_history", Kind::Whole(0, MOST)),
    ("primary_start_timeout", Kind::Time(0)),
    ("master_start_timeout", Kind::Time(0)),
    ("primary_stop_timeout", Kind::Time(0)),
    ("master_stop_timeout", Kind::Time(0)),
    ("synchronous_mode", Kind::Sync),
    ("synchronous_mode_strict", Kind::Flag),
    ("synchronous_node_count", Kind::Whole(1, MOST)),
    ("failsafe_mode", Kind::Flag),
    ("pause", Kind::Flag),
    ("check_timeline", Kind::Flag),
    ("member_slots_ttl", Kind::Time(0)),
    ("slots", Kind::Slots),
    ("permanent_slots", Kind::Slots),
    ("permanent_replication_slots", Kind::Slots),
    ("ignore_slots", Kind::List),
    ("standby_cluster", Kind::StandbyCluster),
    ("postgresql", Kind::Postgresql),
    ("spilo", Kind::Spilo),
];

/// Settings of the section `postgresql` that hold for the whole cluster.
const POSTGRESQL: &[(&str, Kind)] = &[
    ("use_pg_rewind", Kind::Flag),
    ("use_slots", Kind::Flag),
    ("remove_data_directory_on_rewind_failure", Kind::Flag),
    ("remove_data_directory_on_diverged_timelines", Kind::Flag),
    ("pg_ctl_timeout", Kind::Time(1)),
    ("parameters", Kind::Mapping),
    ("recovery_conf", Kind::Mapping),
    ("pg_hba", Kind::List),
    ("pg_ident", Kind::List),
];

/// Patroni's merge: `null` deletes, mappings merge, everything else replaces.
pub fn merged(base: &Value, patch: &Value) -> Value {
    let Value::Object(changes) = patch else { return patch.clone() };
    let mut result = base.as_object().cloned().unwrap_or_default();
    for (key, change) in changes {
        if change.is_null() {
            // Not `swap_remove`: readers see the keys in the order in which they were written.
            result.shift_remove(key);
        } else {
            let before = result.get(key).cloned().unwrap_or_default();
            result.insert(key.clone(), merged(&before, change));
        }
    }
    Value::Object(result)
}

/// The mistakes that `after` has and `before` had not: what somebody else stored earlier does not stand in the way of today's change.
pub fn new_mistakes(before: &Value, after: &Value) -> Vec<Mistake> {
    let known = mistakes(before);
    mistakes(after).into_iter().filter(|mistake| !known.contains(mistake)).collect()
}

/// PostgreSQL's parameters whose value `after` gives and `before` did not, as PostgreSQL is to read them.
pub fn new_parameters(before: &Value, after: &Value) -> Vec<(String, String)> {
    let (before, after) = (Settings::read(before).parameters, Settings::read(after).parameters);
    after.into_iter().filter(|(name, value)| before.get(name) != Some(value)).collect()
}

/// The path under which a parameter is written.
pub fn parameter_path(name: &str) -> String {
    format!("postgresql.parameters.{name}")
}

/// Everything that is wrong with a dynamic configuration which came over the network.
pub fn mistakes(config: &Value) -> Vec<Mistake> {
    let mut found = mistakes_from(config, Origin::Network);
    found.extend(timings(config));
    found
}

/// Everything that is wrong with a dynamic configuration from a member's own file, or in the DCS, where the file's may have been written. There
/// `null` says nothing, and timings that do not fit are made to.
pub fn mistakes_of_file(config: &Value) -> Vec<Mistake> {
    mistakes_from(&if config.is_object() { merged(&Value::Null, config) } else { config.clone() }, Origin::File)
}

fn mistakes_from(config: &Value, origin: Origin) -> Vec<Mistake> {
    let Some(config) = config.as_object() else {
        return vec![Mistake { path: String::new(), value: None, problem: format!("it is {}, expected a mapping", kind_of(config)) }];
    };
    let mut found = Vec::new();
    for (key, value) in config {
        match SETTINGS.iter().find(|(name, _)| name == key) {
            Some((_, kind)) => judge(key, value, kind, origin, &mut found),
            None => found.push(unknown(key, key, &names(SETTINGS))),
        }
    }
    found.extend(slots::conditions(&Value::Object(config.clone())));
    found
}

fn names(settings: &[(&'static str, Kind)]) -> Vec<&'static str> {
    settings.iter().map(|(name, _)| *name).collect()
}

fn unknown(path: &str, key: &str, known: &[&str]) -> Mistake {
    let hint = nearest(key, known).map(|name| format!(": did you mean '{name}'?")).unwrap_or_default();
    Mistake { path: path.to_owned(), value: None, problem: format!("there is no such setting{hint}") }
}

fn judge(path: &str, value: &Value, kind: &Kind, origin: Origin, found: &mut Vec<Mistake>) {
    let expected = match kind {
        Kind::Whole(least, most) => {
            let fits = whole(value).is_some_and(|number| (*least..=*most).contains(&number));
            (!fits).then(|| match *most {
                i64::MAX => format!("expected a whole number of at least {least}"),
                most => format!("expected a whole number from {least} to {most}"),
            })
        }
        Kind::Time(least) => {
            let fits = time(value).is_some_and(|seconds| seconds >= *least);
            (!fits).then(|| format!("expected at least {least}, in whole seconds or as a text such as '5min'"))
        }
        Kind::Flag => flag(value).is_none().then(|| "expected true or false".to_owned()),
        Kind::Sync => (flag(value).is_none() && !is_quorum(value)).then(|| "expected off, on or quorum".to_owned()),
        Kind::Mapping | Kind::Slots => (!value.is_object()).then(|| format!("it is {}, expected a mapping", kind_of(value))),
        Kind::List => (!value.is_array()).then(|| format!("it is {}, expected a list", kind_of(value))),
        Kind::StandbyCluster | Kind::Spilo => None,
        Kind::Postgresql => (!value.is_object()).then(|| format!("it is {}, expected a mapping", kind_of(value))),
    };
    if let Some(problem) = expected {
        found.push(Mistake { path: path.to_owned(), value: Some(value.to_string()), problem });
        return;
    }
    match (kind, value.as_object()) {
        (Kind::Postgresql, Some(section)) => postgresql(section, origin, found),
        (Kind::Slots, Some(_)) => found.extend(slots::mistakes(path, value)),
        (Kind::StandbyCluster, _) if !value.is_null() => found.extend(standby_cluster::mistakes(value, origin)),
        (Kind::Spilo, _) if !value.is_null() => found.extend(backup_policy::mistakes(value)),
        _ => {}
    }
}

/// `loop_wait + 2 * retry_timeout <= ttl`: only then does a leader that cannot renew its lease know so before it ends.
fn timings(config: &Value) -> Option<Mistake> {
    let defaults = Settings::default();
    let seconds = |key: &str, default: std::time::Duration| match &config[key] {
        Value::Null => Some(default.as_secs()),
        value => time(value),
    };
    let (ttl, wait, retry) =
        (seconds("ttl", defaults.ttl)?, seconds("loop_wait", defaults.loop_wait)?, seconds("retry_timeout", defaults.retry_timeout)?);
    let least = wait.saturating_add(retry.saturating_mul(2));
    (ttl < least).then(|| Mistake {
        path: "ttl".to_owned(),
        value: Some(ttl.to_string()),
        problem: format!("expected at least loop_wait + 2 * retry_timeout, which is {wait} + 2 * {retry} = {least}"),
    })
}

fn postgresql(section: &Map<String, Value>, origin: Origin, found: &mut Vec<Mistake>) {
    for (key, value) in section {
        let path = format!("postgresql.{key}");
        let Some((_, kind)) = POSTGRESQL.iter().find(|(name, _)| name == key) else {
            let problem = "it holds for one member only, or names commands: set it in the member's own configuration file";
            found.push(Mistake { path, value: None, problem: problem.to_owned() });
            continue;
        };
        judge(&path, value, kind, origin, found);
        match (key.as_str(), value) {
            ("parameters" | "recovery_conf", Value::Object(parameters)) => {
                for (name, value) in parameters {
                    if let Err(problem) = parameter::fault(name, value, origin) {
                        // What somebody tried to have run is not repeated: it may carry a password.
                        let value = (!parameter::runs_code(&name.to_lowercase())).then(|| value.to_string());
                        found.push(Mistake { path: format!("{path}.{name}"), value, problem });
                    }
                }
            }
            ("pg_hba" | "pg_ident", Value::Array(lines)) => {
                for (number, line) in lines.iter().enumerate() {
                    if let Some(problem) = access_line::fault(key, line) {
                        found.push(Mistake { path: format!("{path}[{number}]"), value: Some(line.to_string()), problem });
                    }
                }
            }
            _ => {}
        }
    }
}

fn whole(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(config: &Value) -> Vec<String> {
        mistakes(config).iter().map(Mistake::to_string).collect()
    }

    #[test]
    fn null_deletes_and_mappings_merge() {
        let before = json!({"ttl": 30, "pause": true, "postgresql": {"parameters": {"work_mem": "4MB", "jit": "off"}}});
        let patch = json!({"pause": null, "loop_wait": 5, "absent": null, "postgresql": {"parameters": {"jit": null, "fsync": "on"}}});
        assert_eq!(
            merged(&before, &patch).to_string(),
            r#"{"ttl":30,"postgresql":{"parameters":{"work_mem":"4MB","fsync":"on"}},"loop_wait":5}"#
        );
    }

    #[test]
    fn a_new_mapping_carries_no_deletions() {
        assert_eq!(merged(&json!({}), &json!({"postgresql": {"parameters": {"jit": null}}})), json!({"postgresql": {"parameters": {}}}));
    }

    #[test]
    fn what_patroni_documents_is_accepted() {
        let config = json!({
            "ttl": 20, "loop_wait": 3, "retry_timeout": "8", "maximum_lag_on_failover": 1_048_576, "member_slots_ttl": "30min",
            "synchronous_mode": "quorum", "pause": "off", "maximum_lag_on_syncnode": -1, "slots": {"a": {"type": "physical"}},
            "ignore_slots": [{"name": "b"}],
            "postgresql": {"use_slots": true, "use_pg_rewind": true, "pg_hba": ["local all all peer", "# none", "host all all ::1/128 md5",
                "host all all 10.0.0.0 255.0.0.0 scram-sha-256", "hostssl all \"some body\" 0.0.0.0/0 cert clientcert=verify-full"],
                "parameters": {"wal_level": "hot_standby", "max_wal_senders": 5, "max_connections": "101", "plperl.use_strict": true}}
        });
        assert_eq!(said(&config), Vec::<String>::new());
    }

    #[test]
    fn every_mistake_is_named_with_key_value_and_range() {
        let found = said(&json!({
            "tttl": 30, "loop_wait": 0, "synchronous_mode": "perhaps", "pause": 7, "synchronous_node_count": 0, "slots": [],
            "postgresql": {"bin_dir": "/tmp", "use_slots": "x", "parameters": {"max_connections": 5, "port": 1, "wal_level": "minimal"},
                "pg_hba": ["hots all all all trust", "host all all"]}
        }));
        for part in [
            "'tttl': there is no such setting: did you mean 'ttl'?",
            "'loop_wait: 0': expected at least 1",
            "'synchronous_mode: \"perhaps\"': expected off, on or quorum",
            "'pause: 7': expected true or false",
            "'synchronous_node_count: 0': expected a whole number from 1",
            "'slots: []': it is a list, expected a mapping",
            "'postgresql.bin_dir': it holds for one member only",
            "'postgresql.use_slots: \"x\"': expected true or false",
            "'postgresql.parameters.max_connections: 5': expected a whole number of at least 25",
            "'postgresql.parameters.port: 1': it cannot be set",
            "'postgresql.parameters.wal_level: \"minimal\"': possible are",
            "'postgresql.pg_hba[0]: \"hots all all all trust\"': expected a line that begins",
            "'postgresql.pg_hba[1]: \"host all all\"': expected at least 5 words",
        ] {
            assert!(found.iter().any(|text| text.starts_with(part)), "{part} not in\n{}", found.join("\n"));
        }
        assert_eq!(found.len(), 13, "{found:?}");
    }

    #[test]
    fn a_lease_that_is_too_short_for_its_renewals_is_refused() {
        assert!(
            said(&json!({"ttl": 20}))[0].contains("'ttl: 20': expected at least loop_wait + 2 * retry_timeout, which is 10 + 2 * 10 = 30")
        );
        assert!(said(&json!({"ttl": 10, "loop_wait": 2, "retry_timeout": 4})).is_empty());
    }

    #[test]
    fn what_runs_commands_or_loads_code_comes_from_the_local_file_only() {
        for name in [
            "archive_command",
            "Restore_Command",
            "archive_cleanup_command",
            "recovery_end_command",
            "ssl_passphrase_command",
            "shared_preload_libraries",
            "session_preload_libraries",
            "local_preload_libraries",
            "archive_library",
            "dynamic_library_path",
            "plperl.on_init",
            "unix_socket_directories",
            "log_directory",
        ] {
            for section in ["parameters", "recovery_conf"] {
                let found = said(&json!({"postgresql": {section: {name: "secret-thing"}}})).join("\n");
                assert!(found.contains(name) && found.contains("own configuration file"), "{name}: {found}");
                assert!(!found.contains("secret-thing") || parameter::PLACES.contains(&name), "{found}");
            }
        }
        for path in [
            json!({"postgresql": {"callbacks": {"on_start": "/x"}}}),
            json!({"postgresql": {"pre_promote": "/x"}}),
            json!({"postgresql": {"basebackup": {"command": "/x"}}}),
        ] {
            assert!(said(&path)[0].contains("own configuration file"), "{path}");
        }
    }

    #[test]
    fn a_section_of_a_standby_cluster_is_judged_key_by_key() {
        assert_eq!(said(&json!({"standby_cluster": {"host": "x", "port": 5432, "primary_slot_name": "s"}})), [""; 0]);
        assert!(said(&json!({"standby_cluster": {"host": "x", "restore_command": "/x"}}))[0].contains("own configuration file"));
        assert!(said(&json!({"standby_cluster": {"hots": "x"}}))[0].contains("'standby_cluster.hots'"));
    }

    #[test]
    fn what_was_stored_before_does_not_stand_in_the_way() {
        let before = json!({"mine": 1, "postgresql": {"parameters": {"archive_command": "x"}}});
        let patched = merged(&before, &json!({"postgresql": {"parameters": {"work_mem": "8MB"}}}));
        assert_eq!(new_mistakes(&before, &patched), []);
        assert_eq!(new_parameters(&before, &patched), [("work_mem".to_owned(), "8MB".to_owned())]);
        let worse = merged(&before, &json!({"mine": null, "theirs": 2, "postgresql": {"parameters": {"restore_command": "y"}}}));
        assert_eq!(new_mistakes(&before, &worse).len(), 2);
        assert_eq!(new_mistakes(&before, &merged(&before, &json!({"postgresql": {"parameters": {"archive_command": null}}}))), []);
    }
}
