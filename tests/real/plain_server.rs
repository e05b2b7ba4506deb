//! A single PostgreSQL server without an agent, which archives its WAL into a store beside it, and what an unpacked backup of it becomes.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::Value;
use tokio_postgres::{Config, NoTls};

use super::machine::{as_other_user, bin_dir, own, place_program};
use crate::support::{block, free_address, run::Run};

/// A place for servers and their store, as the user whom PostgreSQL runs as sees it.
pub struct Ground {
    dir: tempfile::TempDir,
}

/// A server that runs.
pub struct PlainServer {
    pub data: PathBuf,
    pub port: u16,
    ground: PathBuf,
    runs: bool,
}

impl Ground {
    /// With an empty store; `None`, with a visible line, where PostgreSQL is not installed.
    pub fn prepare() -> Option<Ground> {
        if bin_dir().is_none() {
            assert!(std::env::var_os("CI").is_none(), "no PostgreSQL is installed, and in CI no test may be skipped");
            eprintln!("SKIPPED: no PostgreSQL is installed");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        place_program(dir.path());
        let ground = Ground { dir };
        own(ground.path());
        ground.directory("store");
        ground.spilo(&["wal", "init", "--store", "store"]).exits(0);
        Some(ground)
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A new directory of the other user's.
    pub fn directory(&self, name: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        own(&path);
        path
    }

    pub fn spilo(&self, arguments: &[&str]) -> Run {
        Run::of(&self.command(arguments).output().unwrap())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.path().join("spilo"));
        as_other_user(&mut command).args(arguments).current_dir(self.path()).stdin(Stdio::null());
        command
    }

    /// A program of PostgreSQL's.
    pub fn postgres(&self, program: &str, arguments: &[&str]) -> Run {
        let mut command = Command::new(bin_dir().unwrap().join(program));
        as_other_user(&mut command).args(arguments).current_dir(self.path()).stdin(Stdio::null());
        Run::of(&command.output().unwrap())
    }

    /// A new database cluster with page checksums, started.
    pub fn server(&self, name: &str, settings: &str) -> PlainServer {
        self.postgres("initdb", &["-D", name, "-A", "trust", "-k", "-U", "postgres", "--no-sync"]).exits(0);
        self.start(name, &format!("archive_mode = on\narchive_command = '{}'\n{settings}", self.archive_command()))
    }

    /// What archives into the store.
    pub fn archive_command(&self) -> String {
        let path = self.path().display();
        format!("{path}/spilo wal push --store {path}/store --cluster orders %p %f")
    }

    /// What restores from the store.
    pub fn restore_command(&self) -> String {
        let path = self.path().display();
        format!("{path}/spilo wal fetch --store {path}/store --cluster orders %f %p")
    }

    /// Starts the data directory of this name with these settings besides those that it has.
    pub fn start(&self, name: &str, settings: &str) -> PlainServer {
        let data = self.path().join(name);
        let port = free_address().port();
        let conf = data.join("postgresql.conf");
        let sockets = self.path().display();
        let text = fs::read_to_string(&conf).unwrap();
        let ours = format!(
            "\nlisten_addresses = ''\nunix_socket_directories = '{sockets}'\nport = {port}\nfsync = off\nmax_wal_size = 4GB\n{settings}\n"
        );
        fs::write(&conf, text + &ours).unwrap();
        let log = format!("{name}.log");
        let started = self.postgres("pg_ctl", &["-D", name, "-l", &log, "-w", "-t", "120", "start"]);
        assert_eq!(started.code, 0, "{}", fs::read_to_string(self.path().join(log)).unwrap_or_default());
        PlainServer { data, port, ground: self.path().to_owned(), runs: true }
    }

    /// What `backup take` of a server is run with.
    pub fn take_arguments(&self, server: &PlainServer, more: &[&str]) -> Vec<String> {
        let (ground, data, port) = (self.path().display().to_string(), server.data.display().to_string(), server.port.to_string());
        let ours = ["backup", "take", "--store", "store", "--cluster", "orders", "--data-dir", &data, "--host", &ground, "--port", &port];
        ours.iter().chain(["--member", "orders-1", "-o", "json"].iter()).chain(more).map(|&word| word.to_owned()).collect()
    }

    /// Backs up a server.
    pub fn take(&self, server: &PlainServer, more: &[&str]) -> Run {
        let arguments = self.take_arguments(server, more);
        self.spilo(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Backs up a server, which has to work, and says what came of it.
    #[track_caller]
    pub fn taken(&self, server: &PlainServer, more: &[&str]) -> Value {
        serde_json::from_str(&self.take(server, more).exits(0).stdout).unwrap()
    }

    /// Begins to back up a server.
    pub fn begin_to_take(&self, server: &PlainServer, more: &[&str]) -> Child {
        let arguments = self.take_arguments(server, more);
        let mut command = self.command(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Every file below the store with this last name.
    pub fn stored(&self, name: &str) -> Vec<PathBuf> {
        files(&self.path().join("store/orders")).into_iter().filter(|path| path.file_name().is_some_and(|last| last == name)).collect()
    }

    /// Every object below a directory of the store. What begins with a dot is not one yet.
    pub fn stored_below(&self, folder: &str) -> Vec<PathBuf> {
        let mut found = files(&self.path().join("store/orders").join(folder));
        found.retain(|path| !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')));
        found
    }
}

impl PlainServer {
    /// What somebody means who takes the data directory of one for that of another. Nothing runs of its own.
    pub fn of(data: &PlainServer, server: &PlainServer) -> PlainServer {
        PlainServer { data: data.data.clone(), port: server.port, ground: server.ground.clone(), runs: false }
    }

    fn config(&self) -> Config {
        let mut config = Config::new();
        config.host_path(&self.ground).port(self.port).user("postgres").dbname("postgres");
        config
    }

    pub fn execute(&self, sql: &str) {
        self.try_execute(sql).unwrap();
    }

    pub fn try_execute(&self, sql: &str) -> Result<(), tokio_postgres::Error> {
        block(async {
            let (client, connection) = self.config().connect(NoTls).await?;
            tokio::spawn(connection);
            client.batch_execute(sql).await
        })
    }

    pub fn query(&self, sql: &str) -> String {
        block(async {
            let (client, connection) = self.config().connect(NoTls).await.unwrap();
            tokio::spawn(connection);
            client.query_one(sql, &[]).await.unwrap().get(0)
        })
    }

    /// Where a table's first file is.
    pub fn file_of(&self, table: &str) -> (String, PathBuf) {
        let path = self.query(&format!("select pg_relation_filepath('{table}')"));
        (path.clone(), self.data.join(path))
    }
}

impl Drop for PlainServer {
    fn drop(&mut self) {
        if !self.runs {
            return;
        }
        let mut command = Command::new(bin_dir().unwrap().join("pg_ctl"));
        as_other_user(&mut command).arg("-D").arg(&self.data).args(["-m", "immediate", "-w", "-s", "stop"]).current_dir(&self.ground);
        let _ = command.stderr(Stdio::null()).status();
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found: Vec<PathBuf> = entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect();
    found.sort();
    found
}
