//! A client that writes numbered rows all the time and remembers which were acknowledged.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use tokio_postgres::{Client, Config, NoTls};

use super::{block, wait_until};

/// How long one row may take before its connection is given up: a server that hangs must not hold up the client for ever.
const ROW_LIMIT: Duration = Duration::from_secs(3);

/// How many rows count as "writes go on".
const SOME_ROWS: usize = 20;

/// What was acknowledged so far.
type Acknowledged = Arc<Mutex<BTreeSet<i64>>>;

/// The running client.
pub struct Writer {
    acknowledged: Acknowledged,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Creates the table `written` and begins to write. The table has to be new: the numbers begin at one.
    pub fn start(config: &Config) -> Writer {
        block(async {
            let client = connect(config).await.unwrap();
            client.batch_execute("create table written (id bigint primary key)").await.unwrap();
        });
        let acknowledged = Acknowledged::default();
        let end = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (config, acknowledged, end) = (config.clone(), acknowledged.clone(), end.clone());
            move || block(write(&config, &acknowledged, &end))
        });
        Writer { acknowledged, end, thread: Some(thread) }
    }

    /// Waits until some rows were acknowledged after now; returns how long that took.
    pub fn wait_for_more(&self, limit: Duration) -> Duration {
        let wanted = self.count() + SOME_ROWS;
        wait_until("writes are acknowledged", limit, || self.count() >= wanted)
    }

    /// How many rows were acknowledged so far.
    pub fn count(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    /// The numbers of the rows that were acknowledged so far.
    pub fn acknowledged(&self) -> BTreeSet<i64> {
        self.acknowledged.lock().unwrap().clone()
    }

    /// Ends; returns what was acknowledged in all.
    pub fn stop(mut self) -> BTreeSet<i64> {
        self.end.store(true, Ordering::Relaxed);
        self.thread.take().expect("it was not joined before").join().unwrap();
        self.acknowledged()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
    }
}

/// The numbers of the rows that a server has; an error where it does not answer.
pub fn rows(config: &Config) -> Result<BTreeSet<i64>, tokio_postgres::Error> {
    block(async {
        let client = connect(config).await?;
        Ok(client.query("select id from written", &[]).await?.iter().map(|row| row.get(0)).collect())
    })
}

/// Fails with the numbers of acknowledged rows that are not present.
#[track_caller]
pub fn expect_all(acknowledged: &BTreeSet<i64>, present: &BTreeSet<i64>, place: &str) {
    let lost: Vec<_> = acknowledged.difference(present).collect();
    assert!(lost.is_empty(), "{} of {} acknowledged rows are lost on {place}: {lost:?}", lost.len(), acknowledged.len());
}

async fn connect(config: &Config) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn write(config: &Config, acknowledged: &Acknowledged, end: &AtomicBool) {
    let mut client: Option<Client> = None;
    let mut id = 0_i64;
    while !end.load(Ordering::Relaxed) {
        // A row whose answer did not come is neither acknowledged nor written again.
        id += 1;
        if let Ok(Ok(())) = tokio::time::timeout(ROW_LIMIT, write_one(&mut client, config, id)).await {
            acknowledged.lock().unwrap().insert(id);
        } else {
            client = None;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn write_one(client: &mut Option<Client>, config: &Config, id: i64) -> Result<(), tokio_postgres::Error> {
    if client.is_none() {
        *client = Some(connect(config).await?);
    }
    let client = client.as_ref().expect("just connected");
    client.execute("insert into written values ($1)", &[&id]).await.map(drop)
}
