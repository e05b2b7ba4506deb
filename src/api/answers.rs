//! Method and path → status code and body, from the published status alone. Pure.

use serde_json::{Value, json};

use super::{
    NodeStatus,
    documents::{cluster, node},
    failsafe,
    health::{Query, holds, is_alive, is_ready},
    metrics::metrics,
};
use crate::sys::clock::Moment;

/// An answer of the API.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// HTTP status code.
    pub code: u16,
    /// What follows the head.
    pub body: Body,
}

/// The body of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// Nothing.
    Empty,
    /// Plain text.
    Text(String),
    /// A JSON document.
    Json(Value),
}

impl Answer {
    /// An answer with a sentence.
    pub fn text(code: u16, text: impl Into<String>) -> Answer {
        Answer { code, body: Body::Text(text.into()) }
    }

    /// An answer with a document.
    pub fn json(code: u16, document: Value) -> Answer {
        Answer { code, body: Body::Json(document) }
    }

    pub(super) fn bare(code: u16) -> Answer {
        Answer { code, body: Body::Empty }
    }
}

/// The answer to everything that only asks. `query` is the part after the question mark.
pub fn answer(method: &str, path: &str, query: &str, status: &NodeStatus, now: Moment) -> Answer {
    let query = split_query(query);
    match method {
        "HEAD" | "OPTIONS" => Answer::bare(code_of(holds(path, &query, status, now))),
        "GET" => get(path, &query, status, now),
        _ => Answer::text(501, format!("{method} {path} is not supported yet")),
    }
}

fn get(path: &str, query: &Query<'_>, status: &NodeStatus, now: Moment) -> Answer {
    match path.trim_start_matches('/').split('/').next().unwrap_or_default() {
        "patroni" => Answer::json(200, node(status, now)),
        "cluster" => Answer::json(200, cluster(status)),
        "history" => Answer::json(200, json!(status.cluster.history)),
        "config" => match &status.cluster.config {
            Some(config) => Answer::json(200, config.clone()),
            None => Answer::bare(502),
        },
        "failsafe" => failsafe::members(status),
        "metrics" => Answer::text(200, metrics(status, now)),
        "liveness" => Answer::bare(code_of(is_alive(status, now))),
        "readiness" => Answer::bare(code_of(is_ready(query, status, now))),
        _ => Answer::json(code_of(holds(path, query, status, now)), node(status, now)),
    }
}

fn code_of(good: bool) -> u16 {
    if good { 200 } else { 503 }
}

/// Splits `a=b&c=d`; a pair without a value is left out.
fn split_query(query: &str) -> Vec<(&str, String)> {
    query.split('&').filter_map(|pair| pair.split_once('=')).map(|(key, value)| (key, decoded(value))).collect()
}

/// Undoes percent-encoding; what is not a valid escape stays as it is.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let escape = tail.get(..2).filter(|_| first == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        match escape.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(if first == b'+' { b' ' } else { first });
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::{super::status::tests::seen_by, *};

    fn ask(method: &str, path: &str) -> Answer {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        answer(method, path, query, &seen_by("orders-2"), Moment(1000))
    }

    #[test]
    fn health_checks_answer_with_the_document_or_with_the_code_alone() {
        let got = ask("GET", "/replica");
        assert!(matches!(&got.body, Body::Json(doc) if got.code == 200 && doc["role"] == "replica"));
        let got = ask("GET", "/primary");
        assert!(matches!(&got.body, Body::Json(_) if got.code == 503));
        for method in ["HEAD", "OPTIONS"] {
            assert_eq!(ask(method, "/replica"), Answer::bare(200));
            assert_eq!(ask(method, "/primary"), Answer::bare(503));
            // Not a health check by this name, as in Patroni.
            assert_eq!(ask(method, "/liveness"), Answer::bare(503));
        }
    }

    #[test]
    fn documents_are_served_by_their_first_segment() {
        for (path, code) in [
            ("/patroni", 200),
            ("/patroni/x", 200),
            ("/cluster", 200),
            ("/history", 200),
            ("/config", 200),
            ("/failsafe", 502),
            ("/metrics", 200),
        ] {
            assert_eq!(ask("GET", path).code, code, "{path}");
        }
        assert_eq!(ask("GET", "/liveness"), Answer::bare(200));
        assert_eq!(ask("GET", "/readiness"), Answer::bare(200));
        assert_eq!(ask("GET", "/history").body, Body::Json(json!([])));
    }

    #[test]
    fn a_missing_configuration_is_not_an_empty_one() {
        let mut status = seen_by("orders-1");
        status.cluster.config = None;
        assert_eq!(answer("GET", "/config", "", &status, Moment(1000)), Answer::bare(502));
    }

    #[test]
    fn what_is_not_there_yet_says_so() {
        for (method, path) in [("POST", "/sigterm"), ("DELETE", "/failover")] {
            let got = ask(method, path);
            assert!(matches!(&got.body, Body::Text(text) if got.code == 501 && text.contains(path)), "{got:?}");
        }
    }

    #[test]
    fn queries_are_decoded() {
        assert_eq!(split_query("a=1%20b&c&d=%zz+"), [("a", "1 b".to_owned()), ("d", "%zz ".to_owned())]);
    }
}
