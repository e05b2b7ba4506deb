use super::*;
use crate::{
    backup::{
        manifest::{Moment, Pack},
        marks::Tomb,
    },
    model::{HistoryLine, Lsn, Timeline},
};

const NOW: i64 = 1_795_000_000;
const DAY: i64 = 86_400;
const SEGMENT: u64 = 16 << 20;

fn days_ago(days: i64) -> Timestamp {
    Timestamp::from_second(NOW - days * DAY).unwrap()
}

fn id(days: i64) -> BackupId {
    BackupId::new(days_ago(days), 7)
}

/// A backup of so many days ago, with one pack of its own and the packs of these others. It begins in the segment of the day.
fn backup(days: i64, others: &[i64]) -> Header {
    let at = |offset| Moment { time: days_ago(days), lsn: Lsn((100 - days.unsigned_abs()) * SEGMENT + offset), timeline: Timeline(1) };
    let pack = |days: &i64| Pack { backup: id(*days), number: 0, size: 10 };
    let packs = [days].iter().chain(others).map(pack).collect();
    Header { start: at(0x28), stop: at(0x100), packs, ..Header::example(id(days)) }
}

/// These backups, all verified, with their packs and a hundred segments of WAL.
fn seen(backups: &[Header]) -> Seen {
    let segment = |number: u32| {
        let file: WalFile = format!("0000000100000000{number:08X}").parse().unwrap();
        (format!("wal/{file}").parse().unwrap(), file, 1000)
    };
    Seen {
        backups: backups.to_vec(),
        proofs: backups.iter().map(|header| (header.id.clone(), Proof { proven: Some(header.stop.time), broken: false })).collect(),
        packs: backups.iter().map(|header| (header.id.clone(), BTreeMap::from([(0, 10)]))).collect(),
        wal: (1..=100).map(segment).collect(),
        ..Seen::default()
    }
}

fn condemned(seen: &mut Seen, days: i64, since_days: i64) {
    seen.marks.tombs.insert(id(days), Tomb { since: days_ago(since_days), why: "test".to_owned() });
}

fn planned(seen: &Seen, keep: usize) -> Plan {
    let policy = Policy { keep, window: None };
    plan(seen, Wish { policy, grace: SignedDuration::from_hours(24), force: false }, Timestamp::from_second(NOW).unwrap())
}

#[test]
fn a_backup_goes_in_two_steps() {
    let mut seen = seen(&[backup(9, &[]), backup(5, &[]), backup(1, &[])]);
    let first = planned(&seen, 2);
    assert_eq!((first.condemn.as_slice(), first.remove.as_slice(), first.packs.len()), (&[id(9)][..], &[][..], 0));
    assert_eq!(first.wal.len(), 90, "what is before the oldest is needed by nobody; what it needs itself stays as long as it does");
    assert_eq!(first.refusals, []);
    condemned(&mut seen, 9, 0);
    let second = planned(&seen, 2);
    assert_eq!((second.wait.as_slice(), second.remove.len(), second.packs.len()), (&[id(9)][..], 0, 0));
    condemned(&mut seen, 9, 1);
    let third = planned(&seen, 2);
    assert_eq!((third.remove.as_slice(), third.packs.as_slice(), third.bury.as_slice()), (&[id(9)][..], &[(id(9), 0)][..], &[id(9)][..]));
    assert_eq!(third.wal.len(), 94);
    assert_eq!(third.bytes, 10 + 94 * 1000);
    seen.backups.remove(0);
    assert_eq!(planned(&seen, 2).packs, [(id(9), 0)], "where the second step was interrupted, it is gone on with");
    seen.packs.remove(&id(9));
    let last = planned(&seen, 2);
    assert_eq!((last.packs.len(), last.bury.as_slice()), (0, &[id(9)][..]));
}

#[test]
fn what_another_backup_has_taken_over_stays_and_goes_with_that() {
    let mut seen = seen(&[backup(9, &[]), backup(5, &[9]), backup(1, &[])]);
    condemned(&mut seen, 9, 2);
    let first = planned(&seen, 2);
    assert_eq!((first.remove.as_slice(), first.packs.len(), first.bury.as_slice()), (&[id(9)][..], 0, &[id(9)][..]));
    seen.backups.remove(0);
    seen.marks.tombs.clear();
    let nothing = planned(&seen, 2);
    assert_eq!((nothing.condemn.len(), nothing.packs.len()), (0, 0));
    seen.backups.remove(0);
    assert_eq!(planned(&seen, 1).condemn, [id(9), id(5)], "now nobody has them");
}

#[test]
fn the_packs_of_an_interrupted_backup_go_when_nobody_has_taken_them_over() {
    let mut seen = seen(&[backup(5, &[]), backup(1, &[])]);
    seen.packs.insert(id(3), BTreeMap::from([(0, 10), (1, 10)]));
    seen.at_work = vec![AtWork { id: id(3), begun: days_ago(3) }];
    assert!(planned(&seen, 2).condemn.is_empty(), "somebody is still at work on it");
    seen.at_work.clear();
    assert_eq!(planned(&seen, 2).condemn, [id(3)]);
    condemned(&mut seen, 3, 2);
    assert_eq!(planned(&seen, 2).packs, [(id(3), 0), (id(3), 1)]);
    seen.backups[1].packs.push(Pack { backup: id(3), number: 1, size: 10 });
    assert_eq!(planned(&seen, 2).packs, [(id(3), 0)], "what the next one has taken over stays");
}

#[test]
fn nothing_goes_under_a_backup_that_was_begun_when_it_could_still_be_taken_over() {
    let mut seen = seen(&[backup(9, &[]), backup(5, &[]), backup(1, &[])]);
    condemned(&mut seen, 9, 2);
    seen.at_work = vec![AtWork { id: id(3), begun: days_ago(3) }];
    let plan_while = planned(&seen, 2);
    assert_eq!((plan_while.wait.as_slice(), plan_while.remove.len(), plan_while.packs.len()), (&[id(9)][..], 0, 0));
    seen.at_work = vec![AtWork { id: id(1), begun: days_ago(2) + SignedDuration::from_mins(50) }];
    assert_eq!(
        planned(&seen, 2).wait,
        [id(9)],
        "one that was begun before the tomb was there, though after its time, may have taken it over"
    );
    seen.at_work = vec![AtWork { id: id(1), begun: days_ago(1) }];
    assert_eq!(planned(&seen, 2).remove, [id(9)], "one that was begun later does not take it over");
}

#[test]
fn a_pinned_backup_stays_with_its_own_wal_alone() {
    let mut seen = seen(&[backup(9, &[]), backup(5, &[]), backup(1, &[])]);
    seen.marks.pins.insert(id(9));
    let plan = planned(&seen, 2);
    assert!(plan.condemn.is_empty());
    let wal: Vec<_> = plan.wal.iter().map(ObjectName::last).collect();
    assert!(!wal.contains(&"00000001000000000000005B"), "segment 91 makes it consistent");
    assert!(wal.contains(&"00000001000000000000005A") && wal.contains(&"00000001000000000000005C"), "90 and 92 are needed by nobody");
    condemned(&mut seen, 9, 2);
    let plan = planned(&seen, 2);
    assert_eq!((plan.reprieve.as_slice(), plan.remove.len(), plan.bury.len()), (&[id(9)][..], 0, 0));
}

#[test]
fn the_newest_backup_keeps_what_came_after_it_though_it_is_pinned() {
    let mut seen = seen(&[backup(9, &[])]);
    seen.marks.pins.insert(id(9));
    assert_eq!(planned(&seen, 1).wal.len(), 90);
}

#[test]
fn doubt_forbids_everything_and_is_told() {
    let sound = seen(&[backup(9, &[]), backup(5, &[]), backup(1, &[])]);
    let refused = |change: &dyn Fn(&mut Seen)| {
        let mut seen = sound.clone();
        change(&mut seen);
        planned(&seen, 2).refusals.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    };
    assert_eq!(refused(&|_| {}), "");
    assert!(refused(&|seen| seen.unreadable.push("'x/manifest' is damaged".to_owned())).contains("'x/manifest'"));
    assert!(refused(&|seen| seen.proofs.retain(|found, _| *found != id(1))).contains(id(1).as_str()));
    let refused_for = |proof: Proof, bad_page_count: u64| {
        refused(&|seen| {
            seen.proofs.extend([(id(1), proof)]);
            seen.backups[2].bad_page_count = bad_page_count;
        })
    };
    assert!(refused_for(Proof::default(), 0).contains("has not been verified"));
    assert!(refused_for(Proof { proven: None, broken: true }, 3).contains("is damaged"));
    assert!(refused_for(Proof::default(), 3).contains("3 pages that were damaged in the database"));
    assert!(refused(&|seen| seen.backups.truncate(1)).is_empty(), "one backup alone is never to go");
    let mut many = seen(&[backup(9, &[]), backup(5, &[]), backup(1, &[])]);
    assert_eq!(planned(&many, 1).refusals, [Refusal::TooMany(2, 3)]);
    condemned(&mut many, 9, 0);
    assert_eq!(planned(&many, 1).refusals, [], "little by little they may");
}

#[test]
fn nothing_goes_while_all_that_stays_was_taken_of_a_server_that_was_given_up() {
    let mut seen = seen(&[backup(9, &[]), backup(5, &[]), backup(1, &[])]);
    let fork = |day: i64| {
        let switch = Lsn((100 - day.unsigned_abs()) * SEGMENT + 0x1000);
        let line = HistoryLine { timeline: Timeline(1), switch, reason: String::new() };
        Some(TimelinePath::new(&[line], Timeline(2)))
    };
    let refused = |seen: &Seen, keep: usize| planned(seen, keep).refusals;
    seen.newest_path = fork(9);
    assert_eq!(refused(&seen, 2), [Refusal::TimelineUnproven(Timeline(2))], "only the one of 9 days ago leads to what is written now");
    seen.newest_path = fork(5);
    assert_eq!(refused(&seen, 2), [], "one that stays leads there");
    seen.proofs.remove(&id(5));
    assert_eq!(refused(&seen, 2), [Refusal::TimelineUnproven(Timeline(2))], "and is not known to be whole");
    seen.newest_path = fork(0);
    assert_eq!(refused(&seen, 2), [], "after an ordinary failover all of them do");
}
