//! `spilo agent` with a configuration that cannot be followed.

use serde_json::json;

use crate::spilo::{spilo, spilo_with};

/// A file in Patroni's language that lacks nothing, with `more` in it.
fn file(dir: &tempfile::TempDir, more: &[(&str, serde_json::Value)]) -> String {
    let mut config = json!({
        "scope": "orders", "name": "n1", "etcd3": {"host": "127.0.0.1:1"}, "restapi": {"listen": "127.0.0.1:1"},
        "postgresql": {"listen": "127.0.0.1:1", "data_dir": dir.path().join("data")}
    });
    for (pointer, value) in more {
        let (section, key) = pointer.rsplit_once('/').expect("a pointer");
        config.pointer_mut(section).expect("the section is there")[key] = value.clone();
    }
    let path = dir.path().join("agent.yml");
    std::fs::write(&path, config.to_string()).expect("a directory of our own");
    path.display().to_string()
}

#[test]
fn every_key_that_would_have_no_effect_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let wrong = file(
        &dir,
        &[
            ("/etcd3/password", json!("hunter2")),
            ("/postgresql/custom_conf", json!("/etc/my.conf")),
            ("/postgresql/pre_promot", json!("/fence")),
            ("/watchdog", json!({"mode": "sometimes"})),
        ],
    );
    let run = spilo(&["agent", &wrong]).exits(2).says("4 mistakes in");
    let run = run.says("'etcd3.password' is not supported yet").says("'postgresql.custom_conf' is not supported yet");
    let run = run.says("did you mean 'pre_promote'?").says("'watchdog.mode'");
    assert!(!run.stderr.contains("hunter2"), "{}", run.stderr);
    assert!(!dir.path().join("data").exists());
}

#[test]
fn what_patroni_would_take_from_the_environment_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let run = spilo_with("PATRONI_RESTAPI_PASSWORD", "hunter2", &["agent", &file(&dir, &[])]).exits(2);
    let run = run.says("the environment has 'PATRONI_RESTAPI_PASSWORD'");
    assert!(!run.stderr.contains("hunter2"), "{}", run.stderr);
}
