//! Which keys of a configuration file in Patroni's language have an effect here. None that has not is passed over in silence: where a
//! protection, data or another way of working hang on it, the file is refused, otherwise the log says it once.

mod parameters;
mod table;

use serde_json::Value;

use self::{
    parameters::{config_dir, parameters},
    table::{
        Key::{self, Heeded, Idle, Only, Refused, Section},
        ONE_STORE, ROOT,
    },
};
use crate::spec::{misspelt, nearest, settings};

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Why the file is refused.
    pub mistakes: Vec<String>,
    /// What has no effect, and why.
    pub idle: Vec<String>,
}

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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        agent::config::{self, Overrides},
        model::{GOAL_KEYS, RecoveryGoal, RecoveryTarget, StoreConfig, SystemId, TargetTimeline},
        spec::{dynamic, idle},
        templates::agent_config::{AgentConfig, CLONE_CREDENTIALS, CLONE_KEY, Origin, STORE_CREDENTIALS, STORE_KEY, render_agent_config},
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
        let archive = |credentials: &str, key: &str| StoreConfig {
            url: "s3://backups/prod".parse().unwrap(),
            endpoint: Some("http://minio:9000".to_owned()),
            region: Some("eu-1".to_owned()),
            credentials_file: Some(credentials.into()),
            key_file: Some(key.into()),
        };
        let goal = RecoveryGoal {
            target: RecoveryTarget::Xid(742),
            exclusive: true,
            timeline: TargetTimeline::Current,
            backup: "20261121T204500Z-1a2b3c4d".parse().ok(),
        };
        let origin = Origin {
            cluster: "old".to_owned(),
            archive: archive(CLONE_CREDENTIALS, CLONE_KEY),
            system: Some(SystemId(7_710_753_353_203_642_389)),
            goal: goal.clone(),
        };
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
            archive: Some(archive(STORE_CREDENTIALS, STORE_KEY)),
            begin_from: Some(origin),
        };
        let mut file: Value = serde_json::from_str(&render_agent_config(&ours)).unwrap();
        assert_eq!(judge(&file), Found::default());
        let mut others = file.clone();
        GOAL_KEYS.iter().for_each(|key| others["spilo"]["begin_from"][*key] = "x".into());
        assert_eq!(judge(&others), Found::default());
        // The secrets are where the agent runs.
        file["postgresql"]["authentication"] = json!({"superuser": {"username": "postgres"}});
        file["spilo"]["roles"] = json!([]);
        let here = Overrides { name: Some("orders-1".to_owned()), address: Some("orders-1".to_owned()), join_only: false };
        let read = config::check(&file, &here).unwrap();
        let from = read.bootstrap.unwrap().from.unwrap();
        assert_eq!((from.system, from.goal), (Some(SystemId(7_710_753_353_203_642_389)), goal));
        assert_eq!((read.archive.unwrap().store.region.as_deref(), from.archive.cluster.as_str()), (Some("eu-1"), "old"));
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
