//! What can be said of a PostgreSQL parameter without asking PostgreSQL.

use serde_json::Value;

use crate::spec::{
    Origin,
    parameters::{AT_LEAST, is_parameter_name, parameter_text},
};

/// Parameters that the agent decides, with the reason: a value from here would be ignored, so it is refused instead.
const MANAGED: &[(&str, &str)] = &[
    ("listen_addresses", "each member listens where its own 'postgresql.listen' says"),
    ("port", "each member listens where its own 'postgresql.listen' says"),
    ("cluster_name", "it is the cluster's scope"),
    ("hot_standby", "replicas always answer reads"),
    ("primary_conninfo", "the agent follows the leader with it"),
    ("primary_slot_name", "the agent follows the leader with it"),
    ("synchronous_standby_names", "use 'synchronous_mode' and 'synchronous_node_count'"),
    ("promote_trigger_file", "the agent promotes"),
];

/// Parameters by which whoever sets them gets commands run or code loaded.
const COMMANDS: &[&str] = &[
    "archive_command",
    "restore_command",
    "archive_cleanup_command",
    "recovery_end_command",
    "ssl_passphrase_command",
    "dynamic_library_path",
    "extension_control_path",
    "jit_provider",
];

/// Parameters by which the server reads or writes files of somebody else's choice.
pub const PLACES: &[&str] = &[
    "data_directory",
    "config_file",
    "hba_file",
    "ident_file",
    "external_pid_file",
    "log_directory",
    "log_filename",
    "unix_socket_directories",
    "unix_socket_group",
    "unix_socket_permissions",
    "stats_temp_directory",
];

/// What is wrong with a parameter. From a member's own file it may name commands and files, and what the agent sets itself does no harm there,
/// where many have it from an example.
pub fn fault(name: &str, value: &Value, origin: Origin) -> Result<(), String> {
    let name = name.to_lowercase();
    if !is_parameter_name(&name) {
        return Err("parameter names are letters, digits, underscores and dots".to_owned());
    }
    let from_network = origin == Origin::Network;
    if from_network && runs_code(&name) {
        return Err("it runs commands or loads code: set it in the member's own configuration file".to_owned());
    }
    if from_network && PLACES.contains(&name.as_str()) {
        return Err("it names files of a member: set it in the member's own configuration file".to_owned());
    }
    let is_harmless = |managed: &str| !from_network && (managed != "synchronous_standby_names" || value == "");
    if let Some((managed, why)) = MANAGED.iter().find(|(managed, _)| *managed == name) {
        if is_harmless(managed) {
            return Ok(());
        }
        return Err(format!("it cannot be set: {why}"));
    }
    if from_network && name.starts_with("recovery_target") {
        return Err("it cannot be set: the agent decides what to follow".to_owned());
    }
    let text = parameter_text(value)?;
    if name == "wal_level" && !matches!(text.as_str(), "replica" | "logical" | "hot_standby") {
        return Err("possible are: replica, logical".to_owned());
    }
    match AT_LEAST.iter().find(|(limited, _)| *limited == name) {
        Some((_, least)) if !text.parse::<u64>().is_ok_and(|number| number >= *least) => {
            Err(format!("expected a whole number of at least {least}"))
        }
        _ => Ok(()),
    }
}

/// True for parameters by which whoever sets them gets commands run or code loaded.
pub fn runs_code(name: &str) -> bool {
    let interpreter = ["plperl.", "pltcl.", "plpython.", "pljava.", "plv8."].iter().any(|language| name.starts_with(language));
    COMMANDS.contains(&name)
        || name.ends_with("_command")
        || name.ends_with("_libraries")
        || name.ends_with("_library")
        || (interpreter && name != "plperl.use_strict")
}
