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
    /// Starts one and waits until it answers. Ports that were free a moment ago may be somebody else's by now: then on other ones.
    pub fn start() -> EtcdServer {
        let started = (0..10).find_map(|_| {
            let mut server = EtcdServer::prepare();
            server.comes_up().then_some(server)
        });
        started.expect("an etcd ends each time that it is started")
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

    /// Runs it and waits until it answers. Its port may be taken for a moment, by a connection of somebody else's.
    pub fn run(&mut self) {
        wait_until("etcd stays", Duration::from_secs(30), || self.comes_up());
    }

    /// Runs it until it answers. False when it has ended instead.
    fn comes_up(&mut self) -> bool {
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
        let child = self.child.insert(child);
        let mut ended = false;
        let client = self.client;
        wait_until("etcd answers or ends", Duration::from_secs(15), || {
            ended = child.try_wait().is_ok_and(|status| status.is_some());
            ended || is_healthy(client)
        });
        if ended {
            self.child = None;
        }
        !ended
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
}

fn is_healthy(client: SocketAddr) -> bool {
    let mut answer = String::new();
    let asked = TcpStream::connect(client).and_then(|mut stream| {
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"GET /health HTTP/1.0\r\n\r\n")?;
        stream.read_to_string(&mut answer)
    });
    asked.is_ok() && answer.contains("\"true\"")
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
