//! How clients connect: the words of a connection string, and the password file that keeps the password out of it.

use std::{
    fs::{self, DirBuilder},
    io::{self, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{CommandError, ErrorKind, status::Endpoints};
use crate::model::{ClusterName, Secret};

/// The address on which the platform publishes a cluster's ports.
pub const HOST: &str = "127.0.0.1";

/// The role that every new cluster has for applications; its database has the same name.
pub const APPLICATION: &str = "app";

/// Where the password of a connection comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Password {
    /// From a file that libpq reads.
    File(PathBuf),
    /// It is shown, because the user asked for it.
    Shown(Secret),
}

/// One way into a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// Published port.
    pub port: u16,
    /// Where the password comes from.
    pub password: Password,
}

/// A connection as data. The password is there only when the user asked for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConnectionParameters {
    /// Host.
    pub host: &'static str,
    /// Port.
    pub port: u16,
    /// Role.
    pub user: &'static str,
    /// Database.
    pub dbname: &'static str,
    /// File that holds the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passfile: Option<String>,
    /// The password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
}

impl Connection {
    /// `postgresql://app@127.0.0.1:5432/app?passfile=…`; with a shown password one that is not libpq can read too.
    pub fn uri(&self) -> String {
        match &self.password {
            Password::File(path) => {
                let path = percent_encoded(&path.to_string_lossy());
                format!("postgresql://{APPLICATION}@{HOST}:{}/{APPLICATION}?passfile={path}", self.port)
            }
            Password::Shown(password) => {
                let password = percent_encoded(password.expose());
                format!("postgresql://{APPLICATION}:{password}@{HOST}:{}/{APPLICATION}", self.port)
            }
        }
    }

    /// `host=127.0.0.1 port=5432 …`
    pub fn keywords(&self) -> String {
        let words = self.pairs().into_iter().map(|(key, value)| format!("{key}={}", quoted(&value)));
        words.collect::<Vec<_>>().join(" ")
    }

    /// `PGHOST=127.0.0.1` and so on, one per line, in words that a shell reads.
    pub fn environment(&self) -> String {
        let name = |key: &str| if key == "dbname" { "PGDATABASE".to_owned() } else { format!("PG{}", key.to_uppercase()) };
        let lines = self.pairs().into_iter().map(|(key, value)| format!("{}={}", name(key), shell_word(&value)));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// The same as data.
    pub fn parameters(&self) -> ConnectionParameters {
        let (passfile, password) = match &self.password {
            Password::File(path) => (Some(path.to_string_lossy().into_owned()), None),
            Password::Shown(password) => (None, Some(password.expose().to_owned())),
        };
        ConnectionParameters { host: HOST, port: self.port, user: APPLICATION, dbname: APPLICATION, passfile, password }
    }

    fn pairs(&self) -> Vec<(&'static str, String)> {
        let parameters = self.parameters();
        let mut pairs = vec![
            ("host", parameters.host.to_owned()),
            ("port", parameters.port.to_string()),
            ("user", parameters.user.to_owned()),
            ("dbname", parameters.dbname.to_owned()),
        ];
        pairs.extend(parameters.passfile.map(|file| ("passfile", file)));
        pairs.extend(parameters.password.map(|password| ("password", password)));
        pairs
    }
}

/// Where the password files of this user are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PasswordFiles {
    directory: PathBuf,
}

impl PasswordFiles {
    /// `$XDG_STATE_HOME/spilo`, else `~/.local/state/spilo`.
    pub fn of_this_user() -> Result<PasswordFiles, CommandError> {
        let absolute = |variable: &str| std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
        let state = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")));
        match state {
            Some(state) => Ok(PasswordFiles { directory: state.join("spilo") }),
            None => Err(CommandError::new(
                ErrorKind::Failed,
                "cannot tell where to keep the password file: neither HOME nor XDG_STATE_HOME is set",
            )
            .hint("to see the password instead: --show-password")),
        }
    }

    /// Writes the cluster's file, with a line for each of its ports; returns its path. The mode is 0600 from the first byte on, and the
    /// old file stays until the new one is complete.
    pub fn write(&self, cluster: &ClusterName, ports: Endpoints, password: &Secret) -> Result<PathBuf, CommandError> {
        let path = self.path(cluster);
        let content: String = [ports.read_write, ports.read_only]
            .iter()
            .map(|port| format!("{HOST}:{port}:*:{APPLICATION}:{}\n", pgpass_escaped(password.expose())))
            .collect();
        match self.write_privately(&path, &content) {
            Ok(()) => Ok(path),
            Err(error) => {
                Err(CommandError::new(ErrorKind::Failed, format!("cannot write the password file '{}': {error}", path.display()))
                    .hint("to see the password instead: spilo dsn --show-password"))
            }
        }
    }

    /// Removes the cluster's file, if there is one.
    pub fn remove(&self, cluster: &ClusterName) -> Result<(), CommandError> {
        let path = self.path(cluster);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(CommandError::new(ErrorKind::Failed, format!("cannot remove the password file '{}': {error}", path.display())))
            }
            _ => Ok(()),
        }
    }

    fn path(&self, cluster: &ClusterName) -> PathBuf {
        self.directory.join(format!("{cluster}.pgpass"))
    }

    fn write_privately(&self, path: &Path, content: &str) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
        let mut file = tempfile::NamedTempFile::new_in(&self.directory)?;
        file.write_all(content.as_bytes())?;
        file.persist(path)?;
        Ok(())
    }
}

/// Everything but unreserved characters and the slash, which may stand in a query.
fn percent_encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

/// A value of a keyword string: quoted when it is empty or holds a blank, quote or backslash.
fn quoted(value: &str) -> String {
    if !value.is_empty() && !value.contains([' ', '\'', '\\']) {
        return value.to_owned();
    }
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

fn shell_word(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._/:".contains(c);
    if !value.is_empty() && value.chars().all(plain) { value.to_owned() } else { format!("'{}'", value.replace('\'', r"'\''")) }
}

fn pgpass_escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace(':', "\\:")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const PORTS: Endpoints = Endpoints { read_write: 5432, read_only: 5433, health: 5434 };

    fn with_file(path: &str) -> Connection {
        Connection { port: 5432, password: Password::File(path.into()) }
    }

    #[test]
    fn a_connection_string_names_the_file_and_not_the_password() {
        let connection = with_file("/home/ann/.local/state/spilo/orders.pgpass");
        assert_eq!(connection.uri(), "postgresql://app@127.0.0.1:5432/app?passfile=/home/ann/.local/state/spilo/orders.pgpass");
        assert_eq!(
            connection.keywords(),
            "host=127.0.0.1 port=5432 user=app dbname=app passfile=/home/ann/.local/state/spilo/orders.pgpass"
        );
    }

    #[test]
    fn odd_characters_in_a_path_survive_every_format() {
        let connection = with_file("/home/ann o'b/x&y");
        assert!(connection.uri().ends_with("passfile=/home/ann%20o%27b/x%26y"));
        assert!(connection.keywords().ends_with(r"passfile='/home/ann o\'b/x&y'"));
        assert!(connection.environment().ends_with(r"PGPASSFILE='/home/ann o'\''b/x&y'"));
    }

    #[test]
    fn the_password_is_shown_only_when_asked_for() {
        let shown = Connection { port: 5433, password: Password::Shown(Secret::new("0a1b")) };
        assert_eq!(shown.uri(), "postgresql://app:0a1b@127.0.0.1:5433/app");
        assert_eq!(shown.environment(), "PGHOST=127.0.0.1\nPGPORT=5433\nPGUSER=app\nPGDATABASE=app\nPGPASSWORD=0a1b");
        let json = serde_json::to_string(&with_file("/x").parameters()).unwrap();
        assert!(!json.contains("password"), "{json}");
    }

    #[test]
    fn the_password_file_is_private_complete_and_removable() {
        let home = tempfile::tempdir().unwrap();
        let files = PasswordFiles { directory: home.path().join("state/spilo") };
        let orders: ClusterName = "orders".parse().unwrap();
        let path = files.write(&orders, PORTS, &Secret::new("pa:ss")).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&files.directory).unwrap().permissions().mode() & 0o777, 0o700);
        let content = fs::read_to_string(&path).unwrap();
        assert_eq!(content, "127.0.0.1:5432:*:app:pa\\:ss\n127.0.0.1:5433:*:app:pa\\:ss\n");
        files.write(&orders, PORTS, &Secret::new("other")).unwrap();
        files.remove(&orders).unwrap();
        files.remove(&orders).unwrap();
        assert!(!path.exists());
    }
}
