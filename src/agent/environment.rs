//! Patroni's environment variables. They win over its configuration file; here the file alone counts, and nobody shall believe otherwise.

use super::keys::Found;

const PREFIX: &str = "PATRONI_";

/// What stands behind the prefix and says nothing that anything hangs on.
const IDLE: [&str; 4] = ["LOG_", "LOGLEVEL", "LOGFORMAT", "THREAD_"];

/// Names, and beginnings of names, of Patroni's settings.
const NAMES: [&str; 4] = ["CONFIGURATION", "NAME", "NAMESPACE", "SCOPE"];
const SECTIONS: [&str; 14] = [
    "RESTAPI_",
    "CTL_",
    "POSTGRESQL_",
    "SUPERUSER_",
    "REPLICATION_",
    "REWIND_",
    "RAFT_",
    "ETCD_",
    "ETCD3_",
    "CONSUL_",
    "ZOOKEEPER_",
    "EXHIBITOR_",
    "KUBERNETES_",
    "CITUS_",
];

/// Looks at the names of variables.
pub fn judge(variables: impl Iterator<Item = String>) -> Found {
    let mut found = Found::default();
    for variable in variables {
        let Some(name) = variable.strip_prefix(PREFIX) else { continue };
        if NAMES.contains(&name) || SECTIONS.iter().any(|section| name.starts_with(section)) {
            found.mistakes.push(format!("the environment has '{variable}', which has no effect: say it in this file"));
        } else if IDLE.iter().any(|section| name.starts_with(section)) {
            found.idle.push(format!("'{variable}' in the environment has no effect"));
        }
    }
    found.mistakes.sort();
    found.idle.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_patroni_would_take_from_the_environment_is_refused() {
        let names = ["PATRONI_SCOPE", "PATRONI_RESTAPI_PASSWORD", "PATRONI_LOG_LEVEL", "PATRONI_OF_MINE", "PATH", "PATRONICTL_CONFIG_FILE"];
        let found = judge(names.into_iter().map(str::to_owned));
        assert_eq!((found.mistakes.len(), found.idle.len()), (2, 1), "{found:?}");
        assert!(found.mistakes[0].contains("PATRONI_RESTAPI_PASSWORD") && found.mistakes[1].contains("PATRONI_SCOPE"), "{found:?}");
    }
}
