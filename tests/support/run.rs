//! What a run of `spilo` came to, and what is expected of it.

use std::process::Output;

/// What a run came to.
pub struct Run {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    /// What a process left when it ended.
    pub fn of(output: &Output) -> Run {
        Run {
            code: output.status.code().expect("no signal ended it"),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

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

    /// The run, if its standard error is empty.
    #[track_caller]
    pub fn says_nothing(self) -> Run {
        assert!(self.stderr.is_empty(), "expected nothing, and not:\n{}", self.stderr);
        self
    }

    /// The run, if its standard output has this text.
    #[track_caller]
    pub fn prints(self, text: &str) -> Run {
        assert!(self.stdout.contains(text), "expected '{text}' in:\n{}", self.stdout);
        self
    }
}
