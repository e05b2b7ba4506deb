//! What a member promises a leader that the DCS does not answer: not to lead, and to help nobody else to lead, for a while. Pure: both the
//! agent and a model of the world ask here whether a promise may be given.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    api::failsafe::PromiseRequest,
    dcs::snapshot::{MemberData, Snapshot},
    model::MemberName,
    postgres::conninfo::quote,
    sys::clock::Moment,
};

/// The longest promise that is given: whoever asks for more has its settings wrong.
const LONGEST: Duration = Duration::from_secs(3600);

/// A promise. It binds only whoever gave it, and is never taken back before its time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promise {
    /// To whom; `None`: it could not be read again, so it counts as one to somebody else.
    pub leader: Option<MemberName>,
    /// When it was last given, on the clock of whoever gave it.
    pub given: Moment,
    /// Until when.
    pub until: Moment,
    /// Where the leader's PostgreSQL is, as `conn_url`: the DCS forgets its key while the promise still holds.
    pub conn_url: String,
}

impl Promise {
    /// True while it binds.
    pub fn binds(&self, now: Moment) -> bool {
        now < self.until
    }

    /// True when the leader has let its giver off: it has given the key up after a clean end, and writes nothing any more. `cluster` was asked
    /// for at `asked`; what was seen before the promise says nothing of whoever came to lead and ask for it since.
    pub fn is_released(&self, cluster: &Snapshot, asked: Moment) -> bool {
        asked > self.given && cluster.leader.is_none() && cluster.status.final_lsn.is_some()
    }
}

/// How a member that is asked stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stance {
    /// Its server writes, or it is on its way to lead: it has sent a claim, starts a primary, or promotes.
    pub leads: bool,
    /// It is fenced: its vote may have been counted for somebody, and holds as long as it follows nobody.
    pub voted: bool,
    /// Who held the leader key when the DCS last knew somebody, since this agent was started.
    pub leader: Option<MemberName>,
    /// Nobody held it at the last look.
    pub unled: bool,
    /// Who named the voters, where synchronous replication is active.
    pub voters_named_by: Option<String>,
    /// The `primary_conninfo` by which its server streams.
    pub upstream: Option<String>,
}

/// Why no promise is given.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "each variant's sentence is its documentation")]
pub enum Refusal {
    Leading,
    Voted,
    OtherLeads { leader: String },
    PromisedToOther { leader: String },
    Unknown,
    TooLong,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Patroni's words.
            Refusal::Leading => write!(f, "Running as a leader"),
            Refusal::Voted => write!(f, "I have voted, and follow nobody before somebody is elected"),
            Refusal::OtherLeads { leader } => write!(f, "'{leader}' leads, or has led since"),
            Refusal::PromisedToOther { leader } => write!(f, "promised to {leader} not to help anybody else"),
            Refusal::Unknown => write!(f, "I do not know you as the leader: the DCS has not answered me, and I do not stream from you"),
            Refusal::TooLong => write!(f, "nobody is promised more than {} s", LONGEST.as_secs()),
        }
    }
}

/// The promise to give, or why not. `present`: the one that was given last. It counts from now, which is after the request left; whoever
/// asked counts from before that.
pub fn judge(stance: &Stance, present: Option<&Promise>, request: &PromiseRequest, now: Moment) -> Result<Promise, Refusal> {
    if stance.leads {
        return Err(Refusal::Leading);
    }
    if stance.voted {
        return Err(Refusal::Voted);
    }
    if request.ttl > LONGEST {
        return Err(Refusal::TooLong);
    }
    let binding = present.filter(|p| p.binds(now));
    if let Some(other) = binding.filter(|p| p.leader.as_ref() != Some(&request.leader)) {
        let leader = other.leader.as_ref().map_or_else(|| "a leader that is not known any more".to_owned(), |l| format!("'{l}'"));
        return Err(Refusal::PromisedToOther { leader });
    }
    match &stance.leader {
        Some(leader) if *leader != request.leader => return Err(Refusal::OtherLeads { leader: leader.to_string() }),
        // Whoever led after that and is gone again has left its name beside the voters.
        Some(_) => {
            let named = stance.voters_named_by.as_deref().filter(|n| stance.unled && !n.eq_ignore_ascii_case(request.leader.as_str()));
            if let Some(leader) = named {
                return Err(Refusal::OtherLeads { leader: leader.to_owned() });
            }
        }
        None if binding.is_some() || streams_from(stance, &request.conn_url) => {}
        None => return Err(Refusal::Unknown),
    }
    let until = present.filter(|p| p.leader.as_ref() == Some(&request.leader)).map_or(Moment(0), |p| p.until).max(now + request.ttl);
    Ok(Promise { leader: Some(request.leader.clone()), given: now, until, conn_url: request.conn_url.clone() })
}

/// Whoever sends WAL to this member's server is the primary that it knows, whatever the DCS would say: a server follows nobody whose history
/// is not its own.
fn streams_from(stance: &Stance, conn_url: &str) -> bool {
    let member = MemberData { conn_url: conn_url.to_owned(), ..MemberData::default() };
    let (Some((host, port)), Some(upstream)) = (member.postgres_address(), &stance.upstream) else { return false };
    let has = |keyword: String| upstream.split_whitespace().any(|word| word == keyword);
    has(format!("host={}", quote(&host))) && has(format!("port={port}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{dcs::snapshot::StatusKey, model::Lsn};

    const NOW: Moment = Moment(100_000_000_000);
    const TTL: Duration = Duration::from_secs(10);

    fn name(text: &str) -> MemberName {
        text.parse().unwrap()
    }

    fn request() -> PromiseRequest {
        PromiseRequest { leader: name("a"), conn_url: "postgres://h:5432/postgres".into(), api_url: String::new(), ttl: TTL }
    }

    fn follower() -> Stance {
        Stance { leader: Some(name("a")), ..Stance::default() }
    }

    fn given(to: &str, until: Moment) -> Promise {
        Promise { leader: Some(name(to)), given: NOW, until, conn_url: String::new() }
    }

    #[test]
    fn a_follower_promises_the_leader_a_ttl_from_now() {
        let promise = judge(&follower(), None, &request(), NOW).unwrap();
        assert_eq!((promise.leader, promise.until), (Some(name("a")), NOW + TTL));
    }

    #[test]
    fn a_promise_is_never_shortened() {
        let present = given("a", NOW + TTL * 3);
        assert_eq!(judge(&follower(), Some(&present), &request(), NOW).unwrap().until, NOW + TTL * 3);
    }

    #[test]
    fn whoever_leads_or_is_about_to_promises_nothing() {
        let stance = Stance { leads: true, ..follower() };
        assert_eq!(judge(&stance, None, &request(), NOW), Err(Refusal::Leading));
    }

    #[test]
    fn whoever_has_voted_promises_nothing() {
        let stance = Stance { voted: true, ..follower() };
        assert_eq!(judge(&stance, None, &request(), NOW), Err(Refusal::Voted));
    }

    #[test]
    fn nobody_promises_a_leader_that_another_has_followed() {
        let stance = Stance { leader: Some(name("b")), ..Stance::default() };
        assert_eq!(judge(&stance, None, &request(), NOW), Err(Refusal::OtherLeads { leader: "b".into() }));
        // It led and is gone again, so fast that only the voters tell.
        let stance = Stance { unled: true, voters_named_by: Some("b".into()), ..follower() };
        assert_eq!(judge(&stance, None, &request(), NOW), Err(Refusal::OtherLeads { leader: "b".into() }));
    }

    #[test]
    fn the_key_may_expire_while_its_last_holder_is_promised_to() {
        let stance = Stance { unled: true, voters_named_by: Some("A".into()), ..follower() };
        assert!(judge(&stance, Some(&given("a", NOW + TTL)), &request(), NOW).is_ok());
    }

    #[test]
    fn a_promise_to_one_keeps_others_waiting_until_it_ends() {
        let other = given("b", NOW + TTL);
        assert_eq!(judge(&follower(), Some(&other), &request(), NOW), Err(Refusal::PromisedToOther { leader: "'b'".into() }));
        assert!(judge(&follower(), Some(&other), &request(), NOW + TTL).is_ok());
        let unreadable = Promise { leader: None, ..other };
        assert!(judge(&follower(), Some(&unreadable), &request(), NOW).is_err());
    }

    #[test]
    fn an_agent_that_has_not_seen_the_dcs_knows_the_leader_by_its_promise_or_its_stream() {
        let stranger = Stance::default();
        assert_eq!(judge(&stranger, None, &request(), NOW), Err(Refusal::Unknown));
        assert!(judge(&stranger, Some(&given("a", NOW + TTL)), &request(), NOW).is_ok());
        // A promise that has ended says nothing of who has led since.
        assert_eq!(judge(&stranger, Some(&given("a", NOW)), &request(), NOW), Err(Refusal::Unknown));
        let streaming = |conninfo: &str| Stance { upstream: Some(conninfo.to_owned()), ..Stance::default() };
        assert!(judge(&streaming("user=r host=h port=5432 passfile=/p"), None, &request(), NOW).is_ok());
        assert!(judge(&streaming("user=r host=h port=5433 passfile=/p"), None, &request(), NOW).is_err());
        assert!(judge(&streaming("user=r host=hh port=5432 passfile=/p"), None, &request(), NOW).is_err());
    }

    #[test]
    fn a_clean_end_of_the_leader_releases_whoever_promised() {
        let promise = given("a", NOW + TTL);
        let later = NOW + Duration::from_secs(1);
        let mut cluster = Snapshot::default();
        assert!(!promise.is_released(&cluster, later), "the key may just have expired");
        cluster.status = StatusKey { final_lsn: Some(Lsn(7)), ..StatusKey::default() };
        assert!(promise.is_released(&cluster, later));
        assert!(!promise.is_released(&cluster, NOW), "it was promised after this was seen");
        cluster.leader = Some(name("a"));
        assert!(!promise.is_released(&cluster, later), "it leads again");
    }

    #[test]
    fn an_absurd_wish_is_refused() {
        let wish = PromiseRequest { ttl: LONGEST + TTL, ..request() };
        assert_eq!(judge(&follower(), None, &wish, NOW), Err(Refusal::TooLong));
    }
}
