//! `spilo backup`: what is refused before anything is done.

use std::fs;

use crate::{run::Run, spilo::spilo_in};

/// A command about a store in which there is nothing yet.
fn backup(words: &[&str]) -> Run {
    let outer = tempfile::tempdir().expect("a directory of our own");
    fs::create_dir(outer.path().join("store")).expect("a directory of our own");
    spilo_in(outer.path(), &["wal", "init", "--store", "store"]).exits(0);
    let (verb, options) = words.split_at(1);
    spilo_in(outer.path(), &[&["backup"], verb, &["--store", "store", "--cluster", "orders"], options].concat())
}

#[test]
fn whose_backup_and_which_has_to_be_said() {
    let hint = backup(&["pin"]).exits(2).says("which backup?").stderr;
    assert!(hint.contains("spilo backup list --store file:///") && hint.contains(" --cluster orders"), "{hint}");
    backup(&["verify", "20261121T204500Z-1a2b3c4d"]).exits(2);
    backup(&["verify", "--all", "--backup", "20261121T204500Z-1a2b3c4d"]).exits(2);
    backup(&["verify"]).exits(4).says("no backup of 'orders'");
}

#[test]
fn a_grace_in_which_nobody_can_restore_is_refused() {
    backup(&["expire", "--apply", "--grace", "59m"]).exits(6).says("--force");
    for fine in
        [&["expire", "--apply", "--grace", "1h"][..], &["expire", "--apply", "--grace", "0s", "--force"], &["expire", "--grace", "0s"]]
    {
        backup(fine).exits(4).says("no backup of 'orders'");
    }
}

#[test]
fn a_restore_is_not_asked_for_what_means_nothing() {
    for wrong in [
        &["restore", "pg", "--exclusive"][..],
        &["restore", "pg", "--exclusive", "--immediate"],
        &["restore", "pg", "--exclusive", "--name", "before"],
        &["restore", "pg", "--standby", "--keep-archiving"],
    ] {
        backup(wrong).exits(2);
    }
}
