//! The agent's local configuration: a patroni.yml, with our additions.

mod archive;
mod reader;
mod reload;

use std::{collections::BTreeMap, fs, path::PathBuf};

use serde_json::{Map, Value};

pub use self::archive::{ArchiveSettings, Origin};
use self::reader::Reader;
use super::{archive_copy::CopyMethod, environment, hooks::Hooks, keys, restapi, watchdog::Watchdog};
use crate::{
    api::Access,
    dcs::{DcsConfig, tags},
    model::MemberName,
    postgres::{
        Address, Credentials, Installation,
        bootstrap::{InitOptions, NewRole, forbidden_options},
    },
    spec::{dynamic, settings},
};

/// What the command line says on top of the file.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// The member's name.
    pub name: Option<String>,
    /// The host under which other members and clients reach this one.
    pub address: Option<String>,
    /// Never initialise a new cluster.
    pub join_only: bool,
}

/// Everything the agent knows before it has read the DCS.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// This member's name.
    pub name: MemberName,
    /// Where the DCS is, and the cluster's scope.
    pub dcs: DcsConfig,
    /// `host:port` of the REST API.
    pub api_listen: String,
    /// `host:port` under which others reach it.
    pub api_address: String,
    /// Who may change something over it.
    pub access: Access,
    /// Addresses PostgreSQL listens on.
    pub listen_addresses: String,
    /// Where others reach PostgreSQL.
    pub address: Address,
    /// Where clients find a pooler in front of PostgreSQL, as published.
    pub proxy_address: Option<Address>,
    /// Where the agent itself reaches PostgreSQL.
    pub local: Address,
    /// Directories.
    pub installation: Installation,
    /// The role the agent works as.
    pub superuser: Credentials,
    /// The role standbys stream as.
    pub replication: Credentials,
    /// The role pg_rewind connects as; the superuser unless configured.
    pub rewind: Option<Credentials>,
    /// Parameters of this member, which win over the dynamic configuration.
    pub parameters: BTreeMap<String, String>,
    /// Lines of pg_hba.conf, if they are not initdb's.
    pub pg_hba: Option<Vec<String>>,
    /// Lines of pg_ident.conf, if they are not initdb's.
    pub pg_ident: Option<Vec<String>>,
    /// Whether this member may be rewound, if it is not as the dynamic configuration says.
    pub use_pg_rewind: Option<bool>,
    /// The first dynamic configuration; `None`: this member never initialises a cluster.
    pub bootstrap: Option<Bootstrap>,
    /// Programs of the user's to run at turning points.
    pub hooks: Hooks,
    /// Whether and how a watchdog device is used.
    pub watchdog: Watchdog,
    /// Where WAL is archived, if the agent sees to that.
    pub archive: Option<ArchiveSettings>,
    /// How a replica is made, in the order in which the ways are tried; empty: by whichever way is estimated to be better.
    pub copy_methods: Vec<CopyMethod>,
    /// Tags, as published.
    pub tags: Map<String, Value>,
    /// What the file says without effect, and why it has none; of two tags that contradict each other, which counts.
    pub idle: Vec<String>,
}

impl AgentConfig {
    /// The role that may read another member's files: for pg_rewind, and to see which WAL is there.
    pub fn rewinder(&self) -> &str {
        &self.rewind.as_ref().unwrap_or(&self.superuser).username
    }
}

/// How a new cluster begins.
#[derive(Debug, Clone)]
pub struct Bootstrap {
    /// The dynamic configuration.
    pub dcs: Value,
    /// What initdb is told.
    pub init: InitOptions,
    /// Roles beyond those of replication.
    pub roles: Vec<NewRole>,
    /// Whose backup it begins with, instead of nothing.
    pub from: Option<Origin>,
}

/// The configuration cannot be used; every mistake is in the list.
#[derive(Debug, thiserror::Error)]
#[error("{} in '{file}':\n{}", count(mistakes), bullets(mistakes))]
pub struct ConfigError {
    file: String,
    mistakes: Vec<String>,
}

fn count(mistakes: &[String]) -> String {
    if mistakes.len() == 1 { "1 mistake".to_owned() } else { format!("{} mistakes", mistakes.len()) }
}

fn bullets(mistakes: &[String]) -> String {
    mistakes.iter().map(|m| format!("  - {m}")).collect::<Vec<_>>().join("\n")
}

/// Reads and checks a configuration file.
pub fn load(path: &str, overrides: &Overrides) -> Result<AgentConfig, ConfigError> {
    let fail = |mistake: String| ConfigError { file: path.to_owned(), mistakes: vec![mistake] };
    let text = fs::read_to_string(path).map_err(|e| fail(format!("the file cannot be read: {e}")))?;
    // An error that shows the lines around it would show the passwords in them.
    let value: Value = serde_saphyr::from_str_with_options(&text, serde_saphyr::options! { with_snippet: false })
        .map_err(|e| fail(format!("not readable as YAML: {e}")))?;
    let outside = environment::judge(std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned()));
    match check(&value, overrides) {
        Ok(mut config) if outside.mistakes.is_empty() => {
            config.idle.extend(outside.idle);
            Ok(config)
        }
        checked => {
            let mistakes = checked.err().into_iter().flatten().chain(outside.mistakes).collect();
            Err(ConfigError { file: path.to_owned(), mistakes })
        }
    }
}

pub(super) fn check(root: &Value, overrides: &Overrides) -> Result<AgentConfig, Vec<String>> {
    let mut reader = Reader { root, mistakes: Vec::new() };
    let name_text = overrides.name.clone().unwrap_or_else(|| reader.required("name"));
    let name = parsed_name(&mut reader, &name_text);
    let dcs = DcsConfig::from_patroni(root).map_err(|e| reader.mistakes.push(e.to_string())).ok();
    let api_listen = reader.required("restapi.listen");
    let api = reader.host_port("restapi.listen", &api_listen);
    let listen = reader.required("postgresql.listen");
    let (listen_addresses, port) = match reader.host_port("postgresql.listen", &listen) {
        Address { host, port } if host == "0.0.0.0" => ("*".to_owned(), port),
        Address { host, port } => (host, port),
    };
    let api_address = advertised(&mut reader, "restapi.connect_address", overrides, api);
    let address = advertised(&mut reader, "postgresql.connect_address", overrides, Address { host: listen_addresses.clone(), port });
    let data_dir = PathBuf::from(reader.required("postgresql.data_dir"));
    let bin_dir = PathBuf::from(reader.text("postgresql.bin_dir").unwrap_or_default());
    let passfile = reader.text("postgresql.pgpass").map_or_else(|| crate::sys::files::beside(&data_dir, ".pgpass"), PathBuf::from);
    let parameters = settings::all_parameters(reader.at("postgresql"));
    let local = local_address(&reader, &parameters, &listen_addresses, port);
    let superuser = reader.role("postgresql.authentication.superuser", "postgres");
    let replication = reader.role("postgresql.authentication.replication", "replicator");
    let has_rewind = reader.at("postgresql.authentication.rewind").is_object();
    let rewind = has_rewind.then(|| reader.role("postgresql.authentication.rewind", "rewinder"));
    let archive = ArchiveSettings::read(&mut reader);
    let proxy_address = reader.text("postgresql.proxy_address").map(|text| reader.host_port("postgresql.proxy_address", &text));
    let copy_methods = read_copy_methods(&mut reader);
    let bootstrap =
        if overrides.join_only || !reader.at("bootstrap").is_object() { None } else { Some(read_bootstrap(&mut reader, archive.as_ref())) };
    let mut wrong = tags::mistakes(reader.at("tags"), name.as_ref());
    let hooks = Hooks::read(reader.at("postgresql"), &mut wrong);
    let access = restapi::access(root, &mut wrong);
    let keys::Found { mistakes, idle } = keys::judge(root);
    reader.mistakes.extend(wrong.into_iter().chain(mistakes));
    let own_tags = reader.at("tags").as_object().cloned().unwrap_or_default();
    let idle = idle.into_iter().chain(tags::contradictions(&own_tags)).collect();
    let watchdog = Watchdog::read(reader.at("watchdog")).map_err(|found| reader.mistakes.extend(found)).ok();
    let pg_hba = settings::lines(reader.at("postgresql.pg_hba"));
    let pg_ident = settings::lines(reader.at("postgresql.pg_ident"));
    let use_pg_rewind = settings::flag(reader.at("postgresql.use_pg_rewind"));
    match (name, dcs, watchdog, reader.mistakes) {
        (Some(name), Some(dcs), Some(watchdog), mistakes) if mistakes.is_empty() => Ok(AgentConfig {
            name,
            dcs,
            api_listen,
            api_address: joined(&api_address),
            access,
            listen_addresses,
            address,
            proxy_address,
            local,
            installation: Installation { data_dir, bin_dir, passfile },
            superuser,
            replication,
            rewind,
            parameters,
            pg_hba,
            pg_ident,
            use_pg_rewind,
            bootstrap,
            hooks,
            watchdog,
            archive,
            copy_methods,
            tags: tags::published(&own_tags),
            idle,
        }),
        (_, _, _, mistakes) => Err(mistakes),
    }
}

/// A copy is made from the archive or by pg_basebackup. Whoever wants another way should not find out when the disk is gone.
fn read_copy_methods(reader: &mut Reader<'_>) -> Vec<CopyMethod> {
    let mut found = Vec::new();
    for path in ["postgresql.create_replica_methods", "postgresql.create_replica_method"] {
        let value = reader.at(path);
        let methods = settings::lines(value).unwrap_or_else(|| value.as_str().map(str::to_owned).into_iter().collect());
        for method in methods {
            match method.as_str() {
                "basebackup" => found.push(CopyMethod::BaseBackup),
                "archive" if !reader.at("spilo.archive").is_null() => found.push(CopyMethod::Archive),
                "archive" => reader.mistakes.push(format!("'{path}' has 'archive', and there is none: 'spilo.archive' is missing")),
                _ => {
                    let why = "is not supported: replicas are made from the 'archive' or copied with 'basebackup'; remove it";
                    reader.mistakes.push(format!("'{path}' has '{method}', which {why}"));
                }
            }
        }
    }
    found
}

fn parsed_name(reader: &mut Reader<'_>, text: &str) -> Option<MemberName> {
    if text.is_empty() {
        return None;
    }
    text.parse().map_err(|e: crate::model::InvalidName| reader.mistakes.push(e.to_string())).ok()
}

/// The address others use: the command line's host, else the configured one, else where we listen.
fn advertised(reader: &mut Reader<'_>, path: &str, overrides: &Overrides, listen: Address) -> Address {
    if let Some(host) = &overrides.address {
        return Address { host: host.clone(), port: listen.port };
    }
    let configured = reader.text(path);
    match configured {
        Some(text) => reader.host_port(path, &text),
        None if listen.host == "*" || listen.host == "0.0.0.0" => {
            reader.mistakes.push(format!("'{path}' is missing: others cannot connect to '{}'", listen.host));
            listen
        }
        None => listen,
    }
}

/// A host and port as one text, IPv6 in brackets.
pub fn joined(address: &Address) -> String {
    if address.host.contains(':') { format!("[{}]:{}", address.host, address.port) } else { format!("{}:{}", address.host, address.port) }
}

/// The unix socket where it is wanted, otherwise the loopback or the first address PostgreSQL listens on.
fn local_address(reader: &Reader<'_>, parameters: &BTreeMap<String, String>, listen_addresses: &str, port: u16) -> Address {
    let socket_dir = parameters.get("unix_socket_directories").and_then(|d| d.split(',').next()).map(str::trim);
    let host = match (settings::flag(reader.at("postgresql.use_unix_socket")), socket_dir) {
        (Some(true), Some(dir)) => dir.to_owned(),
        (Some(true), None) => "/var/run/postgresql".to_owned(),
        _ if listen_addresses == "*" => "127.0.0.1".to_owned(),
        _ => listen_addresses.split(',').next().unwrap_or("127.0.0.1").trim().to_owned(),
    };
    Address { host, port }
}

fn read_bootstrap(reader: &mut Reader<'_>, archive: Option<&ArchiveSettings>) -> Bootstrap {
    let options = init_options(reader.at("bootstrap.initdb"));
    for name in forbidden_options(&options) {
        reader.mistakes.push(format!("'bootstrap.initdb' has '{name}', which is the agent's to set"));
    }
    let hba = if reader.at("postgresql.pg_hba").is_array() { None } else { settings::lines(reader.at("bootstrap.pg_hba")) };
    let dcs = match reader.at("bootstrap.dcs") {
        Value::Null => Value::Object(Map::new()),
        given => given.clone(),
    };
    let found = dynamic::mistakes_of_file(&dcs);
    reader.mistakes.extend(found.iter().map(|mistake| format!("in 'bootstrap.dcs': {mistake}")));
    let roles = reader.at("spilo.roles").as_array().map_or(0, Vec::len);
    let roles = (0..roles).filter_map(|i| new_role(reader, i)).collect();
    let from = Origin::read(reader, archive);
    Bootstrap { dcs, init: InitOptions { options, hba: hba.unwrap_or_default() }, roles, from }
}

fn new_role(reader: &mut Reader<'_>, index: usize) -> Option<NewRole> {
    let item = reader.at("spilo.roles")[index].clone();
    let path = format!("spilo.roles[{index}]");
    let Some(username) = item["name"].as_str().map(str::to_owned) else {
        reader.mistakes.push(format!("'{path}.name' is missing"));
        return None;
    };
    let file = item["password_file"].as_str()?.to_owned();
    let password = reader.secret_file(&format!("{path}.password_file"), &file);
    let member_of = settings::lines(&item["member_of"]).unwrap_or_default();
    let database = item["database"].as_str().map(str::to_owned);
    Some(NewRole { credentials: Credentials { username, password }, member_of, database })
}

/// Patroni's two forms: a list of names and single-entry mappings, or one mapping.
fn init_options(value: &Value) -> Vec<String> {
    let option = |name: &str, value: &Value| match value {
        Value::Null | Value::Bool(true) => format!("--{name}"),
        Value::String(text) => format!("--{name}={text}"),
        other => format!("--{name}={other}"),
    };
    let of_map = |map: &Map<String, Value>| map.iter().map(|(k, v)| option(k, v)).collect::<Vec<_>>();
    match value {
        Value::Array(items) => items
            .iter()
            .flat_map(|item| match item {
                Value::String(name) => vec![format!("--{name}")],
                Value::Object(map) => of_map(map),
                _ => Vec::new(),
            })
            .collect(),
        Value::Object(map) => of_map(map),
        _ => Vec::new(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::json;

    pub fn minimal() -> Value {
        json!({
            "scope": "orders", "name": "n1", "etcd3": {"host": "127.0.0.1:2379"},
            "restapi": {"listen": "127.0.0.1:8008"},
            "bootstrap": {"dcs": {"ttl": 10}, "initdb": [{"encoding": "UTF8"}, "data-checksums"], "pg_hba": ["host all all all md5"]},
            "postgresql": {"listen": "127.0.0.1:5432", "data_dir": "/data", "authentication": {"superuser": {"username": "su", "password": "x"}}}
        })
    }

    #[test]
    fn a_patroni_file_is_understood() {
        let config = check(&minimal(), &Overrides::default()).unwrap();
        let bootstrap = config.bootstrap.unwrap();
        assert_eq!(bootstrap.init.options, ["--encoding=UTF8", "--data-checksums"]);
        assert_eq!(bootstrap.init.hba, ["host all all all md5"]);
        assert_eq!(config.local, Address { host: "127.0.0.1".into(), port: 5432 });
        assert_eq!((config.superuser.username.as_str(), config.replication.username.as_str()), ("su", "replicator"));
    }

    #[test]
    fn the_command_line_names_the_member_and_its_host() {
        let mut file = minimal();
        file["name"] = Value::Null;
        file["restapi"]["listen"] = json!("0.0.0.0:8008");
        file["postgresql"]["listen"] = json!("0.0.0.0:5432");
        let overrides = Overrides { name: Some("orders-1".into()), address: Some("orders-1".into()), join_only: true };
        let config = check(&file, &overrides).unwrap();
        assert_eq!((config.name.as_str(), config.api_address.as_str()), ("orders-1", "orders-1:8008"));
        assert_eq!((config.listen_addresses.as_str(), config.address.host.as_str()), ("*", "orders-1"));
        assert!(config.bootstrap.is_none());
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let file = json!({"restapi": {"listen": 5}, "postgresql": {"listen": "x"}, "bootstrap": {"initdb": [{"pwfile": "/x"}], "dcs": {"standby_cluster": {"hots": "x"}}}});
        let mistakes = check(&file, &Overrides::default()).unwrap_err().join("\n");
        for part in
            ["'name' is missing", "'scope'", "restapi.listen", "'postgresql.listen' is 'x'", "data_dir", "'pwfile'", "standby_cluster"]
        {
            assert!(mistakes.contains(part), "{part} not in\n{mistakes}");
        }
    }

    #[test]
    fn a_mistake_in_the_archive_is_told_once() {
        let mut file = minimal();
        file["spilo"] = json!({"archive": {"store": "/archive"}, "begin_from": {"store": "s3://backups", "cluster": "old"}});
        file["bootstrap"] = json!({"dcs": {}});
        let mistakes = check(&file, &Overrides::default()).unwrap_err();
        assert!(mistakes.len() == 1 && mistakes[0].contains("spilo.archive.store"), "{mistakes:?}");
    }

    #[test]
    fn the_first_dynamic_configuration_is_judged_as_one_of_a_file() {
        let mut file = minimal();
        file["bootstrap"]["dcs"] = json!({
            "ttl": 30, "retry_timeout": 14, "pause": null, "synchronous_mode": "quorom", "maximum_lag_on_failver": 1,
            "postgresql": {"callbacks": {"on_start": "x"}, "pg_hba": ["local all all trust", "lokal all all trust"],
                "parameters": {"archive_command": "cp %p /a/%f", "hot_standby": "on", "synchronous_standby_names": "remote"}}
        });
        let mistakes = check(&file, &Overrides::default()).unwrap_err();
        let named: Vec<&str> = mistakes.iter().filter_map(|mistake| mistake.split('\'').nth(3)?.split(':').next()).collect();
        let wrong = ["synchronous_mode", "maximum_lag_on_failver", "postgresql.callbacks", "postgresql.pg_hba[1]"];
        assert_eq!(named, [&wrong[..], &["postgresql.parameters.synchronous_standby_names"]].concat(), "{mistakes:#?}");
    }

    #[test]
    fn another_way_of_making_copies_is_refused() {
        let mut file = minimal();
        file["postgresql"]["create_replica_methods"] = json!(["pgbackrest", "basebackup"]);
        let mistakes = check(&file, &Overrides::default()).unwrap_err();
        assert!(mistakes.len() == 1 && mistakes[0].contains("'pgbackrest', which is not supported"), "{mistakes:?}");
        file["postgresql"]["create_replica_methods"] = json!(["basebackup"]);
        assert!(check(&file, &Overrides::default()).is_ok());
    }

    #[test]
    fn what_the_cluster_decides_may_be_decided_for_a_member() {
        let mut file = minimal();
        file["postgresql"]["recovery_conf"] = json!({"restore_command": "fetch %f", "standby_mode": "on"});
        file["postgresql"]["pg_ident"] = json!(["map root postgres"]);
        file["postgresql"]["use_pg_rewind"] = json!("yes");
        file["postgresql"]["proxy_address"] = json!("pooler:6432");
        let config = check(&file, &Overrides::default()).unwrap();
        assert_eq!(config.parameters.into_iter().collect::<Vec<_>>(), [("restore_command".to_owned(), "fetch %f".to_owned())]);
        assert_eq!((config.pg_ident.unwrap(), config.use_pg_rewind), (vec!["map root postgres".to_owned()], Some(true)));
        assert_eq!(config.proxy_address, Some(Address { host: "pooler".into(), port: 6432 }));
        assert!(config.idle.len() == 1 && config.idle[0].contains("standby_mode"), "{:?}", config.idle);
        file["tags"] = json!({"nofailover": false, "failover_priority": 0});
        let config = check(&file, &Overrides::default()).unwrap();
        assert!(config.idle[1].contains("'nofailover: false' counts") && config.tags.len() == 2, "{:?}", config.idle);
    }

    #[test]
    fn what_is_not_supported_is_a_mistake_among_the_others() {
        let mut file = minimal();
        file["postgresql"]["custom_conf"] = json!("/etc/my.conf");
        file["postgresql"]["listen"] = json!("x");
        let mistakes = check(&file, &Overrides::default()).unwrap_err().join("\n");
        assert!(
            mistakes.contains("'postgresql.custom_conf' is not supported yet") && mistakes.contains("'postgresql.listen' is 'x'"),
            "{mistakes}"
        );
    }

    #[test]
    fn an_address_nobody_can_connect_to_is_refused() {
        let mut file = minimal();
        file["postgresql"]["listen"] = json!("*:5432");
        let mistakes = check(&file, &Overrides::default()).unwrap_err();
        assert!(mistakes[0].contains("postgresql.connect_address"), "{mistakes:?}");
    }

    #[test]
    fn a_password_that_is_a_number_is_not_repeated_in_the_mistake() {
        let mut file = minimal();
        file["postgresql"]["authentication"]["superuser"]["password"] = json!(123_456_789);
        let mistakes = check(&file, &Overrides::default()).unwrap_err();
        assert!(mistakes[0].contains("in quotes") && !mistakes[0].contains("123456789"), "{mistakes:?}");
    }
}
