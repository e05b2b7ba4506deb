//! A cluster of real agents, each with a real PostgreSQL, on loopback.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use serde_json::{Value, json};

use super::network::Network;
pub use super::{
    machine::{as_other_user, bin_dir, own, place_program},
    node::Node,
    processes::{children_of, command_line, descendants, is_alive, send},
    rest::{request, request_as},
};
use crate::support::{available, etcd::EtcdServer, free_address, slow::SlowPath, wait_until};

/// How long a cluster may take for anything that this suite waits for.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Short, so that the suite does not wait long for leases to end.
const TTL: u32 = 5;

/// Agents behind one etcd. Everything ends with it.
pub struct Cluster {
    pub etcd: EtcdServer,
    pub nodes: Vec<Node>,
    /// The members' way to etcd, if not the straight one.
    way_to_etcd: Option<SlowPath>,
    network: Option<Network>,
    dir: tempfile::TempDir,
}

impl Cluster {
    /// Three members in quorum mode, running and streaming; `None`, with a visible line, where the servers are not installed.
    pub fn start() -> Option<Cluster> {
        Cluster::start_with(&json!({"synchronous_mode": "quorum"}))
    }

    /// The same with other dynamic settings.
    pub fn start_with(settings: &Value) -> Option<Cluster> {
        Cluster::start_where(None, false, settings)
    }

    /// The same, each member on a host of its own.
    pub fn start_on_hosts(settings: &Value) -> Option<Cluster> {
        Cluster::start_where(Some(Network::start()?), false, settings)
    }

    /// The same, with a way to etcd that can be made slow.
    pub fn start_on_a_slow_path(settings: &Value) -> Option<Cluster> {
        Cluster::start_where(None, true, settings)
    }

    fn start_where(network: Option<Network>, slow: bool, settings: &Value) -> Option<Cluster> {
        let mut cluster = Cluster::prepare(network, slow, settings)?;
        for node in &mut cluster.nodes {
            node.start();
        }
        cluster.wait_healthy();
        Some(cluster)
    }

    /// Three members that are not started.
    pub fn unstarted(settings: &Value) -> Option<Cluster> {
        Cluster::prepare(None, false, settings)
    }

    fn prepare(mut network: Option<Network>, slow: bool, settings: &Value) -> Option<Cluster> {
        if !available("etcd") {
            return None;
        }
        let Some(bin_dir) = bin_dir() else {
            assert!(std::env::var_os("CI").is_none(), "no PostgreSQL is installed, and in CI no test may be skipped");
            eprintln!("SKIPPED: no PostgreSQL is installed");
            return None;
        };
        let etcd = network.as_ref().map_or_else(EtcdServer::start, |network| EtcdServer::start_at(network.store()));
        let way_to_etcd = slow.then(|| SlowPath::to(etcd.address()));
        let dir = tempfile::tempdir().unwrap();
        own(dir.path());
        let program = place_program(dir.path());
        let hosts: Vec<Option<Ipv4Addr>> = (1..=3).map(|number| network.as_mut().map(|network| network.add(number))).collect();
        let mut cluster = Cluster { etcd, nodes: Vec::new(), way_to_etcd, network, dir };
        for (number, host) in (1..).zip(hosts) {
            let node = cluster.prepare_node(number, host, &bin_dir, &program, settings);
            cluster.nodes.push(node);
        }
        Some(cluster)
    }

    fn prepare_node(&self, number: u8, host: Option<Ipv4Addr>, bin_dir: &Path, program: &Path, settings: &Value) -> Node {
        let name = format!("n{number}");
        let dir = self.dir.path().join(&name);
        fs::create_dir(&dir).unwrap();
        own(&dir);
        let (postgres, api) = match host {
            Some(host) => (SocketAddr::from((host, 5432)), format!("{host}:8008")),
            None => (free_address(), free_address().to_string()),
        };
        let mut dcs = json!({
            "ttl": TTL, "loop_wait": 1, "retry_timeout": 2,
            "postgresql": {"use_pg_rewind": true, "parameters": {"max_connections": 50}}
        });
        dcs.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        let store = self.way_to_etcd.as_ref().map_or(self.etcd.address(), SlowPath::address);
        let config = json!({
            "scope": "real", "name": name,
            "restapi": {"listen": api},
            "etcd3": {"host": store.to_string()},
            "bootstrap": {"dcs": dcs, "initdb": [{"encoding": "UTF8"}, "data-checksums"],
                "pg_hba": ["host replication replicator samenet scram-sha-256", "host all all samenet scram-sha-256"]},
            "postgresql": {
                "listen": postgres.to_string(), "data_dir": dir.join("data"), "bin_dir": bin_dir,
                "authentication": {
                    "superuser": {"username": "postgres", "password": "secret-su"},
                    "replication": {"username": "replicator", "password": "secret-re"},
                    "rewind": {"username": "rewinder", "password": "secret-rw"}},
                "parameters": {"unix_socket_directories": dir, "fsync": "off"}}
        });
        // JSON is YAML.
        fs::write(dir.join("agent.yml"), config.to_string()).unwrap();
        let namespace = self.network.as_ref().map(|network| network.host(number));
        Node { name, postgres, api, namespace, dir, program: program.to_owned(), guard: None }
    }

    /// The member that answers as primary.
    pub fn leader(&self) -> Option<&Node> {
        self.nodes.iter().find(|n| n.get("/primary").0 == 200)
    }

    /// From now on etcd's answers arrive this late.
    pub fn delay_etcd(&self, by: Duration) {
        self.way_to_etcd.as_ref().expect("the members go a way that can be made slow").delay(by);
    }

    /// The network between the members' hosts.
    pub fn network(&self) -> &Network {
        self.network.as_ref().expect("the members have hosts of their own")
    }

    /// A member that is not the leader.
    pub fn replica(&self) -> &Node {
        let leader = self.leader().expect("there is a leader").name.clone();
        self.nodes.iter().find(|n| n.name != leader).expect("there are others")
    }

    /// The number of a member's host.
    pub fn host(&self, name: &str) -> u8 {
        (1..).zip(&self.nodes).find(|(_, node)| node.name == name).expect("there is such a member").0
    }

    pub fn node(&mut self, name: &str) -> &mut Node {
        self.nodes.iter_mut().find(|n| n.name == name).expect("there is such a member")
    }

    /// One leads, the others stream, and in quorum mode both of them vote.
    pub fn is_healthy(&self) -> bool {
        let Some(leader) = self.leader() else { return false };
        let members = leader.get("/cluster").1["members"].clone();
        let fine = |m: &Value| match m["role"].as_str() {
            Some("leader") => m["state"] == "running",
            Some("quorum_standby") => m["state"] == "streaming",
            Some("replica") => m["state"] == "streaming" && leader.get("/config").1["synchronous_mode"] != "quorum",
            _ => false,
        };
        members.as_array().is_some_and(|m| m.len() == self.nodes.len() && m.iter().all(fine)) && self.all_stream_to(leader)
    }

    /// What the DCS says of a member that has just died looks well for a while: the servers themselves are asked too.
    fn all_stream_to(&self, leader: &Node) -> bool {
        let streaming = leader.query("select count(distinct application_name)::text from pg_stat_replication where state = 'streaming'");
        let others = self.nodes.iter().filter(|n| n.name != leader.name);
        streaming.is_ok_and(|count| count == (self.nodes.len() - 1).to_string())
            && others
                .clone()
                .all(|n| n.get("/replica").0 == 200 && n.query("select status from pg_stat_wal_receiver").is_ok_and(|s| s == "streaming"))
    }

    pub fn wait_healthy(&self) {
        wait_until("one leads and two stream", LIMIT, || self.is_healthy());
    }

    /// Waits for a leader other than `former` and returns its name.
    pub fn wait_for_another_leader(&self, former: &str) -> String {
        wait_until("somebody else leads", LIMIT, || self.leader().is_some_and(|l| l.name != former));
        self.leader().map(|l| l.name.clone()).expect("just seen")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            node.thaw();
            node.lose_host();
        }
        if std::thread::panicking() {
            for node in &self.nodes {
                eprintln!("---- log of {} ----\n{}", node.name, node.log());
            }
        }
    }
}
