//! A small backup in a store, and every kind of damage to it.

use std::cell::RefCell;

use bytes::Bytes;
use jiff::Timestamp;

use super::*;
use crate::{
    backup::{
        archived_wal::ArchivedWal,
        chunk::{self, ChunkPacker},
        manifest::{Chunk, ChunkPlace, Entry, EntryKind, Moment},
        manifest_file,
        pack::PackBuilder,
    },
    model::{Lsn, SystemId, Timeline},
    storage::{Claim, FileStore, Object, StoreError},
};

const SYSTEM: SystemId = SystemId(7_300_000_000_000_000_001);
const SEGMENT: u32 = 1 << 20;
const CHUNK: u32 = 64 << 10;

struct Place {
    _directory: tempfile::TempDir,
    archive: Archive<FileStore>,
    header: Header,
    entries: Vec<Entry>,
}

/// A file's content: pages of zeros, of text and of noise.
fn content(seed: u64, chunks: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut content = vec![0; chunks * CHUNK as usize - 100];
    for (number, chunk) in content.chunks_mut(CHUNK as usize).enumerate().filter(|(number, _)| number % 3 != 1) {
        chunk.fill_with(|| random.u8(..if number % 3 == 0 { 255 } else { 4 }));
    }
    content
}

impl Place {
    /// A backup whose second pack belongs to an earlier one, and the WAL that it needs, over a change of the timeline.
    async fn new() -> Place {
        let directory = tempfile::tempdir().unwrap();
        let archive = Archive::new(FileStore::init(directory.path()).unwrap(), "orders".parse().unwrap(), SYSTEM);
        let mut place = Place { _directory: directory, archive, header: header(), entries: Vec::new() };
        let [mut first, mut second] = [PackBuilder::default(), PackBuilder::default()];
        for (path, pack, chunks) in [("base/5/16384", 0, 9), ("base/5/16385", 1, 3), ("base/5/16386", 0, 1), ("global/pg_control", 1, 1)] {
            let builder = if pack == 0 { &mut first } else { &mut second };
            place.entries.push(file(path, &content(chunks, usize::try_from(chunks).unwrap()), pack, builder));
        }
        for (pack, builder) in place.header.packs.iter_mut().zip([first, second]) {
            let object = builder.content();
            pack.size = object.len() as u64;
            place.archive.store().create(&place.archive.pack(&pack.backup, pack.number).unwrap(), object).await.unwrap();
        }
        place.put_manifest().await;
        for (timeline, number) in [(1, 2), (1, 3), (2, 4), (2, 5)] {
            place.put_segment(timeline, number).await;
        }
        let history = b"1\t0/400100\tno recovery target specified\n";
        place.put_wal(WalFile::History(Timeline(2)), history).await;
        place
    }

    async fn put_manifest(&mut self) {
        self.header.entries = self.entries.len() as u64;
        let object = manifest_file::object(&self.header, &self.entries).unwrap();
        self.archive.store().replace(&self.archive.manifest(&self.header.id).unwrap(), object).await.unwrap();
    }

    async fn put_segment(&self, timeline: u32, number: u32) {
        let mut content = vec![0; SEGMENT as usize];
        content[..4].copy_from_slice(&[0x10, 0xD1, 0x02, 0x00]);
        content[4..8].copy_from_slice(&timeline.to_le_bytes());
        content[8..16].copy_from_slice(&(u64::from(number) << 20).to_le_bytes());
        content[24..32].copy_from_slice(&SYSTEM.0.to_le_bytes());
        content[32..36].copy_from_slice(&SEGMENT.to_le_bytes());
        self.put_wal(WalFile::Segment(segment(timeline, number)), &content).await;
    }

    async fn put_wal(&self, file: WalFile, content: &[u8]) {
        let object = wal_object::pack(&wal_object::Head::of(content), content).unwrap();
        self.archive.store().replace(&self.archive.object(file).unwrap(), object).await.unwrap();
    }

    async fn look(&self, depth: Depth) -> Findings {
        let wal = ArchivedWal::read(&self.archive, Some(SEGMENT)).await.unwrap();
        let told = RefCell::new((0, 0));
        let progress = |done, total| *told.borrow_mut() = (done, total);
        let findings = verify(&self.archive, &self.header, &wal.graph, &Look { depth, lanes: 2, progress: &progress }).await.unwrap();
        let (done, total) = *told.borrow();
        assert!(done <= total, "{done} of {total}");
        if depth == Depth::Read && findings.is_empty() {
            assert_eq!(done, total);
        }
        findings
    }

    async fn said(&self, depth: Depth) -> Vec<String> {
        self.look(depth).await.problems.iter().map(Problem::to_string).collect()
    }

    fn pack(&self, number: usize) -> ObjectName {
        let pack = &self.header.packs[number];
        self.archive.pack(&pack.backup, pack.number).unwrap()
    }

    async fn change(&self, object: &ObjectName, change: impl FnOnce(&mut Vec<u8>)) {
        let mut content = self.archive.store().read(object).await.unwrap().unwrap().to_vec();
        change(&mut content);
        self.archive.store().replace(object, Bytes::from(content)).await.unwrap();
    }
}

fn segment(timeline: u32, number: u32) -> WalSegment {
    WalSegment { timeline: Timeline(timeline), log: 0, number }
}

fn header() -> Header {
    let (id, earlier): (BackupId, BackupId) = ("20261121T204500Z-1a2b3c4d".parse().unwrap(), "20261120T204500Z-00000001".parse().unwrap());
    let moment =
        |lsn, timeline| Moment { time: Timestamp::from_second(1_795_293_900).unwrap(), lsn: Lsn(lsn), timeline: Timeline(timeline) };
    Header {
        from_standby: true,
        segment_size: SEGMENT,
        start: moment(0x20_0028, 1),
        stop: moment(0x50_0100, 2),
        parent: Some(earlier.clone()),
        packs: vec![Pack { backup: id.clone(), number: 0, size: 0 }, Pack { backup: earlier, number: 7, size: 0 }],
        ..Header::example(id)
    }
}

fn file(path: &str, content: &[u8], pack: u32, builder: &mut PackBuilder) -> Entry {
    let mut packer = ChunkPacker::new(chunk::LEVEL).unwrap();
    let mut one = |piece: &[u8]| {
        let digest = chunk::digest(piece);
        let place = (!chunk::is_zero(piece)).then(|| {
            let placed = builder.add(&digest, &packer.pack(piece).unwrap(), u32::try_from(piece.len()).unwrap());
            ChunkPlace { pack, offset: placed.offset, length: placed.length }
        });
        Chunk { digest, place }
    };
    let chunks = content.chunks(CHUNK as usize).map(&mut one).collect();
    let kind = EntryKind::File { size: content.len() as u64, crc32c: crc32c::crc32c(content), chunk_size: CHUNK, chunks };
    Entry { path: path.into(), mode: 0o600, modified: 0, kind }
}

fn place_of(entry: &mut Entry, number: usize) -> &mut Chunk {
    let EntryKind::File { chunks, .. } = &mut entry.kind else { panic!("it is a file") };
    &mut chunks[number]
}

#[tokio::test]
async fn nothing_is_found_where_nothing_is_wrong() {
    let place = Place::new().await;
    for depth in [Depth::Presence, Depth::Read] {
        assert_eq!(place.look(depth).await, Findings::default());
    }
}

#[tokio::test]
async fn a_flipped_bit_is_found_by_reading_and_the_pages_are_named() {
    let mut place = Place::new().await;
    let chunk = place_of(&mut place.entries[0], 3).place.unwrap();
    place.change(&place.pack(0), |pack| pack[chunk.offset as usize + 500] ^= 1).await;
    assert_eq!(place.said(Depth::Presence).await, [""; 0]);
    let said = place.said(Depth::Read).await;
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("1a2b3c4d/pack/00000000") && said[0].contains("'base/5/16384', pages 24 to 31"), "{said:?}");
}

#[tokio::test]
async fn every_flipped_bit_of_a_chunk_is_found() {
    let place = Place::new().await;
    let whole = place.archive.store().read(&place.pack(1)).await.unwrap().unwrap();
    let index = crate::backup::pack::read_index(&whole).unwrap();
    for chunk in index {
        for at in (chunk.offset..chunk.offset + chunk.length).step_by(4093) {
            place.change(&place.pack(1), |pack| pack[at as usize] ^= 0x80).await;
            assert_eq!(place.look(Depth::Read).await.count, 1, "byte {at}");
            place.archive.store().replace(&place.pack(1), whole.clone()).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_missing_pack_is_named_with_all_that_is_lost_with_it() {
    let place = Place::new().await;
    place.archive.store().remove(&place.pack(1)).await.unwrap();
    for depth in [Depth::Presence, Depth::Read] {
        let said = place.said(depth).await;
        assert_eq!(said.len(), 3, "{said:?}");
        assert!(said.iter().all(|line| line.contains("00000001/pack/00000007': it is missing")), "{said:?}");
        assert!(said[0].contains("'base/5/16385', pages 0 to 7") && said[1].contains("'base/5/16385', pages 16 to 23"), "{said:?}");
        assert!(said[2].contains("'global/pg_control', bytes 0 to 65436"), "{said:?}");
    }
}

#[tokio::test]
async fn a_pack_that_was_cut_short_is_found_without_reading_it() {
    let place = Place::new().await;
    place.change(&place.pack(0), |pack| pack.truncate(pack.len() - 1)).await;
    for depth in [Depth::Presence, Depth::Read] {
        let said = place.said(depth).await;
        assert!(said.iter().all(|line| line.contains("bytes instead of")) && said.iter().any(|line| line.contains("16386")), "{said:?}");
    }
}

#[tokio::test]
async fn a_pack_of_which_nothing_is_needed_is_missing_too() {
    let mut place = Place::new().await;
    place.header.packs.push(Pack { backup: place.header.id.clone(), number: 9, size: 7 });
    place.put_manifest().await;
    let said = place.said(Depth::Presence).await;
    assert!(said.len() == 1 && said[0].contains("pack/00000009': it is missing"), "{said:?}");
}

#[tokio::test]
async fn a_damaged_manifest_is_found_by_reading() {
    let place = Place::new().await;
    let object = place.archive.manifest(&place.header.id).unwrap();
    place.change(&object, |manifest| *manifest.last_mut().unwrap() ^= 1).await;
    let said = place.said(Depth::Read).await;
    assert!(said.len() == 1 && said[0].contains("/manifest': its content is not what was written"), "{said:?}");
    place.archive.store().remove(&object).await.unwrap();
    assert!(place.said(Depth::Read).await[0].contains("it is missing"));
}

#[tokio::test]
async fn a_manifest_that_names_other_chunks_than_were_read_is_found() {
    let mut place = Place::new().await;
    let other = *place_of(&mut place.entries[0], 6);
    *place_of(&mut place.entries[0], 3) = other;
    place.put_manifest().await;
    let said = place.said(Depth::Read).await;
    assert!(said.len() == 1 && said[0].contains("not what was read") && said[0].contains("16384"), "{said:?}");
    let mut place = Place::new().await;
    place_of(&mut place.entries[0], 1).digest = [7; 16];
    place.put_manifest().await;
    assert!(place.said(Depth::Read).await[0].contains("not what was read"), "zeros have their digest too");
}

#[tokio::test]
async fn a_backup_without_its_control_file_is_none() {
    let mut place = Place::new().await;
    place.entries.pop();
    place.put_manifest().await;
    assert!(place.said(Depth::Read).await[0].contains("global/pg_control"));
}

#[tokio::test]
async fn missing_wal_is_named() {
    let place = Place::new().await;
    let object = place.archive.object(WalFile::Segment(segment(1, 3))).unwrap();
    place.archive.store().remove(&object).await.unwrap();
    for depth in [Depth::Presence, Depth::Read] {
        let said = place.said(depth).await;
        assert!(said.len() == 1 && said[0].contains("000000010000000000000003"), "{said:?}");
    }
    place.put_segment(1, 3).await;
    place.archive.store().remove(&place.archive.object(WalFile::History(Timeline(2))).unwrap()).await.unwrap();
    let said = place.said(Depth::Presence).await;
    assert!(said[0].contains("no history in the archive leads from timeline 1"), "{said:?}");
}

#[tokio::test]
async fn damaged_wal_is_found_by_reading() {
    let place = Place::new().await;
    let object = place.archive.object(WalFile::Segment(segment(2, 4))).unwrap();
    place.change(&object, |packed| packed[30] ^= 1).await;
    assert_eq!(place.said(Depth::Presence).await, [""; 0]);
    let said = place.said(Depth::Read).await;
    assert!(said.len() == 1 && said[0].contains("000000020000000000000004"), "{said:?}");
    let elsewhere = place.archive.object(WalFile::Segment(segment(2, 5))).unwrap();
    let swapped = place.archive.store().read(&elsewhere).await.unwrap().unwrap();
    place.archive.store().replace(&object, swapped).await.unwrap();
    assert!(place.said(Depth::Read).await[0].contains("its name says"));
}

#[tokio::test]
async fn the_segment_in_which_a_timeline_was_left_may_be_the_next_ones() {
    let mut place = Place::new().await;
    place.header.stop = Moment { lsn: Lsn(0x40_0080), timeline: Timeline(1), ..place.header.stop.clone() };
    place.put_manifest().await;
    assert_eq!(
        place.look(Depth::Read).await,
        Findings::default(),
        "timeline 1 ended in segment 4, of which only timeline 2 has a whole one"
    );
}

/// A store on whose way the first answer of each kind is damaged.
struct BadWay<'a> {
    store: &'a FileStore,
    asked: RefCell<BTreeSet<ObjectName>>,
}

impl BadWay<'_> {
    fn on_the_way(&self, name: &ObjectName, content: Option<Bytes>) -> Option<Bytes> {
        let first = self.asked.borrow_mut().insert(name.clone());
        let mut content = content?.to_vec();
        if let Some(last) = content.last_mut().filter(|_| first) {
            *last ^= 1;
        }
        Some(Bytes::from(content))
    }
}

impl ObjectStore for BadWay<'_> {
    async fn create(&self, name: &ObjectName, content: Bytes) -> Result<Claim, StoreError> {
        self.store.create(name, content).await
    }

    async fn replace(&self, name: &ObjectName, content: Bytes) -> Result<(), StoreError> {
        self.store.replace(name, content).await
    }

    async fn read(&self, name: &ObjectName) -> Result<Option<Bytes>, StoreError> {
        Ok(self.on_the_way(name, self.store.read(name).await?))
    }

    async fn read_range(&self, name: &ObjectName, offset: u64, length: u64) -> Result<Option<Bytes>, StoreError> {
        Ok(self.on_the_way(name, self.store.read_range(name, offset, length).await?))
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

#[tokio::test]
async fn what_is_damaged_on_its_way_alone_is_no_damage() {
    let place = Place::new().await;
    let wal = ArchivedWal::read(&place.archive, Some(SEGMENT)).await.unwrap();
    let way = BadWay { store: place.archive.store().bare(), asked: RefCell::default() };
    let archive = Archive::new(way, "orders".parse().unwrap(), SYSTEM);
    let look = Look { depth: Depth::Read, lanes: 2, progress: &|_, _| {} };
    assert_eq!(verify(&archive, &place.header, &wal.graph, &look).await.unwrap(), Findings::default());
    assert_eq!(archive.store().bare().asked.borrow().len(), 7, "a manifest, two packs, four segments: each was damaged once");
}
