//! What a running agent takes from a configuration file that it reads again.

use super::{AgentConfig, archive::Origin};

impl AgentConfig {
    /// This configuration with what a running agent takes from a `newer` one.
    pub fn reloaded(&self, newer: AgentConfig) -> AgentConfig {
        let AgentConfig { proxy_address, parameters, pg_hba, pg_ident, use_pg_rewind, hooks, tags, access, idle, .. } = newer;
        AgentConfig { proxy_address, parameters, pg_hba, pg_ident, use_pg_rewind, hooks, tags, access, idle, ..self.clone() }
    }

    fn origin(&self) -> Option<&Origin> {
        self.bootstrap.as_ref().and_then(|bootstrap| bootstrap.from.as_ref())
    }

    /// What is to be told of this configuration when it is read in a running agent: what has no effect and had none to be told of in the
    /// one `before`, and what only a new start of the agent takes.
    pub fn news(&self, before: &AgentConfig) -> Vec<String> {
        let later = [
            ("name", self.name != before.name),
            ("scope', 'namespace' or 'etcd3", self.dcs != before.dcs),
            (
                "restapi.listen' or 'restapi.connect_address",
                (&self.api_listen, &self.api_address) != (&before.api_listen, &before.api_address),
            ),
            (
                "postgresql.listen' or 'postgresql.connect_address",
                (&self.listen_addresses, &self.address, &self.local) != (&before.listen_addresses, &before.address, &before.local),
            ),
            ("postgresql.data_dir', 'bin_dir' or 'pgpass", self.installation != before.installation),
            (
                "postgresql.authentication",
                (&self.superuser, &self.replication, &self.rewind) != (&before.superuser, &before.replication, &before.rewind),
            ),
            ("watchdog", self.watchdog != before.watchdog),
            ("spilo.archive", self.archive != before.archive),
            ("postgresql.create_replica_methods", self.copy_methods != before.copy_methods),
            ("spilo.begin_from", self.origin() != before.origin()),
        ];
        let later =
            later.into_iter().filter(|(_, differs)| *differs).map(|(keys, _)| format!("'{keys}' is taken when the agent is started again"));
        self.idle.iter().filter(|line| !before.idle.contains(line)).cloned().chain(later).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{
        super::{Overrides, check, tests::minimal},
        *,
    };

    fn read(change: impl Fn(&mut Value)) -> AgentConfig {
        let mut file = minimal();
        change(&mut file);
        check(&file, &Overrides::default()).unwrap()
    }

    #[test]
    fn a_running_agent_says_what_only_a_new_start_takes() {
        let before = read(|file| file["log"] = json!({"level": "INFO"}));
        let newer = read(|file| {
            file["log"] = json!({"level": "DEBUG"});
            file["thread_pool_size"] = json!(9);
            file["etcd3"]["host"] = json!("elsewhere");
            file["postgresql"]["authentication"]["superuser"]["password"] = json!("y");
            file["postgresql"]["parameters"] = json!({"work_mem": "8MB"});
        });
        let news = newer.news(&before);
        assert!(news.len() == 3 && news[0].starts_with("'thread_pool_size' has no effect"), "{news:?}");
        assert!(news[1].contains("'etcd3' is taken when the agent is started again") && news[2].contains("authentication"), "{news:?}");
        let archives = |store: &str, methods: &[&str], from: &str| {
            read(|file| {
                file["postgresql"]["create_replica_methods"] = json!(methods);
                file["spilo"] = json!({"archive": {"store": store}, "begin_from": {"store": "s3://backups", "cluster": from}});
            })
        };
        let others = archives("s3://backups", &["archive", "basebackup"], "old").news(&archives("s3://others", &["basebackup"], "older"));
        for (named, key) in others.iter().zip(["spilo.archive", "postgresql.create_replica_methods", "spilo.begin_from"]) {
            assert!(named.starts_with(&format!("'{key}' is taken when")), "{named}");
        }
        assert_eq!(others.len(), 3);
        let merged = before.reloaded(newer);
        assert_eq!((merged.parameters["work_mem"].as_str(), &merged.dcs), ("8MB", &before.dcs));
        assert_eq!(merged.news(&merged.clone()), [""; 0]);
    }
}
