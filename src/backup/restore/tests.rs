//! A backup of made-up files, through a store and back.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Mutex,
};

use bytes::Bytes;
use jiff::Timestamp;

use super::*;
use crate::{
    backup::{
        ArchiveError,
        catalog::tests::header,
        chunk::{self, ChunkPacker},
        manifest::{Chunk, ChunkPlace, Pack, Tablespace},
        manifest_file,
        pack::PackBuilder,
    },
    model::{RecoveryTarget, SystemId},
    postgres::restore_mark,
    storage::{Claim, FileStore, Object, StoreError},
};

const SYSTEM: SystemId = SystemId(7_300_000_000_000_000_001);
const CHUNK: usize = 8192;

/// A store behind a network that changes a bit of each part of a pack, the first two times it is read.
struct Noisy {
    store: FileStore,
    read: Mutex<BTreeMap<(ObjectName, u64), u32>>,
}

impl ObjectStore for Noisy {
    async fn create(&self, name: &ObjectName, content: Bytes) -> Result<Claim, StoreError> {
        self.store.create(name, content).await
    }

    async fn replace(&self, name: &ObjectName, content: Bytes) -> Result<(), StoreError> {
        self.store.replace(name, content).await
    }

    async fn read(&self, name: &ObjectName) -> Result<Option<Bytes>, StoreError> {
        self.store.read(name).await
    }

    async fn read_range(&self, name: &ObjectName, offset: u64, length: u64) -> Result<Option<Bytes>, StoreError> {
        let content = self.store.read_range(name, offset, length).await?;
        let times = {
            let mut read = self.read.lock().unwrap();
            let times = read.entry((name.clone(), offset)).or_default();
            *times += 1;
            *times
        };
        if !name.as_str().contains("/pack/") || times > 2 {
            return Ok(content);
        }
        Ok(content.map(|content| {
            let mut content = content.to_vec();
            let last = content.len() - 1;
            content[last] ^= 1;
            content.into()
        }))
    }

    async fn size(&self, name: &ObjectName) -> Result<Option<u64>, StoreError> {
        self.store.size(name).await
    }

    async fn written(&self, name: &ObjectName) -> Result<Option<Timestamp>, StoreError> {
        self.store.written(name).await
    }

    async fn list(&self, folder: &ObjectName) -> Result<Vec<Object>, StoreError> {
        self.store.list(folder).await
    }

    async fn remove(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.store.remove(name).await
    }
}

/// A store with one backup, and a place to restore to.
struct Place {
    directory: tempfile::TempDir,
    archive: Archive<FileStore>,
    header: Header,
    files: BTreeMap<String, Vec<u8>>,
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..length).map(|_| random.u8(..)).collect()
}

fn contents() -> BTreeMap<String, Vec<u8>> {
    let mut control = noise(1, 8192);
    control[..8].copy_from_slice(&SYSTEM.0.to_ne_bytes());
    let half_zero = [noise(2, 20_000), vec![0; 100_000], noise(3, 5)].concat();
    let files = [
        ("PG_VERSION", b"15\n".to_vec()),
        ("base/1/100", noise(4, 300_000)),
        ("base/1/101", half_zero),
        ("base/1/102", Vec::new()),
        ("base/1/103", vec![0; 50_000]),
        ("postgresql.auto.conf", b"restore_command = 'old'\nwork_mem = '8MB'\ncluster_name = 'Stra\xdfe'\n".to_vec()),
        ("patroni.dynamic.json", b"{}".to_vec()),
        ("pg_tblspc/5/PG_15_202209061/7/8", noise(5, 70_000)),
        ("global/pg_control", control),
    ];
    files.into_iter().map(|(name, content)| (name.to_owned(), content)).collect()
}

impl Place {
    async fn new() -> Place {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("store")).unwrap();
        let store = FileStore::init(&directory.path().join("store")).unwrap();
        let location = directory.path().join("space").display().to_string();
        let header = Header {
            label: "START WAL LOCATION: 0/2000028\n".to_owned(),
            tablespaces: vec![Tablespace { oid: 5, location }],
            ..header(0, 1)
        };
        let archive = Archive::new(store, "orders".parse().unwrap(), SYSTEM);
        let mut place = Place { directory, archive, header, files: contents() };
        place.back_up().await;
        place
    }

    /// Puts packs of a few chunks each and the manifest into the store.
    async fn back_up(&mut self) {
        let mut packer = ChunkPacker::new(chunk::LEVEL).unwrap();
        let (mut packs, mut builder) = (Vec::new(), PackBuilder::default());
        let mut entries: Vec<Entry> = Vec::new();
        for folder in [
            "base",
            "base/1",
            "global",
            "pg_tblspc",
            "pg_tblspc/5",
            "pg_tblspc/5/PG_15_202209061",
            "pg_tblspc/5/PG_15_202209061/7",
            "pg_wal",
        ] {
            entries.push(Entry { path: folder.into(), mode: 0o700, modified: 0, kind: EntryKind::Directory });
        }
        for (name, content) in &self.files {
            let mut chunks = Vec::new();
            for piece in content.chunks(CHUNK) {
                let digest = chunk::digest(piece);
                let place = (!chunk::is_zero(piece)).then(|| {
                    let stored = packer.pack(piece).unwrap();
                    let at = builder.add(&digest, &stored, u32::try_from(piece.len()).unwrap());
                    ChunkPlace { pack: u32::try_from(packs.len()).unwrap(), offset: at.offset, length: at.length }
                });
                chunks.push(Chunk { digest, place });
                if builder.size() > 100_000 {
                    packs.push(std::mem::take(&mut builder).content());
                }
            }
            let kind = EntryKind::File { size: content.len() as u64, crc32c: crc32c::crc32c(content), chunk_size: CHUNK as u32, chunks };
            entries.push(Entry { path: name.clone().into(), mode: 0o600, modified: 0, kind });
        }
        packs.push(builder.content());
        entries.sort_by(|a, b| manifest_file::place(&a.path).cmp(&manifest_file::place(&b.path)));
        let named = packs.iter().enumerate().map(|(at, pack)| Pack {
            backup: self.header.id.clone(),
            number: u32::try_from(at).unwrap(),
            size: pack.len() as u64,
        });
        self.header.packs = named.collect();
        self.header.entries = entries.len() as u64;
        self.header.size = self.files.values().map(|content| content.len() as u64).sum();
        for (at, pack) in packs.into_iter().enumerate() {
            let object = self.archive.pack(&self.header.id, u32::try_from(at).unwrap()).unwrap();
            self.archive.store().create(&object, pack).await.unwrap();
        }
        let manifest = manifest_file::object(&self.header, &entries).unwrap();
        self.archive.store().create(&self.archive.manifest(&self.header.id).unwrap(), manifest).await.unwrap();
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn request(&self) -> Request {
        Request { directory: self.root(), delta: false, moved: Vec::new(), limits: Limits { threads: 2, memory: 32 << 20 } }
    }

    async fn restore(&self, request: &Request) -> Result<Report, RestoreError> {
        restore(&self.archive, &self.way(), &recovers(), request, &Arc::default()).await
    }

    fn way(&self) -> Way {
        Way { backup: self.header.clone(), timeline: Timeline(1), end: Lsn(0x400_0000), needed: Vec::new(), doubts: Vec::new() }
    }

    /// Every file is what it was, at its place, and nothing else is there.
    fn check(&self) {
        for (name, content) in self.files.iter().filter(|(name, _)| !name.ends_with(".conf") && !name.ends_with(".json")) {
            assert!(fs::read(self.root().join(name)).unwrap() == *content, "{name}");
        }
        let mut names: Vec<String> =
            fs::read_dir(self.root()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        let expected = [
            "PG_VERSION",
            "backup_label",
            "backup_manifest",
            "base",
            "global",
            "pg_tblspc",
            "pg_wal",
            "postgresql.auto.conf",
            "recovery.signal",
            "tablespace_map",
        ];
        assert_eq!(names, expected);
        assert_eq!(fs::read_dir(self.root().join("base/1")).unwrap().count(), 4);
        let read = |name: &str| fs::read(self.root().join(name)).unwrap();
        let settings = b"work_mem = '8MB'\ncluster_name = 'Stra\xdfe'\nrestore_command = 'fetch'\n";
        assert!(read("postgresql.auto.conf").starts_with(settings), "it is in the encoding of the database it was said in");
        assert_eq!(read("backup_label"), self.header.label.as_bytes());
    }
}

fn recovers() -> Start {
    Start::Recovers(Recovery {
        target: RecoveryTarget::End,
        exclusive: false,
        timeline: Timeline(1),
        action: TargetAction::Promote,
        restore_command: "fetch".to_owned(),
        keep_archiving: false,
    })
}

fn is_startable(root: &Path) -> bool {
    root.join(CONTROL_FILE).exists() && !restore_mark::is_unfinished(root)
}

#[tokio::test]
async fn a_backup_comes_back_as_it_was() {
    let place = Place::new().await;
    let report = place.restore(&place.request()).await.unwrap();
    place.check();
    assert!(is_startable(&place.root()));
    assert_eq!((report.seen.done, report.seen.total, report.seen.spared), (place.header.size - 2, place.header.size, 0));
    assert!(report.seen.moved < 450_000, "zeros are not fetched, and nothing twice: {}", report.seen.moved);
    let link = fs::read_link(place.root().join("pg_tblspc/5")).unwrap();
    assert_eq!(link, place.directory.path().join("space"));
}

#[tokio::test]
async fn what_the_network_has_changed_is_read_again() {
    let place = Place::new().await;
    let store = Noisy { store: place.archive.store().bare().clone(), read: Mutex::default() };
    let archive = Archive::new(store, "orders".parse().unwrap(), SYSTEM);
    let report = restore(&archive, &place.way(), &recovers(), &place.request(), &Arc::default()).await.unwrap();
    place.check();
    assert_eq!(report.seen.done, place.header.size - 2, "nothing is in its place twice");
    assert!(report.seen.moved > 800_000, "{report:?}");
}

#[tokio::test]
async fn a_tablespace_goes_where_it_is_told() {
    let place = Place::new().await;
    let elsewhere = place.directory.path().join("elsewhere");
    let request = Request { moved: vec![Space { oid: 5, location: elsewhere.clone() }], ..place.request() };
    place.restore(&request).await.unwrap();
    place.check();
    assert!(elsewhere.join("PG_15_202209061/7/8").exists() && !place.directory.path().join("space").exists());
    assert_eq!(fs::read_to_string(place.root().join("tablespace_map")).unwrap(), format!("5 {}\n", elsewhere.display()));
}

#[tokio::test]
async fn what_is_right_of_an_old_directory_is_kept() {
    let place = Place::new().await;
    place.restore(&place.request()).await.unwrap();
    let path = |name: &str| place.root().join(name);
    let mut changed = place.files["base/1/100"].clone();
    changed[100_000] ^= 1;
    fs::write(path("base/1/100"), changed).unwrap();
    fs::write(path("base/1/999"), "dropped since").unwrap();
    fs::write(path("pg_wal/000000010000000000000007"), "another history").unwrap();
    fs::write(path("standby.signal"), "").unwrap();
    assert!(matches!(place.restore(&place.request()).await, Err(RestoreError::Refused { .. })), "not without being told to");
    let report = place.restore(&Request { delta: true, ..place.request() }).await.unwrap();
    place.check();
    assert!(!path("pg_wal/000000010000000000000007").exists());
    assert!(report.seen.moved < 40_000 && report.removed == 2, "{report:?}");
    assert!(report.seen.spared > 400_000, "{report:?}");
}

#[tokio::test]
async fn what_does_not_belong_there_goes_before_anything_needs_its_room() {
    let place = Place::new().await;
    place.restore(&place.request()).await.unwrap();
    let junk = [place.root().join("base/1/999"), place.directory.path().join("space/PG_15_202209061/7/9")];
    junk.iter().for_each(|path| fs::write(path, noise(7, 100_000)).unwrap());
    fs::remove_file(place.root().join("base/1/100")).unwrap();
    let first = place.archive.pack(&place.header.id, 0).unwrap();
    place.archive.store().remove(&first).await.unwrap();
    place.restore(&Request { delta: true, ..place.request() }).await.unwrap_err();
    assert!(junk.iter().all(|path| !path.exists()), "nothing was written yet");
    assert!(!is_startable(&place.root()));
}

#[tokio::test]
async fn what_was_interrupted_cannot_be_started_and_is_finished_by_the_same_request() {
    let place = Place::new().await;
    let manifest = place.archive.manifest(&place.header.id).unwrap();
    let broken = place.archive.pack(&place.header.id, 2).unwrap();
    let pack = place.archive.store().read(&broken).await.unwrap().unwrap();
    let mut damaged = pack.to_vec();
    damaged[5000] ^= 1;
    place.archive.store().replace(&broken, damaged.into()).await.unwrap();
    let error = place.restore(&place.request()).await.unwrap_err();
    assert!(matches!(error, RestoreError::Archive(ArchiveError::Damaged { .. })), "a drill tells it as a problem: {error:?}");
    let error = error.to_string();
    assert!(error.contains(broken.as_str()) && error.contains("chunk at"), "the damaged object is named: {error}");
    assert!(!place.root().join(CONTROL_FILE).exists() && restore_mark::is_unfinished(&place.root()));
    place.archive.store().remove(&broken).await.unwrap();
    let error = place.restore(&place.request()).await.unwrap_err().to_string();
    assert!(error.contains(broken.as_str()) && error.contains("not there"), "{error}");
    place.archive.store().replace(&broken, pack).await.unwrap();
    let report = place.restore(&place.request()).await.unwrap();
    place.check();
    assert!(is_startable(&place.root()) && report.seen.spared > 100_000, "{report:?}");
    let mut content = place.archive.store().read(&manifest).await.unwrap().unwrap().to_vec();
    let last = content.len() - 3;
    content[last] ^= 1;
    place.archive.store().replace(&manifest, content.into()).await.unwrap();
    let error = place.restore(&Request { delta: true, ..place.request() }).await.unwrap_err();
    assert!(matches!(error, RestoreError::Archive(ArchiveError::Damaged { .. })), "and so a damaged manifest: {error:?}");
    let error = error.to_string();
    assert!(error.contains(manifest.as_str()), "{error}");
    place.check();
    assert!(place.root().join(CONTROL_FILE).exists(), "a manifest is checked before anything is touched");
}

#[tokio::test]
async fn a_directory_that_is_not_empty_stays_as_it_is() {
    let place = Place::new().await;
    fs::create_dir(place.root()).unwrap();
    fs::write(place.root().join("precious"), "x").unwrap();
    for delta in [false, true] {
        assert!(matches!(place.restore(&Request { delta, ..place.request() }).await, Err(RestoreError::Refused { .. })));
    }
    assert_eq!(fs::read_dir(place.root()).unwrap().count(), 1);
}
