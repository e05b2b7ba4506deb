//! From a snapshot of the DCS to haproxy's configuration. Pure.

use std::{collections::BTreeMap, net::IpAddr};

use super::{Machine, RouterConfig};
use crate::{
    dcs::snapshot::{MemberData, MemberRole, PgState, Snapshot},
    model::MemberName,
    templates::haproxy::{HaproxyConfig, HaproxyServer, render_haproxy_config},
};

/// Where a member is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Host of PostgreSQL.
    pub host: String,
    /// Port of PostgreSQL.
    pub port: u16,
    /// Host of the REST API.
    pub api_host: String,
    /// Port of the REST API.
    pub api_port: u16,
}

/// Who the members are and who of them accepts writes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Routes {
    /// The members that can be reached.
    pub members: BTreeMap<MemberName, Member>,
    /// The one that leads and accepts writes.
    pub writer: Option<MemberName>,
}

impl Member {
    /// Reads the addresses that a member published. `Err`: why there is no sending anybody there.
    pub fn from_data(name: &MemberName, data: &MemberData) -> Result<Member, String> {
        let (host, port) = data.postgres_address().ok_or_else(|| format!("its conn_url '{}' has no host and port", data.conn_url))?;
        let (api_host, api_port) =
            api_address(&data.api_url).ok_or_else(|| format!("its api_url '{}' has no host and port", data.api_url))?;
        let plain = |text: &str, more: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c));
        // What haproxy's configuration would take for something else.
        if !plain(name.as_str(), "-_.:") {
            return Err("its name has characters that haproxy does not allow".to_owned());
        }
        if !plain(&host, "-_.:") || !plain(&api_host, "-_.:") {
            return Err(format!("'{host}' or '{api_host}' is not a host name"));
        }
        if host != api_host && api_host.parse::<IpAddr>().is_err() {
            return Err(format!("its REST API is at '{api_host}' and its PostgreSQL at '{host}': haproxy follows one name only"));
        }
        Ok(Member { host, port, api_host, api_port })
    }

    fn has_name(&self) -> bool {
        self.host.parse::<IpAddr>().is_err()
    }
}

impl Routes {
    /// Whether going from `before` to these takes a reload; who accepts writes is told to the running haproxy instead.
    pub fn needs_reload(&self, before: &Routes) -> bool {
        self.members != before.members
    }

    /// The configuration.
    pub fn render(&self, config: &RouterConfig, machine: &Machine) -> String {
        let named = self.members.values().any(Member::has_name);
        let servers = self.members.iter().map(|(name, member)| HaproxyServer {
            name: name.to_string(),
            address: authority(&member.host, member.port),
            check_address: (member.api_host != member.host).then(|| member.api_host.clone()),
            check_port: member.api_port,
            writer: self.writer.as_ref() == Some(name),
        });
        render_haproxy_config(&HaproxyConfig {
            maxconn: machine.maxconn,
            run_dir: config.run_dir.display().to_string(),
            nameservers: if named { machine.nameservers.clone() } else { Vec::new() },
            read_write: config.listen.read_write.to_string(),
            read_only: config.listen.read_only.to_string(),
            health: config.listen.health.to_string(),
            read_only_check: config.read_only_lag.map_or_else(|| "/replica".to_owned(), |lag| format!("/replica?lag={lag}")),
            servers: servers.collect(),
        })
    }
}

/// The leader, once it says that it accepts writes. Between winning the key and the end of its promotion it still refuses them, and
/// sessions sent there would be met with errors.
pub fn writer(snapshot: &Snapshot) -> Option<&MemberName> {
    let leader = snapshot.leader.as_ref()?;
    let data = snapshot.members.get(leader)?;
    (data.role == MemberRole::Primary && data.state == PgState::Running).then_some(leader)
}

fn api_address(url: &str) -> Option<(String, u16)> {
    let (host, port) = url.split_once("://")?.1.split('/').next()?.rsplit_once(':')?;
    Some((host.trim_matches(['[', ']']).to_owned(), port.parse().ok()?))
}

/// `host:port`, with brackets where they are needed.
pub(super) fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::PathBuf;

    use serde_json::json;

    use super::*;
    use crate::{dcs::DcsConfig, routing::Listen};

    pub(crate) fn data(conn: &str, api: &str) -> MemberData {
        let (conn_url, api_url) = (format!("postgres://{conn}/postgres"), format!("http://{api}/patroni"));
        serde_json::from_value(json!({"conn_url": conn_url, "api_url": api_url, "state": "running", "role": "replica"})).unwrap()
    }

    fn name(text: &str) -> MemberName {
        text.parse().unwrap()
    }

    fn config() -> RouterConfig {
        let listen = |port: u16| std::net::SocketAddr::from(([0, 0, 0, 0], port));
        RouterConfig {
            dcs: DcsConfig { endpoints: vec![], namespace: "service".into(), scope: "orders".into() },
            listen: Listen { read_write: listen(5000), read_only: listen(5001), health: listen(7000) },
            run_dir: PathBuf::from("/run/spilo"),
            read_only_lag: None,
            login: None,
            directory: PathBuf::new(),
        }
    }

    fn routes(hosts: &[(&str, &str)], writer: Option<&str>) -> Routes {
        let member = |host: &str| Member { host: host.into(), port: 5432, api_host: host.into(), api_port: 8008 };
        Routes { members: hosts.iter().map(|(n, host)| (name(n), member(host))).collect(), writer: writer.map(name) }
    }

    #[test]
    fn a_leader_is_sent_writes_once_it_is_a_running_primary() {
        let mut snapshot = Snapshot { leader: Some(name("a")), ..Snapshot::default() };
        assert_eq!(writer(&snapshot), None);
        snapshot.members.insert(name("a"), data("a:5432", "a:8008"));
        assert_eq!(writer(&snapshot), None);
        snapshot.members.get_mut(&name("a")).unwrap().role = MemberRole::Promoted;
        assert_eq!(writer(&snapshot), None);
        snapshot.members.get_mut(&name("a")).unwrap().role = MemberRole::Primary;
        assert_eq!(writer(&snapshot), Some(&name("a")));
        snapshot.members.get_mut(&name("a")).unwrap().state = PgState::Starting;
        assert_eq!(writer(&snapshot), None);
    }

    #[test]
    fn members_that_haproxy_could_not_be_told_of_say_why() {
        let fault = |n: &str, conn: &str, api: &str| Member::from_data(&name(n), &data(conn, api)).unwrap_err();
        assert!(fault("a b", "h:5432", "h:8008").contains("name"));
        assert!(fault("a", "h", "h:8008").contains("conn_url"));
        assert!(fault("a", "h:5432", "h").contains("api_url"));
        assert!(fault("a", "h:5432", "other:8008").contains("one name only"));
        assert!(fault("a", "h check:5432", "h check:8008").contains("host name"));
        let member = Member::from_data(&name("a"), &data("[::1]:5432", "10.0.0.1:8008")).unwrap();
        assert_eq!((member.host.as_str(), member.api_host.as_str()), ("::1", "10.0.0.1"));
    }

    #[test]
    fn only_members_and_addresses_take_a_reload() {
        let before = routes(&[("a", "h1"), ("b", "h2")], Some("a"));
        assert!(!routes(&[("a", "h1"), ("b", "h2")], Some("b")).needs_reload(&before));
        assert!(!routes(&[("a", "h1"), ("b", "h2")], None).needs_reload(&before));
        assert!(routes(&[("a", "h1")], Some("a")).needs_reload(&before));
        assert!(routes(&[("a", "h1"), ("b", "h3")], Some("a")).needs_reload(&before));
    }

    #[test]
    fn addresses_need_no_name_server_and_names_do() {
        let machine = Machine { maxconn: 100, nameservers: vec!["127.0.0.11:53".into()] };
        let text = routes(&[("a", "::1"), ("b", "10.0.0.1")], Some("a")).render(&config(), &machine);
        assert!(text.contains("server a [::1]:5432 port 8008\n") && text.contains("server b 10.0.0.1:5432 port 8008 disabled\n"), "{text}");
        assert!(!text.contains("resolvers"));
        assert!(routes(&[("a", "orders-1")], None).render(&config(), &machine).contains("nameserver ns0 127.0.0.11:53"));
    }
}
