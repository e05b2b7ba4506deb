//! A cluster of real agents, each with a real PostgreSQL, on loopback.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::network::Network;
use crate::support::{available, block, etcd::EtcdServer, free_address, slow::SlowPath, wait_until};

/// How long a cluster may take for anything that this suite waits for.
pub const LIMIT: Duration = Duration::from_secs(60);

/// How long a server may take for a question.
const QUERY_LIMIT: Duration = Duration::from_secs(10);

/// Short, so that the suite does not wait long for leases to end.
const TTL: u32 = 5;

/// Agents behind one etcd. Everything ends with it.
pub struct Cluster {
    pub etcd: EtcdServer,
    pub nodes: Vec<Node>,
    /// The members' way to etcd, if not the straight one.
    way_to_etcd: Option<SlowPath>,
    network: Option<Network>,
    dir: tempfile::TempDir,
}

/// One member.
pub struct Node {
    pub name: String,
    pub postgres: SocketAddr,
    pub api: String,
    /// The network namespace it runs in, if not this process's.
    namespace: Option<String>,
    dir: PathBuf,
    program: PathBuf,
    guard: Option<Child>,
}

/// The newest PostgreSQL that is installed, where Debian keeps it.
pub fn bin_dir() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.flatten().map(|entry| entry.path().join("bin"));
    versions.filter(|bin| bin.join("initdb").is_file()).max()
}

/// PostgreSQL does not run as root: the user it runs as then.
fn other_user() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let id = |flag: &str| {
        let output = Command::new("id").args([flag, "postgres"]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().parse().expect("there is a user 'postgres'")
    };
    Some((id("-u"), id("-g")))
}

/// Lets a program run as the user whom PostgreSQL runs as.
pub fn as_other_user(command: &mut Command) -> &mut Command {
    if let Some((user, group)) = other_user() {
        command.uid(user).gid(group);
    }
    command
}

pub fn own(path: &Path) {
    if let Some((user, group)) = other_user() {
        std::os::unix::fs::chown(path, Some(user), Some(group)).unwrap();
    }
}

impl Cluster {
    /// Three members in quorum mode, running and streaming; `None`, with a visible line, where the servers are not installed.
    pub fn start() -> Option<Cluster> {
        Cluster::start_with(&json!({"synchronous_mode": "quorum"}))
    }

    /// The same with other dynamic settings.
    pub fn start_with(settings: &Value) -> Option<Cluster> {
        Cluster::start_where(None, false, settings)
    }

    /// The same, each member on a host of its own.
    pub fn start_on_hosts(settings: &Value) -> Option<Cluster> {
        Cluster::start_where(Some(Network::start()?), false, settings)
    }

    /// The same, with a way to etcd that can be made slow.
    pub fn start_on_a_slow_path(settings: &Value) -> Option<Cluster> {
        Cluster::start_where(None, true, settings)
    }

    fn start_where(mut network: Option<Network>, slow: bool, settings: &Value) -> Option<Cluster> {
        if !available("etcd") {
            return None;
        }
        let Some(bin_dir) = bin_dir() else {
            assert!(std::env::var_os("CI").is_none(), "no PostgreSQL is installed, and in CI no test may be skipped");
            eprintln!("SKIPPED: no PostgreSQL is installed");
            return None;
        };
        let etcd = network.as_ref().map_or_else(EtcdServer::start, |network| EtcdServer::start_at(network.store()));
        let way_to_etcd = slow.then(|| SlowPath::to(etcd.address()));
        let dir = tempfile::tempdir().unwrap();
        own(dir.path());
        // The other user may not be able to look into the build's directory.
        let program = dir.path().join("spilo");
        fs::copy(env!("CARGO_BIN_EXE_spilo"), &program).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let hosts: Vec<Option<Ipv4Addr>> = (1..=3).map(|number| network.as_mut().map(|network| network.add(number))).collect();
        let mut cluster = Cluster { etcd, nodes: Vec::new(), way_to_etcd, network, dir };
        for (number, host) in (1..).zip(hosts) {
            let node = cluster.prepare_node(number, host, &bin_dir, &program, settings);
            cluster.nodes.push(node);
        }
        for node in &mut cluster.nodes {
            node.start();
        }
        cluster.wait_healthy();
        Some(cluster)
    }

    fn prepare_node(&self, number: u8, host: Option<Ipv4Addr>, bin_dir: &Path, program: &Path, settings: &Value) -> Node {
        let name = format!("n{number}");
        let dir = self.dir.path().join(&name);
        fs::create_dir(&dir).unwrap();
        own(&dir);
        let (postgres, api) = match host {
            Some(host) => (SocketAddr::from((host, 5432)), format!("{host}:8008")),
            None => (free_address(), free_address().to_string()),
        };
        let mut dcs = json!({
            "ttl": TTL, "loop_wait": 1, "retry_timeout": 2,
            "postgresql": {"use_pg_rewind": true, "parameters": {"max_connections": 50}}
        });
        dcs.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        let store = self.way_to_etcd.as_ref().map_or(self.etcd.address(), SlowPath::address);
        let config = json!({
            "scope": "real", "name": name,
            "restapi": {"listen": api},
            "etcd3": {"host": store.to_string()},
            "bootstrap": {"dcs": dcs, "initdb": [{"encoding": "UTF8"}, "data-checksums"],
                "pg_hba": ["host replication replicator samenet scram-sha-256", "host all all samenet scram-sha-256"]},
            "postgresql": {
                "listen": postgres.to_string(), "data_dir": dir.join("data"), "bin_dir": bin_dir,
                "authentication": {
                    "superuser": {"username": "postgres", "password": "secret-su"},
                    "replication": {"username": "replicator", "password": "secret-re"},
                    "rewind": {"username": "rewinder", "password": "secret-rw"}},
                "parameters": {"unix_socket_directories": dir, "fsync": "off"}}
        });
        // JSON is YAML.
        fs::write(dir.join("agent.yml"), config.to_string()).unwrap();
        let namespace = self.network.as_ref().map(|network| network.host(number));
        Node { name, postgres, api, namespace, dir, program: program.to_owned(), guard: None }
    }

    /// The member that answers as primary.
    pub fn leader(&self) -> Option<&Node> {
        self.nodes.iter().find(|n| n.get("/primary").0 == 200)
    }

    /// From now on etcd's answers arrive this late.
    pub fn delay_etcd(&self, by: Duration) {
        self.way_to_etcd.as_ref().expect("the members go a way that can be made slow").delay(by);
    }

    /// The network between the members' hosts.
    pub fn network(&self) -> &Network {
        self.network.as_ref().expect("the members have hosts of their own")
    }

    /// A member that is not the leader.
    pub fn replica(&self) -> &Node {
        let leader = self.leader().expect("there is a leader").name.clone();
        self.nodes.iter().find(|n| n.name != leader).expect("there are others")
    }

    /// The number of a member's host.
    pub fn host(&self, name: &str) -> u8 {
        (1..).zip(&self.nodes).find(|(_, node)| node.name == name).expect("there is such a member").0
    }

    pub fn node(&mut self, name: &str) -> &mut Node {
        self.nodes.iter_mut().find(|n| n.name == name).expect("there is such a member")
    }

    /// One leads, the others stream, and in quorum mode both of them vote.
    pub fn is_healthy(&self) -> bool {
        let Some(leader) = self.leader() else { return false };
        let members = leader.get("/cluster").1["members"].clone();
        let fine = |m: &Value| match m["role"].as_str() {
            Some("leader") => m["state"] == "running",
            Some("quorum_standby") => m["state"] == "streaming",
            Some("replica") => m["state"] == "streaming" && leader.get("/config").1["synchronous_mode"] != "quorum",
            _ => false,
        };
        members.as_array().is_some_and(|m| m.len() == self.nodes.len() && m.iter().all(fine)) && self.all_stream_to(leader)
    }

    /// What the DCS says of a member that has just died looks well for a while: the servers themselves are asked too.
    fn all_stream_to(&self, leader: &Node) -> bool {
        let streaming = leader.query("select count(distinct application_name)::text from pg_stat_replication where state = 'streaming'");
        let others = self.nodes.iter().filter(|n| n.name != leader.name);
        streaming.is_ok_and(|count| count == (self.nodes.len() - 1).to_string())
            && others
                .clone()
                .all(|n| n.get("/replica").0 == 200 && n.query("select status from pg_stat_wal_receiver").is_ok_and(|s| s == "streaming"))
    }

    pub fn wait_healthy(&self) {
        wait_until("one leads and two stream", LIMIT, || self.is_healthy());
    }

    /// Waits for a leader other than `former` and returns its name.
    pub fn wait_for_another_leader(&self, former: &str) -> String {
        wait_until("somebody else leads", LIMIT, || self.leader().is_some_and(|l| l.name != former));
        self.leader().map(|l| l.name.clone()).expect("just seen")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            node.thaw();
            node.lose_host();
        }
        if std::thread::panicking() {
            for node in &self.nodes {
                eprintln!("---- log of {} ----\n{}", node.name, node.log());
            }
        }
    }
}

impl Node {
    /// Starts guard and agent.
    pub fn start(&mut self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.dir.join("log")).unwrap();
        let mut command = self.command();
        command.arg("agent").arg(self.dir.join("agent.yml")).current_dir(&self.dir);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.guard = Some(command.spawn().unwrap());
    }

    /// The program as the user that PostgreSQL runs as, in the member's place. Each program on the way becomes the next one, so that the
    /// process started is the guard.
    fn command(&self) -> Command {
        let Some(namespace) = &self.namespace else {
            let mut command = Command::new(&self.program);
            if let Some((user, group)) = other_user() {
                command.uid(user).gid(group);
            }
            return command;
        };
        let (user, group) = other_user().expect("only root makes network namespaces");
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace, "setpriv", "--clear-groups"]);
        command.args([format!("--reuid={user}"), format!("--regid={group}")]).arg(&self.program);
        command
    }

    /// Another configuration file for this member's machine, owned by whom the agents run as.
    pub fn write_config(&self, name: &str, change: impl FnOnce(&mut Value)) -> PathBuf {
        let mut config = serde_json::from_str(&fs::read_to_string(self.path("agent.yml")).unwrap()).unwrap();
        change(&mut config);
        let path = self.path(name);
        fs::write(&path, config.to_string()).unwrap();
        path
    }

    /// Runs a guard and its agent until they end by themselves: exit code and what they printed.
    pub fn run_to_end(&self, config: &Path) -> (i32, String) {
        let mut command = Command::new(&self.program);
        command.arg("agent").arg(config).current_dir(&self.dir).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        if let Some((user, group)) = other_user() {
            command.uid(user).gid(group);
        }
        let mut child = command.spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let mut said = child.stderr.take().unwrap();
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = std::io::Read::read_to_string(&mut said, &mut text);
            text
        });
        let ended = (0..LIMIT.as_millis() / 10).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            child.try_wait().unwrap().is_some()
        });
        if !ended {
            descendants(pid).into_iter().chain([pid]).for_each(|pid| send(pid, Signal::KILL));
        }
        let status = child.wait().unwrap();
        let text = reader.join().unwrap();
        assert!(ended, "it did not end by itself:\n{text}");
        (status.code().unwrap_or(-1), text)
    }

    /// Changes the configuration file, mapping by mapping, and lets a running agent read it again.
    pub fn reconfigure(&self, patch: &Value) {
        fn merge(into: &mut Value, patch: &Value) {
            let Value::Object(changes) = patch else {
                *into = patch.clone();
                return;
            };
            if !into.is_object() {
                *into = json!({});
            }
            for (key, change) in changes {
                merge(&mut into[key], change);
            }
        }
        let path = self.dir.join("agent.yml");
        let mut config: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        merge(&mut config, patch);
        fs::write(path, config.to_string()).unwrap();
        if self.guard.is_some() {
            send(self.agent_pid(), Signal::HUP);
        }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// A GET on the REST API: code and body; code 0 when nobody answers.
    pub fn get(&self, path: &str) -> (u16, Value) {
        self.request("GET", path, None)
    }

    /// A request to the REST API.
    pub fn request(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        request(&self.api, method, path, body)
    }

    /// Process id of the guard.
    pub fn guard_pid(&self) -> i32 {
        i32::try_from(self.guard.as_ref().expect("it runs").id()).unwrap()
    }

    /// Process id of the agent below the guard.
    pub fn agent_pid(&self) -> i32 {
        self.agent_pid_if_any().expect("the guard has an agent")
    }

    /// The same, at a moment when there may be none.
    pub fn agent_pid_if_any(&self) -> Option<i32> {
        children_of(self.guard_pid()).into_iter().find(|pid| command_line(*pid).contains("agent-worker"))
    }

    /// True when it was started and not ended by the test.
    pub fn is_running(&self) -> bool {
        self.guard.is_some()
    }

    /// Its disk is gone; nothing of it may run.
    pub fn lose_data(&self) {
        assert!(self.guard.is_none(), "{} runs", self.name);
        fs::remove_dir_all(self.dir.join("data")).unwrap();
    }

    /// Process id of the postmaster.
    pub fn postmaster_pid(&self) -> Option<i32> {
        let text = fs::read_to_string(self.dir.join("data/postmaster.pid")).ok()?;
        text.lines().next()?.trim().parse().ok().filter(|pid| Path::new(&format!("/proc/{pid}")).exists())
    }

    /// Everything of the member dies at once, as when its machine loses power.
    pub fn lose_host(&mut self) {
        let Some(mut guard) = self.guard.take() else { return };
        let pid = i32::try_from(guard.id()).unwrap();
        let mut doomed = descendants(pid);
        doomed.extend(self.postmaster_pid().into_iter().flat_map(|p| descendants(p).into_iter().chain([p])));
        doomed.push(pid);
        for _ in 0..3 {
            doomed.iter().for_each(|pid| send(*pid, Signal::KILL));
        }
        let _ = guard.wait();
        wait_until("PostgreSQL is dead", LIMIT, || doomed.iter().all(|pid| !is_alive(*pid)));
    }

    /// Asks the member to end, as `docker stop` does, and waits for it.
    pub fn stop(&mut self) {
        let Some(mut guard) = self.guard.take() else { return };
        send(i32::try_from(guard.id()).unwrap(), Signal::TERM);
        assert!(guard.wait().unwrap().success(), "the member did not end well");
    }

    /// The guard alone dies. What became of the rest is left to the kernel and the agent.
    pub fn kill_guard(&mut self) {
        let mut guard = self.guard.take().expect("it runs");
        guard.kill().unwrap();
        guard.wait().unwrap();
    }

    /// Its disk is gone while it runs.
    pub fn delete_data(&self) {
        fs::rename(self.dir.join("data"), self.dir.join("deleted")).unwrap();
        fs::remove_dir_all(self.dir.join("deleted")).unwrap();
    }

    /// Its disk returns a directory from which nothing can be started; nothing of it may run.
    pub fn break_data(&self) {
        assert!(self.guard.is_none(), "{} runs", self.name);
        for entry in fs::read_dir(self.dir.join("data/pg_wal")).unwrap().flatten().filter(|e| e.path().is_file()) {
            fs::remove_file(entry.path()).unwrap();
        }
    }

    /// Starts, promotes or stops its server behind the agent's back; the agent must not run.
    pub fn pg_ctl(&self, arguments: &[&str]) {
        assert!(self.guard.is_none(), "{} runs", self.name);
        let mut command = Command::new(bin_dir().expect("the cluster uses it").join("pg_ctl"));
        command.arg("-D").arg(self.dir.join("data")).args(["-w", "-s", "-l"]).arg(self.dir.join("by-hand.log")).args(arguments);
        if let Some((user, group)) = other_user() {
            command.uid(user).gid(group);
        }
        assert!(command.current_dir(&self.dir).status().unwrap().success(), "pg_ctl {arguments:?}");
    }

    /// From its next start on, its agent finds `script` in place of one of PostgreSQL's programs. `$REAL` in it is the program itself.
    pub fn replace_program(&self, program: &str, script: &str) {
        let (real, own_bin) = (bin_dir().expect("the cluster uses it"), self.dir.join("bin"));
        fs::create_dir(&own_bin).unwrap();
        for entry in fs::read_dir(&real).unwrap().flatten().filter(|e| e.file_name() != program) {
            std::os::unix::fs::symlink(entry.path(), own_bin.join(entry.file_name())).unwrap();
        }
        let text = format!("#!/bin/sh\nREAL='{}'\nDIR='{}'\n{script}\n", real.join(program).display(), self.dir.display());
        fs::write(own_bin.join(program), text).unwrap();
        fs::set_permissions(own_bin.join(program), fs::Permissions::from_mode(0o755)).unwrap();
        self.edit_config(|config| config["postgresql"]["bin_dir"] = json!(own_bin));
    }

    /// Changes its configuration file.
    pub fn edit_config(&self, change: impl FnOnce(&mut Value)) {
        let path = self.dir.join("agent.yml");
        let mut config: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        change(&mut config);
        fs::write(path, config.to_string()).unwrap();
    }

    /// Puts its data on a disk of `megabytes`, which ends with what is returned; the agent must not run. `None`, with a visible line, where
    /// nothing can be mounted.
    pub fn move_to_small_disk(&self, megabytes: u32) -> Option<SmallDisk> {
        assert!(self.guard.is_none(), "{} runs", self.name);
        let mount = self.dir.join("disk");
        fs::create_dir(&mount).unwrap();
        let size = format!("size={megabytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&mount).status();
        if !mounted.is_ok_and(|status| status.success()) {
            assert!(std::env::var_os("CI").is_none(), "nothing can be mounted, and in CI no test may be skipped");
            eprintln!("SKIPPED: nothing can be mounted");
            return None;
        }
        let disk = SmallDisk(mount.clone());
        own(&mount);
        let moved = Command::new("cp").arg("-a").arg(self.dir.join("data")).arg(&mount).status();
        assert!(moved.is_ok_and(|status| status.success()));
        fs::remove_dir_all(self.dir.join("data")).unwrap();
        std::os::unix::fs::symlink(mount.join("data"), self.dir.join("data")).unwrap();
        Some(disk)
    }

    /// A file or directory of the member.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Remembers which directory the data are in.
    pub fn mark_data(&self) {
        fs::create_dir(self.dir.join("marked")).unwrap();
        fs::hard_link(self.dir.join("data/PG_VERSION"), self.dir.join("marked/PG_VERSION")).unwrap();
    }

    /// True while the data directory is the one that was marked.
    pub fn has_marked_data(&self) -> bool {
        use std::os::unix::fs::MetadataExt;
        let inode = |path: &str| fs::metadata(self.dir.join(path)).map(|m| m.ino()).ok();
        inode("data/PG_VERSION") == inode("marked/PG_VERSION")
    }

    /// Changes the member's configuration file.
    pub fn rewrite_config(&self, change: impl FnOnce(&mut Value)) {
        let path = self.dir.join("agent.yml");
        let mut config = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        change(&mut config);
        fs::write(path, config.to_string()).unwrap();
    }

    /// Statements on the member's own server.
    pub fn execute(&self, sql: &str) {
        block(async {
            let (client, connection) = super::writer::config([self]).connect(tokio_postgres::NoTls).await.unwrap();
            tokio::spawn(connection);
            client.batch_execute(sql).await.unwrap();
        });
    }

    /// Lets everything that was stopped go on.
    pub fn thaw(&self) {
        if let Some(guard) = &self.guard {
            let pid = i32::try_from(guard.id()).unwrap();
            descendants(pid).into_iter().chain([pid]).for_each(|pid| send(pid, Signal::CONT));
        }
    }

    /// One value from the member's own server.
    pub fn query(&self, sql: &str) -> Result<String, String> {
        let asked = async {
            let (client, connection) = super::writer::config([self]).connect(tokio_postgres::NoTls).await?;
            tokio::spawn(connection);
            Ok::<_, tokio_postgres::Error>(client.query_one(sql, &[]).await?.get::<_, String>(0))
        };
        // A server that hangs must not hold up who only asks.
        let answer = block(async { tokio::time::timeout(QUERY_LIMIT, asked).await });
        answer.map_err(|_| format!("{} does not answer", self.name))?.map_err(|error| error.to_string())
    }
}

/// A file system of its own.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Takes all of its room.
    pub fn fill(&self) {
        let mut file = fs::File::create(self.0.join("filler")).unwrap();
        let block = vec![0_u8; 1 << 16];
        while std::io::Write::write_all(&mut file, &block).is_ok() {}
    }

    /// Gives it back.
    pub fn clear(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A request to the REST API at this address: code and body; code 0 when nobody answers.
pub fn request(api: &str, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
    request_as(None, api, method, path, body)
}

/// The same with a name and a password.
pub fn request_as(login: Option<(&str, &str)>, api: &str, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
    let url = format!("http://{api}{path}");
    // An agent that hangs must not hold up who only asks.
    let limit = Duration::from_secs(if method == "GET" { 3 } else { 30 });
    let answer = block(async {
        let client = reqwest::Client::builder().no_proxy().timeout(limit).build()?;
        let mut request = client.request(method.parse().expect("a method"), url);
        if let Some(body) = body {
            request = request.json(body);
        }
        if let Some((name, password)) = login {
            request = request.basic_auth(name, Some(password));
        }
        let answer = request.send().await?;
        Ok::<_, reqwest::Error>((answer.status().as_u16(), answer.text().await?))
    });
    let (code, text) = answer.unwrap_or_default();
    (code, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

pub fn send(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, signal);
    }
}

fn stat(pid: i32) -> Option<(char, i32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

pub fn is_alive(pid: i32) -> bool {
    stat(pid).is_some_and(|(state, _)| state != 'Z')
}

pub fn command_line(pid: i32) -> String {
    fs::read(format!("/proc/{pid}/cmdline")).map(|c| String::from_utf8_lossy(&c).replace('\0', " ")).unwrap_or_default()
}

pub fn children_of(parent: i32) -> Vec<i32> {
    let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
    pids.filter(|pid| stat(*pid).is_some_and(|(_, p)| p == parent)).collect()
}

pub fn descendants(pid: i32) -> Vec<i32> {
    children_of(pid).into_iter().flat_map(|child| descendants(child).into_iter().chain([child])).collect()
}
