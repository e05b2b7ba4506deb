//! The store: linearizable keys with versions and leases, as etcd has them. What makes it bad is how it is reached.

use std::{collections::BTreeMap, rc::Rc, time::Duration};

use spilo::{
    dcs::snapshot::{FailoverKey, HistoryEntry, Initialize, MemberData, Snapshot, StatusKey, SyncState, TermKey, TimelineKey},
    model::MemberName,
};

use crate::world::{Clock, Id, MILLI, Nanos, SECOND, World};

/// The keys of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Initialize,
    Config,
    Leader,
    Status,
    Sync,
    Term,
    Timeline,
    Failsafe,
    Failover,
    History,
    Member(MemberName),
}

/// Their values, already read.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Text(String),
    Config(Rc<serde_json::Value>),
    Status(StatusKey),
    Sync(SyncState),
    Term(TermKey),
    Timeline(TimelineKey),
    Failsafe(BTreeMap<String, String>),
    Failover(FailoverKey),
    History(Vec<HistoryEntry>),
    Member(Box<MemberData>),
}

/// A key's value, its versions, and the lease it lives by (0: none).
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub value: Value,
    pub created: i64,
    pub modified: i64,
    pub lease: i64,
}

/// A condition of a transaction.
#[derive(Debug, Clone)]
pub enum Compare {
    Value(Key, Value),
    Lease(Key, i64),
    Created(Key, i64),
    Modified(Key, i64),
}

/// A step of a transaction.
#[derive(Debug, Clone)]
pub enum Step {
    Put(Key, Value, i64),
    Get(Key),
    Delete(Key),
    Txn(Box<Txn>),
}

/// All or nothing.
#[derive(Debug, Clone, Default)]
pub struct Txn {
    pub when: Vec<Compare>,
    pub then: Vec<Step>,
    pub otherwise: Vec<Step>,
}

/// What a client asks.
#[derive(Debug, Clone)]
pub enum Request {
    Range,
    Txn(Txn),
    Grant(Duration),
    KeepAlive(i64),
}

/// What it is told.
#[derive(Debug, Clone)]
pub enum Reply {
    Snapshot(Rc<Snapshot>),
    Txn { succeeded: bool, first: Option<Entry> },
    Granted(i64),
    Alive,
    NoSuchLease,
}

struct Lease {
    ttl: Nanos,
    ends: Nanos,
}

/// The store.
pub struct Store {
    entries: BTreeMap<Key, Entry>,
    leases: BTreeMap<i64, Lease>,
    revision: i64,
    next_lease: i64,
    clock: Clock,
    read: Option<Rc<Snapshot>>,
    /// What was last written of the voters, whatever became of it.
    last_sync: SyncState,
    /// The configuration that was last written, the same.
    last_config: Option<serde_json::Value>,
    /// Who held the leader key when everything was lost, and until when that was promised.
    cut_short: Option<(String, Nanos)>,
    /// It does not answer at all.
    pub down: u32,
    /// Requests wait this long before they are worked on.
    pub slow_before: Nanos,
    /// Answers wait this long before they leave.
    pub slow_after: Nanos,
    /// One request, and one answer, in so many is lost.
    pub loss: u32,
    /// Watchers hear of a change this much later.
    pub watch_lag: Nanos,
    /// Members who have missed an event and hear of it when they reach the store again.
    missed: Vec<Id>,
}

impl Store {
    /// An empty store whose clock is wrong by so many parts per million.
    pub fn new(error: i64) -> Store {
        Store {
            entries: BTreeMap::new(),
            leases: BTreeMap::new(),
            revision: 1,
            next_lease: 1,
            clock: Clock { offset: 0, error },
            read: None,
            last_sync: SyncState::default(),
            last_config: None,
            cut_short: None,
            down: 0,
            slow_before: 0,
            slow_after: 0,
            loss: 0,
            watch_lag: 0,
            missed: Vec::new(),
        }
    }

    /// Who holds the leader key.
    pub fn leader(&self) -> Option<&str> {
        match self.entries.get(&Key::Leader)?.value {
            Value::Text(ref name) => Some(name),
            _ => None,
        }
    }

    /// The dynamic configuration.
    pub fn config(&self) -> Option<&serde_json::Value> {
        match &self.entries.get(&Key::Config)?.value {
            Value::Config(config) => Some(config),
            _ => None,
        }
    }

    /// Who may succeed the leader.
    pub fn sync(&self) -> SyncState {
        match self.entries.get(&Key::Sync).map(|e| &e.value) {
            Some(Value::Sync(sync)) => sync.clone(),
            _ => SyncState::default(),
        }
    }

    /// Who might succeed the leader when that was last said.
    pub fn last_sync(&self) -> &SyncState {
        &self.last_sync
    }

    /// The configuration that was last written, if the cluster is paused, or a member may believe so since the store has lost everything.
    pub fn paused_config(&self) -> Option<serde_json::Value> {
        let was_paused = |config: &serde_json::Value| config["pause"] == true || (self.config().is_none() && !config["pause"].is_null());
        self.last_config.clone().filter(was_paused)
    }

    /// Whether `name` holds the leader key, or would hold it still if the store had not lost everything: nobody else can have been given it.
    pub fn has_given_the_key_to(&self, name: &str, now: Nanos) -> bool {
        let before = |(holder, until): &(String, Nanos)| holder == name && now < *until;
        self.leader().map_or_else(|| self.cut_short.as_ref().is_some_and(before), |holder| holder == name)
    }

    /// Everything, as a client reads it.
    pub fn snapshot(&mut self) -> Rc<Snapshot> {
        if let Some(read) = &self.read {
            return read.clone();
        }
        let mut s = Snapshot { revision: self.revision, ..Snapshot::default() };
        for (key, entry) in &self.entries {
            match (key, &entry.value) {
                (Key::Initialize, Value::Text(id)) => s.initialize = id.parse().map_or(Initialize::InProgress, Initialize::Done),
                (Key::Config, Value::Config(config)) => s.config = Some((**config).clone()),
                (Key::Leader, Value::Text(name)) => (s.leader, s.leader_session) = (name.parse().ok(), Some(entry.lease)),
                (Key::Status, Value::Status(status)) => s.status = status.clone(),
                (Key::Sync, Value::Sync(sync)) => (s.sync, s.sync_version) = (sync.clone(), Some(entry.modified)),
                (Key::Term, Value::Term(key)) => {
                    (s.term, s.term_leader, s.term_version) = (key.term, Some(key.leader.clone()), Some(entry.modified));
                }
                (Key::Timeline, Value::Timeline(key)) => (s.timelines, s.timelines_version) = (key.clone(), Some(entry.modified)),
                (Key::Failsafe, Value::Failsafe(members)) => {
                    s.failsafe = Some(members.clone()).filter(|m| !m.is_empty());
                    s.failsafe_version = Some(entry.modified);
                }
                (Key::Failover, Value::Failover(request)) => {
                    s.failover = Some(request.clone()).filter(|f| !f.is_empty());
                    s.failover_version = Some(entry.modified);
                }
                (Key::History, Value::History(history)) => s.history = history.clone(),
                (Key::Member(name), Value::Member(data)) => drop(s.members.insert(name.clone(), (**data).clone())),
                (key, value) => panic!("{key:?} does not hold {value:?}"),
            }
        }
        let s = Rc::new(s);
        self.read = Some(s.clone());
        s
    }

    fn holds(&self, compare: &Compare) -> bool {
        let found = |key: &Key| self.entries.get(key);
        match compare {
            // A key that is not there has no value, not even an empty one.
            Compare::Value(key, value) => found(key).is_some_and(|e| e.value == *value),
            Compare::Lease(key, lease) => found(key).map_or(0, |e| e.lease) == *lease,
            Compare::Created(key, revision) => found(key).map_or(0, |e| e.created) == *revision,
            Compare::Modified(key, revision) => found(key).map_or(0, |e| e.modified) == *revision,
        }
    }
}

impl World {
    /// A request of `from` has arrived: works on it.
    pub fn serve(&mut self, from: Id, request: &Request) -> Reply {
        let now = self.now;
        match request {
            Request::Range => Reply::Snapshot(self.dcs.snapshot()),
            Request::Grant(ttl) => {
                let lease = self.dcs.next_lease;
                self.dcs.next_lease += 1;
                let ttl = self.dcs.clock.real(u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX).max(2 * SECOND));
                self.dcs.leases.insert(lease, Lease { ttl, ends: now + ttl });
                self.expect_expiry(lease);
                Reply::Granted(lease)
            }
            Request::KeepAlive(lease) => match self.dcs.leases.get_mut(lease) {
                Some(found) => {
                    found.ends = now + found.ttl;
                    Reply::Alive
                }
                None => Reply::NoSuchLease,
            },
            Request::Txn(txn) => {
                let mut first = None;
                match self.apply(from, txn, &mut first) {
                    Some(succeeded) => Reply::Txn { succeeded, first },
                    None => Reply::NoSuchLease,
                }
            }
        }
    }

    /// `None`: a step names a lease that is not there, and nothing is done.
    fn apply(&mut self, from: Id, txn: &Txn, first: &mut Option<Entry>) -> Option<bool> {
        let succeeded = txn.when.iter().all(|c| self.dcs.holds(c));
        let steps = if succeeded { &txn.then } else { &txn.otherwise };
        let unbound = |step: &Step| matches!(step, Step::Put(_, _, lease) if *lease != 0 && !self.dcs.leases.contains_key(lease));
        if steps.iter().any(unbound) {
            return None;
        }
        for step in steps {
            match step {
                Step::Get(key) => *first = first.take().or_else(|| self.dcs.entries.get(key).cloned()),
                Step::Put(key, value, lease) => self.put(from, key.clone(), value.clone(), *lease),
                Step::Delete(key) => self.delete(key),
                Step::Txn(inner) => drop(self.apply(from, inner, first)?),
            }
        }
        Some(succeeded)
    }

    /// Writes a key.
    pub fn put(&mut self, from: Id, key: Key, value: Value, lease: i64) {
        if let (Key::Leader, Value::Text(holder)) = (&key, &value) {
            self.check_claim(holder);
        }
        self.dcs.revision += 1;
        let revision = self.dcs.revision;
        let old = self.dcs.entries.get(&key);
        let created = old.map_or(revision, |e| e.created);
        let matters = match (&key, &value, old.map(|e| &e.value)) {
            (Key::Status | Key::Timeline, ..) => false,
            (Key::Member(_), Value::Member(new), Some(Value::Member(old))) => !new.is_progress_of(old),
            _ => true,
        };
        self.note(|w| format!("store  {key:?} = {} by {}", in_short(&value), w.members.get(from).map_or("operator", |m| m.name.as_str())));
        let announce = key.clone();
        match &value {
            Value::Sync(sync) => self.dcs.last_sync = sync.clone(),
            Value::Config(config) => self.dcs.last_config = Some((**config).clone()),
            _ => {}
        }
        self.dcs.entries.insert(key, Entry { value, created, modified: revision, lease });
        self.dcs.read = None;
        self.mix(revision as u64);
        self.stored(&announce);
        if matters {
            self.tell_watchers();
        }
    }

    /// Removes a key.
    pub fn delete(&mut self, key: &Key) {
        if self.dcs.entries.remove(key).is_some() {
            self.dcs.revision += 1;
            self.dcs.read = None;
            self.note(|_| format!("store  {key:?} removed"));
            self.stored(key);
            self.tell_watchers();
        }
    }

    fn tell_watchers(&mut self) {
        for id in 0..self.members.len() {
            if self.dcs.down > 0 || !self.net.passes(self.net.store(), id) || !self.net.passes(id, self.net.store()) {
                if !self.dcs.missed.contains(&id) {
                    self.dcs.missed.push(id);
                }
                continue;
            }
            let lag = self.dcs.watch_lag;
            let travel = self.travel() + self.dcs.slow_after.min(SECOND);
            let lag = self.between(0, lag);
            self.after(travel + lag, move |w| w.wake_agent(id));
        }
    }

    /// Watchers that are cut off connect again once they can.
    pub fn rewatch(&mut self) {
        for id in std::mem::take(&mut self.dcs.missed) {
            let pause = self.between(50 * MILLI, 2 * SECOND);
            self.after(pause, move |w| w.wake_agent(id));
        }
    }

    fn expect_expiry(&mut self, lease: i64) {
        let Some(ends) = self.dcs.leases.get(&lease).map(|l| l.ends) else { return };
        // etcd looks twice a second for leases that have ended.
        let late = if self.one_in(3) { 0 } else { 500 * MILLI };
        let late = self.between(0, late);
        self.at(ends + late, move |w| {
            match w.dcs.leases.get(&lease).map(|l| l.ends) {
                Some(ends) if ends <= w.now && w.dcs.down == 0 => {
                    w.dcs.leases.remove(&lease);
                    let bound: Vec<Key> = w.dcs.entries.iter().filter(|(_, e)| e.lease == lease).map(|(k, _)| k.clone()).collect();
                    bound.iter().for_each(|key| w.delete(key));
                }
                // A store that is down counts anew when it is back.
                Some(ends) if ends <= w.now => {
                    let again = w.now + 200 * MILLI;
                    w.dcs.leases.get_mut(&lease).expect("just seen").ends = again;
                    w.expect_expiry(lease);
                }
                Some(_) => w.expect_expiry(lease),
                None => {}
            }
        });
    }

    /// The store is back, or has a new leader: every lease begins anew.
    pub fn extend_leases(&mut self) {
        let now = self.now;
        for lease in self.dcs.leases.values_mut() {
            lease.ends = now + lease.ttl;
        }
        self.rewatch();
    }

    /// The store loses everything.
    pub fn wipe_store(&mut self) {
        self.note(|_| "store  wiped".to_owned());
        let keys: Vec<Key> = self.dcs.entries.keys().cloned().collect();
        let until = self.dcs.entries.get(&Key::Leader).and_then(|e| self.dcs.leases.get(&e.lease)).map(|lease| lease.ends);
        self.dcs.cut_short = self.dcs.leader().map(str::to_owned).zip(until).or_else(|| self.dcs.cut_short.take());
        self.dcs.entries.clear();
        self.dcs.leases.clear();
        self.dcs.read = None;
        // A new store counts from the beginning.
        self.dcs.revision /= 2;
        keys.iter().for_each(|key| self.stored(key));
        self.tell_watchers();
    }
}

fn in_short(value: &Value) -> String {
    match value {
        Value::Text(text) => format!("'{text}'"),
        Value::Config(config) => config.to_string(),
        Value::Status(s) => format!("optime {} final {:?}", s.optime.0, s.final_lsn.map(|l| l.0)),
        Value::Sync(s) => format!("leader {:?} quorum {} voters {:?}", s.leader, s.quorum, s.voters),
        Value::Term(t) => format!("{} by {}", t.term, t.leader),
        Value::Timeline(t) => format!("reserved {} by {} begun {:?}", t.reserved, t.by, t.begun.map(|t| t.0)),
        Value::Failsafe(members) => format!("{:?}", members.keys()),
        Value::Failover(f) => format!("{f:?}"),
        Value::History(h) => format!("{:?}", h.iter().map(|e| (e.0.0, e.1.0)).collect::<Vec<_>>()),
        Value::Member(m) => {
            let said: Vec<String> = m.other.values().map(ToString::to_string).collect();
            let at = m.xlog_location.map(|l| l.0);
            format!("{:?} {:?} timeline {:?} at {at:?} {}", m.state, m.role, m.timeline.map(|t| t.0), said.join(" "))
        }
    }
}
