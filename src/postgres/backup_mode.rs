//! The session in which a server is told that its files are being copied. It lasts as long as the copying: when it ends, the copy is worth
//! nothing.

use std::time::Duration;

use tokio_postgres::{Config, NoTls, types::ToSql};

use super::{Address, Credentials, PostgresError, sql::sql_error};
use crate::model::{Lsn, SystemId, Timeline};

/// Time for connecting, and for a question that a server answers at once.
const LIMIT: Duration = Duration::from_secs(30);

/// How often the session is used, so that whatever is between lets it be.
const BEAT: Duration = Duration::from_secs(10);

/// What a backup has to know of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopiedServer {
    /// Whose data it has.
    pub system: SystemId,
    /// A standby.
    pub in_recovery: bool,
    /// Such as 170005.
    pub version: u32,
    /// The version of its catalogues.
    pub catalog_version: u32,
    /// Its data directory.
    pub data_directory: String,
    /// Bytes of a page.
    pub page_size: u32,
    /// Pages of one file of a relation.
    pub segment_pages: u32,
    /// Bytes of a WAL segment.
    pub wal_segment_size: u32,
    /// Whether pages carry checksums.
    pub checksums: bool,
    /// `archive_mode`.
    pub archive_mode: String,
    /// `wal_level`.
    pub wal_level: String,
    /// When its postmaster was started, in seconds since 1970 with all digits that the server has.
    pub running_since: String,
}

/// A session with a server whose files are being copied.
pub struct BackupMode {
    client: tokio_postgres::Client,
    driver: tokio::task::JoinHandle<Option<tokio_postgres::Error>>,
}

/// What the server says at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopped {
    /// From here on the copy is consistent.
    pub lsn: Lsn,
    /// On which timeline the server is then.
    pub timeline: Timeline,
    /// The content of `backup_label`.
    pub label: String,
    /// The content of `tablespace_map`.
    pub tablespace_map: String,
}

const DESCRIBE: &str =
    "select system_identifier::text, catalog_version_no, pg_is_in_recovery(), current_setting('server_version_num')::int,
  current_setting('data_directory'), current_setting('block_size')::int,
  (select setting::int from pg_settings where name = 'segment_size'),
  (select setting::int from pg_settings where name = 'wal_segment_size'),
  current_setting('data_checksums') = 'on', current_setting('archive_mode'), current_setting('wal_level'),
  extract(epoch from pg_postmaster_start_time())::text
from pg_control_system()";

/// A primary is on the timeline that it writes, a standby on that of the last WAL that its pages need.
const TIMELINE: &str = "select case when pg_is_in_recovery()
  then greatest((select timeline_id from pg_control_checkpoint()), (select min_recovery_end_timeline from pg_control_recovery()))
  else ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int end";

impl BackupMode {
    /// Connects; nothing is begun yet.
    ///
    /// # Errors
    /// When nobody answers, or not to this role.
    pub async fn connect(address: &Address, role: &Credentials) -> Result<BackupMode, PostgresError> {
        let mut config = Config::new();
        config.host(&address.host).port(address.port).user(&role.username).dbname("postgres").application_name("spilo backup");
        // It is idle most of the time, and a checkpoint takes as long as it takes.
        config.connect_timeout(LIMIT).options("-c statement_timeout=0 -c idle_session_timeout=0 -c search_path=pg_catalog");
        config.keepalives_idle(LIMIT);
        if let Some(password) = &role.password {
            config.password(password.expose());
        }
        let connected = tokio::time::timeout(LIMIT, config.connect(NoTls)).await;
        let (client, connection) = connected.map_err(|_| timed_out(address))?.map_err(sql_error)?;
        Ok(BackupMode { client, driver: tokio::spawn(async move { connection.await.err() }) })
    }

    /// What the server is.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn describe(&self) -> Result<CopiedServer, PostgresError> {
        let row = self.row(DESCRIBE, &[], Some(LIMIT)).await?;
        let number = |at: usize| row.try_get::<_, i32>(at).map(|number| u32::try_from(number).unwrap_or(0));
        let read = || -> Result<_, tokio_postgres::Error> {
            let system: String = row.try_get(0)?;
            Ok((
                system,
                CopiedServer {
                    system: SystemId(0),
                    catalog_version: number(1)?,
                    in_recovery: row.try_get(2)?,
                    version: number(3)?,
                    data_directory: row.try_get(4)?,
                    page_size: number(5)?,
                    segment_pages: number(6)?,
                    wal_segment_size: number(7)?,
                    checksums: row.try_get(8)?,
                    archive_mode: row.try_get(9)?,
                    wal_level: row.try_get(10)?,
                    running_since: row.try_get(11)?,
                },
            ))
        };
        let (system, server) = read().map_err(sql_error)?;
        let system = SystemId(system.parse::<i64>().map_err(|_| unexpected("its system identifier"))?.cast_unsigned());
        Ok(CopiedServer { system, ..server })
    }

    /// Begins: says where recovery of the copy is to begin. Takes as long as a checkpoint.
    ///
    /// # Errors
    /// When the server refuses, or the session ends.
    pub async fn start(&self, label: &str) -> Result<Lsn, PostgresError> {
        let row = self.row("select pg_backup_start($1, fast => true)::text", &[&label], None).await?;
        lsn(&row, 0)
    }

    /// Uses the session until it ends, and says why it did.
    pub async fn ended(&mut self) -> String {
        loop {
            let pause = tokio::time::sleep(BEAT);
            tokio::select! {
                end = &mut self.driver => {
                    let why = end.ok().flatten().map(sql_error);
                    return why.map_or_else(|| "the server has ended the session".to_owned(), |why| why.to_string());
                }
                () = pause => {}
            }
            if let Err(error) = self.row("select 1", &[], Some(LIMIT)).await {
                return error.to_string();
            }
        }
    }

    /// Ends, in the same session. The server does not wait for its archive.
    ///
    /// # Errors
    /// When the server says that the copy is worth nothing, such as one from a standby that was promoted meanwhile.
    pub async fn stop(&self) -> Result<Stopped, PostgresError> {
        let row = self.row("select lsn::text, labelfile, spcmapfile from pg_backup_stop(wait_for_archive => false)", &[], None).await?;
        let (label, map): (String, Option<String>) = (row.try_get(1).map_err(sql_error)?, row.try_get(2).map_err(sql_error)?);
        let timeline = self.row(TIMELINE, &[], Some(LIMIT)).await?.try_get::<_, i32>(0).map_err(sql_error)?;
        let timeline = Timeline(u32::try_from(timeline).map_err(|_| unexpected("its timeline"))?);
        Ok(Stopped { lsn: lsn(&row, 0)?, timeline, label, tablespace_map: map.unwrap_or_default() })
    }

    /// Ends the segment that the server writes, so that it is archived: only a primary can.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn switch_wal(&self) -> Result<(), PostgresError> {
        self.row("select pg_switch_wal()::text", &[], Some(LIMIT)).await.map(drop)
    }

    async fn row(
        &self,
        query: &str,
        values: &[&(dyn ToSql + Sync)],
        limit: Option<Duration>,
    ) -> Result<tokio_postgres::Row, PostgresError> {
        let asked = self.client.query_one(query, values);
        let answer = match limit {
            Some(limit) => {
                tokio::time::timeout(limit, asked).await.map_err(|_| PostgresError::Sql("the server does not answer".to_owned()))?
            }
            None => asked.await,
        };
        answer.map_err(sql_error)
    }
}

impl Drop for BackupMode {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

fn timed_out(address: &Address) -> PostgresError {
    PostgresError::Sql(format!("connecting to '{}', port {}, timed out", address.host, address.port))
}

fn lsn(row: &tokio_postgres::Row, at: usize) -> Result<Lsn, PostgresError> {
    row.try_get::<_, String>(at).map_err(sql_error)?.parse().map_err(|_| unexpected("a WAL position"))
}

fn unexpected(what: &str) -> PostgresError {
    PostgresError::Sql(format!("the server gave an unexpected answer instead of {what}"))
}
