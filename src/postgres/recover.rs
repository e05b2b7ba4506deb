//! Recovery of a restored backup to its end, before anybody may connect: the server is started for nothing else, and stopped again.

use std::{fs, path::Path, time::Duration};

use super::{
    Installation, PostgresError,
    control_data::{self, ClusterState},
};
use crate::sys::{files, process::Run};

/// A recovery may take long; a day says "stuck", not "much WAL".
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// How often the control file is looked at.
const LOOK: Duration = Duration::from_millis(300);

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

/// Returns when the server accepts writes, or would.
async fn in_production(installation: &Installation) {
    loop {
        tokio::time::sleep(LOOK).await;
        // While it is being written it may not be readable.
        if control_data::read(installation).await.is_ok_and(|control| control.state == ClusterState::InProduction) {
            return;
        }
    }
}

/// Removes from `postgresql.auto.conf` what recovery was configured with: it would win over the agent's configuration.
fn forget_settings(data: &Path) -> Result<(), PostgresError> {
    let path = data.join("postgresql.auto.conf");
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        read => read.map_err(PostgresError::file("read", &path))?,
    };
    files::replace(&path, without_recovery(&text).as_bytes(), 0o600).map_err(PostgresError::file("write", path))
}

fn without_recovery(text: &str) -> String {
    let done_with = |line: &&str| {
        let name = line.trim_start().split(|c: char| c == '=' || c.is_whitespace()).next().unwrap_or_default().to_ascii_lowercase();
        !DONE_WITH.contains(&name.as_str()) && !name.starts_with("recovery_target_")
    };
    text.lines().filter(done_with).map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_recovery_was_told_does_not_outlive_it() {
        let text = "# a remark\nwork_mem = '8MB'\nrestore_command = 'x %f'\nrecovery_target_time = 'y'\narchive_mode='off'\n recovery_target = ''\n";
        assert_eq!(without_recovery(text), "# a remark\nwork_mem = '8MB'\n");
    }
}
