//! PostgreSQL parameters in a spec: which may be set, and how their values are written.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{Mistake, raw::kind_of};

/// Parameters that the agent decides, with the reason: a value from the spec would be ignored, so it is refused instead.
const MANAGED: &[(&str, &str)] = &[
    ("listen_addresses", "the node's address is decided by the platform"),
    ("port", "nodes listen on 5432 inside; use 'docker.port' for the published one"),
    ("cluster_name", "it is the cluster's name"),
    ("hot_standby", "replicas always answer reads"),
    ("data_directory", "the node's volume decides"),
    ("hba_file", "the agent writes it"),
    ("ident_file", "the agent writes it"),
    ("unix_socket_directories", "the agent's own connections depend on it"),
    ("primary_conninfo", "the agent follows the leader with it"),
    ("primary_slot_name", "the agent follows the leader with it"),
    ("synchronous_standby_names", "use 'ha.durability'"),
    ("synchronous_commit", "use 'ha.durability', or set it per transaction or role"),
    ("promote_trigger_file", "the agent promotes"),
    ("recovery_target_timeline", "the agent decides what to follow"),
    ("fsync", "switching it off loses data when the machine crashes"),
    ("full_page_writes", "switching it off loses data when the machine crashes"),
];

/// The lowest values with which replication still works.
pub(super) const AT_LEAST: &[(&str, u64)] = &[
    ("max_connections", 25),
    ("max_wal_senders", 3),
    ("max_locks_per_transaction", 32),
    ("max_replication_slots", 4),
    ("max_worker_processes", 2),
];

/// Checks each parameter and turns its value into PostgreSQL's text form; mistakes join the list.
pub(super) fn check_parameters(parameters: &Map<String, Value>, mistakes: &mut Vec<Mistake>) -> BTreeMap<String, String> {
    let mut checked = BTreeMap::new();
    for (name, value) in parameters {
        match check_parameter(name, value) {
            Ok(text) => {
                checked.insert(name.clone(), text);
            }
            Err(problem) => {
                let path = format!("postgres.parameters.{name}");
                mistakes.push(Mistake { path, value: Some(value.to_string()), problem });
            }
        }
    }
    checked
}

fn check_parameter(name: &str, value: &Value) -> Result<String, String> {
    if !is_parameter_name(name) {
        return Err("parameter names are lower-case letters, digits, underscores and dots".to_owned());
    }
    if let Some((_, why)) = MANAGED.iter().find(|(managed, _)| *managed == name) {
        return Err(format!("it cannot be set: {why}"));
    }
    if name == "wal_level" && !matches!(value.as_str(), Some("replica" | "logical")) {
        return Err("possible are: replica, logical".to_owned());
    }
    let text = parameter_text(value)?;
    match AT_LEAST.iter().find(|(limited, _)| *limited == name) {
        Some((_, least)) if text.parse::<u64>().is_ok_and(|number| number >= *least) => Ok(text),
        Some((_, least)) => Err(format!("expected a whole number of at least {least}")),
        None => Ok(text),
    }
}

pub(super) fn parameter_text(value: &Value) -> Result<String, String> {
    match value {
        Value::Bool(true) => Ok("on".to_owned()),
        Value::Bool(false) => Ok("off".to_owned()),
        Value::Number(number) => Ok(number.to_string()),
        Value::String(text) if text.chars().any(char::is_control) => Err("line breaks and control characters are not possible".to_owned()),
        Value::String(text) => Ok(text.clone()),
        other => Err(format!("it is {}, expected a text, a number or a boolean", kind_of(other))),
    }
}

pub(super) fn is_parameter_name(name: &str) -> bool {
    let starts_well = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    starts_well && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'.')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problem(name: &str, value: &Value) -> String {
        check_parameter(name, value).expect_err(name)
    }

    #[test]
    fn values_take_postgresqls_text_form() {
        assert_eq!(check_parameter("max_connections", &json!(200)), Ok("200".to_owned()));
        assert_eq!(check_parameter("log_checkpoints", &json!(false)), Ok("off".to_owned()));
        assert_eq!(check_parameter("shared_buffers", &json!("256MB")), Ok("256MB".to_owned()));
        assert_eq!(check_parameter("pg_stat_statements.max", &json!(500)), Ok("500".to_owned()));
    }

    #[test]
    fn parameters_of_the_agent_are_refused_with_the_reason() {
        assert!(problem("synchronous_standby_names", &json!("*")).contains("use 'ha.durability'"));
        assert!(problem("port", &json!(6000)).contains("'docker.port'"));
    }

    #[test]
    fn values_that_break_replication_are_refused() {
        assert!(problem("max_wal_senders", &json!(1)).contains("at least 3"));
        assert!(problem("max_connections", &json!("many")).contains("at least 25"));
        assert!(problem("wal_level", &json!("minimal")).contains("logical"));
    }

    #[test]
    fn text_that_would_end_the_line_in_a_configuration_file_is_refused() {
        assert!(problem("application_name", &json!("a\nfsync = off")).contains("line breaks"));
        assert!(problem("Max Connections", &json!(1)).contains("lower-case"));
        assert!(problem("work_mem", &json!(null)).contains("it is empty"));
    }
}
