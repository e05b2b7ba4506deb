//! What is read again, and what is taken over from the backup before.

use std::{
    fs,
    path::PathBuf,
    sync::mpsc,
    time::{Duration, SystemTime},
};

use jiff::SignedDuration;

use super::*;
use crate::{
    backup::{
        BackupId,
        base_backup::{
            file_memory::{About, MemoryWriter},
            known_chunks::OtherPacks,
        },
        chunk,
        manifest::{Chunk, ChunkPlace, Entry, EntryKind, Header, Pack},
        manifest_file::{self, Entries},
    },
    model::SystemId,
    sys::files,
};

const PATH: &[u8] = b"base/5/1259";
const RELATION: RelationFile = RelationFile { number: 1259, init: false, segment: 0 };

/// A data directory with one file, which a backup has read and remembers.
struct World {
    _outer: tempfile::TempDir,
    data: PathBuf,
    file: PathBuf,
    parent: BackupId,
}

impl World {
    fn new() -> World {
        // Where files of tests usually are, or in memory: of either the times are known to mean something.
        let places = [std::env::temp_dir(), "/dev/shm".into()].into_iter().filter_map(|place| tempfile::tempdir_in(place).ok());
        let mut places = places.filter(|place| File::open(place.path()).is_ok_and(|place| files::keeps_change_time(&place)));
        let outer = places.next().expect("a directory in ext4, XFS, Btrfs or tmpfs");
        let data = outer.path().join("data");
        let file = data.join("base/5/1259");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, [7; 16_384]).unwrap();
        World { _outer: outer, data, file, parent: BackupId::new(Timestamp::from_second(1_795_293_900).unwrap(), 1) }
    }

    fn about(&self) -> About {
        let all_read = Timestamp::now();
        About { backup: self.parent.clone(), system: SystemId(7), run: "run".to_owned(), all_read }
    }

    /// What the backup before remembers of the file as it is now.
    fn remembered(&self) -> Option<FileMemory> {
        let mut writer = MemoryWriter::begin(&self.data, &self.about()).unwrap();
        writer.add(PATH, &FileState::of(&fs::metadata(&self.file).unwrap())).unwrap();
        writer.keep().unwrap();
        self.kept()
    }

    fn kept(&self) -> Option<FileMemory> {
        FileMemory::open(&self.data, &self.parent, SystemId(7), "run", Timestamp::now())
    }

    /// The backup before, which has so many bytes of the file.
    fn parent(&self, size: u64) -> Option<ParentFiles> {
        let place = ChunkPlace { pack: 0, offset: 8, length: 100 };
        let chunks = vec![Chunk { digest: chunk::digest(&[7; 16_384]), place: Some(place) }];
        let kind = EntryKind::File { size, crc32c: 77, chunk_size: 65_536, chunks };
        let entry = Entry { path: PATH.to_vec(), mode: 0o600, modified: 5, kind };
        let pack = Pack { backup: self.parent.clone(), number: 0, size: 1000 };
        let header = Header { packs: vec![pack], entries: 1, ..Header::example(self.parent.clone()) };
        let object = manifest_file::object(&header, [&entry]).unwrap();
        let mut stream = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut stream, &object[manifest_file::header_end(&object).unwrap()..]).unwrap();
        io::Seek::rewind(&mut stream).unwrap();
        let entries = Entries::new(stream, &header).unwrap();
        ParentFiles::new("manifest".parse().unwrap(), &header, entries, &mut OtherPacks::default())
    }

    /// What becomes of the file in a backup that begins so many seconds from now.
    fn next(&self, parent: Option<ParentFiles>, memory: Option<FileMemory>, relation: Option<RelationFile>, later: i64) -> Next {
        let (pieces, _to_read) = mpsc::sync_channel(9);
        let (next, told) = mpsc::sync_channel(9);
        let files = Arc::new(DataFiles::new(&self.data, 170_005, 1));
        let begun = Timestamp::now() + SignedDuration::from_secs(later);
        let mut walk = Walk {
            files: files.clone(),
            total: 16_384,
            segment_pages: 131_072,
            page_size: 8192,
            parent,
            memory,
            begun,
            limit: ReadLimit::new(None),
            budget: Budget::new(1 << 30),
            open: Arc::default(),
            progress: Arc::default(),
            pieces,
            next,
            number: 0,
        };
        walk.file(&files, PATH, relation).unwrap();
        told.recv().unwrap()
    }

    fn is_unread(&self, memory: Option<FileMemory>) -> bool {
        matches!(self.next(self.parent(16_384), memory, Some(RELATION), 100), Next::Unread { .. })
    }
}

#[test]
fn what_nobody_has_written_to_is_taken_over_from_the_backup_before() {
    let world = World::new();
    match world.next(world.parent(16_384), world.remembered(), Some(RELATION), 100) {
        Next::Unread { path, before, settled, .. } => {
            assert_eq!((&path[..], before.size, before.crc32c, before.chunks.len()), (PATH, 16_384, 77, 1));
            assert!(before.chunks[0].1.is_some_and(|stored| (stored.pack, stored.offset, stored.length) == (0, 8, 100)));
            assert_eq!(settled, FileState::of(&fs::metadata(&world.file).unwrap()));
        }
        _ => panic!("it is read again"),
    }
}

#[test]
fn a_write_that_hides_itself_is_read() {
    let world = World::new();
    let memory = world.remembered();
    let modified = fs::metadata(&world.file).unwrap().modified().unwrap();
    std::thread::sleep(Duration::from_millis(30));
    fs::write(&world.file, [8; 16_384]).unwrap();
    File::options().write(true).open(&world.file).unwrap().set_modified(modified).unwrap();
    assert_eq!(fs::metadata(&world.file).unwrap().modified().unwrap(), modified);
    assert!(!world.is_unread(memory));
}

#[test]
fn another_file_in_its_place_is_read() {
    let world = World::new();
    let memory = world.remembered();
    let copy = world.file.with_extension("copy");
    fs::copy(&world.file, &copy).unwrap();
    File::options().write(true).open(&copy).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    fs::rename(&copy, &world.file).unwrap();
    assert!(!world.is_unread(memory));
}

#[test]
fn without_a_memory_or_a_backup_before_everything_is_read() {
    let world = World::new();
    assert!(!world.is_unread(None));
    assert!(!matches!(world.next(None, world.remembered(), Some(RELATION), 100), Next::Unread { .. }));
    // The backup before has read another length than the kernel told.
    assert!(!matches!(world.next(world.parent(8192), world.kept(), Some(RELATION), 100), Next::Unread { .. }));
    assert!(world.is_unread(world.kept()));
}

#[test]
fn what_was_just_written_and_what_is_no_relation_is_read_and_not_remembered() {
    let world = World::new();
    for (relation, later) in [(Some(RELATION), 0), (None, 100)] {
        let next = world.next(world.parent(16_384), world.remembered(), relation, later);
        assert!(matches!(next, Next::File { settled: None, .. }));
    }
    assert!(matches!(world.next(None, None, Some(RELATION), 100), Next::File { settled: Some(_), .. }));
}
