//! What of the DCS's view is routed to, over time, and of what members say while the DCS names no leader. Pure.

use std::{collections::BTreeMap, time::Duration};

use super::{Member, Routes, claim::Claim, haproxy::writer};
use crate::{
    dcs::snapshot::{Snapshot, SyncState},
    model::MemberName,
    sys::clock::Moment,
};

/// How long a member without a key in the DCS is kept. A member's key ends together with its agent's session, so the moment a primary
/// dies its key goes: taking its server out then would mean a reload in the middle of a failover, and another when it is back. Its
/// health checks say that it is down.
const KEPT: Duration = Duration::from_secs(300);

/// How long who is asked whether it leads on keeps its sessions without an answer: about as long as an agent takes to be started again.
/// Should its machine be gone, those sessions are worth nothing; should somebody else take its place, the DCS says so at once.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// The members of the recent past.
#[derive(Debug, Default)]
pub struct Roster {
    members: BTreeMap<MemberName, (Member, Moment)>,
    writer: Option<MemberName>,
    /// Who held the leader key when anybody did.
    last_leader: Option<MemberName>,
    /// Nobody holds it.
    unled: Option<Unled>,
    faults: BTreeMap<MemberName, String>,
}

/// Nobody holds the leader key, and the cluster is not paused. Whoever led last may still lead, with the consent of everybody who could
/// take its place: it does when it does not reach the DCS itself. Nobody knows but itself, and it knows until when.
#[derive(Debug)]
struct Unled {
    /// Who led last, as far as the DCS and we know. Nobody else's word counts.
    last: MemberName,
    /// When it last said that it leads, or when its key was found to be gone.
    confirmed: Moment,
}

impl Roster {
    /// Takes in what the DCS says at `now`.
    pub fn update(&mut self, snapshot: &Snapshot, now: Moment) {
        for (name, data) in &snapshot.members {
            match Member::from_data(name, data) {
                Ok(member) => {
                    self.faults.remove(name);
                    self.members.insert(name.clone(), (member, now));
                }
                Err(fault) => self.report(name, fault),
            }
        }
        let paused = snapshot.config.as_ref().is_some_and(|c| c["pause"] == true);
        match &snapshot.leader {
            Some(leader) => self.is_led(leader, snapshot, now),
            // In a paused cluster the key may run out while the primary stays one.
            None if paused => self.unled = None,
            None => self.is_unled(&snapshot.sync, now),
        }
    }

    /// Takes in what a member says that was asked whether it leads.
    pub fn hear(&mut self, name: &MemberName, claim: Claim, now: Moment) {
        // Meanwhile the DCS may have said who leads: then that counts.
        let Some(unled) = self.unled.as_mut().filter(|unled| unled.last == *name) else { return };
        match claim {
            Claim::Leads => {
                unled.confirmed = now;
                self.writer = Some(name.clone());
            }
            Claim::Silent if now.since(unled.confirmed) < PATIENCE => {}
            Claim::Silent | Claim::Denied => self.writer = None,
        }
    }

    /// Who is to be asked whether it leads, and where.
    pub fn question(&self) -> Option<(MemberName, Member)> {
        let last = &self.unled.as_ref()?.last;
        self.members.get(last).map(|(member, _)| (last.clone(), member.clone()))
    }

    /// Who the members are and who of them accepts writes.
    pub fn routes(&self) -> Routes {
        let members: BTreeMap<MemberName, Member> = self.members.iter().map(|(name, (member, _))| (name.clone(), member.clone())).collect();
        let writer = self.writer.clone().filter(|name| members.contains_key(name));
        Routes { members, writer }
    }

    /// Somebody's leader key wins over everything that anybody says.
    fn is_led(&mut self, leader: &MemberName, snapshot: &Snapshot, now: Moment) {
        // A primary that did not reach the DCS takes its leader key first and publishes itself a moment later.
        let returns = self.writer.as_ref() == Some(leader) && !snapshot.members.contains_key(leader);
        if !returns {
            self.writer = writer(snapshot).cloned();
        }
        // While nobody leads nobody is forgotten: members that do not reach the DCS come back under their old names.
        self.members.retain(|name, (_, seen)| name == leader || now.since(*seen) < KEPT);
        self.last_leader = Some(leader.clone());
        self.unled = None;
    }

    fn is_unled(&mut self, sync: &SyncState, now: Moment) {
        // Under synchronous replication whoever is going to write says so in the DCS first: that reveals a leader that we have missed.
        let named = sync.leader.as_deref().filter(|name| !name.is_empty()).map(|name| self.called(name));
        let Some(last) = named.unwrap_or_else(|| self.last_leader.clone()) else {
            (self.writer, self.unled) = (None, None);
            return;
        };
        self.writer = self.writer.take().filter(|writer| *writer == last);
        if self.unled.as_ref().is_none_or(|unled| unled.last != last) {
            self.unled = Some(Unled { last, confirmed: now });
        }
    }

    /// The member of that name. Names compare without regard to case, as in PostgreSQL.
    fn called(&self, name: &str) -> Option<MemberName> {
        self.members.keys().find(|member| member.as_str().eq_ignore_ascii_case(name)).cloned()
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
    use crate::dcs::snapshot::{MemberRole, PgState};

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

    fn writer_of(roster: &Roster) -> Option<String> {
        roster.routes().writer.map(|name| name.to_string())
    }

    fn asked(roster: &Roster) -> Option<String> {
        roster.question().map(|(name, _)| name.to_string())
    }

    fn name(text: &str) -> MemberName {
        text.parse().unwrap()
    }

    /// `a` led, and its key and its member key are gone.
    fn unled() -> Roster {
        let mut roster = Roster::default();
        roster.update(&snapshot(&["a", "b"], Some("a")), START);
        roster.update(&snapshot(&["b"], None), START);
        roster
    }

    #[test]
    fn while_somebody_leads_nobody_is_asked() {
        let mut roster = Roster::default();
        roster.update(&snapshot(&["a", "b"], Some("a")), START);
        assert_eq!((writer_of(&roster).as_deref(), asked(&roster)), (Some("a"), None));
        roster.hear(&name("b"), Claim::Leads, START);
        roster.hear(&name("a"), Claim::Denied, START);
        assert_eq!(writer_of(&roster).as_deref(), Some("a"), "an answer that comes late");
    }

    #[test]
    fn who_led_last_takes_writes_without_its_key_as_long_as_it_says_that_it_leads() {
        let mut roster = unled();
        assert_eq!((writer_of(&roster).as_deref(), asked(&roster).as_deref()), (Some("a"), Some("a")), "its sessions outlive the question");
        for hours in 1..9 {
            let now = START + Duration::from_secs(3600 * hours);
            roster.hear(&name("a"), Claim::Leads, now);
            roster.update(&snapshot(&["b"], None), now);
            assert_eq!(writer_of(&roster).as_deref(), Some("a"));
        }
        roster.hear(&name("a"), Claim::Denied, START);
        assert_eq!((writer_of(&roster), asked(&roster).as_deref()), (None, Some("a")));
        roster.update(&snapshot(&["b"], None), START);
        assert_eq!(writer_of(&roster), None);
        roster.hear(&name("a"), Claim::Leads, START);
        assert_eq!(writer_of(&roster).as_deref(), Some("a"), "it has its promises again");
    }

    #[test]
    fn who_does_not_say_whether_it_leads_keeps_its_sessions_for_a_moment() {
        let mut roster = unled();
        let after = |millis| START + PATIENCE + Duration::from_millis(millis);
        roster.hear(&name("a"), Claim::Silent, START + Duration::from_millis(400));
        assert_eq!(writer_of(&roster).as_deref(), Some("a"));
        roster.hear(&name("a"), Claim::Leads, after(0));
        roster.update(&snapshot(&["b"], None), after(0));
        roster.hear(&name("a"), Claim::Silent, after(900));
        assert_eq!(writer_of(&roster).as_deref(), Some("a"), "it counts from its last word");
        roster.hear(&name("a"), Claim::Silent, after(1000));
        assert_eq!(writer_of(&roster), None);
    }

    #[test]
    fn somebody_elses_leader_key_wins_over_every_word() {
        let mut roster = unled();
        roster.hear(&name("a"), Claim::Leads, START);
        let mut promoting = snapshot(&["b"], Some("b"));
        promoting.members.get_mut(&name("b")).unwrap().role = MemberRole::Promoted;
        roster.update(&promoting, START);
        assert_eq!((writer_of(&roster), asked(&roster)), (None, None));
        roster.hear(&name("a"), Claim::Leads, START);
        assert_eq!(writer_of(&roster), None, "an answer that comes late");
        roster.update(&snapshot(&["b"], None), START);
        assert_eq!((writer_of(&roster), asked(&roster).as_deref()), (None, Some("b")), "'a' is not the last one any more");
    }

    #[test]
    fn a_leader_that_was_missed_is_known_from_the_sync_key() {
        let mut roster = Roster::default();
        roster.update(&snapshot(&["a", "B"], Some("a")), START);
        let mut unled = snapshot(&["a"], None);
        let sync = |leader: &str| SyncState { leader: Some(leader.to_owned()), quorum: 1, voters: ["a".to_owned()].into() };
        unled.sync = sync("b");
        roster.update(&unled, START);
        assert_eq!((writer_of(&roster), asked(&roster).as_deref()), (None, Some("B")));
        unled.sync = sync("c");
        roster.update(&unled, START);
        assert_eq!((writer_of(&roster), asked(&roster)), (None, None), "nobody knows where that one is");
    }

    #[test]
    fn a_leader_that_takes_its_key_again_keeps_its_sessions_before_it_is_published() {
        let mut roster = unled();
        let later = START + 2 * KEPT;
        roster.hear(&name("a"), Claim::Leads, later);
        let before = roster.routes();
        roster.update(&Snapshot { leader: Some(name("a")), ..snapshot(&["b"], None) }, later);
        assert_eq!((writer_of(&roster).as_deref(), roster.routes()), (Some("a"), before));
        let mut starting = snapshot(&["a", "b"], Some("a"));
        starting.members.get_mut(&name("a")).unwrap().state = PgState::Starting;
        roster.update(&starting, later);
        assert_eq!(writer_of(&roster), None);
        roster.update(&Snapshot { leader: Some(name("a")), ..snapshot(&["b"], None) }, later);
        assert_eq!(writer_of(&roster), None, "who did not take writes is waited for");
    }

    #[test]
    fn a_member_whose_key_is_gone_stays_for_a_while_but_takes_no_writes() {
        let mut roster = Roster::default();
        roster.update(&snapshot(&["a", "b", "c"], Some("a")), START);
        let before = roster.routes();
        roster.update(&snapshot(&["b"], Some("b")), START + Duration::from_secs(10));
        assert_eq!(writer_of(&roster).as_deref(), Some("b"));
        assert!(!roster.routes().needs_reload(&before));
        roster.update(&snapshot(&["b"], Some("b")), START + KEPT);
        assert_eq!((roster.routes().members.len(), writer_of(&roster).as_deref()), (1, Some("b")));
    }

    #[test]
    fn a_paused_clusters_primary_keeps_its_sessions_without_the_leader_key() {
        let mut roster = Roster::default();
        roster.update(&snapshot(&["a"], Some("a")), START);
        let mut paused = snapshot(&["a"], None);
        paused.config = Some(json!({"pause": true}));
        roster.update(&paused, START);
        assert_eq!((writer_of(&roster).as_deref(), asked(&roster)), (Some("a"), None));
    }

    #[test]
    fn a_member_with_unusable_addresses_gets_no_sessions() {
        let mut snapshot = snapshot(&["a"], Some("a"));
        snapshot.members.values_mut().for_each(|m| m.api_url = "nonsense".into());
        let mut roster = Roster::default();
        roster.update(&snapshot, START);
        assert_eq!(roster.routes(), Routes::default());
    }
}
