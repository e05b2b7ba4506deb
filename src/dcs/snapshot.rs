//! What the store says of a cluster at one moment, in Patroni's formats. A value that cannot be read counts as empty, as Patroni has it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::model::{Lsn, MemberName, SystemId, Term, Timeline};

/// The whole cluster.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Whether and as what the cluster has been initialised.
    pub initialize: Initialize,
    /// The dynamic configuration, if there is a readable one.
    pub config: Option<Value>,
    /// Version of the configuration's key, readable or not.
    pub config_version: Option<i64>,
    /// Who holds the leader key.
    pub leader: Option<MemberName>,
    /// The session that the leader key is bound to, by the store's own number.
    pub leader_session: Option<i64>,
    /// Members with a live session.
    pub members: BTreeMap<MemberName, MemberData>,
    /// The leader's last known progress.
    pub status: StatusKey,
    /// Who may succeed the leader under synchronous replication.
    pub sync: SyncState,
    /// Version of the sync key, `None` while there is none.
    pub sync_version: Option<i64>,
    /// How often somebody has taken the leader key.
    pub term: Term,
    /// Who took it last.
    pub term_leader: Option<MemberName>,
    /// Version of the term key, `None` while there is none.
    pub term_version: Option<i64>,
    /// Whose promises the leader needs to go on without the store, with their `api_url`s; without synchronous replication nobody else may
    /// succeed it. `None`: there is no such key, and anybody may.
    pub failsafe: Option<BTreeMap<String, String>>,
    /// Version of the failsafe key, `None` while there is none.
    pub failsafe_version: Option<i64>,
    /// A request to hand over.
    pub failover: Option<FailoverKey>,
    /// Version of the failover key.
    pub failover_version: Option<i64>,
    /// Past timelines.
    pub history: Vec<HistoryEntry>,
    /// The numbers that timelines have taken.
    pub timelines: TimelineKey,
    /// Version of that key, `None` while there is none.
    pub timelines_version: Option<i64>,
    /// The store's own count of its changes, of whatever cluster.
    pub revision: i64,
    /// Keys whose value makes no sense: what stands above for them says nothing.
    pub unreadable: BTreeSet<String>,
}

impl Snapshot {
    /// What a claim of the leader key that is decided upon from this rests on.
    pub fn seen(&self) -> Seen {
        Seen { sync_version: self.sync_version, term_version: self.term_version, term: self.term }
    }
}

/// What was seen of a cluster without a leader when it was decided to claim the leader key. Should anybody have led since, it is no more so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// Version of the sync key, `None` while there was none.
    pub sync_version: Option<i64>,
    /// Version of the term key, `None` while there was none.
    pub term_version: Option<i64>,
    /// The term; the claim begins a later one.
    pub term: Term,
}

/// A claim of the leader key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claim {
    /// What it rests on.
    pub seen: Seen,
    /// Who might be elected before the store lost it: written in the same step, so that there is no moment at which anybody may.
    pub lost_sync: Option<SyncState>,
    /// The numbers that timelines had taken, likewise.
    pub lost_timelines: Option<TimelineKey>,
}

impl From<Seen> for Claim {
    fn from(seen: Seen) -> Claim {
        Claim { seen, ..Claim::default() }
    }
}

/// The `term` key: ours, and unknown to Patroni, which passes over it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TermKey {
    /// The term's number.
    pub term: Term,
    /// Who began it.
    pub leader: MemberName,
}

/// The `initialize` key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Initialize {
    /// Nobody has initialised the cluster.
    #[default]
    Absent,
    /// Somebody is at it.
    InProgress,
    /// It exists.
    Done(SystemId),
}

/// State of a member's PostgreSQL, in Patroni's words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PgState {
    /// initdb is running.
    #[serde(rename = "initializing new cluster")]
    Initializing,
    /// initdb did not succeed.
    #[serde(rename = "initdb failed")]
    InitdbFailed,
    /// A copy of another member is being made.
    #[serde(rename = "creating replica")]
    CreatingReplica,
    /// It answers.
    #[serde(rename = "running")]
    Running,
    /// It was started and does not answer yet.
    #[serde(rename = "starting")]
    Starting,
    /// It could not be started.
    #[serde(rename = "start failed")]
    StartFailed,
    /// It was stopped to be started again.
    #[serde(rename = "restarting")]
    Restarting,
    /// It was told to stop.
    #[serde(rename = "stopping")]
    Stopping,
    /// It is not running, as it should be.
    #[serde(rename = "stopped")]
    Stopped,
    /// It ended by itself.
    #[serde(rename = "crashed")]
    Crashed,
    /// Anything else, from another agent's vocabulary.
    #[default]
    #[serde(other, rename = "unknown")]
    Unknown,
}

/// A member's role, in Patroni's words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberRole {
    /// It accepts writes.
    #[serde(alias = "master")]
    Primary,
    /// It follows.
    #[default]
    Replica,
    /// It leads a standby cluster.
    StandbyLeader,
    /// It was primary and is being taken down.
    Demoted,
    /// It has been told to promote and is not yet writable.
    Promoted,
    /// It has no data.
    #[serde(other)]
    Uninitialized,
}

/// The value of a member's key. Fields in Patroni's order.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MemberData {
    /// `postgres://host:port/database`, without credentials.
    #[serde(default)]
    pub conn_url: String,
    /// `http://host:port/patroni`.
    #[serde(default)]
    pub api_url: String,
    /// State of PostgreSQL.
    #[serde(default)]
    pub state: PgState,
    /// Role of PostgreSQL.
    #[serde(default)]
    pub role: MemberRole,
    /// Version of Patroni's protocol that the agent speaks.
    #[serde(default)]
    pub version: String,
    /// `false` on a leader that has not yet completed a checkpoint on its timeline: not a source for pg_rewind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_after_promote: Option<bool>,
    /// Tags.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub tags: Map<String, Value>,
    /// Primary: flushed position; replica: received or replayed, whichever is further.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xlog_location: Option<Lsn>,
    /// Replica: replayed position.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay_lsn: Option<Lsn>,
    /// Replica: received position.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receive_lsn: Option<Lsn>,
    /// `streaming` or `in archive recovery`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replication_state: Option<String>,
    /// Timeline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeline: Option<Timeline>,
    /// True once the member has seen that the cluster is paused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<bool>,
    /// Whatever else another agent published.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl MemberData {
    /// True when it can be followed and copied as the leader: as a primary, or as the leader of a standby cluster.
    pub fn is_ready_leader(&self) -> bool {
        matches!(self.role, MemberRole::Primary | MemberRole::StandbyLeader) && self.state == PgState::Running
    }

    /// True when this parameter of it waits for a restart.
    pub fn waits_for_restart(&self, parameter: &str) -> bool {
        self.other.get("pending_restart_reason").is_some_and(|reasons| reasons.get(parameter).is_some())
    }

    /// True when nothing but WAL positions lies between `old` and this.
    pub fn is_progress_of(&self, old: &MemberData) -> bool {
        let still = |m: &MemberData| MemberData { xlog_location: None, replay_lsn: None, receive_lsn: None, ..m.clone() };
        still(self) == still(old)
    }

    /// Host and port of PostgreSQL, from `conn_url`.
    pub fn postgres_address(&self) -> Option<(String, u16)> {
        let rest = self.conn_url.split_once("://")?.1;
        let authority = rest.split('/').next()?;
        let (host, port) = authority.rsplit('@').next()?.rsplit_once(':')?;
        Some((host.trim_matches(['[', ']']).to_owned(), port.parse().ok()?))
    }
}

/// The `status` key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusKey {
    /// The leader's WAL position.
    #[serde(default)]
    pub optime: Lsn,
    /// Positions of replication slots.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub slots: BTreeMap<String, Lsn>,
    /// Slots of members that are away but may return.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retain_slots: Vec<String>,
    /// Ours, unknown to Patroni: the leader that wrote this has shut down cleanly, and wrote nothing after this position. Gone as soon as
    /// somebody leads again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub final_lsn: Option<Lsn>,
    /// Ours: the timeline of `final_lsn`. A position says nothing without it: what another timeline has beyond that position never
    /// belonged to the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub final_timeline: Option<Timeline>,
}

impl StatusKey {
    /// True when the last leader shut down cleanly and a standby at this position of this timeline has all that it wrote.
    pub fn is_complete_at(&self, timeline: Timeline, position: Lsn) -> bool {
        self.final_timeline == Some(timeline) && self.final_lsn.is_some_and(|last| position >= last)
    }
}

/// The `sync` key: who may succeed the leader.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncState {
    /// The leader that wrote it; `None`: synchronous replication is not active.
    pub leader: Option<String>,
    /// How many other voters a candidate needs. Patroni before 4 does not write it.
    #[serde(default, deserialize_with = "null_as_default")]
    pub quorum: u32,
    /// The voters.
    #[serde(default, rename = "sync_standby", with = "comma_list")]
    pub voters: BTreeSet<String>,
}

impl SyncState {
    /// True while a leader has declared who may succeed it.
    pub fn is_active(&self) -> bool {
        self.leader.as_deref().is_some_and(|l| !l.is_empty())
    }

    /// True when `name` may succeed the leader, or is the leader. Names compare without regard to case, as in PostgreSQL.
    pub fn admits(&self, name: &str) -> bool {
        self.leader.as_deref().is_some_and(|l| l.eq_ignore_ascii_case(name)) || self.votes(name)
    }

    /// True when `name` is among the voters.
    pub fn votes(&self, name: &str) -> bool {
        self.voters.iter().any(|v| v.eq_ignore_ascii_case(name))
    }
}

/// The `failover` key: a request to hand over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailoverKey {
    /// The leader that should hand over (switchover), if given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
    /// The candidate, if given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
    /// When, if not at once: ISO 8601.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled_at: Option<String>,
}

impl FailoverKey {
    /// True when it asks for nothing.
    pub fn is_empty(&self) -> bool {
        let blank = |field: &Option<String>| field.as_deref().unwrap_or_default().is_empty();
        blank(&self.leader) && blank(&self.member)
    }

    /// When it is to be carried out, in milliseconds since 1970; `None`: at once. `Err`: nobody can tell.
    pub fn due(&self) -> Option<Result<i64, jiff::Error>> {
        let text = self.scheduled_at.as_deref().filter(|text| !text.is_empty())?;
        Some(text.parse::<jiff::Timestamp>().map(|moment| moment.as_millisecond()))
    }
}

/// The `timeline` key, which is ours and unknown to Patroni: which numbers are taken. Two promotions that took one number would be two
/// histories under one name, and nothing in PostgreSQL would notice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelineKey {
    /// The highest number that anybody may have begun: taken before the promotion, and never given back.
    #[serde(default)]
    pub reserved: u32,
    /// Who took it.
    #[serde(default)]
    pub by: String,
    /// The timeline on which a leader was last seen to write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun: Option<Timeline>,
    /// In a standby cluster: the timeline of the other cluster's primary that its leader follows. Nothing of it was begun here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<Timeline>,
}

/// One line of the `history` key: timeline, where it ended, why, when the next began, who led it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HistoryEntry(pub Timeline, pub Lsn, pub String, pub String, pub String);

impl<'de> Deserialize<'de> for HistoryEntry {
    /// Accepts lines of three, four or five elements.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<HistoryEntry, D::Error> {
        let items = Vec::<Value>::deserialize(deserializer)?;
        let text = |i: usize| items.get(i).and_then(Value::as_str).unwrap_or_default().to_owned();
        let number = |i: usize| items.get(i).and_then(Value::as_u64).ok_or_else(|| serde::de::Error::custom("not a history line"));
        let timeline = u32::try_from(number(0)?).map_err(serde::de::Error::custom)?;
        Ok(HistoryEntry(Timeline(timeline), Lsn(number(1)?), text(2), text(3), text(4)))
    }
}

fn null_as_default<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    Ok(Option::<u32>::deserialize(deserializer)?.unwrap_or_default())
}

/// A set of names as Patroni writes it: sorted, joined by commas, `null` when empty.
mod comma_list {
    use std::collections::BTreeSet;

    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(names: &BTreeSet<String>, serializer: S) -> Result<S::Ok, S::Error> {
        if names.is_empty() {
            serializer.serialize_none()
        } else {
            serializer.serialize_str(&names.iter().map(String::as_str).collect::<Vec<_>>().join(","))
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeSet<String>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?.unwrap_or_default();
        Ok(text.split(',').map(str::trim).filter(|n| !n.is_empty()).map(str::to_owned).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sync_key_is_written_as_patroni_writes_it() {
        let voters = BTreeSet::from(["b".to_owned(), "a".to_owned()]);
        let sync = SyncState { leader: Some("x".into()), quorum: 1, voters };
        let text = serde_json::to_string(&sync).unwrap();
        assert_eq!(text, r#"{"leader":"x","quorum":1,"sync_standby":"a,b"}"#);
        assert_eq!(serde_json::from_str::<SyncState>(&text).unwrap(), sync);
        let empty: SyncState = serde_json::from_str(r#"{"leader":null,"quorum":null,"sync_standby":null}"#).unwrap();
        assert!(!empty.is_active());
    }

    #[test]
    fn the_sync_key_of_a_patroni_before_4_is_understood() {
        let sync: SyncState = serde_json::from_str(r#"{"leader":"x","sync_standby":"a"}"#).unwrap();
        assert!(sync.is_active() && sync.votes("a") && sync.quorum == 0);
    }

    #[test]
    fn voters_are_named_without_regard_to_case() {
        let sync = SyncState { leader: Some("P".into()), quorum: 0, voters: BTreeSet::from(["Node-1".to_owned()]) };
        assert!(sync.admits("node-1") && sync.admits("p") && sync.votes("NODE-1") && !sync.votes("p"));
    }

    #[test]
    fn history_lines_have_three_to_five_elements() {
        let lines: Vec<HistoryEntry> = serde_json::from_str(r#"[[1,25,"r"],[2,30,"r","t"],[3,40,"r","t","n"]]"#).unwrap();
        assert_eq!(lines[2], HistoryEntry(Timeline(3), Lsn(40), "r".into(), "t".into(), "n".into()));
        assert_eq!(lines[0].4, "");
    }

    #[test]
    fn a_members_address_is_read_from_its_url() {
        let member = |url: &str| MemberData { conn_url: url.into(), ..MemberData::default() };
        assert_eq!(member("postgres://orders-1:5432/postgres").postgres_address(), Some(("orders-1".into(), 5432)));
        assert_eq!(member("postgres://[::1]:5433/x").postgres_address(), Some(("::1".into(), 5433)));
        assert_eq!(member("nonsense").postgres_address(), None);
    }

    #[test]
    fn an_older_agents_words_are_understood() {
        let data: MemberData = serde_json::from_str(r#"{"role":"master","state":"dreaming","xlog_location":7,"x":1}"#).unwrap();
        assert_eq!((data.role, data.state, data.xlog_location), (MemberRole::Primary, PgState::Unknown, Some(Lsn(7))));
        assert_eq!(data.other["x"], 1);
    }
}
