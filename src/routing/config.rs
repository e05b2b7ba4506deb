//! `router.yml`.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::Value;

use super::RoutingError;
use crate::{api::Login, dcs::DcsConfig};

/// The router's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouterConfig {
    /// Where the DCS is.
    pub dcs: DcsConfig,
    /// Where to listen.
    pub listen: Listen,
    /// Directory for haproxy's configuration and sockets.
    pub run_dir: PathBuf,
    /// Replicas further behind than this many bytes get no sessions.
    pub read_only_lag: Option<u64>,
    /// What members are shown by whoever asks them for a change; `None`: nothing.
    pub login: Option<Login>,
    /// The directory of the configuration, in which `secrets` lies.
    pub directory: PathBuf,
}

/// Where the router listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// For sessions that write.
    pub read_write: SocketAddr,
    /// For sessions that only read.
    pub read_only: SocketAddr,
    /// For the health page.
    pub health: SocketAddr,
}

/// The file as it is written; `scope`, `namespace` and the store's section are read by [`DcsConfig`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(rename = "scope")]
    _scope: String,
    #[serde(rename = "namespace", default)]
    _namespace: Option<String>,
    #[serde(rename = "etcd3", default)]
    _etcd3: Option<Store>,
    #[serde(default)]
    restapi: RestApi,
    router: Section,
}

/// The keys that have an effect there: whoever writes a password into it, or certificates, has to know that they have none.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "only the keys are looked at here")]
struct Store {
    host: Option<Value>,
    hosts: Option<Value>,
    url: Option<Value>,
    port: Option<Value>,
    protocol: Option<Value>,
    use_proxies: Option<Value>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RestApi {
    #[serde(default)]
    authentication: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    listen: Listen,
    run_dir: PathBuf,
    #[serde(default)]
    read_only_lag: Option<u64>,
}

impl RouterConfig {
    /// Reads and checks the file.
    pub fn read(path: &Path) -> Result<RouterConfig, RoutingError> {
        let text = std::fs::read_to_string(path).map_err(|source| RoutingError::Unreadable { path: path.to_owned(), source })?;
        let wrong = |fault: String| RoutingError::Config { path: path.to_owned(), fault };
        let document: Value =
            serde_saphyr::from_str_with_options(&text, serde_saphyr::options! { with_snippet: false }).map_err(|e| wrong(e.to_string()))?;
        let dcs = DcsConfig::from_patroni(&document).map_err(|source| RoutingError::DcsConfig { path: path.to_owned(), source })?;
        let Document { router: section, restapi, .. } = serde_json::from_value(document).map_err(|e| wrong(e.to_string()))?;
        let run_dir = section.run_dir;
        // haproxy's configuration has no place for either.
        if !run_dir.is_absolute() || run_dir.to_string_lossy().contains(|c: char| c.is_whitespace() || "\"'\\#,$".contains(c)) {
            return Err(wrong(format!(
                "'router.run_dir' is '{}': an absolute path without spaces and quotes is needed",
                run_dir.display()
            )));
        }
        let mut mistakes = Vec::new();
        let login = Login::read(&restapi.authentication, "restapi.authentication", &mut mistakes);
        if !mistakes.is_empty() {
            return Err(wrong(mistakes.join("; ")));
        }
        let directory = path.parent().map(Path::to_owned).unwrap_or_default();
        Ok(RouterConfig { dcs, listen: section.listen, run_dir, read_only_lag: section.read_only_lag, login, directory })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
scope: orders
namespace: /service/
etcd3: {hosts: ["orders-etcd-1:2379"]}
router:
  listen: {read_write: "0.0.0.0:5000", read_only: "0.0.0.0:5001", health: "0.0.0.0:7000"}
  run_dir: /run/spilo
"#;

    fn read(text: &str) -> Result<RouterConfig, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("router.yml");
        std::fs::write(&path, text).unwrap();
        RouterConfig::read(&path)
            .map_err(|e| format!("{e}: {}", std::error::Error::source(&e).map(ToString::to_string).unwrap_or_default()))
    }

    #[test]
    fn the_contracts_example_is_read() {
        let config = read(GOOD).unwrap();
        assert_eq!(config.dcs.endpoints, ["http://orders-etcd-1:2379"]);
        assert_eq!(config.listen.read_only.port(), 5001);
        assert_eq!((config.run_dir, config.read_only_lag), (PathBuf::from("/run/spilo"), None));
    }

    #[test]
    fn mistakes_are_named() {
        for (from, to, word) in [
            ("run_dir: /run/spilo", "run_dir: run", "run_dir"),
            ("run_dir: /run/spilo", "run_dir: /run/spilo\n  run_dri: 1", "run_dri"),
            ("0.0.0.0:5001", "nonsense", "socket address"),
            ("etcd3:", "consul:", "consul"),
            ("2379\"]}", "2379\"], cacert: /ca.pem}", "cacert"),
            ("router:", "restapi: {authentication: {username: admin}}\nrouter:", "restapi.authentication.password"),
            ("scope: orders", "scop: orders", "scope"),
            ("scope: orders", "scope: orders\nlog: {}", "log"),
        ] {
            let error = read(&GOOD.replace(from, to)).unwrap_err();
            assert!(error.contains(word) && error.contains("router.yml"), "{error}");
        }
        assert!(RouterConfig::read(Path::new("/nonexistent")).unwrap_err().to_string().contains("/nonexistent"));
    }
}
