//! The shortest way from a backup in a store to a data directory, by nothing but the format: what the program restores is tested elsewhere, this is
//! to say whether what it stores is right.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt, fs::symlink},
    path::{Path, PathBuf},
};

use spilo::backup::{
    chunk::ChunkReader,
    manifest::{Entry, EntryKind, Header},
    manifest_file,
    postgres_manifest::{PostgresManifest, WalRange},
};

use super::{machine::own, plain_server::Ground};

/// Unpacks the backup into a new directory of this name. Tablespaces go beside it.
pub fn unpack(ground: &Ground, id: &str, name: &str) -> Header {
    let destination = ground.directory(name);
    let manifest = ground.stored("manifest").into_iter().find(|path| path.to_string_lossy().contains(id)).expect("there is such a backup");
    let (header, entries) = manifest_file::read(&fs::read(manifest).unwrap().into()).unwrap();
    let entries: Vec<Entry> = entries.collect::<Result<_, _>>().unwrap();
    let mut map = String::new();
    for space in &header.tablespaces {
        let place = ground.directory(&format!("{name}-{}", space.oid));
        fs::create_dir_all(destination.join("pg_tblspc")).unwrap();
        symlink(&place, destination.join(format!("pg_tblspc/{}", space.oid))).unwrap();
        map += &format!("{} {}\n", space.oid, place.display());
    }
    for entry in &entries {
        write_entry(ground, &header, entry, &destination);
    }
    let mut manifest = PostgresManifest::new(Vec::new(), &header).unwrap();
    let mut add = |path: &str, content: &[u8]| {
        write(&destination.join(path), content);
        manifest.add(path.as_bytes(), content.len() as u64, 0, crc32c::crc32c(content)).unwrap();
    };
    add("backup_label", header.label.as_bytes());
    if !map.is_empty() {
        add("tablespace_map", map.as_bytes());
    }
    for entry in &entries {
        if let EntryKind::File { size, crc32c, .. } = entry.kind {
            manifest.add(&entry.path, size, entry.modified, crc32c).unwrap();
        }
    }
    let wal = WalRange { timeline: header.start.timeline, start: header.start.lsn, end: header.stop.lsn };
    write(&destination.join("backup_manifest"), &manifest.finish(&[wal]).unwrap());
    header
}

fn write_entry(ground: &Ground, header: &Header, entry: &Entry, destination: &Path) {
    let path = destination.join(OsStr::from_bytes(&entry.path));
    let EntryKind::File { size, crc32c, chunks, .. } = &entry.kind else {
        let _ = fs::create_dir(&path);
        assert!(path.is_dir(), "{}", path.display());
        return own(&path);
    };
    let mut reader = ChunkReader::new().unwrap();
    let mut content = Vec::new();
    for (number, chunk) in chunks.iter().enumerate() {
        let length = entry.chunk_length(number);
        let Some(place) = chunk.place else {
            content.resize(content.len() + length, 0);
            continue;
        };
        let pack = &header.packs[place.pack as usize];
        let folder = format!("store/orders/backup/{}/{}/pack/{:08}", header.system, pack.backup, pack.number);
        let pack = Pack::read(ground.path().join(folder));
        let stored = &pack.0[place.offset as usize..][..place.length as usize];
        content.extend_from_slice(reader.read(stored, length, &chunk.digest).unwrap());
    }
    assert_eq!((content.len() as u64, crc32c::crc32c(&content)), (*size, *crc32c), "{}", path.display());
    write(&path, &content);
}

/// A pack in memory. The kernel keeps it for the next chunk.
struct Pack(Vec<u8>);

impl Pack {
    fn read(path: PathBuf) -> Pack {
        Pack(fs::read(path).unwrap())
    }
}

fn write(path: &Path, content: &[u8]) {
    fs::write(path, content).unwrap();
    own(path);
}
