//! Child processes: run with a time limit, output captured, nothing left behind.

use std::{path::PathBuf, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt},
    process::Command,
};

/// A command that could not be run, failed, or took too long.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The program could not be started.
    #[error("cannot run '{program}'")]
    Start {
        /// The program's path.
        program: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It ended with something other than success.
    #[error("'{program}' failed ({status}): {output}")]
    Failed {
        /// The program's path.
        program: String,
        /// Exit code or signal.
        status: String,
        /// The last lines of what it printed.
        output: String,
    },
    /// It did not end in time and was killed.
    #[error("'{program}' did not end within {limit:?} and was killed")]
    TimedOut {
        /// The program's path.
        program: String,
        /// The limit.
        limit: Duration,
    },
}

/// How long the last lines of a program that has ended are waited for.
const LAST_LINES: Duration = Duration::from_millis(100);

/// One command to run to its end.
#[derive(Debug, Clone)]
pub struct Run {
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    input: Option<String>,
    limit: Duration,
    directory: Option<PathBuf>,
    withheld: Option<&'static str>,
}

impl Run {
    /// A command with a limit of one minute.
    pub fn new(program: impl Into<PathBuf>) -> Run {
        Run {
            program: program.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            input: None,
            limit: Duration::from_secs(60),
            directory: None,
            withheld: None,
        }
    }

    /// Appends one argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<String>) -> Run {
        self.arguments.push(argument.into());
        self
    }

    /// Appends arguments.
    #[must_use]
    pub fn args<I: IntoIterator<Item = S>, S: Into<String>>(mut self, arguments: I) -> Run {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable (never a secret: other users can read it).
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Run {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Keeps the variables of our own environment from it whose names begin like this.
    #[must_use]
    pub fn without_env(mut self, prefix: &'static str) -> Run {
        self.withheld = Some(prefix);
        self
    }

    /// Text for its standard input.
    #[must_use]
    pub fn input(mut self, text: impl Into<String>) -> Run {
        self.input = Some(text.into());
        self
    }

    /// The directory it runs in, if not the agent's.
    #[must_use]
    pub fn current_dir(mut self, directory: impl Into<PathBuf>) -> Run {
        self.directory = Some(directory.into());
        self
    }

    /// How long it may take.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Run {
        self.limit = limit;
        self
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments);
        if let Some(prefix) = self.withheld {
            let ours = std::env::vars_os().map(|(name, _)| name);
            ours.filter(|name| name.to_string_lossy().starts_with(prefix)).for_each(|name| {
                command.env_remove(name);
            });
        }
        command.envs(self.environment.iter().map(|(k, v)| (k.as_str(), v.as_str())));
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        command.stdin(if self.input.is_some() { Stdio::piped() } else { Stdio::null() }).process_group(0).kill_on_drop(true);
        // SAFETY: one async-signal-safe system call without allocation.
        unsafe { command.pre_exec(die_with_parent) };
        command
    }

    /// Runs it and hands each line that it prints, on standard output or standard error, to `said` as it comes. Dropping the future kills
    /// the child together with its group; what a child that has ended left running goes on.
    pub async fn lines(self, mut said: impl FnMut(&str)) -> Result<(), ProcessError> {
        let program = self.program.display().to_string();
        let fail = |source| ProcessError::Start { program: program.clone(), source };
        let (reader, writer) = std::io::pipe().map_err(fail)?;
        let reader = tokio::net::unix::pipe::Receiver::from_owned_fd(reader.into()).map_err(fail)?;
        let mut command = self.command();
        command.stdout(writer.try_clone().map_err(fail)?).stderr(writer);
        let mut child = command.spawn().map_err(fail)?;
        // The command holds our ends of the pipe.
        drop(command);
        let group = child.id().map(Group);
        let mut reader = tokio::io::BufReader::new(reader);
        let listen = async {
            // PostgreSQL names things in the encoding that they were named in.
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).await.is_ok_and(|length| length > 0) {
                said(String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']));
                line.clear();
            }
        };
        let story = async {
            tokio::pin!(listen);
            let ended = tokio::select! {
                ended = child.wait() => Some(ended),
                () = &mut listen => None,
            };
            match ended {
                // What it left running may hold the pipe: only what is there already is waited for.
                Some(ended) => {
                    let _ = tokio::time::timeout(LAST_LINES, listen).await;
                    ended
                }
                None => child.wait().await,
            }
        };
        let Ok(ended) = tokio::time::timeout(self.limit, story).await else {
            drop(group);
            return Err(ProcessError::TimedOut { program, limit: self.limit });
        };
        std::mem::forget(group);
        let status = ended.map_err(fail)?;
        if status.success() {
            Ok(())
        } else {
            Err(ProcessError::Failed { program, status: status.to_string(), output: "see above".to_owned() })
        }
    }

    /// Runs it and returns what it printed on standard output. Dropping the future kills the child together with its group.
    pub async fn output(self) -> Result<String, ProcessError> {
        let program = self.program.display().to_string();
        let mut command = self.command();
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|source| ProcessError::Start { program: program.clone(), source })?;
        let group = child.id().map(Group);
        if let (Some(text), Some(mut stdin)) = (self.input, child.stdin.take()) {
            // A child that ends without reading closes the pipe; its exit status tells the story then.
            let _ = stdin.write_all(text.as_bytes()).await;
        }
        let waited = tokio::time::timeout(self.limit, child.wait_with_output()).await;
        let Ok(ended) = waited else {
            drop(group);
            return Err(ProcessError::TimedOut { program, limit: self.limit });
        };
        std::mem::forget(group);
        let output = ended.map_err(|source| ProcessError::Start { program: program.clone(), source })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
        Err(ProcessError::Failed { program, status: output.status.to_string(), output: last_lines(&String::from_utf8_lossy(said), 6) })
    }
}

/// Nobody is left to stop a program whose agent was killed: it would write to a directory that the next agent believes to own.
fn die_with_parent() -> std::io::Result<()> {
    Ok(rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?)
}

/// A process group that is killed when this is dropped: pg_basebackup and pg_rewind have children of their own, and one that outlived a
/// cancelled clone would later write into the next one's directory.
struct Group(u32);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.0).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        }
    }
}

/// The last `count` non-empty lines, joined by ` | `.
pub fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    #[test]
    fn what_it_prints_comes_back() {
        assert_eq!(block(Run::new("cat").input("hello").output()).unwrap(), "hello");
    }

    #[test]
    fn lines_come_from_both_outputs_and_nobody_waits_for_what_was_left_running() {
        let mut said = Vec::new();
        let begun = std::time::Instant::now();
        block(Run::new("sh").args(["-c", "echo one; echo two >&2; sleep 3 &"]).lines(|line| said.push(line.to_owned()))).unwrap();
        assert_eq!(said, ["one", "two"]);
        assert!(begun.elapsed() < Duration::from_secs(2));
        assert!(block(Run::new("false").lines(|_| {})).is_err());
        let mut said = Vec::new();
        block(Run::new("sh").args(["-c", r"printf 'one\n\337\ntwo'"]).lines(|line| said.push(line.to_owned()))).unwrap();
        assert_eq!(said, ["one", "\u{fffd}", "two"], "a letter of another encoding is no end");
    }

    #[test]
    fn a_program_does_not_see_what_is_kept_from_it() {
        let mut said = Vec::new();
        block(Run::new("sh").args(["-c", "echo \"<$HOME>\""]).without_env("HOM").lines(|line| said.push(line.to_owned()))).unwrap();
        assert_eq!(said, ["<>"]);
    }

    #[test]
    fn a_failure_carries_its_last_words() {
        let error = block(Run::new("sh").args(["-c", "echo first; echo oops >&2; exit 3"]).output()).unwrap_err().to_string();
        assert!(error.contains("oops") && error.contains('3'), "{error}");
    }

    #[test]
    fn one_that_takes_too_long_is_killed_with_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("mark");
        let script = format!("(sleep 1; touch {}) & wait", mark.display());
        let run = Run::new("sh").args(["-c", &script]).limit(Duration::from_millis(100));
        assert!(matches!(block(run.output()), Err(ProcessError::TimedOut { .. })));
        std::thread::sleep(Duration::from_millis(1300));
        assert!(!mark.exists(), "a grandchild survived");
    }
}
