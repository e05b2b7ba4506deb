//! Telling PostgreSQL whom commits wait for, and seeing that it heeds that.

use std::time::Duration;

use super::{
    action::PgSync,
    perform::{Failure, Flow},
    shell::Shell,
    view::{Local, View},
};
use crate::{
    postgres::{conf::ServerSettings, sql::Session},
    sys::clock::Moment,
};

/// How long a reload may take to reach a session.
const RELOAD: Duration = Duration::from_secs(1);

/// Whether commits wait at all is told to them by the checkpointer, which reads its configuration only between its steps: while it syncs
/// files, commits go on as before, for seconds. Where it waits in its main loop, or between two writes, it has read what it was told of.
const CHECKPOINTER_READS: &str = "select (exists (select from pg_stat_activity where backend_type = 'checkpointer'
    and wait_event in ('CheckpointerMain', 'CheckpointWriteDelay')))::text";

/// Between two looks at the checkpointer: one that was told a moment ago is on its way.
const CHECKPOINTER_WAKES: Duration = Duration::from_millis(10);

/// Waits until the checkpointer has read its configuration.
async fn await_checkpointer(session: &Session) -> Result<(), Failure> {
    let deadline = Moment::now() + RELOAD;
    let mut seen = 0;
    while seen < 2 {
        if Moment::now() >= deadline {
            return Err("the checkpointer is busy: commits may not heed the new synchronous_standby_names yet".into());
        }
        seen = if session.text(CHECKPOINTER_READS).await? == "true" { seen + 1 } else { 0 };
        tokio::time::sleep(CHECKPOINTER_WAKES).await;
    }
    Ok(())
}

impl Shell {
    /// Changes the standbys that commits wait for, waits until the change is in force, and notes what they have to confirm.
    pub(super) async fn set_sync_names(&mut self, names: &PgSync, view: &View) -> Result<Flow, Failure> {
        let Some(configured) = &self.configured else { return Ok(Flow::Enough) };
        let settings = ServerSettings { synchronous_standby_names: names.render(), ..configured.clone() };
        self.memory.names_change();
        self.server.configure(&settings).await?;
        self.configured = Some(settings);
        tracing::info!("commits wait for: {}", if names.names.is_empty() { "nobody".to_owned() } else { names.render() });
        self.await_sync_names(&names.render()).await?;
        // A session that begins only now proves that the postmaster has told every process of the change.
        let session = self.server.new_session("spilo barrier").await?;
        await_checkpointer(&session).await?;
        self.memory.names_are_heeded(names);
        if matches!(view.local, Local::Primary(_)) {
            // Everything up to here may have been acknowledged under the old names. A commit of our own makes the standbys report.
            let barrier = session.text("select pg_current_wal_insert_lsn()::text").await?;
            self.memory.barrier_is(barrier.parse()?);
            session.execute("begin; set local synchronous_commit = local; select pg_current_xact_id(); commit").await?;
        }
        Ok(Flow::LookAgain)
    }

    async fn await_sync_names(&self, names: &str) -> Result<(), Failure> {
        let session = self.server.session().await?;
        let begun = Moment::now();
        let mut enforced = false;
        while session.text("show synchronous_standby_names").await? != names {
            let waited = Moment::now().since(begun);
            if waited >= RELOAD {
                return Err("PostgreSQL has not taken the new synchronous_standby_names".into());
            }
            if waited >= RELOAD / 5 && !std::mem::replace(&mut enforced, true) {
                self.server.enforce("synchronous_standby_names").await?;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }
}
