//! The records of a WAL segment, as far as is needed to say where they end. What lies behind the last one is whatever the file had before
//! it was used again, and differs between servers that have written the same WAL.

use super::wal_header::WalHeader;

/// The length of a record's header.
pub(super) const RECORD: usize = 24;

/// `xl_info` of the record of the resource manager 0 after which the rest of a segment is unused.
pub(super) const SWITCH: u8 = 0x40;

/// Longest record that PostgreSQL writes.
const LONGEST: usize = 1 << 30;

/// A page that begins in the middle of a record.
const CONTINUES: u16 = 0x0001;

/// A page that begins with what replaces a record that was never completed.
const REPLACES: u16 = 0x0008;

/// Where a segment's records end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RecordsEnd {
    /// The offset behind the last valid record; 0 for what is no segment.
    pub at: usize,
    /// The server went on in the next segment: a record says so, or there is no room left.
    pub complete: bool,
}

/// Where the segment's records end. A record that goes on in the next segment ends with this one; the rest of one that began in the segment
/// before is taken as it is, because its checksum covers what is not here.
pub fn end_of_records(segment: &[u8]) -> RecordsEnd {
    let Some(header) = WalHeader::read(segment) else { return RecordsEnd::default() };
    let page = header.page_size as usize;
    if !page.is_power_of_two() || !(1 << 10..=1 << 16).contains(&page) || !segment.len().is_multiple_of(page) {
        return RecordsEnd::default();
    }
    let mut walk = Walk { segment, page, begin: header.address, at: 0, switched: false, whole: Vec::new() };
    walk.go();
    RecordsEnd { at: walk.at, complete: walk.switched || walk.at == segment.len() }
}

/// The checksum that belongs into a record of these bytes: of its body, then of its header.
pub(super) fn checksum(record: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&record[RECORD..]), &record[..RECORD - 4])
}

/// A way through a segment. `at` is behind what was found valid.
struct Walk<'a> {
    segment: &'a [u8],
    page: usize,
    /// The segment's first position.
    begin: u64,
    at: usize,
    switched: bool,
    /// The record that is looked at, put together from its pages.
    whole: Vec<u8>,
}

/// What came of reading some bytes.
enum Found {
    /// They are in `whole`, and end at this offset.
    All(usize),
    /// The segment ends before them.
    GoesOn,
    /// The server crashed before it had written them all; this page begins with what it wrote instead.
    Replaced(usize),
    /// There is no such record.
    Nothing,
}

impl Walk<'_> {
    fn go(&mut self) {
        let Some((length, mut remaining)) = self.page_header(0) else { return };
        self.at = length;
        if remaining > 0 {
            match self.collect(length, remaining) {
                Found::All(end) => self.at = self.aligned(end),
                Found::GoesOn => self.at = self.segment.len(),
                Found::Replaced(page) => self.at = page,
                Found::Nothing => return,
            }
        }
        let mut previous = None;
        loop {
            let Some(start) = self.next_start() else { return };
            match self.collect(start, RECORD) {
                Found::All(_) => {}
                Found::GoesOn => {
                    // Even a header that is cut off has its length in front.
                    if self.whole.iter().any(|byte| *byte != 0) {
                        self.at = self.segment.len();
                    }
                    return;
                }
                Found::Replaced(page) => {
                    (self.at, previous) = (page, None);
                    continue;
                }
                Found::Nothing => return,
            }
            let word = |at: usize| u32::from_ne_bytes(self.whole[at..at + 4].try_into().expect("four bytes"));
            let before = u64::from_ne_bytes(self.whole[8..16].try_into().expect("eight bytes"));
            let position = self.begin + start as u64;
            remaining = word(0) as usize;
            let follows = previous.map_or(before < position, |previous| before == previous);
            if !(RECORD..=LONGEST).contains(&remaining) || !follows {
                return;
            }
            let (stored, switches) = (word(20), self.whole[17] == 0 && self.whole[16] & 0xF0 == SWITCH);
            match self.collect(start, remaining) {
                Found::All(end) if checksum(&self.whole) == stored => self.at = self.aligned(end),
                Found::GoesOn => {
                    self.at = self.segment.len();
                    return;
                }
                Found::Replaced(page) => {
                    (self.at, previous) = (page, None);
                    continue;
                }
                Found::All(_) | Found::Nothing => return,
            }
            if switches {
                self.switched = true;
                return;
            }
            previous = Some(position);
        }
    }

    /// Where the next record begins: behind the header, at the beginning of a page that no record goes on in. `None`: at the segment's end,
    /// or there is no such page.
    fn next_start(&self) -> Option<usize> {
        if self.at >= self.segment.len() {
            return None;
        }
        if !self.at.is_multiple_of(self.page) {
            return Some(self.at);
        }
        self.page_header(self.at).filter(|(_, remaining)| *remaining == 0).map(|(length, _)| self.at + length)
    }

    /// Puts `length` bytes from `start` on into `whole`, with the pages' headers left out.
    fn collect(&mut self, start: usize, length: usize) -> Found {
        self.whole.clear();
        let mut at = start;
        while self.whole.len() < length {
            if at >= self.segment.len() {
                return Found::GoesOn;
            }
            if at.is_multiple_of(self.page) {
                match self.page_header(at) {
                    Some((header, remaining)) if remaining > 0 => at += header,
                    Some(_) if self.replaces(at) => return Found::Replaced(at),
                    _ => return Found::Nothing,
                }
            }
            let fits = (length - self.whole.len()).min(self.page - at % self.page);
            self.whole.extend_from_slice(&self.segment[at..at + fits]);
            at += fits;
        }
        Found::All(at)
    }

    /// The length of the header of the page at this offset, and how much of a record goes on behind it.
    fn page_header(&self, at: usize) -> Option<(usize, usize)> {
        let header = self.segment.get(at..at + 40)?;
        let half = |at: usize| u16::from_ne_bytes(header[at..at + 2].try_into().expect("two bytes"));
        let address = u64::from_ne_bytes(header[8..16].try_into().expect("eight bytes"));
        let remaining = u32::from_ne_bytes(header[16..20].try_into().expect("four bytes"));
        if half(0) >> 8 != 0xD1 || address != self.begin + at as u64 {
            return None;
        }
        let goes_on = half(2) & CONTINUES != 0 && half(2) & REPLACES == 0;
        Some((if at == 0 { 40 } else { 24 }, if goes_on { remaining as usize } else { 0 }))
    }

    fn replaces(&self, at: usize) -> bool {
        u16::from_ne_bytes([self.segment[at + 2], self.segment[at + 3]]) & REPLACES != 0
    }

    fn aligned(&self, at: usize) -> usize {
        at.next_multiple_of(8).min(self.segment.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::wal_segment::Segment;

    fn open(at: usize) -> RecordsEnd {
        RecordsEnd { at, complete: false }
    }

    fn complete(at: usize) -> RecordsEnd {
        RecordsEnd { at, complete: true }
    }

    #[test]
    fn the_end_of_the_records_is_found_whatever_lies_behind() {
        let long = vec![7; 30_000];
        for rest in [0, 0xAA] {
            let segment = Segment { rest, ..Segment::new(1, 3) }.with(&[b"one", &long, b"three"]);
            // 40 + (24 + 3 -> 32), 24 + 30000 with three more page headers, 24 + 5 -> 32.
            let end = 40 + 32 + (24 + 30_000) + 3 * 24 + 32;
            assert_eq!(end_of_records(&segment.build()), open(end), "{rest}");
            assert_eq!(end_of_records(&Segment { switched: true, ..segment }.build()), complete(end + 24), "{rest}");
        }
    }

    #[test]
    fn an_empty_segment_ends_behind_its_header_and_a_full_one_at_its_end() {
        assert_eq!(end_of_records(&Segment::new(1, 3).build()), open(40));
        let full: Vec<&[u8]> = vec![&[5; 100_000]; 11];
        assert_eq!(end_of_records(&Segment::new(1, 3).with(&full).build()), complete(1 << 20));
        assert_eq!(end_of_records(&[0; 8192]), open(0));
        assert_eq!(end_of_records(&[]), open(0));
    }

    #[test]
    fn records_end_before_the_first_that_is_damaged() {
        let whole = Segment::new(1, 3).with(&[b"one", b"two", b"three"]).build();
        for (at, end) in [(40 + 24, 40), (40 + 32 + 25, 40 + 32), (40 + 64 + 20, 40 + 64)] {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            assert_eq!(end_of_records(&damaged), open(end), "{at}");
        }
    }

    #[test]
    fn what_went_on_from_the_segment_before_counts() {
        let mut content = Segment::new(1, 3).with(&[b"one"]).build();
        let before = end_of_records(&content);
        // The record becomes the rest of an earlier one.
        content[2] |= 1;
        content[16..20].copy_from_slice(&27u32.to_ne_bytes());
        assert_eq!(end_of_records(&content), before);
    }

    #[test]
    fn a_record_that_a_crash_cut_off_is_followed_by_what_replaces_it() {
        let long = vec![7; 10_000];
        let mut content = Segment::new(1, 3).with(&[b"one", &long]).build();
        // On the second page somebody went on with another record instead.
        let other = Segment::new(1, 3).with(&[b"instead"]).build();
        let (page, record) = (8192, 24 + 7);
        content[page + 2..page + 4].copy_from_slice(&REPLACES.to_ne_bytes());
        content[page + 16..page + 20].fill(0);
        content[page + 24..].fill(0);
        content[page + 24..page + 24 + record].copy_from_slice(&other[40..40 + record]);
        assert_eq!(end_of_records(&content), open(page + 24 + 32));
    }
}
