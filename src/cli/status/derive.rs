//! The judgement: pure, from evidence to a status.
//!
//! Healthy is said only of what was seen: a leader that answered a real read as primary, every node of the spec streaming on its
//! timeline, and, where commits wait for a quorum, somebody to wait for. What was not seen counts as not working.

use super::{ClusterStatus, ContainerState, Evidence, Health, NodeConflict, NodeRole, NodeStatus, Place, ServiceStatus};
use crate::{
    api::{
        backup_status::BackupStatus,
        report::{MemberReport, ProbeReport},
    },
    model::{Lsn, MemberName, WalAccount, counted},
    spec::{ArchiveStore, Durability, standby_cluster},
};

/// So long after its creation a node has somebody who sees to its backups.
const SETTLED: jiff::SignedDuration = jiff::SignedDuration::from_mins(15);

/// Judges a cluster.
pub fn derive(evidence: &Evidence<'_>) -> ClusterStatus {
    let nodes = nodes(evidence);
    let report = evidence.probe.ok();
    let (health, reason) = match who_leads(evidence) {
        Err(why) => (Health::Critical, with_other_troubles(why, &nodes, evidence)),
        Ok(leader) => match troubles(evidence, &nodes) {
            troubles if troubles.is_empty() => (Health::Healthy, all_well(evidence, leader)),
            troubles => (Health::Degraded, format!("'{}' {}, but {}", leader.name, what_it_does(evidence), troubles.join("; "))),
        },
    };
    ClusterStatus {
        name: evidence.spec.name.clone(),
        health,
        reason,
        observed_at: evidence.now,
        endpoints: evidence.endpoints,
        leader: report.and_then(|report| report.leader.clone()),
        timeline: report.and_then(leader_of).and_then(|leader| leader.sql.as_ref()?.timeline),
        paused: report.is_some_and(is_paused),
        nodes,
        services: services(evidence),
        backup: backup(evidence).map(|(backup, _)| backup),
        wal_conflicts: wal_accounts(evidence).into_iter().flat_map(conflicts).collect(),
    }
}

/// The whole cluster follows another one, and takes no writes.
fn is_standby_cluster(report: &ProbeReport) -> bool {
    standby_cluster::read(&report.config).is_some()
}

fn what_it_does(evidence: &Evidence<'_>) -> &'static str {
    if evidence.probe.is_ok_and(is_standby_cluster) { "leads a standby cluster" } else { "takes writes" }
}

/// The member that takes writes of clients, or, in a standby cluster, that the others follow; or why there is none.
fn who_leads<'a>(evidence: &Evidence<'a>) -> Result<&'a MemberReport, String> {
    if evidence.containers.iter().all(|c| c.state == ContainerState::Missing) {
        return Err("none of its containers exists".to_owned());
    }
    let report = evidence.probe.map_err(|why| format!("the cluster cannot be asked: {why}"))?;
    if let Some(error) = &report.dcs_error {
        return Err(error.clone());
    }
    if report.initialize.as_deref().unwrap_or_default().is_empty() {
        return Err("the cluster is not initialised yet".to_owned());
    }
    let leader_name = report.leader.as_ref().ok_or("nobody holds the leader lock")?;
    let leader = leader_of(report).ok_or_else(|| format!("leader '{leader_name}' has no member key"))?;
    let Some(read) = &leader.sql else {
        let why = leader.sql_error.as_deref().unwrap_or("no reason given");
        return Err(format!("leader '{leader_name}' does not answer a read{}: {why}", container_note(evidence, leader_name)));
    };
    let follows = is_standby_cluster(report);
    if read.in_recovery && !follows {
        return Err(format!("leader '{leader_name}' is still in recovery"));
    }
    if follows && !read.in_recovery {
        return Err(format!("leader '{leader_name}' is to follow another cluster, and is a primary still"));
    }
    let other = |member: &&MemberReport| member.name != leader.name && member.sql.as_ref().is_some_and(|sql| !sql.in_recovery);
    if let Some(other) = report.members.iter().find(other) {
        return Err(format!("'{}' answers as a primary besides the leader '{leader_name}'", other.name));
    }
    if follows {
        return Ok(leader);
    }
    commits_are_acknowledged(evidence, report)?;
    match evidence.containers.iter().find(|c| c.place == Place::Router) {
        Some(router) if router.state == ContainerState::Running => match report.route.as_ref().and_then(|route| route.error.as_ref()) {
            Some(error) => Err(format!("the router does not lead to leader '{leader_name}' (yet): {error}")),
            None => Ok(leader),
        },
        router => {
            let state = router.map_or(ContainerState::Missing, |router| router.state);
            Err(format!("the router is {state}, so that no client reaches leader '{leader_name}'"))
        }
    }
}

/// With quorum durability a commit waits for standbys: when fewer than needed stream, writes hang although the leader is well.
fn commits_are_acknowledged(evidence: &Evidence<'_>, report: &ProbeReport) -> Result<(), String> {
    let Some(sync) = report.sync.as_ref().filter(|_| evidence.spec.durability == Durability::Quorum) else { return Ok(()) };
    let named = sync.sync_standby.len();
    let needed = named.saturating_sub(sync.quorum.unwrap_or(0) as usize);
    let streams = |member: &&MemberReport| sync.sync_standby.contains(&member.name) && replication_state(member) == Some("streaming");
    let streaming = report.members.iter().filter(|m| m.sql.is_some()).filter(streams).count();
    if streaming >= needed {
        return Ok(());
    }
    let names: Vec<&str> = sync.sync_standby.iter().map(MemberName::as_str).collect();
    Err(format!("commits wait for {needed} of the synchronous standbys {}, and {streaming} of them stream", names.join(", ")))
}

/// All that keeps a cluster with a working leader from being healthy.
fn troubles(evidence: &Evidence<'_>, nodes: &[NodeStatus]) -> Vec<String> {
    let mut troubles: Vec<String> = node_troubles(nodes).collect();
    troubles.extend(service_troubles(evidence));
    troubles.extend(backup_troubles(evidence));
    let Ok(report) = evidence.probe else { return troubles };
    if is_paused(report) {
        troubles.push("automatic failover is paused".to_owned());
    }
    let wanted = usize::from(evidence.spec.nodes.get());
    if nodes.len() != wanted {
        troubles.push(format!("it has {}, not {wanted}", counted(nodes.len() as u64, "node")));
    }
    let waits_for_nobody = report.sync.as_ref().is_none_or(|sync| sync.sync_standby.is_empty());
    let follows = is_standby_cluster(report);
    if follows && leader_of(report).is_some_and(|leader| said(leader, "replication_state") != Some("streaming")) {
        troubles.push("it does not stream from the other cluster".to_owned());
    }
    if evidence.spec.durability == Durability::Quorum && wanted > 1 && waits_for_nobody && !follows {
        troubles.push("no synchronous standby has been chosen yet: losing the leader now could lose commits".to_owned());
    }
    troubles
}

fn node_troubles(nodes: &[NodeStatus]) -> impl Iterator<Item = String> {
    nodes.iter().filter_map(|node| Some(format!("'{}' {}", node.name, node.trouble.as_ref()?)))
}

/// What the keeper of a member's node has said.
fn kept(member: &MemberReport) -> Option<BackupStatus> {
    serde_json::from_value(member.rest.as_ref()?.body["backup"].clone()).ok()
}

/// What the leader's node says of the backups, or the member that has said something last; and whether that is the leader's.
fn backup(evidence: &Evidence<'_>) -> Option<(BackupStatus, bool)> {
    let report = evidence.probe.ok()?;
    let said = |member: &MemberReport| Some((kept(member)?, report.leader.as_ref() == Some(&member.name)));
    report.members.iter().filter_map(said).max_by_key(|(backup, leads): &(BackupStatus, bool)| (*leads, backup.updated))
}

fn backup_troubles(evidence: &Evidence<'_>) -> Vec<String> {
    let mut troubles: Vec<String> = wal_accounts(evidence).iter().filter_map(|(node, account)| conflicting(node, account)).collect();
    match backup(evidence) {
        Some((backup, leads)) => troubles.extend(backup.troubles(leads, evidence.now)),
        None if lacks_keeper(evidence) => troubles.push("nobody sees to its backups".to_owned()),
        None => {}
    }
    troubles
}

/// What the WAL service of each node has done. A conflict is one on whichever node: it may be a former leader's.
fn wal_accounts(evidence: &Evidence<'_>) -> Vec<(MemberName, WalAccount)> {
    let members = evidence.probe.map_or(&[][..], |report| &report.members);
    members.iter().filter_map(|member| Some((member.name.clone(), kept(member)?.wal_service?))).collect()
}

/// Told at once: it does not pass by itself, and nothing is archived behind it.
fn conflicting(node: &MemberName, account: &WalAccount) -> Option<String> {
    let first = &account.conflicts.first()?.file;
    let more = match account.conflicting {
        0 | 1 => String::new(),
        2 => " and another WAL file".to_owned(),
        files => format!(" and {} more WAL files", files - 1),
    };
    Some(format!("'{node}' cannot archive '{first}'{more}: the archive has another content under this name"))
}

fn conflicts((node, account): (MemberName, WalAccount)) -> impl Iterator<Item = NodeConflict> {
    account.conflicts.into_iter().map(move |conflict| NodeConflict { node: node.clone(), conflict })
}

/// There is an archive, and a node has been there for long enough to have a keeper.
fn lacks_keeper(evidence: &Evidence<'_>) -> bool {
    let settled = |created: jiff::Timestamp| evidence.now.duration_since(created) > SETTLED;
    let nodes = evidence.containers.iter().filter(|container| node_name(container).is_some() && container.state == ContainerState::Running);
    evidence.spec.stored_archive().store != ArchiveStore::None && nodes.filter_map(|container| container.created).any(settled)
}

fn service_troubles(evidence: &Evidence<'_>) -> impl Iterator<Item = String> {
    let lame = evidence.containers.iter().filter(|c| node_name(c).is_none() && c.state != ContainerState::Running);
    lame.map(|c| match c.place {
        Place::Router => format!("the router is {}", c.state),
        _ => format!("'{}' is {}", c.name, c.state),
    })
}

/// Containers that do not run usually explain why nobody takes writes: they are named with it.
fn with_other_troubles(why: String, nodes: &[NodeStatus], evidence: &Evidence<'_>) -> String {
    if evidence.containers.iter().all(|c| c.state == ContainerState::Missing) {
        return why;
    }
    let stopped = nodes.iter().filter(|node| node.container != ContainerState::Running);
    let mut also: Vec<String> = stopped.map(|node| format!("'{}' is {}", node.name, node.container)).collect();
    also.extend(service_troubles(evidence));
    also.retain(|trouble| !why.contains(trouble.as_str()));
    if also.is_empty() { why } else { format!("{why} ({})", also.join("; ")) }
}

fn all_well(evidence: &Evidence<'_>, leader: &MemberReport) -> String {
    let timeline = leader.sql.as_ref().and_then(|sql| sql.timeline).map_or(String::new(), |timeline| format!(" on timeline {timeline}"));
    let does = what_it_does(evidence);
    match evidence.spec.nodes.get() - 1 {
        0 => format!("'{}' {does}{timeline}, alone as asked for", leader.name),
        1 => format!("'{}' {does}{timeline}, its replica streams", leader.name),
        replicas => format!("'{}' {does}{timeline}, all {replicas} replicas stream", leader.name),
    }
}

/// The nodes that exist or should: containers, and members of the DCS that have none.
fn nodes(evidence: &Evidence<'_>) -> Vec<NodeStatus> {
    let mut names: Vec<&MemberName> = evidence.containers.iter().filter_map(node_name).collect();
    if let Ok(report) = evidence.probe {
        names.extend(report.members.iter().map(|member| &member.name));
    }
    names.sort();
    names.dedup();
    names.into_iter().map(|name| node(evidence, name)).collect()
}

fn node(evidence: &Evidence<'_>, name: &MemberName) -> NodeStatus {
    let report = evidence.probe.ok();
    let member = report.and_then(|report| report.members.iter().find(|member| member.name == *name));
    let container = evidence.containers.iter().find(|c| node_name(c) == Some(name));
    let container_state = container.map_or(ContainerState::Missing, |c| c.state);
    NodeStatus {
        name: name.clone(),
        role: report.zip(member).map(|(report, member)| role(report, member)),
        state: state(member, container_state),
        timeline: member.and_then(|member| member.sql.as_ref()?.timeline),
        lag_bytes: report.zip(member).and_then(|(report, member)| lag(report, member)),
        address: member.and_then(address),
        age_seconds: container.and_then(|c| u64::try_from(evidence.now.duration_since(c.created?).as_secs()).ok()),
        container: container_state,
        trouble: trouble(report, member, container_state),
    }
}

fn role(report: &ProbeReport, member: &MemberReport) -> NodeRole {
    let synchronous = report.sync.as_ref().is_some_and(|sync| sync.sync_standby.contains(&member.name));
    if report.leader.as_ref() == Some(&member.name) {
        if is_standby_cluster(report) { NodeRole::StandbyLeader } else { NodeRole::Leader }
    } else if synchronous && report.config["synchronous_mode"] == "quorum" {
        NodeRole::QuorumStandby
    } else if synchronous {
        NodeRole::SyncStandby
    } else {
        NodeRole::Replica
    }
}

fn state(member: Option<&MemberReport>, container: ContainerState) -> String {
    if container != ContainerState::Running {
        return container.to_string();
    }
    let said = member.and_then(|member| replication_state(member).or_else(|| said(member, "state")));
    let said = said.unwrap_or("unknown");
    match member.and_then(|member| member.dcs["spilo_copies"].as_str()) {
        Some(source) => format!("{said} from {source}"),
        None => said.to_owned(),
    }
}

/// Why a node does not count as well; the first reason is the one that explains the others.
fn trouble(report: Option<&ProbeReport>, member: Option<&MemberReport>, container: ContainerState) -> Option<String> {
    if container != ContainerState::Running {
        return Some(format!("is {container}"));
    }
    let Some(member) = member else { return Some("has no member key in the DCS".to_owned()) };
    let Some(read) = &member.sql else {
        return Some(format!("does not answer a read: {}", member.sql_error.as_deref().unwrap_or("no reason given")));
    };
    let report = report?;
    if report.leader.as_ref() == Some(&member.name) {
        return None;
    }
    let initialized = report.initialize.as_deref().unwrap_or_default();
    if let Some(identifier) = said(member, "database_system_identifier").filter(|identifier| *identifier != initialized) {
        return Some(format!("belongs to another database (system identifier {identifier}, not {initialized})"));
    }
    if !read.in_recovery {
        return Some("answers as a primary without being the leader".to_owned());
    }
    if replication_state(member) != Some("streaming") {
        return Some(format!("does not stream (state '{}')", state(Some(member), container)));
    }
    let leaders = leader_of(report).and_then(|leader| leader.sql.as_ref()?.timeline);
    match (read.timeline, leaders) {
        (Some(own), Some(leaders)) if own == leaders => None,
        (Some(own), Some(leaders)) => Some(format!("is on timeline {own}, the leader on {leaders}")),
        _ => Some("did not say which timeline it is on".to_owned()),
    }
}

fn lag(report: &ProbeReport, member: &MemberReport) -> Option<u64> {
    if report.leader.as_ref() == Some(&member.name) {
        return None;
    }
    let leaders: Option<Lsn> = leader_of(report).and_then(|leader| leader.sql.as_ref()?.lsn).or(report.optime);
    Some(leaders?.ahead_of(member.sql.as_ref()?.lsn?))
}

fn address(member: &MemberReport) -> Option<String> {
    let after_scheme = member.conn_url.as_deref()?.split_once("://")?.1;
    Some(after_scheme.split('/').next()?.to_owned())
}

/// What a member says of itself: the REST API's answer is fresher than the member key.
fn said<'m>(member: &'m MemberReport, key: &str) -> Option<&'m str> {
    member.rest.as_ref().and_then(|rest| rest.body[key].as_str()).or_else(|| member.dcs[key].as_str())
}

/// A leader's REST answer has no replication state, and its key may still carry that of its time as a replica.
fn replication_state(member: &MemberReport) -> Option<&str> {
    match member.sql.as_ref() {
        Some(sql) if !sql.in_recovery => None,
        _ => said(member, "replication_state"),
    }
}

fn leader_of(report: &ProbeReport) -> Option<&MemberReport> {
    report.members.iter().find(|member| Some(&member.name) == report.leader.as_ref())
}

fn is_paused(report: &ProbeReport) -> bool {
    report.config["pause"] == true
}

fn node_name(container: &super::ObservedContainer) -> Option<&MemberName> {
    match &container.place {
        Place::Node(name) => Some(name),
        Place::Etcd | Place::Router => None,
    }
}

fn container_note(evidence: &Evidence<'_>, name: &MemberName) -> String {
    match evidence.containers.iter().find(|c| node_name(c) == Some(name)) {
        Some(container) if container.state == ContainerState::Running => String::new(),
        Some(container) => format!(" ('{name}' is {})", container.state),
        None => format!(" ('{name}' has no container)"),
    }
}

fn services(evidence: &Evidence<'_>) -> Vec<ServiceStatus> {
    let services = evidence.containers.iter().filter(|c| node_name(c).is_none());
    services.map(|c| ServiceStatus { name: c.name.clone(), container: c.state }).collect()
}

#[cfg(test)]
#[path = "derive_tests.rs"]
mod tests;
