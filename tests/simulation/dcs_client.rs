//! The agent's door to the store: the same verbs, conditions and repetitions as the driver for etcd has.

use std::{cell::Cell, collections::BTreeMap, rc::Rc, time::Duration};

use spilo::{
    dcs::{
        Dcs, DcsError, Renewal,
        snapshot::{Claim, FailoverKey, HistoryEntry, MemberData, Snapshot, StatusKey, SyncState, TermKey, TimelineKey},
    },
    model::{MemberName, SystemId},
};

use crate::{
    dcs_model::{Compare, Entry, Key, Reply, Request, Step, Txn, Value},
    exec::{Letter, Sim},
    mutations::Mutation,
    world::{Id, MICRO, World},
};

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// A connection and a session.
pub struct Client {
    sim: Sim,
    me: Id,
    budget: Cell<Duration>,
    lease: Cell<Option<(i64, Duration)>>,
}

impl World {
    /// Sends a request; what comes back, if anything does, goes into the letter.
    fn send_request(&mut self, me: Id, request: Request, answer: crate::exec::Sender<Reply>) {
        let store = self.net.store();
        let lost = !self.net.passes(me, store) || self.one_in(self.dcs.loss);
        if lost {
            return;
        }
        let slow = self.dcs.slow_before;
        let arrives = self.travel() + self.between(slow / 2, slow);
        self.after(arrives, move |w| {
            if w.dcs.down > 0 {
                return;
            }
            let reply = w.serve(me, &request);
            if !w.net.passes(store, me) || w.one_in(w.dcs.loss) {
                w.counters.fault("answer lost");
                return;
            }
            let slow = w.dcs.slow_after;
            let work = w.between(100 * MICRO, 1500 * MICRO);
            let travel = w.travel() + work + w.between(slow / 2, slow);
            w.after(travel, move |w| answer.send(w, reply));
        });
    }
}

impl Client {
    /// A connection of member `me`; nothing is sent yet.
    pub fn new(sim: Sim, me: Id, budget: Duration) -> Client {
        Client { sim, me, budget: Cell::new(budget), lease: Cell::new(None) }
    }

    /// Changes the time that one operation may take.
    pub fn set_budget(&self, budget: Duration) {
        self.budget.set(budget);
    }

    async fn answered(&self, request: Request) -> Result<Reply, DcsError> {
        let budget = self.budget.get();
        let attempts = async {
            let mut pause = FIRST_PAUSE;
            loop {
                let (sender, letter) = Letter::new(&self.sim);
                self.sim.world().send_request(self.me, request.clone(), sender);
                match self.sim.timeout(self.me, budget / 2, letter.arrived()).await {
                    Some(Reply::NoSuchLease) => return Err(DcsError::SessionLost),
                    Some(reply) => return Ok(reply),
                    None => {}
                }
                self.sim.sleep(self.me, pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        };
        let outcome = self.sim.timeout(self.me, budget, attempts).await;
        let outcome = outcome.unwrap_or_else(|| Err(DcsError::NoAnswer("timed out".to_owned())));
        if matches!(outcome, Err(DcsError::SessionLost)) {
            self.lease.set(None);
        }
        outcome
    }

    async fn txn(&self, when: Vec<Compare>, then: Vec<Step>, otherwise: Vec<Step>) -> Result<(bool, Option<Entry>), DcsError> {
        match self.answered(Request::Txn(Txn { when, then, otherwise })).await? {
            Reply::Txn { succeeded, first } => Ok((succeeded, first)),
            other => panic!("a transaction is answered by {other:?}"),
        }
    }

    fn session(&self) -> Result<i64, DcsError> {
        self.lease.get().map(|(lease, _)| lease).ok_or(DcsError::SessionLost)
    }

    async fn put_as_leader(&self, me: &MemberName, key: Key, value: Value, seen: Option<Option<i64>>) -> Result<bool, DcsError> {
        let mut when = vec![Compare::Value(Key::Leader, name(me))];
        when.extend(seen.map(|version| unchanged(&key, version)));
        let (succeeded, found) = self.txn(when, vec![Step::Put(key.clone(), value.clone(), 0)], vec![Step::Get(key)]).await?;
        Ok(succeeded || seen.is_some() && found.is_some_and(|e| e.value == value))
    }

    fn mutated(&self, mutation: Mutation) -> bool {
        self.sim.world().mutated(mutation)
    }
}

fn name(me: &MemberName) -> Value {
    Value::Text(me.to_string())
}

fn unchanged(key: &Key, seen: Option<i64>) -> Compare {
    match seen {
        Some(version) => Compare::Modified(key.clone(), version),
        None => Compare::Created(key.clone(), 0),
    }
}

fn holder_of(entry: &Entry) -> Option<MemberName> {
    match &entry.value {
        Value::Text(name) => name.parse().ok(),
        _ => None,
    }
}

impl Dcs for Client {
    async fn snapshot(&self) -> Result<Snapshot, DcsError> {
        match self.answered(Request::Range).await? {
            Reply::Snapshot(snapshot) => Ok(Rc::unwrap_or_clone(snapshot)),
            other => panic!("a read is answered by {other:?}"),
        }
    }

    /// The world wakes agents by itself.
    async fn changed(&self) {
        std::future::pending::<()>().await;
    }

    async fn keep_session(&self, ttl: Duration) -> Result<(), DcsError> {
        if let Some((lease, _)) = self.lease.get().filter(|(_, granted)| *granted == ttl) {
            match self.answered(Request::KeepAlive(lease)).await {
                Err(DcsError::SessionLost) => {}
                Err(other) => return Err(other),
                Ok(_) => return Ok(()),
            }
        }
        match self.answered(Request::Grant(ttl)).await? {
            Reply::Granted(lease) => self.lease.set(Some((lease, ttl))),
            other => panic!("a grant is answered by {other:?}"),
        }
        Ok(())
    }

    async fn claim_leader(&self, me: &MemberName, claim: &Claim) -> Result<bool, DcsError> {
        let seen = &claim.seen;
        let lease = self.session()?;
        let mut when =
            vec![Compare::Created(Key::Leader, 0), unchanged(&Key::Sync, seen.sync_version), unchanged(&Key::Term, seen.term_version)];
        if self.mutated(Mutation::ClaimWithoutVersions) {
            when.truncate(1);
        }
        if self.mutated(Mutation::ClaimWithoutCondition) {
            when.clear();
        }
        let next = TermKey { term: seen.term.next(), leader: me.clone() };
        let mut take = vec![Step::Put(Key::Leader, name(me), lease), Step::Put(Key::Term, Value::Term(next), 0)];
        take.extend(claim.lost_sync.clone().map(|sync| Step::Put(Key::Sync, Value::Sync(sync), 0)));
        take.extend(claim.lost_timelines.clone().map(|timelines| Step::Put(Key::Timeline, Value::Timeline(timelines), 0)));
        let (succeeded, found) = self.txn(when, take, vec![Step::Get(Key::Leader)]).await?;
        Ok(succeeded || found.is_some_and(|e| e.lease == lease && e.value == name(me)))
    }

    async fn confirm_leader(&self, me: &MemberName, seen: Option<i64>) -> Result<Renewal, DcsError> {
        let lease = self.session()?;
        if seen == Some(lease) {
            return Ok(Renewal::Kept);
        }
        let mine = vec![Compare::Value(Key::Leader, name(me)), Compare::Lease(Key::Leader, lease)];
        let (succeeded, found) = self.txn(mine, Vec::new(), vec![Step::Get(Key::Leader)]).await?;
        if succeeded {
            return Ok(Renewal::Kept);
        }
        let Some(found) = found else { return Ok(Renewal::Lost { holder: None }) };
        if found.value != name(me) {
            return Ok(Renewal::Lost { holder: holder_of(&found) });
        }
        let same = vec![Compare::Modified(Key::Leader, found.modified)];
        let rebind = vec![Step::Put(Key::Leader, name(me), lease)];
        let (succeeded, found) = self.txn(same, rebind, vec![Step::Get(Key::Leader)]).await?;
        match found {
            _ if succeeded => Ok(Renewal::Kept),
            Some(entry) if entry.lease == lease && entry.value == name(me) => Ok(Renewal::Kept),
            other => Ok(Renewal::Lost { holder: other.as_ref().and_then(holder_of) }),
        }
    }

    async fn release_leader(&self, me: &MemberName, status: Option<&StatusKey>) -> Result<(), DcsError> {
        let mut steps = vec![Step::Delete(Key::Leader)];
        steps.extend(status.map(|s| Step::Put(Key::Status, Value::Status(s.clone()), 0)));
        let mine = vec![Compare::Value(Key::Leader, name(me)), Compare::Lease(Key::Leader, self.session()?)];
        let (succeeded, found) = self.txn(mine, steps, vec![Step::Get(Key::Leader)]).await?;
        let ours = found.is_some_and(|entry| entry.value == name(me));
        if !succeeded && ours { Err(DcsError::Refused("bound to another session".to_owned())) } else { Ok(()) }
    }

    async fn claim_initialize(&self) -> Result<bool, DcsError> {
        let lease = self.session()?;
        let take = Step::Put(Key::Initialize, Value::Text(String::new()), lease);
        let (succeeded, found) = self.txn(vec![Compare::Created(Key::Initialize, 0)], vec![take], vec![Step::Get(Key::Initialize)]).await?;
        Ok(succeeded || found.is_some_and(|e| e.lease == lease))
    }

    async fn record_initialize(&self, id: SystemId) -> Result<bool, DcsError> {
        let lease = self.session().unwrap_or_default();
        let put = || Step::Put(Key::Initialize, Value::Text(id.to_string()), 0);
        let claimed = vec![Compare::Lease(Key::Initialize, lease), Compare::Value(Key::Initialize, Value::Text(String::new()))];
        let otherwise =
            Txn { when: vec![Compare::Created(Key::Initialize, 0)], then: vec![put()], otherwise: vec![Step::Get(Key::Initialize)] };
        self.txn(claimed, vec![put()], vec![Step::Txn(Box::new(otherwise))]).await?;
        Ok(self.snapshot().await?.initialize == spilo::dcs::snapshot::Initialize::Done(id))
    }

    async fn release_initialize(&self) -> Result<(), DcsError> {
        let claimed = vec![Compare::Lease(Key::Initialize, self.session()?), Compare::Value(Key::Initialize, Value::Text(String::new()))];
        self.txn(claimed, vec![Step::Delete(Key::Initialize)], Vec::new()).await.map(drop)
    }

    async fn put_member(&self, me: &MemberName, data: &MemberData) -> Result<(), DcsError> {
        let put = Step::Put(Key::Member(me.clone()), Value::Member(Box::new(data.clone())), self.session()?);
        self.txn(Vec::new(), vec![put], Vec::new()).await.map(drop)
    }

    async fn remove_member(&self, me: &MemberName) -> Result<(), DcsError> {
        self.txn(Vec::new(), vec![Step::Delete(Key::Member(me.clone()))], Vec::new()).await.map(drop)
    }

    async fn put_status(&self, me: &MemberName, status: &StatusKey) -> Result<bool, DcsError> {
        self.put_as_leader(me, Key::Status, Value::Status(status.clone()), None).await
    }

    async fn put_history(&self, me: &MemberName, history: &[HistoryEntry]) -> Result<bool, DcsError> {
        self.put_as_leader(me, Key::History, Value::History(history.to_vec()), None).await
    }

    async fn put_timelines(&self, me: &MemberName, timelines: &TimelineKey, seen: Option<i64>) -> Result<bool, DcsError> {
        self.put_as_leader(me, Key::Timeline, Value::Timeline(timelines.clone()), Some(seen)).await
    }

    async fn put_sync(&self, me: &MemberName, sync: &SyncState, seen: Option<i64>) -> Result<bool, DcsError> {
        self.put_as_leader(me, Key::Sync, Value::Sync(sync.clone()), Some(seen)).await
    }

    async fn put_failsafe(&self, me: &MemberName, members: &BTreeMap<String, String>, seen: Option<i64>) -> Result<bool, DcsError> {
        self.put_as_leader(me, Key::Failsafe, Value::Failsafe(members.clone()), Some(seen)).await
    }

    async fn put_failover(&self, request: &FailoverKey, seen: Option<i64>) -> Result<bool, DcsError> {
        let when = seen.map(|version| Compare::Modified(Key::Failover, version)).into_iter().collect();
        let value = Value::Failover(request.clone());
        let (succeeded, found) = self.txn(when, vec![Step::Put(Key::Failover, value.clone(), 0)], vec![Step::Get(Key::Failover)]).await?;
        Ok(succeeded || found.is_some_and(|e| e.value == value))
    }

    async fn put_config(&self, config: &serde_json::Value, seen: i64) -> Result<bool, DcsError> {
        let value = Value::Config(Rc::new(config.clone()));
        let put = Step::Put(Key::Config, value.clone(), 0);
        let (succeeded, found) = self.txn(vec![Compare::Modified(Key::Config, seen)], vec![put], vec![Step::Get(Key::Config)]).await?;
        Ok(succeeded || found.is_some_and(|e| e.value == value))
    }

    async fn put_config_if_absent(&self, config: &serde_json::Value) -> Result<bool, DcsError> {
        let put = Step::Put(Key::Config, Value::Config(Rc::new(config.clone())), 0);
        let (succeeded, _) = self.txn(vec![Compare::Created(Key::Config, 0)], vec![put], Vec::new()).await?;
        Ok(succeeded)
    }
}
