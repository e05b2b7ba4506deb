//! What every driver of the DCS must do, shown on a real etcd.

use std::{
    rc::Rc,
    sync::{Arc, Mutex, Weak},
    time::{Duration, Instant},
};

use serde_json::json;
use spilo::{
    dcs::{
        Dcs, DcsError, Etcd, Renewal,
        snapshot::{Claim, FailoverKey, HistoryEntry, Initialize, MemberData, MemberRole, StatusKey, SyncState, TimelineKey},
    },
    model::{Lsn, MemberName, SystemId, Term, Timeline},
};
use tokio::time::{sleep, timeout};

use crate::support::{available, etcd::EtcdServer};

const TTL: Duration = Duration::from_secs(10);
/// The shortest that etcd grants, with the election timeout that it is started with here.
const SHORT_TTL: Duration = Duration::from_secs(1);
const BUDGET: Duration = Duration::from_secs(2);

/// The etcd that the tests of this module share; it ends with the last of them.
fn shared() -> Arc<EtcdServer> {
    static SERVER: Mutex<Weak<EtcdServer>> = Mutex::new(Weak::new());
    let mut server = SERVER.lock().unwrap();
    server.upgrade().unwrap_or_else(|| {
        let started = Arc::new(EtcdServer::start());
        *server = Arc::downgrade(&started);
        started
    })
}

/// Runs a test against the shared etcd, below a scope of its own.
fn with_scope<F: Future<Output = ()>>(scope: &str, test: impl FnOnce(Agents) -> F) {
    if !available("etcd") {
        return;
    }
    let server = shared();
    let agents = Agents { server, scope: scope.to_owned() };
    block(async { timeout(Duration::from_secs(60), test(agents)).await.expect("the test takes too long") });
}

fn block<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

struct Agents {
    server: Arc<EtcdServer>,
    scope: String,
}

impl Agents {
    /// An agent without a session.
    async fn new_agent(&self) -> Etcd {
        Etcd::connect(&self.server.config(&self.scope), BUDGET).await.unwrap()
    }

    /// An agent with a session.
    async fn agent(&self, ttl: Duration) -> Etcd {
        let agent = self.new_agent().await;
        agent.keep_session(ttl).await.unwrap();
        agent
    }
}

fn name(text: &str) -> MemberName {
    text.parse().unwrap()
}

/// Claims the leader key from what is seen now.
async fn claim(dcs: &Etcd, who: &str) -> bool {
    let seen = dcs.snapshot().await.unwrap().seen();
    dcs.claim_leader(&name(who), &seen.into()).await.unwrap()
}

/// Keeps the leader key as an agent does: after a look at it.
async fn keep(dcs: &Etcd, who: &str) -> Renewal {
    let seen = dcs.snapshot().await.unwrap().leader_session;
    renew(dcs, who, seen).await.unwrap()
}

/// The same without a look, or after an old one.
async fn renew(dcs: &Etcd, who: &str, seen: Option<i64>) -> Result<Renewal, DcsError> {
    dcs.keep_session(TTL).await?;
    dcs.confirm_leader(&name(who), seen).await
}

async fn leader_of(dcs: &Etcd) -> Option<MemberName> {
    dcs.snapshot().await.unwrap().leader
}

#[test]
fn the_leader_key_has_one_winner_and_can_be_kept_and_given_up() {
    with_scope("leader", async |agents| {
        let (a, b) = (agents.agent(TTL).await, agents.agent(TTL).await);
        assert!(claim(&a, "a").await);
        assert!(claim(&a, "a").await, "its own claim, repeated, is still won");
        assert!(!claim(&b, "b").await);
        assert_eq!(renew(&a, "a", None).await.unwrap(), Renewal::Kept);
        assert_eq!(keep(&a, "a").await, Renewal::Kept);
        assert_eq!(keep(&b, "b").await, Renewal::Lost { holder: Some(name("a")) }, "another's session proves nothing");
        assert_eq!(renew(&b, "b", None).await.unwrap(), Renewal::Lost { holder: Some(name("a")) });
        b.release_leader(&name("b"), None).await.unwrap();
        assert_eq!(leader_of(&b).await, Some(name("a")), "nobody can give up what is not theirs");
        let status = StatusKey { optime: Lsn(77), ..StatusKey::default() };
        a.release_leader(&name("a"), Some(&status)).await.unwrap();
        let snapshot = b.snapshot().await.unwrap();
        assert_eq!((snapshot.leader, snapshot.status.optime), (None, Lsn(77)));
        assert_eq!(renew(&a, "a", None).await.unwrap(), Renewal::Lost { holder: None });
        assert!(claim(&b, "b").await);
    });
}

#[test]
fn a_key_that_another_session_of_the_member_holds_is_not_given_up() {
    with_scope("late-release", async |agents| {
        // The release of an agent that was killed may arrive when the next one leads.
        let (former, present) = (agents.agent(TTL).await, agents.agent(TTL).await);
        assert!(claim(&present, "a").await);
        assert!(former.release_leader(&name("a"), None).await.is_err());
        assert_eq!(leader_of(&present).await, Some(name("a")));
        present.release_leader(&name("a"), None).await.unwrap();
        assert_eq!(leader_of(&present).await, None);
        former.release_leader(&name("a"), None).await.unwrap();
    });
}

#[test]
fn of_many_that_claim_at_once_one_wins() {
    with_scope("race", async |agents| {
        let mut claims = Vec::new();
        for i in 0..8 {
            let agent = Rc::new(agents.agent(TTL).await);
            claims.push(async move { claim(&agent, &format!("n{i}")).await });
        }
        let won = futures_util::future::join_all(claims).await;
        assert_eq!(won.iter().filter(|won| **won).count(), 1);
    });
}

#[test]
fn without_a_session_nothing_is_claimed() {
    with_scope("sessionless", async |agents| {
        let agent = agents.new_agent().await;
        assert!(matches!(agent.claim_leader(&name("a"), &Claim::default()).await, Err(DcsError::SessionLost)));
        assert!(matches!(agent.claim_initialize().await, Err(DcsError::SessionLost)));
        assert!(matches!(agent.put_member(&name("a"), &MemberData::default()).await, Err(DcsError::SessionLost)));
        assert_eq!(leader_of(&agent).await, None);
    });
}

#[test]
fn a_restarted_agent_binds_its_key_to_its_new_session() {
    with_scope("restart", async |agents| {
        let before = agents.agent(SHORT_TTL).await;
        assert!(claim(&before, "a").await);
        let after = agents.agent(TTL).await;
        assert!(!claim(&after, "a").await, "a claim is not how a leader comes back");
        assert_eq!(renew(&after, "a", None).await.unwrap(), Renewal::Kept);
        drop(before);
        sleep(SHORT_TTL * 4).await;
        assert_eq!(leader_of(&after).await, Some(name("a")), "the end of the old session took the key along");
    });
}

#[test]
fn what_is_bound_to_a_session_ends_with_it_and_not_before() {
    with_scope("expiry", async |agents| {
        let (dying, witness) = (agents.agent(Duration::from_secs(2)).await, agents.agent(TTL).await);
        let asked = Instant::now();
        dying.keep_session(Duration::from_secs(2)).await.unwrap();
        dying.put_member(&name("a"), &MemberData { role: MemberRole::Primary, ..MemberData::default() }).await.unwrap();
        assert!(claim(&dying, "a").await);
        let seen = dying.snapshot().await.unwrap().leader_session;
        assert!(dying.claim_initialize().await.unwrap());
        let held = loop {
            let snapshot = witness.snapshot().await.unwrap();
            if snapshot.leader.is_none() && snapshot.members.is_empty() && snapshot.initialize == Initialize::Absent {
                break asked.elapsed();
            }
            assert!(asked.elapsed() < Duration::from_secs(8), "the session does not end: {snapshot:?}");
            sleep(Duration::from_millis(50)).await;
        };
        assert!(held >= Duration::from_secs(2), "it ended after {held:?}, before its time");
        assert!(claim(&witness, "b").await);
        assert_eq!(renew(&dying, "a", seen).await.unwrap(), Renewal::Lost { holder: Some(name("b")) });
    });
}

#[test]
fn a_lost_session_is_noticed_where_it_is_used_and_a_new_one_begins() {
    with_scope("lost", async |agents| {
        let agent = agents.agent(SHORT_TTL).await;
        sleep(SHORT_TTL * 4).await;
        let put = agent.put_member(&name("a"), &MemberData::default()).await;
        assert!(matches!(put, Err(DcsError::SessionLost)), "{put:?}");
        agent.keep_session(TTL).await.unwrap();
        agent.put_member(&name("a"), &MemberData::default()).await.unwrap();
        assert_eq!(agent.snapshot().await.unwrap().members.len(), 1);
        agent.remove_member(&name("a")).await.unwrap();
        assert!(agent.snapshot().await.unwrap().members.is_empty());
    });
}

#[test]
fn only_the_leader_writes_progress_history_and_sync_state() {
    with_scope("guarded", async |agents| {
        let (a, b) = (agents.agent(TTL).await, agents.agent(TTL).await);
        assert!(claim(&a, "a").await);
        let status = StatusKey { optime: Lsn(5), ..StatusKey::default() };
        let history = [HistoryEntry(Timeline(1), Lsn(4), "r".into(), "t".into(), "a".into())];
        assert!(a.put_status(&name("a"), &status).await.unwrap());
        assert!(a.put_history(&name("a"), &history).await.unwrap());
        assert!(!b.put_status(&name("b"), &StatusKey::default()).await.unwrap());
        assert!(!b.put_history(&name("b"), &[]).await.unwrap());
        assert!(!b.put_sync(&name("b"), &SyncState::default(), None).await.unwrap());
        let snapshot = b.snapshot().await.unwrap();
        assert_eq!((snapshot.status, snapshot.history, snapshot.sync_version), (status, history.to_vec(), None));
    });
}

#[test]
fn the_sync_state_changes_only_from_the_version_that_was_seen() {
    with_scope("sync", async |agents| {
        let a = agents.agent(TTL).await;
        let me = name("a");
        assert!(claim(&a, "a").await);
        let state =
            |voters: &[&str]| SyncState { leader: Some("a".into()), quorum: 1, voters: voters.iter().map(|v| (*v).to_owned()).collect() };
        assert!(!a.put_sync(&me, &state(&["b"]), Some(1)).await.unwrap(), "there is no such version yet");
        assert!(a.put_sync(&me, &state(&["b"]), None).await.unwrap());
        assert!(!a.put_sync(&me, &state(&["c"]), None).await.unwrap(), "it is there already");
        assert!(a.put_sync(&me, &state(&["b"]), None).await.unwrap(), "its own write, repeated, has happened");
        let first = a.snapshot().await.unwrap().sync_version;
        assert!(a.put_sync(&me, &state(&["b", "c"]), first).await.unwrap());
        assert!(!a.put_sync(&me, &state(&["d"]), first).await.unwrap(), "somebody has changed it since");
        let snapshot = a.snapshot().await.unwrap();
        assert_eq!(snapshot.sync, state(&["b", "c"]));
        assert_ne!(snapshot.sync_version, first);
    });
}

#[test]
fn a_request_to_hand_over_is_withdrawn_only_from_the_version_that_was_seen() {
    with_scope("failover", async |agents| {
        let a = agents.agent(TTL).await;
        let request = |to: &str| FailoverKey { leader: Some("a".into()), member: Some(to.into()), scheduled_at: None };
        assert!(a.put_failover(&request("b"), None).await.unwrap());
        let seen = a.snapshot().await.unwrap().failover_version;
        assert!(a.put_failover(&request("c"), None).await.unwrap());
        assert!(!a.put_failover(&FailoverKey::default(), seen).await.unwrap(), "a newer request would be lost");
        let snapshot = a.snapshot().await.unwrap();
        assert_eq!(snapshot.failover, Some(request("c")));
        assert!(a.put_failover(&FailoverKey::default(), snapshot.failover_version).await.unwrap());
        let snapshot = a.snapshot().await.unwrap();
        assert!(snapshot.failover.is_none() && snapshot.failover_version.is_some());
    });
}

#[test]
fn the_configuration_is_written_once() {
    with_scope("config", async |agents| {
        let a = agents.new_agent().await;
        assert!(a.put_config_if_absent(&json!({"ttl": 10})).await.unwrap());
        assert!(!a.put_config_if_absent(&json!({"ttl": 20})).await.unwrap());
        assert_eq!(a.snapshot().await.unwrap().config, Some(json!({"ttl": 10})));
    });
}

#[test]
fn the_configuration_is_changed_only_over_the_version_that_was_seen() {
    with_scope("reconfigured", async |agents| {
        let (a, b) = (agents.new_agent().await, agents.new_agent().await);
        a.put_config_if_absent(&json!({"ttl": 10})).await.unwrap();
        let seen = b.snapshot().await.unwrap().config_version.unwrap();
        assert!(a.put_config(&json!({"ttl": 20}), seen).await.unwrap());
        assert!(!b.put_config(&json!({"ttl": 30}), seen).await.unwrap(), "the other change would be lost");
        assert!(a.put_config(&json!({"ttl": 20}), seen).await.unwrap(), "a repeated request finds its own value");
        assert_eq!(b.snapshot().await.unwrap().config, Some(json!({"ttl": 20})));
    });
}

#[test]
fn one_agent_initialises_and_its_identifier_stays() {
    with_scope("initialize", async |agents| {
        let (a, b) = (agents.agent(SHORT_TTL * 2).await, agents.agent(TTL).await);
        assert!(a.claim_initialize().await.unwrap());
        assert!(a.claim_initialize().await.unwrap(), "its own claim, repeated, is still won");
        assert!(!b.claim_initialize().await.unwrap());
        b.release_initialize().await.unwrap();
        assert_eq!(b.snapshot().await.unwrap().initialize, Initialize::InProgress, "nobody withdraws another's claim");
        let id = SystemId(7_398_000_000_000_000_000);
        assert!(!b.record_initialize(SystemId(1_234_567_890)).await.unwrap(), "another's claim stands");
        assert!(a.record_initialize(id).await.unwrap());
        assert!(a.record_initialize(id).await.unwrap(), "recorded again, it is recorded");
        assert!(!b.record_initialize(SystemId(1_234_567_890)).await.unwrap());
        drop(a);
        sleep(SHORT_TTL * 5).await;
        assert_eq!(b.snapshot().await.unwrap().initialize, Initialize::Done(id), "it must not end with the session");
    });
}

#[test]
fn a_claim_to_initialise_can_be_withdrawn() {
    with_scope("withdrawn", async |agents| {
        let (a, b) = (agents.agent(TTL).await, agents.agent(TTL).await);
        assert!(a.claim_initialize().await.unwrap());
        a.release_initialize().await.unwrap();
        assert_eq!(b.snapshot().await.unwrap().initialize, Initialize::Absent);
        assert!(b.claim_initialize().await.unwrap());
    });
}

#[test]
fn an_identifier_is_recorded_where_there_is_none_without_a_claim() {
    with_scope("adopted", async |agents| {
        let a = agents.new_agent().await;
        let id = SystemId(7_398_000_000_000_000_001);
        assert!(a.record_initialize(id).await.unwrap());
        assert_eq!(a.snapshot().await.unwrap().initialize, Initialize::Done(id));
    });
}

#[test]
fn a_change_wakes_those_who_watch_within_milliseconds() {
    with_scope("watch", async |agents| {
        let (a, watcher) = (agents.agent(TTL).await, agents.new_agent().await);
        timeout(BUDGET, watcher.changed()).await.expect("setting the watch up counts as a change");
        for round in 0..5 {
            let waited = async {
                watcher.changed().await;
                Instant::now()
            };
            let written = async {
                sleep(Duration::from_millis(50)).await;
                let before = Instant::now();
                a.put_member(&name("a"), &MemberData { version: round.to_string(), ..MemberData::default() }).await.unwrap();
                before
            };
            let (woken, before) = timeout(BUDGET, async { tokio::join!(waited, written) }).await.expect("the watch is silent");
            let late = woken.saturating_duration_since(before);
            assert!(late < Duration::from_millis(200), "it woke {late:?} after the write");
        }
        assert!(timeout(Duration::from_millis(300), watcher.changed()).await.is_err(), "nothing has changed");
    });
}

#[test]
fn other_scopes_are_not_seen() {
    with_scope("mine", async |agents| {
        let mine = agents.agent(TTL).await;
        let other = Agents { server: agents.server.clone(), scope: "mine-too".into() };
        let theirs = other.agent(TTL).await;
        assert!(claim(&theirs, "x").await);
        assert_eq!(leader_of(&mine).await, None);
    });
}

#[test]
fn a_store_that_stands_still_is_no_answer_within_the_budget_and_no_loss() {
    if !available("etcd") {
        return;
    }
    let server = EtcdServer::start();
    block(async {
        let agent = Etcd::connect(&server.config("frozen"), BUDGET).await.unwrap();
        agent.keep_session(TTL).await.unwrap();
        assert!(claim(&agent, "a").await);
        assert_eq!(keep(&agent, "a").await, Renewal::Kept);
        let seen = agent.snapshot().await.unwrap().leader_session;
        server.freeze();
        for _ in 0..2 {
            let asked = Instant::now();
            let renewal = renew(&agent, "a", seen).await;
            assert!(matches!(renewal, Err(DcsError::NoAnswer(_))), "{renewal:?}");
            assert!(asked.elapsed() < BUDGET + Duration::from_millis(500), "it took {:?}", asked.elapsed());
        }
        server.thaw();
        assert_eq!(renew(&agent, "a", None).await.unwrap(), Renewal::Kept);
    });
}

#[test]
fn a_store_that_restarts_is_no_answer_and_no_loss() {
    if !available("etcd") {
        return;
    }
    let mut server = EtcdServer::start();
    block(async {
        let agent = Etcd::connect(&server.config("restarted"), BUDGET).await.unwrap();
        agent.keep_session(TTL).await.unwrap();
        assert!(claim(&agent, "a").await);
        server.kill();
        let renewal = renew(&agent, "a", None).await;
        assert!(matches!(renewal, Err(DcsError::NoAnswer(_))), "{renewal:?}");
        server.run();
        assert_eq!(renew(&agent, "a", None).await.unwrap(), Renewal::Kept);
        timeout(BUDGET, agent.changed()).await.expect("the watch is set up again");
    });
}

#[test]
fn an_agent_may_be_there_before_the_store() {
    if !available("etcd") {
        return;
    }
    let mut server = EtcdServer::prepare();
    block(async {
        let agent = Etcd::connect(&server.config("early"), BUDGET).await.unwrap();
        assert!(matches!(agent.snapshot().await, Err(DcsError::NoAnswer(_))));
        assert!(matches!(agent.keep_session(TTL).await, Err(DcsError::NoAnswer(_))));
        server.run();
        agent.keep_session(TTL).await.unwrap();
        assert!(claim(&agent, "a").await);
    });
}

#[test]
fn votes_that_another_leader_has_made_stale_win_nothing() {
    with_scope("stale-votes", async |agents| {
        let (a, b) = (agents.agent(TTL).await, agents.agent(TTL).await);
        assert!(claim(&a, "a").await);
        let seen = a.snapshot().await.unwrap().seen();
        let only_me = SyncState { leader: Some("a".into()), ..SyncState::default() };
        assert!(a.put_sync(&name("a"), &only_me, seen.sync_version).await.unwrap());
        a.release_leader(&name("a"), None).await.unwrap();
        assert!(!b.claim_leader(&name("b"), &seen.into()).await.unwrap(), "the voters have changed since");
        assert!(claim(&b, "b").await);
    });
}

#[test]
fn votes_from_before_the_same_leader_led_again_win_nothing() {
    with_scope("terms", async |agents| {
        let (a, b) = (agents.agent(TTL).await, agents.agent(TTL).await);
        let none = b.snapshot().await.unwrap();
        assert_eq!((none.term, none.term_version), (Term(0), None));
        assert!(claim(&a, "a").await);
        a.release_leader(&name("a"), None).await.unwrap();
        let seen = b.snapshot().await.unwrap();
        assert_eq!(seen.term, Term(1));
        // It comes back, leads without changing anything else, and is gone again.
        assert!(claim(&a, "a").await);
        a.release_leader(&name("a"), None).await.unwrap();
        assert!(!b.claim_leader(&name("b"), &seen.seen().into()).await.unwrap(), "somebody has led since");
        assert!(!b.claim_leader(&name("b"), &none.seen().into()).await.unwrap(), "somebody has led since nobody ever had");
        assert!(claim(&b, "b").await);
        assert!(claim(&b, "b").await, "its own claim, repeated, is still won");
        assert_eq!(b.snapshot().await.unwrap().term, Term(3), "a repeated claim is no new term");
    });
}

#[test]
fn a_claim_brings_back_what_the_store_has_lost() {
    with_scope("lost", async |agents| {
        let a = agents.agent(TTL).await;
        let sync = SyncState { leader: Some("b".into()), quorum: 0, voters: ["a".to_owned()].into() };
        let timelines = TimelineKey { reserved: 4, by: "b".into(), begun: Some(Timeline(3)), ..TimelineKey::default() };
        let seen = a.snapshot().await.unwrap();
        let lost = Claim { lost_sync: Some(sync.clone()), lost_timelines: Some(timelines.clone()), ..seen.seen().into() };
        assert!(a.claim_leader(&name("a"), &lost).await.unwrap());
        let now = a.snapshot().await.unwrap();
        assert_eq!((now.leader, now.term, now.term_leader), (Some(name("a")), Term(1), Some(name("a"))));
        assert_eq!((now.sync, now.timelines), (sync, timelines));
        assert!(now.revision > seen.revision, "the store counts its changes");
        a.release_leader(&name("a"), None).await.unwrap();
        assert!(!a.claim_leader(&name("a"), &lost).await.unwrap(), "it was there to be lost once");
    });
}

#[test]
fn a_longer_ttl_holds_from_the_next_renewal_on() {
    with_scope("ttl", async |agents| {
        let agent = agents.agent(SHORT_TTL).await;
        assert!(claim(&agent, "a").await);
        assert_eq!(renew(&agent, "a", None).await.unwrap(), Renewal::Kept);
        sleep(Duration::from_secs(4)).await;
        assert_eq!(leader_of(&agent).await, Some(name("a")), "the key ended with the shorter lease");
    });
}
