//! The distributed configuration store: compare-and-swap verbs and a snapshot of the cluster. Knows nothing of PostgreSQL's processes.

mod config;
mod etcd;
pub mod keys;
mod lease_stream;
mod reading;
pub mod snapshot;
pub mod tags;

use std::{collections::BTreeMap, time::Duration};

pub use config::{DcsConfig, DcsConfigError};
pub use etcd::Etcd;

use crate::model::{MemberName, SystemId};
use snapshot::{Claim, FailoverKey, HistoryEntry, MemberData, Snapshot, StatusKey, SyncState, TimelineKey};

/// No answer, or none that can be relied on.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DcsError {
    /// The store did not answer within its budget. A write may or may not have happened: read again before the next decision.
    #[error("the DCS did not answer: {0}")]
    NoAnswer(String),
    /// The session is gone, and with it every key bound to it.
    #[error("the session in the DCS has ended")]
    SessionLost,
    /// The store refused the request, now and whenever it is repeated.
    #[error("the DCS refused: {0}")]
    Refused(String),
}

/// What came of an attempt to keep the leader key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Renewal {
    /// The key is ours and its lease was extended.
    Kept,
    /// The key is gone or somebody else's: a definite answer.
    Lost {
        /// Who holds it now.
        holder: Option<MemberName>,
    },
}

/// Writes that only the leader makes are guarded: they happen only while the leader key still holds the writer's name.
#[allow(async_fn_in_trait, reason = "one thread per process: no driver has to be Send")]
pub trait Dcs {
    /// Reads the whole cluster, never from a stale replica of the store.
    async fn snapshot(&self) -> Result<Snapshot, DcsError>;

    /// Waits until something below the cluster's prefix changed since the last call, or until the watch had to be set up anew (then
    /// something may have been missed). One caller only, that does not cancel it: a cancelled wait costs the watch.
    async fn changed(&self);

    /// Makes sure there is a session of this `ttl` and extends it. What is bound to it lives at least `ttl` from the moment the request
    /// was *sent*.
    async fn keep_session(&self, ttl: Duration) -> Result<(), DcsError>;

    /// Takes the leader key and begins the next term, if nobody has the key, and neither the term nor the sync key has changed since they were
    /// seen: then nobody has led since, and the votes that the claim rests on still hold. `Ok(true)`: it is ours, bound to the session.
    ///
    /// What the store has lost and the claimant knows comes back with it.
    ///
    /// A member that runs Patroni writes no term. It promises nothing either, so its votes do not count for us; but where it has led and gone
    /// since, only the sync key can tell, which it writes before it promotes and not when it comes back as the leader it was.
    async fn claim_leader(&self, me: &MemberName, claim: &Claim) -> Result<bool, DcsError>;

    /// Proves that the leader key is ours and bound to the session, which was extended just before. A key that carries our name from an
    /// earlier session (the agent was restarted) is bound to the present one.
    ///
    /// `seen` is the session that our leader key was bound to in a snapshot that was asked for together with the extension. Where it is the
    /// present one, that has not ended in between, so neither has the key: then nothing more is asked. What a hand has deleted meanwhile is
    /// seen by the next snapshot, as it would be had it been deleted a moment later.
    async fn confirm_leader(&self, me: &MemberName, seen: Option<i64>) -> Result<Renewal, DcsError>;

    /// Gives the leader key up if it is ours and bound to the session, writing `status` in the same transaction. One that is bound to another
    /// session of this member is an error: it may have been taken since this was decided.
    async fn release_leader(&self, me: &MemberName, status: Option<&StatusKey>) -> Result<(), DcsError>;

    /// Claims the right to initialise the cluster, bound to the session: it ends with whoever claimed it.
    async fn claim_initialize(&self) -> Result<bool, DcsError>;

    /// Records the system identifier for good: over our own claim, or where there is no claim. `Ok(false)`: somebody else's is there.
    async fn record_initialize(&self, id: SystemId) -> Result<bool, DcsError>;

    /// Withdraws our claim to initialise.
    async fn release_initialize(&self) -> Result<(), DcsError>;

    /// Publishes this member, bound to the session.
    async fn put_member(&self, me: &MemberName, data: &MemberData) -> Result<(), DcsError>;

    /// Removes this member's key.
    async fn remove_member(&self, me: &MemberName) -> Result<(), DcsError>;

    /// Writes the leader's progress. Guarded.
    async fn put_status(&self, me: &MemberName, status: &StatusKey) -> Result<bool, DcsError>;

    /// Writes the history of timelines. Guarded.
    async fn put_history(&self, me: &MemberName, history: &[HistoryEntry]) -> Result<bool, DcsError>;

    /// Writes which timelines are taken, if nobody changed it since `seen`. Guarded.
    async fn put_timelines(&self, me: &MemberName, timelines: &TimelineKey, seen: Option<i64>) -> Result<bool, DcsError>;

    /// Writes who may succeed the leader, if nobody changed it since `seen`. Guarded.
    async fn put_sync(&self, me: &MemberName, sync: &SyncState, seen: Option<i64>) -> Result<bool, DcsError>;

    /// Writes whose promises the leader needs to go on without the store, if nobody changed it since `seen`. Guarded.
    async fn put_failsafe(&self, me: &MemberName, members: &BTreeMap<String, String>, seen: Option<i64>) -> Result<bool, DcsError>;

    /// Writes a request to hand over. `seen`: only over this version.
    async fn put_failover(&self, request: &FailoverKey, seen: Option<i64>) -> Result<bool, DcsError>;

    /// Replaces the dynamic configuration, if nobody changed it since `seen`.
    async fn put_config(&self, config: &serde_json::Value, seen: i64) -> Result<bool, DcsError>;

    /// Writes the dynamic configuration if there is none.
    async fn put_config_if_absent(&self, config: &serde_json::Value) -> Result<bool, DcsError>;
}
