//! Which keys of a configuration file in Patroni's language have an effect here. None that has not is passed over in silence: where a
//! protection, data or another way of working hang on it, the file is refused, otherwise the log says it once.

use serde_json::Value;

use crate::{
    postgres::conf,
    spec::{misspelt, nearest, settings},
};

/// What becomes of a key.
enum Key {
    /// It has an effect; its value is judged where it is read.
    Heeded,
    /// A section in which there are these keys. `true`: and no others; else others may be somebody's own.
    Section(bool, &'static [(&'static str, Key)]),
    /// No effect, and nobody is worse off for it.
    Idle(&'static str),
    /// Nobody may believe that it has an effect.
    Refused(&'static str),
    /// The same, unless it holds what is so anyway.
    Only(&'static [&'static str], &'static str),
}

use Key::{Heeded, Idle, Only, Refused, Section};

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Why the file is refused.
    pub mistakes: Vec<String>,
    /// What has no effect, and why.
    pub idle: Vec<String>,
}

const ONE_STORE: &str = "there is one store, and it is 'etcd3'";
const PLAIN_ETCD: &str = "etcd is spoken to over HTTP without a password";
const PLAIN_SQL: &str = "connections between members are not encrypted, and log in with a password";
const OWN_CONNECTIONS: &str = "the REST API takes one connection for each request, 128 at a time";
const PLAIN_API: &str = "members and the command line speak HTTP";
const NO_THREADS: &str = "the agent has one thread";
const KEPT_ASIDE: &str =
    "data that cannot be rewound are replaced by a copy, stay beside it until it streams, and the WAL that only they have is kept";

const ROOT: Key = Section(
    false,
    &[
        ("scope", Heeded),
        ("namespace", Heeded),
        ("name", Heeded),
        ("thread_pool_size", Idle(NO_THREADS)),
        ("thread_stack_size", Idle(NO_THREADS)),
        ("log", Idle("the log goes to standard error, and the environment's 'SPILO_LOG' says what is logged")),
        ("restapi", RESTAPI),
        ("ctl", CTL),
        ("bootstrap", BOOTSTRAP),
        ("etcd3", ETCD3),
        ("etcd", Refused(ONE_STORE)),
        ("consul", Refused(ONE_STORE)),
        ("zookeeper", Refused(ONE_STORE)),
        ("exhibitor", Refused(ONE_STORE)),
        ("kubernetes", Refused(ONE_STORE)),
        ("raft", Refused(ONE_STORE)),
        ("citus", Refused("a cluster is one primary with its standbys")),
        ("postgresql", POSTGRESQL),
        ("watchdog", WATCHDOG),
        ("tags", Heeded),
        ("spilo", Section(true, &[("roles", Heeded), ("archive", ARCHIVE), ("begin_from", BEGIN_FROM)])),
    ],
);

const ARCHIVE: Key =
    Section(true, &[("store", Heeded), ("endpoint", Heeded), ("region", Heeded), ("credentials_file", Heeded), ("cluster", Heeded)]);

const BEGIN_FROM: Key = Section(
    true,
    &[
        ("store", Heeded),
        ("endpoint", Heeded),
        ("region", Heeded),
        ("credentials_file", Heeded),
        ("cluster", Heeded),
        ("system", Heeded),
        ("at", Heeded),
    ],
);

const RESTAPI: Key = Section(
    true,
    &[
        ("listen", Heeded),
        ("connect_address", Heeded),
        ("authentication", Heeded),
        ("certfile", Heeded),
        ("keyfile", Heeded),
        ("keyfile_password", Heeded),
        ("cafile", Heeded),
        ("ciphers", Heeded),
        ("verify_client", Heeded),
        ("allowlist", Heeded),
        ("allowlist_include_members", Heeded),
        ("http_extra_headers", Idle("answers have no headers but their own")),
        ("https_extra_headers", Idle(PLAIN_API)),
        ("request_queue_size", Idle(OWN_CONNECTIONS)),
        ("thread_pool_size", Idle(OWN_CONNECTIONS)),
        ("server_tokens", Idle("answers do not name the server")),
    ],
);

const CTL: Key = Section(
    true,
    &[
        ("authentication", Heeded),
        ("insecure", Idle(PLAIN_API)),
        ("cacert", Idle(PLAIN_API)),
        ("certfile", Idle(PLAIN_API)),
        ("keyfile", Idle(PLAIN_API)),
        ("keyfile_password", Idle(PLAIN_API)),
    ],
);

const BOOTSTRAP: Key = Section(
    false,
    &[
        ("dcs", Heeded),
        ("initdb", Heeded),
        ("pg_hba", Heeded),
        ("method", Only(&["initdb"], "a new cluster begins with initdb, and it would be empty")),
        ("post_bootstrap", Refused("nothing is run in a new cluster; roles and databases can be in 'spilo.roles'")),
        ("post_init", Refused("nothing is run in a new cluster; roles and databases can be in 'spilo.roles'")),
        ("users", Idle("Patroni 4 creates none either; roles can be in 'spilo.roles'")),
    ],
);

const ETCD3: Key = Section(
    true,
    &[
        ("host", Heeded),
        ("hosts", Heeded),
        ("url", Heeded),
        ("port", Heeded),
        ("protocol", Heeded),
        // No members are discovered beyond those that are named.
        ("use_proxies", Heeded),
        ("proxy", Refused("the members of etcd are to be in 'etcd3.hosts'")),
        ("srv", Refused("the members of etcd are to be in 'etcd3.hosts'")),
        ("srv_suffix", Refused("the members of etcd are to be in 'etcd3.hosts'")),
        ("username", Refused(PLAIN_ETCD)),
        ("password", Refused(PLAIN_ETCD)),
        ("cacert", Refused(PLAIN_ETCD)),
        ("cert", Refused(PLAIN_ETCD)),
        ("key", Refused(PLAIN_ETCD)),
    ],
);

const POSTGRESQL: Key = Section(
    false,
    &[
        ("listen", Heeded),
        ("connect_address", Heeded),
        ("proxy_address", Heeded),
        ("data_dir", Heeded),
        ("bin_dir", Heeded),
        ("pgpass", Heeded),
        ("authentication", Section(true, &[("superuser", ROLE), ("replication", ROLE), ("rewind", ROLE)])),
        ("use_unix_socket", Heeded),
        ("use_unix_socket_repl", Idle("no replication goes through a unix socket")),
        ("parameters", Heeded),
        ("recovery_conf", Heeded),
        ("pg_hba", Heeded),
        ("pg_ident", Heeded),
        ("callbacks", Heeded),
        ("pre_promote", Heeded),
        ("before_stop", Heeded),
        ("create_replica_methods", Heeded),
        ("create_replica_method", Heeded),
        ("basebackup", Refused("copies are made by pg_basebackup without options of yours")),
        ("config_dir", Heeded),
        ("config_base_name", Only(&["postgresql"], "PostgreSQL's configuration is in 'postgresql.conf'")),
        ("custom_conf", Refused("PostgreSQL's settings are to be in 'postgresql.parameters'")),
        ("bin_name", BIN_NAME),
        ("database", Only(&["postgres"], "the agent works in the database 'postgres'")),
        ("krbsrvname", Refused(PLAIN_SQL)),
        ("pg_ctl_timeout", Idle("how long a start or a stop may take follows from 'primary_start_timeout' and the lease")),
        ("use_pg_rewind", Heeded),
        ("use_slots", Idle("it holds for the whole cluster: set it over the REST API's '/config'")),
        ("remove_data_directory_on_rewind_failure", Idle(KEPT_ASIDE)),
        ("remove_data_directory_on_diverged_timelines", Idle(KEPT_ASIDE)),
    ],
);

const ROLE: Key = Section(
    true,
    &[
        ("username", Heeded),
        ("password", Heeded),
        ("password_file", Heeded),
        ("sslmode", Only(&["disable", "allow", "prefer"], PLAIN_SQL)),
        ("sslcert", Refused(PLAIN_SQL)),
        ("sslkey", Refused(PLAIN_SQL)),
        ("sslpassword", Refused(PLAIN_SQL)),
        ("sslrootcert", Refused(PLAIN_SQL)),
        ("sslcrl", Refused(PLAIN_SQL)),
        ("sslcrldir", Refused(PLAIN_SQL)),
        ("gssencmode", Only(&["disable", "prefer"], PLAIN_SQL)),
        ("channel_binding", Only(&["disable", "prefer"], PLAIN_SQL)),
        ("sslnegotiation", Only(&["postgres"], PLAIN_SQL)),
    ],
);

const OWN_NAME: &str = "PostgreSQL's programs go by their own names; 'postgresql.bin_dir' says where they are";

const BIN_NAME: Key = Section(
    true,
    &[
        ("pg_ctl", Only(&["pg_ctl"], OWN_NAME)),
        ("initdb", Only(&["initdb"], OWN_NAME)),
        ("pg_controldata", Only(&["pg_controldata"], OWN_NAME)),
        ("pg_basebackup", Only(&["pg_basebackup"], OWN_NAME)),
        ("postgres", Only(&["postgres"], OWN_NAME)),
        ("pg_isready", Only(&["pg_isready"], OWN_NAME)),
        ("pg_rewind", Only(&["pg_rewind"], OWN_NAME)),
    ],
);

const WATCHDOG: Key = Section(
    true,
    &[
        ("mode", Heeded),
        ("device", Heeded),
        ("safety_margin", Heeded),
        ("driver", Only(&["default"], "the device is driven as the kernel's watchdog")),
    ],
);

/// Looks at every key of a configuration file.
pub fn judge(root: &Value) -> Found {
    let mut found = Found::default();
    // Where the store's section is missing, that is said already.
    let stores = root["etcd3"].is_null();
    walk("", root, &ROOT, &mut found);
    found.mistakes.retain(|mistake| !(stores && mistake.contains(ONE_STORE)));
    config_dir(root, &mut found);
    parameters(root, &mut found);
    found
}

fn walk(path: &str, value: &Value, key: &Key, found: &mut Found) {
    match key {
        _ if value.is_null() => {}
        Heeded => {}
        Idle(why) => found.idle.push(format!("'{path}' has no effect: {why}")),
        Refused(why) if is_set(value) => found.mistakes.push(format!("'{path}' is not supported yet: {why}; remove it")),
        Refused(_) => {}
        Only(possible, why) => {
            if is_set(value) && !value.as_str().is_some_and(|text| possible.contains(&text)) {
                found.mistakes.push(format!("'{path}' is not supported yet, except for {}: {why}", possible.join(", ")));
            }
        }
        Section(closed, keys) => {
            let Some(section) = value.as_object() else {
                found.mistakes.push(format!("'{path}' is no mapping"));
                return;
            };
            for (name, value) in section {
                let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                match keys.iter().find(|(known, _)| known == name) {
                    Some((_, key)) => walk(&below, value, key, found),
                    None => unknown(&below, name, *closed, &keys.iter().map(|(known, _)| *known).collect::<Vec<_>>(), found),
                }
            }
        }
    }
}

/// What nobody knows is a mistake where it looks like a slip of the pen, and where there is nothing that users add of their own.
fn unknown(path: &str, name: &str, closed: bool, known: &[&str], found: &mut Found) {
    let meant = if closed { nearest(name, known) } else { misspelt(name, known) };
    match meant {
        Some(meant) => found.mistakes.push(format!("'{path}': there is no such key: did you mean '{meant}'?")),
        None if closed => found.mistakes.push(format!("'{path}': there is no such key; possible are {}", known.join(", "))),
        None => found.idle.push(format!("'{path}' has no effect: there is no such key")),
    }
}

/// Set to something that asks for it.
pub fn is_set(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Array(items) => !items.is_empty(),
        Value::Object(items) => !items.is_empty(),
        Value::String(text) => !text.is_empty() && settings::flag(value) != Some(false),
        other => settings::flag(other) != Some(false),
    }
}

fn config_dir(root: &Value, found: &mut Found) {
    let section = &root["postgresql"];
    let (wanted, data) = (&section["config_dir"], &section["data_dir"]);
    if is_set(wanted) && wanted != data {
        found.mistakes.push(
            "'postgresql.config_dir' is not supported yet: PostgreSQL's configuration is in 'postgresql.data_dir'; remove it".to_owned(),
        );
    }
}

/// Parameters that a member's own file does not decide.
fn parameters(root: &Value, found: &mut Found) {
    let section = root["postgresql"]["parameters"].as_object();
    for (name, value) in section.into_iter().flatten() {
        let path = format!("postgresql.parameters.{name}");
        match name.to_lowercase().as_str() {
            "synchronous_standby_names" if is_set(value) => {
                let instead = "'synchronous_mode' says over '/config' whom commits wait for";
                found.mistakes.push(format!("'{path}' is not supported: {instead}; remove it"));
            }
            lower if conf::is_reserved(lower) => found.idle.push(format!("'{path}' has no effect: it is the agent's to set")),
            lower if conf::is_controlled(lower) => {
                found.idle.push(format!("'{path}' has no effect: it is equal everywhere, set it over the REST API's '/config'"));
            }
            _ => {}
        }
    }
    let recovery = root["postgresql"]["recovery_conf"].as_object();
    for name in
        recovery.into_iter().flat_map(|section| section.keys()).filter(|name| !settings::is_recovery_parameter(&name.to_lowercase()))
    {
        found.idle.push(format!("'postgresql.recovery_conf.{name}' has no effect: it is the agent's to set"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        spec::{dynamic, idle},
        templates::agent_config::{AgentConfig, render_agent_config},
    };

    #[test]
    fn what_has_an_effect_is_not_mentioned() {
        let file = json!({
            "scope": "orders", "namespace": "/service/", "name": "n1", "etcd3": {"hosts": ["a"], "use_proxies": true},
            "restapi": {"listen": "x", "connect_address": "y", "authentication": {}}, "ctl": {"authentication": {}},
            "bootstrap": {"dcs": {"ttl": 30}, "initdb": [], "pg_hba": [], "method": "initdb", "post_init": ""},
            "postgresql": {
                "listen": "x", "data_dir": "/data", "config_dir": "/data", "custom_conf": null, "bin_name": {"pg_ctl": "pg_ctl"},
                "authentication": {"superuser": {"username": "a", "password": "b", "sslmode": "prefer"}},
                "parameters": {"work_mem": "4MB", "unix_socket_directories": "/run"}, "callbacks": {"on_start": "x"}},
            "watchdog": {"mode": "off", "driver": "default"}, "tags": {"mine": 1}, "spilo": {"roles": []}
        });
        assert_eq!(judge(&file), Found::default());
    }

    #[test]
    fn everything_in_our_own_files_has_an_effect() {
        let parameters = std::collections::BTreeMap::from([("work_mem".to_owned(), "4MB".to_owned())]);
        let etcd_hosts = vec!["orders-etcd-1:2379".to_owned()];
        let (scope, parameters) = ("orders", &parameters);
        let ours = AgentConfig {
            scope,
            etcd_hosts,
            postgres: 17,
            ttl: 5,
            loop_wait: 1,
            retry_timeout: 2,
            quorum_commit: true,
            parameters,
            archive: None,
            begin_from: None,
        };
        let file: Value = serde_json::from_str(&render_agent_config(&ours)).unwrap();
        assert_eq!(judge(&file), Found::default());
        let dcs = &file["bootstrap"]["dcs"];
        assert_eq!((dynamic::mistakes_of_file(dcs), idle::idle(dcs)), (vec![], vec![]));
    }

    #[test]
    fn what_a_protection_or_data_hang_on_is_refused() {
        let file = json!({
            "etcd3": {"host": "a", "username": "agent", "cacert": "/ca.pem"}, "consul": {"host": "b"}, "citus": {"group": 0, "database": "d"},
            "bootstrap": {"method": "pgbackrest", "post_bootstrap": "/setup.sh"},
            "postgresql": {
                "data_dir": "/data", "config_dir": "/etc/postgresql", "custom_conf": "/my.conf", "basebackup": [{"max-rate": "10M"}],
                "authentication": {"replication": {"username": "a", "sslmode": "verify-full", "sslrootcert": "/ca.pem"}},
                "parameters": {"synchronous_standby_names": "remote"}},
            "watchdog": {"mode": "required", "driver": "testing"}
        });
        let found = judge(&file);
        for path in [
            "etcd3.username",
            "etcd3.cacert",
            "consul",
            "citus",
            "bootstrap.method",
            "bootstrap.post_bootstrap",
            "postgresql.config_dir",
            "postgresql.custom_conf",
            "postgresql.basebackup",
            "postgresql.authentication.replication.sslmode",
            "postgresql.authentication.replication.sslrootcert",
            "postgresql.parameters.synchronous_standby_names",
            "watchdog.driver",
        ] {
            let named = found.mistakes.iter().filter(|mistake| mistake.starts_with(&format!("'{path}' is not supported"))).count();
            assert_eq!(named, 1, "{path} in {:#?}", found.mistakes);
        }
        assert_eq!((found.mistakes.len(), found.idle.len()), (13, 0), "{found:#?}");
    }

    #[test]
    fn what_nobody_is_worse_off_for_is_only_told() {
        let file = json!({
            "log": {"level": "DEBUG"}, "thread_pool_size": 5, "x-anchors": {}, "ctl": {"insecure": true}, "bootstrap": {"users": {"a": {}}},
            "postgresql": {"use_slots": true, "remove_data_directory_on_rewind_failure": false, "wal_e": {"command": "x"},
                "recovery_conf": {"restore_command": "x", "standby_mode": "on"},
                "parameters": {"max_connections": 50, "Port": 1}}
        });
        let found = judge(&file);
        assert_eq!(found.mistakes, [""; 0]);
        let named: Vec<&str> = found.idle.iter().filter_map(|line| line.split('\'').nth(1)).collect();
        assert_eq!(
            named,
            [
                "log",
                "thread_pool_size",
                "x-anchors",
                "ctl.insecure",
                "bootstrap.users",
                "postgresql.use_slots",
                "postgresql.remove_data_directory_on_rewind_failure",
                "postgresql.wal_e",
                "postgresql.parameters.max_connections",
                "postgresql.parameters.Port",
                "postgresql.recovery_conf.standby_mode"
            ]
        );
    }

    #[test]
    fn a_slip_of_the_pen_is_refused_with_what_was_meant() {
        let said = |file: &Value| judge(file).mistakes.join("\n");
        for (file, meant) in [
            (json!({"postgresql": {"pre_promot": "/fence"}}), "did you mean 'pre_promote'?"),
            (json!({"watchdogs": {"mode": "required"}}), "did you mean 'watchdog'?"),
            (json!({"watchdog": {"mod": "required"}}), "did you mean 'mode'?"),
            (json!({"restapi": {"authentification": {"username": "a"}}}), "did you mean 'authentication'?"),
            (json!({"restapi": {"tls": true}}), "possible are listen"),
            (json!({"postgresql": {"authentication": {"superuser": "postgres"}}}), "'postgresql.authentication.superuser' is no mapping"),
        ] {
            assert!(said(&file).contains(meant), "{file}: {}", said(&file));
        }
    }

    #[test]
    fn a_password_in_the_wrong_place_is_not_repeated() {
        let found = judge(&json!({"postgresql": {"authentication": {"superuser": "hunter2"}}, "etcd3": {"password": "hunter2"}}));
        assert!(!format!("{found:?}").contains("hunter2"), "{found:?}");
    }
}
