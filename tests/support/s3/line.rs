//! Connections, and where they break.

use std::{convert::Infallible, io, net::TcpListener, sync::Arc, sync::Mutex, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{sync::watch, task::JoinSet, time::sleep};

use super::{State, handler};

/// Where a body ends too early, and how.
pub enum Cut {
    Hangup(usize),
    Stall(usize),
}

/// The content, until it is cut.
pub fn body(content: Bytes, cut: Option<Cut>) -> Body {
    let cut = cut.filter(|(Cut::Hangup(bytes) | Cut::Stall(bytes))| *bytes < content.len());
    let sent = match cut {
        None => return content.into(),
        Some(Cut::Hangup(bytes) | Cut::Stall(bytes)) => content.slice(..bytes),
    };
    Body::from_stream(stream::unfold((Some(sent).filter(|sent| !sent.is_empty()), cut), |(sent, cut)| async move {
        if let Some(sent) = sent {
            return Some((Ok(sent), (None, cut)));
        }
        match cut {
            None => None,
            Some(Cut::Hangup(_)) => {
                // What was sent before is out by then.
                sleep(Duration::from_millis(5)).await;
                Some((Err(io::Error::other("as the test wants it")), (None, None)))
            }
            Some(Cut::Stall(_)) => std::future::pending().await,
        }
    }))
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
