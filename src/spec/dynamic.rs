//! A change of the dynamic configuration: merged in Patroni's way, and judged before anything is written. Pure.

use serde_json::{Map, Value};

use super::{
    Mistake, nearest,
    parameters::{AT_LEAST, is_parameter_name, parameter_text},
    raw::kind_of,
    settings::{Settings, flag, is_quorum, time},
    slots,
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
    /// What is not there yet. To accept it and do nothing would be worse: a cluster meant to follow another one would take writes of its own.
    Missing(&'static str),
}

const MOST: i64 = i32::MAX as i64;

/// Patroni's dynamic settings.
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
    ("standby_cluster", Kind::Missing(NO_STANDBY_CLUSTER)),
    ("postgresql", Kind::Postgresql),
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

/// Said of a section `standby_cluster`, wherever it is found.
pub const NO_STANDBY_CLUSTER: &str = "standby clusters are not supported";

/// Parameters that the agent decides, with the reason: a value from here would be ignored, so it is refused instead.
const MANAGED: &[(&str, &str)] = &[
    ("listen_addresses", "each member listens where its own 'postgresql.listen' says"),
    ("port", "each member listens where its own 'postgresql.listen' says"),
    ("cluster_name", "it is the cluster's scope"),
    ("hot_standby", "replicas always answer reads"),
    ("primary_conninfo", "the agent follows the leader with it"),
    ("primary_slot_name", "the agent follows the leader with it"),
    ("synchronous_standby_names", "use 'synchronous_mode' and 'synchronous_node_count'"),
    ("promote_trigger_file", "the agent promotes"),
];

/// Parameters by which whoever sets them gets commands run or code loaded.
const COMMANDS: &[&str] = &[
    "archive_command",
    "restore_command",
    "archive_cleanup_command",
    "recovery_end_command",
    "ssl_passphrase_command",
    "dynamic_library_path",
    "extension_control_path",
    "jit_provider",
];

/// Parameters by which the server reads or writes files of somebody else's choice.
const PLACES: &[&str] = &[
    "data_directory",
    "config_file",
    "hba_file",
    "ident_file",
    "external_pid_file",
    "log_directory",
    "log_filename",
    "unix_socket_directories",
    "unix_socket_group",
    "unix_socket_permissions",
    "stats_temp_directory",
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
    let Some(config) = config.as_object() else {
        return vec![Mistake { path: String::new(), value: None, problem: format!("it is {}, expected a mapping", kind_of(config)) }];
    };
    let mut found = Vec::new();
    for (key, value) in config {
        match SETTINGS.iter().find(|(name, _)| name == key) {
            Some((_, kind)) => judge(key, value, kind, &mut found),
            None => found.push(unknown(key, key, &names(SETTINGS))),
        }
    }
    found.extend(timings(&Value::Object(config.clone())));
    found
}

fn names(settings: &[(&'static str, Kind)]) -> Vec<&'static str> {
    settings.iter().map(|(name, _)| *name).collect()
}

fn unknown(path: &str, key: &str, known: &[&str]) -> Mistake {
    let hint = nearest(key, known).map(|name| format!(": did you mean '{name}'?")).unwrap_or_default();
    Mistake { path: path.to_owned(), value: None, problem: format!("there is no such setting{hint}") }
}

fn judge(path: &str, value: &Value, kind: &Kind, found: &mut Vec<Mistake>) {
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
        Kind::Missing(why) => (!value.is_null()).then(|| (*why).to_owned()),
        Kind::Postgresql => (!value.is_object()).then(|| format!("it is {}, expected a mapping", kind_of(value))),
    };
    if let Some(problem) = expected {
        found.push(Mistake { path: path.to_owned(), value: Some(value.to_string()), problem });
        return;
    }
    match (kind, value.as_object()) {
        (Kind::Postgresql, Some(section)) => postgresql(section, found),
        (Kind::Slots, Some(_)) => found.extend(slots::mistakes(path, value)),
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

fn postgresql(section: &Map<String, Value>, found: &mut Vec<Mistake>) {
    for (key, value) in section {
        let path = format!("postgresql.{key}");
        let Some((_, kind)) = POSTGRESQL.iter().find(|(name, _)| name == key) else {
            let problem = "it holds for one member only, or names commands: set it in the member's own configuration file";
            found.push(Mistake { path, value: None, problem: problem.to_owned() });
            continue;
        };
        judge(&path, value, kind, found);
        match (key.as_str(), value) {
            ("parameters" | "recovery_conf", Value::Object(parameters)) => {
                for (name, value) in parameters {
                    if let Err(problem) = parameter(name, value) {
                        // What somebody tried to have run is not repeated: it may carry a password.
                        let value = (!runs_code(&name.to_lowercase())).then(|| value.to_string());
                        found.push(Mistake { path: format!("{path}.{name}"), value, problem });
                    }
                }
            }
            ("pg_hba" | "pg_ident", Value::Array(lines)) => {
                for (number, line) in lines.iter().enumerate() {
                    if let Some(problem) = access_line(key, line) {
                        found.push(Mistake { path: format!("{path}[{number}]"), value: Some(line.to_string()), problem });
                    }
                }
            }
            _ => {}
        }
    }
}

/// What can be said of a parameter without asking PostgreSQL.
fn parameter(name: &str, value: &Value) -> Result<(), String> {
    let name = name.to_lowercase();
    if !is_parameter_name(&name) {
        return Err("parameter names are letters, digits, underscores and dots".to_owned());
    }
    if runs_code(&name) {
        return Err("it runs commands or loads code: set it in the member's own configuration file".to_owned());
    }
    if PLACES.contains(&name.as_str()) {
        return Err("it names files of a member: set it in the member's own configuration file".to_owned());
    }
    if let Some((_, why)) = MANAGED.iter().find(|(managed, _)| *managed == name) {
        return Err(format!("it cannot be set: {why}"));
    }
    if name.starts_with("recovery_target") {
        return Err("it cannot be set: the agent decides what to follow".to_owned());
    }
    let text = parameter_text(value)?;
    if name == "wal_level" && !matches!(text.as_str(), "replica" | "logical" | "hot_standby") {
        return Err("possible are: replica, logical".to_owned());
    }
    match AT_LEAST.iter().find(|(limited, _)| *limited == name) {
        Some((_, least)) if !text.parse::<u64>().is_ok_and(|number| number >= *least) => {
            Err(format!("expected a whole number of at least {least}"))
        }
        _ => Ok(()),
    }
}

/// True for parameters by which whoever sets them gets commands run or code loaded.
fn runs_code(name: &str) -> bool {
    let interpreter = ["plperl.", "pltcl.", "plpython.", "pljava.", "plv8."].iter().any(|language| name.starts_with(language));
    COMMANDS.contains(&name)
        || name.ends_with("_command")
        || name.ends_with("_libraries")
        || name.ends_with("_library")
        || (interpreter && name != "plperl.use_strict")
}

/// What is wrong with a line of pg_hba.conf or pg_ident.conf: with one that PostgreSQL cannot read it would not start.
fn access_line(file: &str, line: &Value) -> Option<String> {
    let Some(text) = line.as_str() else { return Some(format!("it is {}, expected a text", kind_of(line))) };
    if text.chars().any(|c| c.is_control() && c != '\t') {
        return Some("line breaks and control characters are not possible".to_owned());
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    if words.is_empty() || words[0].starts_with('#') {
        return None;
    }
    if file == "pg_ident" {
        return (words.len() < 3).then(|| "expected a map, a system user and a database user".to_owned());
    }
    let (least, method) = match words[0] {
        "local" => (4, words.get(3)),
        "host" | "hostssl" | "hostnossl" | "hostgssenc" | "hostnogssenc" => {
            let masked = words.get(4).is_some_and(|word| word.parse::<std::net::IpAddr>().is_ok());
            if masked { (6, words.get(5)) } else { (5, words.get(4)) }
        }
        _ => return Some("expected a line that begins with local, host, hostssl, hostnossl, hostgssenc or hostnogssenc".to_owned()),
    };
    if words.len() < least {
        return Some(format!("expected at least {least} words: type, databases, users, address (not for local) and method"));
    }
    let known = METHODS.contains(method.unwrap_or(&""));
    (!known && !text.contains('"')).then(|| format!("the method is none of: {}", METHODS.join(", ")))
}

const METHODS: &[&str] =
    &["trust", "reject", "scram-sha-256", "md5", "password", "gss", "ident", "peer", "ldap", "radius", "cert", "pam", "oauth"];

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
                assert!(!found.contains("secret-thing") || PLACES.contains(&name), "{found}");
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
    fn a_cluster_that_should_follow_another_one_is_refused_before_it_takes_writes() {
        assert_eq!(said(&json!({"standby_cluster": {"host": "x"}})).len(), 1);
        assert!(said(&json!({"standby_cluster": {"host": "x"}}))[0].contains(NO_STANDBY_CLUSTER));
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
