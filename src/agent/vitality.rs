//! Signs of life that a session does not give: does the postmaster take new connections, does the disk take writes, and are the data still
//! there? Each is asked for beside the loop, because what hangs must not hang who asks.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    rc::Rc,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    sync::Notify,
};

use super::{
    memory::Trouble,
    server::{Process, Server},
};
use crate::{
    postgres::Address,
    sys::{clock::Moment, files, timer::Timer},
};

/// Pause between two questions to the postmaster, each of which costs it a process.
const PERIOD: Duration = Duration::from_secs(4);

/// The same when it has just not answered.
const PERIOD_IN_DOUBT: Duration = Duration::from_secs(1);

/// Pause between two writes: what hangs is known for certain only after [`WRITE`].
const WRITE_PERIOD: Duration = Duration::from_secs(4);

/// Time for one answer of the postmaster.
const ANSWER: Duration = Duration::from_secs(2);

/// A postmaster that failed this often in a row hangs. One that is only very busy answers once in a while.
const FAILURES: u32 = 3;

/// Time for one small write; writes that fail are taken for a broken disk after this time too.
const WRITE: Duration = Duration::from_secs(5);

/// The first message of a client that wants TLS: its length, and PostgreSQL's number for it. The answer is one byte, from a new process.
const TLS_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// Watches postmaster and disk for as long as the agent lives, and wakes the loop when there is trouble.
pub async fn watch(server: Rc<Server>, disk: Arc<Disk>, address: Address, wake: Rc<Notify>, mut timer: Timer) {
    let (mut failures, mut known) = (0, false);
    loop {
        timer.pause(if failures == 0 { PERIOD } else { PERIOD_IN_DOUBT }).await;
        let now = trouble(&server, &disk).is_some();
        if now != std::mem::replace(&mut known, now) {
            wake.notify_one();
        }
        let process = server.process();
        // One that starts may take as long as its recovery takes; one that stops takes no connections.
        if !matches!(process, Process::Running(..)) || !server.has_answered() || server.is_stopping() {
            failures = 0;
            continue;
        }
        let answered = matches!(tokio::time::timeout(ANSWER, greet(&address)).await, Ok(Ok(())));
        failures = if answered || server.process() != process { 0 } else { failures + 1 };
        server.set_hanging(failures >= FAILURES);
    }
}

/// Begins a connection, which the postmaster has to accept and make a process for. Nobody logs in.
async fn greet(address: &Address) -> io::Result<()> {
    if address.host.starts_with('/') {
        let path = format!("{}/.s.PGSQL.{}", address.host, address.port);
        return exchange(UnixStream::connect(path).await?).await;
    }
    exchange(TcpStream::connect((address.host.as_str(), address.port)).await?).await
}

async fn exchange(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin) -> io::Result<()> {
    stream.write_all(&TLS_REQUEST).await?;
    stream.read_u8().await.map(drop)
}

/// What is known of the disk that the data directory is on.
#[derive(Debug)]
pub struct Disk {
    /// When the write that has not come back yet was begun; 0: none is on its way.
    begun: AtomicU64,
    /// Since when writes have failed, and how.
    failing: Mutex<Option<(Moment, String)>>,
    /// When it was last seen that there is no data directory; 0: there is one.
    missing: AtomicU64,
}

impl Disk {
    /// Begins to write to the disk of this data directory now and then, from a thread of its own.
    pub fn watch(data: PathBuf) -> io::Result<Arc<Disk>> {
        let disk = Arc::new(Disk { begun: AtomicU64::new(0), failing: Mutex::new(None), missing: AtomicU64::new(0) });
        let watched = disk.clone();
        let work = move || {
            loop {
                watched.probe(&data);
                std::thread::sleep(WRITE_PERIOD);
            }
        };
        std::thread::Builder::new().name("disk".to_owned()).stack_size(64 * 1024).spawn(work)?;
        Ok(disk)
    }

    fn probe(&self, data: &Path) {
        self.begun.store(Moment::now().0, Ordering::Relaxed);
        let written = write_a_little(data);
        self.look_for(data);
        self.begun.store(0, Ordering::Relaxed);
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        match written {
            // No room for even this file is no broken disk: PostgreSQL says itself what it lacks.
            Err(error) if error.kind() != io::ErrorKind::StorageFull => {
                let since = failing.as_ref().map_or_else(Moment::now, |(since, _)| *since);
                *failing = Some((since, error.to_string()));
            }
            _ => *failing = None,
        }
    }

    /// Notes whether the file is there without which no server starts. PostgreSQL writes it in place, and never removes it.
    fn look_for(&self, data: &Path) {
        let now = Moment::now();
        let is_missing = || fs::metadata(data.join("global/pg_control")).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        self.missing.store(if is_missing() { now.0 } else { 0 }, Ordering::Relaxed);
    }

    /// When it was last seen that there is no data directory.
    fn missing(&self) -> Option<Moment> {
        Some(Moment(self.missing.load(Ordering::Relaxed))).filter(|since| since.0 != 0)
    }

    /// What is wrong with it, once that is certain.
    pub fn trouble(&self, now: Moment) -> Option<String> {
        let begun = self.begun.load(Ordering::Relaxed);
        if begun != 0 && now.since(Moment(begun)) > WRITE {
            return Some("a small write has not come back".to_owned());
        }
        let failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        failing.as_ref().filter(|(since, _)| now.since(*since) > WRITE).map(|(_, error)| error.clone())
    }
}

/// Writes a few bytes over the same few bytes and waits until they are on the disk.
fn write_a_little(data: &Path) -> io::Result<()> {
    let path = place(data)?;
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    file.write_all_at(&Moment::now().0.to_le_bytes(), 0)?;
    file.sync_data()
}

/// A file beside the data directory, or, where that is a file system of its own, in it.
fn place(data: &Path) -> io::Result<PathBuf> {
    let beside = files::beside(data, ".probe");
    let Some(parent) = data.parent() else { return Ok(beside) };
    match fs::metadata(data) {
        Ok(found) if found.dev() != fs::metadata(parent)?.dev() && !files::is_empty_dir(data)? => Ok(data.join("spilo.probe")),
        _ => Ok(beside),
    }
}

/// What is wrong with the local server although it may still talk to us.
pub fn trouble(server: &Server, disk: &Disk) -> Option<Trouble> {
    if let Some(why) = disk.trouble(Moment::now()) {
        return Some(Trouble::DiskFails { why });
    }
    // A server starts in a directory that is there. One that was missing when somebody looked before says nothing: not even when it has never
    // been seen in between, so it is the last look that counts.
    let under_it = |seen: Moment| matches!(server.process(), Process::Running(_, started) if started < seen) && server.has_answered();
    if disk.missing().is_some_and(under_it) {
        return Some(Trouble::DataGone);
    }
    server.is_hanging().then_some(Trouble::PostmasterHangs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk() -> Disk {
        Disk { begun: AtomicU64::new(0), failing: Mutex::new(None), missing: AtomicU64::new(0) }
    }

    #[test]
    fn data_that_were_there_are_missed_and_known_when_they_return() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, data) = (disk(), dir.path().join("data"));
        let before = Moment::now();
        disk.probe(&data);
        let since = disk.missing().expect("there is none");
        assert!(since >= before);
        disk.probe(&data);
        assert!(disk.missing() > Some(since), "a server that was started between two looks has lost it after its start");
        fs::create_dir_all(data.join("global")).unwrap();
        fs::write(data.join("global/pg_control"), "").unwrap();
        disk.probe(&data);
        assert_eq!(disk.missing(), None);
        fs::remove_dir_all(&data).unwrap();
        disk.probe(&data);
        assert!(disk.missing() > Some(since));
    }

    #[test]
    fn a_disk_that_takes_writes_has_no_trouble() {
        let dir = tempfile::tempdir().unwrap();
        let disk = disk();
        disk.probe(&dir.path().join("data"));
        assert_eq!(disk.trouble(Moment::now() + WRITE * 2), None);
    }

    #[test]
    fn a_write_that_does_not_come_back_is_trouble_after_a_while() {
        let disk = disk();
        disk.begun.store(1_000_000_000, Ordering::Relaxed);
        assert_eq!(disk.trouble(Moment(5_000_000_000)), None);
        assert!(disk.trouble(Moment(6_100_000_000)).is_some());
    }

    #[test]
    fn writes_that_fail_are_trouble_after_a_while_until_one_succeeds() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, data) = (disk(), dir.path().join("missing/data"));
        disk.probe(&data);
        assert_eq!(disk.trouble(Moment::now()), None);
        assert!(disk.trouble(Moment::now() + WRITE * 2).is_some_and(|why| why.contains("No such file")));
        disk.probe(&dir.path().join("data"));
        assert_eq!(disk.trouble(Moment::now() + WRITE * 2), None);
    }

    #[test]
    fn a_listener_that_never_answers_is_not_taken_for_a_living_postmaster() {
        crate::agent::vitality::tests::block(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = Address { host: "127.0.0.1".to_owned(), port: listener.local_addr().unwrap().port() };
            assert!(tokio::time::timeout(Duration::from_millis(200), greet(&address)).await.is_err());
        });
    }

    fn block<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }
}
