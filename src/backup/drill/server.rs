//! A server that nobody outside can reach, and that reaches nobody.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use tokio::process::{Child, Command};
use tokio_postgres::NoTls;

use super::{DrillError, Request, Scratch};
use crate::{
    postgres::{Installation, limits},
    sys::{
        files,
        process::{Run, last_lines},
    },
};

/// How often the server is asked whether it has recovered.
const LOOK: Duration = Duration::from_millis(200);

/// How long it may take to end before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// The system allows 107 bytes for the path of a socket, of which its name takes some.
const LONGEST_SOCKET_DIR: usize = 80;

/// The socket's name has a port in it.
pub const PORT: u16 = 5432;

/// What counts whatever the restored configuration says: arguments come before every file.
const ALWAYS: &[(&str, &str)] = &[
    ("listen_addresses", ""),
    ("port", "5432"),
    ("unix_socket_permissions", "0700"),
    ("ssl", "off"),
    // Jobs, workers and subscriptions of the restored cluster would do their work a second time.
    ("shared_preload_libraries", ""),
    ("session_preload_libraries", ""),
    ("local_preload_libraries", ""),
    ("max_logical_replication_workers", "0"),
    ("autovacuum", "off"),
    ("event_source", "spilo"),
    ("archive_mode", "off"),
    ("archive_command", ""),
    ("archive_cleanup_command", ""),
    ("recovery_end_command", ""),
    ("primary_conninfo", ""),
    ("primary_slot_name", ""),
    ("synchronous_standby_names", ""),
    ("hot_standby", "on"),
    // The running server has the memory of this machine.
    ("shared_buffers", "64MB"),
    ("huge_pages", "off"),
    ("work_mem", "4MB"),
    ("maintenance_work_mem", "64MB"),
    ("max_parallel_workers_per_gather", "0"),
    ("max_parallel_maintenance_workers", "0"),
    ("dynamic_shared_memory_type", "mmap"),
    ("logging_collector", "off"),
    ("log_destination", "stderr"),
    // What it logs is read.
    ("lc_messages", "C"),
    ("syslog_ident", "spilo-drill"),
    ("external_pid_file", ""),
    ("recovery_init_sync_method", "syncfs"),
    ("restart_after_crash", "off"),
];

/// A running server in a directory that is thrown away.
pub struct ThrowAway {
    child: Child,
    host: String,
    log: PathBuf,
    pid_file: PathBuf,
}

/// Why there is no session with a recovered server.
#[derive(Debug)]
pub enum NotRecovered {
    /// It does not recover what was restored, and says why.
    Fails(String),
    /// That has nothing to do with the backup.
    NoVerdict(DrillError),
}

/// A session with it.
pub struct Session {
    /// Asks.
    pub client: tokio_postgres::Client,
    driver: tokio::task::JoinHandle<()>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// The programs have to be of the version that the data are of.
pub async fn check_version(bin_dir: &Path, server_version: u32) -> Result<(), DrillError> {
    let program = Installation { data_dir: "".into(), bin_dir: bin_dir.to_owned(), passfile: "".into() }.program("postgres");
    let said = Run::new(&program).arg("--version").output().await;
    let said = said.map_err(|error| DrillError::unfit(error.to_string(), "name the directory of PostgreSQL's programs with --bin-dir"))?;
    let digits = said.split_whitespace().find(|word| word.starts_with(|first: char| first.is_ascii_digit())).unwrap_or_default();
    let major: u32 = digits.split(|letter: char| !letter.is_ascii_digit()).next().and_then(|word| word.parse().ok()).unwrap_or(0);
    if major == server_version / 10_000 {
        return Ok(());
    }
    let why = format!("'{}' is of version {major}, and the backup of {}", program.display(), server_version / 10_000);
    Err(DrillError::unfit(why, "name the directory of the right version with --bin-dir"))
}

/// Whether its socket's path fits into what the system allows: asked before anything is restored.
pub fn check_socket(scratch: &Scratch) -> Result<(), DrillError> {
    let host = scratch.socket_dir();
    if host.as_os_str().len() <= LONGEST_SOCKET_DIR {
        return Ok(());
    }
    Err(DrillError::unfit(format!("the path of the socket would be too long: '{}'", host.display()), "name a shorter --scratch"))
}

impl ThrowAway {
    /// Starts it. It ends with this process, whatever that ends by.
    pub async fn start(scratch: &Scratch, request: &Request, server_version: u32) -> Result<ThrowAway, DrillError> {
        let installation =
            Installation { data_dir: scratch.data_dir(), bin_dir: request.bin_dir.clone(), passfile: scratch.root().join("passfile") };
        let recorded = limits::recorded(&installation).await;
        let recorded =
            recorded.map_err(|error| DrillError::unfit(format!("its control file cannot be read: {error}"), "is --bin-dir right?"))?;
        let (access, log) = (scratch.root().join("pg_hba.conf"), scratch.root().join("log"));
        for (path, text) in
            [(&access, "local all all trust\n"), (&scratch.root().join("pg_ident.conf"), ""), (&scratch.root().join("conf"), "")]
        {
            files::replace(path, text.as_bytes(), 0o600).map_err(DrillError::file("write", path))?;
        }
        let host = scratch.socket_dir().to_string_lossy().into_owned();
        let path = |name: &str| scratch.root().join(name).to_string_lossy().into_owned();
        let mut command = Command::new(installation.program("postgres"));
        command.arg("-D").arg(&installation.data_dir);
        let mut set = |name: &str, value: &str| {
            command.arg("-c").arg(format!("{name}={value}"));
        };
        set("config_file", &path("conf"));
        set("hba_file", &path("pg_hba.conf"));
        set("ident_file", &path("pg_ident.conf"));
        set("unix_socket_directories", &host);
        ALWAYS.iter().for_each(|(name, value)| set(name, value));
        if server_version >= 170_000 {
            // A trigger on logging in would be one that a check does.
            set("event_triggers", "off");
        }
        recorded.iter().for_each(|(name, value)| set(name, &value.to_string()));
        let output = File::create(&log).map_err(DrillError::file("write", &log))?;
        let errors = output.try_clone().map_err(DrillError::file("write", &log))?;
        command.env_remove("PGDATA").env("LC_ALL", "C").stdin(Stdio::null()).stdout(output).stderr(errors).kill_on_drop(true);
        // SAFETY: one async-signal-safe system call without allocation.
        unsafe {
            command.as_std_mut().pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::QUIT))?));
        }
        let child =
            command.spawn().map_err(|error| DrillError::unfit(format!("PostgreSQL cannot be started: {error}"), "is --bin-dir right?"))?;
        Ok(ThrowAway { child, host, log, pid_file: installation.data_dir.join("postmaster.pid") })
    }

    /// The directory of its socket.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// A session, as soon as it has recovered and accepts writes.
    ///
    /// # Errors
    /// Why that will not be: the last that it has logged.
    pub async fn recovered(&mut self, request: &Request) -> Result<Session, NotRecovered> {
        let begun = Instant::now();
        let mut last = String::new();
        while begun.elapsed() < request.patience {
            if let Ok(Some(status)) = self.child.try_wait() {
                let why = format!("it ended ({status}): {}", self.said());
                return Err(if lacks_an_answer(&self.logged()) {
                    NotRecovered::NoVerdict(DrillError::NoWal(why))
                } else {
                    NotRecovered::Fails(why)
                });
            }
            match self.connect(&request.user, &request.database).await {
                Ok(session) => match session.client.query_one("select pg_is_in_recovery()", &[]).await {
                    Ok(row) if !row.get::<_, bool>(0) => return Ok(session),
                    Ok(_) => {}
                    Err(error) => last = told(&error),
                },
                // Before it is ready, WAL may still bring what is asked for.
                Err(error) if is_refusal(&error) && self.is_ready() => return Err(NotRecovered::NoVerdict(refused(&error))),
                Err(error) => last = told(&error),
            }
            tokio::time::sleep(LOOK).await;
        }
        Err(NotRecovered::Fails(format!("it has not recovered within {} s: {last}; {}", request.patience.as_secs(), self.said())))
    }

    /// Whether it says that it has ended recovery: the eighth line of its pid file.
    fn is_ready(&self) -> bool {
        fs::read_to_string(&self.pid_file).is_ok_and(|text| text.lines().nth(7).is_some_and(|state| state.trim() == "ready"))
    }

    /// A session with one of its databases.
    pub async fn connect(&self, user: &str, database: &str) -> Result<Session, tokio_postgres::Error> {
        let mut config = tokio_postgres::Config::new();
        config.host(&self.host).port(PORT).user(user).dbname(database).connect_timeout(Duration::from_secs(10));
        let (client, connection) = config.connect(NoTls).await?;
        let driver = tokio::spawn(async move {
            // How a session ends is seen by who asks in it.
            let _ = connection.await;
        });
        Ok(Session { client, driver })
    }

    /// Ends it. What it has in memory is not needed any more.
    pub async fn stop(&mut self) {
        if let Some(pid) = self.child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())) {
            let _ = kill_process(pid, Signal::QUIT);
        }
        if tokio::time::timeout(STOP_LIMIT, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }

    fn logged(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The last lines of its log that say what is wrong, or else its last lines.
    fn said(&self) -> String {
        let text = self.logged();
        let serious: Vec<&str> =
            text.lines().filter(|line| ["FATAL:", "PANIC:", "ERROR:"].iter().any(|word| line.contains(word))).collect();
        if serious.is_empty() { last_lines(&text, 3) } else { last_lines(&serious.join("\n"), 3) }
    }
}

/// Whether recovery has ended because nobody could say what the archive has: the command that asks it was ended, or could not be run, or got no
/// answer. That what the archive has is damaged is an answer.
fn lacks_an_answer(log: &str) -> bool {
    log.contains("FATAL:  could not restore file \"") && !log.contains("is damaged: ")
}

/// With what the server said of it.
pub fn told(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), |error| error.message().to_owned())
}

/// Whether there is no such role or database, or the role may not connect: asking again changes nothing.
fn is_refusal(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| ["28", "3D"].iter().any(|class| code.code().starts_with(class)))
}

fn refused(error: &tokio_postgres::Error) -> DrillError {
    DrillError::unfit(told(error), "name a superuser of the backed up cluster with --user, and one of its databases with --database")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_does_not_answer_is_told_from_one_that_has_something_damaged() {
        let ended = "LOG:  starting archive recovery\nFATAL:  could not restore file \"000000010000000000000002\" from archive: \
                     child process exited with exit code 126\nLOG:  startup process (PID 7) exited with exit code 1\n";
        assert!(lacks_an_answer(ended));
        assert!(!lacks_an_answer(&format!(
            "error: 'orders/wal/7/00000001/2.zst' is damaged: its content is not what was archived\n{ended}"
        )));
        assert!(!lacks_an_answer("FATAL:  recovery ended before configured recovery target was reached\n"));
    }
}
