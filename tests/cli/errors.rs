//! How failures end: the documented exit codes, hints, and JSON for programs.

use serde_json::Value;

use crate::spilo::{NO_ENGINE, spilo, spilo_with};

/// Every command that needs the engine.
const ON_THE_ENGINE: &[&[&str]] = &[
    &["create", "cluster", "orders", "--image", "spilo:x"],
    &["apply", "orders"],
    &["plan", "orders"],
    &["status", "orders"],
    &["status", "orders", "-w"],
    &["list"],
    &["connect", "orders"],
    &["dsn", "orders"],
    &["switchover", "orders"],
    &["scale", "orders", "4"],
    &["logs", "orders"],
    &["delete", "cluster", "orders", "--confirm", "orders"],
    &["image", "list"],
];

#[test]
fn without_an_engine_every_command_says_so_and_what_to_do() {
    for arguments in ON_THE_ENGINE {
        let run = spilo(arguments).exits(1).says("the Docker engine does not answer").says(NO_ENGINE).says("hint: ");
        assert_eq!(run.stdout, "", "{arguments:?}");
    }
}

#[test]
fn doctor_without_an_engine_is_a_failed_check_and_not_an_error() {
    spilo(&["doctor"]).exits(1).prints("fail").prints("the Docker engine does not answer");
    let checks: Value = serde_json::from_str(&spilo(&["doctor", "-o", "json"]).exits(1).stdout).unwrap();
    assert_eq!((&checks["kind"], &checks["items"][0]["verdict"]), (&Value::from("CheckList"), &Value::from("bad")));
}

#[test]
fn programs_get_errors_as_one_json_object() {
    let run = spilo(&["status", "orders", "-o", "json"]).exits(1);
    let error: Value = serde_json::from_str(&run.stderr).unwrap_or_else(|why| panic!("{why}:\n{}", run.stderr));
    assert_eq!(error["code"], 1);
    assert!(error["message"].as_str().unwrap().contains("does not answer"));
    assert!(error["hints"][0].as_str().unwrap().contains("docker"));
    assert_eq!(error.as_object().unwrap().len(), 3);
}

#[test]
fn mistakes_on_the_command_line_are_json_too() {
    let run = spilo(&["statsu", "--output=json"]).exits(2);
    let error: Value = serde_json::from_str(&run.stderr).unwrap_or_else(|why| panic!("{why}:\n{}", run.stderr));
    assert_eq!(error["code"], 2);
    assert_eq!(error["message"], "unrecognized subcommand 'statsu'");
    assert!(error["hints"].to_string().contains("'status'"), "{error}");
}

#[test]
fn a_wrong_confirmation_is_refused_before_anything_is_asked() {
    let refused = spilo(&["delete", "cluster", "orders", "--confirm", "order"]).exits(6);
    refused.says("'order' is not the name of cluster 'orders'; nothing was deleted");
}

#[test]
fn a_log_filter_that_is_none_is_a_usage_error() {
    spilo_with("SPILO_LOG", "spilo=loud", &["version"]).exits(2).says("'SPILO_LOG=spilo=loud' is not a log filter");
}

#[test]
fn no_colour_goes_where_no_terminal_is() {
    for arguments in [&["list"][..], &["statsu"], &["list", "--no-color"]] {
        let run = spilo(arguments);
        assert!(!run.stderr.contains('\x1b'), "{:?}", run.stderr);
    }
}

#[test]
fn quiet_and_verbose_exclude_each_other() {
    spilo(&["list", "-q", "-v"]).exits(2).says("cannot be used with");
}

#[test]
fn the_version_is_data_in_every_form() {
    spilo(&["version"]).exits(0).prints(concat!("spilo ", env!("CARGO_PKG_VERSION")));
    let json: Value = serde_json::from_str(&spilo(&["version", "-o", "json"]).exits(0).stdout).unwrap();
    assert_eq!((&json["apiVersion"], &json["kind"]), (&Value::from("spilo/v1"), &Value::from("Version")));
    assert_eq!(json["version"], env!("CARGO_PKG_VERSION"));
    spilo(&["-o", "yaml", "version"]).exits(0).prints("apiVersion: spilo/v1\nkind: Version\n");
}
