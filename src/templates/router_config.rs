//! `router.yml`: the router's configuration.

use serde_json::json;

/// Ports of the router inside its container.
pub const READ_WRITE_PORT: u16 = 5000;
/// The port for reading.
pub const READ_ONLY_PORT: u16 = 5001;
/// The port of the health page.
pub const HEALTH_PORT: u16 = 7000;

/// What a router's configuration depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouterConfig<'a> {
    /// The cluster's name.
    pub scope: &'a str,
    /// `host:port` of every etcd member.
    pub etcd_hosts: Vec<String>,
}

/// The text of `router.yml`: JSON, which every YAML reader reads.
pub fn render_router_config(config: &RouterConfig<'_>) -> String {
    let listen = |port: u16| format!("0.0.0.0:{port}");
    let document = json!({
        "scope": config.scope,
        "namespace": "/service/",
        "etcd3": {"hosts": config.etcd_hosts},
        "router": {
            "listen": {
                "read_write": listen(READ_WRITE_PORT),
                "read_only": listen(READ_ONLY_PORT),
                "health": listen(HEALTH_PORT),
            },
            "run_dir": "/run/spilo",
        },
    });
    format!("{document:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_yaml_reader_reads_what_was_meant() {
        let text = render_router_config(&RouterConfig { scope: "orders", etcd_hosts: vec!["orders-etcd-1:2379".into()] });
        let config: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(config["router"]["listen"]["read_write"], "0.0.0.0:5000");
        assert_eq!(config["router"]["listen"]["health"], "0.0.0.0:7000");
        assert_eq!(config["etcd3"]["hosts"][0], "orders-etcd-1:2379");
    }
}
