//! `/metrics`: what `/patroni` says, as numbers under Patroni's names, so that dashboards made for it keep working. Pure.
//!
//! Written out by hand: libraries for this format add `_total` to the names of counters, which would not be the names that are asked for.

use std::fmt::{Display, Write as _};

use jiff::Timestamp;

use super::{NodeStatus, Xlog, backup_status::BackupStatus, health::is_standby_of};
use crate::{
    dcs::snapshot::{MemberRole, PgState},
    model::{Lsn, WalAccount},
    spec::settings::SyncMode,
    sys::clock::Moment,
};

/// Patroni's numbers for the states of PostgreSQL.
const STATES: [(PgState, &str, i8); 10] = [
    (PgState::Initializing, "initdb", 0),
    (PgState::InitdbFailed, "initdb_failed", 1),
    (PgState::CreatingReplica, "creating_replica", 4),
    (PgState::Running, "running", 5),
    (PgState::Starting, "starting", 6),
    (PgState::StartFailed, "start_failed", 8),
    (PgState::Restarting, "restarting", 9),
    (PgState::Stopping, "stopping", 11),
    (PgState::Stopped, "stopped", 12),
    (PgState::Crashed, "crashed", 14),
];

/// The document that is being written.
struct Page {
    labels: String,
    text: String,
}

impl Page {
    fn add(&mut self, kind: &str, name: &str, help: &str, value: impl Display) {
        let Page { labels, text } = self;
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name}{{{labels}}} {value}");
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.add("gauge", name, help, value);
    }

    fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.add("counter", name, help, value);
    }

    fn whether(&mut self, name: &str, help: &str, value: bool) {
        self.gauge(name, &format!("1 if {help}, else 0."), u8::from(value));
    }
}

/// The numbers of this node.
pub fn metrics(status: &NodeStatus, now: Moment) -> String {
    let labels = format!("scope=\"{}\",name=\"{}\"", escaped(&status.scope), escaped(status.name.as_str()));
    let mut page = Page { labels, text: String::new() };
    page.gauge("patroni_version", "Version of Patroni's protocol that is spoken, two digits a part.", version(&status.version));
    server(&mut page, status);
    positions(&mut page, status.xlog.as_ref());
    cluster(&mut page, status, now);
    ours(&mut page, status, now);
    if let Some(backup) = &status.backup {
        backups(&mut page, backup);
    }
    page.text
}

fn server(page: &mut Page, status: &NodeStatus) {
    let (state, role) = (status.shown_state(), status.shown_role());
    let started = status.postmaster_start_time.as_ref().filter(|_| status.xlog.is_some());
    page.whether("patroni_postgres_running", "PostgreSQL runs and answers", state == PgState::Running);
    page.gauge(
        "patroni_postmaster_start_time",
        "When PostgreSQL was started, in seconds since 1970; 0: it does not run.",
        seconds(started),
    );
    page.whether("patroni_primary", "this node is the primary", role == MemberRole::Primary);
    page.whether("patroni_standby_leader", "this node leads a standby cluster", role == MemberRole::StandbyLeader);
    page.whether("patroni_replica", "this node is a replica", role == MemberRole::Replica);
    page.whether("patroni_sync_standby", "commits wait for this replica", is_standby_of(status, SyncMode::On));
    page.whether(
        "patroni_quorum_standby",
        "this replica is of those of whom commits wait for some",
        is_standby_of(status, SyncMode::Quorum),
    );
    let replicates = |how| status.xlog.is_some() && status.replication_state.as_deref() == Some(how);
    page.whether("patroni_postgres_streaming", "PostgreSQL streams from another node", replicates("streaming"));
    page.whether("patroni_postgres_in_archive_recovery", "PostgreSQL takes WAL from the archive", replicates("in archive recovery"));
    page.gauge(
        "patroni_postgres_server_version",
        "Version of PostgreSQL, such as 170004; 0: not known.",
        status.server_version.unwrap_or(0),
    );
    let timeline = status.timeline.filter(|_| status.xlog.is_some()).map_or(0, |timeline| timeline.0);
    page.gauge("patroni_postgres_timeline", "Timeline of PostgreSQL; 0: it does not answer.", timeline);
    let number = STATES.iter().find(|(known, ..)| *known == state).map_or(-1, |(_, _, number)| *number);
    let legend: Vec<String> = STATES.iter().map(|(_, name, number)| format!("{number}={name}")).collect();
    page.gauge("patroni_postgres_state", &format!("State of PostgreSQL: -1=unknown, {}.", legend.join(", ")), number);
}

fn positions(page: &mut Page, xlog: Option<&Xlog>) {
    let (location, received, replayed, timestamp, paused) = match xlog {
        Some(Xlog::Primary { location }) => (*location, Lsn(0), Lsn(0), None, false),
        Some(Xlog::Standby { received, replayed, replayed_timestamp, paused }) => {
            (Lsn(0), *received, *replayed, replayed_timestamp.as_ref(), *paused)
        }
        None => Default::default(),
    };
    page.counter("patroni_xlog_location", "Position in the WAL of a primary, in bytes; 0 elsewhere.", location.0);
    page.counter("patroni_xlog_received_location", "How far a replica has received WAL, in bytes; 0 elsewhere.", received.0);
    page.counter("patroni_xlog_replayed_location", "How far a replica has replayed WAL, in bytes; 0 elsewhere.", replayed.0);
    let help = "When the last transaction was committed that a replica has replayed, in seconds since 1970; 0: none.";
    page.gauge("patroni_xlog_replayed_timestamp", help, seconds(timestamp));
    page.whether("patroni_xlog_paused", "replay is paused", paused);
}

fn cluster(page: &mut Page, status: &NodeStatus, now: Moment) {
    let sees = status.sees_dcs(now);
    page.whether("patroni_cluster_unlocked", "nobody is known to lead", status.cluster.leader.is_none() || !sees);
    page.whether(
        "patroni_failsafe_mode_is_active",
        "this node leads on by promises of the others, without the DCS",
        status.leads(now) && !sees,
    );
    page.gauge("patroni_dcs_last_seen", "When the DCS was last read, in seconds since 1970; 0: never.", status.dcs_seen.unwrap_or(0));
    page.whether("patroni_pending_restart", "parameters wait for a restart", !status.pending_restart.is_empty());
    page.whether("patroni_is_paused", "the cluster is paused", status.pause);
}

/// What Patroni has no names for.
fn ours(page: &mut Page, status: &NodeStatus, now: Moment) {
    let left = status.leader_until.filter(|_| status.is_leader).map_or(0.0, |until| until.since(now).as_secs_f64());
    page.gauge("spilo_lease_seconds", "How much longer this node may lead unless it is confirmed again; 0: it does not lead.", left);
    let streaming = status.replication.iter().filter(|sender| sender.state == "streaming").count();
    page.gauge("spilo_streaming_replicas", "How many replicas stream from this node.", streaming);
    let voters = if status.cluster.sync.is_active() { status.cluster.sync.voters.len() } else { 0 };
    page.gauge("spilo_voters", "How many members may succeed the leader under synchronous replication.", voters);
    let lacks_watchdog = status.watchdog_failed;
    page.whether(
        "spilo_needs_attention",
        "an operator has to see to something: /patroni says to what",
        status.trouble.is_some() || lacks_watchdog,
    );
}

/// The backups, as the keeper of this node last saw them. Times stay comparable when nobody writes them any more; ages would not grow.
fn backups(page: &mut Page, backup: &BackupStatus) {
    let time = |time: Option<Timestamp>| time.map_or(0.0, |time| time.as_millisecond() as f64 / 1e3);
    page.gauge("spilo_backup_status_time", "When the keeper of this node last wrote, in seconds since 1970.", time(Some(backup.updated)));
    page.gauge("spilo_backups", "How many complete backups there are.", backup.backups);
    page.gauge("spilo_backups_stored_bytes", "Bytes of all backups in the store.", backup.stored);
    let help = "Pages of the newest backup that were damaged in the database already; 0: none, or there is no backup.";
    page.gauge("spilo_backup_bad_pages", help, backup.bad_pages);
    page.gauge(
        "spilo_last_backup_time",
        "When the newest backup was complete, in seconds since 1970; 0: there is none.",
        time(backup.last_backup),
    );
    let help = "When a backup was last read from beginning to end and found whole, in seconds since 1970; 0: never.";
    page.gauge("spilo_last_verified_time", help, time(backup.last_verified));
    let help = "When a server was last started from a backup and answered, in seconds since 1970; 0: never.";
    page.gauge("spilo_last_proven_restore_time", help, time(backup.last_restored));
    page.gauge("spilo_recovery_seconds", "How long that took; 0: not known.", backup.recovery_seconds.unwrap_or(0.0));
    let help = "Every moment since then can be gone back to, in seconds since 1970; 0: none.";
    page.gauge("spilo_oldest_restorable_time", help, time(backup.oldest_point));
    page.gauge("spilo_wal_waiting_files", "WAL files of this node that wait for being archived.", backup.wal_waiting.files);
    page.gauge("spilo_wal_waiting_bytes", "How many bytes they have.", backup.wal_waiting.bytes);
    let help = "When they take all of the disk if it goes on like this, in seconds since 1970; 0: what waits does not grow.";
    page.gauge("spilo_wal_disk_full_time", help, time(backup.wal_waiting.full));
    let help = "Since when the oldest of them waits, in seconds since 1970; 0: none does.";
    page.gauge("spilo_wal_waiting_since_time", help, time(backup.wal_waiting.since));
    if let Some(account) = &backup.wal_service {
        wal_service(page, account);
    }
    page.whether(
        "spilo_backup_overdue",
        "something should have been backed up, verified or restored by now, or is damaged",
        !backup.overdue.is_empty(),
    );
}

/// What the WAL service of this node has done. It counts from its start, as counters may.
fn wal_service(page: &mut Page, account: &WalAccount) {
    let help = "WAL files of this node of which the archive has another content; somebody has to find out why.";
    page.gauge("spilo_wal_conflicts", help, account.conflicting);
    page.counter("spilo_wal_archived_total", "Files that this node's WAL service has archived, or found archived.", account.archived);
    page.counter("spilo_wal_archived_bytes_total", "Bytes that were sent for them, packed.", account.stored_bytes);
    page.counter("spilo_wal_archive_failures_total", "Attempts to archive a file that failed.", account.failures);
    let help = "Files that this node's WAL service has fetched from the archive, those it has fetched ahead among them.";
    page.counter("spilo_wal_fetched_total", help, account.fetched);
    page.counter("spilo_wal_fetched_bytes_total", "How many bytes they have, unpacked.", account.fetched_bytes);
}

/// `4.1.5` as 040105.
fn version(version: &str) -> String {
    version.split('.').map(|part| format!("{part:0>2}")).collect()
}

/// A moment as PostgreSQL prints it, in seconds since 1970; 0 for none.
fn seconds(moment: Option<&String>) -> f64 {
    let parsed = moment.and_then(|text| text.parse::<Timestamp>().ok());
    parsed.map_or(0.0, |moment| moment.as_microsecond() as f64 / 1e6)
}

fn escaped(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value};

    use super::{
        super::{WalSender, backup_status::WalWaiting, status::tests::seen_by},
        *,
    };

    /// The value of each metric, after it was made sure that each is described and typed, once.
    fn values(status: &NodeStatus) -> Map<String, Value> {
        let page = metrics(status, Moment(1000));
        let mut found = Map::new();
        for lines in page.lines().collect::<Vec<_>>().chunks(3) {
            let [help, kind, sample] = lines else { panic!("three lines each: {lines:?}") };
            let (name, rest) = sample.split_once('{').expect("labels");
            assert!(help.starts_with(&format!("# HELP {name} ")), "{help}");
            assert!(["gauge", "counter"].iter().any(|k| *kind == format!("# TYPE {name} {k}")), "{kind}");
            let (labels, value) = rest.split_once("} ").expect("a value");
            assert_eq!(labels, format!("scope=\"orders\",name=\"{}\"", status.name));
            assert!(value.parse::<f64>().is_ok(), "{sample}");
            assert!(found.insert(name.to_owned(), value.into()).is_none(), "{name} twice");
        }
        found
    }

    #[test]
    fn a_primary_is_counted_under_patronis_names() {
        let mut status = seen_by("orders-1");
        status.postmaster_start_time = Some("2026-11-21 13:20:22.005123+00".to_owned());
        status.replication = vec![WalSender { state: "streaming".to_owned(), ..WalSender::default() }, WalSender::default()];
        let values = values(&status);
        for (name, value) in [
            ("patroni_version", "040105"),
            ("patroni_postgres_running", "1"),
            ("patroni_postmaster_start_time", "1795267222.005123"),
            ("patroni_primary", "1"),
            ("patroni_replica", "0"),
            ("patroni_xlog_location", "1000"),
            ("patroni_xlog_received_location", "0"),
            ("patroni_postgres_server_version", "170004"),
            ("patroni_postgres_timeline", "3"),
            ("patroni_postgres_state", "5"),
            ("patroni_cluster_unlocked", "0"),
            ("patroni_failsafe_mode_is_active", "0"),
            ("patroni_dcs_last_seen", "1700000000"),
            ("spilo_lease_seconds", "0.000001"),
            ("spilo_streaming_replicas", "1"),
            ("spilo_voters", "1"),
        ] {
            assert_eq!(values[name], value, "{name}");
        }
        let wanted = "version postgres_running postmaster_start_time primary xlog_location standby_leader replica sync_standby quorum_standby \
            xlog_received_location xlog_replayed_location xlog_replayed_timestamp xlog_paused postgres_streaming \
            postgres_in_archive_recovery postgres_server_version cluster_unlocked failsafe_mode_is_active postgres_timeline dcs_last_seen \
            pending_restart is_paused postgres_state";
        wanted.split_whitespace().for_each(|name| assert!(values.contains_key(&format!("patroni_{name}")), "{name}"));
    }

    #[test]
    fn a_replica_has_positions_of_its_own() {
        let mut status = seen_by("orders-2");
        let at = Some("2026-11-21 13:20:22+05:30".to_owned());
        status.xlog = Some(Xlog::Standby { received: Lsn(1000), replayed: Lsn(900), replayed_timestamp: at, paused: true });
        let values = values(&status);
        let read = |name: &str| values[name].as_str().expect("text").to_owned();
        assert_eq!(read("patroni_xlog_received_location"), "1000");
        assert_eq!(read("patroni_xlog_replayed_location"), "900");
        assert_eq!(read("patroni_xlog_replayed_timestamp"), "1795247422");
        assert_eq!(read("patroni_xlog_paused"), "1");
        assert_eq!((read("patroni_quorum_standby"), read("patroni_sync_standby")), ("1".to_owned(), "0".to_owned()));
        assert_eq!(read("patroni_postgres_streaming"), "1");
    }

    #[test]
    fn what_is_not_known_is_nothing_and_never_yesterdays() {
        let mut status = NodeStatus { xlog: None, ..seen_by("orders-1") };
        (status.dcs_fresh_until, status.trouble) = (Moment(500), Some("disk full".to_owned()));
        let values = values(&status);
        for (name, value) in [
            ("patroni_postgres_running", "0"),
            ("patroni_postgres_state", "-1"),
            ("patroni_xlog_location", "0"),
            ("patroni_postgres_timeline", "0"),
            ("patroni_cluster_unlocked", "1"),
            ("patroni_failsafe_mode_is_active", "1"),
            ("spilo_needs_attention", "1"),
        ] {
            assert_eq!(values[name], value, "{name}");
        }
    }

    #[test]
    fn backups_are_counted_where_somebody_sees_to_them() {
        assert!(!values(&seen_by("orders-1")).keys().any(|name| name.contains("backup")));
        let wal_waiting = WalWaiting { files: 2, since: "2026-11-22T05:00:00Z".parse().ok(), bytes: 2 << 20, full: None };
        let wal_waiting = wal_waiting.filling(crate::model::DiskForecast::of(1_843_200, 1), "2026-11-22T06:00:00Z".parse().unwrap());
        let account = WalAccount {
            archived: 7,
            stored_bytes: 70,
            failures: 2,
            fetched: 5,
            fetched_bytes: 50,
            conflicting: 1,
            ..WalAccount::default()
        };
        let backup = BackupStatus { bad_pages: 4, wal_waiting, wal_service: Some(account), ..crate::api::backup_status::tests::well() };
        let backup = Some(backup);
        let values = values(&NodeStatus { backup, ..seen_by("orders-1") });
        for (name, value) in [
            ("spilo_backups", "3"),
            ("spilo_last_backup_time", "1794989200"),
            ("spilo_last_proven_restore_time", "1794827200"),
            ("spilo_recovery_seconds", "95"),
            ("spilo_backup_bad_pages", "4"),
            ("spilo_wal_waiting_files", "2"),
            ("spilo_wal_waiting_bytes", "2097152"),
            ("spilo_wal_waiting_since_time", "1795323600"),
            ("spilo_wal_disk_full_time", "1797170400"),
            ("spilo_backup_overdue", "0"),
            ("spilo_wal_conflicts", "1"),
            ("spilo_wal_archived_total", "7"),
            ("spilo_wal_archived_bytes_total", "70"),
            ("spilo_wal_archive_failures_total", "2"),
            ("spilo_wal_fetched_total", "5"),
            ("spilo_wal_fetched_bytes_total", "50"),
        ] {
            assert_eq!(values[name], value, "{name}");
        }
        // A service that does not say what it has done has not done nothing.
        let silent = NodeStatus { backup: Some(crate::api::backup_status::tests::well()), ..seen_by("orders-1") };
        assert!(!metrics(&silent, Moment(1000)).contains("spilo_wal_archived_total"));
    }

    #[test]
    fn labels_cannot_end_themselves() {
        assert_eq!(escaped("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }
}
