//! One look at the cluster from inside its network: the DCS, every member's REST API, one real read per member.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_postgres::{NoTls, SimpleQueryMessage, SimpleQueryRow};

use super::{RouterConfig, RoutingError};
use crate::{
    api::report::{MemberReport, ProbeReport, RestAnswer, RouteReport, SqlAnswer, SyncReport},
    dcs::{
        Dcs, Etcd,
        snapshot::{Initialize, MemberData, Snapshot, SyncState},
    },
    model::{Lsn, MemberName, Secret, Timeline},
    sys::causes,
};

/// Time for the DCS, and then for each member's answers, which are asked for at the same time.
const DCS_LIMIT: Duration = Duration::from_secs(2);
const MEMBER_LIMIT: Duration = Duration::from_millis(1500);
/// The role that reads, and the database it may connect to.
const ROLE: &str = "monitor";
const DATABASE: &str = "postgres";

/// Position and timeline of a primary and of a standby. On a standby that receives nothing, the timeline is that of its last checkpoint.
const READ: &str = "select pg_is_in_recovery() as in_recovery, \
    case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end as lsn, \
    case when pg_is_in_recovery() \
         then coalesce((select received_tli from pg_stat_wal_receiver), (select timeline_id from pg_control_checkpoint())) \
         else ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int end as timeline";

/// Looks at the cluster of this router's configuration. A member or a DCS that does not answer is part of the report.
pub fn probe(path: &Path) -> Result<ProbeReport, RoutingError> {
    let config = RouterConfig::read(path)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(RoutingError::Setup)?;
    Ok(runtime.block_on(look(&config)))
}

async fn look(config: &RouterConfig) -> ProbeReport {
    let snapshot = match Etcd::connect(&config.dcs, DCS_LIMIT).await {
        Ok(etcd) => etcd.snapshot().await,
        Err(error) => Err(error),
    };
    let (snapshot, dcs_error) = match snapshot {
        Ok(snapshot) => (snapshot, None),
        Err(error) => (Snapshot::default(), Some(error.to_string())),
    };
    let password = read_secret(&config.directory.join("secrets").join(ROLE));
    let members = join_all(snapshot.members.iter().map(|(name, data)| ask(name, data, password.as_ref())));
    let (members, route) = tokio::join!(members, ask_route(config, password.as_ref()));
    ProbeReport {
        scope: config.dcs.scope.clone(),
        initialize: match snapshot.initialize {
            Initialize::Absent => None,
            Initialize::InProgress => Some(String::new()),
            Initialize::Done(id) => Some(id.to_string()),
        },
        leader: snapshot.leader,
        optime: dcs_error.is_none().then_some(snapshot.status.optime).filter(|lsn| lsn.0 > 0),
        dcs_error,
        config: snapshot.config.unwrap_or_default(),
        sync: snapshot.sync_version.map(|_| sync_report(&snapshot.sync)),
        history: snapshot.history.iter().map(|line| json!(line)).collect(),
        route,
        members,
    }
}

/// A client's way through haproxy, when we look from inside the router's container: its first process is the router.
async fn ask_route(config: &RouterConfig, password: Result<&Secret, &String>) -> Option<RouteReport> {
    let first = std::fs::read("/proc/1/cmdline").unwrap_or_default();
    if first.split(|byte| *byte == 0).nth(1) != Some(b"router") {
        return None;
    }
    let port = config.listen.read_write.port();
    let answer = match password {
        Ok(password) => timeout(MEMBER_LIMIT, read("127.0.0.1", port, password)).await,
        Err(error) => return Some(RouteReport { error: Some(error.clone()) }),
    };
    let error = match answer {
        Ok(Ok(row)) if row.try_get("in_recovery").ok().flatten() == Some("f") => None,
        Ok(Ok(_)) => Some("it leads to a standby".to_owned()),
        Ok(Err(error)) => Some(error),
        Err(_) => Some(format!("no answer within {MEMBER_LIMIT:?}")),
    };
    Some(RouteReport { error })
}

fn sync_report(sync: &SyncState) -> SyncReport {
    SyncReport {
        leader: sync.leader.as_deref().and_then(|name| name.parse().ok()),
        quorum: Some(sync.quorum),
        sync_standby: sync.voters.iter().filter_map(|name| name.parse().ok()).collect(),
    }
}

async fn ask(name: &MemberName, data: &MemberData, password: Result<&Secret, &String>) -> MemberReport {
    let (rest, sql) = tokio::join!(ask_rest(&data.api_url), ask_sql(data, password));
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    MemberReport {
        name: name.clone(),
        conn_url: some(&data.conn_url),
        api_url: some(&data.api_url),
        dcs: json!(data),
        rest_error: rest.as_ref().err().cloned(),
        rest: rest.ok(),
        sql_error: sql.as_ref().err().cloned(),
        sql: sql.ok(),
    }
}

async fn ask_rest(url: &str) -> Result<RestAnswer, String> {
    let client = reqwest::Client::builder().timeout(MEMBER_LIMIT).no_proxy().build().map_err(|e| e.to_string())?;
    let answer = client.get(url).send().await.map_err(|e| causes::in_one_line(&e))?;
    let code = answer.status().as_u16();
    Ok(RestAnswer { code, body: answer.json::<Value>().await.map_err(|e| causes::in_one_line(&e))? })
}

async fn ask_sql(data: &MemberData, password: Result<&Secret, &String>) -> Result<SqlAnswer, String> {
    let (host, port) = data.postgres_address().ok_or_else(|| format!("its conn_url '{}' has no host and port", data.conn_url))?;
    let password = password.map_err(Clone::clone)?;
    let started = Instant::now();
    let row = timeout(MEMBER_LIMIT, read(&host, port, password)).await.map_err(|_| format!("no answer within {MEMBER_LIMIT:?}"))??;
    let text = |column: &str| row.try_get(column).ok().flatten();
    Ok(SqlAnswer {
        in_recovery: text("in_recovery") == Some("t"),
        lsn: text("lsn").and_then(|lsn| lsn.parse::<Lsn>().ok()),
        timeline: text("timeline").and_then(|timeline| timeline.parse().ok()).map(Timeline),
        elapsed_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
    })
}

async fn read(host: &str, port: u16, password: &Secret) -> Result<SimpleQueryRow, String> {
    let mut config = tokio_postgres::Config::new();
    config.host(host).port(port).user(ROLE).password(password.expose()).dbname(DATABASE).application_name("spilo probe");
    let (client, connection) = config.connect(NoTls).await.map_err(|e| causes::in_one_line(&e))?;
    // It ends with the client.
    tokio::spawn(connection);
    let answer = client.simple_query(READ).await.map_err(|e| causes::in_one_line(&e))?;
    let row = answer.into_iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    row.ok_or_else(|| "the read returned nothing".to_owned())
}

fn read_secret(path: &Path) -> Result<Secret, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("cannot read the password file '{}': {e}", path.display()))?;
    Ok(Secret::new(text.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_of_which_nothing_answers_is_reported_as_such() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("router.yml");
        // Port 1 is reserved and nothing listens there.
        let text = r#"{"scope": "orders", "etcd3": {"hosts": ["127.0.0.1:1"]}, "router": {"run_dir": "/run/x",
            "listen": {"read_write": "127.0.0.1:1", "read_only": "127.0.0.1:1", "health": "127.0.0.1:1"}}}"#;
        std::fs::write(&path, text).unwrap();
        let report = probe(&path).unwrap();
        assert!(report.dcs_error.is_some_and(|error| error.contains("did not answer")));
        assert_eq!((report.scope.as_str(), report.leader, report.optime, report.members.len()), ("orders", None, None, 0));
    }

    #[test]
    fn a_member_that_does_not_answer_says_why() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let data: MemberData =
            serde_json::from_value(json!({"conn_url": "postgres://127.0.0.1:1/postgres", "api_url": "http://127.0.0.1:1/patroni"}))
                .unwrap();
        let secret = Secret::new("hunter2");
        let report = runtime.block_on(ask(&"a".parse().unwrap(), &data, Ok(&secret)));
        for error in [report.rest_error, report.sql_error] {
            let error = error.expect("an error");
            assert!(error.contains("refused") && !error.contains("hunter2"), "{error}");
        }
        let missing = read_secret(Path::new("/nonexistent/monitor")).unwrap_err();
        let report = runtime.block_on(ask(&"a".parse().unwrap(), &data, Err(&missing)));
        assert!(report.sql_error.is_some_and(|error| error.contains("/nonexistent/monitor")));
    }
}
