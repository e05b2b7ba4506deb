//! The writing client in front of agents on loopback.

use std::time::Duration;

use tokio_postgres::{Config, config::TargetSessionAttrs};

use super::cluster::{Cluster, LIMIT, Node};
use crate::support::{
    wait_until,
    writer::{self, expect_all, rows},
};

/// A connection string with all these members.
pub fn config<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> Config {
    let mut config = Config::new();
    for node in nodes {
        config.host(node.postgres.ip().to_string()).port(node.postgres.port());
    }
    config.user("postgres").password("secret-su").dbname("postgres").connect_timeout(Duration::from_secs(2));
    config
}

/// The running client.
pub struct Writer(writer::Writer);

impl Writer {
    /// Begins to write to whichever member is the primary.
    pub fn start(cluster: &Cluster) -> Writer {
        let writer = Writer(writer::Writer::start(config(&cluster.nodes).target_session_attrs(TargetSessionAttrs::ReadWrite)));
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
        acknowledged.difference(&rows(&config([node])).unwrap()).copied().collect()
    }

    /// Ends, and checks that every acknowledged row is there, on the leader and on every replica.
    pub fn check(self, cluster: &Cluster) {
        let acknowledged = self.0.stop();
        cluster.wait_healthy();
        let leader = cluster.leader().expect("it is healthy");
        expect_all(&acknowledged, &rows(&config([leader])).unwrap(), "the leader");
        for node in &cluster.nodes {
            wait_until("every member has every row", LIMIT, || acknowledged.is_subset(&rows(&config([node])).unwrap()));
        }
    }
}
