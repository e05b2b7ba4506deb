//! One error type for every command: what kind it is decides the exit code, the hints say what to do next.

/// What went wrong, as far as a script needs to tell it apart. The numbers are documented and stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The operation failed (1).
    Failed,
    /// The command line or the spec is wrong (2).
    Usage,
    /// Waiting took longer than allowed; what was started goes on (3).
    TimedOut,
    /// There is no such cluster or member (4).
    NotFound,
    /// The engine or the platform does not let us (5).
    NotPermitted,
    /// Refused: protection, a lock that is held, an unsafe request (6).
    Refused,
    /// Some of it was done; running the same command again continues (7).
    PartlyApplied,
    /// Interrupted by a signal (130).
    Interrupted,
}

impl ErrorKind {
    /// The process exit code.
    pub fn exit_code(self) -> u8 {
        match self {
            ErrorKind::Failed => 1,
            ErrorKind::Usage => 2,
            ErrorKind::TimedOut => 3,
            ErrorKind::NotFound => 4,
            ErrorKind::NotPermitted => 5,
            ErrorKind::Refused => 6,
            ErrorKind::PartlyApplied => 7,
            ErrorKind::Interrupted => 130,
        }
    }
}

/// Why a command failed: the source's chain is the sentence, each hint is a command or a question.
#[derive(Debug, thiserror::Error)]
#[error("{source}")]
pub struct CommandError {
    /// Decides the exit code.
    pub kind: ErrorKind,
    /// The error itself, with its chain.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
    /// What the user can do next.
    pub hints: Vec<String>,
}

impl CommandError {
    /// An error of `kind` with no hints yet.
    pub fn new(kind: ErrorKind, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> CommandError {
        CommandError { kind, source: source.into(), hints: Vec::new() }
    }

    /// Adds a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> CommandError {
        self.hints.push(hint.into());
        self
    }
}

/// How a command that did not fail ends: mostly 0, but a status has codes of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit(pub u8);

impl Exit {
    /// All went well.
    pub const OK: Exit = Exit(0);
    /// A plan has changes, and `--exit-code` asked to be told.
    pub const CHANGES: Exit = Exit(10);
    /// It was done, but what it was done to is not as it should be.
    pub const DEGRADED: Exit = Exit(20);
}
