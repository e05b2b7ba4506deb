//! What of the DCS's view is routed to, over time. Pure.

use std::{collections::BTreeMap, time::Duration};

use super::{Member, Routes, haproxy::writer};
use crate::{dcs::snapshot::Snapshot, model::MemberName, sys::clock::Moment};

/// How long a member without a key in the DCS is kept. A member's key ends together with its agent's session, so the moment a primary
/// dies its key goes: taking its server out then would mean a reload in the middle of a failover, and another when it is back. Its
/// health checks say that it is down.
const KEPT: Duration = Duration::from_secs(300);

/// The members of the recent past.
#[derive(Debug, Default)]
pub struct Roster {
    members: BTreeMap<MemberName, (Member, Moment)>,
    writer: Option<MemberName>,
    faults: BTreeMap<MemberName, String>,
}

impl Roster {
    /// Takes in what the DCS says at `now`.
    pub fn update(&mut self, snapshot: &Snapshot, now: Moment) -> Routes {
        for (name, data) in &snapshot.members {
            match Member::from_data(name, data) {
                Ok(member) => {
                    self.faults.remove(name);
                    self.members.insert(name.clone(), (member, now));
                }
                Err(fault) => self.report(name, fault),
            }
        }
        self.members.retain(|_, (_, seen)| now.since(*seen) < KEPT);
        let paused = snapshot.config.as_ref().is_some_and(|c| c["pause"] == true);
        // In a paused cluster the key may run out while the primary stays one.
        if snapshot.leader.is_some() || !paused {
            self.writer = writer(snapshot).cloned();
        }
        let members: BTreeMap<MemberName, Member> = self.members.iter().map(|(name, (member, _))| (name.clone(), member.clone())).collect();
        let writer = self.writer.clone().filter(|name| members.contains_key(name));
        Routes { members, writer }
    }

    /// Says once why a member gets no sessions.
    fn report(&mut self, name: &MemberName, fault: String) {
        if self.faults.get(name) != Some(&fault) {
            tracing::warn!(member = %name, fault, "a member gets no sessions");
            self.faults.insert(name.clone(), fault);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::haproxy::tests::data, *};
    use crate::dcs::snapshot::MemberRole;

    const START: Moment = Moment(1);

    fn snapshot(names: &[&str], leader: Option<&str>) -> Snapshot {
        let mut snapshot = Snapshot { leader: leader.map(|l| l.parse().unwrap()), ..Snapshot::default() };
        for name in names {
            let mut member = data(&format!("{name}:5432"), &format!("{name}:8008"));
            if leader == Some(name) {
                member.role = MemberRole::Primary;
            }
            snapshot.members.insert(name.parse().unwrap(), member);
        }
        snapshot
    }

    fn writer_of(routes: &Routes) -> Option<&str> {
        routes.writer.as_ref().map(MemberName::as_str)
    }

    #[test]
    fn a_member_whose_key_is_gone_stays_for_a_while_but_takes_no_writes() {
        let mut roster = Roster::default();
        let before = roster.update(&snapshot(&["a", "b"], Some("a")), START);
        assert_eq!(writer_of(&before), Some("a"));
        let after = roster.update(&snapshot(&["b"], None), START + Duration::from_secs(10));
        assert_eq!(writer_of(&after), None);
        assert!(!after.needs_reload(&before));
        let much_later = roster.update(&snapshot(&["b"], Some("b")), START + KEPT);
        assert_eq!((much_later.members.len(), writer_of(&much_later)), (1, Some("b")));
    }

    #[test]
    fn a_paused_clusters_primary_keeps_its_sessions_without_the_leader_key() {
        let mut roster = Roster::default();
        roster.update(&snapshot(&["a"], Some("a")), START);
        let mut paused = snapshot(&["a"], None);
        paused.config = Some(json!({"pause": true}));
        assert_eq!(writer_of(&roster.update(&paused, START)), Some("a"));
    }

    #[test]
    fn a_member_with_unusable_addresses_gets_no_sessions() {
        let mut snapshot = snapshot(&["a"], Some("a"));
        snapshot.members.values_mut().for_each(|m| m.api_url = "nonsense".into());
        assert_eq!(Roster::default().update(&snapshot, START), Routes::default());
    }
}
