//! The section `standby_cluster` of the dynamic configuration: the whole cluster follows the primary of another one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Mistake, Origin, nearest, raw::kind_of, settings};

/// PostgreSQL's port where none is given.
const DEFAULT_PORT: u16 = 5432;

/// What is taken over into the configuration of the server that follows the other cluster, under PostgreSQL's own names.
const PARAMETERS: [&str; 3] = ["restore_command", "archive_cleanup_command", "recovery_min_apply_delay"];

/// Every key that the section may have.
const KEYS: [&str; 7] = [
    "host",
    "port",
    "primary_slot_name",
    "create_replica_methods",
    "restore_command",
    "archive_cleanup_command",
    "recovery_min_apply_delay",
];

/// How the name begins under which a member streams from the other cluster. No member is named so: were it known there by its own name, and the
/// other cluster had a member of that name, commits there could be acknowledged for what nobody of that cluster has.
pub const STREAMS_AS: &str = "standby/";

/// Where a standby cluster has its data from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandbyCluster {
    /// Hosts and ports of the servers of which one is the other cluster's primary. None: WAL comes from an archive only.
    pub hosts: Vec<(String, u16)>,
    /// The slot on the other cluster's primary to stream through.
    pub slot: Option<String>,
    /// Parameters of the server that follows the other cluster.
    pub parameters: BTreeMap<String, String>,
}

/// The section, if the cluster is to follow another one. What cannot be read is left out, and the cluster follows nobody rather than taking
/// writes that it was not meant to take.
pub fn read(config: &Value) -> Option<StandbyCluster> {
    let section = &config["standby_cluster"];
    let given = |key: &str| !matches!(&section[key], Value::Null | Value::Bool(false)) && section[key] != "" && section[key] != 0;
    // Patroni's rule.
    if !["host", "port", "restore_command"].into_iter().any(given) {
        return None;
    }
    let parameters = settings::parameters(section).into_iter().filter(|(name, _)| PARAMETERS.contains(&name.as_str()));
    Some(StandbyCluster {
        hosts: hosts(section).unwrap_or_default(),
        slot: section["primary_slot_name"].as_str().filter(|slot| !slot.is_empty()).map(str::to_owned),
        parameters: parameters.collect(),
    })
}

/// Hosts and ports, each a list joined by commas; one port counts for every host.
///
/// `Err`: the key that is wrong, and why.
fn hosts(section: &Value) -> Result<Vec<(String, u16)>, (&'static str, String)> {
    let list = |text: &str| text.split(',').map(|part| part.trim().to_owned()).collect::<Vec<_>>();
    let hosts = match &section["host"] {
        Value::Null => return Ok(Vec::new()),
        Value::String(text) => list(text),
        other => return Err(("host", format!("it is {}, expected a text", kind_of(other)))),
    };
    if hosts.iter().any(|host| host.is_empty() || host.chars().any(|c| c.is_control() || c.is_whitespace())) {
        return Err(("host", "expected a host, or several of them joined by commas".to_owned()));
    }
    let ports = match &section["port"] {
        Value::Null => vec![DEFAULT_PORT.to_string()],
        Value::Number(number) => vec![number.to_string()],
        Value::String(text) => list(text),
        other => return Err(("port", format!("it is {}, expected a number", kind_of(other)))),
    };
    let ports: Option<Vec<u16>> = ports.iter().map(|port| port.parse().ok().filter(|port| *port > 0)).collect();
    let ports = ports.ok_or_else(|| ("port", "expected a port from 1 to 65535, or several of them joined by commas".to_owned()))?;
    match ports.len() {
        1 => Ok(hosts.into_iter().map(|host| (host, ports[0])).collect()),
        count if count == hosts.len() => Ok(hosts.into_iter().zip(ports).collect()),
        count => Err(("port", format!("{count} ports for {} hosts: expected one port, or one for each host", hosts.len()))),
    }
}

/// What is wrong with the section.
pub fn mistakes(section: &Value, origin: Origin) -> Vec<Mistake> {
    let mistake = |key: &str, value: Option<&Value>, problem: String| {
        let path = if key.is_empty() { "standby_cluster".to_owned() } else { format!("standby_cluster.{key}") };
        Mistake { path, value: value.map(Value::to_string), problem }
    };
    let Some(keys) = section.as_object() else {
        return vec![mistake("", Some(section), format!("it is {}, expected a mapping", kind_of(section)))];
    };
    let mut found = Vec::new();
    for (key, value) in keys {
        match key.as_str() {
            "restore_command" | "archive_cleanup_command" if origin == Origin::Network => {
                // What somebody tried to have run is not repeated: it may carry a password.
                let problem = "it names a command: set it in the member's own configuration file, under 'postgresql.parameters'";
                found.push(mistake(key, None, problem.to_owned()));
            }
            "create_replica_methods" => found.extend(copies(value).map(|problem| mistake(key, Some(value), problem))),
            "primary_slot_name" => found.extend(slot(value).map(|problem| mistake(key, Some(value), problem))),
            name if PARAMETERS.contains(&name) && !value.is_string() && !value.is_number() => {
                found.push(mistake(key, Some(value), "expected a text".to_owned()));
            }
            name if !KEYS.contains(&name) => {
                let hint = nearest(name, &KEYS).map(|near| format!(": did you mean '{near}'?")).unwrap_or_default();
                found.push(mistake(key, None, format!("there is no such setting{hint}")));
            }
            _ => {}
        }
    }
    match hosts(section) {
        Ok(hosts) if hosts.is_empty() => {
            let problem = "'host' is missing: a standby cluster is copied from the other cluster's primary and streams from it";
            found.push(mistake("", None, problem.to_owned()));
        }
        Ok(_) => {}
        Err((key, problem)) => found.push(mistake(key, Some(&section[key]), problem)),
    }
    found
}

/// Anything but a copy by pg_basebackup would be found missing when there is nothing else to copy from.
fn copies(value: &Value) -> Option<String> {
    let methods = settings::lines(value).unwrap_or_else(|| value.as_str().map(str::to_owned).into_iter().collect());
    let only_base_backups = !methods.is_empty() && methods.iter().all(|method| method == "basebackup");
    (!only_base_backups).then(|| "only 'basebackup' is supported: the other cluster's primary is copied with pg_basebackup".to_owned())
}

fn slot(value: &Value) -> Option<String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let fits = value.as_str().is_some_and(|name| !name.is_empty() && name.len() <= 63 && name.chars().all(plain));
    (!fits).then(|| "names of slots are 1 to 63 lower case letters, digits and underscores".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn section(section: &Value) -> Option<StandbyCluster> {
        read(&json!({ "standby_cluster": section }))
    }

    fn said(section: &Value) -> Vec<String> {
        mistakes(section, Origin::Network).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_cluster_follows_another_one_as_soon_as_the_section_says_where_from() {
        assert_eq!(read(&json!({})), None);
        for nothing in [json!(null), json!({}), json!({"host": "", "port": 0}), json!({"primary_slot_name": "s"}), json!({"host": null})] {
            assert_eq!(section(&nothing), None);
        }
        let full = section(&json!({"host": "a", "port": 5433, "primary_slot_name": "s", "recovery_min_apply_delay": "1h"})).unwrap();
        assert_eq!((full.hosts, full.slot), (vec![("a".to_owned(), 5433)], Some("s".to_owned())));
        assert_eq!(full.parameters, [("recovery_min_apply_delay".to_owned(), "1h".to_owned())].into());
    }

    #[test]
    fn what_cannot_be_read_still_keeps_the_cluster_from_taking_writes() {
        assert_eq!(section(&json!({"host": 5})).unwrap().hosts, []);
        assert_eq!(section(&json!({"restore_command": "cp"})).unwrap().hosts, []);
        assert_eq!(section(&json!({"host": "a,b", "port": "1,2,3"})).unwrap().hosts, []);
    }

    #[test]
    fn several_hosts_have_one_port_or_one_each() {
        let hosts = |host: &str, port: &Value| section(&json!({"host": host, "port": port})).unwrap().hosts;
        assert_eq!(hosts("a, b", &json!("5432")), [("a".to_owned(), 5432), ("b".to_owned(), 5432)]);
        assert_eq!(hosts("a,b", &json!("1,2")), [("a".to_owned(), 1), ("b".to_owned(), 2)]);
        assert_eq!(hosts("a,b", &Value::Null), [("a".to_owned(), 5432), ("b".to_owned(), 5432)]);
    }

    #[test]
    fn what_is_refused_is_named_with_the_reason() {
        assert_eq!(said(&json!({"host": "a", "port": 5432, "create_replica_methods": ["basebackup"], "primary_slot_name": "s"})), [""; 0]);
        let refused = [
            (
                json!({"host": "a", "create_replica_methods": ["basebackup", "wal_e"]}),
                "standby_cluster.create_replica_methods",
                "pg_basebackup",
            ),
            (json!({"host": "a", "restore_command": "secret"}), "standby_cluster.restore_command", "own configuration file"),
            (json!({"host": "a", "port": 0}), "standby_cluster.port", "1 to 65535"),
            (json!({"host": "a", "prot": 1}), "standby_cluster.prot", "did you mean 'port'"),
            (json!({"host": "a", "primary_slot_name": "S-1"}), "standby_cluster.primary_slot_name", "lower case"),
            (json!({"port": 5432}), "standby_cluster", "'host' is missing"),
            (json!("a"), "standby_cluster", "expected a mapping"),
        ];
        for (section, path, why) in refused {
            let said = said(&section);
            assert!(said.len() == 1 && said[0].contains(path) && said[0].contains(why) && !said[0].contains("secret"), "{said:?}");
        }
    }

    #[test]
    fn the_owner_of_the_machine_may_name_commands() {
        assert_eq!(mistakes(&json!({"host": "a", "restore_command": "cp x %f %p"}), Origin::File), []);
    }
}
