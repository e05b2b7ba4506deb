//! What an earlier guard, agent or postmaster has left running: found by the directory it works in, and ended before anything is started.
//! A frozen backend that wakes up would write beside the new server.

use std::{
    fs,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::Path,
    time::Duration,
};

use super::claim::Refusal;
use crate::sys::{clock::Moment, process_table::ProcessTable};

/// Marks every postmaster that a guard has started, in its environment.
pub(super) const MARK: &str = "SPILO_GUARD";

/// How long processes that were killed may take to be gone.
const PATIENCE: Duration = Duration::from_secs(5);

/// Programs of an agent that write to a data directory, besides the server.
const WRITERS: [&str; 3] = ["pg_basebackup", "pg_rewind", "initdb"];

/// Who works on the directory.
#[derive(Debug, Default)]
struct Survey {
    /// A postmaster that no guard has started.
    foreign: Option<i32>,
    /// Processes that have to end.
    leftovers: Vec<i32>,
}

/// Ends what is left on this data directory and returns when it is gone. A server that was started by somebody else is not touched.
pub(super) fn end(processes: &mut ProcessTable, data: &Path) -> Result<(), Refusal> {
    let deadline = Moment::now() + PATIENCE;
    let mut said = false;
    loop {
        let Survey { foreign, leftovers } = survey(processes, data);
        if let Some(pid) = foreign {
            return Err(Refusal::hopeless(format!(
                "a PostgreSQL that this agent did not start (process {pid}) runs on '{}': stop it with 'pg_ctl stop -D {0}', then start the agent",
                data.display()
            )));
        }
        if leftovers.is_empty() {
            return Ok(());
        }
        if !said {
            tracing::warn!("ending what an earlier server or agent has left on '{}': processes {leftovers:?}", data.display());
            said = true;
        }
        leftovers.iter().for_each(|pid| processes.kill_tree(*pid));
        if Moment::now() >= deadline {
            return Err(Refusal::for_now(format!("processes {leftovers:?} of an earlier server on '{}' do not end", data.display())));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn survey(processes: &mut ProcessTable, data: &Path) -> Survey {
    let place = fs::metadata(data).map(|found| (found.dev(), found.ino())).ok();
    let pids: Vec<i32> = processes.all().collect();
    let (mut survey, mut children) = (Survey::default(), Vec::new());
    for pid in pids {
        let program = program(pid);
        if WRITERS.contains(&program.as_str()) && arguments(pid).iter().any(|word| names(word, data)) {
            survey.leftovers.push(pid);
        } else if program == "postgres" && place.is_some() && place == working_directory(pid) {
            match kind(pid) {
                Kind::Child => children.push(pid),
                Kind::Ours => survey.leftovers.push(pid),
                Kind::Foreign => survey.foreign = Some(pid),
            }
        }
    }
    // Those of a postmaster that lives end with it.
    children.retain(|child| !survey.leftovers.iter().chain(&survey.foreign).any(|parent| processes.children(*parent).any(|c| c == *child)));
    survey.leftovers.extend(children);
    survey
}

/// The name of the program that a process runs; empty for what may not be seen.
fn program(pid: i32) -> String {
    let path = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    // After an upgrade the file of a running program is another, or gone.
    name.trim_end_matches(" (deleted)").to_owned()
}

fn working_directory(pid: i32) -> Option<(u64, u64)> {
    fs::metadata(format!("/proc/{pid}/cwd")).map(|found| (found.dev(), found.ino())).ok()
}

fn arguments(pid: i32) -> Vec<Vec<u8>> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect()
}

/// Whether a word of a command line names the directory or one beside it, such as `--pgdata=/data.clone`.
fn names(word: &[u8], data: &Path) -> bool {
    let path = data.as_os_str().as_bytes();
    word.windows(path.len()).any(|part| part == path)
}

enum Kind {
    /// A backend or another process that a postmaster has started.
    Child,
    /// A postmaster that an earlier guard has started.
    Ours,
    /// A postmaster that somebody else has started.
    Foreign,
}

fn kind(pid: i32) -> Kind {
    // Every child of a postmaster gives itself a title that begins like this.
    if arguments(pid).first().is_some_and(|word| word.starts_with(b"postgres: ")) {
        return Kind::Child;
    }
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let marked =
        environment.split(|byte| *byte == 0).any(|entry| entry.starts_with(MARK.as_bytes()) && entry.get(MARK.len()) == Some(&b'='));
    if marked { Kind::Ours } else { Kind::Foreign }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_beside_the_directory_is_recognised() {
        let data = Path::new("/var/lib/spilo/data");
        assert!(names(b"--pgdata=/var/lib/spilo/data.clone", data));
        assert!(!names(b"--pgdata=/var/lib/other", data));
    }

    #[test]
    fn a_directory_that_nobody_works_in_has_no_leftovers() {
        let dir = tempfile::tempdir().unwrap();
        let mut processes = ProcessTable::new().unwrap();
        end(&mut processes, dir.path()).unwrap();
        end(&mut processes, &dir.path().join("missing")).unwrap();
    }
}
