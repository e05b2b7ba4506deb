//! A way to a server that takes as long as one likes.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

/// Passes connections on to a server. What the server says arrives late by a delay that can be changed at any time; what it is told, at once.
pub struct SlowPath {
    address: SocketAddr,
    delay: Arc<AtomicU64>,
}

impl SlowPath {
    /// A way to `server` without any delay yet.
    pub fn to(server: SocketAddr) -> SlowPath {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let path = SlowPath { address: listener.local_addr().unwrap(), delay: Arc::default() };
        let delay = path.delay.clone();
        // Ends with the test's process: nobody connects any more by then.
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(server) else { continue };
                let (client_too, server_too) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let (none, delay) = (Arc::default(), delay.clone());
                std::thread::spawn(move || carry(client_too, server_too, &none));
                std::thread::spawn(move || carry(server, client, &delay));
            }
        });
        path
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on answers arrive this late.
    pub fn delay(&self, by: Duration) {
        self.delay.store(u64::try_from(by.as_millis()).unwrap(), Ordering::Relaxed);
    }
}

/// Carries what comes from one side to the other, in order, each piece late by what the delay is when it comes.
fn carry(mut from: TcpStream, mut to: TcpStream, delay: &Arc<AtomicU64>) {
    let (pieces, due) = mpsc::channel::<(Instant, Vec<u8>)>();
    let writer = std::thread::spawn(move || {
        for (at, piece) in due {
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
            if to.write_all(&piece).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
    let mut buffer = vec![0; 1 << 16];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        let at = Instant::now() + Duration::from_millis(delay.load(Ordering::Relaxed));
        if pieces.send((at, buffer[..read].to_vec())).is_err() {
            break;
        }
    }
    drop(pieces);
    let _ = from.shutdown(Shutdown::Both);
    let _ = writer.join();
}
