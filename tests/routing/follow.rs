//! The whole router: from keys in a real etcd to where sessions end up.

use std::{net::SocketAddr, time::Duration};

use rustix::process::{Signal, getpid, kill_process};
use serde_json::json;
use spilo::{
    dcs::{Dcs, Etcd, snapshot::MemberRole},
    model::MemberName,
};

use crate::{
    members::{FakeMember, Role, Session, greeted_by, page},
    support::{available, etcd::EtcdServer, free_address, wait_until},
};

const TTL: Duration = Duration::from_secs(30);
const SOON: Duration = Duration::from_secs(20);

async fn publish(agent: &Etcd, member: &FakeMember, role: MemberRole) {
    let data = json!({
        "conn_url": format!("postgres://{}/postgres", member.postgres), "api_url": format!("http://{}/patroni", member.api),
        "state": "running", "role": role,
    });
    agent.put_member(&member.name, &serde_json::from_value(data).unwrap()).await.unwrap();
}

async fn session(server: &EtcdServer) -> Etcd {
    let agent = Etcd::connect(&server.config("orders"), Duration::from_secs(5)).await.unwrap();
    agent.keep_session(TTL).await.unwrap();
    agent
}

/// Waits until writes reach `name`, without blocking the agents of this thread for longer than one try.
fn writes_reach(address: SocketAddr, name: &MemberName) -> Duration {
    wait_until(&format!("writes reach '{name}'"), SOON, || greeted_by(address).as_deref() == Some(name.as_str()))
}

#[test]
fn the_router_follows_the_leader_and_outlives_the_store() {
    if !available("haproxy") || !available("etcd") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut server = EtcdServer::prepare();
    let [read_write, read_only, health] = [free_address(), free_address(), free_address()];
    let path = dir.path().join("router.yml");
    let config = json!({
        "scope": "orders", "namespace": "/service/", "etcd3": {"hosts": [server.address().to_string()]},
        "router": {"listen": {"read_write": read_write, "read_only": read_only, "health": health}, "run_dir": dir.path().join("run")},
    });
    std::fs::write(&path, config.to_string()).unwrap();
    let router = std::thread::spawn(move || spilo::routing::run(&path));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();

    // There before the store is, and saying so.
    wait_until("the health page answers", SOON, || page(health, "/healthz").0 == 503);
    server.run();
    let (a, b) = (FakeMember::start("orders-1", Role::Primary), FakeMember::start("orders-2", Role::Replica));
    let (agent_a, agent_b) = runtime.block_on(async {
        let (agent_a, agent_b) = (session(&server).await, session(&server).await);
        publish(&agent_b, &b, MemberRole::Replica).await;
        publish(&agent_a, &a, MemberRole::Primary).await;
        assert!(agent_a.claim_leader(&a.name, &agent_a.snapshot().await.unwrap().seen().into()).await.unwrap());
        (agent_a, agent_b)
    });
    writes_reach(read_write, &a.name);
    wait_until("reads reach the replica", SOON, || greeted_by(read_only).as_deref() == Some("orders-2"));
    assert_eq!(page(health, "/healthz").0, 200);

    // A new leader takes writes only when it says that it is a primary.
    let mut before = Session::open(read_write).unwrap();
    runtime.block_on(async {
        agent_a.release_leader(&a.name, None).await.unwrap();
        assert!(agent_b.claim_leader(&b.name, &agent_b.snapshot().await.unwrap().seen().into()).await.unwrap());
    });
    assert!(before.is_closed_within(SOON), "a session with the former primary goes on");
    assert_eq!(greeted_by(read_write), None);
    a.becomes(Role::Replica);
    b.becomes(Role::Primary);
    runtime.block_on(publish(&agent_b, &b, MemberRole::Primary));
    let took = writes_reach(read_write, &b.name);
    eprintln!("writes reached the new primary {took:?} after it said so");

    // Without its key it takes writes as long as it says itself that it leads, and somebody else's key ends that.
    let mut before = Session::open(read_write).unwrap();
    runtime.block_on(async {
        agent_b.release_leader(&b.name, None).await.unwrap();
        agent_b.remove_member(&b.name).await.unwrap();
    });
    assert!(!before.is_closed_within(Duration::from_secs(3)), "the loss of the leader key ended a session");
    assert!(before.works() && greeted_by(read_write).as_deref() == Some("orders-2"));
    b.becomes(Role::Replica);
    assert!(before.is_closed_within(SOON) && greeted_by(read_write).is_none(), "it says that it does not lead");
    b.becomes(Role::Primary);
    writes_reach(read_write, &b.name);
    let mut before = Session::open(read_write).unwrap();
    runtime.block_on(async {
        publish(&agent_a, &a, MemberRole::Replica).await;
        assert!(agent_a.claim_leader(&a.name, &agent_a.snapshot().await.unwrap().seen().into()).await.unwrap());
    });
    assert!(before.is_closed_within(SOON) && greeted_by(read_write).is_none(), "its word counts beside somebody else's key");
    runtime.block_on(async {
        agent_a.release_leader(&a.name, None).await.unwrap();
        assert!(agent_b.claim_leader(&b.name, &agent_b.snapshot().await.unwrap().seen().into()).await.unwrap());
        publish(&agent_b, &b, MemberRole::Primary).await;
    });
    writes_reach(read_write, &b.name);

    // Without the store everything stays as it was.
    let mut before = Session::open(read_write).unwrap();
    server.kill();
    assert!(!before.is_closed_within(Duration::from_secs(4)), "the loss of the store ended a session");
    assert!(before.works() && greeted_by(read_write).as_deref() == Some("orders-2"));

    kill_process(getpid(), Signal::TERM).unwrap();
    wait_until("the router ends", Duration::from_secs(8), || router.is_finished());
    router.join().unwrap().unwrap();
    assert_eq!(page(health, "/healthz").0, 0, "haproxy is still there");
}
