//! The writing client in front of agents on loopback.

use std::time::Duration;

use tokio_postgres::{Config, config::TargetSessionAttrs};

use super::cluster::{Cluster, LIMIT, Node};
use crate::support::{
    wait_until,
    writer::{self, expect_all, rows},
};

/// A connection string for these ports on loopback.
pub fn config(ports: &[u16]) -> Config {
    let mut config = Config::new();
    for port in ports {
        config.host("127.0.0.1").port(*port);
    }
    config.user("postgres").password("secret-su").dbname("postgres").connect_timeout(Duration::from_secs(2));
    config
}

/// The running client.
pub struct Writer(writer::Writer);

impl Writer {
    /// Begins to write to whichever member is the primary.
    pub fn start(cluster: &Cluster) -> Writer {
        let ports: Vec<u16> = cluster.nodes.iter().map(|n| n.postgres_port).collect();
        let writer = Writer(writer::Writer::start(config(&ports).target_session_attrs(TargetSessionAttrs::ReadWrite)));
        writer.wait_for_more();
        writer
    }

    /// Waits until some more rows were acknowledged after now.
    pub fn wait_for_more(&self) {
        self.0.wait_for_more(LIMIT);
    }

    /// How many rows were acknowledged so far.
    pub fn count(&self) -> usize {
        self.0.count()
    }

    /// Rows that were acknowledged before this was called and are not on that member.
    pub fn missing_on(&self, node: &Node) -> Vec<i64> {
        let acknowledged = self.0.acknowledged();
        acknowledged.difference(&rows(&config(&[node.postgres_port])).unwrap()).copied().collect()
    }

    /// Ends, and checks that every acknowledged row is there, on the leader and on every replica.
    pub fn check(self, cluster: &Cluster) {
        let acknowledged = self.0.stop();
        cluster.wait_healthy();
        let leader = cluster.leader().expect("it is healthy");
        expect_all(&acknowledged, &rows(&config(&[leader.postgres_port])).unwrap(), "the leader");
        for node in &cluster.nodes {
            let port = node.postgres_port;
            wait_until("every member has every row", LIMIT, || acknowledged.is_subset(&rows(&config(&[port])).unwrap()));
        }
    }
}
