//! One PostgreSQL server without an agent, which archives into a store, and `spilo` beside it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use super::{
    machine::{as_other_user, bin_dir, own, place_program},
    s3::S3Double,
};
use crate::support::{run::Run, wait_until};

/// The store's name for the cluster.
pub const CLUSTER: &str = "orders";

const LIMIT: Duration = Duration::from_secs(120);

/// A place with programs and a store.
pub struct Stage {
    dir: tempfile::TempDir,
    bin: PathBuf,
    program: PathBuf,
    /// The options that lead to the store.
    store: Vec<String>,
}

/// A data directory and the server in it. It is stopped when it goes.
pub struct Server<'a> {
    stage: &'a Stage,
    pub data: PathBuf,
    socket: PathBuf,
}

impl Stage {
    /// An empty store; one of which everything is encrypted where `SPILO_TEST_ENCRYPTED` is set: what is true of one is true of the other.
    /// `None`: there is no PostgreSQL on this machine, and it has been said.
    pub fn new() -> Option<Stage> {
        if std::env::var_os("SPILO_TEST_ENCRYPTED").is_some() {
            return Stage::encrypted();
        }
        let stage = Stage::without_store()?;
        let store = format!("file://{}", stage.make_dir("store").display());
        Some(stage.with_store(vec!["--store".to_owned(), store]))
    }

    /// The same with a key.
    pub fn encrypted() -> Option<Stage> {
        let stage = Stage::without_store()?;
        let store = format!("file://{}", stage.make_dir("store").display());
        let key = stage.path("orders.key").display().to_string();
        stage.spilo(&["backup", "key", "new", &key]).exits(0);
        let mut stage = stage.with_store(vec!["--store".to_owned(), store]);
        stage.store.extend(["--store-key".to_owned(), key]);
        Some(stage)
    }

    /// The same with a store in a bucket.
    pub fn with_bucket(double: &S3Double) -> Option<Stage> {
        let stage = Stage::without_store()?;
        let credentials = stage.path("credentials");
        fs::copy(double.credentials_file(), &credentials).unwrap();
        own(&credentials);
        let (endpoint, credentials) = (double.endpoint(), credentials.display().to_string());
        let words = ["--store", "s3://backups/prod", "--store-endpoint", &endpoint, "--store-credentials", &credentials];
        Some(stage.with_store(words.map(str::to_owned).to_vec()))
    }

    fn with_store(mut self, words: Vec<String>) -> Stage {
        self.store = words;
        self.spilo(&[&["wal", "init"], &self.store()[..]].concat()).exits(0);
        self
    }

    fn without_store() -> Option<Stage> {
        let Some(bin) = bin_dir() else {
            assert!(std::env::var_os("CI").is_none(), "PostgreSQL is not installed, and in CI no test may be skipped");
            eprintln!("SKIPPED: PostgreSQL is not installed");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        own(dir.path());
        let program = place_program(dir.path());
        Some(Stage { dir, bin, program, store: Vec::new() })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A directory that belongs to PostgreSQL's user.
    pub fn make_dir(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir(&path).unwrap();
        own(&path);
        path
    }

    /// The options that lead to the store.
    pub fn store(&self) -> Vec<&str> {
        self.store.iter().map(String::as_str).collect()
    }

    fn command(&self, program: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).current_dir(self.dir.path()).stdin(Stdio::null()).env("LC_ALL", "C").env("TZ", "UTC");
        command.env("HOME", self.dir.path());
        as_other_user(&mut command);
        command
    }

    /// Runs one of PostgreSQL's programs; it ends well.
    pub fn run(&self, program: &str, args: &[&str]) -> String {
        self.try_run(program, args).exits(0).stdout
    }

    pub fn try_run(&self, program: &str, args: &[&str]) -> Run {
        Run::of(&self.command(&self.bin.join(program), args).output().unwrap())
    }

    pub fn spilo(&self, args: &[&str]) -> Run {
        Run::of(&self.command(&self.program, args).output().unwrap())
    }

    /// `spilo` with these words, while it goes on.
    pub fn begin(&self, args: &[&str]) -> Child {
        self.command(&self.program, args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// `spilo backup restore` into the directory of this name.
    pub fn restore(&self, name: &str, options: &[&str]) -> Run {
        let directory = self.path(name).display().to_string();
        let fixed = ["-o", "json", "backup", "restore", &directory, "--cluster", CLUSTER];
        self.spilo(&[&fixed[..], &self.store(), options].concat())
    }

    /// The same, while it goes on.
    pub fn begin_restore(&self, name: &str, options: &[&str]) -> Child {
        let directory = self.path(name).display().to_string();
        let fixed = ["backup", "restore", &directory, "--cluster", CLUSTER];
        let mut command = self.command(&self.program, &[&fixed[..], &self.store(), options].concat());
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// A new server that archives into the store and runs.
    pub fn create(&self, name: &str) -> Server<'_> {
        self.create_with(name, 16, "")
    }

    /// The same with WAL segments of so many megabytes, and these settings besides.
    pub fn create_with(&self, name: &str, segment: u32, more: &str) -> Server<'_> {
        let (data, segment) = (self.path(name), format!("--wal-segsize={segment}"));
        let fixed = ["-A", "trust", "-U", "postgres", "-k", "-N", "--locale=C", &segment];
        self.run("initdb", &[&["-D", &data.display().to_string()], &fixed[..]].concat());
        let program = self.program.display();
        let way = format!("{} --cluster {CLUSTER}", self.store.join(" "));
        let settings = format!(
            "listen_addresses = ''\nmax_wal_size = 256MB\nshared_buffers = 32MB\nwal_level = replica\narchive_mode = on\n\
             archive_command = '{program} wal push {way} %p %f'\nrestore_command = '{program} wal fetch {way} %f %p'\n{more}"
        );
        let conf = data.join("postgresql.conf");
        let text = fs::read_to_string(&conf).unwrap();
        fs::write(&conf, text + &settings).unwrap();
        let server = self.server(name);
        server.start();
        server
    }

    /// The server in the data directory of this name, which may run or not.
    pub fn server(&self, name: &str) -> Server<'_> {
        let socket = self.path(&format!("{name}.socket"));
        if !socket.exists() {
            self.make_dir(&format!("{name}.socket"));
        }
        Server { stage: self, data: self.path(name), socket }
    }

    /// The server that was restored into the directory of this name, when it has done with recovery.
    pub fn recovered(&self, name: &str) -> Server<'_> {
        let server = self.server(name);
        server.start();
        wait_until("it has done with recovery", LIMIT, || server.try_sql("select pg_is_in_recovery()").is_ok_and(|told| told == "f"));
        server
    }
}

impl Server<'_> {
    fn control(&self, args: &[&str]) -> Run {
        let data = self.data.display().to_string();
        self.stage.try_run("pg_ctl", &[&["-D", &data], args].concat())
    }

    pub fn start(&self) {
        let run = self.try_start();
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        assert_eq!(run.code, 0, "{}{}\n{log}", run.stdout, run.stderr);
    }

    pub fn try_start(&self) -> Run {
        let options = format!("-c unix_socket_directories={} -c listen_addresses=", self.socket.display());
        self.control(&["start", "-w", "-t", "120", "-l", &self.log().display().to_string(), "-o", &options])
    }

    pub fn log(&self) -> PathBuf {
        self.data.with_extension("log")
    }

    pub fn stop(&self) {
        self.control(&["stop", "-w", "-t", "120", "-m", "fast"]).exits(0);
    }

    pub fn promote(&self) {
        self.control(&["promote", "-w", "-t", "120"]).exits(0);
    }

    /// Where it listens: directory and port.
    pub fn place(&self) -> [String; 4] {
        ["-h".to_owned(), self.socket.display().to_string(), "-p".to_owned(), "5432".to_owned()]
    }

    pub fn try_sql(&self, sql: &str) -> Result<String, String> {
        let place = self.place();
        let place = place.iter().map(String::as_str);
        let args: Vec<&str> = place.chain(["-U", "postgres", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql, "postgres"]).collect();
        let run = self.stage.try_run("psql", &args);
        if run.code == 0 { Ok(run.stdout.trim().to_owned()) } else { Err(run.stderr) }
    }

    pub fn sql(&self, sql: &str) -> String {
        self.try_sql(sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Everything written so far is in the archive.
    pub fn archive_all(&self) {
        let last = self.sql("select pg_walfile_name(pg_switch_wal())");
        let done = self.data.join(format!("pg_wal/archive_status/{last}.done"));
        let ready = self.data.join(format!("pg_wal/archive_status/{last}.ready"));
        wait_until("WAL was archived", LIMIT, || {
            let newest = self.sql("select coalesce(last_archived_wal, '') from pg_stat_archiver");
            done.exists() || (!ready.exists() && newest.get(8..24) >= last.get(8..24))
        });
    }

    /// Backs it up.
    pub fn back_up(&self) -> Run {
        self.back_up_with(&[])
    }

    pub fn back_up_with(&self, more: &[&str]) -> Run {
        Run::of(&self.begin_to_back_up(more).wait_with_output().unwrap()).exits(0)
    }

    /// Begins to back it up.
    pub fn begin_to_back_up(&self, more: &[&str]) -> Child {
        let (data, socket) = (self.data.display().to_string(), self.socket.display().to_string());
        let fixed = ["-o", "json", "backup", "take", "--cluster", CLUSTER, "--member", "lone", "--data-dir", &data, "--host", &socket];
        let mut command = self.stage.command(&self.stage.program, &[&fixed[..], &self.stage.store(), more].concat());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        if self.data.join("postmaster.pid").exists() {
            self.control(&["stop", "-w", "-m", "immediate"]);
        }
    }
}
