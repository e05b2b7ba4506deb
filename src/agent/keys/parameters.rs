//! Keys whose meaning hangs on their values: PostgreSQL's parameters, and where its configuration is.

use serde_json::Value;

use super::{Found, is_set};
use crate::{postgres::conf, spec::settings};

pub fn config_dir(root: &Value, found: &mut Found) {
    let section = &root["postgresql"];
    let (wanted, data) = (&section["config_dir"], &section["data_dir"]);
    if is_set(wanted) && wanted != data {
        found.mistakes.push(
            "'postgresql.config_dir' is not supported yet: PostgreSQL's configuration is in 'postgresql.data_dir'; remove it".to_owned(),
        );
    }
}

/// Parameters that a member's own file does not decide.
pub fn parameters(root: &Value, found: &mut Found) {
    let section = root["postgresql"]["parameters"].as_object();
    for (name, value) in section.into_iter().flatten() {
        let path = format!("postgresql.parameters.{name}");
        match name.to_lowercase().as_str() {
            "synchronous_standby_names" if is_set(value) => {
                let instead = "'synchronous_mode' says over '/config' whom commits wait for";
                found.mistakes.push(format!("'{path}' is not supported: {instead}; remove it"));
            }
            lower if conf::is_reserved(lower) => found.idle.push(format!("'{path}' has no effect: it is the agent's to set")),
            lower if conf::is_controlled(lower) => {
                found.idle.push(format!("'{path}' has no effect: it is equal everywhere, set it over the REST API's '/config'"));
            }
            _ => {}
        }
    }
    let recovery = root["postgresql"]["recovery_conf"].as_object();
    for name in
        recovery.into_iter().flat_map(|section| section.keys()).filter(|name| !settings::is_recovery_parameter(&name.to_lowercase()))
    {
        found.idle.push(format!("'postgresql.recovery_conf.{name}' has no effect: it is the agent's to set"));
    }
}
