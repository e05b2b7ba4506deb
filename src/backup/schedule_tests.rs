//! The schedule as a table of cases.

use super::*;

const NOW: i64 = 1_795_000_000;
const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

fn at(seconds_ago: i64) -> Timestamp {
    Timestamp::from_second(NOW - seconds_ago).unwrap()
}

fn id(seconds_ago: i64) -> BackupId {
    BackupId::new(at(seconds_ago), 7)
}

/// A full one that was read a minute later and restored an hour later, if that long ago.
fn backup(seconds_ago: i64) -> SeenBackup {
    let read = (seconds_ago > 60).then(|| at(seconds_ago - 60));
    let restored = (seconds_ago > HOUR).then(|| at(seconds_ago - HOUR));
    let complete = at(seconds_ago);
    SeenBackup {
        id: id(seconds_ago),
        complete,
        full: true,
        read,
        proven: read.is_some(),
        bad_pages: 0,
        broken: false,
        restored,
        not_restored: None,
    }
}

fn node(name: &str, leads: bool, lag: u64) -> Node {
    Node { name: name.to_owned(), leads, streams: !leads, lag: (!leads).then_some(lag) }
}

/// Three nodes of which the first leads, as the second sees them.
fn seen(backups: Vec<SeenBackup>) -> Seen {
    Seen {
        backups,
        me: "orders-2".to_owned(),
        nodes: vec![node("orders-1", true, 0), node("orders-2", false, 0), node("orders-3", false, 0)],
        room: true,
        expired: None,
        since: at(10 * DAY),
        failures: BTreeMap::new(),
    }
}

fn seen_by(me: &str, backups: Vec<SeenBackup>) -> Seen {
    Seen { me: me.to_owned(), ..seen(backups) }
}

fn told(seen: &Seen) -> String {
    told_with(seen, &BackupPolicy::default())
}

/// The job, or how long to wait.
fn told_with(seen: &Seen, policy: &BackupPolicy) -> String {
    match next(seen, policy, at(0)) {
        Next::Do(job) => job.to_string(),
        Next::Wait(until) => format!("wait {} s", until.as_second() - NOW),
    }
}

#[test]
fn the_first_backup_is_taken_at_once_and_by_the_first_replica() {
    for (me, since, expected) in [
        ("orders-2", 0, "full backup"),
        ("orders-3", 0, "wait 300 s"),
        ("orders-3", 600, "full backup"),
        ("orders-1", 600, "wait 300 s"),
        ("orders-1", 1200, "full backup"),
    ] {
        let mut seen = seen_by(me, vec![]);
        seen.since = at(since);
        assert_eq!(told(&seen), expected, "{me} after {since} s");
    }
}

#[test]
fn backups_follow_each_other_a_day_apart_and_one_a_week_is_full() {
    let incremental = |ago| SeenBackup { full: false, ..backup(ago) };
    for (backups, expected) in [
        (vec![backup(23 * HOUR)], "wait 300 s"),
        (vec![backup(DAY)], "backup"),
        (vec![backup(6 * DAY), incremental(DAY)], "backup"),
        (vec![backup(7 * DAY), incremental(DAY)], "full backup"),
        (vec![incremental(DAY)], "full backup"),
        (vec![SeenBackup { broken: true, ..backup(6 * DAY) }, incremental(DAY)], "full backup"),
        (vec![SeenBackup { broken: true, proven: false, ..backup(2 * HOUR) }], "full backup"),
        (vec![SeenBackup { broken: true, proven: false, ..backup(HOUR / 2) }], "wait 300 s"),
    ] {
        assert_eq!(told(&seen(backups.clone())), expected, "{backups:?}");
    }
}

#[test]
fn the_time_to_look_again_is_when_something_is_due() {
    assert_eq!(told(&seen(vec![backup(DAY - 100)])), "wait 100 s");
    assert_eq!(told(&seen_by("orders-3", vec![backup(DAY + 500)])), "wait 100 s", "the second replica begins ten minutes later");
}

#[test]
fn who_is_asked_for_backups_follows_from_role_lag_and_policy() {
    let due = || vec![backup(DAY)];
    let leader = BackupPolicy { from: Source::Leader, ..BackupPolicy::default() };
    assert_eq!(told_with(&seen_by("orders-1", due()), &leader), "backup");
    assert_eq!(told_with(&seen_by("orders-2", due()), &leader), "wait 300 s");
    let mut behind = seen_by("orders-3", due());
    behind.nodes[1].lag = Some(FURTHEST_BEHIND + 1);
    assert_eq!(told(&behind), "backup", "orders-2 is too far behind");
    behind.nodes[1] = Node { streams: false, ..node("orders-2", false, 0) };
    assert_eq!(told(&behind), "backup", "orders-2 does not stream");
    behind.me = "orders-2".to_owned();
    assert_eq!(told(&behind), "wait 300 s", "and does nothing itself");
    let mut leaderless = seen(due());
    leaderless.nodes[0].leads = false;
    assert_eq!(told(&leaderless), "wait 300 s");
    let mut alone = seen_by("orders-1", due());
    alone.nodes.truncate(1);
    alone.expired = Some(at(1));
    assert_eq!(told(&alone), "backup");
    assert_eq!(told(&seen_by("stranger", due())), "wait 300 s");
}

#[test]
fn every_backup_is_read_once_and_then_again_each_week() {
    let unread = |ago| SeenBackup { read: None, proven: false, restored: None, ..backup(ago) };
    let verification = |ago| format!("verification of {}", id(ago));
    for (backups, expected) in [
        (vec![unread(HOUR)], verification(HOUR)),
        (vec![unread(2 * HOUR), unread(HOUR)], verification(HOUR)),
        (vec![unread(2 * HOUR), backup(HOUR)], verification(2 * HOUR)),
        (vec![backup(9 * DAY), backup(8 * DAY), backup(HOUR)], verification(9 * DAY)),
        (vec![backup(6 * DAY), backup(HOUR)], "wait 300 s".to_owned()),
    ] {
        let mut seen = seen(backups.clone());
        seen.backups.last_mut().unwrap().restored = Some(at(60));
        assert_eq!(told(&seen), expected, "{backups:?}");
    }
    let never = BackupPolicy { verify_every: None, drill_every: None, ..BackupPolicy::default() };
    assert_eq!(told_with(&seen(vec![unread(HOUR)]), &never), "wait 300 s");
}

#[test]
fn the_newest_whole_backup_is_restored_each_week_where_there_is_room() {
    let drill = |ago| format!("test restore of {}", id(ago));
    let fresh = |ago| SeenBackup { restored: None, ..backup(ago) };
    let unproven = |ago| SeenBackup { proven: false, read: Some(at(1)), ..fresh(ago) };
    for (backups, room, expected) in [
        (vec![fresh(HOUR)], true, drill(HOUR)),
        (vec![fresh(HOUR)], false, "wait 300 s".to_owned()),
        (vec![fresh(2 * HOUR), unproven(HOUR)], true, drill(2 * HOUR)),
        (vec![unproven(HOUR)], true, "wait 300 s".to_owned()),
        (vec![SeenBackup { restored: Some(at(6 * DAY)), ..fresh(6 * DAY) }, fresh(HOUR)], true, "wait 300 s".to_owned()),
        (vec![SeenBackup { restored: Some(at(7 * DAY)), ..fresh(6 * DAY) }, fresh(HOUR)], true, drill(HOUR)),
        (vec![SeenBackup { proven: false, not_restored: Some(at(HOUR)), ..fresh(2 * HOUR) }], true, "wait 300 s".to_owned()),
        (vec![SeenBackup { proven: false, not_restored: Some(at(DAY)), ..fresh(23 * HOUR) }], true, drill(23 * HOUR)),
        (vec![SeenBackup { bad_pages: 3, ..unproven(HOUR) }], true, drill(HOUR)),
    ] {
        let seen = Seen { room, ..seen(backups.clone()) };
        assert_eq!(told(&seen), expected, "{backups:?}");
    }
}

#[test]
fn only_the_leaders_node_removes_anything_and_only_behind_a_proven_backup() {
    let expiring = |expired| Seen { expired, ..seen_by("orders-1", vec![backup(2 * HOUR)]) };
    assert_eq!(told(&expiring(None)), "expiry");
    assert_eq!(told(&expiring(Some(at(5 * HOUR)))), "wait 300 s");
    assert_eq!(told(&expiring(Some(at(6 * HOUR)))), "expiry");
    assert_eq!(told(&seen(vec![backup(2 * HOUR)])), "wait 300 s");
    let unreadable = BackupPolicy { unreadable: vec!["spilo.backup.window".to_owned()], ..BackupPolicy::default() };
    assert_eq!(told_with(&expiring(None), &unreadable), "wait 300 s");
    assert_eq!(overdue(&expiring(None), &unreadable, at(0)), ["'spilo.backup.window' cannot be read: nothing is removed"]);
    let unproven = Seen { room: false, ..seen_by("orders-1", vec![SeenBackup { proven: false, ..backup(2 * HOUR) }]) };
    assert_eq!(told(&unproven), "wait 300 s");
}

#[test]
fn what_failed_is_tried_again_later_each_time_and_holds_nothing_else_up() {
    for (count, ago, expected) in
        [(1, 299, "wait 1 s"), (1, 300, "backup"), (2, 300, "wait 300 s"), (2, 600, "backup"), (30, 6 * HOUR, "backup")]
    {
        let mut seen = seen(vec![backup(DAY)]);
        seen.failures.insert(Kind::Backup, (count, at(ago)));
        assert_eq!(told(&seen), expected, "{count} times, {ago} s ago");
    }
    let mut seen = seen(vec![SeenBackup { restored: None, ..backup(DAY) }]);
    seen.failures.insert(Kind::Backup, (1, at(1)));
    assert!(told(&seen).starts_with("test restore"));
}

#[test]
fn what_should_have_happened_is_told() {
    let told = |seen: &Seen| overdue(seen, &BackupPolicy::default(), at(0)).join("; ");
    assert_eq!(told(&seen(vec![backup(2 * HOUR)])), "");
    assert_eq!(told(&seen(vec![backup(29 * HOUR)])), "");
    assert_eq!(told(&seen(vec![backup(54 * HOUR)])), "the last backup is 2 d old, and one is due every 1 d");
    assert_eq!(told(&seen(vec![])), "no backup has been made yet");
    assert_eq!(told(&Seen { since: at(HOUR), ..seen(vec![]) }), "");
    assert_eq!(told(&Seen { nodes: vec![node("orders-1", false, 0)], ..seen(vec![]) }), "", "without a leader there is more to see to");
    let unread = SeenBackup { read: None, proven: false, restored: None, ..backup(13 * HOUR) };
    assert_eq!(told(&seen(vec![unread])), format!("backup '{}' has not been verified", id(13 * HOUR)));
    let broken = SeenBackup { broken: true, ..backup(2 * HOUR) };
    assert_eq!(told(&seen(vec![broken, backup(HOUR)])), format!("backup '{}' is damaged", id(2 * HOUR)));
    let failed = SeenBackup { restored: None, not_restored: Some(at(60)), ..backup(2 * HOUR) };
    assert_eq!(told(&seen(vec![failed])), format!("the test restore of backup '{}' failed", id(2 * HOUR)));
    let long_ago = SeenBackup { restored: Some(at(15 * DAY)), ..backup(2 * HOUR) };
    assert_eq!(told(&seen(vec![long_ago])), "the last test restore was 15 d ago, and one is due every 7 d");
    let unrestored = |ago| SeenBackup { restored: None, ..backup(ago) };
    assert_eq!(told(&seen(vec![unrestored(13 * DAY), unrestored(HOUR)])), "");
    let years = seen(vec![unrestored(15 * DAY), unrestored(HOUR)]);
    assert_eq!(told(&years), "no backup has ever been restored for a test, and one is due every 7 d");
    assert!(told(&Seen { room: false, ..years }).ends_with("there is no room here"));
    let never = BackupPolicy { every: None, verify_every: None, drill_every: None, ..BackupPolicy::default() };
    assert_eq!(overdue(&seen(vec![]), &never, at(0)), [""; 0]);
    assert_eq!(overdue(&seen(vec![SeenBackup { proven: false, ..unrestored(3 * DAY) }]), &never, at(0)), [""; 0]);
}

#[test]
fn what_keeps_old_backups_from_going_is_told() {
    let told = |seen: &Seen| overdue(seen, &BackupPolicy::default(), at(0)).join("; ");
    let damaged = SeenBackup { bad_pages: 3, proven: false, ..backup(2 * HOUR) };
    let id = id(2 * HOUR);
    assert_eq!(
        told(&seen(vec![backup(DAY), damaged.clone()])),
        format!("3 damaged pages are in the database, as backup '{id}' has found it: nothing is removed")
    );
    assert_eq!(told(&seen(vec![damaged, backup(HOUR)])), "", "the database was repaired");
    let unproven = |ago| SeenBackup { proven: false, ..backup(ago) };
    assert_eq!(told(&seen(vec![backup(4 * DAY), unproven(49 * HOUR), unproven(HOUR)])), "no backup of the last 2 d has been found whole");
    assert_eq!(told(&seen(vec![backup(7 * DAY), unproven(HOUR)])), "");
    let mut failing = seen(vec![backup(2 * HOUR)]);
    failing.failures.insert(Kind::Expire, (2, at(60)));
    assert_eq!(told(&failing), "");
    failing.failures.insert(Kind::Expire, (3, at(60)));
    assert_eq!(told(&failing), "old backups are not removed: that has failed 3 times");
}
