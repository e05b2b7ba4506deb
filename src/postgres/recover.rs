//! Recovery of a restored backup to its end, before anybody may connect: the server is started for nothing else, and stopped again.

use std::{fs, path::Path, time::Duration};

use super::{
    Installation, PostgresError, auto_conf,
    control_data::{self, ClusterState},
};
use crate::sys::{files, process::Run};

/// A recovery may take long; a day says "stuck", not "much WAL".
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// How often the control file is looked at.
const LOOK: Duration = Duration::from_millis(300);

/// What tells PostgreSQL to recover from the archive.
const SIGNAL: &str = "recovery.signal";

/// What said how to recover, and says the wrong thing from then on.
const DONE_WITH: [&str; 8] = [
    "archive_cleanup_command",
    "archive_mode",
    "primary_conninfo",
    "primary_slot_name",
    "recovery_end_command",
    "recovery_min_apply_delay",
    "recovery_target",
    "restore_command",
];

/// Recovers the data directory as its own configuration says, until it is a primary's, on a timeline of its own and cleanly stopped. `said` gets
/// what the server says.
///
/// # Errors
/// When the server ends before it has got there.
pub async fn recover(installation: &Installation, said: impl FnMut(&str)) -> Result<(), PostgresError> {
    let data = installation.data_dir.display().to_string();
    let settings = [
        "listen_addresses=".to_owned(),
        // Nobody looks for a server here.
        format!("unix_socket_directories={data}"),
        "hot_standby=off".to_owned(),
        // Nothing is archived now, and the history of the new timeline is noted as something to archive later.
        "archive_mode=on".to_owned(),
        "archive_command=".to_owned(),
        "archive_library=".to_owned(),
        "logging_collector=off".to_owned(),
        "synchronous_standby_names=".to_owned(),
        // Between its recovery and its stop it is a primary: subscriptions of the backed up cluster would be fetched a second time.
        "max_logical_replication_workers=0".to_owned(),
        "autovacuum=off".to_owned(),
        // One that crashes is not to begin again by itself.
        "restart_after_crash=off".to_owned(),
    ];
    let server = Run::new(installation.program("postgres")).args(["-D", &data]);
    let server = settings.iter().fold(server, |server, setting| server.args(["-c", setting]));
    let mut server = std::pin::pin!(server.env("LC_MESSAGES", "C").limit(LONGEST).lines(said));
    tokio::select! {
        ended = &mut server => {
            ended?;
            return Err(PostgresError::NotYet("the server stopped before its recovery had come to its end".to_owned()));
        }
        () = in_production(installation) => {}
    }
    let stop = Run::new(installation.program("pg_ctl")).args(["stop", "-D", &data, "-m", "fast", "-w", "-t", "3600"]);
    let (stopped, ended) = tokio::join!(stop.limit(LONGEST).output(), server);
    stopped?;
    ended?;
    let state = control_data::read(installation).await?.state;
    if state != ClusterState::ShutDown {
        return Err(PostgresError::NotYet(format!("the recovered server was not shut down in good order: {state:?}")));
    }
    forget_settings(&installation.data_dir)
}

/// Whether a restored directory waits for its recovery, or for the rest of it.
pub fn waits(data: &Path) -> bool {
    data.join(SIGNAL).exists()
}

/// Whether a line of the server's says that it gave up because nobody knew whether the archive has a file: that is no fault of the directory.
pub fn says_that_the_archive_failed(line: &str) -> bool {
    line.contains("FATAL:") && line.contains("could not restore file") && line.contains("from archive")
}

/// Returns when the server accepts writes, or would.
async fn in_production(installation: &Installation) {
    loop {
        tokio::time::sleep(LOOK).await;
        // While it is being written it may not be readable.
        if control_data::read(installation).await.is_ok_and(|control| has_recovered(&installation.data_dir, control.state)) {
            return;
        }
    }
}

/// A primary's backup says "in production" from the beginning, until the first WAL was fetched: PostgreSQL removes what told it to recover before
/// it says so by itself.
fn has_recovered(data: &Path, state: ClusterState) -> bool {
    state == ClusterState::InProduction && !data.join(SIGNAL).exists()
}

/// Removes from `postgresql.auto.conf` what recovery was configured with: it would win over the agent's configuration.
fn forget_settings(data: &Path) -> Result<(), PostgresError> {
    let path = data.join(auto_conf::FILE);
    let found = match fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        read => read.map_err(PostgresError::file("read", &path))?,
    };
    files::replace(&path, &auto_conf::without_lines(&found, is_done_with), 0o600).map_err(PostgresError::file("write", path))
}

fn is_done_with(name: &str) -> bool {
    DONE_WITH.contains(&name) || name.starts_with("recovery_target_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_primarys_backup_is_not_recovered_because_its_control_file_says_in_production() {
        let data = tempfile::tempdir().unwrap();
        fs::write(data.path().join(SIGNAL), "").unwrap();
        assert!(!has_recovered(data.path(), ClusterState::InProduction), "restore_command has not come back yet");
        fs::remove_file(data.path().join(SIGNAL)).unwrap();
        assert!(!has_recovered(data.path(), ClusterState::InArchiveRecovery));
        assert!(has_recovered(data.path(), ClusterState::InProduction));
    }

    #[test]
    fn what_recovery_was_told_does_not_outlive_it() {
        let data = tempfile::tempdir().unwrap();
        let text = b"# a remark\nwork_mem = '8MB'\nrestore_command = 'x %f'\nrecovery_target_time = 'y'\narchive_mode='off'\n recovery_target = ''\n";
        forget_settings(data.path()).unwrap();
        fs::write(data.path().join(auto_conf::FILE), text).unwrap();
        forget_settings(data.path()).unwrap();
        assert_eq!(fs::read(data.path().join(auto_conf::FILE)).unwrap(), b"# a remark\nwork_mem = '8MB'\n");
    }
}
