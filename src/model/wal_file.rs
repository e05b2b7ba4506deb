//! The names of the files that PostgreSQL archives.

use std::{fmt, str::FromStr};

use super::Timeline;

/// A WAL segment's name: `000000010000000A000000FF`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WalSegment {
    /// Whose segment it is.
    pub timeline: Timeline,
    /// The upper half of its first position.
    pub log: u32,
    /// Which segment of those that begin with this half.
    pub number: u32,
}

impl WalSegment {
    /// The segment number `ordinal` of a timeline, counted from position 0, where segments have `size` bytes.
    pub fn nth(timeline: Timeline, ordinal: u64, size: u64) -> WalSegment {
        let per_log = (1 << 32) / size;
        let half = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        WalSegment { timeline, log: half(ordinal / per_log), number: half(ordinal % per_log) }
    }

    /// Which segment it is, counted from position 0. `None`: segments of `size` bytes have no such name.
    pub fn ordinal(self, size: u64) -> Option<u64> {
        let per_log = (1 << 32) / size;
        let number = u64::from(self.number);
        (number < per_log).then(|| u64::from(self.log) * per_log + number)
    }

    /// The position of its first byte, where segments have `size` bytes.
    pub fn begin(self, size: u64) -> u64 {
        (u64::from(self.log) << 32) + u64::from(self.number) * size
    }
}

impl fmt::Display for WalSegment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08X}{:08X}{:08X}", self.timeline.0, self.log, self.number)
    }
}

/// A file that PostgreSQL archives, or asks the archive for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WalFile {
    /// A whole segment.
    Segment(WalSegment),
    /// The segment in which a timeline was left for another one: `….partial`.
    Partial(WalSegment),
    /// A note on a base backup that began in this segment at this offset: `….00000028.backup`.
    BackupNote(WalSegment, u32),
    /// Where a timeline comes from: `00000002.history`.
    History(Timeline),
}

impl fmt::Display for WalFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WalFile::Segment(segment) => write!(f, "{segment}"),
            WalFile::Partial(segment) => write!(f, "{segment}.partial"),
            WalFile::BackupNote(segment, offset) => write!(f, "{segment}.{offset:08X}.backup"),
            WalFile::History(timeline) => write!(f, "{:08X}.history", timeline.0),
        }
    }
}

/// The text is not the name of a file that PostgreSQL archives.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not the name of a WAL file (expected something like 000000010000000000000001 or 00000002.history)")]
pub struct InvalidWalFile(String);

impl FromStr for WalFile {
    type Err = InvalidWalFile;

    fn from_str(text: &str) -> Result<WalFile, InvalidWalFile> {
        parse(text).ok_or_else(|| InvalidWalFile(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<WalFile> {
    let (name, kind) = text.split_once('.').unwrap_or((text, ""));
    if kind == "history" {
        return Some(WalFile::History(Timeline(hex(name)?)));
    }
    let part = |at: usize| hex(name.get(at..at + 8)?);
    let segment = WalSegment { timeline: Timeline(part(0)?), log: part(8)?, number: part(16)? };
    if name.len() != 24 {
        return None;
    }
    match kind {
        "" if text.len() == 24 => Some(WalFile::Segment(segment)),
        "partial" => Some(WalFile::Partial(segment)),
        _ => Some(WalFile::BackupNote(segment, hex(kind.strip_suffix(".backup")?)?)),
    }
}

/// Eight digits as PostgreSQL writes them.
fn hex(text: &str) -> Option<u32> {
    let digits = text.len() == 8 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F'));
    digits.then(|| u32::from_str_radix(text, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_reads_back_as_it_is_written() {
        let segment = WalSegment { timeline: Timeline(2), log: 0xA, number: 0xFF };
        let names = [
            ("000000020000000A000000FF", WalFile::Segment(segment)),
            ("000000020000000A000000FF.partial", WalFile::Partial(segment)),
            ("000000020000000A000000FF.00000028.backup", WalFile::BackupNote(segment, 0x28)),
            ("0000000B.history", WalFile::History(Timeline(11))),
        ];
        for (text, file) in names {
            assert_eq!(text.parse(), Ok(file));
            assert_eq!(file.to_string(), text);
        }
        assert_eq!(segment.begin(16 << 20), (0xA << 32) + (0xFF << 24));
    }

    #[test]
    fn segments_are_counted_through() {
        let segment = WalSegment { timeline: Timeline(2), log: 0xA, number: 0xFF };
        assert_eq!(segment.ordinal(16 << 20), Some(0xAFF));
        assert_eq!(segment.ordinal(64 << 20), None, "with segments of that size the last one of a log is 3F");
        for size in [1 << 20, 16 << 20, 64 << 20, 1 << 30] {
            for ordinal in [0, 1, 3, 4, 5, 255, 256, 70_000] {
                let segment = WalSegment::nth(Timeline(7), ordinal, size);
                assert_eq!((segment.ordinal(size), segment.begin(size)), (Some(ordinal), ordinal * size));
            }
        }
    }

    #[test]
    fn nothing_else_is_a_name() {
        let wrong = [
            "",
            "000000010000000000000001.",
            "00000001000000000000000",
            "0000000100000000000000011",
            "00000001000000000000000g",
            "00000001000000000000000a",
            "000000010000000000000001.history",
            "1.history",
            "000000010000000000000001.28.backup",
            "000000010000000000000001.partial.x",
            "../000000010000000000000001",
            "ä0000001000000000000000",
        ];
        for text in wrong {
            let error = text.parse::<WalFile>().expect_err(text);
            assert!(error.to_string().contains(text));
        }
    }
}
