//! Members that pretend: each answers health checks by the role it is given and greets whoever connects with its name.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    thread,
    time::Duration,
};

use serde_json::json;
use spilo::{model::MemberName, routing::Member};

/// What a member pretends to be.
#[derive(Clone, Copy, PartialEq)]
#[repr(u8)]
pub enum Role {
    Primary,
    Replica,
    Down,
}

/// One pretended member. Its threads end with the test process.
pub struct FakeMember {
    pub name: MemberName,
    pub postgres: SocketAddr,
    pub api: SocketAddr,
    role: Arc<AtomicU8>,
}

impl FakeMember {
    pub fn start(name: &str, role: Role) -> FakeMember {
        let shared = Arc::new(AtomicU8::new(role as u8));
        let greeting = format!("{name}\n");
        let postgres = listen(move |mut stream| {
            let _ = stream.write_all(greeting.as_bytes());
            echo(stream);
        });
        let (of, itself) = (shared.clone(), name.to_owned());
        let api = listen(move |stream| answer(stream, &itself, of.load(Ordering::SeqCst)));
        FakeMember { name: name.parse().unwrap(), postgres, api, role: shared }
    }

    pub fn becomes(&self, role: Role) {
        self.role.store(role as u8, Ordering::SeqCst);
    }

    /// Where the router finds it.
    pub fn address(&self) -> Member {
        Member {
            host: self.postgres.ip().to_string(),
            port: self.postgres.port(),
            api_host: self.api.ip().to_string(),
            api_port: self.api.port(),
        }
    }
}

fn listen(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            thread::spawn(move || serve(stream));
        }
    });
    address
}

fn echo(mut stream: TcpStream) {
    let mut buffer = [0; 64];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

fn answer(mut stream: TcpStream, name: &str, role: u8) {
    let mut request = [0; 1024];
    let length = stream.read(&mut request).unwrap_or_default();
    let request = String::from_utf8_lossy(&request[..length]);
    let asked = |path: &str| ["OPTIONS", "GET"].into_iter().any(|method| request.starts_with(&format!("{method} {path} ")));
    let holds = (asked("/primary") && role == Role::Primary as u8) || (asked("/replica") && role == Role::Replica as u8);
    let status = if holds { "200 OK" } else { "503 Service Unavailable" };
    let body = json!({"patroni": {"version": "4.1.5", "scope": "orders", "name": name}});
    let _ = stream.write_all(format!("HTTP/1.0 {status}\r\n\r\n{body}").as_bytes());
}

/// A session through the router.
pub struct Session {
    stream: TcpStream,
    /// Who greeted.
    pub member: String,
}

impl Session {
    /// Connects; `None` when nobody greets.
    pub fn open(address: SocketAddr) -> Option<Session> {
        let mut stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        let mut member = String::new();
        let mut byte = [0];
        while stream.read(&mut byte).ok()? == 1 && byte[0] != b'\n' {
            member.push(char::from(byte[0]));
        }
        (!member.is_empty()).then_some(Session { stream, member })
    }

    /// Whether what is sent comes back.
    pub fn works(&mut self) -> bool {
        let mut back = [0; 4];
        self.stream.write_all(b"ping").is_ok() && self.stream.read_exact(&mut back).is_ok() && &back == b"ping"
    }

    /// Whether the other side has closed it within `limit`.
    pub fn is_closed_within(&mut self, limit: Duration) -> bool {
        self.stream.set_read_timeout(Some(limit)).unwrap();
        let mut byte = [0];
        match self.stream.read(&mut byte) {
            Ok(length) => length == 0,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

/// Who greets, if anybody.
pub fn greeted_by(address: SocketAddr) -> Option<String> {
    Session::open(address).map(|session| session.member)
}

/// The status code and the body of a page.
pub fn page(address: SocketAddr, path: &str) -> (u16, String) {
    let mut answer = String::new();
    let asked = TcpStream::connect(address).and_then(|mut stream| {
        stream.set_read_timeout(Some(Duration::from_secs(3)))?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())?;
        stream.read_to_string(&mut answer)
    });
    let code = asked.ok().and_then(|_| answer.split(' ').nth(1)?.parse().ok()).unwrap_or_default();
    (code, answer)
}
