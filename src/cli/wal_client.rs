//! `spilo wal push %p %f` and `spilo wal fetch %f %p`, as PostgreSQL runs them for each segment: a question to the resident service. This
//! comes before the command line is parsed and before there is a log or a runtime, because the whole process should take no longer than
//! PostgreSQL takes to start it.

use std::{
    env,
    ffi::{OsStr, OsString},
    io::Write,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use super::commands::wal::no_answer;
use crate::{
    backup::{
        wal_silence::is_never_there,
        wal_wire::{self, Answer, Request, exchange},
    },
    model::WalFile,
};

/// The service answers sooner, whatever the store does: one that does not has stopped.
const LONGEST_ANSWER: Duration = Duration::from_secs(90);

/// For so long a recovery that nobody else continues waits for a service that is not there. Its agent starts it again within seconds.
const SERVICE_MAY_TAKE: Duration = Duration::from_secs(30);

/// How long between two attempts to reach it.
const PAUSE: Duration = Duration::from_millis(200);

/// What PostgreSQL wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Errand {
    /// Restore rather than archive.
    pub fetch: bool,
    /// The file's name: `%f`.
    pub name: OsString,
    /// Where it is, or is wanted: `%p`.
    pub path: PathBuf,
    /// The service's socket, if it is not beside the data directory.
    pub socket: Option<PathBuf>,
}

impl Errand {
    /// Reads it off the command line. `None`: that is no such command, or not in this plain form; then it is parsed in full.
    pub fn find(arguments: &[OsString]) -> Option<Errand> {
        let [_, wal, verb, rest @ ..] = arguments else { return None };
        let fetch = match (wal.to_str()?, verb.to_str()?) {
            ("wal", "push") => false,
            ("wal", "fetch") => true,
            _ => return None,
        };
        let (socket, words) = match rest {
            [option, socket, words @ ..] if option == "--socket" => (Some(PathBuf::from(socket)), words),
            words => (None, words),
        };
        let [first, second] = words else { return None };
        if [first, second].iter().any(|word| word.as_encoded_bytes().starts_with(b"-")) {
            return None;
        }
        let (name, path) = if fetch { (first, second) } else { (second, first) };
        Some(Errand { fetch, name: name.clone(), path: path.into(), socket })
    }

    /// Runs it; the result is what the process ends with. No way leads to a code above 125 for a push, which would end PostgreSQL's archiver.
    pub fn run(&self) -> u8 {
        if self.fetch && self.file().is_some_and(is_never_there) {
            return 1;
        }
        let data = data_dir(&self.path);
        let began = Instant::now();
        loop {
            let why = match self.ask(&data) {
                Ok(Answer::Done) => return 0,
                Ok(Answer::Absent) if self.fetch => return 1,
                Ok(Answer::Again(why)) => return self.unanswered(&data, &why),
                Ok(_) => return self.unanswered(&data, "the WAL service gave an answer to something else"),
                Err(why) => why,
            };
            // PostgreSQL asks again by itself, except when it recovers on its own.
            let goes_on_alone = self.fetch && no_answer(&data, self.file()).0 > 1;
            if !goes_on_alone || began.elapsed() > SERVICE_MAY_TAKE {
                return self.unanswered(&data, &why);
            }
            sleep(PAUSE);
        }
    }

    fn file(&self) -> Option<WalFile> {
        self.name.to_str()?.parse().ok()
    }

    fn ask(&self, data: &Path) -> Result<Answer, String> {
        let name = self.name.to_str().ok_or("the file's name is no text")?.to_owned();
        let here = env::current_dir().map_err(|error| format!("the working directory cannot be found: {error}"))?;
        let path = here.join(&self.path);
        let request = if self.fetch { Request::Fetch(name, path) } else { Request::Push(name, path) };
        let line = request.line().ok_or_else(|| format!("'{}' cannot be asked for", self.path.display()))?;
        exchange(&connect(data, self.socket.as_deref())?, &line, LONGEST_ANSWER)
    }

    fn unanswered(&self, data: &Path, why: &str) -> u8 {
        // PostgreSQL's log may be gone: nothing is to be done about that.
        let _ = writeln!(std::io::stderr(), "'{}': {why}", self.name.display());
        if self.fetch { no_answer(data, self.file()).0 } else { 1 }
    }
}

/// How the archive of the data directory fares, as JSON.
pub fn state(data: &Path, socket: Option<&Path>) -> Result<String, String> {
    let line = Request::Status.line().ok_or("the question has no line")?;
    match exchange(&connect(data, socket)?, &line, LONGEST_ANSWER)? {
        Answer::Status(state) => Ok(state),
        _ => Err("the WAL service gave an answer to something else".to_owned()),
    }
}

fn connect(data: &Path, socket: Option<&Path>) -> Result<UnixStream, String> {
    let reached = match socket {
        Some(socket) => UnixStream::connect(socket).map_err(|error| (socket, error)),
        None => wal_wire::connect(data).map_err(|error| (data, error)),
    };
    reached.map_err(|(place, error)| {
        let place = place.canonicalize().unwrap_or_else(|_| place.to_owned());
        format!("the WAL service of '{}' cannot be reached: {error}", place.display())
    })
}

/// PostgreSQL runs its commands in the data directory. `pg_rewind` runs them wherever it was started, with a path that leads there.
pub fn data_dir(path: &Path) -> PathBuf {
    let outside = path.parent().filter(|folder| folder.file_name() == Some(OsStr::new("pg_wal"))).and_then(Path::parent);
    match outside {
        Some(data) if !data.as_os_str().is_empty() => data.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(words: &[&str]) -> Option<Errand> {
        Errand::find(&words.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn the_plain_forms_are_known() {
        let errand = |fetch, socket: Option<&str>| Errand {
            fetch,
            name: "000000010000000000000001".into(),
            path: "pg_wal/X".into(),
            socket: socket.map(PathBuf::from),
        };
        assert_eq!(find(&["spilo", "wal", "push", "pg_wal/X", "000000010000000000000001"]), Some(errand(false, None)));
        assert_eq!(find(&["spilo", "wal", "fetch", "000000010000000000000001", "pg_wal/X"]), Some(errand(true, None)));
        let by_name = ["spilo", "wal", "fetch", "--socket", "/s", "000000010000000000000001", "pg_wal/X"];
        assert_eq!(find(&by_name), Some(errand(true, Some("/s"))));
    }

    #[test]
    fn all_others_are_parsed_in_full() {
        for words in [
            &["spilo", "wal", "push", "--store", "/s", "--cluster", "x", "p", "f"][..],
            &["spilo", "wal", "push", "--help"],
            &["spilo", "wal", "push", "p", "-v"],
            &["spilo", "-v", "wal", "push", "p", "f"],
            &["spilo", "wal", "init", "a", "b"],
            &["spilo", "wal", "push", "p", "f", "x"],
            &["spilo"],
        ] {
            assert_eq!(find(words), None, "{words:?}");
        }
    }

    #[test]
    fn the_data_directory_is_where_the_file_is_wanted() {
        assert_eq!(data_dir(Path::new("pg_wal/RECOVERYXLOG")), Path::new("."));
        assert_eq!(data_dir(Path::new("/data/x/pg_wal/RECOVERYXLOG")), Path::new("/data/x"));
        assert_eq!(data_dir(Path::new("/tmp/somewhere")), Path::new("."));
    }

    #[test]
    fn without_a_service_a_push_is_to_be_asked_again_and_a_standby_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pg_wal/RECOVERYXLOG");
        let code = |fetch| Errand { fetch, name: "000000010000000000000001".into(), path: path.clone(), socket: None }.run();
        assert_eq!(code(false), 1);
        std::fs::write(dir.path().join("standby.signal"), "").unwrap();
        assert_eq!(code(true), 1);
    }
}
