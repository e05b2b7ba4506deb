//! PostgreSQL's own `backup_manifest` of a restored directory: what `pg_verifybackup` compares it with, and `pg_combinebackup` asks for.

use std::io::{self, Write};

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use super::manifest::Header;
use crate::model::{Lsn, Timeline};

/// The first version of PostgreSQL that says whose backup it is.
const NAMES_THE_SYSTEM: u32 = 170_000;

/// WAL that the backup needs, on one timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalRange {
    /// The timeline.
    pub timeline: Timeline,
    /// From here.
    pub start: Lsn,
    /// To here.
    pub end: Lsn,
}

/// Files on their way into a manifest.
pub struct PostgresManifest<W: Write> {
    out: W,
    digest: Sha256,
    files: u64,
}

impl<W: Write> PostgresManifest<W> {
    /// Begins one.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn new(out: W, backup: &Header) -> io::Result<PostgresManifest<W>> {
        let mut manifest = PostgresManifest { out, digest: Sha256::new(), files: 0 };
        if backup.server_version >= NAMES_THE_SYSTEM {
            let system = backup.system;
            manifest.say(&format!("{{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n\"System-Identifier\": {system},\n\"Files\": ["))?;
        } else {
            manifest.say("{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [")?;
        }
        Ok(manifest)
    }

    /// Adds a file; `path` from the data directory.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add(&mut self, path: &[u8], size: u64, modified: i64, crc32c: u32) -> io::Result<()> {
        let path = match std::str::from_utf8(path) {
            Ok(path) => format!("\"Path\": {}", serde_json::Value::from(path)),
            Err(_) => format!("\"Encoded-Path\": \"{}\"", hex::encode(path)),
        };
        let modified = Timestamp::from_second(modified).unwrap_or_default().strftime("%Y-%m-%d %H:%M:%S GMT");
        // PostgreSQL writes the number as it lies in memory.
        let checksum = hex::encode(crc32c.to_ne_bytes());
        let comma = if self.files == 0 { "" } else { "," };
        self.files += 1;
        self.say(&format!(
            "{comma}\n{{ {path}, \"Size\": {size}, \"Last-Modified\": \"{modified}\", \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"{checksum}\" }}"
        ))
    }

    /// Ends it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(mut self, wal: &[WalRange]) -> io::Result<W> {
        self.say("\n],\n\"WAL-Ranges\": [\n")?;
        for (at, WalRange { timeline, start, end }) in wal.iter().enumerate() {
            let comma = if at + 1 < wal.len() { "," } else { "" };
            self.say(&format!("{{ \"Timeline\": {timeline}, \"Start-LSN\": \"{start}\", \"End-LSN\": \"{end}\" }}{comma}\n"))?;
        }
        self.say("],\n")?;
        let digest = hex::encode(self.digest.finalize());
        writeln!(self.out, "\"Manifest-Checksum\": \"{digest}\"}}")?;
        Ok(self.out)
    }

    fn say(&mut self, text: &str) -> io::Result<()> {
        self.digest.update(text.as_bytes());
        self.out.write_all(text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::catalog::tests::header;

    fn written(backup: &Header) -> String {
        let mut manifest = PostgresManifest::new(Vec::new(), backup).unwrap();
        manifest.add(b"base/1/2", 8192, 1_795_293_900, 0x0403_0201).unwrap();
        manifest.add(b"od\"d\xff", 0, 0, 0).unwrap();
        let range = WalRange { timeline: Timeline(2), start: Lsn(0x200_0028), end: Lsn(0x200_0100) };
        String::from_utf8(manifest.finish(&[range, WalRange { timeline: Timeline(3), ..range }]).unwrap()).unwrap()
    }

    #[test]
    fn it_is_what_postgresql_reads() {
        let text = written(&header(0, 1));
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["PostgreSQL-Backup-Manifest-Version"], 1);
        let [first, second] = [&json["Files"][0], &json["Files"][1]];
        assert_eq!((&first["Path"], &first["Size"], &first["Checksum"]), (&"base/1/2".into(), &8192.into(), &"01020304".into()));
        assert_eq!(first["Last-Modified"], "2026-11-21 20:45:00 GMT");
        assert_eq!(second["Encoded-Path"], "6f642264ff");
        assert_eq!((&json["WAL-Ranges"][0]["Start-LSN"], &json["WAL-Ranges"][1]["Timeline"]), (&"0/2000028".into(), &3.into()));
        let (before, last) = text.trim_end().rsplit_once('\n').unwrap();
        let digest = hex::encode(Sha256::digest(format!("{before}\n")));
        assert_eq!(last, format!("\"Manifest-Checksum\": \"{digest}\"}}"), "all before the last line is digested");
    }

    #[test]
    fn from_version_17_on_it_names_the_system() {
        let newer = Header { server_version: 170_002, ..header(0, 1) };
        let json: serde_json::Value = serde_json::from_str(&written(&newer)).unwrap();
        assert_eq!(json["PostgreSQL-Backup-Manifest-Version"], 2);
        assert_eq!(json["System-Identifier"], newer.system.0);
    }
}
