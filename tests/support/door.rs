//! Where a server that a test plays itself is reached: it keeps its address, and takes connections or does not, as the test wants it.

use std::{
    error::Error,
    net::{SocketAddr, TcpListener, TcpStream},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use axum::body::Body;
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{sync::watch, task::JoinSet, time::sleep};

/// Nobody's test waits longer for a door to be shut.
const LIMIT: Duration = Duration::from_secs(30);

/// It is shut for good when this is dropped.
pub struct Door {
    address: SocketAddr,
    /// `None`: for good.
    open: watch::Sender<Option<bool>>,
    thread: Option<JoinHandle<()>>,
}

impl Door {
    /// Open at this address, where nobody else listens; requests are answered by `handle`, and where that fails the connection is cut.
    pub fn at<H, F, E>(address: SocketAddr, handle: H) -> Door
    where
        H: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
        F: Future<Output = Result<Response<Body>, E>> + Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let listener = TcpListener::bind(address).expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let (open, is_open) = watch::channel(Some(true));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(serve(listener, is_open, handle));
        });
        Door { address, open, thread: Some(thread) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// No connection is taken, and there is none any more.
    pub fn close(&self) {
        self.open.send_replace(Some(false));
        let begun = Instant::now();
        while TcpStream::connect(self.address).is_ok() {
            assert!(begun.elapsed() < LIMIT, "'{}' takes connections for more than {LIMIT:?}", self.address);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Connections are taken again.
    pub fn open(&self) {
        self.open.send_replace(Some(true));
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.open.send_replace(None);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve<H, F, E>(listener: TcpListener, mut is_open: watch::Receiver<Option<bool>>, handle: H)
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Response<Body>, E>> + Send + 'static,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    let address = listener.local_addr().expect("it is bound");
    let mut listener = Some(listener);
    loop {
        if *is_open.borrow_and_update() == Some(true) {
            let listener = match listener.take() {
                Some(listener) => listener,
                None => bind_again(address).await,
            };
            accept_while_open(listener, &mut is_open, &handle).await;
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
async fn bind_again(address: SocketAddr) -> TcpListener {
    loop {
        match TcpListener::bind(address) {
            Ok(listener) => return listener,
            Err(_) => sleep(Duration::from_millis(5)).await,
        }
    }
}

/// Connections that are left when it ends are cut.
async fn accept_while_open<H, F, E>(listener: TcpListener, is_open: &mut watch::Receiver<Option<bool>>, handle: &H)
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Response<Body>, E>> + Send + 'static,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    listener.set_nonblocking(true).expect("a socket of our own");
    let listener = tokio::net::TcpListener::from_std(listener).expect("a socket of our own");
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let _ = stream.set_nodelay(true);
                let handle = handle.clone();
                connections.spawn(async move {
                    // Clients that go away are their own business.
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(handle)).await;
                });
            }
            Some(_) = connections.join_next() => {}
            changed = is_open.changed() => if changed.is_err() || *is_open.borrow() != Some(true) { return },
        }
    }
}
