//! The agent's end of the socket pair.

use std::{
    io::{self, ErrorKind, Read, Write},
    os::{fd::AsFd, unix::net::UnixStream},
};

use tokio::{
    io::{Interest, unix::AsyncFd},
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
///
/// Only what arrives is waited for: a socket that is watched for room too wakes the agent each time that the guard has read what it was told,
/// which is once a second.
pub struct Guard {
    writer: Mutex<UnixStream>,
}

impl Guard {
    /// Takes over standard input, where the guard put its socket. What the guard says arrives on the receiver, which ends with the guard.
    pub fn connect() -> Result<(Guard, mpsc::UnboundedReceiver<FromGuard>), LinkError> {
        let socket = io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from).map_err(LinkError::NotASocket)?;
        socket.local_addr().map_err(LinkError::NotASocket)?;
        Guard::over(socket).map_err(LinkError::NotASocket)
    }

    fn over(socket: UnixStream) -> io::Result<(Guard, mpsc::UnboundedReceiver<FromGuard>)> {
        socket.set_nonblocking(true)?;
        // SAFETY: as in `write_all`.
        let reader = unsafe { AsyncFd::register_with_interest(socket.try_clone()?, Interest::READABLE) }?;
        let (sender, receiver) = mpsc::unbounded_channel();
        tokio::spawn(listen(reader, sender));
        Ok((Guard { writer: Mutex::new(socket) }, receiver))
    }

    /// Tells the guard something.
    pub async fn tell(&self, message: &ToGuard) -> Result<(), LinkError> {
        let mut line = serde_json::to_string(message).expect("numbers and texts, so JSON cannot fail");
        line.push('\n');
        let mut writer = self.writer.lock().await;
        write_all(&mut writer, line.as_bytes()).await.map_err(|_| LinkError::Gone)
    }
}

async fn write_all(writer: &mut UnixStream, mut rest: &[u8]) -> io::Result<()> {
    while !rest.is_empty() {
        match writer.write(rest) {
            Ok(written) => rest = &rest[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                // SAFETY: the descriptor is owned by what is registered, which always gives the same one, and is closed only after it.
                let room = unsafe { AsyncFd::register_with_interest(writer.try_clone()?, Interest::WRITABLE) }?;
                room.writable().await?.clear_ready();
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn listen(reader: AsyncFd<UnixStream>, sender: mpsc::UnboundedSender<FromGuard>) {
    let (mut unread, mut piece) = (Vec::new(), [0; 1024]);
    loop {
        let Ok(mut ready) = reader.readable().await else { return };
        match ready.try_io(|reader| reader.get_ref().read(&mut piece)) {
            Ok(Ok(0)) => return,
            Ok(Ok(length)) => unread.extend_from_slice(&piece[..length]),
            Ok(Err(error)) if error.kind() == ErrorKind::Interrupted => {}
            Ok(Err(_)) => return,
            Err(_nothing_there) => continue,
        }
        while let Some(end) = unread.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = unread.drain(..=end).collect();
            match serde_json::from_slice(&line) {
                Ok(message) => {
                    if sender.send(message).is_err() {
                        return;
                    }
                }
                Err(error) => tracing::error!("the guard said something unreadable: {error}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_the_guard_says_arrives_line_by_line_until_it_is_gone() {
        let (ours, mut guards) = UnixStream::pair().unwrap();
        let (_guard, mut heard) = Guard::over(ours).unwrap();
        guards.write_all(b"\"idle\"\nnonsense\n{\"running\":{\"pi").unwrap();
        assert_eq!(heard.recv().await, Some(FromGuard::Idle));
        guards.write_all(b"d\":7}}\n\"killed\"\n").unwrap();
        assert_eq!(heard.recv().await, Some(FromGuard::Running { pid: 7 }));
        assert_eq!(heard.recv().await, Some(FromGuard::Killed));
        drop(guards);
        assert_eq!(heard.recv().await, None);
    }

    #[tokio::test]
    async fn a_guard_that_reads_late_is_told_everything() {
        let (ours, mut guards) = UnixStream::pair().unwrap();
        let (guard, _heard) = Guard::over(ours).unwrap();
        let message = ToGuard::Start { program: "postgres".to_owned(), arguments: vec!["x".repeat(1_000_000)] };
        let reading = std::thread::spawn(move || {
            let mut text = String::new();
            guards.read_to_string(&mut text).unwrap();
            text
        });
        guard.tell(&message).await.unwrap();
        guard.tell(&ToGuard::Reload).await.unwrap();
        guard.writer.lock().await.shutdown(std::net::Shutdown::Write).unwrap();
        let told = tokio::task::spawn_blocking(|| reading.join().unwrap()).await.unwrap();
        let told: Vec<ToGuard> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(told, [message, ToGuard::Reload]);
    }
}
