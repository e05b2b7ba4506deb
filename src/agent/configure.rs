//! Changing the dynamic configuration on request: read, change, judge, write if nobody else did meanwhile.

use serde_json::Value;

use crate::{
    api::change::{Change, Changed},
    dcs::{Dcs, DcsError},
    postgres::{Installation, PostgresError, parameter_check},
    spec::{
        Mistake,
        dynamic::{merged, new_mistakes, new_parameters, parameter_path},
    },
};

/// How often a change is made anew on top of somebody else's before its asker is told to try again.
const ATTEMPTS: u32 = 5;

/// Carries out the change.
pub async fn configure(dcs: &impl Dcs, installation: &Installation, change: Change) -> Changed {
    for _ in 0..ATTEMPTS {
        let seen = match dcs.snapshot().await {
            Ok(seen) => seen,
            Err(error) => return Changed::Impossible(error.to_string()),
        };
        let readable = seen.config.is_some();
        let (before, version) = match (seen.config, seen.config_version, &change) {
            (Some(before), Some(version), _) => (before, version),
            // What cannot be read can only be replaced.
            (None, Some(version), Change::Replace(_)) => (Value::Object(serde_json::Map::new()), version),
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
        if before == after && readable {
            return Changed::To(after);
        }
        match dcs.put_config(&after, version).await {
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

/// Every mistake of the change: what this agent knows to be wrong, and what PostgreSQL says of every parameter that is new.
async fn judge(installation: &Installation, before: &Value, after: &Value) -> Result<Vec<Mistake>, PostgresError> {
    let mut mistakes = new_mistakes(before, after);
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
