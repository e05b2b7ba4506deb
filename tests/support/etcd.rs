//! A real etcd on loopback.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use spilo::dcs::DcsConfig;

use super::{free_address, program, wait_until};

/// One etcd with its data in a directory of its own; both end with it.
pub struct EtcdServer {
    child: Option<Child>,
    client: SocketAddr,
    peer: SocketAddr,
    data: tempfile::TempDir,
}

impl EtcdServer {
    /// Starts one and waits until it answers.
    pub fn start() -> EtcdServer {
        let mut server = EtcdServer::prepare();
        server.run();
        server
    }

    /// Starts one that listens on this address, which is this machine's.
    pub fn start_at(address: Ipv4Addr) -> EtcdServer {
        let at = |port| SocketAddr::from((address, port));
        let mut server = EtcdServer { child: None, client: at(2379), peer: at(2380), data: tempfile::tempdir().unwrap() };
        server.run();
        server
    }

    /// One that does not run yet.
    pub fn prepare() -> EtcdServer {
        EtcdServer { child: None, client: free_address(), peer: free_address(), data: tempfile::tempdir().unwrap() }
    }

    /// Runs it and waits until it answers.
    pub fn run(&mut self) {
        let (client, peer) = (format!("http://{}", self.client), format!("http://{}", self.peer));
        let child = Command::new(program("etcd").expect("checked by the test"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client, "--listen-peer-urls", &peer])
            .args(["--initial-advertise-peer-urls", &peer, "--initial-cluster", &format!("default={peer}")])
            .args(["--unsafe-no-fsync", "--heartbeat-interval", "20", "--election-timeout", "200", "--data-dir"])
            .arg(self.data.path().join("data"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.child = Some(child);
        wait_until("etcd answers", Duration::from_secs(15), || self.is_healthy());
    }

    /// Where `scope` is kept.
    pub fn config(&self, scope: &str) -> DcsConfig {
        DcsConfig { endpoints: vec![format!("http://{}", self.client)], namespace: "service".into(), scope: scope.into() }
    }

    /// `host:port` for clients.
    pub fn address(&self) -> SocketAddr {
        self.client
    }

    /// Stops it in its tracks. On a busy machine its threads go on for a moment after the signal was sent: nothing is answered after this.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
        let tasks = format!("/proc/{}/task", self.child.as_ref().expect("it runs").id());
        let stands_still = |task: std::io::Result<std::fs::DirEntry>| {
            let stat = task.and_then(|task| std::fs::read_to_string(task.path().join("stat")));
            stat.is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('T')))
        };
        let all = || std::fs::read_dir(&tasks).is_ok_and(|mut found| found.all(stands_still));
        wait_until("etcd stands still", Duration::from_secs(10), all);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.as_ref().map(Pid::from_child).expect("it runs");
        kill_process(pid, signal).unwrap();
    }

    fn is_healthy(&self) -> bool {
        let mut answer = String::new();
        let asked = TcpStream::connect(self.client).and_then(|mut stream| {
            stream.set_read_timeout(Some(Duration::from_secs(1)))?;
            stream.write_all(b"GET /health HTTP/1.0\r\n\r\n")?;
            stream.read_to_string(&mut answer)
        });
        asked.is_ok() && answer.contains("\"true\"")
    }
}

impl EtcdServer {
    /// Kills it; its data stay.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl EtcdServer {
    /// Loses what it has stored; it must not run.
    pub fn wipe(&mut self) {
        assert!(self.child.is_none(), "etcd runs");
        self.data = tempfile::tempdir().unwrap();
    }
}

impl Drop for EtcdServer {
    fn drop(&mut self) {
        self.kill();
    }
}
