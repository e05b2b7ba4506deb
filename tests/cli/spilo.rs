//! Runs the binary with nothing of the machine's environment, and with an engine that is not there.

use std::{
    path::PathBuf,
    process::{Command, Output, Stdio},
};

/// Where no Docker engine listens.
pub const NO_ENGINE: &str = "unix:///nowhere/docker.sock";

/// What a run came to.
pub struct Run {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    /// The run, if it ended with this code; shows everything when it did not.
    #[track_caller]
    pub fn exits(self, code: i32) -> Run {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// The run, if its standard error has this text.
    #[track_caller]
    pub fn says(self, text: &str) -> Run {
        assert!(self.stderr.contains(text), "expected '{text}' in:\n{}", self.stderr);
        self
    }

    /// The run, if its standard output has this text.
    #[track_caller]
    pub fn prints(self, text: &str) -> Run {
        assert!(self.stdout.contains(text), "expected '{text}' in:\n{}", self.stdout);
        self
    }
}

/// Runs `spilo` with these arguments.
pub fn spilo(arguments: &[&str]) -> Run {
    let output = command(arguments).output().expect("the binary was built for this test");
    finished(&output)
}

/// Runs `spilo` with these arguments and an environment variable more.
pub fn spilo_with(variable: &str, value: &str, arguments: &[&str]) -> Run {
    let output = command(arguments).env(variable, value).output().expect("the binary was built for this test");
    finished(&output)
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

fn finished(output: &Output) -> Run {
    Run {
        code: output.status.code().expect("no signal ended it"),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A file of this repository.
pub fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}
