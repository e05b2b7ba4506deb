//! The agent's end of the socket pair.

use std::os::{fd::AsFd, unix::net::UnixStream as StdStream};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Mutex, mpsc},
};

use super::protocol::{FromGuard, ToGuard};

/// There is no guard to talk to.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The process was not started by a guard.
    #[error("standard input is not the guard's socket: 'spilo agent CONFIG' starts the agent")]
    NotASocket(#[source] std::io::Error),
    /// The guard is gone.
    #[error("the guard is gone")]
    Gone,
}

/// The connection to the guard.
pub struct Guard {
    writer: Mutex<OwnedWriteHalf>,
}

impl Guard {
    /// Takes over standard input, where the guard put its socket. What the guard says arrives on the receiver, which ends with the guard.
    pub fn connect() -> Result<(Guard, mpsc::UnboundedReceiver<FromGuard>), LinkError> {
        let socket = std::io::stdin().as_fd().try_clone_to_owned().map(StdStream::from).map_err(LinkError::NotASocket)?;
        socket.local_addr().map_err(LinkError::NotASocket)?;
        socket.set_nonblocking(true).map_err(LinkError::NotASocket)?;
        let (reader, writer) = UnixStream::from_std(socket).map_err(LinkError::NotASocket)?.into_split();
        let (sender, receiver) = mpsc::unbounded_channel();
        tokio::spawn(listen(reader, sender));
        Ok((Guard { writer: Mutex::new(writer) }, receiver))
    }

    /// Tells the guard something.
    pub async fn tell(&self, message: &ToGuard) -> Result<(), LinkError> {
        let mut line = serde_json::to_string(message).expect("numbers and texts, so JSON cannot fail");
        line.push('\n');
        self.writer.lock().await.write_all(line.as_bytes()).await.map_err(|_| LinkError::Gone)
    }
}

async fn listen(reader: OwnedReadHalf, sender: mpsc::UnboundedSender<FromGuard>) {
    let mut lines = BufReader::new(reader).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let message = match serde_json::from_str(&line) {
            Ok(message) => message,
            Err(error) => {
                tracing::error!("the guard said something unreadable: {error}");
                continue;
            }
        };
        if sender.send(message).is_err() {
            return;
        }
    }
}
