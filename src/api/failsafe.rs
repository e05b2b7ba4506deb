//! `POST /failsafe`: a leader that the DCS does not answer asks this member not to lead, nor to help anybody else to, for a while. Patroni's
//! request and answer, to which ours add for how long.

use std::time::Duration;

use axum::{
    extract::{Request, State},
    http::{HeaderName, StatusCode},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};
use tokio::{sync::oneshot, time::timeout};

use super::{
    Answer, ApiRequest, NodeStatus, Xlog,
    server::{Published, read_body},
};
use crate::model::MemberName;

/// Longest wait for a promise; whoever asked has given up long before.
const LIMIT: Duration = Duration::from_secs(10);

/// For how long Patroni's members promise, where the request does not say: their default `ttl`.
const DEFAULT_TTL: u64 = 30;

/// Says in an answer for how many seconds the promise was given. Patroni's members do not send it: they forget when they are started again.
pub const PROMISED: HeaderName = HeaderName::from_static("promised-ttl");

/// What Patroni answers, and nothing else counts.
pub const ACCEPTED: &str = "Accepted";

/// What a leader asks of every member that might lead in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromiseRequest {
    /// The leader.
    pub leader: MemberName,
    /// Its PostgreSQL, as in its member key.
    pub conn_url: String,
    /// Its REST API, as in its member key.
    pub api_url: String,
    /// For how long.
    pub ttl: Duration,
}

impl PromiseRequest {
    /// As it is sent.
    pub fn to_json(&self) -> Value {
        json!({"name": self.leader, "conn_url": self.conn_url, "api_url": self.api_url, "ttl": self.ttl.as_secs()})
    }

    /// Reads one; the error is a sentence.
    pub fn from_json(body: &Value, status: &NodeStatus) -> Result<PromiseRequest, String> {
        let text = |key: &str| body[key].as_str().map(str::to_owned);
        let name = text("name").ok_or("'name' is missing: who leads?")?;
        let leader = name.parse().map_err(|e| format!("'name' is '{name}': {e}"))?;
        let ttl = match &body["ttl"] {
            Value::Null => status.setting("ttl").unwrap_or(DEFAULT_TTL),
            ttl => ttl.as_u64().ok_or_else(|| format!("'ttl' is {ttl}, a whole number of seconds is needed"))?,
        };
        let (conn_url, api_url) = (text("conn_url").unwrap_or_default(), text("api_url").unwrap_or_default());
        Ok(PromiseRequest { leader, conn_url, api_url, ttl: Duration::from_secs(ttl) })
    }
}

/// Where a member that publishes this `api_url` takes such requests.
pub fn url(api_url: &str) -> String {
    format!("{}/failsafe", api_url.trim_end_matches('/').trim_end_matches("/patroni"))
}

/// The members whose promises a leader needs, for `GET /failsafe`.
pub(super) fn members(status: &NodeStatus) -> Answer {
    match &status.cluster.failsafe {
        Some(members) => Answer::json(200, Value::Object(members.iter().map(|(k, v)| (k.clone(), json!(v))).collect::<Map<_, _>>())),
        None => Answer::bare(502),
    }
}

pub(super) async fn promise(State(published): State<Published>, request: Request) -> Response {
    let body = match read_body(request, false).await {
        Ok(body) => body,
        Err(answer) => return answer.into_response(),
    };
    let status = published.status.borrow().clone();
    let request = match PromiseRequest::from_json(&body, &status) {
        Ok(request) => request,
        Err(mistake) => return Answer::text(400, mistake).into_response(),
    };
    let ttl = request.ttl.as_secs();
    let (answer, promised) = oneshot::channel();
    let sent = published.requests.send(ApiRequest::Promise { request, answer }).await;
    match timeout(LIMIT, promised).await {
        Ok(Ok(Ok(()))) if sent.is_ok() => {
            let headers = [(HeaderName::from_static("lsn"), position(&status).to_string()), (PROMISED, ttl.to_string())];
            (StatusCode::OK, headers, ACCEPTED).into_response()
        }
        // Patroni's code for whoever leads itself, and for everything else that is no promise.
        Ok(Ok(Err(why))) => Answer::text(500, why).into_response(),
        _ => Answer::text(503, "no answer in time: nothing is promised").into_response(),
    }
}

/// How far this member has received the WAL; Patroni's leaders read it.
fn position(status: &NodeStatus) -> u64 {
    match &status.xlog {
        Some(Xlog::Standby { received, replayed, .. }) => received.0.max(replayed.0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::status::tests::seen_by, *};

    #[test]
    fn a_request_is_read_as_it_was_sent() {
        let (conn_url, api_url) = ("postgres://h:5432/postgres".to_owned(), "http://h:8008/patroni".to_owned());
        let request = PromiseRequest { leader: "orders-1".parse().unwrap(), conn_url, api_url, ttl: Duration::from_secs(5) };
        assert_eq!(PromiseRequest::from_json(&request.to_json(), &seen_by("orders-2")), Ok(request));
    }

    #[test]
    fn patronis_request_does_not_say_for_how_long() {
        let request = PromiseRequest::from_json(&json!({"name": "x", "conn_url": "c", "api_url": "a", "slots": {}}), &seen_by("orders-2"));
        assert_eq!(request.unwrap().ttl, Duration::from_secs(10), "the cluster's ttl");
    }

    #[test]
    fn a_mistake_is_named() {
        let mistake = |body| PromiseRequest::from_json(&body, &seen_by("orders-2")).unwrap_err();
        assert!(mistake(json!({})).contains("'name'"));
        assert!(mistake(json!({"name": "x", "ttl": -1})).contains("'ttl' is -1"));
        assert!(mistake(json!({"name": "a/b"})).contains("'a/b'"));
    }

    #[test]
    fn the_path_stands_beside_patronis() {
        assert_eq!(url("http://h:8008/patroni"), "http://h:8008/failsafe");
        assert_eq!(url("https://h:8008/"), "https://h:8008/failsafe");
    }
}
