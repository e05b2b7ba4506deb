//! What of a data directory belongs into a backup, in the order in which a manifest has it.

use std::{
    collections::HashSet,
    ffi::OsStr,
    fs::{self, FileType},
    io,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

use super::{
    error::BackupError,
    relation_file::{self, RelationFile},
};

/// Directories of which only the directory is kept: what is in them means nothing to another server, or comes from the archive.
const EMPTIED: [&str; 8] = ["pg_dynshmem", "pg_notify", "pg_replslot", "pg_serial", "pg_snapshots", "pg_stat_tmp", "pg_subtrans", "pg_wal"];

/// Files of the data directory itself that are left out: of the running server, of another backup, half written, or what a restore writes anew.
const LEFT_OUT: [&str; 13] = [
    "backup_label",
    "backup_label.old",
    "backup_manifest",
    "current_logfiles.tmp",
    "postgresql.auto.conf.tmp",
    "postmaster.opts",
    "postmaster.pid",
    "promote",
    "recovery.signal",
    "recovery.done",
    "standby.signal",
    "tablespace_map",
    "tablespace_map.old",
];

/// The file that is read after all others.
pub const CONTROL_FILE: &str = "global/pg_control";

/// Something that belongs into the backup. Paths are from the data directory.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// A directory.
    Directory(&'a [u8]),
    /// A file; of a relation, if it has pages.
    File(&'a [u8], Option<RelationFile>),
    /// Something that is neither, and is left out although nobody asked for that.
    Strange(&'a [u8]),
}

/// A data directory to be read.
pub struct DataFiles {
    root: PathBuf,
    /// The only directory of a tablespace that is this server's: `PG_15_202209061`.
    version: Vec<u8>,
    /// Below `pg_wal`, besides the status of archiving.
    has_summaries: bool,
}

/// Where a directory is, as far as that says what is in it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Top,
    Global,
    Databases,
    Database,
    Tablespaces,
    Tablespace,
    Wal,
    Emptied,
    Elsewhere,
}

/// An entry of a directory. The path of what is in a directory goes on with a slash, and others may come between a directory and what is in it.
struct Item {
    name: Vec<u8>,
    kind: ItemKind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ItemKind {
    Directory,
    Content,
    File,
    Strange,
}

impl DataFiles {
    /// Of a server of this `server_version_num`, with catalogues of this version.
    pub fn new(root: &Path, server_version: u32, catalog_version: u32) -> DataFiles {
        let major = server_version / 10_000;
        DataFiles { root: root.to_owned(), version: format!("PG_{major}_{catalog_version}").into_bytes(), has_summaries: major >= 17 }
    }

    /// The path on this machine.
    pub fn path(&self, relative: &[u8]) -> PathBuf {
        self.root.join(OsStr::from_bytes(relative))
    }

    /// Visits everything but the control file.
    ///
    /// # Errors
    /// What `visit` returns, and when a directory cannot be read. One that is gone was dropped: WAL says so too.
    pub fn walk(&self, visit: &mut dyn FnMut(Found<'_>) -> Result<(), BackupError>) -> Result<(), BackupError> {
        self.directory(&mut Vec::new(), Place::Top, visit)
    }

    fn directory(
        &self,
        path: &mut Vec<u8>,
        place: Place,
        visit: &mut dyn FnMut(Found<'_>) -> Result<(), BackupError>,
    ) -> Result<(), BackupError> {
        let items = self.items(path, place)?;
        let unlogged: HashSet<u32> =
            items.iter().filter_map(|item| relation_file::parse(&item.name).filter(|file| file.init)).map(|file| file.number).collect();
        let length = path.len();
        for item in items {
            if length > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(&item.name);
            match item.kind {
                ItemKind::Directory => visit(Found::Directory(path))?,
                ItemKind::Content => {
                    path.pop();
                    self.directory(path, place.below(&item.name[..item.name.len() - 1]), visit)?;
                }
                ItemKind::Strange => visit(Found::Strange(path))?,
                ItemKind::File => {
                    let relation = relation_file::parse(&item.name).filter(|_| place.has_relations());
                    let emptied_at_start = relation.is_some_and(|file| !file.init && unlogged.contains(&file.number));
                    if !emptied_at_start && path != CONTROL_FILE.as_bytes() {
                        visit(Found::File(path, relation))?;
                    }
                }
            }
            path.truncate(length);
        }
        Ok(())
    }

    /// What of a directory belongs into the backup, in order.
    fn items(&self, path: &[u8], place: Place) -> Result<Vec<Item>, BackupError> {
        let here = self.path(path);
        let mut items = match place {
            Place::Emptied => Vec::new(),
            Place::Wal => {
                let names: &[&str] = if self.has_summaries { &["archive_status", "summaries"] } else { &["archive_status"] };
                names.iter().map(|name| Item { name: name.as_bytes().to_vec(), kind: ItemKind::Directory }).collect()
            }
            _ => self.listed(&here, place).map_err(BackupError::file("read", &here))?,
        };
        items.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(items)
    }

    fn listed(&self, here: &Path, place: Place) -> io::Result<Vec<Item>> {
        let entries = match fs::read_dir(here) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && place != Place::Top => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut items = Vec::new();
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().into_vec();
            let Some(kind) = self.kind(&name, place, entry.file_type()?) else { continue };
            if kind == ItemKind::Directory {
                items.push(Item { name: [&name[..], b"/"].concat(), kind: ItemKind::Content });
            }
            items.push(Item { name, kind });
        }
        Ok(items)
    }

    /// What to do with an entry; `None`: it is left out.
    fn kind(&self, name: &[u8], place: Place, found: FileType) -> Option<ItemKind> {
        let left_out = name.starts_with(b"pgsql_tmp")
            || name.starts_with(b"pg_internal.init")
            || place == Place::Top && LEFT_OUT.iter().any(|known| known.as_bytes() == name)
            || place == Place::Tablespace && name != self.version
            || place == Place::Database && relation_file::is_temporary(name);
        if left_out {
            return None;
        }
        if found.is_symlink() {
            // WAL may be on a volume of its own; a tablespace is always elsewhere.
            let leads_to_directory = place == Place::Tablespaces && relation_file::is_number(name)
                || place == Place::Top && EMPTIED.iter().any(|known| known.as_bytes() == name);
            return Some(if leads_to_directory { ItemKind::Directory } else { ItemKind::Strange });
        }
        Some(match () {
            () if found.is_dir() => ItemKind::Directory,
            () if found.is_file() => ItemKind::File,
            () => ItemKind::Strange,
        })
    }
}

impl Place {
    /// What a directory of this name in such a place is.
    fn below(self, name: &[u8]) -> Place {
        match (self, name) {
            (Place::Top, b"global") => Place::Global,
            (Place::Top, b"base") => Place::Databases,
            (Place::Top, b"pg_tblspc") => Place::Tablespaces,
            (Place::Top, b"pg_wal") => Place::Wal,
            (Place::Top, name) if EMPTIED.iter().any(|known| known.as_bytes() == name) => Place::Emptied,
            (Place::Databases, name) if relation_file::is_number(name) => Place::Database,
            (Place::Tablespaces, name) if relation_file::is_number(name) => Place::Tablespace,
            // Only the one directory of this version gets here.
            (Place::Tablespace, _) => Place::Databases,
            _ => Place::Elsewhere,
        }
    }

    fn has_relations(self) -> bool {
        matches!(self, Place::Global | Place::Database)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A data directory with these files, and what is found in it.
    fn found(files: &[&str], more: impl FnOnce(&Path)) -> Vec<String> {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("data");
        for file in files {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        more(&root);
        let mut found = Vec::new();
        let data = DataFiles::new(&root, 170_005, 202_406_281);
        data.walk(&mut |item| {
            found.push(match item {
                Found::Directory(path) => format!("{}/", path.escape_ascii()),
                Found::File(path, None) => path.escape_ascii().to_string(),
                Found::File(path, Some(file)) => format!("{} pages from {}", path.escape_ascii(), file.segment),
                Found::Strange(path) => format!("{} is strange", path.escape_ascii()),
            });
            Ok(())
        })
        .unwrap();
        found
    }

    #[test]
    fn what_is_in_a_directory_comes_where_its_path_belongs() {
        let found = found(&["a/x", "a-b", "a.c", "a0", "PG_VERSION", "global/1262", "global/pg_control"], |_| {});
        assert_eq!(found, ["PG_VERSION", "a/", "a-b", "a.c", "a/x", "a0", "global/", "global/1262 pages from 0"]);
    }

    #[test]
    fn what_means_nothing_to_another_server_is_left_out() {
        let files = [
            "postmaster.pid",
            "backup_label",
            "standby.signal",
            "base/5/1259",
            "base/5/1259.2",
            "base/5/pg_internal.init",
            "base/5/t3_16384",
            "base/5/20000",
            "base/5/20000_init",
            "base/5/20000_fsm",
            "base/pgsql_tmp/pgsql_tmp1.0",
            "pg_replslot/slot/state",
            "pg_stat_tmp/x",
            "pg_xact/0000",
            "pg_wal/000000010000000000000001",
            "pg_wal/archive_status/000000010000000000000001.done",
        ];
        let found = found(&files, |_| {});
        let expected = [
            "base/",
            "base/5/",
            "base/5/1259 pages from 0",
            "base/5/1259.2 pages from 2",
            "base/5/20000_init pages from 0",
            "pg_replslot/",
            "pg_stat_tmp/",
            "pg_wal/",
            "pg_wal/archive_status/",
            "pg_wal/summaries/",
            "pg_xact/",
            "pg_xact/0000",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn of_a_tablespace_only_what_is_this_servers_is_read() {
        let found = found(&["pg_tblspc/17000/PG_17_202406281/5/1"], |root| {
            let elsewhere = root.parent().unwrap().join("elsewhere");
            for file in ["PG_17_202406281/5/16385", "PG_16_202307071/5/16385", "lost+found"] {
                fs::create_dir_all(elsewhere.join(file)).unwrap();
            }
            fs::write(elsewhere.join("PG_17_202406281/5/16386.1"), "x").unwrap();
            fs::remove_dir(elsewhere.join("PG_17_202406281/5/16385")).unwrap();
            symlink(&elsewhere, root.join("pg_tblspc/16384")).unwrap();
            symlink(&elsewhere, root.join("pg_wal")).unwrap();
            symlink("/etc/hosts", root.join("postgresql.conf")).unwrap();
        });
        let expected = [
            "pg_tblspc/",
            "pg_tblspc/16384/",
            "pg_tblspc/16384/PG_17_202406281/",
            "pg_tblspc/16384/PG_17_202406281/5/",
            "pg_tblspc/16384/PG_17_202406281/5/16386.1 pages from 1",
            "pg_tblspc/17000/",
            "pg_tblspc/17000/PG_17_202406281/",
            "pg_tblspc/17000/PG_17_202406281/5/",
            "pg_tblspc/17000/PG_17_202406281/5/1 pages from 0",
            "pg_wal/",
            "pg_wal/archive_status/",
            "pg_wal/summaries/",
            "postgresql.conf is strange",
        ];
        assert_eq!(found, expected);
    }
}
