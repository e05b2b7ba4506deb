//! Changing the dynamic configuration on request: read, change, judge, write if nobody else did meanwhile.

use serde_json::Value;

use super::dynamic;
use crate::{
    api::change::{Change, Changed},
    dcs::{Dcs, DcsError, snapshot::Initialize},
    postgres::{Address, Installation, PostgresError, parameter_check, rewind},
    spec::{
        Mistake,
        dynamic::{merged, new_mistakes, new_parameters, parameter_path},
        slots, standby_cluster,
    },
};

/// How often a change is made anew on top of somebody else's before its asker is told to try again.
const ATTEMPTS: u32 = 5;

/// Carries out the change.
pub async fn configure(dcs: &impl Dcs, installation: &Installation, replication: &str, change: Change) -> Changed {
    for _ in 0..ATTEMPTS {
        let seen = match dcs.snapshot().await {
            Ok(seen) => seen,
            Err(error) => return Changed::Impossible(error.to_string()),
        };
        let readable = seen.config.is_some();
        let (before, version) = match (seen.config, seen.config_version, &change) {
            (Some(before), Some(version), _) => (before, Some(version)),
            // What cannot be read can only be replaced.
            (None, Some(version), Change::Replace(_)) => (Value::Object(serde_json::Map::new()), Some(version)),
            // The DCS has lost it, and nobody may be leading who would bring it back: a paused cluster would be paused for ever.
            (None, None, _) => match dynamic::load(&installation.data_dir) {
                Some(kept) => (kept, None),
                None => return Changed::Missing,
            },
            _ => return Changed::Missing,
        };
        let after = match &change {
            Change::Merge(patch) => merged(&before, patch),
            Change::Replace(config) => config.clone(),
        };
        match judge(installation, &before, &after).await {
            Ok(mistakes) if mistakes.is_empty() => {}
            Ok(mistakes) => return Changed::Mistaken(mistakes),
            Err(error) => return Changed::Impossible(format!("PostgreSQL cannot be asked about the parameters: {error}")),
        }
        if let Some(mistake) = foreign_system(installation, replication, seen.initialize, &before, &after).await {
            return Changed::Mistaken(vec![mistake]);
        }
        if before == after && readable {
            return Changed::To(after);
        }
        let written = match version {
            Some(version) => dcs.put_config(&after, version).await,
            None => dcs.put_config_if_absent(&after).await,
        };
        match written {
            Ok(true) => {
                tracing::info!("the dynamic configuration was changed over the REST API");
                return Changed::To(after);
            }
            Ok(false) => {}
            Err(DcsError::Refused(why)) => return Changed::Impossible(why),
            Err(error) => return Changed::Unknown(error.to_string()),
        }
    }
    Changed::Overtaken
}

/// A cluster cannot follow another one that it is no copy of. A server that does not answer is given the benefit of the doubt: the members ask
/// again before they change anything.
async fn foreign_system(
    installation: &Installation,
    replication: &str,
    initialize: Initialize,
    before: &Value,
    after: &Value,
) -> Option<Mistake> {
    let (Initialize::Done(ours), Some(wanted)) = (initialize, standby_cluster::read(after)) else { return None };
    if standby_cluster::read(before).is_some_and(|present| present.hosts == wanted.hosts) {
        return None;
    }
    for (host, port) in wanted.hosts {
        let Ok(origin) = rewind::origin(installation, &Address { host: host.clone(), port }, replication).await else { continue };
        if origin.system_id != ours {
            let problem = format!("{host}:{port} serves the system {}, this cluster is {ours}: it cannot follow it", origin.system_id);
            return Some(Mistake { path: "standby_cluster.host".to_owned(), value: Some(Value::String(host).to_string()), problem });
        }
    }
    None
}

/// Every mistake of the change: what this agent knows to be wrong, and what PostgreSQL says of every parameter that is new.
async fn judge(installation: &Installation, before: &Value, after: &Value) -> Result<Vec<Mistake>, PostgresError> {
    let mut mistakes = new_mistakes(before, after);
    if !slots::logical(after).is_empty() {
        let major = parameter_check::major_version(installation).await?;
        let known = slots::too_old(before, major);
        mistakes.extend(slots::too_old(after, major).into_iter().filter(|mistake| !known.contains(mistake)));
    }
    for (name, value) in new_parameters(before, after) {
        let path = parameter_path(&name);
        if mistakes.iter().any(|mistake| mistake.path.eq_ignore_ascii_case(&path)) {
            continue;
        }
        if let Some(problem) = parameter_check::refusal(installation, &name, &value).await? {
            mistakes.push(Mistake { path, value: Some(Value::String(value).to_string()), problem });
        }
    }
    Ok(mistakes)
}
