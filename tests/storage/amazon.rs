//! What goes to Amazon only: a program that believes to speak with it, through a proxy that is a server of ours.

use std::process::{Command, Output};

use crate::s3::{KEY, S3Double, SECRET, Settings, Verb};

fn spilo(double: &S3Double, arguments: &[&str]) -> Output {
    let command = Command::new(env!("CARGO_BIN_EXE_spilo"))
        .args(arguments)
        .args(["--store-endpoint", "http://s3.us-east-1.amazonaws.com", "--store-region", "us-east-1"])
        .arg("--store-credentials")
        .arg(double.credentials_file())
        .env_clear()
        .env("HTTP_PROXY", double.endpoint())
        .output();
    command.expect("spilo runs")
}

#[test]
fn amazon_gets_a_checksum_with_each_write_and_holds_each_read_against_it() {
    let double = S3Double::start_with(Settings { checksums: true, ..Settings::default() });
    let run = spilo(&double, &["wal", "init", "--store", "s3://backups/prod"]);
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    assert_eq!(double.names(), ["prod/spilo-store"]);
    assert!(double.requests(Verb::Put) > 20, "and of many writers one won");
}

#[test]
fn at_the_highest_level_of_the_log_no_credentials_are_in_it() {
    let double = S3Double::start_with(Settings { checksums: true, ..Settings::default() });
    let run = spilo(&double, &["-vvv", "wal", "init", "--store", "s3://backups/prod"]);
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success() && said.contains("TRACE"), "{said}");
    assert!(!said.contains(SECRET) && !said.contains(KEY), "{said}");
}
