//! Connections, and how slow they are.

use std::{convert::Infallible, io, net::TcpListener, sync::Arc, sync::Mutex, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{sync::watch, task::JoinSet, time::sleep};

use super::{State, handler};

/// What a line is like. The default is that of this machine.
#[derive(Debug, Clone, Default)]
pub struct Line {
    /// How long each answer takes to begin.
    pub first_byte: Duration,
    /// Of each connection, in each direction.
    pub bytes_per_second: Option<u64>,
    /// The share of requests that are turned away with 503.
    pub busy: f64,
}

/// Where a body ends too early, and how.
pub enum Cut {
    Hangup(usize),
    Stall(usize),
}

/// So many bytes are sent at a time.
const PIECE: usize = 64 << 10;

impl Line {
    /// Waits for as long as such a request is under way.
    pub async fn first_byte(&self, content: usize) {
        sleep(self.first_byte + self.time_of(content)).await;
    }

    pub fn is_busy(&self) -> bool {
        self.busy > 0.0 && fastrand::f64() < self.busy
    }

    fn time_of(&self, bytes: usize) -> Duration {
        self.bytes_per_second.map_or(Duration::ZERO, |speed| Duration::from_secs_f64(bytes as f64 / speed as f64))
    }

    /// The content, as slow as the line is, until it is cut.
    pub fn body(&self, content: Bytes, cut: Option<Cut>) -> Body {
        let cut = cut.filter(|(Cut::Hangup(bytes) | Cut::Stall(bytes))| *bytes < content.len());
        if cut.is_none() && self.bytes_per_second.is_none() {
            return content.into();
        }
        let line = self.clone();
        let sent = match cut {
            Some(Cut::Hangup(bytes) | Cut::Stall(bytes)) => content.slice(..bytes),
            None => content,
        };
        Body::from_stream(stream::unfold((sent, cut), move |(mut rest, cut)| {
            let line = line.clone();
            async move {
                if !rest.is_empty() {
                    let piece = rest.split_to(rest.len().min(PIECE));
                    sleep(line.time_of(piece.len())).await;
                    return Some((Ok(piece), (rest, cut)));
                }
                match cut {
                    None => None,
                    Some(Cut::Hangup(_)) => {
                        // What was sent before is out by then.
                        sleep(Duration::from_millis(5)).await;
                        Some((Err(io::Error::other("as the test wants it")), (rest, None)))
                    }
                    Some(Cut::Stall(_)) => std::future::pending().await,
                }
            }
        }))
    }
}

/// Serves until it is told to end.
pub fn serve(listener: TcpListener, state: &Arc<Mutex<State>>, is_open: watch::Receiver<Option<bool>>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(accept(listener, state, is_open));
}

async fn accept(listener: TcpListener, state: &Arc<Mutex<State>>, mut is_open: watch::Receiver<Option<bool>>) {
    let address = listener.local_addr().expect("it is bound");
    let mut listener = Some(listener);
    loop {
        if *is_open.borrow_and_update() == Some(true) {
            let listener = match listener.take() {
                Some(listener) => listener,
                None => bind_again(address).await,
            };
            accept_while_open(listener, state, &mut is_open).await;
        }
        match *is_open.borrow_and_update() {
            None => return,
            Some(true) => continue,
            Some(false) => {}
        }
        if is_open.changed().await.is_err() {
            return;
        }
    }
}

/// The same address: nobody else is to take it meanwhile, so it is asked for until it is free.
async fn bind_again(address: std::net::SocketAddr) -> TcpListener {
    loop {
        match TcpListener::bind(address) {
            Ok(listener) => return listener,
            Err(_) => sleep(Duration::from_millis(5)).await,
        }
    }
}

/// Connections that are left when it ends are cut.
async fn accept_while_open(listener: TcpListener, state: &Arc<Mutex<State>>, is_open: &mut watch::Receiver<Option<bool>>) {
    listener.set_nonblocking(true).expect("a socket of our own");
    let listener = tokio::net::TcpListener::from_std(listener).expect("a socket of our own");
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let _ = stream.set_nodelay(true);
                let state = state.clone();
                connections.spawn(async move {
                    let service = service_fn(|request| handler::handle(&state, request));
                    // Clients that go away are their own business.
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                    Ok::<(), Infallible>(())
                });
            }
            Some(_) = connections.join_next() => {}
            changed = is_open.changed() => if changed.is_err() || *is_open.borrow() != Some(true) { return },
        }
    }
}
