//! A former primary's way back: where did the histories part, and pg_rewind.

use std::{fs, path::PathBuf, time::Duration};

use super::{Address, Installation, PostgresError, conninfo::conninfo, control_data::ControlData};
use crate::{
    model::{HistoryLine, Lsn, SystemId, Timeline, parse_history},
    sys::{files, process::Run},
};

/// Who a server is and how its timelines came about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Whose data it serves.
    pub system_id: SystemId,
    /// Its present timeline.
    pub timeline: Timeline,
    /// The timelines before it.
    pub history: Vec<HistoryLine>,
}

/// Where two histories parted: on this timeline, at this position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parting {
    /// The last timeline that both were on.
    pub timeline: Timeline,
    /// The last position that both have, as far as histories tell.
    pub position: Lsn,
}

/// How a data directory relates to the server it should follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// Everything in it is part of the server's history: it can follow.
    Ancestor,
    /// It has something that the server does not.
    Diverged,
    /// It belongs to another database cluster.
    Foreign,
}

/// Asks the server at `address` over a replication connection, which needs no rights beyond replication.
pub async fn origin(installation: &Installation, address: &Address, user: &str) -> Result<Origin, PostgresError> {
    let no_word = |source| PostgresError::NoOrigin { host: address.host.clone(), port: address.port, source: Box::new(source) };
    ask_origin(installation, address, user).await.map_err(no_word)
}

/// Whether the server still has the WAL that a standby at `position` needs next. The file's name begins with a timeline: where one timeline
/// follows another, the segment lies there under either.
pub async fn has_wal_from(installation: &Installation, address: &Address, user: &str, position: Lsn) -> Result<bool, PostgresError> {
    let inside = position.0;
    // PostgreSQL's own function for the name does not work on a standby, which a source may be.
    let query = format!(
        "with place as (select pg_size_bytes(current_setting('wal_segment_size')) as size, {inside}::numeric as lsn), \
           segment as (select lpad(upper(to_hex(div(lsn, 4294967296)::bigint)), 8, '0') \
             || lpad(upper(to_hex(div(mod(lsn, 4294967296), size)::bigint)), 8, '0') as name from place) \
         select count(*) from pg_catalog.pg_ls_dir('pg_wal', true, false) f, segment \
         where f ~ '^[0-9A-F]{{24}}$' and substr(f, 9) = segment.name"
    );
    let target = conninfo(address, user, &installation.passfile, &[("dbname", "postgres"), ("connect_timeout", "3")]);
    let run = Run::new(installation.program("psql")).args(["-X", "-A", "-t", "-q", "-w", "-d"]).arg(target).args(["-c", &query]);
    let answer = run.env("LC_MESSAGES", "C").limit(Duration::from_secs(10)).output().await?;
    Ok(answer.trim() != "0")
}

/// How far a server has come, and whether it is a standby.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// What it has written or, as a standby, received.
    pub position: Lsn,
    /// It is a standby itself.
    pub in_recovery: bool,
}

/// Asks the server at `address` how far it has come, in the same way.
pub async fn standing(installation: &Installation, address: &Address, user: &str) -> Result<Standing, PostgresError> {
    let identity = replication_command(installation, address, user, "IDENTIFY_SYSTEM").await?;
    let unexpected = || PostgresError::Unexpected { program: "IDENTIFY_SYSTEM", what: "no position".to_owned() };
    let position = identity.trim().split('|').nth(2).and_then(|field| field.parse().ok()).ok_or_else(unexpected)?;
    let in_recovery = replication_command(installation, address, user, "SHOW in_hot_standby").await?.trim() == "on";
    Ok(Standing { position, in_recovery })
}

async fn ask_origin(installation: &Installation, address: &Address, user: &str) -> Result<Origin, PostgresError> {
    let identity = replication_command(installation, address, user, "IDENTIFY_SYSTEM").await?;
    let unexpected = |what: &str| PostgresError::Unexpected { program: "IDENTIFY_SYSTEM", what: what.to_owned() };
    let mut fields = identity.trim().split('|');
    let system_id = fields.next().and_then(|f| f.parse().ok()).ok_or_else(|| unexpected("no system identifier"))?;
    let timeline: u32 = fields.next().and_then(|f| f.parse().ok()).ok_or_else(|| unexpected("no timeline"))?;
    let history = if timeline == 1 {
        Vec::new()
    } else {
        let answer = replication_command(installation, address, user, &format!("TIMELINE_HISTORY {timeline}")).await?;
        let text = answer.split_once('|').map(|(_, text)| text).unwrap_or_default();
        parse_history(text).ok_or_else(|| unexpected("an unreadable timeline history"))?
    };
    Ok(Origin { system_id, timeline: Timeline(timeline), history })
}

async fn replication_command(installation: &Installation, address: &Address, user: &str, command: &str) -> Result<String, PostgresError> {
    let target = conninfo(address, user, &installation.passfile, &[("replication", "true"), ("connect_timeout", "3")]);
    let run = Run::new(installation.program("psql")).args(["-X", "-A", "-t", "-q", "-w", "-d"]).arg(target).args(["-c", command]);
    Ok(run.env("LC_MESSAGES", "C").limit(Duration::from_secs(10)).output().await?)
}

impl Origin {
    /// Where the server's history left `timeline`; `None`: it never was on it. A line that lies before an earlier one's end cuts that short:
    /// PostgreSQL writes such a history when a standby was promoted that knew of a later timeline and had not come that far.
    fn fork_of(&self, timeline: Timeline) -> Option<Lsn> {
        let first = self.history.iter().position(|line| line.timeline == timeline)?;
        self.history[first..].iter().map(|line| line.switch).min()
    }

    /// True when `past`, the timelines before `timeline`, cannot be the same as the server's although the numbers are. A past that is not
    /// known contradicts nothing.
    fn contradicts(&self, timeline: Timeline, past: Option<&[HistoryLine]>) -> bool {
        let theirs = self.history.iter().take_while(|line| line.timeline < timeline).map(|line| (line.timeline, line.switch));
        past.is_some_and(|ours| !ours.iter().map(|line| (line.timeline, line.switch)).eq(theirs))
    }
}

/// Compares a data directory that no server uses with the server it should follow. `past`: the timelines before the directory's own.
pub fn relation(control: &ControlData, past: Option<&[HistoryLine]>, origin: &Origin) -> Relation {
    if control.system_id != origin.system_id {
        return Relation::Foreign;
    }
    if origin.contradicts(control.timeline(), past) {
        return Relation::Diverged;
    }
    if control.timeline() == origin.timeline {
        // The same timeline has one writer: the server itself, or this very directory before it was left cleanly.
        return if control.was_primary() { Relation::Diverged } else { Relation::Ancestor };
    }
    let Some(fork) = origin.fork_of(control.timeline()) else { return Relation::Diverged };
    if !control.was_primary() {
        let replayed = control.min_recovery.map_or(control.checkpoint, |(lsn, _)| lsn);
        return if replayed <= fork { Relation::Ancestor } else { Relation::Diverged };
    }
    // The shutdown checkpoint is a clean primary's last record. A fork behind its start lies at its end, because a timeline forks only
    // between whole records: then the server has all of it.
    let clean = control.state == super::control_data::ClusterState::ShutDown;
    if clean && control.checkpoint < fork { Relation::Ancestor } else { Relation::Diverged }
}

/// Where the directory, on `timeline` after `past`, parted from the server it should follow.
pub fn parting(timeline: Timeline, past: Option<&[HistoryLine]>, origin: &Origin) -> Parting {
    let spans = |past: &[HistoryLine], last: Timeline| -> Vec<(Timeline, Lsn)> {
        past.iter().map(|line| (line.timeline, line.switch)).chain([(last, Lsn(u64::MAX))]).collect()
    };
    let (ours, theirs) = (spans(past.unwrap_or_default(), timeline), spans(&origin.history, origin.timeline));
    let mut parting = Parting { timeline: Timeline(1), position: Lsn(0) };
    for ((our_timeline, our_end), (their_timeline, their_end)) in ours.into_iter().zip(theirs) {
        if our_timeline != their_timeline {
            break;
        }
        parting = Parting { timeline: our_timeline, position: our_end.min(their_end) };
        if our_end != their_end {
            break;
        }
    }
    // On one timeline to the end, and yet not the same: nobody knows where.
    if parting.position == Lsn(u64::MAX) { Parting { position: Lsn(0), ..parting } } else { parting }
}

/// Where a running standby stands in the history of the server it should follow. `past`: the timelines before its own.
pub fn standby_relation(at: (Timeline, Lsn), past: Option<&[HistoryLine]>, origin: &Origin) -> Relation {
    let (timeline, position) = at;
    if origin.contradicts(timeline, past) {
        return Relation::Diverged;
    }
    if timeline == origin.timeline {
        return Relation::Ancestor;
    }
    match origin.fork_of(timeline) {
        Some(fork) if position <= fork => Relation::Ancestor,
        _ => Relation::Diverged,
    }
}

/// The mark of a directory that pg_rewind has begun to change: until it is complete, nothing may be started from it.
fn mark(installation: &Installation) -> PathBuf {
    files::beside(&installation.data_dir, ".rewinding")
}

/// True when a rewind was begun and not completed.
pub fn is_unfinished(installation: &Installation) -> bool {
    mark(installation).exists()
}

/// Forgets an unfinished rewind, after the directory was replaced as a whole.
pub fn forget_unfinished(installation: &Installation) -> Result<(), PostgresError> {
    let path = mark(installation);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(PostgresError::file("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Makes sure that pg_rewind will see the source as it is. A server just promoted names its old timeline in its control file until a
/// checkpoint: pg_rewind would find nothing to do.
pub async fn ensure_ready_source(
    installation: &Installation,
    source: &Address,
    user: &str,
    timeline: Timeline,
) -> Result<(), PostgresError> {
    let target = conninfo(source, user, &installation.passfile, &[("dbname", "postgres"), ("connect_timeout", "3")]);
    let query = |sql: &str| {
        let run = Run::new(installation.program("psql")).args(["-X", "-A", "-t", "-q", "-w", "-d", &target, "-c", sql]);
        run.env("LC_MESSAGES", "C").limit(Duration::from_secs(300)).output()
    };
    // A role that may not ask for one waits for the leader's own.
    let asked = query("CHECKPOINT").await;
    let facts = query("select timeline_id from pg_control_checkpoint()").await;
    let no_word = |error: crate::sys::process::ProcessError| PostgresError::NoOrigin {
        host: source.host.clone(),
        port: source.port,
        source: Box::new(error.into()),
    };
    let facts = facts.map_err(no_word)?;
    if facts.trim() == timeline.to_string() {
        return Ok(());
    }
    let why = asked.err().map(|error| format!(" ({error})")).unwrap_or_default();
    Err(PostgresError::NotYet(format!("{}:{} has not written a checkpoint on timeline {timeline} yet{why}", source.host, source.port)))
}

/// Rewinds the directory to the point where it parted from the server at `source`, which has to be ready for it. pg_rewind brings a crashed
/// directory to a clean stop by itself first. `restore`: WAL that is no longer here is fetched with `restore_command`.
pub async fn rewind(installation: &Installation, source: &Address, user: &str, restore: bool) -> Result<(), PostgresError> {
    let target = conninfo(source, user, &installation.passfile, &[("dbname", "postgres"), ("connect_timeout", "3")]);
    let path = mark(installation);
    files::replace(&path, b"", 0o600).map_err(PostgresError::file("write", &path))?;
    // The single-user server that pg_rewind recovers a crashed directory with refuses to be a standby.
    super::conf::set_standby_signal(&installation.data_dir, false)?;
    let run = Run::new(installation.program("pg_rewind"))
        .arg(format!("--target-pgdata={}", installation.data_dir.display()))
        .arg(format!("--source-server={target}"))
        .args(restore.then_some("--restore-target-wal"));
    run.env("LC_MESSAGES", "C").limit(Duration::from_secs(6 * 3600)).output().await?;
    super::conf::set_standby_signal(&installation.data_dir, true)?;
    // pg_rewind brings along whatever files the source has.
    super::clone::leave_out_agents_own(&installation.data_dir)?;
    forget_unfinished(installation)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::control_data::ClusterState;

    fn control(state: ClusterState, timeline: u32, checkpoint: u64) -> ControlData {
        ControlData {
            system_id: SystemId(7_000_000_000),
            state,
            checkpoint_timeline: Timeline(timeline),
            checkpoint: Lsn(checkpoint),
            redo: Lsn(checkpoint),
            min_recovery: None,
            rewindable: true,
        }
    }

    fn origin() -> Origin {
        let line = |timeline: u32, switch: u64| HistoryLine { timeline: Timeline(timeline), switch: Lsn(switch), reason: String::new() };
        Origin { system_id: SystemId(7_000_000_000), timeline: Timeline(3), history: vec![line(1, 100), line(2, 200)] }
    }

    #[test]
    fn a_primary_that_handed_over_cleanly_can_follow() {
        assert_eq!(relation(&control(ClusterState::ShutDown, 2, 150), None, &origin()), Relation::Ancestor);
    }

    #[test]
    fn a_primary_with_a_record_behind_the_fork_cannot() {
        assert_eq!(relation(&control(ClusterState::ShutDown, 2, 200), None, &origin()), Relation::Diverged);
        assert_eq!(relation(&control(ClusterState::InProduction, 2, 150), None, &origin()), Relation::Diverged);
    }

    #[test]
    fn a_standby_follows_up_to_the_fork() {
        let mut standby = control(ClusterState::ShutDownInRecovery, 2, 90);
        standby.min_recovery = Some((Lsn(200), Timeline(2)));
        assert_eq!(relation(&standby, None, &origin()), Relation::Ancestor);
        standby.min_recovery = Some((Lsn(201), Timeline(2)));
        assert_eq!(relation(&standby, None, &origin()), Relation::Diverged);
        assert_eq!(standby_relation((Timeline(2), Lsn(201)), None, &origin()), Relation::Diverged);
        assert_eq!(standby_relation((Timeline(3), Lsn(999)), None, &origin()), Relation::Ancestor);
    }

    #[test]
    fn timelines_that_the_server_never_had_have_diverged() {
        assert_eq!(relation(&control(ClusterState::ShutDown, 4, 10), None, &origin()), Relation::Diverged);
        assert_eq!(relation(&control(ClusterState::InProduction, 3, 10), None, &origin()), Relation::Diverged);
    }

    #[test]
    fn two_timelines_of_one_number_are_told_apart_by_where_they_forked_off() {
        let line = |timeline: u32, switch: u64| HistoryLine { timeline: Timeline(timeline), switch: Lsn(switch), reason: String::new() };
        let standby = control(ClusterState::ShutDownInRecovery, 3, 10);
        assert_eq!(relation(&standby, Some(&[line(1, 100), line(2, 200)]), &origin()), Relation::Ancestor);
        assert_eq!(relation(&standby, Some(&[line(1, 100), line(2, 201)]), &origin()), Relation::Diverged);
        assert_eq!(standby_relation((Timeline(2), Lsn(150)), Some(&[line(1, 99)]), &origin()), Relation::Diverged);
        assert_eq!(standby_relation((Timeline(2), Lsn(150)), Some(&[line(1, 100)]), &origin()), Relation::Ancestor);
    }

    #[test]
    fn histories_part_at_the_first_fork_that_they_do_not_share() {
        let line = |timeline: u32, switch: u64| HistoryLine { timeline: Timeline(timeline), switch: Lsn(switch), reason: String::new() };
        let at = |timeline, position| Parting { timeline: Timeline(timeline), position: Lsn(position) };
        assert_eq!(parting(Timeline(1), Some(&[]), &origin()), at(1, 100));
        assert_eq!(parting(Timeline(2), Some(&[line(1, 100)]), &origin()), at(2, 200));
        assert_eq!(parting(Timeline(4), Some(&[line(1, 70)]), &origin()), at(1, 70));
        assert_eq!(parting(Timeline(3), Some(&[line(1, 100), line(2, 200)]), &origin()), at(3, 0), "two primaries on one timeline");
    }

    #[test]
    fn a_later_fork_that_lies_before_an_earlier_one_cuts_it_short() {
        let mut origin = origin();
        origin.history[1].switch = Lsn(60);
        assert_eq!(standby_relation((Timeline(1), Lsn(60)), None, &origin), Relation::Ancestor);
        assert_eq!(standby_relation((Timeline(1), Lsn(80)), None, &origin), Relation::Diverged);
    }

    #[test]
    fn another_clusters_data_is_foreign() {
        let mut other = control(ClusterState::ShutDown, 2, 1);
        other.system_id = SystemId(8_000_000_000);
        assert_eq!(relation(&other, None, &origin()), Relation::Foreign);
    }
}
