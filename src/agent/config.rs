//! The agent's local configuration: a patroni.yml, with our additions.

use std::{collections::BTreeMap, fs, path::PathBuf};

use serde_json::{Map, Value};

use super::{hooks::Hooks, restapi, watchdog::Watchdog};
use crate::{
    api::Access,
    dcs::{DcsConfig, tags},
    model::{MemberName, Secret},
    postgres::{
        Address, Credentials, Installation,
        bootstrap::{InitOptions, NewRole, forbidden_options},
    },
    spec::{dynamic::NO_STANDBY_CLUSTER, settings},
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
    /// The first dynamic configuration; `None`: this member never initialises a cluster.
    pub bootstrap: Option<Bootstrap>,
    /// Programs of the user's to run at turning points.
    pub hooks: Hooks,
    /// Whether and how a watchdog device is used.
    pub watchdog: Watchdog,
    /// Tags, as published.
    pub tags: Map<String, Value>,
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
    check(&value, overrides).map_err(|mistakes| ConfigError { file: path.to_owned(), mistakes })
}

/// Collects mistakes while reading.
struct Reader<'a> {
    root: &'a Value,
    mistakes: Vec<String>,
}

impl Reader<'_> {
    fn at(&self, path: &str) -> &Value {
        path.split('.').fold(self.root, |value, key| &value[key])
    }

    fn text(&mut self, path: &str) -> Option<String> {
        match self.at(path) {
            Value::String(s) if !s.is_empty() => Some(s.clone()),
            Value::Null => None,
            other => {
                let found = other.to_string();
                self.mistakes.push(format!("'{path}' is {found}, a text is needed"));
                None
            }
        }
    }

    fn required(&mut self, path: &str) -> String {
        let before = self.mistakes.len();
        let found = self.text(path);
        if found.is_none() && self.mistakes.len() == before {
            self.mistakes.push(format!("'{path}' is missing"));
        }
        found.unwrap_or_default()
    }

    fn host_port(&mut self, path: &str, text: &str) -> Address {
        match text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?))) {
            Some((host, port)) if !host.is_empty() && port > 0 => Address { host: host.trim_matches(['[', ']']).to_owned(), port },
            _ => {
                if !text.is_empty() {
                    self.mistakes.push(format!("'{path}' is '{text}', something like '10.0.0.1:5432' is needed"));
                }
                Address { host: String::new(), port: 0 }
            }
        }
    }

    /// A role with `username` and `password` or, our addition, `password_file`.
    fn role(&mut self, path: &str, default_name: &str) -> Credentials {
        let username = self.text(&format!("{path}.username")).unwrap_or_else(|| default_name.to_owned());
        let inline = self.password(&format!("{path}.password"));
        let password = inline.or_else(|| {
            let file = self.text(&format!("{path}.password_file"))?;
            self.secret_file(&format!("{path}.password_file"), &file)
        });
        Credentials { username, password }
    }

    /// A password; what it is instead of a text is not repeated, because it may be one without quotes.
    fn password(&mut self, path: &str) -> Option<Secret> {
        match self.at(path) {
            Value::String(text) if !text.is_empty() => Some(Secret::new(text.as_str())),
            Value::String(_) | Value::Null => None,
            _ => {
                self.mistakes.push(format!("'{path}' is no text: put it in quotes"));
                None
            }
        }
    }

    fn secret_file(&mut self, path: &str, file: &str) -> Option<Secret> {
        match fs::read_to_string(file) {
            Ok(text) if !text.trim().is_empty() => Some(Secret::new(text.trim())),
            Ok(_) => {
                self.mistakes.push(format!("'{path}': the file '{file}' is empty"));
                None
            }
            Err(error) => {
                self.mistakes.push(format!("'{path}': the file '{file}' cannot be read: {error}"));
                None
            }
        }
    }
}

fn check(root: &Value, overrides: &Overrides) -> Result<AgentConfig, Vec<String>> {
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
    let parameters = settings::parameters(reader.at("postgresql.parameters"));
    let local = local_address(&reader, &parameters, &listen_addresses, port);
    let superuser = reader.role("postgresql.authentication.superuser", "postgres");
    let replication = reader.role("postgresql.authentication.replication", "replicator");
    let has_rewind = reader.at("postgresql.authentication.rewind").is_object();
    let rewind = has_rewind.then(|| reader.role("postgresql.authentication.rewind", "rewinder"));
    refuse_foreign_copies(&mut reader);
    let bootstrap = if overrides.join_only || !reader.at("bootstrap").is_object() { None } else { Some(read_bootstrap(&mut reader)) };
    let mut wrong = tags::mistakes(reader.at("tags"), name.as_ref());
    let hooks = Hooks::read(reader.at("postgresql"), &mut wrong);
    let access = restapi::access(root, &mut wrong);
    reader.mistakes.extend(wrong);
    let tags = reader.at("tags").as_object().map(tags::published).unwrap_or_default();
    let watchdog = Watchdog::read(reader.at("watchdog")).map_err(|found| reader.mistakes.extend(found)).ok();
    let pg_hba = settings::lines(reader.at("postgresql.pg_hba"));
    match (name, dcs, watchdog, reader.mistakes) {
        (Some(name), Some(dcs), Some(watchdog), mistakes) if mistakes.is_empty() => Ok(AgentConfig {
            name,
            dcs,
            api_listen,
            api_address: joined(&api_address),
            access,
            listen_addresses,
            address,
            local,
            installation: Installation { data_dir, bin_dir, passfile },
            superuser,
            replication,
            rewind,
            parameters,
            pg_hba,
            bootstrap,
            hooks,
            watchdog,
            tags,
        }),
        (_, _, _, mistakes) => Err(mistakes),
    }
}

/// A copy is made by pg_basebackup. Whoever wants another way should not find out when the disk is gone.
fn refuse_foreign_copies(reader: &mut Reader<'_>) {
    let value = reader.at("postgresql.create_replica_methods");
    let methods = settings::lines(value).unwrap_or_else(|| value.as_str().map(str::to_owned).into_iter().collect());
    for method in methods.iter().filter(|method| *method != "basebackup") {
        let why = "is not supported: replicas are copied with 'basebackup'; remove it";
        reader.mistakes.push(format!("'postgresql.create_replica_methods' has '{method}', which {why}"));
    }
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

fn read_bootstrap(reader: &mut Reader<'_>) -> Bootstrap {
    let options = init_options(reader.at("bootstrap.initdb"));
    for name in forbidden_options(&options) {
        reader.mistakes.push(format!("'bootstrap.initdb' has '{name}', which is the agent's to set"));
    }
    let hba = if reader.at("postgresql.pg_hba").is_array() { None } else { settings::lines(reader.at("bootstrap.pg_hba")) };
    if !reader.at("bootstrap.dcs.standby_cluster").is_null() {
        reader.mistakes.push(format!("'bootstrap.dcs.standby_cluster': {NO_STANDBY_CLUSTER}"));
    }
    let dcs = match reader.at("bootstrap.dcs") {
        Value::Object(map) => Value::Object(map.clone()),
        _ => Value::Object(Map::new()),
    };
    let roles = reader.at("spilo.roles").as_array().map_or(0, Vec::len);
    let roles = (0..roles).filter_map(|i| new_role(reader, i)).collect();
    Bootstrap { dcs, init: InitOptions { options, hba: hba.unwrap_or_default() }, roles }
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
mod tests {
    use super::*;
    use serde_json::json;

    fn minimal() -> Value {
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
        let file = json!({"restapi": {"listen": 5}, "postgresql": {"listen": "x"}, "bootstrap": {"initdb": [{"pwfile": "/x"}], "dcs": {"standby_cluster": {"host": "x"}}}});
        let mistakes = check(&file, &Overrides::default()).unwrap_err().join("\n");
        for part in
            ["'name' is missing", "'scope'", "restapi.listen", "'postgresql.listen' is 'x'", "data_dir", "'pwfile'", "standby_cluster"]
        {
            assert!(mistakes.contains(part), "{part} not in\n{mistakes}");
        }
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
