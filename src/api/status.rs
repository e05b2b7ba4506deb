//! What the agent publishes about itself, and what the API asks of it. Every answer is made from this alone, so a PostgreSQL or a DCS that
//! hangs never makes the API hang.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::oneshot;

use crate::{
    api::{
        backup_status::BackupStatus,
        change::{Change, Changed},
        failsafe::PromiseRequest,
        request::{Request, Restart},
    },
    dcs::snapshot::{FailoverKey, MemberRole, PgState, Snapshot},
    model::{Lsn, MemberName, SystemId, Term, Timeline},
    spec::{settings::SyncMode, standby_cluster},
    sys::clock::Moment,
};

/// A request that only the agent's shell can carry out.
#[derive(Debug)]
pub enum ApiRequest {
    /// Write this request to hand over into the DCS and wake the loop. It has been checked; the answer says whether it was written, or why
    /// not. Whoever asked then watches the published status for the outcome.
    Handover {
        /// What to write.
        key: FailoverKey,
        /// Told when the key is written.
        answer: oneshot::Sender<Result<(), String>>,
    },
    /// Take back the request to hand over that was seen in this version.
    Withdraw {
        /// The version.
        seen: i64,
        /// Told whether it was taken back; `false`: it had changed meanwhile.
        answer: oneshot::Sender<Result<bool, String>>,
    },
    /// Change the dynamic configuration, unless the change has a mistake.
    Configure {
        /// What to change.
        change: Change,
        /// What came of it.
        answer: oneshot::Sender<Changed>,
    },
    /// Decide and do something, now.
    Ask {
        /// What.
        request: Request,
        /// Status code and sentence for whoever asked.
        answer: oneshot::Sender<(u16, String)>,
    },
    /// Restart PostgreSQL later.
    Schedule {
        /// When, in milliseconds since 1970.
        at: i64,
        /// What.
        restart: Restart,
        /// The request as it came.
        body: Map<String, Value>,
        /// Status code and sentence for whoever asked.
        answer: oneshot::Sender<(u16, String)>,
    },
    /// Do not restart later.
    Unschedule {
        /// Status code and sentence for whoever asked.
        answer: oneshot::Sender<(u16, String)>,
    },
    /// Read the local configuration again.
    Reload,
    /// Promise a leader not to lead in its place. The answer says that it is promised, or why not.
    Promise {
        /// Whom, and for how long.
        request: PromiseRequest,
        /// Told when the promise is kept safe.
        answer: oneshot::Sender<Result<(), String>>,
    },
    /// Observe PostgreSQL now. Members that count each other's positions in a leader race must not count yesterday's.
    Observe {
        /// The status with what PostgreSQL says at this moment.
        answer: oneshot::Sender<Arc<NodeStatus>>,
    },
}

/// The agent's published state at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// This member.
    pub name: MemberName,
    /// The cluster.
    pub scope: String,
    /// Version of Patroni's protocol that the agent speaks.
    pub version: String,
    /// State of PostgreSQL.
    pub state: PgState,
    /// Role of PostgreSQL, as last known.
    pub role: MemberRole,
    /// Set by the last successful claim or renewal of the leader key.
    pub is_leader: bool,
    /// Until when `is_leader` counts: the lease deadline. A node past it must not be sent a write, whatever it believes.
    pub leader_until: Option<Moment>,
    /// Until when the agent's loop counts as alive, unless it publishes again.
    pub loop_alive_until: Moment,
    /// When the DCS was last read, in seconds since 1970.
    pub dcs_seen: Option<u64>,
    /// Until when what was read from the DCS counts as fresh.
    pub dcs_fresh_until: Moment,
    /// PostgreSQL's version as a number, such as 170004.
    pub server_version: Option<u32>,
    /// When the postmaster started, as PostgreSQL prints it.
    pub postmaster_start_time: Option<String>,
    /// PostgreSQL's timeline.
    pub timeline: Option<Timeline>,
    /// WAL positions; `None` when PostgreSQL did not answer, and peers then leave this member out of the leader race.
    pub xlog: Option<Xlog>,
    /// The end of the leader's WAL as the WAL receiver last heard of it.
    pub latest_end_lsn: Option<Lsn>,
    /// `streaming` or `in archive recovery`.
    pub replication_state: Option<String>,
    /// Who streams from this member.
    pub replication: Vec<WalSender>,
    /// PostgreSQL's system identifier.
    pub system_id: Option<SystemId>,
    /// The term under which this standby is fenced: it acknowledges nothing any more to whoever led before. Known only where PostgreSQL was
    /// asked for this very answer.
    pub vote: Option<Term>,
    /// The member's tags.
    pub tags: Map<String, Value>,
    /// Parameters that wait for a restart, each as `{"old_value", "new_value"}`.
    pub pending_restart: Map<String, Value>,
    /// The body of the request for a restart that is to come.
    pub scheduled_restart: Option<Map<String, Value>>,
    /// What an operator has to see to, such as `disk full`.
    pub trouble: Option<String>,
    /// A watchdog device is required, and there is none that works.
    pub watchdog_failed: bool,
    /// How the backups are, where a keeper sees to them. Only who asks for it is told: it is read when it is asked for.
    pub backup: Option<BackupStatus>,
    /// Whether the cluster is paused.
    pub pause: bool,
    /// Whether and how commits wait for replicas.
    pub sync_mode: SyncMode,
    /// The cluster as last read from the DCS.
    pub cluster: Snapshot,
}

/// Positions in the WAL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Xlog {
    /// Of a server that is not in recovery.
    Primary {
        /// The write position.
        location: Lsn,
    },
    /// Of a server in recovery.
    Standby {
        /// Received; the replayed position where nothing is received.
        received: Lsn,
        /// Replayed.
        replayed: Lsn,
        /// Commit time of the last replayed transaction, as PostgreSQL prints it.
        replayed_timestamp: Option<String>,
        /// Whether replay is paused.
        paused: bool,
    },
}

/// One row of `pg_stat_replication`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalSender {
    /// The role it logged in as.
    pub usename: String,
    /// The member's name.
    pub application_name: String,
    /// Where it comes from; `None` for a unix socket.
    pub client_addr: Option<String>,
    /// `streaming`, `catchup`, …
    pub state: String,
    /// `async`, `sync`, `quorum`, `potential`.
    pub sync_state: String,
    /// Its priority among the synchronous standbys.
    pub sync_priority: i32,
}

impl NodeStatus {
    /// A member of which nothing is known yet: it serves nobody, but its loop counts as alive until `alive_until`.
    pub fn unknown(name: MemberName, scope: &str, version: &str, alive_until: Moment) -> NodeStatus {
        NodeStatus {
            name,
            scope: scope.to_owned(),
            version: version.to_owned(),
            state: PgState::Stopped,
            role: MemberRole::Uninitialized,
            is_leader: false,
            leader_until: None,
            loop_alive_until: alive_until,
            dcs_seen: None,
            dcs_fresh_until: Moment(0),
            server_version: None,
            postmaster_start_time: None,
            timeline: None,
            xlog: None,
            latest_end_lsn: None,
            replication_state: None,
            replication: Vec::new(),
            system_id: None,
            vote: None,
            tags: Map::new(),
            pending_restart: Map::new(),
            scheduled_restart: None,
            trouble: None,
            watchdog_failed: false,
            backup: None,
            pause: false,
            sync_mode: SyncMode::Off,
            cluster: Snapshot::default(),
        }
    }

    /// Whether it holds a lease that has not run out at `now`.
    pub fn leads(&self, now: Moment) -> bool {
        self.is_leader && self.leader_until.is_some_and(|until| now < until)
    }

    /// Whether what it knows of the DCS is recent.
    pub fn sees_dcs(&self, now: Moment) -> bool {
        self.dcs_seen.is_some() && now < self.dcs_fresh_until
    }

    /// The state as the API shows it: a server that is said to run but does not answer is `unknown`.
    pub fn shown_state(&self) -> PgState {
        if self.state == PgState::Running && self.xlog.is_none() { PgState::Unknown } else { self.state }
    }

    /// The role as the API shows it: what the running server says of itself, else what is last known.
    pub fn shown_role(&self) -> MemberRole {
        match &self.xlog {
            Some(Xlog::Primary { .. }) => MemberRole::Primary,
            Some(Xlog::Standby { .. }) if !self.is_standby_cluster() => MemberRole::Replica,
            _ => self.role,
        }
    }

    /// Whether the whole cluster follows another one.
    pub fn is_standby_cluster(&self) -> bool {
        self.cluster.config.as_ref().is_some_and(|config| standby_cluster::read(config).is_some())
    }

    /// The furthest position of the leader that this member has heard of; `None` when it has not.
    pub fn leader_lsn(&self) -> Option<Lsn> {
        self.latest_end_lsn.max(Some(self.cluster.status.optime)).filter(|lsn| lsn.0 > 0)
    }

    /// A number of the dynamic configuration.
    pub fn setting(&self, key: &str) -> Option<u64> {
        self.cluster.config.as_ref().and_then(|c| c.get(key)).and_then(Value::as_u64)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    /// A healthy three-node cluster seen by `orders-1` (which leads) or another of its members, at moment 1000.
    pub(crate) fn seen_by(name: &str) -> NodeStatus {
        let leads = name == "orders-1";
        let cluster = Snapshot {
            config: Some(json!({"ttl": 10, "loop_wait": 2, "synchronous_mode": "quorum"})),
            leader: Some("orders-1".parse().unwrap()),
            members: ["orders-1", "orders-2", "orders-3"].into_iter().map(|n| (n.parse().unwrap(), member(n))).collect(),
            status: serde_json::from_value(json!({"optime": 1000})).unwrap(),
            sync: serde_json::from_value(json!({"leader": "orders-1", "quorum": 0, "sync_standby": "orders-2"})).unwrap(),
            ..Snapshot::default()
        };
        let xlog = if leads {
            Xlog::Primary { location: Lsn(1000) }
        } else {
            Xlog::Standby { received: Lsn(1000), replayed: Lsn(900), replayed_timestamp: None, paused: false }
        };
        NodeStatus {
            state: PgState::Running,
            role: if leads { MemberRole::Primary } else { MemberRole::Replica },
            is_leader: leads,
            leader_until: leads.then_some(Moment(2000)),
            dcs_seen: Some(1_700_000_000),
            dcs_fresh_until: Moment(2000),
            server_version: Some(170_004),
            timeline: Some(Timeline(3)),
            xlog: Some(xlog),
            replication_state: (!leads).then(|| "streaming".to_owned()),
            sync_mode: SyncMode::Quorum,
            cluster,
            ..NodeStatus::unknown(name.parse().unwrap(), "orders", "4.1.5", Moment(2000))
        }
    }

    fn member(name: &str) -> crate::dcs::snapshot::MemberData {
        let leads = name == "orders-1";
        serde_json::from_value(json!({
            "conn_url": format!("postgres://{name}:5432/postgres"), "api_url": format!("http://{name}:8008/patroni"), "state": "running",
            "role": if leads { "primary" } else { "replica" }, "version": "4.1.5", "timeline": 3, "xlog_location": 1000,
            "receive_lsn": if leads { None } else { Some(1000) }, "replay_lsn": if leads { None } else { Some(900) },
            "replication_state": if leads { None } else { Some("streaming") }
        }))
        .unwrap()
    }

    #[test]
    fn a_lease_counts_only_before_its_deadline() {
        let status = seen_by("orders-1");
        assert!(status.leads(Moment(1999)) && !status.leads(Moment(2000)));
    }

    #[test]
    fn a_running_server_that_does_not_answer_is_shown_as_unknown() {
        let silent = NodeStatus { xlog: None, ..seen_by("orders-2") };
        assert_eq!((silent.shown_state(), silent.shown_role()), (PgState::Unknown, MemberRole::Replica));
    }

    #[test]
    fn the_leaders_position_is_unknown_while_nothing_was_heard_of_it() {
        let mut status = seen_by("orders-2");
        status.cluster.status.optime = Lsn(0);
        assert_eq!(status.leader_lsn(), None);
        status.latest_end_lsn = Some(Lsn(7));
        assert_eq!(status.leader_lsn(), Some(Lsn(7)));
    }
}
