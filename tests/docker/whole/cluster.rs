//! One cluster and the user in front of it.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Read},
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio_postgres::Config;

use crate::{
    shared::{
        block,
        run::Run,
        wait_until,
        writer::{Writer, expect_all, rows},
    },
    support::{clean, engine, own_port},
};

/// How long anything may take that the cluster does by itself, such as choosing another leader: generous, because the machine may be busy.
pub const LIMIT: Duration = Duration::from_secs(60);

/// How long one command may take. Building the image from nothing is the longest.
const COMMAND_LIMIT: Duration = Duration::from_secs(400);

/// How many lines of each container's log are shown when a story goes wrong.
const LAST_LINES: u32 = 15;

/// What `spilo` says of a step that is done.
pub const STEP_DONE: &str = ": done in ";

/// A cluster by its name, whether or not anything of it exists. It is gone when the test ends, also when it fails.
pub struct Cluster {
    pub name: String,
    port: Option<u16>,
    state: tempfile::TempDir,
}

impl Cluster {
    /// A cluster with ports of its own; `None` with a visible line where there is no engine.
    pub fn new(story: &str) -> Option<Cluster> {
        Cluster::with(format!("{story}{}", std::process::id()), Some(own_port()))
    }

    /// One of this name, for which `spilo` chooses the ports.
    pub fn with_ports_chosen(name: String) -> Option<Cluster> {
        Cluster::with(name, None)
    }

    fn with(name: String, port: Option<u16>) -> Option<Cluster> {
        block(engine())?;
        Some(Cluster { name, port, state: tempfile::tempdir().unwrap() })
    }

    /// The arguments that create it.
    pub fn creation(&self, nodes: u8) -> Vec<String> {
        let mut arguments = ["create", "cluster", &self.name, "--nodes"].map(str::to_owned).to_vec();
        arguments.push(nodes.to_string());
        arguments.extend(self.port.into_iter().flat_map(|port| ["--port".to_owned(), port.to_string()]));
        arguments
    }

    /// Creates it and expects that it is healthy then.
    pub fn create(&self, nodes: u8) -> Run {
        self.spilo(&self.creation(nodes)).exits(0)
    }

    /// Restores what is missing and expects that it is healthy then.
    pub fn apply(&self) -> Run {
        self.spilo(&["apply", &self.name]).exits(0)
    }

    /// Runs `spilo` with these arguments.
    pub fn spilo(&self, arguments: &[impl AsRef<str>]) -> Run {
        let mut child = self.command(arguments).spawn().expect("the binary was built for this test");
        let stdout = read_all(child.stdout.take().expect("it is a pipe"));
        let stderr = read_all(child.stderr.take().expect("it is a pipe"));
        let status = ended(&mut child);
        Run::of(&Output { status, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() })
    }

    /// Runs psql through `spilo connect` with these options; returns what it prints.
    pub fn connect(&self, options: &[&str], sql: &str) -> String {
        let arguments = [&["connect", &self.name], options, &["--", "-XAtc", sql]].concat();
        self.spilo(&arguments).exits(0).stdout.trim_end().to_owned()
    }

    /// Fails if a cluster that was called healthy a moment ago does not serve whoever comes first: no client shall have to try again.
    pub fn expect_open(&self) {
        assert_eq!(self.connect(&[], "create temporary table first (n int); select 'written'"), "CREATE TABLE\nwritten");
        assert_eq!(self.connect(&["--replica"], "select 'read'"), "read");
    }

    /// Runs `spilo` until it has said of so many steps that they are done, and this long on; then it is killed as by kill -9. Returns whether it
    /// was still running.
    pub fn spilo_killed(&self, arguments: &[impl AsRef<str>], steps: usize, then: Duration) -> bool {
        let mut child = self.command(arguments).spawn().expect("the binary was built for this test");
        let lines = BufReader::new(child.stderr.take().expect("it is a pipe")).lines();
        let done = lines.map_while(Result::ok).filter(|line| line.contains(STEP_DONE)).take(steps).count();
        std::thread::sleep(then);
        let was_running = done == steps && child.try_wait().unwrap().is_none();
        child.kill().unwrap();
        child.wait().unwrap();
        was_running
    }

    fn command(&self, arguments: &[impl AsRef<str>]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_spilo"));
        let arguments = arguments.iter().map(AsRef::as_ref);
        command.args(arguments).env("XDG_STATE_HOME", self.state.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// The file with the password for clients of this user.
    pub fn passfile(&self) -> std::path::PathBuf {
        self.state.path().join("spilo").join(format!("{}.pgpass", self.name))
    }

    /// `spilo status -o json`, whatever it says.
    pub fn status(&self) -> Value {
        let run = self.spilo(&["status", &self.name, "-o", "json"]);
        serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {}{}", run.stdout, run.stderr))
    }

    /// The member that leads.
    pub fn leader(&self) -> String {
        let status = self.status();
        status["leader"].as_str().unwrap_or_else(|| panic!("nobody leads: {status:#}")).to_owned()
    }

    /// Another member than this one.
    pub fn other_than(&self, member: &str) -> String {
        self.members().into_iter().find(|other| other != member).expect("there are more")
    }

    /// The members, as the status has them.
    pub fn members(&self) -> Vec<String> {
        self.status()["nodes"].as_array().unwrap().iter().map(|node| node["name"].as_str().unwrap().to_owned()).collect()
    }

    /// The container of a member or another part, such as `router`.
    pub fn container(&self, part: &str) -> String {
        if part.starts_with(&self.name) { format!("spilo-{part}") } else { format!("spilo-{}-{part}", self.name) }
    }

    /// The cluster's network.
    pub fn network(&self) -> String {
        format!("spilo-{}", self.name)
    }

    /// How a client connects: `rw` or `ro`.
    pub fn client(&self, role: &str) -> Config {
        let uri = self.spilo(&["dsn", &self.name, "--role", role, "--show-password"]).exits(0).stdout;
        let mut config: Config = uri.trim_end().parse().expect("it is a connection string");
        config.connect_timeout(Duration::from_secs(2));
        config
    }

    /// A client that writes all the time through the published port.
    pub fn writer(&self) -> Writer {
        Writer::start(&self.client("rw"))
    }

    /// Fails if a row is missing on the primary, or stays missing on a member.
    pub fn expect_rows(&self, acknowledged: &BTreeSet<i64>) {
        expect_all(acknowledged, &rows(&self.client("rw")).unwrap(), "the primary");
        for member in self.members() {
            wait_until(&format!("'{member}' has every row"), LIMIT, || acknowledged.is_subset(&self.rows_of(&member)));
        }
    }

    fn rows_of(&self, member: &str) -> BTreeSet<i64> {
        let output =
            self.exec(member, &["psql", "-XAt", "-h", "/run/spilo", "-U", "postgres", "-d", "app", "-c", "select id from written"]);
        String::from_utf8(output.stdout).unwrap().lines().map(|line| line.parse().unwrap()).collect()
    }

    /// What somebody needs to see who reads that a story failed.
    fn show(&self) {
        let status = self.spilo(&["status", &self.name, "-o", "wide"]);
        eprintln!("---- status, exit code {}\n{}{}", status.code, status.stdout, status.stderr);
        for container in self.containers() {
            eprintln!("---- the end of the log of {container}\n{}", self.log(&container, Some(LAST_LINES)));
        }
    }
}

impl Drop for Cluster {
    /// In threads, because a second panic in this one would end the process and leave everything behind.
    fn drop(&mut self) {
        let failed = std::thread::panicking();
        let cleaned = std::thread::scope(|scope| {
            if failed {
                let _ = scope.spawn(|| self.show()).join();
            }
            scope.spawn(|| block(clean(&self.name.parse().unwrap()))).join()
        });
        assert!(cleaned.is_ok() || failed, "cluster '{}' could not be cleaned up", self.name);
    }
}

fn read_all(mut pipe: impl Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).unwrap();
        bytes
    })
}

/// Waits for the end of a command; one that hangs is killed, and then has no exit code.
fn ended(child: &mut Child) -> ExitStatus {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if started.elapsed() > COMMAND_LIMIT {
            child.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
