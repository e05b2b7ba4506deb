//! The report of `spilo probe`: what the DCS, the REST API and one real read per member say, at one moment.
//!
//! It is taken inside the cluster's network and read outside of it, so both sides share these types. Nothing is judged here.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::{Lsn, MemberName, Timeline};

/// One look at a cluster from inside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProbeReport {
    /// The cluster's name in the DCS.
    pub scope: String,
    /// Content of the initialize key: empty while somebody bootstraps, then the system identifier.
    pub initialize: Option<String>,
    /// Who holds the leader key.
    pub leader: Option<MemberName>,
    /// Why the DCS could not be read; everything from it is absent then.
    pub dcs_error: Option<String>,
    /// The dynamic configuration, as it is.
    #[serde(default)]
    pub config: Value,
    /// Who may become the leader without losing an acknowledged commit.
    pub sync: Option<SyncReport>,
    /// The leader's position as the DCS has it.
    pub optime: Option<Lsn>,
    /// Timeline history: `[timeline, lsn, reason, timestamp, leader]` each, the last two only where known.
    #[serde(default)]
    pub history: Vec<Value>,
    /// Whether the router that looked sends a client to a primary; `None` when no router looked.
    #[serde(default)]
    pub route: Option<RouteReport>,
    /// Every member with a key in the DCS.
    #[serde(default)]
    pub members: Vec<MemberReport>,
}

/// What becomes of a client of the router's read-write port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteReport {
    /// Why it does not reach a primary; `None`: it does.
    pub error: Option<String>,
}

/// Content of the sync key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncReport {
    /// The leader that wrote it.
    pub leader: Option<MemberName>,
    /// Of the standbys named here, how many may lack an acknowledged commit.
    #[serde(default)]
    pub quorum: Option<u32>,
    /// The synchronous standbys.
    #[serde(default)]
    pub sync_standby: Vec<MemberName>,
}

/// What is known of one member.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MemberReport {
    /// Its name.
    pub name: MemberName,
    /// Where PostgreSQL listens, as a URL without credentials.
    pub conn_url: Option<String>,
    /// Where its REST API listens.
    pub api_url: Option<String>,
    /// Its member key, as it is.
    #[serde(default)]
    pub dcs: Value,
    /// Answer of `GET /patroni`.
    pub rest: Option<RestAnswer>,
    /// Why there is no such answer.
    pub rest_error: Option<String>,
    /// Answer of one real read.
    pub sql: Option<SqlAnswer>,
    /// Why there is no such answer.
    pub sql_error: Option<String>,
}

/// Answer of a member's REST API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RestAnswer {
    /// HTTP status code.
    pub code: u16,
    /// The JSON document.
    #[serde(default)]
    pub body: Value,
}

/// Answer of one real read on a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SqlAnswer {
    /// Whether the server is a standby.
    pub in_recovery: bool,
    /// A primary's write position, a standby's replay position.
    pub lsn: Option<Lsn>,
    /// The timeline it is on.
    pub timeline: Option<Timeline>,
    /// How long the read took, connecting included.
    pub elapsed_ms: u64,
}

/// Answer of `spilo request switchover`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestAnswer {
    /// HTTP status code of the leader's REST API.
    pub code: u16,
    /// Its text.
    pub message: String,
    /// Who leads afterwards.
    pub leader: Option<MemberName>,
    /// How long it took.
    pub elapsed_ms: u64,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_report_reads_as_the_probe_prints_it() {
        let report: ProbeReport = serde_json::from_value(json!({
            "scope": "orders", "initialize": "7398000000000000000", "leader": "orders-1", "dcs_error": null,
            "config": {"ttl": 10}, "sync": {"leader": "orders-1", "quorum": 1, "sync_standby": ["orders-2", "orders-3"]}, "optime": 123,
            "history": [[1, 123, "reason", "ts", "leader"]],
            "members": [{"name": "orders-1", "conn_url": "postgres://orders-1:5432/postgres", "api_url": "http://orders-1:8008/patroni",
                "dcs": {"state": "running"}, "rest": {"code": 200, "body": {"role": "primary"}}, "rest_error": null,
                "sql": {"in_recovery": false, "lsn": 123, "timeline": 1, "elapsed_ms": 3}, "sql_error": null}]
        }))
        .unwrap();
        assert_eq!(report.leader.as_ref().map(MemberName::as_str), Some("orders-1"));
        assert_eq!(report.members[0].sql.as_ref().and_then(|sql| sql.lsn), Some(Lsn(123)));
    }

    #[test]
    fn a_report_without_a_dcs_is_a_report_too() {
        let report: ProbeReport = serde_json::from_value(json!({
            "scope": "orders", "initialize": null, "leader": null, "dcs_error": "no answer within 2 s", "sync": null, "optime": null
        }))
        .unwrap();
        assert!(report.members.is_empty() && report.dcs_error.is_some());
    }
}
