//! Hosts of their own for the members: network namespaces behind a bridge, so that what passes between two of them can be cut.

use std::{
    net::Ipv4Addr,
    process::{Command, Output},
    sync::atomic::{AtomicU8, Ordering},
};

use crate::support::{ports::process_number, program};

/// Whose word a host does not hear, or who does not hear it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// What comes in from there is lost.
    From,
    /// What goes out to there is lost.
    To,
}

/// A bridge in a namespace of its own, this machine's end of it, and any number of hosts. Everything ends with it.
pub struct Network {
    prefix: String,
    subnet: [u8; 3],
    hosts: Vec<u8>,
}

impl Network {
    /// A network with nobody on it; `None`, with a visible line, where none can be made.
    pub fn start() -> Option<Network> {
        static NUMBER: AtomicU8 = AtomicU8::new(0);
        let missing = ["ip", "iptables", "setpriv"].into_iter().find(|name| program(name).is_none());
        let hindrance = match missing {
            Some(name) => Some(format!("'{name}' is not installed")),
            None if !rustix::process::geteuid().is_root() => Some("only root makes network namespaces".to_owned()),
            None => None,
        };
        if let Some(why) = hindrance {
            assert!(std::env::var_os("CI").is_none(), "{why}, and in CI no test may be skipped");
            eprintln!("SKIPPED: {why}");
            return None;
        }
        let pid = std::process::id();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // The prefix is short: an interface's name has at most 15 letters. Of two networks with the same addresses one is not reached.
        let network = Network { prefix: format!("sp{pid}-{number}"), subnet: [10, 128 + process_number(), number], hosts: Vec::new() };
        network.lay();
        Some(network)
    }

    fn lay(&self) {
        let (hub, end) = (self.namespace("hub"), format!("{}r", self.prefix));
        ip(&["netns", "add", &hub]);
        ip(&["-n", &hub, "link", "add", "name", "switch", "type", "bridge"]);
        ip(&["-n", &hub, "link", "set", "switch", "up"]);
        ip(&["link", "add", &end, "type", "veth", "peer", "name", "root", "netns", &hub]);
        ip(&["-n", &hub, "link", "set", "root", "master", "switch", "up"]);
        for address in [self.client(), self.store()] {
            ip(&["address", "add", &format!("{address}/24"), "dev", &end]);
        }
        ip(&["link", "set", &end, "up"]);
    }

    /// Adds a host; returns its address.
    pub fn add(&mut self, number: u8) -> Ipv4Addr {
        let (hub, host, port) = (self.namespace("hub"), self.host(number), format!("n{number}"));
        ip(&["netns", "add", &host]);
        self.hosts.push(number);
        ip(&["-n", &host, "link", "set", "lo", "up"]);
        ip(&["-n", &host, "link", "add", "eth0", "type", "veth", "peer", "name", &port, "netns", &hub]);
        ip(&["-n", &hub, "link", "set", &port, "master", "switch", "up"]);
        ip(&["-n", &host, "address", "add", &format!("{}/24", self.address(number)), "dev", "eth0"]);
        ip(&["-n", &host, "link", "set", "eth0", "up"]);
        self.address(number)
    }

    /// Where clients, and the tests, come from.
    pub fn client(&self) -> Ipv4Addr {
        self.at(1)
    }

    /// Where the store is.
    pub fn store(&self) -> Ipv4Addr {
        self.at(2)
    }

    /// Where a host is.
    pub fn address(&self, number: u8) -> Ipv4Addr {
        self.at(10 + number)
    }

    fn at(&self, last: u8) -> Ipv4Addr {
        let [a, b, c] = self.subnet;
        Ipv4Addr::new(a, b, c, last)
    }

    /// The name of a host's namespace.
    pub fn host(&self, number: u8) -> String {
        self.namespace(&number.to_string())
    }

    fn namespace(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    /// Loses what goes between the host and that address in one direction, without a word to either.
    pub fn cut(&self, host: u8, direction: Direction, address: Ipv4Addr) {
        let address = address.to_string();
        let rule = match direction {
            Direction::From => ["INPUT", "-s", &address],
            Direction::To => ["OUTPUT", "-d", &address],
        };
        let host = self.host(host);
        ip(&[&["netns", "exec", &host, "iptables", "-w", "-A"], &rule[..], &["-j", "DROP"]].concat());
    }

    /// Loses everything between the host and that address.
    pub fn part(&self, host: u8, address: Ipv4Addr) {
        self.cut(host, Direction::From, address);
        self.cut(host, Direction::To, address);
    }

    /// Cuts the host off from every other host and from the store; clients still reach it.
    pub fn isolate(&self, host: u8) {
        let others = self.hosts.iter().filter(|other| **other != host).map(|other| self.address(*other));
        others.chain([self.store()]).for_each(|address| self.part(host, address));
    }

    /// Lets everything pass again.
    pub fn heal(&self) {
        for host in &self.hosts {
            ip(&["netns", "exec", &self.host(*host), "iptables", "-w", "-F"]);
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // Interfaces go with the namespaces they are in, and this machine's end with the hub.
        for name in self.hosts.iter().map(|host| self.host(*host)).chain([self.namespace("hub")]) {
            let _ = run_ip(&["netns", "delete", &name]);
        }
    }
}

#[track_caller]
fn ip(arguments: &[&str]) {
    let output = run_ip(arguments);
    assert!(output.status.success(), "ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
}

fn run_ip(arguments: &[&str]) -> Output {
    Command::new(program("ip").expect("checked when the network was made")).args(arguments).output().unwrap()
}
