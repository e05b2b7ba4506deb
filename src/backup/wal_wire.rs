//! What PostgreSQL's commands and the resident WAL service say to each other over its socket: one line each way. Only the standard library
//! is used, because each archived segment starts a process that runs this and hardly anything else.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::AsRawFd,
        unix::{
            ffi::{OsStrExt, OsStringExt},
            fs::OpenOptionsExt,
            net::UnixStream,
        },
    },
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::OFlags;

/// What the socket's name adds to that of the data directory, beside which it lies.
pub const SOCKET: &str = ".archive.sock";

/// The longest line of a request.
pub const LONGEST: usize = 8192;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Archive the file of this name.
    Push(String, PathBuf),
    /// Restore the file of this name to this place.
    Fetch(String, PathBuf),
    /// Tell how it goes.
    Status,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The file is durable in the archive, or where it was asked for.
    Done,
    /// The archive has no such file: the store said so.
    Absent,
    /// Nobody knows yet, for this reason: ask again.
    Again(String),
    /// How it goes, as JSON.
    Status(String),
}

impl Request {
    /// The line, with its end. `None`: a name or a path with a line break in it cannot be asked for.
    pub fn line(&self) -> Option<Vec<u8>> {
        let (verb, name, path) = match self {
            Request::Push(name, path) => ("push", name, path),
            Request::Fetch(name, path) => ("fetch", name, path),
            Request::Status => return Some(b"status\n".to_vec()),
        };
        let mut line = format!("{verb} {name} ").into_bytes();
        line.extend_from_slice(path.as_os_str().as_bytes());
        let fits = !line.contains(&b'\n') && !name.contains(' ') && line.len() < LONGEST;
        line.push(b'\n');
        fits.then_some(line)
    }

    /// Reads a line without its end.
    pub fn parse(line: &[u8]) -> Option<Request> {
        let mut parts = line.splitn(3, |byte| *byte == b' ');
        let verb = parts.next()?;
        if verb == b"status" {
            return Some(Request::Status);
        }
        let name = String::from_utf8(parts.next()?.to_vec()).ok()?;
        let path = PathBuf::from(OsStr::from_bytes(parts.next()?));
        match verb {
            b"push" => Some(Request::Push(name, path)),
            b"fetch" => Some(Request::Fetch(name, path)),
            _ => None,
        }
    }
}

impl Answer {
    /// The line, with its end.
    pub fn line(&self) -> String {
        let (word, text) = match self {
            Answer::Done => ("done", ""),
            Answer::Absent => ("absent", ""),
            Answer::Again(why) => ("again", why.as_str()),
            Answer::Status(json) => ("status", json.as_str()),
        };
        format!("{word} {}\n", text.replace(['\n', '\r'], " "))
    }

    /// Reads a line. `None`: it is none, or not all of one, as after a service that died while it answered.
    pub fn parse(line: &str) -> Option<Answer> {
        let (word, text) = line.strip_suffix('\n')?.split_once(' ')?;
        match word {
            "done" => Some(Answer::Done),
            "absent" => Some(Answer::Absent),
            "again" => Some(Answer::Again(text.to_owned())),
            "status" => Some(Answer::Status(text.to_owned())),
            _ => None,
        }
    }
}

/// The socket of the data directory, which need not be there yet: both sides take symbolic links out of the path, so both find the same.
pub fn socket_of(data_dir: &Path) -> std::io::Result<PathBuf> {
    let mut name = resolved(data_dir)?.into_os_string().into_vec();
    name.extend_from_slice(SOCKET.as_bytes());
    Ok(PathBuf::from(std::ffi::OsString::from_vec(name)))
}

/// Reaches the service of the data directory. The socket's path may be longer than the 107 bytes that an address has room for: by way of the
/// directory that it lies in it is short.
///
/// # Errors
/// When nobody listens there.
pub fn connect(data_dir: &Path) -> io::Result<UnixStream> {
    let socket = socket_of(data_dir)?;
    let (Some(parent), Some(name)) = (socket.parent(), socket.file_name()) else {
        return Err(io::Error::other("it is no data directory"));
    };
    let folder = File::options().read(true).custom_flags(OFlags::PATH.bits().cast_signed()).open(parent)?;
    UnixStream::connect(Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name))
}

/// Says one line to the service and hears its answer. `limit`: how long each step of that may take.
///
/// # Errors
/// In words, when it does not answer.
pub fn exchange(mut stream: &UnixStream, line: &[u8], limit: Duration) -> Result<Answer, String> {
    let lost = |error: io::Error| format!("the WAL service did not answer: {error}");
    stream.set_read_timeout(Some(limit)).and_then(|()| stream.set_write_timeout(Some(limit))).map_err(lost)?;
    stream.write_all(line).map_err(lost)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(lost)?;
    Answer::parse(&answer).ok_or_else(|| "the WAL service ended before it had answered".to_owned())
}

/// The path without symbolic links.
pub fn resolved(data_dir: &Path) -> std::io::Result<PathBuf> {
    match data_dir.canonicalize() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let missing = || std::io::Error::new(std::io::ErrorKind::InvalidInput, "it is no path of a directory");
            let (parent, name) = (data_dir.parent().ok_or_else(missing)?, data_dir.file_name().ok_or_else(missing)?);
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            Ok(parent.canonicalize()?.join(name))
        }
        found => found,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_understand_each_other() {
        let path = PathBuf::from(OsStr::from_bytes(b"/data dir/\xff/pg_wal/RECOVERYXLOG"));
        for request in [Request::Push("A".to_owned(), path.clone()), Request::Fetch("B".to_owned(), path), Request::Status] {
            let line = request.line().unwrap();
            assert_eq!(Request::parse(line.strip_suffix(b"\n").unwrap()), Some(request));
        }
        for answer in [Answer::Done, Answer::Absent, Answer::Again("a b".to_owned()), Answer::Status("{}".to_owned())] {
            assert_eq!(Answer::parse(&answer.line()), Some(answer));
        }
    }

    #[test]
    fn half_an_answer_is_none() {
        for text in ["", "done", "done ", "absen", "\n", "what \n"] {
            assert_eq!(Answer::parse(text), None, "{text:?}");
        }
        assert_eq!(Answer::parse(&Answer::Again("two\nlines".to_owned()).line()), Some(Answer::Again("two lines".to_owned())));
        assert_eq!(Request::Push("A".to_owned(), "a\nb".into()).line(), None);
        assert_eq!(Request::parse(b"push A"), None);
    }

    #[test]
    fn a_data_directory_has_its_socket_before_it_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let (data, link) = (dir.path().join("data"), dir.path().join("link"));
        let before = socket_of(&data).unwrap();
        std::fs::create_dir(&data).unwrap();
        std::os::unix::fs::symlink(&data, &link).unwrap();
        assert_eq!((socket_of(&data).unwrap(), socket_of(&link).unwrap()), (before.clone(), before));
    }
}
