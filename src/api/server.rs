//! The HTTP server: one request per connection, each step under a time limit, so that slow or many clients cannot starve the health checks
//! by which a load balancer decides whether this node is alive.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Request, State},
    http::{StatusCode, header},
    middleware,
    response::{IntoResponse, Response},
    routing::{patch, post},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use serde_json::Value;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc, oneshot, watch},
    time::{sleep, timeout},
};

use super::{
    Access, Answer, ApiRequest, Body, HandoverKind, NodeStatus, Outcome,
    access::admit,
    answers::answer,
    backup_status::BackupStatus,
    change::{Change, Changed},
    check_handover, failsafe,
    handover::judge_handover,
    operate,
};
use crate::{dcs::snapshot::Snapshot, sys::clock::Moment};

/// Connections served at the same time; more wait in the kernel's queue.
const CONNECTIONS: usize = 128;
/// A request's head, and then its body, must arrive within this.
const READ_LIMIT: Duration = Duration::from_secs(3);
/// A request and its answer, unless it waits for a new leader.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// A change of the configuration: PostgreSQL's judgement and several trips to the DCS.
const CHANGE_LIMIT: Duration = Duration::from_secs(20);
/// PostgreSQL's answer to one question: peers in a leader race wait for it.
const OBSERVE_LIMIT: Duration = Duration::from_millis(1200);
/// A small file beside the data directory.
const BACKUPS_LIMIT: Duration = Duration::from_millis(500);
/// Largest body: a dynamic configuration is far below.
const LARGEST_BODY: usize = 64 * 1024;
/// Shortest time in which a hand-over should come true.
const SHORTEST_HANDOVER: Duration = Duration::from_secs(10);
/// Patroni's default for `loop_wait`.
const DEFAULT_LOOP_WAIT: u64 = 10;

/// What every request is answered from.
#[derive(Clone)]
pub(super) struct Published {
    pub(super) status: watch::Receiver<Arc<NodeStatus>>,
    pub(super) requests: mpsc::Sender<ApiRequest>,
    /// The data directory beside which a keeper says how the backups are.
    backups_of: Option<Arc<Path>>,
    /// Why that cannot be read, as the log was told last.
    unread: Arc<watch::Sender<Option<String>>>,
}

impl Published {
    /// Tells the log of it, unless that is what it was told last.
    fn backups_unread(&self, why: Option<String>) {
        let news = self.unread.send_if_modified(|told| std::mem::replace(told, why.clone()) != why);
        if let Some(why) = why.filter(|_| news) {
            tracing::warn!("{why}");
        }
    }
}

/// Serves the API until it is dropped. `backups_of`: the data directory, where a keeper sees to its backups.
pub async fn serve(
    listener: TcpListener,
    status: watch::Receiver<Arc<NodeStatus>>,
    requests: mpsc::Sender<ApiRequest>,
    access: watch::Receiver<Access>,
    backups_of: Option<PathBuf>,
) {
    let backups_of = backups_of.map(Arc::from);
    let router = router(Published { status: status.clone(), requests, backups_of, unread: Arc::new(watch::Sender::new(None)) }, access);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (router, limit) = (router.clone(), longest(&status.borrow()));
                tokio::spawn(async move {
                    // A client that does not take its answer must not keep its place for ever.
                    let _ = timeout(limit, one_request(stream, router)).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the REST API cannot accept a connection");
                // Most likely no file descriptor is left: that passes only when other connections end.
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn one_request(stream: TcpStream, router: Router) -> Result<(), hyper::Error> {
    let mut http = hyper::server::conn::http1::Builder::new();
    http.keep_alive(false).max_buf_size(16 * 1024).timer(TokioTimer::new()).header_read_timeout(READ_LIMIT);
    http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)).await
}

fn router(published: Published, access: watch::Receiver<Access>) -> Router {
    Router::new()
        .route("/config", patch(merge_config).put(replace_config).fallback(from_status))
        .route("/restart", post(operate::restart).delete(operate::unschedule).fallback(from_status))
        .route("/reload", post(operate::reload).fallback(from_status))
        .route("/reinitialize", post(operate::reinitialize).fallback(from_status))
        .route("/failsafe", post(failsafe::promise).fallback(from_status))
        .route("/switchover", post(switchover).delete(withdraw).fallback(from_status))
        .route("/failover", post(failover).fallback(from_status))
        .fallback(from_status)
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .layer(middleware::from_fn_with_state(access, admit))
        .with_state(published)
}

async fn from_status(State(published): State<Published>, request: Request) -> Answer {
    let uri = request.uri();
    // Whoever publishes waits for whoever holds the published status.
    let published_status = published.status.borrow().clone();
    let status = match uri.path() {
        "/patroni" => with_backups(&published, observed_now(&published).await).await,
        "/metrics" => with_backups(&published, published_status).await,
        _ => published_status,
    };
    answer(request.method().as_str(), uri.path(), uri.query().unwrap_or_default(), &status, Moment::now())
}

/// The status with what the keeper has written. A disk that hangs hangs no answer.
async fn with_backups(published: &Published, status: Arc<NodeStatus>) -> Arc<NodeStatus> {
    let Some(data_dir) = published.backups_of.clone() else { return status };
    let file = BackupStatus::file(&data_dir);
    let read = tokio::task::spawn_blocking(move || BackupStatus::read(&data_dir));
    match timeout(BACKUPS_LIMIT, read).await {
        Ok(Ok(Ok(Some(backup)))) => {
            published.backups_unread(None);
            Arc::new(NodeStatus { backup: Some(backup), ..status.as_ref().clone() })
        }
        Ok(Ok(Err(error))) => {
            published.backups_unread(Some(format!("'{}', what the keeper says of the backups, cannot be read: {error}", file.display())));
            status
        }
        _ => status,
    }
}

/// The status as of this moment; without positions when PostgreSQL does not answer in time, so that nobody counts old ones.
async fn observed_now(published: &Published) -> Arc<NodeStatus> {
    let (answer, observed) = oneshot::channel();
    let asked = published.requests.try_send(ApiRequest::Observe { answer });
    match timeout(OBSERVE_LIMIT, observed).await {
        Ok(Ok(status)) if asked.is_ok() => status,
        _ => Arc::new(NodeStatus { xlog: None, ..published.status.borrow().as_ref().clone() }),
    }
}

async fn merge_config(State(published): State<Published>, request: Request) -> Answer {
    change_config(published, Change::Merge, request).await
}

async fn replace_config(State(published): State<Published>, request: Request) -> Answer {
    change_config(published, Change::Replace, request).await
}

async fn change_config(published: Published, kind: impl FnOnce(Value) -> Change, request: Request) -> Answer {
    let body = match read_body(request, false).await {
        Ok(body) => body,
        Err(answer) => return answer,
    };
    let (answer, changed) = oneshot::channel();
    let sent = published.requests.send(ApiRequest::Configure { change: kind(body), answer }).await;
    match timeout(CHANGE_LIMIT, changed).await {
        Ok(Ok(changed)) if sent.is_ok() => changed.told(),
        _ => Changed::Unknown("no answer in time".to_owned()).told(),
    }
}

async fn switchover(State(published): State<Published>, request: Request) -> Answer {
    hand_over(published, HandoverKind::Switchover, request).await
}

async fn failover(State(published): State<Published>, request: Request) -> Answer {
    hand_over(published, HandoverKind::Failover, request).await
}

async fn hand_over(published: Published, kind: HandoverKind, request: Request) -> Answer {
    let body = match read_body(request, false).await {
        Ok(body) => body,
        Err(answer) => return answer,
    };
    let status = published.status.borrow().clone();
    if !status.sees_dcs(Moment::now()) {
        return Answer::text(503, "the DCS has not been read recently: try again, or ask another member");
    }
    let (kind, key) = match check_handover(kind, &body, &status, jiff::Timestamp::now().as_millisecond()) {
        Ok(checked) => checked,
        Err((code, text)) => return Answer::text(code, text),
    };
    let (candidate, scheduled) = (key.member.clone(), key.scheduled_at.is_some());
    let (answer, written) = oneshot::channel();
    let sent = published.requests.send(ApiRequest::Handover { key, answer }).await;
    match timeout(ANSWER_LIMIT, written).await {
        Ok(Ok(Ok(()))) if sent.is_ok() => {}
        Ok(Ok(Err(why))) => {
            tracing::warn!(why, "the failover key could not be written");
            return Answer::text(503, "failed to write failover key into DCS");
        }
        _ => return Answer::text(503, "failed to write failover key into DCS"),
    }
    if scheduled {
        return Answer::text(202, "Switchover scheduled");
    }
    let outcome = timeout(handover_limit(&status), new_leader(published.status, &status.cluster)).await.unwrap_or(Outcome::Pending);
    told(kind, &outcome, candidate.as_deref())
}

/// The request's body, a JSON object; none at all where `optional`.
pub(super) async fn read_body(request: Request, optional: bool) -> Result<Value, Answer> {
    use axum::extract::FromRequest;
    let bytes = match timeout(READ_LIMIT, Bytes::from_request(request, &())).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(rejection)) => return Err(Answer::text(rejection.status().as_u16(), rejection.body_text())),
        Err(_) => return Err(Answer::text(408, "the request's body did not arrive in time")),
    };
    if optional && bytes.is_empty() {
        return Ok(Value::Object(serde_json::Map::new()));
    }
    match serde_json::from_slice(&bytes) {
        Ok(body @ Value::Object(_)) => Ok(body),
        _ => Err(Answer::text(400, "the body is not a JSON object")),
    }
}

/// `DELETE /switchover`
async fn withdraw(State(published): State<Published>) -> Answer {
    let cluster = &published.status.borrow().cluster.clone();
    let scheduled = cluster.failover.as_ref().is_some_and(|request| request.scheduled_at.is_some());
    let (true, Some(seen)) = (scheduled, cluster.failover_version) else {
        return Answer::text(404, "no switchover is scheduled");
    };
    let (answer, withdrawn) = oneshot::channel();
    let sent = published.requests.send(ApiRequest::Withdraw { seen, answer }).await;
    match timeout(ANSWER_LIMIT, withdrawn).await {
        Ok(Ok(Ok(true))) if sent.is_ok() => Answer::text(200, "scheduled switchover deleted"),
        Ok(Ok(Ok(false))) => Answer::text(409, "failed to delete scheduled switchover: it was changed meanwhile"),
        _ => Answer::text(503, "failed to write failover key into DCS"),
    }
}

/// Waits until the request has come true or was withdrawn.
async fn new_leader(mut status: watch::Receiver<Arc<NodeStatus>>, before: &Snapshot) -> Outcome {
    let judged = |status: &Arc<NodeStatus>| judge_handover(before, &status.cluster);
    let settled = status.wait_for(|s| judged(s) != Outcome::Pending).await.map(|s| judged(&s));
    settled.unwrap_or(Outcome::Pending)
}

fn told(kind: HandoverKind, outcome: &Outcome, candidate: Option<&str>) -> Answer {
    match outcome {
        Outcome::NewLeader(leader) if candidate.is_none_or(|c| c == leader.as_str()) => {
            Answer::text(200, format!("Successfully {} to \"{leader}\"", kind.done()))
        }
        Outcome::NewLeader(leader) => {
            let mut done = kind.done().to_owned();
            done[..1].make_ascii_uppercase();
            Answer::text(200, format!("{done} to \"{leader}\" instead of \"{}\"", candidate.unwrap_or_default()))
        }
        Outcome::Withdrawn => Answer::text(503, format!("{} failed", kind.title())),
        Outcome::Pending => Answer::text(503, format!("{} status unknown", kind.title())),
    }
}

/// The longest that any request may take.
fn longest(status: &NodeStatus) -> Duration {
    handover_limit(status).max(operate::restart_limit(status, None)) + ANSWER_LIMIT
}

/// How long a hand-over may take before its asker is told that it is not known.
fn handover_limit(status: &NodeStatus) -> Duration {
    2 * SHORTEST_HANDOVER.max(Duration::from_secs(status.setting("loop_wait").unwrap_or(DEFAULT_LOOP_WAIT).min(3600)))
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let code = StatusCode::from_u16(self.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        match self.body {
            Body::Empty => code.into_response(),
            Body::Text(text) => (code, text).into_response(),
            Body::Json(document) => (code, [(header::CONTENT_TYPE, "application/json")], document.to_string()).into_response(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::{
        super::{access::tests::demanding, status::tests::seen_by},
        *,
    };
    use crate::{dcs::snapshot::MemberRole, model::MemberName};

    struct Running {
        address: SocketAddr,
        status: watch::Sender<Arc<NodeStatus>>,
        requests: mpsc::Receiver<ApiRequest>,
        access: watch::Sender<Access>,
    }

    /// A server on loopback whose member sees the DCS and holds a lease for the next minute.
    async fn start() -> Running {
        let mut status = seen_by("orders-1");
        let later = Moment::now() + Duration::from_secs(60);
        (status.dcs_fresh_until, status.leader_until) = (later, Some(later));
        let (status, published) = watch::channel(Arc::new(status));
        let (sender, requests) = mpsc::channel(1);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (access, demanded) = watch::channel(Access::default());
        tokio::spawn(serve(listener, published, sender, demanded, None));
        Running { address, status, requests, access }
    }

    async fn ask(address: SocketAddr, head: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let text = format!("{head} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    fn block<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    #[test]
    fn health_checks_are_answered_over_the_wire() {
        block(async {
            let running = start().await;
            let answer = ask(running.address, "OPTIONS /primary", "").await;
            assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\n"), "{answer}");
            let answer = ask(running.address, "GET /replica?lag=1", "").await;
            assert!(answer.starts_with("HTTP/1.1 503") && answer.contains(r#""role":"primary""#), "{answer}");
            running.status.send_modify(|s| Arc::make_mut(s).leader_until = None);
            assert!(ask(running.address, "OPTIONS /primary", "").await.starts_with("HTTP/1.1 503"));
        });
    }

    #[test]
    fn a_http_client_gets_the_whole_document() {
        block(async {
            let running = start().await;
            let url = format!("http://{}/cluster", running.address);
            let document: Value = reqwest::get(url).await.unwrap().json().await.unwrap();
            assert_eq!(document["members"][2]["name"], "orders-3");
        });
    }

    #[test]
    fn a_switchover_is_answered_when_another_member_takes_writes() {
        block(async {
            let mut running = start().await;
            let address = running.address;
            let asked = tokio::spawn(async move { ask(address, "POST /switchover", r#"{"leader":"orders-1"}"#).await });
            let Some(ApiRequest::Handover { key, answer }) = running.requests.recv().await else { panic!("no request") };
            assert_eq!(key.leader.as_deref(), Some("orders-1"));
            answer.send(Ok(())).unwrap();
            running.status.send_modify(|s| Arc::make_mut(s).cluster.leader = None);
            running.status.send_modify(|s| Arc::make_mut(s).cluster.leader = Some("orders-3".parse().unwrap()));
            running.status.send_modify(|s| {
                let successor = Arc::make_mut(s).cluster.members.get_mut(&"orders-3".parse::<MemberName>().unwrap());
                successor.unwrap().role = MemberRole::Primary;
            });
            let answer = asked.await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with(r#"Successfully switched over to "orders-3""#), "{answer}");
        });
    }

    #[test]
    fn what_changes_something_is_refused_without_the_password_and_reading_is_not() {
        block(async {
            let running = start().await;
            running.access.send_replace(demanding("admin", "hunter2"));
            for path in ["/config", "/restart", "/reload", "/reinitialize", "/failsafe", "/switchover", "/failover", "/sigterm", "/patroni"]
            {
                for method in ["POST", "PUT", "PATCH", "DELETE", "post"] {
                    let answer = ask(running.address, &format!("{method} {path}"), "{}").await;
                    assert!(answer.starts_with("HTTP/1.1 401") && answer.ends_with("no auth header received"), "{method} {path}: {answer}");
                    assert!(answer.contains("www-authenticate: Basic realm=\"Patroni\""), "{answer}");
                }
            }
            for path in ["/primary", "/cluster", "/config"] {
                assert!(ask(running.address, &format!("GET {path}"), "").await.starts_with("HTTP/1.1 200"), "{path}");
            }
            let url = format!("http://{}/switchover", running.address);
            let asked = |password| reqwest::Client::new().post(&url).basic_auth("admin", Some(password)).body("nonsense").send();
            assert_eq!(asked("hunter3").await.unwrap().status(), 401);
            assert_eq!(asked("hunter2").await.unwrap().status(), 400, "let in, and understood as what it is");
        });
    }

    #[test]
    fn a_switchover_that_cannot_be_written_or_read_fails() {
        block(async {
            let mut running = start().await;
            let address = running.address;
            let asked = tokio::spawn(async move { ask(address, "POST /switchover", r#"{"leader":"orders-1"}"#).await });
            let Some(ApiRequest::Handover { answer, .. }) = running.requests.recv().await else { panic!("no request") };
            answer.send(Err("no answer".into())).unwrap();
            assert!(asked.await.unwrap().ends_with("failed to write failover key into DCS"));
            assert!(ask(address, "POST /switchover", "nonsense").await.starts_with("HTTP/1.1 400"));
            assert!(ask(address, "POST /switchover", &" ".repeat(LARGEST_BODY + 1)).await.starts_with("HTTP/1.1 413"));
            running.status.send_modify(|s| Arc::make_mut(s).dcs_seen = None);
            assert!(ask(address, "POST /switchover", r#"{"leader":"orders-1"}"#).await.starts_with("HTTP/1.1 503"));
        });
    }

    #[test]
    fn clients_that_say_nothing_lose_their_place() {
        block(async {
            let running = start().await;
            let mut silent = Vec::new();
            for _ in 0..CONNECTIONS {
                silent.push(TcpStream::connect(running.address).await.unwrap());
            }
            let answer =
                timeout(READ_LIMIT * 2, ask(running.address, "OPTIONS /primary", "")).await.expect("the silent clients starve others");
            assert!(answer.starts_with("HTTP/1.1 200"));
        });
    }
}
