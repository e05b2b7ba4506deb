//! `agent.yml`: the agents' configuration, in Patroni's language.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::model::{RecoveryGoal, StoreConfig, SystemId};

/// Where the configuration volume is mounted.
pub const CONFIG_DIRECTORY: &str = "/etc/spilo";

/// Where a node has the cluster's archive when that is in a volume.
pub const ARCHIVE_DIRECTORY: &str = "/archive";

/// Where a node has the key to the bucket.
pub const STORE_CREDENTIALS: &str = "/etc/spilo/secrets/store";

/// Where a node has the key to the bucket with the backup that the cluster is begun with.
pub const CLONE_CREDENTIALS: &str = "/etc/spilo/secrets/clone-store";

/// Where a node has the key that the archive is encrypted with.
pub const STORE_KEY: &str = "/etc/spilo/secrets/archive-key";

/// Where a node has the key that the backup is encrypted with that the cluster is begun with.
pub const CLONE_KEY: &str = "/etc/spilo/secrets/clone-key";

/// Whose backup a cluster is begun with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The other cluster.
    pub cluster: String,
    /// Its archive, seen from inside.
    pub archive: StoreConfig,
    /// Which database cluster of that name.
    pub system: Option<SystemId>,
    /// How far it is recovered.
    pub goal: RecoveryGoal,
}

/// What an agent's configuration depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentConfig<'a> {
    /// The cluster's name.
    pub scope: &'a str,
    /// `host:port` of every etcd member.
    pub etcd_hosts: Vec<String>,
    /// PostgreSQL's major version.
    pub postgres: u8,
    /// Seconds that the leader's lease lasts.
    pub ttl: u64,
    /// Seconds between two turns of the loop.
    pub loop_wait: u64,
    /// Seconds that a DCS operation may take.
    pub retry_timeout: u64,
    /// Whether a commit waits for a quorum of replicas.
    pub quorum_commit: bool,
    /// PostgreSQL parameters on top of the defaults.
    pub parameters: &'a BTreeMap<String, String>,
    /// Where base backups and WAL go, seen from inside; `None`: nowhere.
    pub archive: Option<StoreConfig>,
    /// Whose backup the cluster is begun with; `None`: with nothing.
    pub begin_from: Option<Origin>,
}

/// The text of `agent.yml`. It is JSON, which every YAML reader reads: there a value cannot be mistaken for another type.
pub fn render_agent_config(config: &AgentConfig<'_>) -> String {
    let mut document = json!({
        "scope": config.scope,
        "namespace": "/service/",
        "restapi": {"listen": "0.0.0.0:8008"},
        "etcd3": {"hosts": config.etcd_hosts},
        "bootstrap": {
            "dcs": dynamic_settings(config),
            "initdb": [{"encoding": "UTF8"}, {"locale": "C.UTF-8"}, "data-checksums"],
        },
        "postgresql": {
            "listen": "0.0.0.0:5432",
            "data_dir": "/var/lib/spilo/data",
            "bin_dir": format!("/usr/lib/postgresql/{}/bin", config.postgres),
            "pgpass": "/run/spilo/pgpass",
            "use_unix_socket": true,
            "authentication": {
                "superuser": {"username": "postgres"},
                "replication": {"username": "replicator", "password_file": password_file("replicator")},
                "rewind": {"username": "rewinder", "password_file": password_file("rewinder")},
            },
            "parameters": {"unix_socket_directories": "/run/spilo"},
            "pg_hba": [
                "local all postgres peer",
                "host replication replicator all scram-sha-256",
                "host postgres replicator all scram-sha-256",
                "host postgres rewinder all scram-sha-256",
                "host postgres monitor all scram-sha-256",
                "host all app all scram-sha-256",
            ],
        },
        "spilo": {
            "roles": [
                {"name": "monitor", "password_file": password_file("monitor"), "member_of": ["pg_monitor"]},
                {"name": "app", "password_file": password_file("app"), "database": "app"},
            ],
        },
    });
    if let Some(archive) = &config.archive {
        document["spilo"]["archive"] = archive_section(archive);
    }
    if let Some(origin) = &config.begin_from {
        let mut section = archive_section(&origin.archive);
        section["cluster"] = origin.cluster.as_str().into();
        if let Some(system) = origin.system {
            // As text: it is more than a number in JSON holds.
            section["system"] = system.to_string().into();
        }
        origin.goal.section().into_iter().for_each(|(key, value)| section[key] = value);
        document["spilo"]["begin_from"] = section;
    }
    format!("{document:#}\n")
}

fn archive_section(archive: &StoreConfig) -> Value {
    let mut section = json!({"store": archive.url.to_string()});
    let [credentials, key] = [&archive.credentials_file, &archive.key_file].map(|file| Some(file.as_ref()?.to_string_lossy().into_owned()));
    let more = [("endpoint", &archive.endpoint), ("region", &archive.region), ("credentials_file", &credentials), ("key_file", &key)];
    for (key, value) in more.into_iter().filter_map(|(key, value)| Some((key, value.as_deref()?))) {
        section[key] = value.into();
    }
    section
}

fn dynamic_settings(config: &AgentConfig<'_>) -> Value {
    let mut parameters = BTreeMap::from([("max_connections", "100")]);
    parameters.extend(config.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    json!({
        "ttl": config.ttl,
        "loop_wait": config.loop_wait,
        "retry_timeout": config.retry_timeout,
        "synchronous_mode": if config.quorum_commit { "quorum" } else { "off" },
        "synchronous_node_count": 1,
        "postgresql": {"use_pg_rewind": true, "use_slots": true, "parameters": parameters},
    })
}

fn password_file(role: &str) -> String {
    format!("{CONFIG_DIRECTORY}/secrets/{role}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(parameters: &BTreeMap<String, String>, quorum_commit: bool) -> Value {
        let text = render_agent_config(&AgentConfig {
            scope: "orders",
            etcd_hosts: vec!["orders-etcd-1:2379".into()],
            postgres: 17,
            ttl: 10,
            loop_wait: 2,
            retry_timeout: 4,
            quorum_commit,
            parameters,
            archive: Some(StoreConfig {
                region: Some("eu-1".into()),
                credentials_file: Some(STORE_CREDENTIALS.into()),
                ..StoreConfig::new("s3://backups/prod".parse().unwrap())
            }),
            begin_from: None,
        });
        serde_saphyr::from_str(&text).unwrap()
    }

    #[test]
    fn a_yaml_reader_reads_what_was_meant() {
        let config = rendered(&BTreeMap::new(), true);
        assert_eq!(config["scope"], "orders");
        assert_eq!(config["etcd3"]["hosts"][0], "orders-etcd-1:2379");
        assert_eq!(config["bootstrap"]["dcs"]["ttl"], 10);
        assert_eq!(config["bootstrap"]["dcs"]["synchronous_mode"], "quorum");
        assert_eq!(config["postgresql"]["bin_dir"], "/usr/lib/postgresql/17/bin");
        assert_eq!(config["spilo"]["roles"][1]["database"], "app");
        let archive = json!({"store": "s3://backups/prod", "region": "eu-1", "credentials_file": "/etc/spilo/secrets/store"});
        assert_eq!(config["spilo"]["archive"], archive);
    }

    #[test]
    fn asynchronous_durability_is_the_word_off_and_not_a_boolean() {
        assert_eq!(rendered(&BTreeMap::new(), false)["bootstrap"]["dcs"]["synchronous_mode"], "off");
    }

    #[test]
    fn parameters_are_text_and_go_before_the_defaults() {
        let parameters = BTreeMap::from([("max_connections".into(), "50".into()), ("log_statement".into(), "no: 'x'".into())]);
        let config = rendered(&parameters, true);
        let rendered = &config["bootstrap"]["dcs"]["postgresql"]["parameters"];
        assert_eq!(rendered["max_connections"], "50");
        assert_eq!(rendered["log_statement"], "no: 'x'");
    }

    #[test]
    fn no_password_is_in_it() {
        assert!(
            !render_agent_config(&AgentConfig {
                scope: "orders",
                etcd_hosts: vec![],
                postgres: 17,
                ttl: 10,
                loop_wait: 2,
                retry_timeout: 4,
                quorum_commit: true,
                parameters: &BTreeMap::new(),
                archive: None,
                begin_from: None,
            })
            .contains("\"password\"")
        );
    }
}
