//! Voters that are fenced before they vote: an old primary that nobody can stop finds no one to acknowledge any more.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use tokio_postgres::{Client, Config, NoTls};

use super::{
    cluster::{Cluster, LIMIT, Node, send},
    writer::{Writer, config},
};
use crate::support::{
    block, wait_until,
    writer::{expect_all, rows},
};

/// Numbers far from the ones that the other client writes.
const FIRST: i64 = 1_000_000_000;

/// Clients that write to one server only, whatever becomes of it, and note when each row was acknowledged.
struct Faithful {
    acknowledged: Arc<Mutex<Vec<(i64, Instant)>>>,
    end: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Faithful {
    fn start(node: &Node) -> Faithful {
        let (acknowledged, end) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<AtomicBool>::default());
        let threads = (0..2).map(|client| {
            let (config, acknowledged, end) = (config([node]), acknowledged.clone(), end.clone());
            std::thread::spawn(move || block(write(&config, FIRST * (client + 1), &acknowledged, &end)))
        });
        Faithful { threads: threads.collect(), acknowledged, end }
    }

    fn stop(self) -> Vec<(i64, Instant)> {
        self.end.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
        Arc::into_inner(self.acknowledged).unwrap().into_inner().unwrap()
    }
}

/// One row after the other. A session that hangs is left behind: its row may still be acknowledged, and to others it looks as if it were not.
async fn write(config: &Config, first: i64, acknowledged: &Mutex<Vec<(i64, Instant)>>, end: &AtomicBool) {
    let (mut id, mut client) = (first, None);
    while !end.load(Ordering::Relaxed) {
        id += 1;
        if let Ok(Ok(())) = tokio::time::timeout(Duration::from_secs(1), write_one(&mut client, config, id)).await {
            acknowledged.lock().unwrap().push((id, Instant::now()));
        } else {
            client = None;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn write_one(client: &mut Option<Client>, config: &Config, id: i64) -> Result<(), tokio_postgres::Error> {
    if client.is_none() {
        let (connected, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        *client = Some(connected);
    }
    let client = client.as_ref().expect("just connected");
    client.execute("insert into written values ($1)", &[&id]).await.map(drop)
}

#[test]
fn a_primary_whose_guard_and_agent_hang_acknowledges_nothing_once_another_leads() {
    let Some(cluster) = Cluster::start() else { return };
    let writer = Writer::start(&cluster);
    let old = cluster.leader().unwrap();
    let faithful = Faithful::start(old);
    wait_until("the old primary acknowledges rows", LIMIT, || faithful.acknowledged.lock().unwrap().len() > 20);
    send(old.guard_pid(), Signal::STOP);
    send(old.agent_pid(), Signal::STOP);
    // The old one is not asked: an agent that hangs takes its time not to answer.
    let others = || cluster.nodes.iter().filter(|node| node.name != old.name);
    wait_until("somebody else leads", LIMIT, || others().any(|node| node.get("/primary").0 == 200));
    let elected = Instant::now();
    // The other client, which knows all members, finds the old one first or the new one: to both it looks as if it were the primary.
    let leader = others().find(|node| node.get("/primary").0 == 200).expect("it leads");
    leader.execute("insert into written values (-1)");
    assert!(old.postmaster_pid().is_some(), "the old primary was to go on");
    // Time enough for it to acknowledge something, if anybody listened to it.
    std::thread::sleep(Duration::from_secs(2));
    let acknowledged = faithful.stop();
    assert!(old.query("select pg_is_in_recovery()::text").is_ok_and(|is| is == "false"), "the old primary was to stay one");
    let late = acknowledged.iter().filter(|(_, at)| *at > elected).count();
    assert_eq!(late, 0, "acknowledged by the old primary after somebody else had been elected");
    let ids: BTreeSet<i64> = acknowledged.iter().map(|(id, _)| *id).collect();
    assert!(ids.len() > 20);
    expect_all(&ids, &rows(&config([leader])).unwrap(), "the new leader");
    old.thaw();
    writer.check(&cluster);
}
