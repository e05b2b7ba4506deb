//! What the CLI runs inside a cluster: the probe and the request to hand over, against a real store and a real REST API.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use serde_json::{Value, json};
use spilo::{
    api::{Access, ApiRequest, Login, NodeStatus, Xlog, serve},
    dcs::{
        Dcs, Etcd,
        snapshot::{FailoverKey, MemberRole, PgState},
    },
    model::{Lsn, MemberName, SystemId},
    routing::{RoutingError, probe, request_switchover},
    sys::clock::Moment,
};
use tokio::sync::{mpsc, watch};

use crate::support::{available, etcd::EtcdServer, free_address};

const TTL: Duration = Duration::from_secs(30);

fn name(text: &str) -> MemberName {
    text.parse().unwrap()
}

/// What the leader demands of whoever asks it for a change.
fn login() -> Value {
    json!({"username": "admin", "password": "correct horse"})
}

/// Writes `router.yml` and the password that it does not get to use here.
fn write_config(dir: &Path, server: &EtcdServer) -> std::path::PathBuf {
    let nowhere = "127.0.0.1:1";
    let config = json!({
        "scope": "orders", "restapi": {"authentication": login()}, "etcd3": {"hosts": [server.address().to_string()]},
        "router": {"run_dir": "/run/spilo", "listen": {"read_write": nowhere, "read_only": nowhere, "health": nowhere}},
    });
    std::fs::create_dir(dir.join("secrets")).unwrap();
    std::fs::write(dir.join("secrets/monitor"), "0123456789abcdef").unwrap();
    let path = dir.join("router.yml");
    std::fs::write(&path, config.to_string()).unwrap();
    path
}

fn member(api: SocketAddr, role: &str) -> Value {
    // Nothing listens at port 1.
    json!({"conn_url": "postgres://127.0.0.1:1/postgres", "api_url": format!("http://{api}/patroni"), "state": "running", "role": role})
}

/// A leader's REST API and, instead of its agent, something that hands over to `orders-2` as soon as it is asked to.
async fn lead(api: SocketAddr, silent: SocketAddr, agent: &Etcd) {
    let later = Moment::now() + Duration::from_secs(60);
    let published = |cluster| NodeStatus {
        state: PgState::Running,
        role: MemberRole::Primary,
        is_leader: true,
        leader_until: Some(later),
        dcs_seen: Some(1),
        dcs_fresh_until: later,
        xlog: Some(Xlog::Primary { location: Lsn(7) }),
        cluster,
        ..NodeStatus::unknown(name("orders-1"), "orders", "4.1.5", later)
    };
    let (status, watched) = watch::channel(Arc::new(published(agent.snapshot().await.unwrap())));
    let (sender, mut requests) = mpsc::channel(1);
    let listener = tokio::net::TcpListener::bind(api).await.unwrap();
    let mut mistakes = Vec::new();
    let access = Access { demanded: Login::read(&login(), "authentication", &mut mistakes), shown: None };
    assert!(access.demanded.is_some(), "{mistakes:?}");
    tokio::spawn(serve(listener, watched, sender, watch::channel(access).1, None));
    while let Some(request) = requests.recv().await {
        match request {
            ApiRequest::Observe { answer } => drop(answer.send(status.borrow().clone())),
            ApiRequest::Handover { key, answer } => {
                assert!(agent.put_failover(&key, None).await.unwrap());
                answer.send(Ok(())).unwrap();
                agent.release_leader(&name("orders-1"), None).await.unwrap();
                assert!(agent.claim_leader(&name("orders-2"), &agent.snapshot().await.unwrap().seen().into()).await.unwrap());
                agent.put_failover(&FailoverKey::default(), None).await.unwrap();
                agent.put_member(&name("orders-2"), &serde_json::from_value(member(silent, "primary")).unwrap()).await.unwrap();
                status.send_replace(Arc::new(published(agent.snapshot().await.unwrap())));
            }
            other => panic!("nobody asks for {other:?} here"),
        }
    }
}

#[test]
fn the_probe_reports_and_a_request_hands_over() {
    if !available("etcd") {
        return;
    }
    let server = EtcdServer::start();
    let dir = tempfile::tempdir().unwrap();
    let path = write_config(dir.path(), &server);
    assert!(matches!(request_switchover(&path, None, None), Err(RoutingError::NoLeader(scope)) if scope == "orders"));

    let (api, silent) = (free_address(), free_address());
    let dcs = server.config("orders");
    let (ready, begin) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let agent = Etcd::connect(&dcs, Duration::from_secs(5)).await.unwrap();
            agent.keep_session(TTL).await.unwrap();
            agent.put_member(&name("orders-1"), &serde_json::from_value(member(api, "primary")).unwrap()).await.unwrap();
            agent.put_member(&name("orders-2"), &serde_json::from_value(member(silent, "replica")).unwrap()).await.unwrap();
            assert!(agent.record_initialize(SystemId(7_398_000_000_000_000_000)).await.unwrap());
            assert!(agent.claim_leader(&name("orders-1"), &agent.snapshot().await.unwrap().seen().into()).await.unwrap());
            ready.send(()).unwrap();
            lead(api, silent, &agent).await;
        });
    });
    begin.recv().unwrap();
    crate::support::wait_until("the API answers", Duration::from_secs(5), || std::net::TcpStream::connect(api).is_ok());

    let report = probe(&path).unwrap();
    assert_eq!((report.leader, report.initialize.as_deref()), (Some(name("orders-1")), Some("7398000000000000000")));
    let [first, second] = &report.members[..] else { panic!("two members are there: {:?}", report.members) };
    let rest = first.rest.as_ref().unwrap_or_else(|| panic!("{:?}", first.rest_error));
    assert_eq!((rest.code, &rest.body["role"], &rest.body["xlog"]["location"]), (200, &json!("primary"), &json!(7)));
    for error in [&first.sql_error, &second.sql_error, &second.rest_error] {
        assert!(error.as_ref().is_some_and(|error| error.contains("refused")), "{error:?}");
    }

    let refused = request_switchover(&path, Some("orders-2"), None).unwrap();
    assert_eq!((refused.code, refused.message.as_str()), (412, "leader name does not match"));
    let done = request_switchover(&path, None, Some("orders-2")).unwrap();
    assert_eq!((done.code, done.message.as_str()), (200, "Successfully switched over to \"orders-2\""));
    assert_eq!(done.leader, Some(name("orders-2")));
    assert!(done.elapsed_ms < 5000, "it took {} ms", done.elapsed_ms);
}
