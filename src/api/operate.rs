//! Requests of operators that the agent's loop carries out: restart, reload, reinitialize.

use std::{sync::Arc, time::Duration};

use axum::extract::{Request as HttpRequest, State};
use serde_json::{Map, Value};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{
    Answer, ApiRequest, NodeStatus,
    request::{Request, parse_reinitialize, parse_restart},
    server::{ANSWER_LIMIT, Published, read_body},
};

/// A clean stop may take a minute, and so may the checkpoint before it.
const STOP: Duration = Duration::from_secs(150);
/// Patroni's default for `primary_start_timeout`.
const DEFAULT_START: u64 = 300;
/// Nobody waits longer than this for a start.
const LONGEST_START: u64 = 3600;

/// `POST /restart`
pub(super) async fn restart(State(published): State<Published>, request: HttpRequest) -> Answer {
    let (status, body) = match with_body(&published, request).await {
        Ok(read) => read,
        Err(answer) => return answer,
    };
    let (restart, at) = match parse_restart(&body, jiff::Timestamp::now().as_millisecond()) {
        Ok(parsed) => parsed,
        Err((code, text)) => return Answer::text(code, text),
    };
    match at {
        Some(_) if status.pause => Answer::text(500, "Can't schedule restart in the paused state"),
        Some(at) => {
            let body = body.into_iter().filter(|(_, value)| !value.is_null()).collect();
            ask(&published.requests, ANSWER_LIMIT, |answer| ApiRequest::Schedule { at, restart, body, answer }).await
        }
        None => {
            let limit = restart_limit(&status, restart.timeout);
            ask(&published.requests, limit, |answer| ApiRequest::Ask { request: Request::Restart(restart), answer }).await
        }
    }
}

/// `DELETE /restart`
pub(super) async fn unschedule(State(published): State<Published>) -> Answer {
    ask(&published.requests, ANSWER_LIMIT, |answer| ApiRequest::Unschedule { answer }).await
}

/// `POST /reinitialize`
pub(super) async fn reinitialize(State(published): State<Published>, request: HttpRequest) -> Answer {
    let (_, body) = match with_body(&published, request).await {
        Ok(read) => read,
        Err(answer) => return answer,
    };
    match parse_reinitialize(&body) {
        Ok(request) => ask(&published.requests, ANSWER_LIMIT, |answer| ApiRequest::Ask { request, answer }).await,
        Err((code, text)) => Answer::text(code, text),
    }
}

/// `POST /reload`
pub(super) async fn reload(State(published): State<Published>) -> Answer {
    match published.requests.send(ApiRequest::Reload).await {
        Ok(()) => Answer::text(202, "reload scheduled"),
        Err(_) => Answer::text(503, ENDING),
    }
}

const ENDING: &str = "this agent is about to end";

async fn with_body(published: &Published, request: HttpRequest) -> Result<(Arc<NodeStatus>, Map<String, Value>), Answer> {
    let body = read_body(request, true).await?;
    let status = published.status.borrow().clone();
    Ok((status, body.as_object().cloned().unwrap_or_default()))
}

async fn ask(
    requests: &mpsc::Sender<ApiRequest>,
    limit: Duration,
    request: impl FnOnce(oneshot::Sender<(u16, String)>) -> ApiRequest,
) -> Answer {
    let (answer, told) = oneshot::channel();
    if requests.send(request(answer)).await.is_err() {
        return Answer::text(503, ENDING);
    }
    match timeout(limit, told).await {
        Ok(Ok((code, text))) => Answer::text(code, text),
        Ok(Err(_)) => Answer::text(503, ENDING),
        Err(_) => Answer::text(503, "no outcome yet: it goes on, look at GET /patroni"),
    }
}

/// How long whoever asks for a restart may have to wait for its outcome.
pub(super) fn restart_limit(status: &NodeStatus, timeout: Option<Duration>) -> Duration {
    let start = timeout.map_or_else(|| status.setting("primary_start_timeout").unwrap_or(DEFAULT_START), |t| t.as_secs());
    STOP + Duration::from_secs(start.min(LONGEST_START))
}
