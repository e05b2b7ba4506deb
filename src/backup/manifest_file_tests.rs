//! Whether a manifest comes back as it was, and whether anything else does.

use super::*;
use crate::backup::{
    BackupId,
    chunk::LONGEST_STORED,
    manifest::{Chunk, ChunkPlace, EntryKind, Pack},
};

fn header(entries: u64) -> Header {
    let id: BackupId = "20261121T204500Z-1a2b3c4d".parse().unwrap();
    Header {
        label: "START WAL LOCATION: 0/2000028\n".to_owned(),
        packs: vec![Pack { backup: id.clone(), number: 0, size: 1 << 20 }],
        entries,
        ..Header::example(id)
    }
}

fn directory(path: &str) -> Entry {
    Entry { path: path.into(), mode: 0o700, modified: 1_795_293_900, kind: EntryKind::Directory }
}

fn file(path: &str, chunks: u32) -> Entry {
    let mut random = fastrand::Rng::with_seed(u64::from(chunks));
    let mut chunk = |n: u32| Chunk {
        digest: std::array::from_fn(|_| random.u8(..)),
        place: (!n.is_multiple_of(3)).then_some(ChunkPlace { pack: 0, offset: 8 + n * 100, length: 100 }),
    };
    let chunks: Vec<Chunk> = (0..chunks).map(&mut chunk).collect();
    let size = (chunks.len() as u64 * 65_536).saturating_sub(100);
    Entry { path: path.into(), mode: 0o600, modified: -1, kind: EntryKind::File { size, crc32c: 7, chunk_size: 65_536, chunks } }
}

fn entries() -> Vec<Entry> {
    let mut entries = vec![directory("base"), directory("base/1"), file("base/1/1259", 4), file("base/1/1259_vm", 0)];
    entries.extend((0..300).map(|n| file(&format!("base/5/{:06}", n), n)));
    entries.extend([directory("global"), file("postgresql.conf", 1), file("global/pg_control", 1)]);
    entries
}

fn read_all(object: &[u8]) -> Result<(Header, Vec<Entry>), String> {
    let (header, entries) = read(&Bytes::copy_from_slice(object))?;
    Ok((header, entries.collect::<Result<_, _>>()?))
}

/// An object with a right digest around whatever `change` has made of what it covers.
fn forged(change: impl FnOnce(&mut Header, &mut Vec<Entry>)) -> Bytes {
    let mut entries = entries();
    let mut header = header(entries.len() as u64);
    change(&mut header, &mut entries);
    let mut stream = zstd::Encoder::new(Vec::new(), 1).unwrap();
    for entry in &entries {
        let packed = postcard::to_stdvec(entry).unwrap();
        stream.write_all(&u32::try_from(packed.len()).unwrap().to_le_bytes()).unwrap();
        stream.write_all(&packed).unwrap();
    }
    let stream = stream.finish().unwrap();
    let mut out = Vec::new();
    write(&header, || Ok(&stream[..]), &mut out).unwrap();
    out.into()
}

#[test]
fn a_manifest_comes_back_as_it_was() {
    let (entries, header) = (entries(), header(entries().len() as u64));
    let object = object(&header, &entries).unwrap();
    assert_eq!(read_all(&object).unwrap(), (header, entries));
}

#[test]
fn the_header_is_read_without_the_rest() {
    let entries = entries();
    let object = object(&header(entries.len() as u64), &entries).unwrap();
    let end = header_end(&object[..PREFIX]).unwrap();
    assert!(end < object.len());
    assert_eq!(read_header(&object[..end]).unwrap(), header(entries.len() as u64));
    assert!(read_header(&object[..end - 1]).is_err());
    assert!(header_end(&object[..PREFIX - 1]).is_err());
}

#[test]
fn whatever_is_changed_is_found() {
    let entries = entries();
    let object = object(&header(entries.len() as u64), &entries).unwrap();
    for at in (0..object.len()).step_by(211).chain(0..PREFIX).chain(object.len() - 20..object.len()) {
        let mut changed = object.to_vec();
        changed[at] ^= 0x20;
        assert!(read(&changed.into()).is_err(), "byte {at}");
    }
    for length in (0..object.len()).step_by(499) {
        assert!(read(&object.slice(..length)).is_err(), "{length} bytes");
    }
    assert!(read(&[&object[..], b"x"].concat().into()).is_err());
}

#[test]
fn an_object_is_checked_piece_by_piece_too() {
    let entries = entries();
    let object = object(&header(entries.len() as u64), &entries).unwrap();
    let told = |object: &[u8]| {
        let mut check = ManifestCheck::begin(&object[..100]).unwrap();
        object[100..].chunks(1000).for_each(|piece| check.update(piece));
        check.finish()
    };
    assert_eq!(told(&object), Ok(()));
    assert!(told(&object[..object.len() - 1]).is_err());
}

#[test]
fn what_nobody_may_rely_on_is_not_handed_out_even_with_a_right_digest() {
    let told = |change: fn(&mut Header, &mut Vec<Entry>)| read_all(&forged(change)).unwrap_err();
    assert!(read_all(&forged(|_, _| {})).is_ok());
    assert!(told(|header, _| header.entries += 1).contains("too early"));
    assert!(told(|header, _| header.entries -= 1).contains("more entries"));
    assert!(told(|header, _| header.packs.clear()).contains("in no pack"));
    assert!(told(|header, _| header.packs[0].size = 200).contains("in no pack"));
    let longer: fn(&mut Header, &mut Vec<Entry>) = |header, entries| {
        header.packs[0].size = 1 << 30;
        let EntryKind::File { chunks, .. } = &mut entries[2].kind else { panic!("it is a file") };
        chunks[1].place = Some(ChunkPlace { pack: 0, offset: 0, length: u32::try_from(LONGEST_STORED).unwrap() + 1 });
    };
    assert!(told(longer).contains("longer"));
    assert!(told(|_, entries| entries.swap(2, 3)).contains("out of order"));
    assert!(told(|_, entries| entries[1] = entries[0].clone()).contains("out of order"));
    assert!(told(|_, entries| entries.rotate_right(1)).contains("out of order"), "pg_control is last");
    for path in ["../x", "/etc/passwd", "a/../../b", "", "a//b", "a/.", "a\0b"] {
        let object = forged(|_, entries| entries[0].path = path.into());
        assert!(read_all(&object).unwrap_err().contains("leads out"), "{path}");
    }
    for (size, length) in [(1 << 40, 65_536), (0, 65_536), (300_000, 0), (300_000, u32::MAX)] {
        let object = forged(|_, entries| {
            if let EntryKind::File { size: told, chunk_size, .. } = &mut entries[2].kind {
                (*told, *chunk_size) = (size, length);
            }
        });
        assert!(read_all(&object).unwrap_err().contains("chunks for"), "{size} {length}");
    }
}

#[test]
fn a_length_that_is_promised_costs_no_memory() {
    let stream = zstd::bulk::compress(&[&u32::MAX.to_le_bytes()[..], b"x"].concat(), 1).unwrap();
    let mut object = Vec::new();
    write(&header(1), || Ok(&stream[..]), &mut object).unwrap();
    assert!(read_all(&object).unwrap_err().contains("impossible length"));
    let promised = u32::try_from(LONGEST_ENTRY).unwrap().to_le_bytes();
    let stream = zstd::bulk::compress(&[&promised[..], b"x"].concat(), 1).unwrap();
    let mut object = Vec::new();
    write(&header(1), || Ok(&stream[..]), &mut object).unwrap();
    assert!(read_all(&object).unwrap_err().contains("too early"));
    object[40..44].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(header_end(&object).unwrap_err().contains("impossible length"));
}

#[test]
fn entries_out_of_order_are_not_written() {
    let mut writer = EntryWriter::new(Vec::new()).unwrap();
    writer.add(&directory("base")).unwrap();
    assert!(writer.add(&directory("base")).is_err() && writer.add(&directory("a")).is_err());
    writer.add(&file("global/pg_control", 1)).unwrap();
    assert!(writer.add(&directory("pg_wal")).is_err());
    assert_eq!(writer.count(), 2);
}

#[test]
fn a_chunk_is_as_long_as_the_file_goes_on() {
    let entry = file("a", 3);
    let lengths: Vec<_> = (0..4).map(|n| entry.chunk_length(n)).collect();
    assert_eq!(lengths, [65_536, 65_536, 65_436, 0]);
    assert_eq!(directory("a").chunk_length(0), 0);
}
