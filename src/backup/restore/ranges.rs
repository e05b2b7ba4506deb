//! Which parts of packs are read: neighbouring chunks at once, so that a restore asks few questions. Pure.

use std::ops::Range;

use super::window::Need;

/// Bytes that are asked for at once.
pub const LONGEST: u64 = 4 << 20;

/// So many bytes that nobody needs are read rather than asking again.
const READ_OVER: u64 = 128 << 10;

/// A part of a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Which of the header's packs.
    pub pack: u32,
    /// Where it begins.
    pub offset: u64,
    /// Its length.
    pub length: u64,
    /// Which of the needs lie in it.
    pub needs: Range<usize>,
}

/// The parts in which all needs lie. Sorts them.
pub fn parts(needs: &mut [Need]) -> Vec<Part> {
    needs.sort_unstable();
    let mut parts: Vec<Part> = Vec::new();
    for (at, need) in needs.iter().enumerate() {
        let (begin, end) = (u64::from(need.offset), u64::from(need.offset) + u64::from(need.length));
        match parts.last_mut() {
            // Several files may have the same chunk, and then it is the same place.
            Some(part)
                if part.pack == need.pack
                    && begin <= part.offset + part.length + READ_OVER
                    && end.max(part.offset + part.length) - part.offset <= LONGEST =>
            {
                part.length = part.length.max(end - part.offset);
                part.needs.end = at + 1;
            }
            _ => parts.push(Part { pack: need.pack, offset: begin, length: end - begin, needs: at..at + 1 }),
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn need(pack: u32, offset: u32, length: u32) -> Need {
        Need { pack, offset, length, file: 0, chunk: 0 }
    }

    #[test]
    fn neighbours_are_read_at_once_and_others_are_not() {
        let mut needs = vec![need(1, 0, 10), need(0, 300_000, 10), need(0, 100, 50), need(0, 0, 100), need(0, 0, 100), need(0, 200, 5)];
        let parts = parts(&mut needs);
        let part = |pack, offset, length, needs| Part { pack, offset, length, needs };
        assert_eq!(parts, [part(0, 0, 205, 0..4), part(0, 300_000, 10, 4..5), part(1, 0, 10, 5..6)]);
    }

    #[test]
    fn no_part_is_longer_than_what_fits_a_lane() {
        let mut needs: Vec<Need> = (0..1000).map(|n| need(0, n * 65_000, 65_000)).collect();
        let parts = parts(&mut needs);
        assert!(parts.iter().all(|part| part.length <= LONGEST) && parts.len() < 20);
        assert_eq!(parts.iter().map(|part| part.needs.len()).sum::<usize>(), 1000);
        assert!(parts.windows(2).all(|pair| pair[0].needs.end == pair[1].needs.start));
    }
}
