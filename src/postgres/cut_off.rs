//! Whether a standby may still acknowledge anything to the primary that it followed.

use super::{PostgresError, sql::Session};

/// True on a standby that receives nothing, will receive nothing before its configuration changes, and has read all that was ever received.
///
/// The answer counts only from a session that was begun after another one had seen the emptied `primary_conninfo` in force: then the
/// postmaster has passed the reload on to *all* its processes. That no receiver is seen proves little by itself, because the startup
/// process may be about to ask for one with what it read before. So that process has to be seen where it takes in the reload before it
/// asks again: in the pause between two attempts to find more WAL, stopped in the middle of replaying, or running `restore_command`, after
/// which it always takes in signals before it turns to streaming. (With an archive that takes longer to answer than the pause lasts, there
/// is no pause.) In the pause it has read
/// everything there is; otherwise what was received tells, unless nothing was since the start (what an earlier life received has to be
/// replayed first to be counted).
const CUT_OFF: &str = "
select (pg_is_in_recovery()
  and current_setting('primary_conninfo') = ''
  and not exists (select from pg_stat_wal_receiver)
  and not exists (select from pg_stat_activity where backend_type = 'walreceiver')
  and exists (select from pg_stat_activity where backend_type = 'startup'
    and (wait_event = 'RecoveryRetrieveRetryInterval'
      or pg_last_wal_receive_lsn() is not null
        and (wait_event in ('RestoreCommand', 'RecoveryPause', 'RecoveryApplyDelay', 'RecoveryConflictSnapshot', 'RecoveryConflictTablespace')
          or wait_event_type in ('BufferPin', 'Buffer', 'Lock')))))::text";

impl Session {
    /// Asks. See above for which sessions may.
    pub async fn is_cut_off(&self) -> Result<bool, PostgresError> {
        self.text(CUT_OFF).await.map(|answer| answer == "true")
    }

    /// `primary_conninfo` as it is in force for this session.
    pub async fn primary_conninfo(&self) -> Result<String, PostgresError> {
        self.text("select current_setting('primary_conninfo')").await
    }
}
