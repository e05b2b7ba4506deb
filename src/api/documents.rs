//! The JSON documents of the API, field by field as Patroni has them. Pure.

use serde_json::{Map, Value, json};

use super::{NodeStatus, Xlog, health::is_standby_of};
use crate::{dcs::snapshot::MemberData, model::MemberName, spec::settings::SyncMode, sys::clock::Moment};

/// What this node says of itself: `/patroni` and the body of every health check.
pub fn node(status: &NodeStatus, now: Moment) -> Value {
    let mut doc = Map::new();
    doc.insert("state".into(), json!(status.shown_state()));
    put(&mut doc, "postmaster_start_time", status.postmaster_start_time.as_ref().filter(|_| status.xlog.is_some()));
    doc.insert("role".into(), json!(status.shown_role()));
    put(&mut doc, "server_version", status.server_version);
    put(&mut doc, "xlog", status.xlog.as_ref().map(xlog));
    put(&mut doc, "sync_standby", is_standby_of(status, SyncMode::On).then_some(true));
    put(&mut doc, "quorum_standby", is_standby_of(status, SyncMode::Quorum).then_some(true));
    if status.xlog.is_some() {
        doc.insert("timeline".into(), json!(status.timeline));
        put(&mut doc, "replication_state", status.replication_state.as_ref());
        put(&mut doc, "replication", (!status.replication.is_empty()).then_some(&status.replication));
    }
    put(&mut doc, "trouble", status.trouble.as_ref());
    put(&mut doc, "watchdog_failed", status.watchdog_failed.then_some(true));
    put(&mut doc, "pause", status.pause.then_some(true));
    put(&mut doc, "cluster_unlocked", (status.cluster.leader.is_none() || !status.sees_dcs(now)).then_some(true));
    put(&mut doc, "dcs_last_seen", status.dcs_seen);
    put(&mut doc, "tags", (!status.tags.is_empty()).then_some(&status.tags));
    // Ours: Patroni's members neither say nor read it.
    put(&mut doc, "fenced", status.vote.map(|_| true));
    put(&mut doc, "term", status.vote);
    put(&mut doc, "backup", status.backup.as_ref());
    put(&mut doc, "database_system_identifier", status.system_id.map(|id| id.to_string()));
    if !status.pending_restart.is_empty() {
        doc.insert("pending_restart".into(), json!(true));
        doc.insert("pending_restart_reason".into(), json!(status.pending_restart));
    }
    put(&mut doc, "scheduled_restart", status.scheduled_restart.as_ref());
    doc.insert("patroni".into(), json!({"version": status.version, "scope": status.scope, "name": status.name}));
    Value::Object(doc)
}

/// The cluster as this node last saw it in the DCS: `/cluster`.
pub fn cluster(status: &NodeStatus) -> Value {
    let members: Vec<Value> = status.cluster.members.iter().map(|(name, data)| member(status, name, data)).collect();
    let mut doc = Map::new();
    doc.insert("members".into(), Value::Array(members));
    put(&mut doc, "pause", status.pause.then_some(true));
    if let Some(request) = status.cluster.failover.as_ref().filter(|f| f.scheduled_at.is_some()) {
        let mut scheduled = Map::new();
        put(&mut scheduled, "at", request.scheduled_at.as_ref());
        put(&mut scheduled, "from", request.leader.as_ref());
        put(&mut scheduled, "to", request.member.as_ref());
        doc.insert("scheduled_switchover".into(), Value::Object(scheduled));
    }
    doc.insert("scope".into(), json!(status.scope));
    Value::Object(doc)
}

fn member(status: &NodeStatus, name: &MemberName, data: &MemberData) -> Value {
    let leads = status.cluster.leader.as_ref() == Some(name);
    let mut doc = Map::new();
    doc.insert("name".into(), json!(name));
    doc.insert("role".into(), json!(role_in_cluster(status, name)));
    let state = data.replication_state.as_ref().filter(|_| !leads).map_or_else(|| json!(data.state), |s| json!(s));
    doc.insert("state".into(), state);
    doc.insert("api_url".into(), json!(data.api_url));
    let address = data.postgres_address();
    put(&mut doc, "host", address.as_ref().map(|(host, _)| host));
    put(&mut doc, "port", address.as_ref().map(|(_, port)| port));
    put(&mut doc, "timeline", data.timeline);
    for key in ["pending_restart", "pending_restart_reason", "scheduled_restart"] {
        put(&mut doc, key, data.other.get(key));
    }
    put(&mut doc, "tags", (!data.tags.is_empty()).then_some(&data.tags));
    if !leads {
        let leader = status.cluster.status.optime;
        for (prefix, position) in [("receive_", data.receive_lsn), ("replay_", data.replay_lsn), ("", data.xlog_location)] {
            doc.insert(format!("{prefix}lsn"), position.map_or(json!("unknown"), |lsn| json!(lsn.to_string())));
            doc.insert(format!("{prefix}lag"), position.map_or(json!("unknown"), |lsn| json!(leader.ahead_of(lsn))));
        }
    }
    Value::Object(doc)
}

fn role_in_cluster(status: &NodeStatus, name: &MemberName) -> &'static str {
    if status.cluster.leader.as_ref() == Some(name) {
        return if status.is_standby_cluster() { "standby_leader" } else { "leader" };
    }
    let votes = status.cluster.sync.is_active() && status.cluster.sync.votes(name.as_str());
    match status.sync_mode {
        SyncMode::On if votes => "sync_standby",
        SyncMode::Quorum if votes => "quorum_standby",
        _ => "replica",
    }
}

fn xlog(xlog: &Xlog) -> Value {
    match xlog {
        Xlog::Primary { location } => json!({"location": location}),
        Xlog::Standby { received, replayed, replayed_timestamp, paused } => json!({
            "received_location": received, "replayed_location": replayed, "replayed_timestamp": replayed_timestamp, "paused": paused
        }),
    }
}

fn put<T: serde::Serialize>(doc: &mut Map<String, Value>, key: &str, value: Option<T>) {
    if let Some(value) = value {
        doc.insert(key.to_owned(), json!(value));
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{WalSender, status::tests::seen_by},
        *,
    };

    #[test]
    fn a_primary_describes_itself_as_patroni_does() {
        let mut status = seen_by("orders-1");
        status.replication = vec![WalSender { application_name: "orders-2".into(), sync_state: "quorum".into(), ..WalSender::default() }];
        assert_eq!(
            node(&status, Moment(1000)).to_string(),
            r#"{"state":"running","role":"primary","server_version":170004,"xlog":{"location":1000},"timeline":3,"#.to_owned()
                + r#""replication":[{"usename":"","application_name":"orders-2","client_addr":null,"state":"","sync_state":"quorum","#
                + r#""sync_priority":0}],"dcs_last_seen":1700000000,"patroni":{"version":"4.1.5","scope":"orders","name":"orders-1"}}"#
        );
    }

    #[test]
    fn a_voter_shows_its_positions_and_that_it_votes() {
        let doc = node(&seen_by("orders-2"), Moment(1000));
        assert_eq!(doc["quorum_standby"], true);
        assert_eq!(doc["replication_state"], "streaming");
        assert_eq!(doc["xlog"], json!({"received_location": 1000, "replayed_location": 900, "replayed_timestamp": null, "paused": false}));
        assert_eq!(node(&seen_by("orders-3"), Moment(1000)).get("quorum_standby"), None);
    }

    #[test]
    fn without_an_answer_from_postgresql_there_is_no_xlog_so_peers_leave_it_out_of_the_race() {
        let doc = node(&NodeStatus { xlog: None, ..seen_by("orders-2") }, Moment(1000));
        assert_eq!((doc["state"].as_str(), doc["role"].as_str()), (Some("unknown"), Some("replica")));
        assert_eq!((doc.get("xlog"), doc.get("timeline"), doc.get("replication_state")), (None, None, None));
    }

    #[test]
    fn a_node_that_no_longer_sees_the_dcs_says_that_the_cluster_is_unlocked() {
        let status = seen_by("orders-2");
        assert_eq!(node(&status, Moment(1000)).get("cluster_unlocked"), None);
        assert_eq!(node(&status, Moment(2000))["cluster_unlocked"], true);
    }

    #[test]
    fn the_cluster_lists_members_with_role_address_and_lag() {
        let doc = cluster(&seen_by("orders-3"));
        assert_eq!(
            doc["members"][0].to_string(),
            r#"{"name":"orders-1","role":"leader","state":"running","api_url":"http://orders-1:8008/patroni","host":"orders-1","port":5432,"timeline":3}"#
        );
        assert_eq!(
            doc["members"][1].to_string(),
            r#"{"name":"orders-2","role":"quorum_standby","state":"streaming","api_url":"http://orders-2:8008/patroni","host":"orders-2","#
                .to_owned()
                + r#""port":5432,"timeline":3,"receive_lsn":"0/3E8","receive_lag":0,"replay_lsn":"0/384","replay_lag":100,"lsn":"0/3E8","lag":0}"#
        );
        assert_eq!(doc["members"][2]["role"], "replica");
        assert_eq!(doc["scope"], "orders");
    }

    #[test]
    fn a_member_that_did_not_publish_a_position_has_an_unknown_lag() {
        let mut status = seen_by("orders-1");
        let data = status.cluster.members.get_mut(&"orders-3".parse().unwrap()).unwrap();
        data.xlog_location = None;
        assert_eq!(cluster(&status)["members"][2]["lag"], "unknown");
    }
}
