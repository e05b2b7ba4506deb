//! What comes into the manifest of files that were not read, and what of the others is remembered.

use std::{
    io::{Seek, Write},
    path::Path,
    sync::mpsc,
};

use jiff::Timestamp;

use super::*;
use crate::{
    backup::{
        base_backup::{
            budget::Budget,
            file_memory::{About, FileMemory},
        },
        encryption::Sealer,
        manifest::Header,
        manifest_file::Entries,
    },
    model::SystemId,
};

fn state(data: &Path) -> FileState {
    FileState::of(&std::fs::metadata(data).unwrap())
}

/// A file of one piece that was read, with this page damaged.
fn file(path: &str, number: u64, data: &Path, bad: Option<u32>) -> (Next, PieceRead) {
    let settled = Some(state(data));
    let next = Next::File { path: path.into(), mode: 0o600, modified: 5, chunk_size: 65_536, pieces: 1, settled };
    let bad_pages = bad.map(|page| BadBlock { page, written: None }).into_iter().collect();
    let held = Budget::new(100).take(10).unwrap();
    (next, PieceRead { number, length: 0, crc32c: 0, chunks: Vec::new(), packed: Vec::new(), bad_pages, held })
}

#[test]
fn a_file_that_was_not_read_is_as_it_was_and_one_with_damage_is_read_again() {
    let outer = tempfile::tempdir().unwrap();
    let data = outer.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let id = |chance| BackupId::new(Timestamp::from_second(1_795_293_900).unwrap(), chance);
    let mut others = OtherPacks::default();
    for number in [3, 4] {
        others.add(Pack { backup: id(1), number, size: 1000 }).unwrap();
    }
    let about = About { backup: id(2), system: SystemId(7), run: "run".to_owned(), all_read: Timestamp::now() };
    let memory = MemoryWriter::begin(&data, &about);
    let (next, told) = mpsc::channel();
    let (read, pieces) = mpsc::channel();
    for (at, (path, bad)) in [("base/5/1", None), ("base/5/2", Some(9))].into_iter().enumerate() {
        let (file, piece) = file(path, at as u64, &data, bad);
        next.send(file).unwrap();
        read.send(piece).unwrap();
    }
    let stored = Stored { pack: 1, offset: 8, length: 100 };
    let before = Before { chunk_size: 65_536, size: 70_000, crc32c: 77, chunks: vec![([1; 16], Some(stored)), ([0; 16], None)] };
    let (held, settled) = (Budget::new(100).take(10).unwrap(), state(&data));
    next.send(Next::Unread { path: "base/5/3".into(), mode: 0o600, modified: 5, before, settled, held }).unwrap();
    next.send(Next::End).unwrap();

    let (ready, _packs) = tokio::sync::mpsc::unbounded_channel();
    let new_packs = NewPacks { folder: "pack".parse().unwrap(), sealer: Sealer::default() };
    let packer = Packer::new(id(2), new_packs, Arc::new(others), ready, Arc::default(), memory);
    let packed = packer.run(&told, InOrder::new(pieces)).unwrap();
    assert_eq!((packed.size, packed.unread, packed.stored), (70_000, 70_000, 0));
    assert_eq!(packed.packs, [Pack { backup: id(1), number: 4, size: 1000 }]);
    let mut stream = packed.entries;
    stream.flush().unwrap();
    stream.rewind().unwrap();
    let header = Header { packs: packed.packs, entries: packed.count, ..Header::example(id(2)) };
    let last = Entries::new(stream, &header).unwrap().last().unwrap().unwrap();
    let chunks = vec![
        Chunk { digest: [1; 16], place: Some(ChunkPlace { pack: 0, offset: 8, length: 100 }) },
        Chunk { digest: [0; 16], place: None },
    ];
    assert_eq!(last.kind, EntryKind::File { size: 70_000, crc32c: 77, chunk_size: 65_536, chunks });

    packed.memory.unwrap().keep().unwrap();
    let mut memory = FileMemory::open(&data, &id(2), SystemId(7), "run", Timestamp::now()).unwrap();
    let known = ["base/5/1", "base/5/2", "base/5/3"].map(|path| memory.state(path.as_bytes()).is_some());
    assert_eq!(known, [true, false, true]);
}
