//! Builds WAL segments for tests, as a server writes them: pages with headers, records with checksums.

use crate::{
    model::{SystemId, Timeline, WalSegment},
    postgres::wal_records::{self, RECORD, SWITCH},
};

/// What a segment is built from.
#[derive(Debug, Clone)]
pub struct Segment {
    /// Whose it is.
    pub system: SystemId,
    /// Its name's timeline.
    pub timeline: u32,
    /// Which segment it is, counted from the log's beginning.
    pub number: u32,
    /// Its size in bytes.
    pub size: u32,
    /// Its records: the payload of each.
    pub records: Vec<Vec<u8>>,
    /// It ends with a switch record.
    pub switched: bool,
    /// What is in the bytes after the last record.
    pub rest: u8,
}

impl Segment {
    /// An empty one of a megabyte.
    pub fn new(timeline: u32, number: u32) -> Segment {
        let system = SystemId(7_300_000_000_000_000_001);
        Segment { system, timeline, number, size: 1 << 20, records: Vec::new(), switched: false, rest: 0 }
    }

    /// The same with these records.
    pub fn with(self, records: &[&[u8]]) -> Segment {
        Segment { records: records.iter().map(|record| record.to_vec()).collect(), ..self }
    }

    /// Its name.
    pub fn name(&self) -> WalSegment {
        WalSegment { timeline: Timeline(self.timeline), log: 0, number: self.number }
    }

    /// Its content.
    pub fn build(&self) -> Vec<u8> {
        let mut content = vec![self.rest; self.size as usize];
        let begin = u64::from(self.number) * u64::from(self.size);
        let mut writer = Writer { content: &mut content, begin, timeline: self.timeline, segment: self, at: 0 };
        let mut previous = begin.saturating_sub(RECORD as u64);
        for payload in &self.records {
            previous = writer.record(payload, 10, 0, previous);
        }
        if self.switched {
            writer.record(&[], 0, SWITCH, previous);
        }
        if self.records.is_empty() && !self.switched {
            writer.page_header(0);
        }
        content
    }
}

struct Writer<'a> {
    content: &'a mut [u8],
    begin: u64,
    timeline: u32,
    segment: &'a Segment,
    at: usize,
}

const PAGE: usize = 8192;

impl Writer<'_> {
    /// Writes the header of the page that begins here; `remaining`: so much of a record goes on in it.
    fn page_header(&mut self, remaining: usize) {
        let long = self.at == 0;
        let length = if long { 40 } else { 24 };
        let page = &mut self.content[self.at..self.at + length];
        page.fill(0);
        let info = u16::from(remaining > 0) | if long { 2 } else { 0 };
        page[..2].copy_from_slice(&0xD110_u16.to_ne_bytes());
        page[2..4].copy_from_slice(&info.to_ne_bytes());
        page[4..8].copy_from_slice(&self.timeline.to_ne_bytes());
        page[8..16].copy_from_slice(&(self.begin + self.at as u64).to_ne_bytes());
        page[16..20].copy_from_slice(&u32::try_from(remaining).unwrap().to_ne_bytes());
        if long {
            page[24..32].copy_from_slice(&self.segment.system.0.to_ne_bytes());
            page[32..36].copy_from_slice(&self.segment.size.to_ne_bytes());
            page[36..40].copy_from_slice(&u32::try_from(PAGE).unwrap().to_ne_bytes());
        }
        self.at += length;
    }

    /// Writes a record, over as many pages as it takes; returns where it begins. What does not fit into the segment is left out.
    fn record(&mut self, payload: &[u8], manager: u8, info: u8, previous: u64) -> u64 {
        let mut record = vec![0; RECORD];
        record[..4].copy_from_slice(&u32::try_from(RECORD + payload.len()).unwrap().to_ne_bytes());
        record[8..16].copy_from_slice(&previous.to_ne_bytes());
        record[16] = info;
        record[17] = manager;
        record.extend_from_slice(payload);
        let checksum = wal_records::checksum(&record);
        record[20..24].copy_from_slice(&checksum.to_ne_bytes());
        let (mut rest, mut begun) = (&record[..], None);
        while !rest.is_empty() && self.at < self.content.len() {
            if self.at.is_multiple_of(PAGE) {
                self.page_header(if begun.is_some() { rest.len() } else { 0 });
            }
            begun.get_or_insert(self.begin + self.at as u64);
            let fits = rest.len().min(PAGE - self.at % PAGE);
            self.content[self.at..self.at + fits].copy_from_slice(&rest[..fits]);
            self.at += fits;
            rest = &rest[fits..];
        }
        let aligned = self.at.next_multiple_of(8).min(self.content.len());
        self.content[self.at..aligned].fill(0);
        self.at = aligned;
        begun.unwrap_or(previous)
    }
}
