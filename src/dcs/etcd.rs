//! The driver for etcd v3.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::Future,
    time::Duration,
};

use etcd_client::{
    Client, Compare, CompareOp, ConnectOptions, Error, Event, GetOptions, KeyValue, PutOptions, ResponseHeader, Txn, TxnOp, TxnResponse,
    WatchOptions, WatchStream,
};
use serde::Serialize;

use super::{
    Dcs, DcsConfig, DcsError, Renewal,
    keys::Keys,
    lease_stream::LeaseStream,
    reading,
    snapshot::{Claim, FailoverKey, HistoryEntry, Initialize, MemberData, Snapshot, StatusKey, SyncState, TermKey, TimelineKey},
};
use crate::model::{MemberName, SystemId};

/// Pause before a failed request is repeated; doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// How long a connection may be silent before its other end is asked whether it is there. Not whole seconds: the client's timer ends that long
/// after something was heard, and is set anew where more was heard since. In a loop that asks every second it would end just before the
/// third answer, each time, and so every two seconds for nothing.
const SILENCE: Duration = Duration::from_millis(3300);

/// A connection to an etcd cluster, one session (lease), and one watch.
pub struct Etcd {
    client: Client,
    keys: Keys,
    /// Time for one operation, its repetitions included: Patroni's `retry_timeout`.
    budget: Cell<Duration>,
    /// The session's lease and the time it was asked for.
    lease: Cell<Option<(i64, Duration)>>,
    /// What extends it, while that works.
    stream: RefCell<Option<LeaseStream>>,
    watch: RefCell<Option<WatchStream>>,
}

impl Etcd {
    /// Prepares a connection; nothing is sent yet, so an etcd that is still starting is no error.
    pub async fn connect(config: &DcsConfig, budget: Duration) -> Result<Etcd, DcsError> {
        let options = ConnectOptions::new()
            .with_connect_timeout(Duration::from_secs(1))
            // A peer that vanished without a word is noticed on an idle connection too.
            .with_keep_alive(SILENCE, Duration::from_secs(2))
            .with_keep_alive_while_idle(true)
            // A member cut off from its majority answers with an error instead of silence or stale data.
            .with_require_leader(true);
        let client = Client::connect(&config.endpoints, Some(options)).await.map_err(|e| DcsError::Refused(e.to_string()))?;
        Ok(Etcd {
            client,
            keys: Keys::new(&config.namespace, &config.scope),
            budget: Cell::new(budget),
            lease: Cell::new(None),
            stream: RefCell::new(None),
            watch: RefCell::new(None),
        })
    }

    /// Changes the time that one operation may take.
    pub fn set_budget(&self, budget: Duration) {
        self.budget.set(budget);
    }

    /// Repeats `request` until it is answered, the budget is used up, or the answer is that repeating will not help. Every request here
    /// may be repeated: it is a read, or its condition tells its own earlier success from somebody else's.
    async fn answered<T, F>(&self, mut request: impl FnMut(Client) -> F) -> Result<T, DcsError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let budget = self.budget.get();
        let mut last = "no answer yet".to_owned();
        let attempts = async {
            let mut pause = FIRST_PAUSE;
            loop {
                // Half the budget for one attempt: an answer that got lost must leave time for a second one.
                match tokio::time::timeout(budget / 2, request(self.client.clone())).await {
                    Ok(Ok(answer)) => return Ok(answer),
                    Ok(Err(error)) => match refusal(&error) {
                        Some(refused) => return Err(refused),
                        None => last = in_few_words(&error),
                    },
                    Err(_) => last = "timed out".to_owned(),
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        };
        let outcome = match tokio::time::timeout(budget, attempts).await {
            Ok(outcome) => outcome,
            Err(_) => Err(DcsError::NoAnswer(last)),
        };
        if matches!(outcome, Err(DcsError::SessionLost)) {
            self.lease.set(None);
        }
        outcome
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResponse, DcsError> {
        self.answered(|mut client| {
            let txn = txn.clone();
            async move { client.txn(txn).await }
        })
        .await
    }

    /// The session's lease, or the error that says there is none.
    fn session(&self) -> Result<i64, DcsError> {
        self.lease.get().map(|(lease, _)| lease).ok_or(DcsError::SessionLost)
    }

    fn bound(&self) -> Result<Option<PutOptions>, DcsError> {
        Ok(Some(PutOptions::new().with_lease(self.session()?)))
    }

    /// Extends the lease; one without time left is an error.
    async fn extend(&self, lease: i64) -> Result<(), DcsError> {
        let stream = self
            .answered(|mut client| {
                // Whatever attempt is given up takes its stream along.
                let kept = self.stream.take();
                async move { LeaseStream::extend(&mut client, kept, lease).await }
            })
            .await?;
        self.stream.replace(Some(stream));
        Ok(())
    }

    /// Puts `value` under the leader's condition, plus `seen` where given. `Ok(false)`: the condition did not hold.
    async fn put_as_leader(&self, me: &MemberName, key: &str, value: String, seen: Option<Option<i64>>) -> Result<bool, DcsError> {
        let path = self.keys.of(key);
        let mut when = vec![Compare::value(self.keys.of("leader"), CompareOp::Equal, me.as_str())];
        when.extend(seen.map(|version| unchanged(&path, version)));
        let put = TxnOp::put(path.as_str(), value.as_str(), None);
        let answer = self.txn(Txn::new().when(when).and_then([put]).or_else([TxnOp::get(path.as_str(), None)])).await?;
        if answer.succeeded() {
            return Ok(true);
        }
        // A repeated request whose first answer got lost finds its own value there.
        Ok(seen.is_some() && first_value(&answer).is_some_and(|kv| kv.value() == value.as_bytes()))
    }

    /// Whether a change is worth waking up for. Progress is written all the time: who would wake up for it, and then write their own, would
    /// never sleep again.
    fn matters(&self, event: &Event) -> bool {
        let Some(key) = event.kv().and_then(|kv| kv.key_str().ok()?.strip_prefix(self.keys.base())) else { return true };
        if key == "status" || key == "timeline" {
            return false;
        }
        let member = |kv: &KeyValue| serde_json::from_slice::<MemberData>(kv.value()).ok();
        match (key.starts_with("members/"), event.kv().and_then(member), event.prev_kv().and_then(member)) {
            (true, Some(new), Some(old)) => !new.is_progress_of(&old),
            _ => true,
        }
    }

    async fn open_watch(&self) -> Result<WatchStream, DcsError> {
        let base = self.keys.base().to_owned();
        self.answered(|mut client| {
            let base = base.clone();
            async move {
                let mut stream = client.watch(base, Some(WatchOptions::new().with_prefix().with_prev_key())).await?;
                // The first message only confirms that the watch stands.
                stream.message().await?;
                Ok(stream)
            }
        })
        .await
    }
}

impl Dcs for Etcd {
    async fn snapshot(&self) -> Result<Snapshot, DcsError> {
        let base = self.keys.base().to_owned();
        let answer = self
            .answered(|mut client| {
                let base = base.clone();
                async move { client.get(base, Some(GetOptions::new().with_prefix())).await }
            })
            .await?;
        let revision = answer.header().map(ResponseHeader::revision).unwrap_or_default();
        Ok(Snapshot { revision, ..read_snapshot(self.keys.base(), answer.kvs()) })
    }

    async fn changed(&self) {
        loop {
            let open = self.watch.borrow_mut().take();
            let Some(mut stream) = open else {
                match self.open_watch().await {
                    Ok(stream) => *self.watch.borrow_mut() = Some(stream),
                    Err(_) => tokio::time::sleep(LONGEST_PAUSE).await,
                }
                // Between the old watch and this one something may have been missed.
                return;
            };
            let event = stream.message().await;
            if let Ok(Some(answer)) = event
                && !answer.canceled()
            {
                *self.watch.borrow_mut() = Some(stream);
                if answer.events().iter().any(|event| self.matters(event)) {
                    return;
                }
                continue;
            }
            tokio::time::sleep(FIRST_PAUSE).await;
        }
    }

    async fn keep_session(&self, ttl: Duration) -> Result<(), DcsError> {
        // A lease is extended by what it was granted with: after a change of `ttl` it would end before whoever counts on the new one expects.
        if let Some((lease, _)) = self.lease.get().filter(|(_, granted)| *granted == ttl) {
            match self.extend(lease).await {
                Err(DcsError::SessionLost) => {}
                other => return other,
            }
        }
        let seconds = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX).max(1);
        let granted = self.answered(|mut client| async move { client.lease_grant(seconds, None).await }).await?;
        self.lease.set(Some((granted.id(), ttl)));
        Ok(())
    }

    async fn claim_leader(&self, me: &MemberName, claim: &Claim) -> Result<bool, DcsError> {
        let seen = &claim.seen;
        let (key, term) = (self.keys.of("leader"), self.keys.of("term"));
        let free = Compare::create_revision(key.as_str(), CompareOp::Equal, 0);
        let as_seen = [free, unchanged(&self.keys.of("sync"), seen.sync_version), unchanged(&term, seen.term_version)];
        let next = TermKey { term: seen.term.next(), leader: me.clone() };
        let mut take = vec![TxnOp::put(key.as_str(), me.as_str(), self.bound()?), TxnOp::put(term, json(&next), None)];
        take.extend(claim.lost_sync.as_ref().map(|sync| TxnOp::put(self.keys.of("sync"), json(sync), None)));
        take.extend(claim.lost_timelines.as_ref().map(|timelines| TxnOp::put(self.keys.of("timeline"), json(timelines), None)));
        let lease = self.session()?;
        let answer = self.txn(Txn::new().when(as_seen).and_then(take).or_else([TxnOp::get(key.as_str(), None)])).await?;
        // Taken, but by this very session: the answer to an earlier attempt got lost.
        let ours = |kv: &KeyValue| kv.lease() == lease && kv.value() == me.as_str().as_bytes();
        Ok(answer.succeeded() || first_value(&answer).is_some_and(|kv| ours(&kv)))
    }

    async fn confirm_leader(&self, me: &MemberName, seen: Option<i64>) -> Result<Renewal, DcsError> {
        let key = self.keys.of("leader");
        let lease = self.session()?;
        if seen == Some(lease) {
            return Ok(Renewal::Kept);
        }
        let mine = [Compare::value(key.as_str(), CompareOp::Equal, me.as_str()), Compare::lease(key.as_str(), CompareOp::Equal, lease)];
        let check = Txn::new().when(mine).or_else([TxnOp::get(key.as_str(), None)]);
        let answer = self.txn(check).await?;
        if answer.succeeded() {
            return Ok(Renewal::Kept);
        }
        let Some(found) = first_value(&answer) else { return Ok(Renewal::Lost { holder: None }) };
        if found.value() != me.as_str().as_bytes() {
            return Ok(Renewal::Lost { holder: holder_of(&found) });
        }
        // Our name from an earlier session: bind the very key we saw to this one.
        let unchanged = Compare::mod_revision(key.as_str(), CompareOp::Equal, found.mod_revision());
        let rebind = TxnOp::put(key.as_str(), me.as_str(), self.bound()?);
        let answer = self.txn(Txn::new().when([unchanged]).and_then([rebind]).or_else([TxnOp::get(key.as_str(), None)])).await?;
        let ours = |kv: &KeyValue| kv.lease() == lease && kv.value() == me.as_str().as_bytes();
        match first_value(&answer) {
            _ if answer.succeeded() => Ok(Renewal::Kept),
            Some(kv) if ours(&kv) => Ok(Renewal::Kept),
            other => Ok(Renewal::Lost { holder: other.and_then(|kv| holder_of(&kv)) }),
        }
    }

    async fn release_leader(&self, me: &MemberName, status: Option<&StatusKey>) -> Result<(), DcsError> {
        let key = self.keys.of("leader");
        let bound = Compare::lease(key.as_str(), CompareOp::Equal, self.session()?);
        let mine = [Compare::value(key.as_str(), CompareOp::Equal, me.as_str()), bound];
        let mut steps = vec![TxnOp::delete(key.as_str(), None)];
        if let Some(status) = status {
            steps.push(TxnOp::put(self.keys.of("status"), json(status), None));
        }
        let answer = self.txn(Txn::new().when(mine).and_then(steps).or_else([TxnOp::get(key.as_str(), None)])).await?;
        let ours = first_value(&answer).is_some_and(|kv| kv.value() == me.as_str().as_bytes());
        if !answer.succeeded() && ours { Err(other_session()) } else { Ok(()) }
    }

    async fn claim_initialize(&self) -> Result<bool, DcsError> {
        let key = self.keys.of("initialize");
        let lease = self.session()?;
        let free = Compare::create_revision(key.as_str(), CompareOp::Equal, 0);
        let take = TxnOp::put(key.as_str(), "", self.bound()?);
        let answer = self.txn(Txn::new().when([free]).and_then([take]).or_else([TxnOp::get(key.as_str(), None)])).await?;
        Ok(answer.succeeded() || first_value(&answer).is_some_and(|kv| kv.lease() == lease))
    }

    async fn record_initialize(&self, id: SystemId) -> Result<bool, DcsError> {
        let key = self.keys.of("initialize");
        let value = id.to_string();
        let lease = self.session().unwrap_or_default();
        let put = || TxnOp::put(key.as_str(), value.as_str(), None);
        let claimed = Compare::lease(key.as_str(), CompareOp::Equal, lease);
        let unset = Compare::value(key.as_str(), CompareOp::Equal, "");
        let absent = Compare::create_revision(key.as_str(), CompareOp::Equal, 0);
        let otherwise = Txn::new().when([absent]).and_then([put()]).or_else([TxnOp::get(key.as_str(), None)]);
        self.txn(Txn::new().when([claimed, unset]).and_then([put()]).or_else([TxnOp::txn(otherwise)])).await?;
        let now = self.snapshot().await?;
        Ok(now.initialize == Initialize::Done(id))
    }

    async fn release_initialize(&self) -> Result<(), DcsError> {
        let key = self.keys.of("initialize");
        let claimed = [Compare::lease(key.as_str(), CompareOp::Equal, self.session()?), Compare::value(key.as_str(), CompareOp::Equal, "")];
        self.txn(Txn::new().when(claimed).and_then([TxnOp::delete(key.as_str(), None)])).await.map(drop)
    }

    async fn put_member(&self, me: &MemberName, data: &MemberData) -> Result<(), DcsError> {
        let (key, value, bound) = (self.keys.member(me), json(data), self.bound()?);
        self.answered(|mut client| {
            let (key, value, bound) = (key.clone(), value.clone(), bound.clone());
            async move { client.put(key, value, bound).await }
        })
        .await
        .map(drop)
    }

    async fn remove_member(&self, me: &MemberName) -> Result<(), DcsError> {
        let key = self.keys.member(me);
        self.answered(|mut client| {
            let key = key.clone();
            async move { client.delete(key, None).await }
        })
        .await
        .map(drop)
    }

    async fn put_status(&self, me: &MemberName, status: &StatusKey) -> Result<bool, DcsError> {
        self.put_as_leader(me, "status", json(status), None).await
    }

    async fn put_history(&self, me: &MemberName, history: &[HistoryEntry]) -> Result<bool, DcsError> {
        self.put_as_leader(me, "history", json(&history), None).await
    }

    async fn put_timelines(&self, me: &MemberName, timelines: &TimelineKey, seen: Option<i64>) -> Result<bool, DcsError> {
        self.put_as_leader(me, "timeline", json(timelines), Some(seen)).await
    }

    async fn put_sync(&self, me: &MemberName, sync: &SyncState, seen: Option<i64>) -> Result<bool, DcsError> {
        self.put_as_leader(me, "sync", json(sync), Some(seen)).await
    }

    async fn put_failsafe(&self, me: &MemberName, members: &BTreeMap<String, String>, seen: Option<i64>) -> Result<bool, DcsError> {
        self.put_as_leader(me, "failsafe", json(members), Some(seen)).await
    }

    async fn put_failover(&self, request: &FailoverKey, seen: Option<i64>) -> Result<bool, DcsError> {
        let key = self.keys.of("failover");
        let mut txn = Txn::new();
        if let Some(version) = seen {
            txn = txn.when([Compare::mod_revision(key.as_str(), CompareOp::Equal, version)]);
        }
        let value = json(request);
        let answer =
            self.txn(txn.and_then([TxnOp::put(key.as_str(), value.as_str(), None)]).or_else([TxnOp::get(key.as_str(), None)])).await?;
        Ok(answer.succeeded() || first_value(&answer).is_some_and(|kv| kv.value() == value.as_bytes()))
    }

    async fn put_config(&self, config: &serde_json::Value, seen: i64) -> Result<bool, DcsError> {
        let key = self.keys.of("config");
        let value = json(config);
        let put = TxnOp::put(key.as_str(), value.as_str(), None);
        let txn = Txn::new().when([unchanged(&key, Some(seen))]).and_then([put]).or_else([TxnOp::get(key.as_str(), None)]);
        let answer = self.txn(txn).await?;
        Ok(answer.succeeded() || first_value(&answer).is_some_and(|kv| kv.value() == value.as_bytes()))
    }

    async fn put_config_if_absent(&self, config: &serde_json::Value) -> Result<bool, DcsError> {
        let key = self.keys.of("config");
        let absent = Compare::create_revision(key.as_str(), CompareOp::Equal, 0);
        let answer = self.txn(Txn::new().when([absent]).and_then([TxnOp::put(key.as_str(), json(config), None)])).await?;
        Ok(answer.succeeded())
    }
}

/// The condition that the key is as it was seen: at this version, or not there.
fn unchanged(key: &str, seen: Option<i64>) -> Compare {
    match seen {
        Some(version) => Compare::mod_revision(key, CompareOp::Equal, version),
        None => Compare::create_revision(key, CompareOp::Equal, 0),
    }
}

fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("keys are strings and numbers are finite, so JSON cannot fail")
}

fn other_session() -> DcsError {
    DcsError::Refused("the leader key is bound to another session of this member".to_owned())
}

/// The key-value that a transaction's first operation read.
fn first_value(answer: &TxnResponse) -> Option<KeyValue> {
    answer.op_responses().into_iter().find_map(|response| match response {
        etcd_client::TxnOpResponse::Get(get) => get.kvs().first().cloned(),
        _ => None,
    })
}

fn holder_of(kv: &KeyValue) -> Option<MemberName> {
    kv.value_str().ok()?.parse().ok()
}

/// The error to give up with, for answers that repeating will not change. Everything else (no connection, no leader, too busy) may pass:
/// an etcd in trouble has not said that we lost anything.
fn refusal(error: &Error) -> Option<DcsError> {
    match error {
        // etcd-client's word for "zero seconds left" when it opens the stream.
        Error::LeaseKeepAliveError(why) if why == "lease not found" => Some(DcsError::SessionLost),
        Error::InvalidArgs(why) => Some(DcsError::Refused(why.clone())),
        Error::GRpcStatus(status) => {
            let said = status.message();
            if said.contains("requested lease not found") {
                return Some(DcsError::SessionLost);
            }
            let definite = said.contains("permission denied") || said.contains("authentication") || said.contains("invalid auth token");
            definite.then(|| DcsError::Refused(said.to_owned()))
        }
        _ => None,
    }
}

/// The innermost cause: around it the client wraps several times that something with the connection is wrong.
fn in_few_words(error: &Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    if let Error::GRpcStatus(status) = error {
        cause = status;
    }
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    match error {
        Error::GRpcStatus(status) if std::ptr::addr_eq(cause, status) => status.message().to_owned(),
        _ => cause.to_string(),
    }
}

/// Builds the snapshot from the key-values below `base`.
fn read_snapshot(base: &str, kvs: &[KeyValue]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for kv in kvs {
        let Some(key) = kv.key_str().ok().and_then(|key| key.strip_prefix(base)) else { continue };
        reading::take_key(&mut snapshot, key, kv.value(), kv.mod_revision());
        if key == "leader" {
            snapshot.leader_session = Some(kv.lease());
        }
    }
    snapshot
}
