//! The WAL service of this node: a child of the agent's, and what PostgreSQL is told so that it asks it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Signal, set_parent_process_death_signal};
use tokio::process::Command;

use super::config::ArchiveSettings;
use crate::sys::clock::Moment;

/// Pauses before a service that ended is started again.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A service that lived this long was not failing at its start.
const SETTLED: Duration = Duration::from_secs(30);

/// A segment is archived after this long, full or not, where nothing else is configured.
const ARCHIVE_TIMEOUT: &str = "60s";

/// Runs the service, and starts it again whenever it ends. It ends with this process.
pub async fn keep_running(archive: ArchiveSettings, data_dir: PathBuf) {
    let arguments = archive.arguments(&data_dir.to_string_lossy());
    let mut pause = FIRST_PAUSE;
    loop {
        let started = Moment::now();
        let ended = run(&arguments).await;
        if Moment::now().since(started) > SETTLED {
            pause = FIRST_PAUSE;
        }
        match ended {
            Ok(status) => tracing::warn!("the WAL service ended ({status}): starting it again in {pause:?}"),
            Err(error) => tracing::error!("the WAL service cannot be started: {error}: trying again in {pause:?}"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn run(arguments: &[String]) -> std::io::Result<ExitStatus> {
    // The executable itself, even when the file has been replaced meanwhile: agent and service stay one version.
    let mut command = Command::new("/proc/self/exe");
    command.arg0("spilo").args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
    // SAFETY: an async-signal-safe system call without allocation.
    unsafe {
        command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::TERM))?));
    }
    command.spawn()?.wait().await
}

/// Makes PostgreSQL archive and restore through the service. What the user has said of either counts no more.
pub fn set_parameters(parameters: &mut BTreeMap<String, String>) {
    let program = program();
    // `always`, where standbys archive too, does no harm.
    if parameters.get("archive_mode").is_none_or(|mode| mode != "always") {
        parameters.insert("archive_mode".to_owned(), "on".to_owned());
    }
    // It would be asked instead of the command.
    parameters.remove("archive_library");
    // A shell that does not find the program, or sees it killed, ends with a code that would end PostgreSQL's archiver, uncounted.
    parameters.insert("archive_command".to_owned(), format!("{program} wal push \"%p\" \"%f\" || exit 1"));
    parameters.insert("restore_command".to_owned(), format!("{program} wal fetch \"%f\" \"%p\""));
    parameters.entry("archive_timeout".to_owned()).or_insert_with(|| ARCHIVE_TIMEOUT.to_owned());
}

/// The running program's file, as a shell reads it in one of PostgreSQL's commands.
fn program() -> String {
    let path = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("spilo"));
    quoted(&path)
}

fn quoted(path: &Path) -> String {
    let path = path.to_string_lossy();
    // The file may have been replaced under us; then another version lies in its place.
    let path = path.strip_suffix(" (deleted)").unwrap_or(&path);
    shlex::try_quote(path).map_or_else(|_| "spilo".to_owned(), |quoted| quoted.replace('%', "%%"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_counts_and_not_what_the_user_has_said_of_one() {
        let text = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut parameters = BTreeMap::from([
            text("archive_mode", "off"),
            text("archive_command", "cp"),
            text("restore_command", "cp"),
            text("archive_library", "x"),
            text("archive_timeout", "5min"),
            text("work_mem", "8MB"),
        ]);
        set_parameters(&mut parameters);
        assert_eq!(parameters["archive_mode"], "on");
        assert!(
            parameters["archive_command"].ends_with(" wal push \"%p\" \"%f\" || exit 1") && parameters["archive_command"].starts_with('/')
        );
        assert!(parameters["restore_command"].ends_with(" wal fetch \"%f\" \"%p\""));
        assert_eq!((parameters["archive_timeout"].as_str(), parameters["work_mem"].as_str()), ("5min", "8MB"));
        assert!(!parameters.contains_key("archive_library"));
        let mut parameters = BTreeMap::from([text("archive_mode", "always")]);
        set_parameters(&mut parameters);
        assert_eq!((parameters["archive_mode"].as_str(), parameters["archive_timeout"].as_str()), ("always", "60s"));
    }

    #[test]
    fn a_program_is_named_so_that_a_shell_finds_it() {
        assert_eq!(quoted(Path::new("/usr/bin/spilo")), "/usr/bin/spilo");
        assert_eq!(quoted(Path::new("/usr/bin/spilo (deleted)")), "/usr/bin/spilo");
        assert_eq!(quoted(Path::new("/my programs/100%/spilo")), "'/my programs/100%%/spilo'");
    }
}
