//! Clients that write numbered rows all the time and remember which were acknowledged, and by whom.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio_postgres::{Client, Config, NoTls};

use super::{block, wait_until};

/// How long one row may take before its connection is given up: a server that hangs must not hold up the client for ever.
const ROW_LIMIT: Duration = Duration::from_secs(3);

/// How many rows count as "writes go on".
const SOME_ROWS: usize = 20;

/// Numbers that each client has for itself.
const NUMBERS: i64 = 1_000_000_000;

/// The timeline is in the name of the WAL file that is being written.
const INSERT: &str = "insert into written values ($1) returning host(inet_server_addr()) || ':' || inet_server_port(), \
    ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int";

/// A row whose commit was acknowledged.
#[derive(Debug, Clone)]
pub struct Row {
    pub id: i64,
    /// Just before the server was asked.
    pub sent: Instant,
    pub acknowledged: Instant,
    /// The server's own address, as it sees itself.
    pub server: String,
    pub timeline: i32,
}

/// What was acknowledged so far.
type Acknowledged = Arc<Mutex<Vec<Row>>>;

/// The running clients: one that writes to whoever is the primary, and witnesses that try one server each.
pub struct Writer {
    acknowledged: Acknowledged,
    end: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Writer {
    /// Creates the table `written` and begins to write. The table has to be new: the numbers begin at one.
    pub fn start(config: &Config) -> Writer {
        Writer::start_with_witnesses(config, &[])
    }

    /// The same with a witness for each of these servers: it writes a row now and then wherever the server says that it is no standby.
    pub fn start_with_witnesses(config: &Config, servers: &[Config]) -> Writer {
        block(async {
            let client = connect(config).await.unwrap();
            client.batch_execute("create table written (id bigint primary key)").await.unwrap();
        });
        let mut writer = Writer { acknowledged: Acknowledged::default(), end: Arc::default(), threads: Vec::new() };
        writer.run(config, 0, false);
        for (server, number) in servers.iter().zip(1..) {
            writer.run(server, number * NUMBERS, true);
        }
        writer
    }

    fn run(&mut self, config: &Config, first: i64, is_witness: bool) {
        let (config, acknowledged, end) = (config.clone(), self.acknowledged.clone(), self.end.clone());
        self.threads.push(std::thread::spawn(move || block(write(&config, first, is_witness, &acknowledged, &end))));
    }

    /// Waits until some more rows were acknowledged after now; returns how long that took.
    pub fn wait_for_more(&self, limit: Duration) -> Duration {
        let wanted = self.count() + SOME_ROWS;
        wait_until("writes are acknowledged", limit, || self.count() >= wanted)
    }

    /// How many rows were acknowledged so far to the client that writes to whoever is the primary.
    pub fn count(&self) -> usize {
        self.acknowledged.lock().unwrap().iter().filter(|row| row.id < NUMBERS).count()
    }

    /// The numbers of the rows that were acknowledged so far.
    pub fn acknowledged(&self) -> BTreeSet<i64> {
        self.acknowledged.lock().unwrap().iter().map(|row| row.id).collect()
    }

    /// The rows that were acknowledged so far, from the `first` on, in the order of their answers.
    pub fn rows(&self, first: usize) -> Vec<Row> {
        self.acknowledged.lock().unwrap().iter().skip(first).cloned().collect()
    }

    /// Ends; returns what was acknowledged in all.
    pub fn stop(mut self) -> BTreeSet<i64> {
        self.end.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
        self.acknowledged()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
    }
}

/// Rows that a server took after another had taken one on a later timeline, or on the same one: they cannot both be the primary.
/// What was acknowledged before a row was sent came before it, whatever any server's clock says.
pub fn taken_by_two_at_once(rows: &[Row]) -> Vec<Row> {
    let mut by_answer: Vec<&Row> = rows.iter().collect();
    by_answer.sort_by_key(|row| row.acknowledged);
    let mut by_sending: Vec<&Row> = rows.iter().collect();
    by_sending.sort_by_key(|row| row.sent);
    let (mut answered, mut newest): (_, Option<&Row>) = (by_answer.into_iter().peekable(), None);
    let mut found = Vec::new();
    for row in by_sending {
        while let Some(earlier) = answered.next_if(|earlier| earlier.acknowledged < row.sent) {
            newest = newest.filter(|newest| newest.timeline >= earlier.timeline).or(Some(earlier));
        }
        if newest.is_some_and(|n| row.timeline < n.timeline || row.timeline == n.timeline && row.server != n.server) {
            found.push(row.clone());
        }
    }
    found
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

async fn write(config: &Config, first: i64, is_witness: bool, acknowledged: &Acknowledged, end: &AtomicBool) {
    let mut client: Option<Client> = None;
    let mut id = first;
    while !end.load(Ordering::Relaxed) {
        // A row whose answer did not come is neither acknowledged nor written again.
        id += 1;
        match tokio::time::timeout(ROW_LIMIT, write_one(&mut client, config, id, is_witness)).await {
            Ok(Ok(row)) => acknowledged.lock().unwrap().extend(row),
            _ => {
                client = None;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(if is_witness { 40 } else { 2 })).await;
    }
}

async fn write_one(client: &mut Option<Client>, config: &Config, id: i64, is_witness: bool) -> Result<Option<Row>, tokio_postgres::Error> {
    if client.is_none() {
        *client = Some(connect(config).await?);
    }
    let client = client.as_ref().expect("just connected");
    if is_witness && client.query_one("select pg_is_in_recovery()", &[]).await?.get(0) {
        return Ok(None);
    }
    let sent = Instant::now();
    let answer = client.query_one(INSERT, &[&id]).await?;
    Ok(Some(Row { id, sent, acknowledged: Instant::now(), server: answer.get(0), timeline: answer.get(1) }))
}
