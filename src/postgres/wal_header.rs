//! What the first page of a WAL segment says of it: whose it is, and where it belongs.

use crate::model::{SystemId, Timeline, WalSegment};

/// Where a segment's long header ends.
const LENGTH: usize = 40;

/// A page header with the fields that only a segment's first page has.
const LONG: u16 = 0x0002;

/// The long header of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalHeader {
    /// The timeline that wrote the page. At a fork the new timeline's first segment begins as a copy of the old one's.
    pub timeline: Timeline,
    /// The position of the page.
    pub address: u64,
    /// Whose WAL it is.
    pub system: SystemId,
    /// The size of a segment in bytes.
    pub segment_size: u32,
    /// The size of a page in bytes.
    pub page_size: u32,
}

impl WalHeader {
    /// Reads it off the beginning of a segment. `None`: that is no such beginning.
    pub fn read(segment: &[u8]) -> Option<WalHeader> {
        let header = segment.get(..LENGTH)?;
        // PostgreSQL writes all of it in the order of the machine.
        let word = |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().expect("four bytes"));
        let long = |at: usize| u64::from_ne_bytes(header[at..at + 8].try_into().expect("eight bytes"));
        let (magic, info) = (u16::from_ne_bytes([header[0], header[1]]), u16::from_ne_bytes([header[2], header[3]]));
        // The magic number's upper half has been the same in every version, the lower half counts them.
        (magic >> 8 == 0xD1 && info & LONG != 0).then(|| WalHeader {
            timeline: Timeline(word(4)),
            address: long(8),
            system: SystemId(long(24)),
            segment_size: word(32),
            page_size: word(36),
        })
    }

    /// Why a segment of this content and length is not `name` of `system`.
    pub fn mistake(content: &[u8], name: WalSegment, system: SystemId) -> Option<String> {
        let Some(header) = WalHeader::read(content) else { return Some("it does not begin as a WAL segment does".to_owned()) };
        let size = u64::from(header.segment_size);
        if !size.is_power_of_two() || !(1 << 20..=1 << 30).contains(&size) {
            return Some(format!("its header names an impossible segment size of {size} bytes"));
        }
        if header.system != system {
            return Some(format!("it is WAL of system {}, not of {system}", header.system));
        }
        if content.len() as u64 != size {
            return Some(format!("it has {} bytes instead of {size}", content.len()));
        }
        if header.address != name.begin(size) {
            let (found, named) = (crate::model::Lsn(header.address), crate::model::Lsn(name.begin(size)));
            return Some(format!("it begins at {found}, and its name says {named}"));
        }
        (header.timeline > name.timeline).then(|| format!("it was written on timeline {}, after that of its name", header.timeline))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::wal_segment::Segment;

    const SYSTEM: SystemId = SystemId(7_300_000_000_000_000_001);

    /// Segment 5 of timeline 2, of the size of one megabyte.
    fn segment() -> Vec<u8> {
        Segment { system: SYSTEM, ..Segment::new(2, 5) }.build()
    }

    fn name(timeline: u32, number: u32) -> WalSegment {
        WalSegment { timeline: Timeline(timeline), log: 0, number }
    }

    #[test]
    fn a_segment_is_what_its_name_says_or_it_is_told_why_not() {
        let whole = segment();
        assert_eq!(WalHeader::mistake(&whole, name(2, 5), SYSTEM), None);
        assert_eq!(WalHeader::mistake(&whole, name(3, 5), SYSTEM), None, "a new timeline begins with a copy");
        let told = |content: &[u8], name, system| WalHeader::mistake(content, name, system).unwrap();
        assert!(told(&whole, name(1, 5), SYSTEM).contains("timeline 2"));
        assert!(told(&whole, name(2, 6), SYSTEM).contains("0/500000") && told(&whole, name(2, 6), SYSTEM).contains("0/600000"));
        assert!(told(&whole, name(2, 5), SystemId(1)).contains(&SYSTEM.to_string()));
        assert!(told(&whole[..4096], name(2, 5), SYSTEM).contains("4096"));
        assert!(told(&[0; 100], name(2, 5), SYSTEM).contains("does not begin"));
        assert!(told(&[], name(2, 5), SYSTEM).contains("does not begin"));
        let mut impossible = whole;
        impossible[32..36].copy_from_slice(&3u32.to_ne_bytes());
        assert!(told(&impossible, name(2, 5), SYSTEM).contains("impossible"));
    }
}
