//! The health checks that load balancers ask for: path → whether this node may be sent such traffic. Pure.

use serde_json::Value;

use super::{NodeStatus, Xlog};
use crate::{
    dcs::{
        snapshot::{MemberRole, PgState},
        tags,
    },
    model::Lsn,
    spec::settings::SyncMode,
    sys::clock::Moment,
};

/// Patroni's default for `maximum_lag_on_failover`.
const DEFAULT_MAXIMUM_LAG: u64 = 1_048_576;

/// A query string, split.
pub type Query<'a> = [(&'a str, String)];

/// Whether the check named by `path` holds. Paths match by what they contain, in this order, so that `/master` still works.
pub fn holds(path: &str, query: &Query<'_>, status: &NodeStatus, now: Moment) -> bool {
    let standby_cluster = status.is_standby_cluster();
    let leads = leads(status, now);
    let has = |word: &str| path.contains(word);
    if has("standby_leader") || has("standby-leader") {
        let role = matches!(status.shown_role(), MemberRole::Replica | MemberRole::StandbyLeader);
        return leads && standby_cluster && role;
    }
    if has("leader") {
        return leads;
    }
    if path == "/" || has("primary") || has("master") || has("read-write") {
        return leads && !standby_cluster;
    }
    if !tags_match(query, status) {
        return false;
    }
    let replica = serves_reads(query, status);
    if has("replica") {
        return replica;
    }
    if has("read-only") && !has("sync") && !has("quorum") {
        return leads || replica;
    }
    if has("health") {
        return status.shown_state() == PgState::Running;
    }
    if !status.sees_dcs(now) {
        return false;
    }
    let sync = is_standby_of(status, SyncMode::On);
    let quorum = is_standby_of(status, SyncMode::Quorum);
    match path {
        "/sync" | "/synchronous" => replica && sync,
        "/quorum" => replica && quorum,
        "/async" | "/asynchronous" => replica && !sync && !quorum,
        "/read-only-sync" | "/read-only-synchronous" => leads || (replica && sync),
        "/read-only-quorum" => leads || (replica && quorum),
        _ => false,
    }
}

/// Whether the agent's loop goes on. A paused cluster is left alone, also by whatever restarts dead agents.
pub fn is_alive(status: &NodeStatus, now: Moment) -> bool {
    status.pause || now < status.loop_alive_until
}

/// Whether this node leads, or has caught up with the leader.
pub fn is_ready(query: &Query<'_>, status: &NodeStatus, now: Moment) -> bool {
    if leads(status, now) {
        return true;
    }
    let streaming = status.replication_state.as_deref() == Some("streaming");
    // What the DCS last said of the leader is worth nothing when it is old; the WAL receiver hears it from the leader itself.
    let heard = status.sees_dcs(now) || status.latest_end_lsn.is_some();
    let (Some(Xlog::Standby { received, replayed, .. }), Some(leader)) = (&status.xlog, status.leader_lsn()) else { return false };
    let position = if value_of(query, "mode") == Some("write") { *received } else { *replayed };
    let allowed = status.setting("maximum_lag_on_failover").unwrap_or(DEFAULT_MAXIMUM_LAG);
    let allowed = value_of(query, "lag").and_then(parse_bytes).unwrap_or(allowed);
    status.shown_state() == PgState::Running && streaming && heard && leader.ahead_of(position) <= allowed
}

/// Whether this member is among the synchronous standbys of this `mode`, while that mode is on.
pub fn is_standby_of(status: &NodeStatus, mode: SyncMode) -> bool {
    status.sync_mode == mode && status.cluster.sync.is_active() && status.cluster.sync.votes(status.name.as_str())
}

fn leads(status: &NodeStatus, now: Moment) -> bool {
    // In a paused cluster nobody promotes, so a primary stays one although the DCS is away.
    if status.pause && !status.sees_dcs(now) {
        return matches!(status.shown_role(), MemberRole::Primary | MemberRole::StandbyLeader);
    }
    status.leads(now)
}

fn serves_reads(query: &Query<'_>, status: &NodeStatus) -> bool {
    let excluded = tags::noloadbalance(&status.tags);
    status.shown_role() == MemberRole::Replica && status.shown_state() == PgState::Running && !excluded && !lags(query, status)
}

/// Whether it is further behind than the request's `lag` allows. An unreadable limit is no limit, as in Patroni.
fn lags(query: &Query<'_>, status: &NodeStatus) -> bool {
    let Some(allowed) = value_of(query, "lag").and_then(parse_bytes) else { return false };
    let Some(leader) = status.leader_lsn() else { return false };
    let replayed = match &status.xlog {
        Some(Xlog::Standby { replayed, .. }) => *replayed,
        _ => Lsn(0),
    };
    leader.ahead_of(replayed) > allowed
}

/// Whether every `tag_KEY=VALUE` of the query is a tag of this member.
fn tags_match(query: &Query<'_>, status: &NodeStatus) -> bool {
    query.iter().filter_map(|(key, value)| Some((key.strip_prefix("tag_")?, value))).all(|(tag, wanted)| match status.tags.get(tag) {
        Some(Value::String(text)) => text == wanted,
        Some(other) => other.to_string().to_lowercase() == *wanted,
        None => false,
    })
}

fn value_of<'a>(query: &'a Query<'_>, key: &str) -> Option<&'a str> {
    query.iter().find(|(k, _)| *k == key).map(|(_, value)| value.as_str())
}

/// Reads an amount of bytes: a number, with an optional unit of PostgreSQL's.
fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let factor = match text[digits..].trim() {
        "" | "B" => 1,
        "kB" => 1 << 10,
        "MB" => 1 << 20,
        "GB" => 1 << 30,
        "TB" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::status::tests::seen_by, *};

    const NOW: Moment = Moment(1000);
    const LATE: Moment = Moment(3000);

    /// The nodes for which `path` holds: leader, voter (quorum standby), plain replica.
    fn who(path: &str, now: Moment, change: impl Fn(&mut NodeStatus)) -> String {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let query: Vec<(&str, String)> = query.split('&').filter_map(|p| p.split_once('=')).map(|(k, v)| (k, v.to_owned())).collect();
        let mut names = String::new();
        for (name, letter) in [("orders-1", 'L'), ("orders-2", 'V'), ("orders-3", 'R')] {
            let mut status = seen_by(name);
            change(&mut status);
            if holds(path, &query, &status, now) {
                names.push(letter);
            }
        }
        names
    }

    #[test]
    fn each_path_selects_its_roles() {
        for (path, expected) in [
            ("/", "L"),
            ("/primary", "L"),
            ("/master", "L"),
            ("/read-write", "L"),
            ("/primary/x", "L"),
            ("/leader", "L"),
            ("/standby-leader", ""),
            ("/standby_leader", ""),
            ("/replica", "VR"),
            ("/read-only", "LVR"),
            ("/health", "LVR"),
            ("/sync", ""),
            ("/quorum", "V"),
            ("/async", "R"),
            ("/asynchronous", "R"),
            ("/read-only-quorum", "LV"),
            ("/read-only-sync", "L"),
            ("/liveness", ""),
            ("/patroni", ""),
            ("/nonsense", ""),
        ] {
            assert_eq!(who(path, NOW, |_| {}), expected, "{path}");
        }
    }

    #[test]
    fn named_synchronous_standbys_answer_to_sync_and_not_to_quorum() {
        let sync = |s: &mut NodeStatus| s.sync_mode = SyncMode::On;
        for (path, expected) in [("/sync", "V"), ("/synchronous", "V"), ("/quorum", ""), ("/async", "R"), ("/read-only-synchronous", "LV")]
        {
            assert_eq!(who(path, NOW, sync), expected, "{path}");
        }
    }

    #[test]
    fn past_its_lease_nobody_leads_but_replicas_still_serve_reads() {
        for (path, expected) in
            [("/primary", ""), ("/leader", ""), ("/replica", "VR"), ("/read-only", "VR"), ("/health", "LVR"), ("/quorum", "")]
        {
            assert_eq!(who(path, LATE, |_| {}), expected, "{path}");
        }
    }

    #[test]
    fn a_paused_cluster_without_its_dcs_is_judged_by_the_local_role() {
        assert_eq!(who("/primary", LATE, |s| s.pause = true), "L");
    }

    #[test]
    fn a_standby_clusters_leader_is_no_primary() {
        let standby = |s: &mut NodeStatus| {
            s.cluster.config = Some(json!({"standby_cluster": {"host": "elsewhere"}}));
            s.xlog = Some(Xlog::Standby { received: Lsn(1), replayed: Lsn(1), replayed_timestamp: None, paused: false });
            if s.is_leader {
                s.role = MemberRole::StandbyLeader;
            }
        };
        for (path, expected) in [("/primary", ""), ("/leader", "L"), ("/standby-leader", "L"), ("/replica", "VR")] {
            assert_eq!(who(path, NOW, standby), expected, "{path}");
        }
    }

    #[test]
    fn replicas_may_be_excluded_by_tag_by_lag_or_by_silence() {
        assert_eq!(who("/replica", NOW, |s| drop(s.tags.insert("noloadbalance".into(), json!(true)))), "");
        assert_eq!(who("/replica?lag=99", NOW, |_| {}), "");
        for enough in ["100", "100B", "1kB", "1MB", "nonsense"] {
            assert_eq!(who(&format!("/replica?lag={enough}"), NOW, |_| {}), "VR", "{enough}");
        }
        assert_eq!(who("/replica?lag=1", NOW, |s| s.cluster.status.optime = Lsn(0)), "VR");
        assert_eq!(who("/replica", NOW, |s| s.xlog = None), "");
    }

    #[test]
    fn a_check_for_tags_needs_all_of_them_except_where_it_asks_for_the_leader() {
        let tagged = |s: &mut NodeStatus| {
            s.tags.insert("zone".into(), json!("a"));
            s.tags.insert("fast".into(), json!(true));
        };
        for (path, expected) in [
            ("/replica?tag_zone=a&tag_fast=true", "VR"),
            ("/replica?tag_zone=b", ""),
            ("/replica?tag_other=a", ""),
            ("/read-only?tag_zone=b", ""),
            ("/primary?tag_zone=b", "L"),
        ] {
            assert_eq!(who(path, NOW, tagged), expected, "{path}");
        }
    }

    #[test]
    fn readiness_is_leading_or_having_caught_up() {
        let ready = |name: &str, query: &[(&str, &str)], change: &dyn Fn(&mut NodeStatus)| {
            let mut status = seen_by(name);
            change(&mut status);
            let query: Vec<(&str, String)> = query.iter().map(|(k, v)| (*k, (*v).to_owned())).collect();
            is_ready(&query, &status, NOW)
        };
        assert!(ready("orders-1", &[], &|_| {}) && ready("orders-2", &[], &|_| {}));
        assert!(!ready("orders-2", &[("lag", "10")], &|_| {}));
        assert!(ready("orders-2", &[("lag", "10"), ("mode", "write")], &|_| {}));
        assert!(!ready("orders-2", &[], &|s| s.replication_state = None));
        assert!(!ready("orders-2", &[], &|s| s.dcs_seen = None));
        assert!(ready("orders-2", &[], &|s| (s.dcs_seen, s.latest_end_lsn) = (None, Some(Lsn(1000)))));
    }

    #[test]
    fn a_loop_that_stood_still_is_not_alive_unless_paused() {
        let mut status = seen_by("orders-2");
        assert!(is_alive(&status, NOW) && !is_alive(&status, LATE));
        status.pause = true;
        assert!(is_alive(&status, LATE));
    }
}
