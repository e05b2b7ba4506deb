//! Clients that go through the router.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::json;
use tokio_postgres::{Client, Config, NoTls};

use super::{
    cluster::{Cluster, send},
    dcs_outage::{OUTAGE, expect_no_outage},
    writer::Writer,
};
use crate::support::{available, free_address, wait_until};

const LIMIT: Duration = Duration::from_secs(30);

/// The longest time without writes when a primary that is cut off from the store loses its host: nobody may take its place before all that
/// was promised to it has ended, which takes a lease, nor before it has been found out, and a machine that is shared takes its time.
const PROMISES_AND_A_PROMOTION: Duration = Duration::from_secs(20);

/// The router as a process on this machine, from which every host and the store can be reached.
struct Router {
    process: Child,
    read_write: SocketAddr,
    log: PathBuf,
    _dir: tempfile::TempDir,
}

impl Router {
    /// One before this cluster that leads to its leader; `None`, with a visible line, without haproxy.
    fn start(cluster: &Cluster) -> Option<Router> {
        if !available("haproxy") {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let (read_write, path, log) = (free_address(), dir.path().join("router.yml"), dir.path().join("log"));
        let config = json!({
            "scope": "real", "etcd3": {"host": cluster.etcd.address().to_string()},
            "router": {
                "listen": {"read_write": read_write, "read_only": free_address(), "health": free_address()},
                "run_dir": dir.path().join("run")}
        });
        fs::write(&path, config.to_string()).unwrap();
        let output = fs::File::create(&log).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_spilo"));
        command.arg("router").arg(&path).stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
        let router = Router { process: command.spawn().unwrap(), read_write, log, _dir: dir };
        wait_until("the router leads to the leader", LIMIT, || crate::support::block(router.session()).is_ok());
        Some(router)
    }

    fn config(&self) -> Config {
        let mut config = Config::new();
        config.host(self.read_write.ip().to_string()).port(self.read_write.port());
        config.user("postgres").password("secret-su").dbname("postgres").connect_timeout(Duration::from_secs(2));
        config
    }

    async fn session(&self) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = self.config().connect(NoTls).await?;
        tokio::spawn(connection);
        client.simple_query("select 1").await?;
        Ok(client)
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        send(i32::try_from(self.process.id()).unwrap(), Signal::TERM);
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("---- log of the router ----\n{}", self.log());
        }
    }
}

#[test]
fn that_only_the_primary_is_cut_off_from_the_store_ends_no_session_and_costs_no_write() {
    let Some(cluster) = Cluster::start_on_hosts(&json!({"synchronous_mode": "quorum"})) else { return };
    let Some(router) = Router::start(&cluster) else { return };
    let writer = Writer::start_through(&router.config());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let session = runtime.block_on(router.session()).unwrap();
    let leader = cluster.leader().unwrap().name.clone();

    cluster.network().part(cluster.host(&leader), cluster.network().store());
    expect_no_outage(&cluster, &writer, &leader, OUTAGE);
    let other = cluster.nodes.iter().find(|n| n.name != leader).unwrap();
    assert_eq!(other.get("/patroni").1["cluster_unlocked"], json!(true), "the key has expired long ago");
    assert!(router.log().contains("nobody holds the leader key"), "{}", router.log());
    cluster.network().heal();
    expect_no_outage(&cluster, &writer, &leader, Duration::from_secs(6));
    cluster.wait_healthy();
    runtime.block_on(session.simple_query("select 1")).expect("a session that stood idle all the while has survived");
    writer.check(&cluster);
}

#[test]
fn when_a_primary_that_is_cut_off_from_the_store_dies_writes_go_to_its_successor() {
    let Some(mut cluster) = Cluster::start_on_hosts(&json!({"synchronous_mode": "quorum"})) else { return };
    let Some(router) = Router::start(&cluster) else { return };
    let writer = Writer::start_through(&router.config());
    let leader = cluster.leader().unwrap().name.clone();

    cluster.network().part(cluster.host(&leader), cluster.network().store());
    std::thread::sleep(Duration::from_secs(8));
    writer.wait_for_more();
    cluster.node(&leader).lose_host();
    let lost = Instant::now();
    writer.wait_for_more();
    eprintln!("writes were back after {:?}", lost.elapsed());
    assert!(lost.elapsed() < PROMISES_AND_A_PROMOTION, "writes were back after {:?} only", lost.elapsed());
    cluster.network().heal();
    cluster.node(&leader).start();
    writer.check(&cluster);
}
