//! What a member remembers of its cluster, in case the DCS loses its content: who might be elected, who was there, which timelines were
//! begun. Pure; `past_file.rs` keeps it on disk.
//!
//! A memory may be old: its member was down, or cut off. So the newest one that is known decides, and nobody decides before everybody has
//! been heard who may have a newer one (`decide/forgotten.rs`). A member tells what it remembers in its key in the DCS: what is there was
//! written after the loss, by somebody who had seen it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    memory::{Look, Memory},
    view::{Local, Lock},
};
use crate::{
    dcs::snapshot::{Initialize, MemberData, Snapshot, SyncState, TimelineKey},
    model::{MemberName, SystemId, Term},
};

/// The field of a member's key that says what it remembers. An addition; Patroni does not read it.
pub const FIELD: &str = "spilo_remembers";

/// How new a reading of the DCS is. Terms grow with each claim of the leader key, after a loss too; within a term revisions grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AsOf {
    /// The term.
    pub term: Term,
    /// The DCS's own count of its changes.
    #[serde(default)]
    pub revision: i64,
}

/// What is remembered.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Past {
    /// When this was so.
    pub as_of: AsOf,
    /// Which database cluster it is of; `None`: none is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<SystemId>,
    /// Who led, or had last taken the leader key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<MemberName>,
    /// The members.
    #[serde(default)]
    pub members: BTreeSet<MemberName>,
    /// Who might succeed the leader.
    #[serde(default)]
    pub sync: SyncState,
    /// Who might where there is no synchronous replication, if that was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failsafe: Option<BTreeMap<String, String>>,
    /// The numbers that timelines have taken. `reserved` only grows.
    #[serde(default)]
    pub timelines: TimelineKey,
}

/// What the key of a member says of its memory.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    /// Nothing: it has not seen yet that the DCS has lost its content, or knows no such field.
    NotYet,
    /// It cannot read what it once knew.
    Unreadable,
    /// This.
    Remembers(Box<Past>),
}

impl Past {
    /// True when nothing is known of any cluster.
    pub fn is_nothing(&self) -> bool {
        self.system.is_none() && self.as_of.term == Term::default() && self.timelines.reserved == 0
    }

    /// True when both say the same, whenever they were read.
    pub fn says_the_same_as(&self, other: &Past) -> bool {
        let term = |past: &Past| Past { as_of: AsOf { revision: 0, ..past.as_of }, ..past.clone() };
        term(self) == term(other)
    }

    /// True when the DCS knows less than this: it has lost its content, or got back what it held once.
    pub fn is_ahead_of(&self, cluster: &Snapshot) -> bool {
        as_of(cluster) < self.as_of
    }

    /// False when the DCS has another cluster in the place of the one that is remembered.
    fn is_of(&self, cluster: &Snapshot) -> bool {
        !matches!((cluster.initialize, self.system), (Initialize::Done(theirs), Some(known)) if theirs != known)
    }

    /// Takes in what the DCS says of the cluster.
    pub fn read(&mut self, cluster: &Snapshot) {
        let known = std::mem::take(self);
        let began = cluster.term_leader.clone().or(known.leader.filter(|_| cluster.term == known.as_of.term));
        *self = Past {
            as_of: as_of(cluster),
            system: match cluster.initialize {
                Initialize::Done(system) => Some(system),
                _ => known.system,
            },
            leader: cluster.leader.clone().or(began),
            members: cluster.members.keys().cloned().collect(),
            sync: cluster.sync.clone(),
            failsafe: cluster.failsafe.clone(),
            timelines: above(cluster.timelines.clone(), &known.timelines),
        };
    }

    /// Takes in what another member remembers, where that is newer.
    pub fn learn(&mut self, theirs: &Past) {
        if self.system.is_some() && theirs.system.is_some() && self.system != theirs.system {
            return;
        }
        let mine = std::mem::take(self);
        let (newer, older) = if theirs.as_of > mine.as_of { (theirs.clone(), mine) } else { (mine, theirs.clone()) };
        *self = Past { timelines: above(newer.timelines, &older.timelines), system: newer.system.or(older.system), ..newer };
    }

    /// Everybody who may know of something newer: whoever is not named here cannot have led since, as leading takes votes of those who are, or
    /// being a member.
    pub fn witnesses(&self) -> BTreeSet<String> {
        let members = self.members.iter().chain(&self.leader).map(ToString::to_string);
        members.chain(self.sync.voters.iter().chain(&self.sync.leader).cloned()).collect()
    }
}

/// A number that is known to be taken is not given back.
fn above(timelines: TimelineKey, known: &TimelineKey) -> TimelineKey {
    let taken = known.reserved > timelines.reserved;
    if taken { TimelineKey { reserved: known.reserved, by: known.by.clone(), ..timelines } } else { timelines }
}

fn as_of(cluster: &Snapshot) -> AsOf {
    AsOf { term: cluster.term, revision: cluster.revision }
}

/// A member has noticed the loss that this one need not have noticed, as it remembers nothing itself.
fn others_know_more(cluster: &Snapshot) -> bool {
    let newer = |told| matches!(told, Told::Remembers(past) if past.as_of > as_of(cluster) && past.is_of(cluster));
    cluster.leader.is_none() && cluster.members.values().map(told).any(newer)
}

/// What a member's key says of its memory.
pub fn told(member: &MemberData) -> Told {
    match member.other.get(FIELD) {
        None => Told::NotYet,
        Some(Value::Null) => Told::Unreadable,
        Some(value) => serde_json::from_value(value.clone()).map_or(Told::Unreadable, |past| Told::Remembers(Box::new(past))),
    }
}

/// True when two values of a member's key say the same of what it remembers.
pub fn says_the_same(one: &MemberData, other: &MemberData) -> bool {
    one.other.get(FIELD) == other.other.get(FIELD)
}

/// What goes into this member's key; `None`: what was remembered cannot be read.
pub fn tell(past: Option<&Past>) -> Value {
    past.map_or(Value::Null, |past| json!(past))
}

impl Memory {
    /// Keeps what the DCS knows, in case it loses it, and notices when it has.
    pub(super) fn look_at_cluster(&mut self, look: &Look<'_>) {
        match look.lock {
            Lock::Mine { until } | Lock::Unknown { until: Some(until) } => self.led_until = Some(*until),
            Lock::Other(_) => self.led_until = None,
            Lock::Free | Lock::Unknown { until: None } => {}
        }
        if !look.dcs_answers {
            return;
        }
        let cluster = look.cluster;
        if !self.past.is_of(cluster) {
            // Only who is a member of the other one forgets the former for it.
            let ours = look.local.system_id().map(Initialize::Done);
            if *look.local != Local::Empty && ours != Some(cluster.initialize) {
                self.forgotten_since = None;
                return;
            }
            self.past = Past::default();
        }
        let is_behind = self.past.is_ahead_of(cluster);
        // Every claim writes a term. Where nobody but Patroni has led there is none.
        let knows = cluster.term_version.is_some() || (cluster.config.is_some() && matches!(cluster.initialize, Initialize::Done(_)));
        // By what cannot be read nobody leads, so it need not be taken for a loss.
        let forgot = cluster.unreadable.is_empty() && (is_behind || others_know_more(cluster) || (!knows && cluster.leader.is_none()));
        if forgot {
            self.forgotten_since.get_or_insert(look.now);
            self.hear(look.me, cluster);
            return;
        }
        self.forgotten_since = None;
        self.unheard.clear();
        if knows && cluster.unreadable.is_empty() {
            self.past.read(cluster);
            self.past_unreadable = None;
        }
    }

    /// Takes in what members say that they remember.
    fn hear(&mut self, me: &MemberName, cluster: &Snapshot) {
        let mut heard = BTreeSet::from([me.to_string()]);
        for (name, member) in &cluster.members {
            if let Told::Remembers(theirs) = told(member) {
                if theirs.is_of(cluster) {
                    self.past.learn(&theirs);
                }
                heard.insert(name.to_string());
            }
        }
        let present = cluster.members.keys().map(ToString::to_string);
        let is_heard = |name: &String| heard.iter().any(|heard| heard.eq_ignore_ascii_case(name));
        self.unheard = self.past.witnesses().into_iter().chain(present).filter(|name| !is_heard(name)).collect();
    }

    /// What this member's key says of its memory, for those who need to know because the DCS does not. `None`: nobody needs to, as far as is
    /// known, or there is nothing to say.
    pub fn tells(&self, cluster: &Snapshot) -> Option<Value> {
        self.forgotten_since?;
        let asked = cluster.members.values().any(|member| told(member) != Told::NotYet);
        let known = self.past_unreadable.is_none().then_some(&self.past);
        // An empty memory is told too where others have one: that there is nothing to be heard has to be heard.
        (asked || known.is_none_or(|past| !past.is_nothing())).then(|| tell(known))
    }

    /// What an operator has to see to before anybody can be elected, in words.
    pub(super) fn trouble_with_the_past(&self) -> Option<String> {
        self.forgotten_since?;
        if let Some(why) = &self.past_unreadable {
            return Some(why.clone());
        }
        let names: Vec<&str> = self.unheard.iter().map(String::as_str).collect();
        let waits = !self.past.is_nothing() && !names.is_empty();
        waits.then(|| format!("the DCS has lost what it knew, and '{}' may know more than those who are here", names.join("', '")))
    }
}
