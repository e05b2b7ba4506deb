//! Configuration files of the data directory. They are written from scratch before each start and whenever they should differ: what
//! pg_basebackup or pg_rewind brought along from another member never counts.

use std::{collections::BTreeMap, fs, path::Path};

use super::{Installation, PostgresError};
use crate::sys::files;

/// Parameters that have to be equal on every member or decide whether replication works. They are also given on the postmaster's command
/// line, where `ALTER SYSTEM` cannot override them.
const CONTROLLED: &[(&str, &str)] = &[
    ("hot_standby", "on"),
    ("max_connections", "100"),
    ("max_locks_per_transaction", "64"),
    ("max_prepared_transactions", "0"),
    ("max_replication_slots", "10"),
    ("max_wal_senders", "10"),
    ("max_worker_processes", "8"),
    ("track_commit_timestamp", "off"),
    ("wal_level", "replica"),
    ("wal_log_hints", "on"),
];

/// Ours unless the user says otherwise.
const DEFAULTS: &[(&str, &str)] = &[
    ("wal_keep_size", "128MB"),
    // After a crash every file is to be on disk before recovery begins. One call for the file system instead of one for each of a thousand
    // files: most of the time that a primary takes to come back in place would go there.
    ("recovery_init_sync_method", "syncfs"),
    // A standby looks for its new primary this often: with the default of 5 s every failover would take that much longer.
    ("wal_retrieve_retry_interval", "100ms"),
    // A standby that vanished silently must not hold commits up for the default of a minute.
    ("wal_sender_timeout", "10s"),
    ("wal_receiver_timeout", "10s"),
    ("password_encryption", "scram-sha-256"),
];

/// Never from the user: each would break the agent's hold on the server.
const RESERVED: &[&str] = &[
    "listen_addresses",
    "port",
    "cluster_name",
    "data_directory",
    "config_file",
    "hot_standby",
    "primary_conninfo",
    "primary_slot_name",
    "recovery_target",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_timeline",
    "recovery_target_xid",
    "synchronous_standby_names",
];

/// True for parameters that have to be equal on every member: no member's own configuration counts for them.
pub fn is_controlled(name: &str) -> bool {
    CONTROLLED.iter().any(|(controlled, _)| *controlled == name)
}

/// True for parameters that nobody but the agent sets.
pub fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name)
}

/// What a server's configuration is made from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerSettings {
    /// Addresses to listen on, comma-separated, `*` for all.
    pub listen_addresses: String,
    /// Port.
    pub port: u16,
    /// The cluster's scope.
    pub cluster_name: String,
    /// Parameters from the dynamic and the local configuration, merged.
    pub parameters: BTreeMap<String, String>,
    /// Lines of pg_hba.conf; `None` leaves the file as it is.
    pub hba: Option<Vec<String>>,
    /// Lines of pg_ident.conf; `None` leaves the file as it is.
    pub ident: Option<Vec<String>>,
    /// Where to stream from as a standby; `None`: from nowhere.
    pub primary_conninfo: Option<String>,
    /// The slot to stream through.
    pub primary_slot_name: Option<String>,
    /// Standbys that have to confirm commits.
    pub synchronous_standby_names: String,
}

impl ServerSettings {
    /// The values that have to be equal on every member or decide whether replication works.
    pub fn controlled(&self) -> BTreeMap<&str, String> {
        let mut values: BTreeMap<&str, String> = CONTROLLED
            .iter()
            .map(|(name, default)| {
                let wanted = self.parameters.get(*name).filter(|_| !RESERVED.contains(name));
                (*name, wanted.cloned().unwrap_or_else(|| (*default).to_owned()))
            })
            .collect();
        // A level below `replica` would cut off every standby.
        if values["wal_level"] == "minimal" {
            values.insert("wal_level", "replica".to_owned());
        }
        values.insert("listen_addresses", self.listen_addresses.clone());
        values.insert("port", self.port.to_string());
        values.insert("cluster_name", self.cluster_name.clone());
        values
    }

    /// Arguments of the postmaster that the configuration file cannot override.
    pub fn command_line(&self) -> Vec<String> {
        self.controlled().into_iter().map(|(name, value)| format!("--{name}={value}")).collect()
    }

    /// The text of postgresql.conf.
    pub fn render(&self) -> String {
        let mut values: BTreeMap<&str, String> = DEFAULTS.iter().map(|(n, v)| (*n, (*v).to_owned())).collect();
        let free = self.parameters.iter().filter(|(name, _)| !RESERVED.contains(&name.as_str()));
        values.extend(free.map(|(name, value)| (name.as_str(), value.clone())));
        values.extend(self.controlled());
        values.insert("primary_conninfo", self.primary_conninfo.clone().unwrap_or_default());
        values.insert("primary_slot_name", self.primary_slot_name.clone().unwrap_or_default());
        values.insert("recovery_target_timeline", "latest".to_owned());
        values.insert("synchronous_standby_names", self.synchronous_standby_names.clone());
        let mut text = String::from("# Written by the agent before each start and reload: changes made here are lost.\n");
        text.push_str("include 'postgresql.base.conf'\n\n");
        for (name, value) in values {
            text.push_str(&format!("{name} = '{}'\n", value.replace('\\', "\\\\").replace('\'', "''")));
        }
        text
    }
}

/// Writes postgresql.conf, pg_hba.conf and pg_ident.conf. Returns whether anything changed.
pub fn write(installation: &Installation, settings: &ServerSettings) -> Result<bool, PostgresError> {
    let data = &installation.data_dir;
    keep_base(data)?;
    let mut changed = write_if_different(&data.join("postgresql.conf"), &settings.render())?;
    for (name, lines) in [("pg_hba.conf", &settings.hba), ("pg_ident.conf", &settings.ident)] {
        let Some(lines) = lines else { continue };
        let text = lines.iter().fold(String::from("# Written by the agent.\n"), |text, line| text + line + "\n");
        changed |= write_if_different(&data.join(name), &text)?;
    }
    Ok(changed)
}

/// initdb's own postgresql.conf lives on as postgresql.base.conf, which ours includes.
fn keep_base(data: &Path) -> Result<(), PostgresError> {
    let base = data.join("postgresql.base.conf");
    if base.exists() {
        return Ok(());
    }
    let original = data.join("postgresql.conf");
    let text = match fs::read(&original) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(PostgresError::file("read", original)(error)),
    };
    files::replace(&base, &text, 0o600).map_err(PostgresError::file("write", base))
}

fn write_if_different(path: &Path, text: &str) -> Result<bool, PostgresError> {
    if fs::read(path).is_ok_and(|old| old == text.as_bytes()) {
        return Ok(false);
    }
    files::replace(path, text.as_bytes(), 0o600).map_err(PostgresError::file("write", path))?;
    Ok(true)
}

/// Appends lines to the pg_hba.conf that initdb made.
pub fn append_hba(data: &Path, lines: &[String]) -> Result<(), PostgresError> {
    let path = data.join("pg_hba.conf");
    let mut text = fs::read_to_string(&path).map_err(PostgresError::file("read", &path))?;
    for line in lines {
        text.push_str(line);
        text.push('\n');
    }
    files::replace(&path, text.as_bytes(), 0o600).map_err(PostgresError::file("write", &path))
}

/// Makes the next start one as a standby (`true`) or as a primary (`false`).
pub fn set_standby_signal(data: &Path, standby: bool) -> Result<(), PostgresError> {
    let path = data.join("standby.signal");
    if standby {
        return files::replace(&path, b"", 0o600).map_err(PostgresError::file("write", path));
    }
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(PostgresError::file("remove", path)(error)),
        _ => files::sync_parent(&path).map_err(PostgresError::file("sync", path)),
    }
}

/// True when the next start would be one as a standby.
pub fn has_standby_signal(data: &Path) -> bool {
    data.join("standby.signal").exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(parameters: &[(&str, &str)]) -> ServerSettings {
        let parameters = parameters.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        ServerSettings { listen_addresses: "*".into(), port: 5432, cluster_name: "orders".into(), parameters, ..ServerSettings::default() }
    }

    #[test]
    fn users_cannot_take_over_what_the_agent_controls() {
        let text = settings(&[("port", "1"), ("hot_standby", "off"), ("wal_level", "minimal"), ("work_mem", "8MB")]).render();
        assert!(text.contains("port = '5432'") && text.contains("hot_standby = 'on'"), "{text}");
        assert!(text.contains("wal_level = 'replica'") && text.contains("work_mem = '8MB'"), "{text}");
    }

    #[test]
    fn a_crashed_server_syncs_its_file_system_at_once_unless_the_user_wants_it_file_by_file() {
        assert!(settings(&[]).render().contains("recovery_init_sync_method = 'syncfs'"));
        assert!(settings(&[("recovery_init_sync_method", "fsync")]).render().contains("recovery_init_sync_method = 'fsync'"));
    }

    #[test]
    fn quotes_are_doubled() {
        assert!(settings(&[("search_path", "it's")]).render().contains("search_path = 'it''s'"));
    }

    #[test]
    fn the_command_line_carries_what_must_be_equal_everywhere() {
        let line = settings(&[("max_connections", "300")]).command_line();
        assert!(line.contains(&"--max_connections=300".to_owned()) && line.contains(&"--cluster_name=orders".to_owned()));
    }

    #[test]
    fn writing_the_same_again_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let installation = Installation { data_dir: dir.path().into(), bin_dir: "".into(), passfile: "".into() };
        fs::write(dir.path().join("postgresql.conf"), "original").unwrap();
        let settings = ServerSettings { hba: Some(vec!["a".into()]), ident: Some(vec!["b".into(), "c".into()]), ..settings(&[]) };
        assert!(write(&installation, &settings).unwrap());
        assert!(!write(&installation, &settings).unwrap());
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!([read("pg_hba.conf"), read("pg_ident.conf")], ["# Written by the agent.\na\n", "# Written by the agent.\nb\nc\n"]);
        assert_eq!(fs::read_to_string(dir.path().join("postgresql.base.conf")).unwrap(), "original");
    }
}
