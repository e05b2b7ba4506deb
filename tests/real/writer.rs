//! A client that writes numbered rows all the time and remembers which were acknowledged.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio_postgres::{Client, Config, NoTls, config::TargetSessionAttrs};

use super::cluster::{Cluster, LIMIT, Node, block};
use crate::support::wait_until;

/// A connection string for these ports on loopback.
pub fn config(ports: &[u16]) -> Config {
    let mut config = Config::new();
    for port in ports {
        config.host("127.0.0.1").port(*port);
    }
    config.user("postgres").password("secret-su").dbname("postgres").connect_timeout(Duration::from_secs(2));
    config
}

/// What was acknowledged so far, and by which port.
type Acknowledged = Arc<Mutex<Vec<(i64, i32, Instant)>>>;

/// The running client.
pub struct Writer {
    acknowledged: Acknowledged,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Creates the table and begins to write.
    pub fn start(cluster: &Cluster) -> Writer {
        let leader = cluster.leader().expect("there is a leader");
        leader.query("with t as (select 1) select 'ok'").unwrap();
        block(async {
            let (client, connection) = config(&[leader.postgres_port]).connect(NoTls).await.unwrap();
            tokio::spawn(connection);
            client.batch_execute("create table if not exists written (id bigint primary key)").await.unwrap();
        });
        let ports: Vec<u16> = cluster.nodes.iter().map(|n| n.postgres_port).collect();
        let acknowledged = Acknowledged::default();
        let end = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (acknowledged, end) = (acknowledged.clone(), end.clone());
            move || block(write(&ports, &acknowledged, &end))
        });
        let writer = Writer { acknowledged, end, thread: Some(thread) };
        writer.wait_for_more();
        writer
    }

    /// Waits until some more rows were acknowledged after now.
    pub fn wait_for_more(&self) {
        let wanted = self.count() + 20;
        wait_until("writes are acknowledged", LIMIT, || self.count() >= wanted);
    }

    pub fn count(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    /// Rows that were acknowledged before this was called and are not on that member.
    pub fn missing_on(&self, node: &Node) -> Vec<i64> {
        let acknowledged: BTreeSet<i64> = self.acknowledged.lock().unwrap().iter().map(|(id, ..)| *id).collect();
        acknowledged.difference(&present(node)).copied().collect()
    }

    /// Ends, and checks that every acknowledged row is there, on the leader and on every replica.
    pub fn check(mut self, cluster: &Cluster) {
        self.end.store(true, Ordering::Relaxed);
        self.thread.take().expect("it was not joined before").join().unwrap();
        cluster.wait_healthy();
        let acknowledged: BTreeSet<i64> = self.acknowledged.lock().unwrap().iter().map(|(id, ..)| *id).collect();
        let leader = cluster.leader().expect("it is healthy");
        let lost: Vec<_> = acknowledged.difference(&present(leader)).copied().collect();
        assert!(lost.is_empty(), "{} of {} acknowledged rows are lost: {lost:?}", lost.len(), acknowledged.len());
        for node in &cluster.nodes {
            wait_until("every member has every row", LIMIT, || acknowledged.is_subset(&present(node)));
        }
    }
}

fn present(node: &Node) -> BTreeSet<i64> {
    block(async {
        let (client, connection) = config(&[node.postgres_port]).connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        client.query("select id from written", &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
    })
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
    }
}

async fn write(ports: &[u16], acknowledged: &Acknowledged, end: &AtomicBool) {
    let mut client: Option<Client> = None;
    let mut id = 0_i64;
    while !end.load(Ordering::Relaxed) {
        // A row whose answer did not come is neither acknowledged nor written again.
        id += 1;
        match tokio::time::timeout(Duration::from_secs(3), write_one(&mut client, ports, id)).await {
            Ok(Ok(port)) => acknowledged.lock().unwrap().push((id, port, Instant::now())),
            _ => {
                client = None;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn write_one(client: &mut Option<Client>, ports: &[u16], id: i64) -> Result<i32, tokio_postgres::Error> {
    if client.is_none() {
        let (fresh, connection) = config(ports).target_session_attrs(TargetSessionAttrs::ReadWrite).connect(NoTls).await?;
        tokio::spawn(connection);
        *client = Some(fresh);
    }
    let client = client.as_ref().expect("just connected");
    Ok(client.query_one("insert into written values ($1) returning inet_server_port()", &[&id]).await?.get(0))
}
