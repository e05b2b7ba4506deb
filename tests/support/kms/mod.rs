//! A KMS for tests, in this process, that speaks what is asked of AWS KMS (Encrypt and Decrypt, JSON 1.1) and no more. What it wraps it gives back
//! only for the same key and the same encryption context. It checks access keys and regions, but no signatures; a test tells it to misbehave.
#![allow(dead_code, reason = "each test binary uses a part of it")]

#[allow(clippy::duplicate_mod, reason = "test binaries that have no other support have it from here")]
#[path = "../door.rs"]
mod door;
#[allow(clippy::duplicate_mod, clippy::print_stderr, reason = "test binaries that have no other support have it from here")]
#[path = "../ports.rs"]
mod ports;

use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    fs,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::body::{Body, to_bytes};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hyper::{Request, Response, body::Incoming};
use serde_json::{Value, json};

use door::Door;

/// The access key that is good from the beginning. Any secret key does.
pub const KEY: &str = "AKIAKMSDOUBLE";

/// The secret key of the clients, which is never to be seen anywhere.
pub const SECRET: &str = "not-for-anybody-to-see-either";

const REGION: &str = "eu-central-1";
const ACCOUNT: &str = "111122223333";

/// A no, and why.
#[derive(Debug, Clone)]
pub struct Refusal {
    status: u16,
    code: &'static str,
    message: String,
}

/// What was wrapped: by which key, for what, and what it is.
struct Wrapped {
    arn: String,
    context: BTreeMap<String, String>,
    plaintext: String,
}

#[derive(Default)]
struct State {
    /// By ARN; those that are not `true` are disabled.
    keys: BTreeMap<String, bool>,
    aliases: BTreeMap<String, String>,
    wrapped: HashMap<String, Wrapped>,
    /// What is said to requests for that, so many times.
    refusals: Vec<(&'static str, Refusal, u64)>,
    requests: BTreeMap<String, u64>,
    expired: bool,
}

/// The server. It ends when this is dropped.
pub struct KmsDouble {
    door: Door,
    state: Arc<Mutex<State>>,
    files: tempfile::TempDir,
}

impl Refusal {
    pub fn new(status: u16, code: &'static str, message: &str) -> Refusal {
        Refusal { status, code, message: message.to_owned() }
    }

    pub fn denied() -> Refusal {
        let message = "User: arn:aws:iam::111122223333:user/ann is not authorized to perform this action on this resource.";
        Refusal::new(400, "AccessDeniedException", message)
    }

    pub fn throttled() -> Refusal {
        Refusal::new(400, "ThrottlingException", "You have exceeded the rate at which you may call KMS.")
    }

    pub fn broken() -> Refusal {
        Refusal::new(500, "KMSInternalException", "The request was rejected because an internal exception occurred.")
    }

    pub fn pending_deletion(arn: &str) -> Refusal {
        Refusal::new(400, "KMSInvalidStateException", &format!("{arn} is pending deletion."))
    }

    fn response(&self) -> Response<Body> {
        let text = json!({ "__type": self.code, "message": self.message }).to_string();
        let response = Response::builder().status(self.status).header("content-type", "application/x-amz-json-1.1");
        response.body(text.into()).expect("its parts are fine")
    }
}

impl KmsDouble {
    /// A KMS without keys.
    pub fn start() -> KmsDouble {
        let state: Arc<Mutex<State>> = Arc::default();
        let address = ports::free_address();
        let door = Door::at(address, {
            let state = state.clone();
            move |request| {
                let state = state.clone();
                async move { handle(&state, request).await }
            }
        });
        let files = tempfile::tempdir().expect("a directory of our own");
        let text = format!("[default]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n");
        fs::write(files.path().join("credentials"), text).expect("a directory of our own");
        KmsDouble { door, state, files }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.door.address())
    }

    /// The file with the credentials that clients use.
    pub fn credentials_file(&self) -> PathBuf {
        self.files.path().join("credentials")
    }

    /// Makes a key; returns its ARN.
    pub fn new_key(&self, id: &str) -> String {
        let arn = format!("arn:aws:kms:{REGION}:{ACCOUNT}:key/{id}");
        self.state().keys.insert(arn.clone(), true);
        arn
    }

    /// Makes a name for a key; returns its ARN.
    pub fn new_alias(&self, name: &str, key: &str) -> String {
        let arn = format!("arn:aws:kms:{REGION}:{ACCOUNT}:alias/{name}");
        self.state().aliases.insert(arn.clone(), key.to_owned());
        arn
    }

    pub fn disable(&self, arn: &str) {
        self.state().keys.insert(arn.to_owned(), false);
    }

    /// Says no to so many requests for that (`Encrypt`, `Decrypt`).
    pub fn refuse(&self, action: &'static str, refusal: Refusal, times: u64) {
        self.state().refusals.push((action, refusal, times));
    }

    /// Says yes again.
    pub fn behave(&self) {
        let mut state = self.state();
        state.refusals.clear();
        state.expired = false;
    }

    /// The credentials of clients have expired.
    pub fn expire(&self) {
        self.state().expired = true;
    }

    /// How many requests for that have come.
    pub fn requests(&self, action: &str) -> u64 {
        self.state().requests.get(action).copied().unwrap_or_default()
    }

    /// Every secret that was ever given to it, to look for where it must not be.
    pub fn secrets(&self) -> Vec<Vec<u8>> {
        self.state().wrapped.values().map(|wrapped| STANDARD.decode(&wrapped.plaintext).expect("it was checked")).collect()
    }

    /// No connection is taken, and there is none any more.
    pub fn close(&self) {
        self.door.close();
    }

    /// Connections are taken again.
    pub fn open(&self) {
        self.door.open();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn handle(state: &Mutex<State>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = to_bytes(Body::new(body), 1 << 20).await.unwrap_or_default();
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let answered = answer(&mut lock(state), &header("x-amz-target"), &header("content-type"), &header("authorization"), &body);
    Ok(match answered {
        Ok(answer) => {
            let response = Response::builder().header("content-type", "application/x-amz-json-1.1");
            response.body(answer.to_string().into()).expect("its parts are fine")
        }
        Err(refusal) => refusal.response(),
    })
}

fn answer(state: &mut State, target: &str, form: &str, authorization: &str, body: &[u8]) -> Result<Value, Refusal> {
    let invalid = |message: &str| Refusal::new(400, "ValidationException", message);
    let Some(action @ ("Encrypt" | "Decrypt")) = target.strip_prefix("TrentService.") else {
        return Err(Refusal::new(400, "UnknownOperationException", ""));
    };
    *state.requests.entry(action.to_owned()).or_default() += 1;
    let refused = state.refusals.iter_mut().find(|(wanted, _, times)| *wanted == action && *times > 0);
    if let Some((_, refusal, times)) = refused {
        *times -= 1;
        return Err(refusal.clone());
    }
    if form != "application/x-amz-json-1.1" {
        return Err(Refusal::new(400, "SerializationException", "Unexpected content type"));
    }
    if !authorization.starts_with(&format!("AWS4-HMAC-SHA256 Credential={KEY}/")) {
        return Err(Refusal::new(400, "UnrecognizedClientException", "The security token included in the request is invalid."));
    }
    if !authorization.contains(&format!("/{REGION}/kms/aws4_request")) {
        return Err(Refusal::new(400, "InvalidSignatureException", "Credential should be scoped to a valid region."));
    }
    if state.expired {
        return Err(Refusal::new(400, "ExpiredTokenException", "The security token included in the request is expired"));
    }
    let asked: Value = serde_json::from_slice(body).map_err(|_| Refusal::new(400, "SerializationException", ""))?;
    let text = |name: &str| asked[name].as_str().map(str::to_owned);
    let named = text("KeyId").ok_or_else(|| invalid("KeyId is missing"))?;
    let arn = state.aliases.get(&named).unwrap_or(&named).clone();
    match state.keys.get(&arn) {
        None => return Err(Refusal::new(400, "NotFoundException", &format!("Key '{arn}' does not exist"))),
        Some(false) => return Err(Refusal::new(400, "DisabledException", &format!("{arn} is disabled."))),
        Some(true) => {}
    }
    let context = asked["EncryptionContext"].as_object().into_iter().flatten();
    let context = context.map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()));
    let context: BTreeMap<String, String> = context.collect();
    // Stricter than AWS may be: it does not say whether it takes them.
    if context.values().any(String::is_empty) {
        return Err(invalid("EncryptionContext has an empty value"));
    }
    if action == "Encrypt" {
        let plaintext = text("Plaintext").filter(|text| STANDARD.decode(text).is_ok_and(|bytes| (1..=4096).contains(&bytes.len())));
        let plaintext = plaintext.ok_or_else(|| invalid("Plaintext has 1 to 4096 bytes"))?;
        let blob = STANDARD.encode((0..152).map(|_| fastrand::u8(..)).collect::<Vec<u8>>());
        state.wrapped.insert(blob.clone(), Wrapped { arn: arn.clone(), context, plaintext });
        return Ok(json!({ "CiphertextBlob": blob, "KeyId": arn, "EncryptionAlgorithm": "SYMMETRIC_DEFAULT" }));
    }
    let not_so = || Refusal::new(400, "InvalidCiphertextException", "");
    let wrapped = text("CiphertextBlob").and_then(|blob| state.wrapped.get(&blob)).ok_or_else(not_so)?;
    if wrapped.arn != arn {
        return Err(Refusal::new(
            400,
            "IncorrectKeyException",
            "The key ID in the request does not identify a CMK that can perform this operation.",
        ));
    }
    if wrapped.context != context {
        return Err(not_so());
    }
    Ok(json!({ "Plaintext": wrapped.plaintext, "KeyId": arn, "EncryptionAlgorithm": "SYMMETRIC_DEFAULT" }))
}
