//! `spilo restore` and the options that say where recovery ends: what is refused before anybody is asked.

use std::fs;

use crate::spilo::{repository, spilo, spilo_in};

#[test]
fn a_cluster_is_not_restored_under_its_own_name() {
    let run = spilo(&["restore", "orders", "--from", "orders", "--at", "2026-11-21T20:45:00Z"]).exits(6);
    run.says("'orders' cannot be begun with a backup of itself under its own name")
        .says("spilo restore orders-2 --from orders")
        .says("--delta");
    spilo(&["restore", "orders"]).exits(2).says("--from <OLD>");
}

#[test]
fn where_recovery_ends_is_checked_wherever_it_is_said() {
    let restore = ["restore", "trial", "--from", "orders"];
    let create = ["create", "cluster", "trial", "--clone-from", "orders"];
    for (wrong, told) in [
        (&["--at", "2026-11-21 20:45:00"][..], "time zone"),
        (&["--at", "yesterday"], "'yesterday'"),
        (&["--lsn", "16B3748"], "'16B3748'"),
        (&["--xid", "2"], "'2'"),
        (&["--restore-point", ""], "restore point"),
        (&["--timeline", "newest"], "'newest'"),
        (&["--backup", "newest"], "'newest'"),
        (&["--at", "2026-11-21T20:45:00Z", "--lsn", "0/16B3748"], "cannot be used with"),
        (&["--immediate", "--name", "x"], "cannot be used with"),
        (&["--exclusive"], "--exclusive"),
        (&["--exclusive", "--immediate"], "cannot be used with"),
    ] {
        spilo(&[&restore[..], wrong].concat()).exits(2).says(told);
        spilo(&[&create[..], wrong].concat()).exits(2).says(told);
    }
}

#[test]
fn what_is_fine_gets_as_far_as_the_engine() {
    for fine in [
        &["--at", "2026-11-21 20:45:00+01", "--exclusive", "--timeline", "current"][..],
        &["--lsn", "0/16B3748", "--timeline", "2"],
        &["--xid", "742", "--nodes", "1"],
        &["--name", "before", "--plan"],
        &["--immediate", "--backup", "20261121T204500Z-1a2b3c4d"],
    ] {
        spilo(&[&["restore", "trial", "--from", "orders"], fine].concat()).exits(1).says("/nowhere/docker.sock");
    }
}

#[test]
fn a_moment_without_a_backup_to_begin_with_means_nothing() {
    for aimless in
        [&["--at", "2026-11-21T20:45:00Z"][..], &["--immediate"], &["--timeline", "latest"], &["--backup", "20261121T204500Z-1a2b3c4d"]]
    {
        spilo(&[&["create", "cluster", "trial"], aimless].concat()).exits(2).says("--clone-from CLUSTER");
    }
}

#[test]
fn whose_backup_is_said_in_one_place() {
    let file = repository("examples/restored.yaml");
    let file = file.to_str().expect("a path in words");
    spilo(&["create", "cluster", "-f", file, "--clone-from", "orders"]).exits(2).says("'clone_from'");
    spilo(&["create", "cluster", "-f", file, "--at", "2026-11-21T20:45:00Z"]).exits(2);
    spilo(&["restore", "trial", "--from", "orders", "-f", file]).exits(2).says("spilo create cluster -f");
    spilo(&["create", "cluster", "-f", file, "--plan"]).exits(1).says("/nowhere/docker.sock");
}

#[test]
fn a_directory_is_not_touched_to_find_out_whether_a_moment_can_be_reached() {
    let outer = tempfile::tempdir().expect("a directory of our own");
    fs::create_dir(outer.path().join("store")).expect("a directory of our own");
    spilo_in(outer.path(), &["wal", "init", "--store", "store"]).exits(0);
    let asked = ["backup", "restore", "pg", "--plan", "--store", "store", "--cluster", "orders", "--restore-point", "before"];
    spilo_in(outer.path(), &asked).exits(4).says("no backup of 'orders'");
    assert!(!outer.path().join("pg").exists());
}
