//! The configuration of haproxy.

use handlebars::{Handlebars, no_escape};
use serde::Serialize;

/// The template, compiled in.
const TEMPLATE: &str = include_str!("../../templates/haproxy.cfg.hbs");

/// What haproxy's configuration depends on. haproxy has no way to quote a line break, so nothing here may hold white space; whoever fills
/// it in has checked that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HaproxyConfig {
    /// Most connections at a time.
    pub maxconn: u64,
    /// Where sockets go.
    pub run_dir: String,
    /// `address:port` of the name servers to follow; empty: no server has a name that could change its address.
    pub nameservers: Vec<String>,
    /// Where to listen for sessions that write.
    pub read_write: String,
    /// Where to listen for sessions that only read.
    pub read_only: String,
    /// Where to serve the health page.
    pub health: String,
    /// Path and query of the check for sessions that only read.
    pub read_only_check: String,
    /// The members.
    pub servers: Vec<HaproxyServer>,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HaproxyServer {
    /// Its name.
    pub name: String,
    /// `host:port` of its PostgreSQL.
    pub address: String,
    /// Address of its REST API where that is not PostgreSQL's.
    pub check_address: Option<String>,
    /// Port of its REST API.
    pub check_port: u16,
    /// Whether it accepts writes.
    pub writer: bool,
}

/// The text of the configuration.
pub fn render_haproxy_config(config: &HaproxyConfig) -> String {
    let mut engine = Handlebars::new();
    engine.register_escape_fn(no_escape);
    engine.set_strict_mode(true);
    engine.render_template(TEMPLATE, config).expect("the template is compiled in and its context has every field")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(nameservers: &[&str]) -> HaproxyConfig {
        let server = |name: &str, check_address: Option<&str>, writer| HaproxyServer {
            name: name.to_owned(),
            address: format!("{name}:5432"),
            check_address: check_address.map(str::to_owned),
            check_port: 8008,
            writer,
        };
        HaproxyConfig {
            maxconn: 100,
            run_dir: "/run/spilo".into(),
            nameservers: nameservers.iter().map(|n| (*n).to_owned()).collect(),
            read_write: "0.0.0.0:5000".into(),
            read_only: "0.0.0.0:5001".into(),
            health: "0.0.0.0:7000".into(),
            read_only_check: "/replica?lag=16MB".into(),
            servers: vec![server("orders-1", None, false), server("orders-2", Some("10.0.0.2"), true)],
        }
    }

    /// The lines of one section, without indentation.
    fn section(text: &str, head: &str) -> Vec<String> {
        let lines = text.lines().skip_while(|line| *line != head).skip(1);
        lines.take_while(|line| line.starts_with("    ")).map(|line| line.trim().to_owned()).collect()
    }

    #[test]
    fn only_the_writer_is_enabled_for_writes_and_all_are_for_reads() {
        let text = render_haproxy_config(&config(&[]));
        assert_eq!(
            section(&text, "backend rw"),
            [
                "option httpchk OPTIONS /primary",
                "http-check expect status 200",
                "server orders-1 orders-1:5432 port 8008 disabled",
                "server orders-2 orders-2:5432 addr 10.0.0.2 port 8008",
            ]
        );
        assert_eq!(
            section(&text, "backend ro"),
            [
                "balance leastconn",
                "option httpchk OPTIONS /replica?lag=16MB",
                "http-check expect status 200",
                "server orders-1 orders-1:5432 port 8008",
                "server orders-2 orders-2:5432 addr 10.0.0.2 port 8008",
            ]
        );
    }

    #[test]
    fn sessions_for_reading_go_to_the_primary_when_there_is_no_replica() {
        let text = render_haproxy_config(&config(&[]));
        let lines = section(&text, "frontend read-only");
        assert_eq!(lines, ["bind 0.0.0.0:5001", "use_backend rw if { nbsrv(ro) eq 0 }", "default_backend ro"]);
    }

    #[test]
    fn names_are_resolved_while_it_runs_only_where_there_is_a_name_server() {
        assert!(!render_haproxy_config(&config(&[])).contains("resolvers"));
        let text = render_haproxy_config(&config(&["127.0.0.11:53"]));
        assert_eq!(section(&text, "resolvers dns")[0], "nameserver ns0 127.0.0.11:53");
        assert!(text.contains("default-server resolvers dns resolve-prefer ipv4 init-addr last,libc,none"));
    }
}
