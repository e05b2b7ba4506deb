//! A session with the local server, and the one query that observes it.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use tokio_postgres::{Config, NoTls};

use super::{Address, Credentials, PostgresError, bootstrap::ident};
use crate::{
    model::{Lsn, SystemId, Timeline},
    sys::clock::Moment,
};

/// Time for connecting and for each statement of the monitoring session.
const LIMIT: Duration = Duration::from_secs(3);

/// A connection to the local server as superuser.
pub struct Session {
    client: tokio_postgres::Client,
    /// The observation is made every second or so: the server plans it once.
    observation: tokio::sync::OnceCell<tokio_postgres::Statement>,
    begun: Moment,
    driver: tokio::task::JoinHandle<()>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// What a running server says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServerFacts {
    /// True on a standby.
    pub in_recovery: bool,
    /// Whose data this is.
    pub system_id: SystemId,
    /// Where the data are: another server may answer on the port of one that does not run.
    pub data_directory: String,
    /// Such as 170005.
    pub version: u32,
    /// When the postmaster started, as PostgreSQL prints it.
    pub started: String,
    /// The timeline it writes (primary) or has received or replayed (standby).
    pub timeline: Timeline,
    /// Primary: flushed position. Standby: received or replayed position, whichever is further.
    pub position: Lsn,
    /// Standby: received and synced position.
    pub received: Option<Lsn>,
    /// Standby: replayed position.
    pub replayed: Option<Lsn>,
    /// Standby: when the last replayed transaction committed.
    pub replayed_at: Option<String>,
    /// Standby: replay is paused.
    pub replay_paused: bool,
    /// Standby: a receiver is streaming.
    pub streaming: bool,
    /// Its process id.
    pub receiver: Option<i32>,
    /// `primary_conninfo` that is in force.
    pub primary_conninfo: String,
    /// `synchronous_standby_names` that is in force.
    pub synchronous_standby_names: String,
    /// Connected standbys.
    pub standbys: Vec<StandbyFacts>,
    /// Physical slots that hold WAL, by name.
    pub slots: BTreeMap<String, SlotFacts>,
    /// `wal_level` in force is `logical`.
    pub decodes: bool,
    /// Logical slots, by name.
    pub logical_slots: BTreeMap<String, LogicalSlotFacts>,
    /// Standby: WAL may come from an archive, because `restore_command` is set.
    pub has_archive: bool,
}

/// A physical slot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotFacts {
    /// Somebody streams through it.
    pub active: bool,
    /// The first position it holds WAL from.
    pub restart_lsn: Option<Lsn>,
}

/// A logical slot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogicalSlotFacts {
    /// Somebody reads from it.
    pub active: bool,
    /// Standbys take it over. PostgreSQL before 17 has none.
    pub failover: bool,
    /// It was taken over from the primary.
    pub synced: bool,
    /// How far its consumer has come.
    pub confirmed: Option<Lsn>,
}

/// A parameter, as far as a restart may change it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingParameter {
    /// Its name.
    pub name: String,
    /// The value in force.
    pub in_force: String,
    /// PostgreSQL says that it waits for a restart.
    pub waits: bool,
    /// The value after the restart, when it waits: what the file has, else the default.
    pub in_file: String,
}

/// A connected standby, from `pg_stat_replication`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandbyFacts {
    /// Its `application_name`: the member's name.
    pub application_name: String,
    /// The role it connected as.
    pub usename: String,
    /// Where it connects from.
    pub client_addr: Option<String>,
    /// `streaming`, `catchup`, `backup`, …
    pub state: String,
    /// `async`, `sync`, `quorum`, `potential`.
    pub sync_state: String,
    /// Its place in the list of synchronous standbys.
    pub sync_priority: i32,
    /// Synced position.
    pub flush_lsn: Option<Lsn>,
}

/// A standby's timeline: the receiver knows it while there is one, the control file learns of it with the next restartpoint, which may be
/// minutes later. In between only the name of the segment with the last received byte tells. A segment without its history file, or with one
/// that only holds a number's place, is what a promotion that was cut short has left.
const OBSERVE: &str = "
with wal as (select f from pg_ls_dir('pg_wal') f where pg_is_in_recovery()),
  place as (select pg_size_bytes(current_setting('wal_segment_size')) as size,
    greatest(coalesce(pg_last_wal_receive_lsn() - '0/0', 0), coalesce(pg_last_wal_replay_lsn() - '0/0', 0), 1) - 1 as last),
  segment as (select lpad(upper(to_hex(div(last, 4294967296)::bigint)), 8, '0')
    || lpad(upper(to_hex(div(mod(last, 4294967296), size)::bigint)), 8, '0') as name from place),
  files as (select max(('x' || substr(f, 1, 8))::bit(32)::int) as timeline from wal, segment
    where f ~ '^[0-9A-F]{24}$' and substr(f, 9) = segment.name
      and (f like '00000001%' or case when substr(f, 1, 8) || '.history' in (select f from wal)
        then pg_read_file('pg_wal/' || substr(f, 1, 8) || '.history', 0, 12, true) <> '# place held' else false end))
select r.rec,
  (select system_identifier::text from pg_control_system()),
  current_setting('server_version_num')::int,
  pg_postmaster_start_time()::text,
  case when r.rec
    then greatest(coalesce(w.received_tli, 0), c.timeline_id, coalesce(m.min_recovery_end_timeline, 0), coalesce(files.timeline, 0))
    else ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int end,
  case when r.rec
    then greatest(coalesce(pg_last_wal_receive_lsn() - '0/0', 0), coalesce(pg_last_wal_replay_lsn() - '0/0', 0))
    else pg_current_wal_flush_lsn() - '0/0' end::bigint,
  case when r.rec then (pg_last_wal_receive_lsn() - '0/0')::bigint end,
  case when r.rec then (pg_last_wal_replay_lsn() - '0/0')::bigint end,
  case when r.rec then pg_last_xact_replay_timestamp()::text end,
  case when r.rec then pg_is_wal_replay_paused() else false end,
  coalesce(w.status = 'streaming', false),
  current_setting('primary_conninfo'),
  current_setting('synchronous_standby_names'),
  coalesce((select json_agg(json_build_object('application_name', application_name, 'usename', usename,
      'client_addr', host(client_addr), 'state', state, 'sync_state', sync_state, 'sync_priority', sync_priority,
      'flush_lsn', (flush_lsn - '0/0')::bigint))::text from pg_stat_replication), '[]'),
  current_setting('data_directory'),
  coalesce((select json_object_agg(slot_name, json_build_object('active', active, 'restart_lsn', (restart_lsn - '0/0')::bigint))::text
      from pg_replication_slots where slot_type = 'physical' and not temporary and wal_status is distinct from 'lost'), '{}'),
  current_setting('restore_command') <> '',
  coalesce((select json_object_agg(slot_name, json_build_object('active', active,
      'failover', coalesce((to_jsonb(s) ->> 'failover')::boolean, false), 'synced', coalesce((to_jsonb(s) ->> 'synced')::boolean, false),
      'confirmed', (confirmed_flush_lsn - '0/0')::bigint))::text
    from pg_replication_slots s where slot_type = 'logical' and not temporary), '{}'),
  current_setting('wal_level') = 'logical',
  case when w.status = 'streaming' then w.pid end
from (select pg_is_in_recovery() as rec) r
  cross join pg_control_checkpoint() c
  cross join files
  left join pg_control_recovery() m on true
  left join pg_stat_wal_receiver w on true";

impl Session {
    /// Connects. `application` names the session in `pg_stat_activity`.
    pub async fn connect(address: &Address, role: &Credentials, database: &str, application: &str) -> Result<Session, PostgresError> {
        let mut config = Config::new();
        config.host(&address.host).port(address.port).user(&role.username).dbname(database).application_name(application);
        config.connect_timeout(LIMIT).options("-c statement_timeout=2000 -c pg_stat_statements.track=none");
        if let Some(password) = &role.password {
            config.password(password.expose());
        }
        let begun = Moment::now();
        let connected = tokio::time::timeout(LIMIT, config.connect(NoTls)).await;
        let (client, connection) = connected.map_err(|_| PostgresError::Sql("connecting timed out".to_owned()))?.map_err(sql_error)?;
        let driver = tokio::spawn(async move {
            // Its end shows in the next statement's error.
            let _ = connection.await;
        });
        Ok(Session { client, observation: tokio::sync::OnceCell::new(), begun, driver })
    }

    /// True once the connection is gone.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// When connecting was begun: the server process behind it is no older.
    pub fn begun(&self) -> Moment {
        self.begun
    }

    /// Observes the server, bounded in time.
    pub async fn observe(&self) -> Result<ServerFacts, PostgresError> {
        let statement = bounded(self.observation.get_or_try_init(|| self.client.prepare(OBSERVE))).await?;
        let row = bounded(self.client.query_one(statement, &[])).await?;
        read_facts(&row).map_err(|e| PostgresError::Sql(format!("unexpected answer: {e}")))
    }

    /// These parameters, and every other one that waits for a restart.
    pub async fn waiting_parameters(&self, names: &[&str]) -> Result<Vec<WaitingParameter>, PostgresError> {
        // The server goes on saying that a parameter waits after the line that changed it was removed before any restart.
        let query =
            "select name, current_setting(name), pending_restart and (f.setting is not null or s.setting is distinct from boot_val),
              coalesce(f.setting, boot_val)
            from pg_settings s left join lateral (select setting from pg_file_settings where pending_restart and name = s.name
              order by seqno desc limit 1) f on true
            where pending_restart or name = any($1)";
        let rows = bounded(self.client.query(query, &[&names])).await?;
        let read = |row: &tokio_postgres::Row| {
            let (name, in_force, waits) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            Ok(WaitingParameter { name, in_force, waits, in_file: row.try_get::<_, Option<String>>(3)?.unwrap_or_default() })
        };
        rows.iter().map(read).collect::<Result<_, _>>().map_err(sql_error)
    }

    /// Runs statements that return nothing and take no time.
    pub async fn execute(&self, statements: &str) -> Result<(), PostgresError> {
        bounded(self.client.batch_execute(statements)).await
    }

    /// Runs one statement that returns nothing and takes as long as it takes. Not for the loop.
    pub async fn execute_at_length(&self, statement: &str) -> Result<(), PostgresError> {
        self.execute("set statement_timeout = 0").await?;
        self.client.batch_execute(statement).await.map_err(sql_error)
    }

    /// One text value.
    pub async fn text(&self, query: &str) -> Result<String, PostgresError> {
        let row = bounded(self.client.query_one(query, &[])).await?;
        row.try_get(0).map_err(sql_error)
    }

    /// True when `ALTER SYSTEM` has set the parameter, whether or not that is in force yet.
    pub async fn is_altered(&self, parameter: &str) -> Result<bool, PostgresError> {
        let query = "select count(*) > 0 from pg_file_settings where name = $1 and sourcefile like '%/postgresql.auto.conf'";
        let row = bounded(self.client.query_one(query, &[&parameter])).await?;
        row.try_get(0).map_err(sql_error)
    }

    /// Creates the role with `attributes`, or brings its attributes and password up to date.
    pub async fn ensure_role(&self, role: &Credentials, attributes: &str) -> Result<(), PostgresError> {
        let name = ident(&role.username);
        let known = self.client.query_opt("select from pg_roles where rolname = $1", &[&role.username]).await.map_err(sql_error)?;
        let verb = if known.is_some() { "alter" } else { "create" };
        let password = match &role.password {
            Some(password) => format!(" password '{}'", password.expose().replace('\'', "''")),
            None => String::new(),
        };
        let done = self.client.batch_execute(&format!("{verb} role {name} with {attributes}{password}")).await;
        // The server's message may quote the statement, and with it the password.
        done.map_err(|e| PostgresError::Sql(format!("cannot {verb} role {name}: {}", e.code().map_or("no answer", |c| c.code()))))
    }

    /// Creates the database for `owner` unless it exists.
    pub async fn ensure_database(&self, name: &str, owner: &str) -> Result<(), PostgresError> {
        let known = self.client.query_opt("select from pg_database where datname = $1", &[&name]).await.map_err(sql_error)?;
        if known.is_some() {
            return Ok(());
        }
        self.execute_at_length(&format!("create database {} owner {}", ident(name), ident(owner))).await
    }

    /// Promotes and waits until the server accepts writes, at most `wait`.
    pub async fn promote(&self, wait: Duration) -> Result<bool, PostgresError> {
        let seconds = i32::try_from(wait.as_secs()).unwrap_or(i32::MAX).max(1);
        self.execute("set statement_timeout = 0").await?;
        let promoted = async { self.client.query_one("select pg_promote(true, $1)", &[&seconds]).await };
        let row = tokio::time::timeout(wait + LIMIT, promoted).await.map_err(|_| silent())?.map_err(sql_error)?;
        row.try_get(0).map_err(sql_error)
    }

    /// Makes sure that the physical slot exists and holds WAL from now on.
    pub async fn ensure_slot(&self, slot: &str) -> Result<(), PostgresError> {
        // One whose WAL was given up for want of space is of no use to anybody, and nobody could even copy through it.
        let lost = "select pg_drop_replication_slot(slot_name) from pg_replication_slots
            where slot_name = $1 and wal_status = 'lost' and not active";
        bounded(self.client.execute(lost, &[&slot])).await?;
        let known = bounded(self.client.query_opt("select from pg_replication_slots where slot_name = $1", &[&slot])).await?;
        if known.is_some() {
            return Ok(());
        }
        bounded(self.client.execute("select pg_create_physical_replication_slot($1, true)", &[&slot])).await.map(drop)
    }

    /// Creates a logical slot that standbys take over, in the database of this session. It waits for the transactions that are running.
    pub async fn create_failover_slot(&self, slot: &str, plugin: &str) -> Result<(), PostgresError> {
        let query = "select pg_create_logical_replication_slot($1, $2, temporary => false, twophase => false, failover => true)";
        bounded(self.client.execute(query, &[&slot, &plugin])).await.map(drop)
    }

    /// Lets a physical slot that nobody uses release the WAL before `position`; never further than this server itself has come.
    pub async fn advance_slot(&self, slot: &str, position: Lsn) -> Result<(), PostgresError> {
        let query = "select pg_replication_slot_advance(slot_name, least($2::text::pg_lsn,
                case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_flush_lsn() end))
            from pg_replication_slots where slot_name = $1 and not active and slot_type = 'physical' and restart_lsn < $2::text::pg_lsn";
        bounded(self.client.execute(query, &[&slot, &position.to_string()])).await.map(drop)
    }

    /// Drops a slot that nobody uses.
    pub async fn drop_slot(&self, slot: &str) -> Result<(), PostgresError> {
        let query = "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = $1 and not active";
        bounded(self.client.execute(query, &[&slot])).await.map(drop)
    }
}

/// A statement that should be answered at once. A backend that hangs must not hang who asks.
async fn bounded<T>(answer: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, PostgresError> {
    tokio::time::timeout(LIMIT, answer).await.map_err(|_| silent())?.map_err(sql_error)
}

fn silent() -> PostgresError {
    PostgresError::Sql("the server did not answer in time".to_owned())
}

fn read_facts(row: &tokio_postgres::Row) -> Result<ServerFacts, Box<dyn std::error::Error>> {
    let lsn = |i: usize| -> Result<Option<Lsn>, Box<dyn std::error::Error>> {
        let value: Option<i64> = row.try_get(i)?;
        Ok(value.map(u64::try_from).transpose()?.map(Lsn))
    };
    let version: i32 = row.try_get(2)?;
    let timeline: i32 = row.try_get(4)?;
    Ok(ServerFacts {
        in_recovery: row.try_get(0)?,
        system_id: row.try_get::<_, String>(1)?.parse()?,
        version: u32::try_from(version)?,
        started: row.try_get(3)?,
        timeline: Timeline(u32::try_from(timeline)?),
        position: lsn(5)?.unwrap_or_default(),
        received: lsn(6)?,
        replayed: lsn(7)?,
        replayed_at: row.try_get(8)?,
        replay_paused: row.try_get(9)?,
        streaming: row.try_get(10)?,
        primary_conninfo: row.try_get(11)?,
        synchronous_standby_names: row.try_get(12)?,
        standbys: serde_json::from_str(&row.try_get::<_, String>(13)?)?,
        data_directory: row.try_get(14)?,
        slots: serde_json::from_str(&row.try_get::<_, String>(15)?)?,
        has_archive: row.try_get(16)?,
        logical_slots: serde_json::from_str(&row.try_get::<_, String>(17)?)?,
        decodes: row.try_get(18)?,
        receiver: row.try_get(19)?,
    })
}

/// The server's own words where there are any; the library's Display only says "db error".
#[allow(clippy::needless_pass_by_value, reason = "it stands in map_err")]
pub(super) fn sql_error(error: tokio_postgres::Error) -> PostgresError {
    let text = match error.as_db_error() {
        Some(db) => format!("{} ({})", db.message(), db.code().code()),
        None => match std::error::Error::source(&error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        },
    };
    PostgresError::Sql(text)
}
