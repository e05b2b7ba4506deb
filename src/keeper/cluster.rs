//! The cluster as the local agent shows it: who is there, who leads, and what was promised of backups.

use std::time::Duration;

use serde_json::Value;

use crate::{backup::schedule::Node, spec::backup_policy::BackupPolicy, sys::causes};

/// How long the agent may take.
const LIMIT: Duration = Duration::from_secs(5);

/// The cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// Its nodes.
    pub nodes: Vec<Node>,
    /// Where the leader's server is.
    pub leader: Option<(String, u16)>,
    /// What was promised.
    pub policy: BackupPolicy,
}

impl Cluster {
    /// Asks the agent there.
    pub async fn ask(agent: &str) -> Result<Cluster, String> {
        let client = reqwest::Client::builder().no_proxy().timeout(LIMIT).build().map_err(|error| causes::in_one_line(&error))?;
        let get = async |path: &str| -> Result<Value, String> {
            let answer = async { client.get(format!("{agent}{path}")).send().await?.error_for_status()?.json().await };
            answer.await.map_err(|error| causes::in_one_line(&error))
        };
        Ok(Cluster::read(&get("/cluster").await?, &get("/config").await?))
    }

    /// Reads `/cluster` and `/config`.
    fn read(cluster: &Value, config: &Value) -> Cluster {
        let members = cluster["members"].as_array().map_or(&[][..], Vec::as_slice);
        // A cluster that follows another one archives nothing, so no backup of it would become complete.
        let leads = |member: &Value| member["role"] == "leader";
        let node = |member: &Value| {
            let leads = leads(member);
            Some(Node {
                name: member["name"].as_str()?.to_owned(),
                leads,
                streams: !leads && member["state"] == "streaming",
                lag: member["lag"].as_u64(),
            })
        };
        let address = |member: &Value| Some((member["host"].as_str()?.to_owned(), u16::try_from(member["port"].as_u64()?).ok()?));
        Cluster {
            nodes: members.iter().filter_map(node).collect(),
            leader: members.iter().find(|member| leads(member)).and_then(address),
            policy: BackupPolicy::read(config),
        }
    }

    /// Whether this member leads.
    pub fn is_led_by(&self, member: &str) -> bool {
        self.nodes.iter().any(|node| node.leads && node.name == member)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn roles_lags_and_policy_are_read() {
        let cluster = json!({"members": [
            {"name": "orders-1", "role": "leader", "state": "running", "host": "orders-1", "port": 5432, "timeline": 1},
            {"name": "orders-2", "role": "quorum_standby", "state": "streaming", "host": "orders-2", "port": 5432, "lag": 0},
            {"name": "orders-3", "role": "replica", "state": "starting", "lag": "unknown"}
        ], "scope": "orders"});
        let read = Cluster::read(&cluster, &json!({"ttl": 30, "spilo": {"backup": {"keep": 9}}}));
        let node = |name: &str, leads, streams, lag| Node { name: name.to_owned(), leads, streams, lag };
        assert_eq!(
            read.nodes,
            [node("orders-1", true, false, None), node("orders-2", false, true, Some(0)), node("orders-3", false, false, None)]
        );
        assert_eq!((read.leader.as_ref(), read.policy.keep), (Some(&("orders-1".to_owned(), 5432)), 9));
        assert!(read.is_led_by("orders-1") && !read.is_led_by("orders-2"));
        assert_eq!(Cluster::read(&json!({}), &json!({})).nodes, []);
        let follows = json!({"members": [{"name": "orders-1", "role": "standby_leader", "state": "streaming", "lag": 0}]});
        assert!(!Cluster::read(&follows, &json!({})).is_led_by("orders-1"));
    }
}
