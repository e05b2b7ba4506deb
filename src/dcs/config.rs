//! Where the store is: the `etcd3` section of a Patroni configuration.

use serde_json::Value;

/// How to reach the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DcsConfig {
    /// Client URLs, `http://host:port`.
    pub endpoints: Vec<String>,
    /// First part of every key; `service` unless configured.
    pub namespace: String,
    /// The cluster's scope.
    pub scope: String,
}

/// The store's section is missing or unusable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DcsConfigError {
    /// A required key is not there.
    #[error("'{0}' is missing")]
    Missing(&'static str),
    /// A key has a value that cannot be used.
    #[error("'{key}' is {value}, which is not possible: {allowed}")]
    Invalid {
        /// The key's path.
        key: &'static str,
        /// What was found.
        value: String,
        /// What is allowed.
        allowed: &'static str,
    },
    /// A store that is not supported yet.
    #[error("the '{0}' section names a store that is not supported yet: use 'etcd3'")]
    Unsupported(&'static str),
}

impl DcsConfig {
    /// Reads `scope`, `namespace` and `etcd3` from a configuration in Patroni's language.
    pub fn from_patroni(config: &Value) -> Result<DcsConfig, DcsConfigError> {
        let scope = config["scope"].as_str().filter(|s| !s.is_empty()).ok_or(DcsConfigError::Missing("scope"))?;
        let namespace = config["namespace"].as_str().unwrap_or("service");
        for other in ["consul", "zookeeper", "exhibitor", "kubernetes", "raft", "etcd"] {
            if config.get(other).is_some() && config.get("etcd3").is_none() {
                return Err(DcsConfigError::Unsupported(other));
            }
        }
        let section = config.get("etcd3").ok_or(DcsConfigError::Missing("etcd3"))?;
        let endpoints = endpoints(section)?;
        Ok(DcsConfig { endpoints, namespace: namespace.to_owned(), scope: scope.to_owned() })
    }
}

fn endpoints(section: &Value) -> Result<Vec<String>, DcsConfigError> {
    let protocol = section["protocol"].as_str().unwrap_or("http");
    if protocol != "http" {
        let value = format!("'{protocol}'");
        return Err(DcsConfigError::Invalid { key: "etcd3.protocol", value, allowed: "only 'http' is supported yet" });
    }
    if let Some(url) = section["url"].as_str() {
        // A URL may carry a password, so it is not repeated.
        let plain = url.strip_prefix("http://").is_some_and(|rest| !rest.is_empty() && !rest.contains('@'));
        let allowed = "only 'http://host:port' is supported yet";
        let invalid = || DcsConfigError::Invalid { key: "etcd3.url", value: "another kind of URL".to_owned(), allowed };
        return if plain { Ok(vec![url.trim_end_matches('/').to_owned()]) } else { Err(invalid()) };
    }
    let hosts: Vec<String> = match (&section["hosts"], &section["host"]) {
        (Value::Array(list), _) => list.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        (Value::String(text), _) | (_, Value::String(text)) => text.split(',').map(|h| h.trim().to_owned()).collect(),
        _ => return Err(DcsConfigError::Missing("etcd3.hosts")),
    };
    if hosts.iter().any(|host| host.contains("://") || host.contains('@')) {
        let (value, allowed) = ("a list with URLs".to_owned(), "only 'host:port' is possible, each reached over HTTP");
        return Err(DcsConfigError::Invalid { key: "etcd3.hosts", value, allowed });
    }
    let port = section["port"].as_u64().unwrap_or(2379);
    let with_port = |host: &String| match host.rsplit_once(':') {
        Some((_, digits)) if digits.parse::<u16>().is_ok() => format!("http://{host}"),
        _ => format!("http://{host}:{port}"),
    };
    let urls: Vec<String> = hosts.iter().filter(|h| !h.is_empty()).map(with_port).collect();
    if urls.is_empty() { Err(DcsConfigError::Missing("etcd3.hosts")) } else { Ok(urls) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn hosts_come_as_a_list_or_as_text_with_or_without_port() {
        for section in [json!({"hosts": ["a:2379", "b"]}), json!({"hosts": "a:2379, b"}), json!({"host": "a,b"})] {
            let config = DcsConfig::from_patroni(&json!({"scope": "s", "etcd3": section})).unwrap();
            assert_eq!(config.endpoints, ["http://a:2379", "http://b:2379"]);
            assert_eq!(config.namespace, "service");
        }
    }

    #[test]
    fn what_cannot_be_spoken_to_is_refused_and_no_password_is_repeated() {
        for section in [
            json!({"url": "https://a:2379"}),
            json!({"url": "http://agent:hunter2@a:2379"}),
            json!({"hosts": ["https://a:2379"]}),
            json!({"protocol": "https", "host": "a"}),
        ] {
            let error = DcsConfig::from_patroni(&json!({"scope": "s", "etcd3": section})).unwrap_err().to_string();
            assert!(error.contains("'etcd3.") && !error.contains("hunter2"), "{error}");
        }
        let config = DcsConfig::from_patroni(&json!({"scope": "s", "etcd3": {"url": "http://a:2379/"}})).unwrap();
        assert_eq!(config.endpoints, ["http://a:2379"]);
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = |config| DcsConfig::from_patroni(&config).unwrap_err().to_string();
        assert!(error(json!({})).contains("'scope'"));
        assert!(error(json!({"scope": "s"})).contains("'etcd3'"));
        assert!(error(json!({"scope": "s", "consul": {}})).contains("consul"));
        assert!(error(json!({"scope": "s", "etcd3": {}})).contains("etcd3.hosts"));
    }
}
