//! What becomes of a request.

use std::{
    collections::BTreeMap,
    sync::Mutex,
    time::{Duration, SystemTime},
};

use axum::{
    body::{Body, to_bytes},
    extract::Query,
};
use base64::Engine;
use bytes::Bytes;
use hyper::{HeaderMap, Method, Request, Response, StatusCode, body::Incoming};
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::{
    Conditions, Fault, Refusal, State, Verb, answer,
    bucket::flipped,
    line::{self, Cut},
    lock,
};

/// The connection ends here.
#[derive(Debug)]
pub struct Hangup;

impl std::fmt::Display for Hangup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("as the test wants it")
    }
}

impl std::error::Error for Hangup {}

/// A request, taken apart.
struct Asked {
    verb: Verb,
    bucket: String,
    key: String,
    query: BTreeMap<String, String>,
    headers: HeaderMap,
    content: Bytes,
}

/// Answers, or ends the connection.
pub async fn handle(state: &Mutex<State>, request: Request<Incoming>) -> Result<Response<Body>, Hangup> {
    let asked = match take_apart(request).await? {
        Ok(asked) => asked,
        Err(refusal) => return Ok(refusal.response(false)),
    };
    let head = asked.verb == Verb::Head;
    let (fault, ahead) = {
        let mut state = lock(state);
        *state.requests.entry(asked.verb).or_default() += 1;
        let fault = state.faults.next(asked.verb, &asked.key);
        (fault, state.ahead)
    };
    let mut response = match &fault {
        Some(Fault::Says(refusal)) => refusal.response(head),
        Some(Fault::Hangup) => return Err(Hangup),
        _ => match answer(state, &asked).await {
            Ok((mut response, content)) => {
                if !head {
                    *response.body_mut() = body(content, fault.as_ref(), response.body_mut());
                }
                response
            }
            Err(refusal) => refusal.response(head),
        },
    };
    match fault {
        Some(Fault::LostAnswer) => return Err(Hangup),
        Some(Fault::Late(late)) => tokio::time::sleep(late).await,
        Some(Fault::Held) => held(state).await,
        Some(Fault::ReplacedAfter(_, content)) => lock(state).bucket.place(&asked.key, content),
        _ => {}
    }
    let date = Timestamp::now() + jiff::SignedDuration::from_secs(ahead);
    response.headers_mut().insert("date", date.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string().parse().expect("it is ASCII"));
    Ok(response)
}

/// Waits until the test lets it go on.
async fn held(state: &Mutex<State>) {
    let number = {
        let mut state = lock(state);
        state.held += 1;
        state.held
    };
    while lock(state).released < number {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// The body that is sent: what belongs there, unless something is wrong with it.
fn body(content: Option<Bytes>, fault: Option<&Fault>, plain: &mut Body) -> Body {
    let Some(content) = content else { return std::mem::take(plain) };
    match fault {
        Some(Fault::CutAfter(bytes) | Fault::ReplacedAfter(bytes, _)) => line::body(content, Some(Cut::Hangup(*bytes))),
        Some(Fault::StallAfter(bytes)) => line::body(content, Some(Cut::Stall(*bytes))),
        Some(Fault::Flip(byte)) => line::body(flipped(&content, *byte), None),
        _ => line::body(content, None),
    }
}

async fn take_apart(request: Request<Incoming>) -> Result<Result<Asked, Refusal>, Hangup> {
    let (parts, body) = request.into_parts();
    let content = to_bytes(Body::new(body), usize::MAX).await.map_err(|_| Hangup)?;
    let path = decoded(parts.uri.path().trim_start_matches('/'));
    let (bucket, key) = path.split_once('/').unwrap_or((&path, ""));
    let Ok(Query(query)) = Query::<BTreeMap<String, String>>::try_from_uri(&parts.uri) else {
        return Ok(Err(Refusal::new(400, "InvalidURI", "Couldn't parse the specified URI.")));
    };
    let verb = match (&parts.method, key.is_empty()) {
        (&Method::PUT, false) => Verb::Put,
        (&Method::GET, false) => Verb::Get,
        (&Method::HEAD, false) => Verb::Head,
        (&Method::DELETE, false) => Verb::Delete,
        (&Method::GET, true) if query.get("list-type").is_some_and(|kind| kind == "2") => Verb::List,
        _ => {
            return Ok(Err(Refusal::new(
                501,
                "NotImplemented",
                "A header or query you provided implies functionality that is not implemented.",
            )));
        }
    };
    let (bucket, key) = (bucket.to_owned(), key.to_owned());
    Ok(Ok(Asked { verb, bucket, key, query, headers: parts.headers, content }))
}

async fn answer(state: &Mutex<State>, asked: &Asked) -> Result<(Response<Body>, Option<Bytes>), Refusal> {
    let racy = {
        let state = lock(state);
        check(&state, asked)?;
        state.bucket.conditions == Conditions::Racy && asked.verb == Verb::Put
    };
    if racy {
        return racy_put(state, asked).await.map(|response| (response, None));
    }
    let mut state = lock(state);
    match asked.verb {
        Verb::Put => put(&mut state, asked).map(|response| (response, None)),
        Verb::Get | Verb::Head => get(&state, asked),
        Verb::List => list(&state, asked).map(|response| (response, None)),
        Verb::Delete => {
            state.bucket.remove(&asked.key);
            Ok((answer::done(StatusCode::NO_CONTENT, None), None))
        }
    }
}

/// Who asks, when, of what, and whether it has arrived as it was sent.
fn check(state: &State, asked: &Asked) -> Result<(), Refusal> {
    let header = |name| asked.headers.get(name).and_then(|value| value.to_str().ok());
    let new_headers = ["x-amz-sdk-checksum-algorithm", "x-amz-trailer", "x-amz-checksum-mode", "content-encoding"];
    if !state.settings.checksums && new_headers.into_iter().any(|name| header(name).is_some()) {
        return Err(Refusal::new(501, "NotImplemented", "A header you provided implies functionality that is not implemented."));
    }
    let signed =
        header("authorization").and_then(|value| value.strip_prefix("AWS4-HMAC-SHA256 Credential=")).ok_or_else(Refusal::access_denied)?;
    let mut scope = signed.split('/');
    let (key, region) = (scope.next().unwrap_or_default(), scope.nth(1).unwrap_or_default());
    match state.keys.get(key) {
        None => return Err(Refusal::invalid_access_key()),
        Some(false) => return Err(Refusal::expired_token()),
        Some(true) => {}
    }
    if region != state.settings.region {
        return Err(Refusal::malformed_authorization(region, &state.settings.region));
    }
    let sent = header("x-amz-date").and_then(|date| jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", date).ok());
    let sent = sent.and_then(|sent| sent.to_zoned(jiff::tz::TimeZone::UTC).ok()).ok_or_else(Refusal::access_denied)?;
    let clock = Timestamp::try_from(SystemTime::now()).expect("it is after 1970").as_second() + state.ahead;
    if (sent.timestamp().as_second() - clock).unsigned_abs() > 15 * 60 {
        return Err(Refusal::too_skewed());
    }
    if asked.bucket != state.settings.bucket {
        return Err(Refusal::no_such_bucket());
    }
    if state.settings.checksums && asked.verb == Verb::Put && header(CRC32C) != Some(&crc32c_of(&asked.content)) {
        return Err(Refusal::new(400, "BadDigest", "The CRC32C you specified did not match the calculated checksum."));
    }
    match header("x-amz-content-sha256") {
        Some("UNSIGNED-PAYLOAD") => Ok(()),
        Some(digest) if digest == hex::encode(Sha256::digest(&asked.content)) => Ok(()),
        _ => Err(Refusal::new(
            400,
            "XAmzContentSHA256Mismatch",
            "The provided 'x-amz-content-sha256' header does not match what was computed.",
        )),
    }
}

fn put(state: &mut State, asked: &Asked) -> Result<Response<Body>, Refusal> {
    let condition = asked.headers.get("if-none-match").is_some_and(|value| value == "*");
    if condition && state.bucket.conditions != Conditions::Ignored && state.bucket.get(&asked.key).is_some() {
        return Err(Refusal::precondition_failed());
    }
    Ok(write(state, asked))
}

async fn racy_put(state: &Mutex<State>, asked: &Asked) -> Result<Response<Body>, Refusal> {
    if asked.headers.contains_key("if-none-match") && lock(state).bucket.get(&asked.key).is_some() {
        return Err(Refusal::precondition_failed());
    }
    tokio::time::sleep(Duration::from_millis(5)).await;
    Ok(write(&mut lock(state), asked))
}

fn write(state: &mut State, asked: &Asked) -> Response<Body> {
    let kept = asked.headers.iter().filter(|(name, _)| name.as_str().starts_with("x-amz-meta-") || *name == "content-type");
    let metadata = kept.map(|(name, value)| (name.clone(), value.clone())).collect();
    let version = state.bucket.write(&asked.key, asked.content.clone(), metadata);
    answer::done(StatusCode::OK, Some(&version))
}

fn get(state: &State, asked: &Asked) -> Result<(Response<Body>, Option<Bytes>), Refusal> {
    let stored = state.bucket.get(&asked.key).ok_or_else(Refusal::no_such_key)?;
    if asked.headers.get("if-match").is_some_and(|version| version != stored.version.as_str()) {
        return Err(Refusal::precondition_failed());
    }
    let range = asked.headers.get("range").and_then(|range| range.to_str().ok());
    let part = range.map(|range| part(range, stored.content.len())).transpose()?;
    let (mut response, content) = answer::object(stored, part);
    if state.settings.checksums && part.is_none() && asked.headers.contains_key("x-amz-checksum-mode") {
        response.headers_mut().insert(CRC32C, crc32c_of(&stored.content).parse().expect("it is ASCII"));
    }
    Ok((response, Some(content)))
}

const CRC32C: &str = "x-amz-checksum-crc32c";

fn crc32c_of(content: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(crc32c::crc32c(content).to_be_bytes())
}

/// `bytes=FROM-LAST`
fn part(range: &str, length: usize) -> Result<(usize, usize), Refusal> {
    let numbers = range.strip_prefix("bytes=").and_then(|range| range.split_once('-'));
    let (from, last) = numbers.ok_or_else(|| Refusal::new(400, "InvalidArgument", "Invalid Range header"))?;
    let end = last.parse::<u64>().map_or(length, |last| usize::try_from(last.saturating_add(1)).unwrap_or(usize::MAX).min(length));
    match from.parse::<usize>() {
        Ok(from) if from < end => Ok((from, end)),
        _ => Err(Refusal::new(416, "InvalidRange", "The requested range is not satisfiable")),
    }
}

fn list(state: &State, asked: &Asked) -> Result<Response<Body>, Refusal> {
    let query = |name| asked.query.get(name).map(String::as_str);
    let prefix = query("prefix").unwrap_or_default();
    let token = query("continuation-token").map(hex::decode).transpose().ok().map(Option::unwrap_or_default);
    let behind = token.and_then(|token| String::from_utf8(token).ok());
    let behind = behind.ok_or_else(|| Refusal::new(400, "InvalidArgument", "The continuation token provided is incorrect"))?;
    let asked_for = query("max-keys").and_then(|length| length.parse().ok()).unwrap_or(usize::MAX);
    let (objects, more) = state.bucket.page(prefix, &behind, state.settings.page.min(asked_for));
    Ok(answer::list(&asked.bucket, prefix, &objects, more))
}

/// Without percent signs.
fn decoded(path: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = path.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let hex = (*first == b'%').then(|| behind.get(..2).and_then(|digits| hex::decode(digits).ok())).flatten();
        (bytes, rest) = match hex {
            Some(byte) => ([bytes, byte].concat(), &behind[2..]),
            None => ([bytes, vec![*first]].concat(), behind),
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
