//! A new database cluster: initdb, and the roles that replication and users need.

use std::{fs, io::Write, os::unix::fs::OpenOptionsExt, path::PathBuf};

use super::{Credentials, Installation, PostgresError, conf, sql::Session};
use crate::sys::{files, process::Run};

/// What initdb is told.
#[derive(Debug, Clone, Default)]
pub struct InitOptions {
    /// Options as `--name` or `--name=value`.
    pub options: Vec<String>,
    /// Lines appended to initdb's pg_hba.conf.
    pub hba: Vec<String>,
}

/// A role to create with the cluster.
#[derive(Debug, Clone)]
pub struct NewRole {
    /// Name and password.
    pub credentials: Credentials,
    /// Roles it becomes a member of.
    pub member_of: Vec<String>,
    /// A database to create for it.
    pub database: Option<String>,
}

/// Options that would break what the agent relies on.
const FORBIDDEN: &[&str] = &["pgdata", "nosync", "no-sync", "sync-only", "pwfile", "pwprompt", "version", "username"];

/// Checks options of initdb. Returns the names that are not possible.
pub fn forbidden_options(options: &[String]) -> Vec<String> {
    let name = |option: &String| option.trim_start_matches('-').split('=').next().unwrap_or_default().to_owned();
    options.iter().map(name).filter(|n| FORBIDDEN.contains(&n.as_str())).collect()
}

/// Creates the data directory. It is built beside its final place and renamed when complete: a directory with its final name is never
/// half-made.
pub async fn initdb(installation: &Installation, options: &InitOptions, superuser: &Credentials) -> Result<(), PostgresError> {
    let building = files::beside(&installation.data_dir, ".init");
    files::remove_dir(&building).map_err(PostgresError::file("remove", &building))?;
    let mut run = Run::new(installation.program("initdb"))
        .arg(format!("--pgdata={}", building.display()))
        .arg(format!("--username={}", superuser.username))
        .arg("--auth-local=peer")
        .limit(std::time::Duration::from_secs(600))
        .env("LC_MESSAGES", "C")
        .args(options.options.clone());
    let password_file = write_password(&building, superuser)?;
    run = match &password_file {
        Some(path) => run.arg(format!("--pwfile={}", path.display())).arg("--auth-host=scram-sha-256"),
        // Without a password nobody can log in over the network as superuser.
        None => run.arg("--auth-host=reject"),
    };
    let outcome = run.output().await;
    if let Some(path) = password_file {
        fs::remove_file(&path).map_err(PostgresError::file("remove", path))?;
    }
    outcome?;
    if !options.hba.is_empty() {
        conf::append_hba(&building, &options.hba)?;
    }
    // Onto nothing or an empty directory: the system refuses to rename over one into which somebody has put data meanwhile.
    files::rename(&building, &installation.data_dir).map_err(PostgresError::file("rename", building))
}

/// The mark of a directory from initdb that the DCS does not know of yet: nobody's data is in it.
pub fn unrecorded_mark(installation: &Installation) -> PathBuf {
    files::beside(&installation.data_dir, ".bootstrap")
}

/// Removes that mark.
pub fn forget_unrecorded(installation: &Installation) -> Result<(), PostgresError> {
    let path = unrecorded_mark(installation);
    files::remove_file(&path).map_err(PostgresError::file("remove", path))
}

fn write_password(building: &std::path::Path, superuser: &Credentials) -> Result<Option<PathBuf>, PostgresError> {
    let Some(password) = &superuser.password else { return Ok(None) };
    let path = files::beside(building, ".password");
    // A leftover of a killed attempt may be ours only.
    let _ = fs::remove_file(&path);
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    let written = file.and_then(|mut f| f.write_all(password.expose().as_bytes()));
    written.map_err(PostgresError::file("write", &path))?;
    Ok(Some(path))
}

/// Creates or updates the roles of replication and rewinding and those that were asked for, and their databases. Repeatable.
pub async fn ensure_roles(
    session: &Session,
    replication: &Credentials,
    rewind: Option<&Credentials>,
    others: &[NewRole],
) -> Result<(), PostgresError> {
    // Nobody streams yet: waiting for a standby would wait forever. Passwords stay out of the server's log.
    session.execute("set synchronous_commit = local; set log_statement = none; set log_min_error_statement = panic; set log_min_duration_statement = -1").await?;
    session.ensure_role(replication, "login replication").await?;
    if let Some(rewind) = rewind.filter(|r| r.username != replication.username) {
        session.ensure_role(rewind, "login").await?;
        session.execute(&rewind_grants(&rewind.username)).await?;
    }
    for role in others {
        session.ensure_role(&role.credentials, "login").await?;
        for group in &role.member_of {
            session.execute(&format!("grant {} to {}", ident(group), ident(&role.credentials.username))).await?;
        }
        if let Some(database) = &role.database {
            session.ensure_database(database, &role.credentials.username).await?;
        }
    }
    Ok(())
}

/// What pg_rewind calls on its source, a checkpoint, which makes the source's control file name its new timeline, and the end of a WAL segment,
/// without which the backup of a standby would wait for it.
fn rewind_grants(role: &str) -> String {
    let role = ident(role);
    [
        "pg_catalog.pg_ls_dir(text, boolean, boolean)",
        "pg_catalog.pg_stat_file(text, boolean)",
        "pg_catalog.pg_read_binary_file(text)",
        "pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean)",
        "pg_catalog.pg_switch_wal()",
    ]
    .iter()
    .map(|function| format!("grant execute on function {function} to {role};"))
    .chain([format!("grant pg_checkpoint to {role}")])
    .collect()
}

/// An identifier, quoted.
pub fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_would_break_the_agent_are_named() {
        let options = ["--encoding=UTF8", "--data-checksums", "--pwfile=/x", "--pgdata=/y"].map(str::to_owned);
        assert_eq!(forbidden_options(&options), ["pwfile", "pgdata"]);
    }

    #[test]
    fn identifiers_are_quoted() {
        assert_eq!(ident("a\"b"), "\"a\"\"b\"");
    }
}
