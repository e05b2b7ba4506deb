//! An S3 server for tests, in this process: an honest one, whose conditional writes have one winner, until a test tells it to misbehave. It
//! speaks what a store needs (PutObject, GetObject, HeadObject, ListObjectsV2, DeleteObject; path style) and no more, and is strict like an
//! old server of somebody else's: what it does not know it refuses. It checks access keys, regions, clocks and digests, but no signatures.
#![allow(dead_code, reason = "each test binary uses a part of it")]

mod answer;
mod bucket;
#[allow(clippy::duplicate_mod, reason = "test binaries that have no other support have it from here")]
#[path = "../door.rs"]
mod door;
mod fault;
mod handler;
mod line;
#[allow(clippy::duplicate_mod, reason = "test binaries that have no other support have it from here")]
#[path = "../ports.rs"]
mod ports;

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use spilo::storage::StoreConfig;

pub use answer::Refusal;
pub use bucket::Conditions;
pub use fault::{Fault, Rule};

use bucket::Bucket;
use door::Door;
use fault::Faults;

/// What is asked of S3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    Put,
    Get,
    Head,
    List,
    Delete,
}

/// How the server is set up.
#[derive(Debug, Clone)]
pub struct Settings {
    pub bucket: String,
    pub region: String,
    pub conditions: Conditions,
    /// It knows the checksums that newer SDKs send, and wants one with each write, as Amazon does. It chokes on them otherwise.
    pub checksums: bool,
    /// How many objects a page of a list has.
    pub page: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            bucket: "backups".to_owned(),
            region: "us-east-1".to_owned(),
            conditions: Conditions::Honoured,
            checksums: false,
            page: 1000,
        }
    }
}

/// The access key that is good from the beginning. Any secret key does.
pub const KEY: &str = "AKIADOUBLE";

/// The secret key of the clients, which is never to be seen anywhere.
pub const SECRET: &str = "not-for-anybody-to-see";

/// What the server knows.
struct State {
    settings: Settings,
    bucket: Bucket,
    /// Another one, that comes back later.
    aside: Option<Bucket>,
    faults: Faults,
    requests: BTreeMap<Verb, u64>,
    /// How many answers were held so far, and how many of them may go.
    held: u64,
    released: u64,
    /// Access keys; those that are not `true` have expired.
    keys: BTreeMap<String, bool>,
    /// How many seconds the server's clock is ahead.
    ahead: i64,
}

/// All that was in the bucket at a moment.
pub struct Snapshot(Bucket);

/// The server. It ends when this is dropped.
pub struct S3Double {
    door: Door,
    state: Arc<Mutex<State>>,
    files: tempfile::TempDir,
}

impl S3Double {
    /// A server with an empty bucket 'backups'.
    pub fn start() -> S3Double {
        S3Double::start_with(Settings::default())
    }

    pub fn start_with(settings: Settings) -> S3Double {
        S3Double::start_on(Ipv4Addr::LOCALHOST, settings)
    }

    /// A server that containers reach too, at an address of this machine's that only they and this machine have a way to.
    pub fn start_on(host: Ipv4Addr, settings: Settings) -> S3Double {
        // Not the kernel's choice: while the double is closed, a connection that leaves could take the port.
        let address = SocketAddr::from((host, ports::free_ports(1)));
        let state = State {
            bucket: Bucket::new(settings.conditions),
            aside: None,
            settings,
            faults: Faults::default(),
            requests: BTreeMap::new(),
            held: 0,
            released: 0,
            keys: BTreeMap::from([(KEY.to_owned(), true)]),
            ahead: 0,
        };
        let state = Arc::new(Mutex::new(state));
        let door = Door::at(address, {
            let state = state.clone();
            move |request| {
                let state = state.clone();
                async move { handler::handle(&state, request).await }
            }
        });
        let double = S3Double { door, state, files: tempfile::tempdir().expect("a directory of our own") };
        double.use_key(KEY);
        double
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.door.address())
    }

    /// The file with the credentials that clients use.
    pub fn credentials_file(&self) -> PathBuf {
        self.files.path().join("credentials")
    }

    /// Clients use this access key from now on.
    pub fn use_key(&self, key: &str) {
        let text = format!("[default]\naws_access_key_id = {key}\naws_secret_access_key = {SECRET}\naws_session_token = {SECRET}\n");
        let new = self.files.path().join("credentials.new");
        fs::write(&new, text).and_then(|()| fs::rename(&new, self.credentials_file())).expect("a directory of our own");
    }

    /// The server knows this access key.
    pub fn know_key(&self, key: &str) {
        self.state().keys.insert(key.to_owned(), true);
    }

    /// The server has never heard of this access key, as after it was removed there.
    pub fn forget_key(&self, key: &str) {
        self.state().keys.remove(key);
    }

    /// The server takes this access key no more.
    pub fn expire_key(&self, key: &str) {
        self.state().keys.insert(key.to_owned(), false);
    }

    /// A store below this prefix of the bucket.
    pub fn config(&self, prefix: &str) -> StoreConfig {
        let url = format!("s3://{}/{prefix}", self.state().settings.bucket);
        StoreConfig {
            endpoint: Some(self.endpoint()),
            credentials_file: Some(self.credentials_file()),
            ..StoreConfig::new(url.parse().expect("it is a location"))
        }
    }

    /// The server does that from now on, as often as the rule says.
    pub fn misbehave(&self, rule: Rule) {
        self.state().faults.rules.push(rule);
    }

    /// The server misbehaves in this share of all requests, each time in another way.
    pub fn chaos(&self, share: f64, seed: u64) {
        self.state().faults.chaos(share, seed);
    }

    /// How often the server would still misbehave by rules that end.
    pub fn unspent(&self) -> u64 {
        self.state().faults.unspent()
    }

    /// The server is honest again.
    pub fn behave(&self) {
        self.state().faults = Faults::default();
    }

    /// The server's clock is so many seconds ahead.
    pub fn set_clock(&self, ahead: i64) {
        self.state().ahead = ahead;
    }

    /// No connection is taken, and there is none any more.
    pub fn close(&self) {
        self.door.close();
    }

    /// Connections are taken again.
    pub fn open(&self) {
        self.door.open();
    }

    /// Connections are taken and nobody is answered, as when the server's process is stopped, until what is returned is gone; what came
    /// meanwhile is done then. Nothing else is to be asked of this until then.
    pub fn freeze(&self) -> impl Drop {
        self.state()
    }

    /// How many requests of this verb have come.
    pub fn requests(&self, verb: Verb) -> u64 {
        self.state().requests.get(&verb).copied().unwrap_or_default()
    }

    /// How many requests have come, of any verb.
    pub fn all_requests(&self) -> u64 {
        self.state().requests.values().sum()
    }

    /// The names of all objects, with the prefix.
    pub fn names(&self) -> Vec<String> {
        self.state().bucket.names()
    }

    /// What is kept under that name.
    pub fn content(&self, key: &str) -> Option<Vec<u8>> {
        self.state().bucket.content(key)
    }

    /// Puts something there, as if another client had.
    pub fn place(&self, key: &str, content: &[u8]) {
        self.state().bucket.place(key, content);
    }

    /// The bucket is another one, in which there is nothing.
    pub fn exchange(&self) {
        let mut state = self.state();
        state.bucket = Bucket::new(state.settings.conditions);
    }

    /// The same, and what was there may come back.
    pub fn keep_aside(&self) {
        let mut state = self.state();
        let empty = Bucket::new(state.settings.conditions);
        state.aside = Some(std::mem::replace(&mut state.bucket, empty));
    }

    /// The bucket is again the one that was kept aside.
    pub fn bring_back(&self) {
        let mut state = self.state();
        state.bucket = state.aside.take().expect("one was kept aside");
    }

    /// All that is in the bucket now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot(self.state().bucket.clone())
    }

    /// The bucket is again what it was then.
    pub fn put_back(&self, snapshot: &Snapshot) {
        self.state().bucket = snapshot.0.clone();
    }

    /// Every object whose name has this in it was written so much earlier.
    pub fn age(&self, part: &str, by: jiff::SignedDuration) {
        self.state().bucket.age(part, by);
    }

    /// How many answers were held so far.
    pub fn held(&self) -> u64 {
        self.state().held
    }

    /// Gives the answers that are held.
    pub fn release(&self) {
        let mut state = self.state();
        state.released = state.held;
    }

    /// Changes one bit of what is kept under that name.
    pub fn rot(&self, key: &str, byte: usize) {
        self.state().bucket.rot(key, byte);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
