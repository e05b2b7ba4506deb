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

#[test]
fn what_alter_system_says_of_synchronous_standbys_does_not_last() {
    let Some(cluster) = Cluster::start() else { return };
    let writer = Writer::start(&cluster);
    let leader = cluster.leader().unwrap();
    let names = || leader.query("select current_setting('synchronous_standby_names')").unwrap();
    let before = names();
    assert!(before.starts_with("ANY 1 ("), "{before}");
    leader.execute("alter system set synchronous_standby_names = ''");
    leader.execute("select pg_reload_conf()");
    wait_until("the names are back", LIMIT, || names() == before);
    assert!(leader.log().contains("'synchronous_standby_names' was changed by ALTER SYSTEM"), "{}", leader.log());
    let replica = cluster.replica();
    replica.execute(&format!("alter system set primary_conninfo = '{}'", "host=127.0.0.1 application_name=elsewhere"));
    replica.execute("select pg_reload_conf()");
    wait_until("it streams again as itself", LIMIT, || cluster.is_healthy());
    writer.check(&cluster);
}

#[test]
fn a_leader_that_dies_right_after_its_promotion_leaves_a_cluster_that_goes_on() {
    let Some(mut cluster) = Cluster::start() else { return };
    let writer = Writer::start(&cluster);
    for _ in 0..3 {
        let first = cluster.leader().unwrap().name.clone();
        cluster.node(&first).lose_host();
        let others = || cluster.nodes.iter().filter(|node| node.name != first);
        // The moment at which it accepts writes, before anybody is known to have what it has.
        let promoted = |node: &Node| node.query("select pg_is_in_recovery()::text").is_ok_and(|is| is == "false");
        wait_until("somebody is promoted", LIMIT, || others().any(promoted));
        let second = others().find(|node| promoted(node)).unwrap().name.clone();
        cluster.node(&second).lose_host();
        // The second one stays away. The first one has all that it acknowledged itself, the third what the second did.
        cluster.node(&first).start();
        cluster.wait_for_another_leader(&second);
        writer.wait_for_more();
        cluster.node(&second).start();
        cluster.wait_healthy();
    }
    writer.check(&cluster);
}
