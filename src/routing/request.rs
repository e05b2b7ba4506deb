//! Requests to the cluster from inside its network.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use serde_json::json;

use super::{RouterConfig, RoutingError};
use crate::{
    api::report::RequestAnswer,
    dcs::{Dcs, Etcd},
    sys::causes,
};

/// Time for one reading of the DCS.
const DCS_LIMIT: Duration = Duration::from_secs(4);
/// A member that is not there must not be waited for like one that is switching over.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// What the leader may take beyond the time in which it says that the outcome is unknown.
const GRACE: Duration = Duration::from_secs(10);
const SHORTEST_HANDOVER: Duration = Duration::from_secs(10);
/// Patroni's default for `loop_wait`.
const DEFAULT_LOOP_WAIT: u64 = 10;

/// Asks the leader to hand over, to `candidate` if given. With `leader`, only if that is who leads.
pub fn request_switchover(path: &Path, leader: Option<&str>, candidate: Option<&str>) -> Result<RequestAnswer, RoutingError> {
    let config = RouterConfig::read(path)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(RoutingError::Setup)?;
    runtime.block_on(switchover(&config, leader, candidate))
}

async fn switchover(config: &RouterConfig, leader: Option<&str>, candidate: Option<&str>) -> Result<RequestAnswer, RoutingError> {
    let etcd = Etcd::connect(&config.dcs, DCS_LIMIT).await.map_err(RoutingError::Dcs)?;
    let before = etcd.snapshot().await.map_err(RoutingError::Dcs)?;
    let no_leader = || RoutingError::NoLeader(config.dcs.scope.clone());
    let holder = before.leader.as_ref().ok_or_else(no_leader)?;
    let api_url = &before.members.get(holder).ok_or_else(no_leader)?.api_url;
    let url = format!("{}/switchover", api_url.trim_end_matches('/').trim_end_matches("/patroni"));
    let failed =
        |error: reqwest::Error| RoutingError::Rest { member: holder.to_string(), url: url.clone(), fault: causes::in_one_line(&error) };
    let loop_wait = before.config.as_ref().and_then(|c| c["loop_wait"].as_u64()).unwrap_or(DEFAULT_LOOP_WAIT).min(3600);
    let limit = 2 * SHORTEST_HANDOVER.max(Duration::from_secs(loop_wait)) + GRACE;
    let client = reqwest::Client::builder().connect_timeout(CONNECT_LIMIT).timeout(limit).no_proxy().build().map_err(failed)?;
    let body = json!({"leader": leader.unwrap_or(holder.as_str()), "candidate": candidate});
    let started = Instant::now();
    let mut request = client.post(&url).json(&body);
    if let Some(login) = &config.login {
        request = request.basic_auth(&login.username, Some(login.password.expose()));
    }
    let answer = request.send().await.map_err(failed)?;
    let code = answer.status().as_u16();
    let message = answer.text().await.map_err(failed)?;
    let elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    // Who leads now is told where it is known; the answer to the request stands without it.
    let leader = etcd.snapshot().await.ok().and_then(|now| now.leader);
    Ok(RequestAnswer { code, message, leader, elapsed_ms })
}
