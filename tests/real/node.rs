//! One member: guard, agent and PostgreSQL, and what becomes of them.

use std::{
    fs,
    net::SocketAddr,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::Signal;
use serde_json::Value;

use super::{
    cluster::LIMIT,
    machine::{bin_dir, other_user},
    processes::{children_of, command_line, descendants, is_alive, send},
    rest::request,
};
use crate::support::{block, wait_until};

/// How long a server may take for a question.
const QUERY_LIMIT: Duration = Duration::from_secs(10);

/// One member.
pub struct Node {
    pub name: String,
    pub postgres: SocketAddr,
    pub api: String,
    /// The network namespace it runs in, if not this process's.
    pub(super) namespace: Option<String>,
    pub(super) dir: PathBuf,
    pub(super) program: PathBuf,
    pub(super) guard: Option<Child>,
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
