//! The services of this node that see to its archive: children of the agent's, which archive WAL and keep backups; and what PostgreSQL is told so that
//! it asks them.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Signal, set_parent_process_death_signal};
use tokio::{io::AsyncWriteExt as _, process::Command};

use super::config::{AgentConfig, ArchiveSettings};
use crate::{
    model::Secret,
    postgres::own_command,
    sys::{clock::Moment, files},
};

/// Pauses before a service that ended is started again.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A service that lived this long was not failing at its start.
const SETTLED: Duration = Duration::from_secs(30);

/// A segment is archived after this long, full or not, where nothing else is configured.
const ARCHIVE_TIMEOUT: &str = "60s";

/// A command of ours that is to run as long as the agent does.
pub struct Service {
    name: &'static str,
    arguments: Vec<String>,
    /// For its standard input: what no argument may hold.
    input: Option<Secret>,
}

impl Service {
    /// The WAL service.
    pub fn of_wal(archive: &ArchiveSettings, data_dir: &Path) -> Service {
        Service { name: "WAL service", arguments: archive.arguments(&data_dir.to_string_lossy()), input: None }
    }

    /// The keeper of backups. `agent` is where this agent's REST API listens.
    pub fn keeper(archive: &ArchiveSettings, config: &AgentConfig, agent: SocketAddr) -> Service {
        let path = |path: &Path| path.to_string_lossy().into_owned();
        let (data_dir, scratch) = (&config.installation.data_dir, files::beside(&config.installation.data_dir, ".drill"));
        let options = [
            ("--member", config.name.to_string()),
            ("--data-dir", path(data_dir)),
            ("--agent", format!("http://{}", reachable(agent))),
            ("--host", config.local.host.clone()),
            ("--port", config.local.port.to_string()),
            ("--user", config.superuser.username.clone()),
            ("--bin-dir", path(&config.installation.bin_dir)),
            ("--scratch", path(&scratch)),
        ];
        let mut arguments = ["backup", "keep"].map(str::to_owned).to_vec();
        arguments.extend(said(&options));
        arguments.extend(archive.options());
        if config.superuser.password.is_some() {
            arguments.push("--password-stdin".to_owned());
        }
        Service { name: "keeper of backups", arguments, input: config.superuser.password.clone() }
    }
}

/// Options as one word each: a value may begin like an option. What is not configured, such as where PostgreSQL's programs are, is not said.
fn said(options: &[(&str, String)]) -> impl Iterator<Item = String> {
    options.iter().filter(|(_, value)| !value.is_empty()).map(|(option, value)| format!("{option}={value}"))
}

/// Where this machine reaches who listens there.
fn reachable(listening: SocketAddr) -> SocketAddr {
    let host = match listening.ip() {
        IpAddr::V4(host) if host.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(host) if host.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        host => host,
    };
    SocketAddr::new(host, listening.port())
}

/// Runs the service, and starts it again whenever it ends. It ends with this process.
pub async fn keep_running(service: Service) {
    let name = service.name;
    let mut pause = FIRST_PAUSE;
    loop {
        let started = Moment::now();
        let ended = run(&service).await;
        if Moment::now().since(started) > SETTLED {
            pause = FIRST_PAUSE;
        }
        match ended {
            Ok(status) => tracing::warn!("the {name} ended ({status}): starting it again in {pause:?}"),
            Err(error) => tracing::error!("the {name} cannot be started: {error}: trying again in {pause:?}"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn run(service: &Service) -> std::io::Result<ExitStatus> {
    // The executable itself, even when the file has been replaced meanwhile: agent and service stay one version.
    let mut command = Command::new("/proc/self/exe");
    let input = if service.input.is_some() { Stdio::piped() } else { Stdio::null() };
    command.arg0("spilo").args(&service.arguments).stdin(input).stdout(Stdio::null());
    // SAFETY: an async-signal-safe system call without allocation.
    unsafe {
        command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::TERM))?));
    }
    let mut child = command.spawn()?;
    if let (Some(secret), Some(mut stdin)) = (&service.input, child.stdin.take()) {
        // Who ends without reading it tells by its exit code why.
        let _ = stdin.write_all(format!("{}\n", secret.expose()).as_bytes()).await;
    }
    child.wait().await
}

/// Makes PostgreSQL archive and restore through the service. What the user has said of either counts no more.
pub fn set_parameters(parameters: &mut BTreeMap<String, String>) {
    let program = own_command::command(&[]).unwrap_or_else(|_| "spilo".to_owned());
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
    fn what_is_not_configured_is_no_empty_option() {
        let options = [("--user", "-su".to_owned()), ("--bin-dir", String::new())];
        assert_eq!(said(&options).collect::<Vec<_>>(), ["--user=-su"]);
    }
}
