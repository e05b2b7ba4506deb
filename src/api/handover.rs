//! Requests to hand over the leadership: what is checked before they are written, and what became of them. Pure.

use serde_json::Value;

use super::{NodeStatus, request::parse_moment};
use crate::{
    dcs::{
        snapshot::{FailoverKey, MemberRole, PgState, Snapshot},
        tags,
    },
    model::MemberName,
    spec::settings::SyncMode,
};

/// Which of the two requests was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandoverKind {
    /// Planned: from a healthy leader.
    Switchover,
    /// Forced: to a candidate.
    Failover,
}

/// What became of a request that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing yet.
    Pending,
    /// Somebody else leads.
    NewLeader(MemberName),
    /// The request was withdrawn and the leader is still the same.
    Withdrawn,
}

impl HandoverKind {
    /// Its name at the start of a sentence.
    pub fn title(self) -> &'static str {
        match self {
            HandoverKind::Switchover => "Switchover",
            HandoverKind::Failover => "Failover",
        }
    }

    /// The word for its success.
    pub fn done(self) -> &'static str {
        match self {
            HandoverKind::Switchover => "switched over",
            HandoverKind::Failover => "failed over",
        }
    }
}

/// Checks a request in Patroni's order and with Patroni's words. `Ok`: what to write. A failover that names the leader is a switchover.
pub fn check_handover(
    kind: HandoverKind,
    body: &Value,
    status: &NodeStatus,
    now: i64,
) -> Result<(HandoverKind, FailoverKey), (u16, String)> {
    let refuse = |code: u16, text: String| Err((code, text));
    let text = |key: &str| body[key].as_str().filter(|t| !t.is_empty()).map(str::to_owned);
    let (leader, candidate) = (text("leader"), text("candidate").or_else(|| text("member")));
    match kind {
        HandoverKind::Failover if candidate.is_none() => {
            return refuse(400, "Failover could be performed only to a specific candidate".into());
        }
        HandoverKind::Switchover if leader.is_none() => {
            return refuse(400, "Switchover could be performed only from a specific leader".into());
        }
        _ => {}
    }
    let scheduled_at = text("scheduled_at");
    if scheduled_at.is_some() {
        match kind {
            HandoverKind::Failover => return refuse(400, "Failover can't be scheduled".into()),
            HandoverKind::Switchover if status.pause => return refuse(400, "Can't schedule switchover in the paused state".into()),
            HandoverKind::Switchover => drop(parse_moment(&body["scheduled_at"], "switchover", now)?),
        }
    }
    if status.pause && candidate.is_none() {
        return refuse(400, format!("{} is possible only to a specific candidate in a paused state", kind.title()));
    }
    if leader == candidate {
        return refuse(400, format!("{} target and source are the same", kind.title()));
    }
    let kind = if leader.is_some() { HandoverKind::Switchover } else { kind };
    if scheduled_at.is_some() {
        // Who may take over is judged in its time.
        return Ok((kind, FailoverKey { leader, member: candidate, scheduled_at }));
    }
    match obstacle(kind, leader.as_deref(), candidate.as_deref(), status) {
        Some(text) => refuse(412, text),
        None => Ok((kind, FailoverKey { leader, member: candidate, scheduled_at: None })),
    }
}

/// Why nobody could take over, as far as the DCS says; the leader asks the candidates themselves before it lets go.
fn obstacle(kind: HandoverKind, leader: Option<&str>, candidate: Option<&str>, status: &NodeStatus) -> Option<String> {
    let cluster = &status.cluster;
    let holder = cluster.leader.as_ref().map(MemberName::as_str);
    if leader.is_some() && leader != holder {
        return Some("leader name does not match".into());
    }
    let named_standbys = status.sync_mode == SyncMode::On;
    let admitted = |name: &str| !named_standbys || cluster.sync.votes(name);
    if let Some(candidate) = candidate
        && !admitted(candidate)
    {
        return Some("candidate name does not match with sync_standby".into());
    }
    let others = |name: &&MemberName| Some(name.as_str()) != holder && candidate.is_none_or(|c| c == name.as_str());
    let candidates: Vec<&MemberName> = cluster.members.keys().filter(others).filter(|n| admitted(n.as_str())).collect();
    let action = kind.title().to_lowercase();
    match (candidates.is_empty(), candidate) {
        (true, Some(_)) => Some("candidate does not exists".into()),
        (true, None) if named_standbys => Some(format!("{action} is not possible: can not find sync_standby")),
        (true, None) => Some(format!("{action} is not possible: cluster does not have members except leader")),
        _ if !candidates.iter().any(|name| may_lead(cluster, name)) => {
            Some(format!("{action} is not possible: no good candidates have been found"))
        }
        _ => None,
    }
}

fn may_lead(cluster: &Snapshot, name: &MemberName) -> bool {
    cluster.members.get(name).is_some_and(|data| data.state == PgState::Running && !tags::nofailover(&data.tags))
}

/// What became of a request, judged by the cluster `before` it was written and `now`. Who asked goes on with its work when it is told of a
/// new leader, so that is one who has promoted, not one who is about to.
pub fn judge_handover(before: &Snapshot, now: &Snapshot) -> Outcome {
    let leads = |name: &MemberName| {
        now.members.get(name).is_some_and(|member| matches!(member.role, MemberRole::Primary | MemberRole::StandbyLeader))
    };
    match &now.leader {
        Some(leader) if Some(leader) != before.leader.as_ref() && leads(leader) => Outcome::NewLeader(leader.clone()),
        Some(leader) if Some(leader) != before.leader.as_ref() => Outcome::Pending,
        // The version tells a request that was withdrawn from one that has not been seen yet.
        Some(_) if now.failover.is_none() && now.failover_version != before.failover_version => Outcome::Withdrawn,
        _ => Outcome::Pending,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::status::tests::seen_by, *};

    fn check(kind: HandoverKind, body: &Value, change: impl Fn(&mut NodeStatus)) -> Result<FailoverKey, (u16, String)> {
        let mut status = seen_by("orders-1");
        change(&mut status);
        check_handover(kind, body, &status, 1_700_000_000_000).map(|(_, key)| key)
    }

    fn refusal(kind: HandoverKind, body: &Value, change: impl Fn(&mut NodeStatus)) -> String {
        let (code, text) = check(kind, body, change).expect_err("it must be refused");
        format!("{code} {text}")
    }

    #[test]
    fn a_switchover_names_the_leader_and_perhaps_a_candidate() {
        let key = check(HandoverKind::Switchover, &json!({"leader": "orders-1", "candidate": "orders-3"}), |_| {}).unwrap();
        assert_eq!(serde_json::to_string(&key).unwrap(), r#"{"leader":"orders-1","member":"orders-3"}"#);
        let key = check(HandoverKind::Switchover, &json!({"leader": "orders-1", "candidate": null}), |_| {}).unwrap();
        assert_eq!(serde_json::to_string(&key).unwrap(), r#"{"leader":"orders-1"}"#);
        let key = check(HandoverKind::Failover, &json!({"leader": "orders-1", "candidate": "orders-2"}), |_| {}).unwrap();
        assert_eq!(key.member.as_deref(), Some("orders-2"));
    }

    #[test]
    fn requests_that_make_no_sense_are_refused_in_patronis_words() {
        use HandoverKind::{Failover, Switchover};
        let pause = |s: &mut NodeStatus| s.pause = true;
        let none = |_: &mut NodeStatus| {};
        assert_eq!(refusal(Failover, &json!({}), none), "400 Failover could be performed only to a specific candidate");
        assert_eq!(refusal(Switchover, &json!({}), none), "400 Switchover could be performed only from a specific leader");
        let scheduled = json!({"leader": "orders-1", "candidate": "orders-2", "scheduled_at": "2030-01-01T00:00Z"});
        assert_eq!(refusal(Failover, &scheduled, none), "400 Failover can't be scheduled");
        assert_eq!(refusal(Switchover, &scheduled, pause), "400 Can't schedule switchover in the paused state");
        let passed = json!({"leader": "orders-1", "scheduled_at": "2020-01-01T00:00Z"});
        assert_eq!(refusal(Switchover, &passed, none), "422 Cannot schedule switchover in the past");
        assert_eq!(
            refusal(Switchover, &json!({"leader": "orders-1", "scheduled_at": "2030-01-01T00:00"}), none).split_once(' ').unwrap().0,
            "400"
        );
        assert_eq!(check(Switchover, &scheduled, none).unwrap().scheduled_at.as_deref(), Some("2030-01-01T00:00Z"));
        let key = check(Failover, &json!({"candidate": "orders-2"}), none).unwrap();
        assert_eq!(serde_json::to_string(&key).unwrap(), r#"{"member":"orders-2"}"#);
        assert_eq!(refusal(Failover, &json!({"candidate": "orders-9"}), none), "412 candidate does not exists");
        assert_eq!(refusal(Failover, &json!({"candidate": "orders-1"}), none), "412 candidate does not exists");
        let to_any = json!({"leader": "orders-1"});
        assert_eq!(refusal(Switchover, &to_any, pause), "400 Switchover is possible only to a specific candidate in a paused state");
        let to_itself = json!({"leader": "orders-1", "candidate": "orders-1"});
        assert_eq!(refusal(Switchover, &to_itself, none), "400 Switchover target and source are the same");
    }

    #[test]
    fn requests_that_cannot_succeed_are_refused_in_patronis_words() {
        let switch = |leader: &str, candidate: Option<&str>, change: &dyn Fn(&mut NodeStatus)| {
            refusal(HandoverKind::Switchover, &json!({"leader": leader, "candidate": candidate}), change)
        };
        let named = |s: &mut NodeStatus| s.sync_mode = SyncMode::On;
        let alone = |s: &mut NodeStatus| s.cluster.members.retain(|name, _| name.as_str() == "orders-1");
        let stopped = |s: &mut NodeStatus| s.cluster.members.values_mut().for_each(|m| m.state = PgState::Stopped);
        let excluded =
            |s: &mut NodeStatus| s.cluster.members.values_mut().for_each(|m| drop(m.tags.insert("nofailover".into(), json!(true))));
        assert_eq!(switch("orders-2", None, &|_| {}), "412 leader name does not match");
        assert_eq!(switch("orders-1", Some("orders-3"), &named), "412 candidate name does not match with sync_standby");
        assert_eq!(switch("orders-1", Some("orders-9"), &|_| {}), "412 candidate does not exists");
        let impossible = "412 switchover is not possible: ";
        assert_eq!(switch("orders-1", None, &|s| (named(s), alone(s)).1), format!("{impossible}can not find sync_standby"));
        assert_eq!(switch("orders-1", None, &alone), format!("{impossible}cluster does not have members except leader"));
        assert_eq!(switch("orders-1", None, &stopped), format!("{impossible}no good candidates have been found"));
        assert_eq!(switch("orders-1", Some("orders-2"), &excluded), format!("{impossible}no good candidates have been found"));
    }

    #[test]
    fn the_outcome_is_read_from_the_leader_and_the_requests_version() {
        let before = seen_by("orders-1").cluster;
        assert_eq!(judge_handover(&before, &before), Outcome::Pending);
        let mut now = before.clone();
        (now.failover, now.failover_version) = (Some(FailoverKey { leader: Some("orders-1".into()), ..FailoverKey::default() }), Some(5));
        assert_eq!(judge_handover(&before, &now), Outcome::Pending);
        now.leader = None;
        assert_eq!(judge_handover(&before, &now), Outcome::Pending);
        (now.failover, now.failover_version) = (None, Some(6));
        assert_eq!(judge_handover(&before, &now), Outcome::Pending);
        now.leader = before.leader.clone();
        assert_eq!(judge_handover(&before, &now), Outcome::Withdrawn);
        let successor: MemberName = "orders-2".parse().unwrap();
        now.leader = Some(successor.clone());
        assert_eq!(judge_handover(&before, &now), Outcome::Pending, "it takes no writes yet");
        now.members.get_mut(&successor).unwrap().role = MemberRole::Primary;
        assert_eq!(judge_handover(&before, &now), Outcome::NewLeader("orders-2".parse().unwrap()));
    }
}
