//! What this member shows: its key in the DCS, and the status that the API answers from.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Map, Value, json};

use super::{
    config::joined,
    logical_slots, past,
    shell::Shell,
    standing,
    view::{Local, Lock, ServerFacts, View},
};
use crate::{
    api::{NodeStatus, WalSender, Xlog},
    dcs::{Dcs, snapshot::MemberData},
    spec::settings::SyncMode,
    sys::clock::Moment,
};

/// Where this member has its data from while it is made, and how far that has come: ours beside what Patroni shows.
const COPIES: &str = "spilo_copies";

/// The version of Patroni whose protocol we speak: readers of the member key decide by it.
pub const PROTOCOL: &str = "4.1.5";

impl Shell {
    /// Publishes what the last look found.
    pub(super) async fn publish(&mut self, view: &View) {
        let member = self.member_data(view);
        self.status.send_replace(Arc::new(self.node_status(view, &member)));
        if !view.dcs_answers || self.ended {
            return;
        }
        // Missing in the DCS although published: the session was lost meanwhile. Or an earlier write was late and took this one's place, which
        // others would wait for without end where it says what this member remembers.
        let known = view.cluster.members.get(&self.config.name).is_some_and(|seen| past::says_the_same(seen, &member));
        if known && self.published.as_ref() == Some(&member) {
            return;
        }
        match self.dcs.put_member(&self.config.name, &member).await {
            Ok(()) => self.published = Some(member),
            Err(error) => tracing::warn!("this member could not be published: {error}"),
        }
    }

    /// Where others ask this member.
    pub(super) fn api_url(&self) -> String {
        format!("http://{}/patroni", self.config.api_address)
    }

    fn member_data(&self, view: &View) -> MemberData {
        let facts = facts_of(view);
        let standby = facts.filter(|f| f.in_recovery);
        let (conn_url, api_url) = self.urls();
        MemberData {
            conn_url,
            api_url,
            state: standing::state(&view.local, self.task.as_ref().map(|t| t.kind), self.server.is_stopping()),
            role: standing::role(view),
            version: PROTOCOL.to_owned(),
            checkpoint_after_promote: (self.memory.checkpoint_due && facts.is_some_and(|f| !f.in_recovery)).then_some(false),
            tags: self.config.tags.clone(),
            xlog_location: facts.map(|f| f.position),
            replay_lsn: standby.and_then(|f| f.replayed),
            receive_lsn: standby.and_then(|f| f.received),
            replication_state: standby.and_then(replication_state),
            timeline: match &view.local {
                Local::Stopped(data) => Some(data.control.timeline()),
                _ => facts.map(|f| f.timeline),
            },
            pause: view.settings.pause.then_some(true),
            other: self.notices(view),
        }
    }

    /// What only some members have to say: a pooler, what waits for an operator, what was asked for by one.
    fn notices(&self, view: &View) -> Map<String, Value> {
        let mut notices = self.identity.publish();
        if let Some(pooler) = &self.config.proxy_address {
            notices.insert("proxy_url".into(), json!(format!("postgres://{}/postgres", joined(pooler))));
        }
        if let Some(remembered) = self.memory.tells(&view.cluster) {
            notices.insert(past::FIELD.into(), remembered);
        }
        if let Some(progress) = self.copy_progress.borrow().as_ref() {
            notices.insert(COPIES.into(), json!(progress));
        }
        if self.memory.disk_full {
            notices.insert("disk_full".into(), json!(true));
        }
        if self.memory.no_watchdog.is_some() {
            notices.insert("watchdog_failed".into(), json!(true));
        }
        if !view.wishes.pending.is_empty() {
            notices.insert("pending_restart".into(), json!(true));
            notices.insert("pending_restart_reason".into(), json!(view.wishes.pending));
        }
        if let Some(scheduled) = &view.wishes.scheduled {
            let mut body = scheduled.body.clone();
            body.insert("postmaster_start_time".into(), json!(scheduled.postmaster_start_time));
            notices.insert("scheduled_restart".into(), Value::Object(body));
        }
        notices
    }

    fn node_status(&self, view: &View, member: &MemberData) -> NodeStatus {
        let now = Moment::now();
        let leads = matches!(view.lock, Lock::Mine { .. }) || self.leads_until().is_some();
        let alive = view.settings.ttl * if matches!(view.local, Local::Primary(_)) { 1 } else { 2 };
        let status = NodeStatus {
            state: member.state,
            role: member.role,
            is_leader: leads && serves_as_leader(view),
            leader_until: self.leads_until(),
            loop_alive_until: now + view.settings.loop_wait + alive,
            dcs_seen: self.dcs_seen.map(|seen| wall_clock().saturating_sub(now.since(seen).as_secs())),
            dcs_fresh_until: self.dcs_seen.map_or(Moment(0), |seen| seen + view.settings.ttl),
            tags: self.config.tags.clone(),
            trouble: self.memory.trouble(),
            watchdog_failed: self.memory.no_watchdog.is_some(),
            backup: None,
            pause: view.settings.pause,
            pending_restart: view.wishes.pending.iter().map(|(name, change)| (name.clone(), json!(change))).collect(),
            scheduled_restart: view.wishes.scheduled.as_ref().map(|scheduled| scheduled.body.clone()),
            // Nothing is committed in a standby cluster.
            sync_mode: if view.is_standby_cluster() { SyncMode::Off } else { view.settings.synchronous_mode },
            cluster: view.cluster.clone(),
            ..NodeStatus::unknown(self.config.name.clone(), &self.config.dcs.scope, PROTOCOL, now)
        };
        with_facts(logical_slots::with_trouble(status, view), facts_of(view))
    }
}

/// The status with what the server says of itself, or without anything when it does not answer.
pub fn with_facts(status: NodeStatus, facts: Option<&ServerFacts>) -> NodeStatus {
    let Some(facts) = facts else {
        return NodeStatus { xlog: None, replication: Vec::new(), ..status };
    };
    let xlog = if facts.in_recovery {
        let replayed = facts.replayed.unwrap_or_default();
        let received = facts.received.unwrap_or(replayed);
        Xlog::Standby { received, replayed, replayed_timestamp: facts.replayed_at.clone(), paused: facts.replay_paused }
    } else {
        Xlog::Primary { location: facts.position }
    };
    NodeStatus {
        xlog: Some(xlog),
        is_leader: status.is_leader && (!facts.in_recovery || status.is_standby_cluster()),
        server_version: Some(facts.version),
        postmaster_start_time: Some(facts.started.clone()),
        timeline: Some(facts.timeline),
        replication_state: replication_state(facts),
        system_id: Some(facts.system_id),
        replication: facts
            .standbys
            .iter()
            .map(|s| WalSender {
                usename: s.usename.clone(),
                application_name: s.application_name.clone(),
                client_addr: s.client_addr.clone(),
                state: s.state.clone(),
                sync_state: s.sync_state.clone(),
                sync_priority: s.sync_priority,
            })
            .collect(),
        ..status
    }
}

/// The leader of a standby cluster is a standby itself.
fn serves_as_leader(view: &View) -> bool {
    matches!(view.local, Local::Primary(_)) || (view.is_standby_cluster() && matches!(view.local, Local::Standby(_)))
}

fn facts_of(view: &View) -> Option<&ServerFacts> {
    match &view.local {
        Local::Primary(facts) | Local::Standby(facts) => Some(facts),
        _ => None,
    }
}

fn replication_state(facts: &ServerFacts) -> Option<String> {
    match (facts.in_recovery, facts.streaming, facts.has_archive) {
        (true, true, _) => Some("streaming".to_owned()),
        (true, false, true) => Some("in archive recovery".to_owned()),
        _ => None,
    }
}

fn wall_clock() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}
