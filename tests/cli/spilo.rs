//! Runs the binary with nothing of the machine's environment, and with an engine that is not there.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::run::Run;

/// Where no Docker engine listens.
pub const NO_ENGINE: &str = "unix:///nowhere/docker.sock";

/// Runs `spilo` with these arguments.
pub fn spilo(arguments: &[&str]) -> Run {
    let output = command(arguments).output().expect("the binary was built for this test");
    Run::of(&output)
}

/// Runs `spilo` with these arguments and an environment variable more.
pub fn spilo_with(variable: &str, value: &str, arguments: &[&str]) -> Run {
    let output = command(arguments).env(variable, value).output().expect("the binary was built for this test");
    Run::of(&output)
}

/// Runs `spilo` with these arguments in this directory.
pub fn spilo_in(directory: &Path, arguments: &[&str]) -> Run {
    let output = command(arguments).current_dir(directory).output().expect("the binary was built for this test");
    Run::of(&output)
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spilo"));
    command
        .args(arguments)
        .env_clear()
        .env("DOCKER_HOST", NO_ENGINE)
        .env("HOME", "/nonexistent")
        .env("COLUMNS", "100")
        .stdin(Stdio::null());
    command
}

/// A file of this repository.
pub fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}
