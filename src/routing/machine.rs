//! What the machine allows haproxy.

use std::fs;

/// Most connections the router takes, where the machine allows them.
const MOST_CONNECTIONS: u64 = 4000;
/// File descriptors that haproxy needs besides two per connection: listeners, checks, sockets, and a reserve.
const OTHER_DESCRIPTORS: u64 = 200;

/// Limits and name servers of this machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    /// Most connections at a time: haproxy refuses to start with more than its file descriptors allow.
    pub maxconn: u64,
    /// `address:port` of each name server.
    pub nameservers: Vec<String>,
}

impl Machine {
    /// Looks at this machine.
    pub fn observe() -> Machine {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        let resolv_conf = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        Machine { maxconn: connections(limit.maximum), nameservers: nameservers(&resolv_conf) }
    }
}

fn connections(descriptors: Option<u64>) -> u64 {
    descriptors.map_or(MOST_CONNECTIONS, |limit| (limit.saturating_sub(OTHER_DESCRIPTORS) / 2).clamp(50, MOST_CONNECTIONS))
}

fn nameservers(resolv_conf: &str) -> Vec<String> {
    let addresses = resolv_conf.lines().filter_map(|line| line.trim().strip_prefix("nameserver")).map(str::trim);
    addresses
        .filter_map(|address| address.parse::<std::net::IpAddr>().ok())
        .map(|ip| std::net::SocketAddr::new(ip, 53).to_string())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_fit_the_file_descriptors() {
        assert_eq!(connections(None), MOST_CONNECTIONS);
        assert_eq!(connections(Some(1 << 20)), MOST_CONNECTIONS);
        assert_eq!(connections(Some(1024)), 412);
    }

    #[test]
    fn name_servers_are_those_of_resolv_conf() {
        assert_eq!(nameservers("search x\nnameserver 127.0.0.11\nnameserver ::1\nnameserver junk\n"), ["127.0.0.11:53", "[::1]:53"]);
    }
}
