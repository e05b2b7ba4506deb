//! Runs the binary with nothing of the machine's environment, and with an engine that is not there.

use std::{
    io::Write as _,
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

/// Runs `spilo` with these arguments in this directory; that is on its standard input.
pub fn spilo_reads(directory: &Path, input: &str, arguments: &[&str]) -> Run {
    let mut command = command(arguments);
    command.current_dir(directory).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = command.spawn().expect("the binary was built for this test");
    // One that refuses its arguments reads nothing.
    let _ = running.stdin.take().expect("it was asked for").write_all(input.as_bytes());
    Run::of(&running.wait_with_output().expect("it is our own child"))
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
