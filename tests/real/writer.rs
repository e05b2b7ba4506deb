//! The writing client in front of agents on loopback.

use std::time::{Duration, Instant};

use tokio_postgres::{Config, config::TargetSessionAttrs};

use super::cluster::{Cluster, LIMIT, Node};
use crate::support::{
    wait_until,
    writer::{self, Row, expect_all, rows, taken_by_two_at_once},
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

    /// The same through a way of its own to the primary.
    pub fn start_through(way: &Config) -> Writer {
        let writer = Writer(writer::Writer::start(way));
        writer.wait_for_more();
        writer
    }

    /// The same, with a witness at each member that shows when two of them take rows at once.
    pub fn start_with_witnesses(cluster: &Cluster) -> Writer {
        let members: Vec<Config> = cluster.nodes.iter().map(|node| config([node])).collect();
        let everybody = config(&cluster.nodes).target_session_attrs(TargetSessionAttrs::ReadWrite).clone();
        let writer = Writer(writer::Writer::start_with_witnesses(&everybody, &members));
        writer.wait_for_more();
        writer
    }

    /// The rows that were acknowledged so far, from the `first` on.
    pub fn rows(&self, first: usize) -> Vec<Row> {
        self.0.rows(first)
    }

    /// Waits until some more rows were acknowledged after now.
    pub fn wait_for_more(&self) {
        self.0.wait_for_more(LIMIT);
    }

    /// How many rows were acknowledged so far.
    pub fn count(&self) -> usize {
        self.0.count()
    }

    /// Numbers of those of the rows that are not on that member.
    pub fn missing_of(&self, acknowledged: &[Row], node: &Node) -> Vec<i64> {
        let present = rows(&config([node])).unwrap();
        acknowledged.iter().map(|row| row.id).filter(|id| !present.contains(id)).collect()
    }

    /// Fails when two members acknowledged rows at once, from the `first` row on.
    pub fn expect_one_at_a_time(&self, first: usize) {
        let found = taken_by_two_at_once(&self.0.rows(first));
        assert!(found.is_empty(), "{} rows were acknowledged by a member while another was the primary: {found:?}", found.len());
    }

    /// Ends, and checks that every acknowledged row is there, on the leader and on every replica, and that one member at a time took them.
    pub fn check(self, cluster: &Cluster) {
        self.expect_one_at_a_time(0);
        let acknowledged = self.0.stop();
        cluster.wait_healthy();
        let leader = cluster.leader().expect("it is healthy");
        expect_all(&acknowledged, &rows(&config([leader])).unwrap(), "the leader");
        for node in &cluster.nodes {
            wait_until("every member has every row", LIMIT, || acknowledged.is_subset(&rows(&config([node])).unwrap()));
        }
    }
}

/// Numbers of those that overlap; a row is its number, when it was sent and answered, by whom, and on which timeline.
fn overlapping(rows: &[(i64, u64, u64, &str, i32)]) -> Vec<i64> {
    let begun = Instant::now();
    let row = |&(id, sent, acknowledged, server, timeline): &(i64, u64, u64, &str, i32)| {
        let at = |millis| begun + Duration::from_millis(millis);
        Row { id, sent: at(sent), acknowledged: at(acknowledged), server: server.to_owned(), timeline }
    };
    taken_by_two_at_once(&rows.iter().map(row).collect::<Vec<_>>()).iter().map(|row| row.id).collect()
}

#[test]
fn a_change_of_leader_there_and_back_is_no_overlap() {
    assert_eq!(overlapping(&[(1, 0, 1, "a", 1), (2, 2, 3, "b", 2), (3, 4, 5, "a", 3)]), [0_i64; 0]);
}

#[test]
fn an_answer_that_comes_late_is_no_overlap() {
    assert_eq!(overlapping(&[(1, 0, 9, "a", 1), (2, 2, 3, "b", 2)]), [0_i64; 0]);
}

#[test]
fn a_row_of_the_old_primary_after_the_new_ones_first_is_an_overlap() {
    assert_eq!(overlapping(&[(1, 0, 1, "a", 1), (2, 2, 3, "b", 2), (3, 4, 5, "a", 1)]), [3]);
}

#[test]
fn two_members_on_one_timeline_are_an_overlap() {
    assert_eq!(overlapping(&[(1, 0, 1, "a", 1), (2, 2, 3, "b", 1)]), [2]);
}
