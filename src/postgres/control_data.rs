//! What `pg_controldata` says of a data directory: whose it is, which timeline, how it was left.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use serde::{Deserialize, Serialize};

use super::{Installation, PostgresError};
use crate::{
    model::{Lsn, SystemId, Timeline},
    sys::process::Run,
};

/// How the server that used the directory last left it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClusterState {
    /// Nothing was ever started, or it is being created.
    StartingUp,
    /// A primary was shut down cleanly.
    ShutDown,
    /// A standby was shut down cleanly.
    ShutDownInRecovery,
    /// A primary was shutting down.
    ShuttingDown,
    /// It was in crash recovery.
    InCrashRecovery,
    /// It was a standby, or restored from an archive.
    InArchiveRecovery,
    /// It was a running primary.
    InProduction,
}

/// The control file, as far as decisions depend on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlData {
    /// Whose data this is.
    pub system_id: SystemId,
    /// How it was left.
    pub state: ClusterState,
    /// Timeline of the last checkpoint.
    pub checkpoint_timeline: Timeline,
    /// Where the last checkpoint record starts.
    pub checkpoint: Lsn,
    /// Where recovery begins to replay: what was written since that checkpoint *began*.
    pub redo: Lsn,
    /// On a standby: how far it must replay before it is consistent, and on which timeline.
    pub min_recovery: Option<(Lsn, Timeline)>,
    /// Page checksums or hint bits in the WAL: the precondition of pg_rewind.
    pub rewindable: bool,
}

impl ControlData {
    /// True when the directory was last used by a primary.
    pub fn was_primary(&self) -> bool {
        use ClusterState::{InCrashRecovery, InProduction, ShutDown, ShuttingDown};
        matches!(self.state, ShutDown | ShuttingDown | InCrashRecovery | InProduction)
    }

    /// The newest timeline that the directory is known to have been on.
    pub fn timeline(&self) -> Timeline {
        self.min_recovery.map_or(self.checkpoint_timeline, |(_, timeline)| timeline.max(self.checkpoint_timeline))
    }
}

/// What `pg_controldata` prints of the data directory.
pub(super) async fn print(installation: &Installation) -> Result<String, PostgresError> {
    let run = Run::new(installation.program("pg_controldata")).arg(installation.data_dir.to_string_lossy());
    // The labels are translated; only the C locale's are known here.
    Ok(run.env("LC_ALL", "C").output().await?)
}

/// Runs `pg_controldata` on the data directory.
pub async fn read(installation: &Installation) -> Result<ControlData, PostgresError> {
    let text = print(installation).await?;
    parse(&text).map_err(|what| PostgresError::Unexpected { program: "pg_controldata", what })
}

/// Whose data this is, from the first bytes of the control file, which never change: without a program, and while the server runs.
///
/// # Errors
/// When there is no control file in `data_dir`, or none with a number in it.
pub fn system_id(data_dir: &Path) -> io::Result<SystemId> {
    let path = data_dir.join("global/pg_control");
    let told = |error: io::Error| io::Error::new(error.kind(), format!("'{}' cannot be read: {error}", path.display()));
    let mut number = [0; 8];
    File::open(&path).and_then(|mut file| file.read_exact(&mut number)).map_err(told)?;
    match u64::from_ne_bytes(number) {
        0 => Err(told(io::Error::other("it has no system identifier"))),
        number => Ok(SystemId(number)),
    }
}

/// What the control file says at a glance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Glimpse {
    /// Whose data this is.
    pub system: SystemId,
    /// A primary runs, or was killed.
    pub in_production: bool,
    /// The timeline of the last checkpoint.
    pub timeline: Timeline,
}

/// A look at the control file without a program, and while the server runs. `None`: there is none, or it is of a version whose form is not
/// known.
pub fn glimpse(data_dir: &Path) -> Option<Glimpse> {
    let mut bytes = [0; 52];
    File::open(data_dir.join("global/pg_control")).and_then(|mut file| file.read_exact(&mut bytes)).ok()?;
    let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    let system = SystemId(u64::from_ne_bytes(bytes[..8].try_into().expect("eight bytes")));
    // The form up to here has been this one from version 13 on; 19 has 1902.
    let (version, state, timeline) = (word(8), word(16), Timeline(word(48)));
    let known = (1300..2000).contains(&version) && state <= 6 && timeline.0 > 0 && system.0 > 0;
    known.then_some(Glimpse { system, in_production: state == 6, timeline })
}

fn parse(text: &str) -> Result<ControlData, String> {
    let field = |label: &str| {
        let found = text.lines().find_map(|line| line.strip_prefix(label)?.strip_prefix(':'));
        found.map(str::trim).ok_or_else(|| format!("no line '{label}'"))
    };
    let bad = |label: &str| format!("'{label}' is not readable");
    let lsn = |label: &str| field(label)?.parse::<Lsn>().map_err(|_| bad(label));
    let timeline = |label: &str| field(label)?.parse().map(Timeline).map_err(|_| bad(label));
    let state = match field("Database cluster state")? {
        "starting up" => ClusterState::StartingUp,
        "shut down" => ClusterState::ShutDown,
        "shut down in recovery" => ClusterState::ShutDownInRecovery,
        "shutting down" => ClusterState::ShuttingDown,
        "in crash recovery" => ClusterState::InCrashRecovery,
        "in archive recovery" => ClusterState::InArchiveRecovery,
        "in production" => ClusterState::InProduction,
        other => return Err(format!("unknown state '{other}'")),
    };
    let least = lsn("Minimum recovery ending location")?;
    let least_timeline = timeline("Min recovery ending loc's timeline")?;
    let checksums = field("Data page checksum version")? != "0";
    Ok(ControlData {
        system_id: field("Database system identifier")?.parse().map_err(|_| bad("Database system identifier"))?,
        state,
        checkpoint_timeline: timeline("Latest checkpoint's TimeLineID")?,
        checkpoint: lsn("Latest checkpoint location")?,
        redo: lsn("Latest checkpoint's REDO location")?,
        min_recovery: (least != Lsn(0)).then_some((least, least_timeline)),
        rewindable: checksums || field("wal_log_hints setting")? == "on",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRIMARY: &str = "\
pg_control version number:            1300
Database system identifier:           7398120938120938120
Database cluster state:               in production
Latest checkpoint location:           0/3000060
Latest checkpoint's REDO location:    0/3000028
Latest checkpoint's TimeLineID:       2
Minimum recovery ending location:     0/0
Min recovery ending loc's timeline:   0
wal_log_hints setting:                on
Data page checksum version:           0
";

    #[test]
    fn a_primarys_control_file_is_understood() {
        let control = parse(PRIMARY).unwrap();
        assert!(control.was_primary() && control.rewindable);
        assert_eq!((control.timeline(), control.checkpoint, control.redo), (Timeline(2), Lsn(0x300_0060), Lsn(0x300_0028)));
    }

    #[test]
    fn a_standby_is_on_the_timeline_it_replayed_to() {
        let text = PRIMARY
            .replace("in production", "in archive recovery")
            .replace("location:     0/0", "location:     0/4000000")
            .replace("timeline:   0", "timeline:   3");
        let control = parse(&text).unwrap();
        assert!(!control.was_primary());
        assert_eq!(control.timeline(), Timeline(3));
    }

    #[test]
    fn a_missing_line_is_named() {
        assert_eq!(parse(&PRIMARY.replace("Database system", "x")).unwrap_err(), "no line 'Database system identifier'");
    }
}
