//! The checksum that PostgreSQL puts into each page, and what it says of a page that was read while the server goes on writing.

use super::page_sums::{self, ROW};
use crate::{backup::chunk, model::Lsn};

/// Where in a page its checksum stands.
const CHECKSUM: usize = 8;

/// What a page's checksum says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is right, or the page was never used.
    Good,
    /// It is wrong, but the page says that it was written after this position: it was read while it was being written, and WAL since then has
    /// the whole page.
    WrittenSince(Lsn),
    /// It is wrong.
    Bad,
}

/// Judges a page that is the `block`th of its relation, in a backup that begins at `start`.
pub fn judge(page: &[u8], block: u32, start: Lsn) -> Verdict {
    let half = |at: usize| u16::from_le_bytes([page[at], page[at + 1]]);
    let word = |at: usize| u64::from(u32::from_le_bytes([page[at], page[at + 1], page[at + 2], page[at + 3]]));
    // The free space of a page that was used ends somewhere.
    let never_used = half(14) == 0;
    let good = if never_used { chunk::is_zero(page) } else { checksum(page, block) == half(CHECKSUM) };
    if good {
        return Verdict::Good;
    }
    let written = Lsn((word(0) << 32) | word(4));
    if written >= start { Verdict::WrittenSince(written) } else { Verdict::Bad }
}

/// The checksum that this page has to have as the `block`th of its relation.
pub fn checksum(page: &[u8], block: u32) -> u16 {
    let (rows, _) = page.as_chunks::<ROW>();
    let Some((first, rows)) = rows.split_first() else { return 0 };
    // The page is summed as if the checksum itself were zero.
    let mut first = *first;
    first[CHECKSUM..CHECKSUM + 2].fill(0);
    let all = page_sums::of(&first, rows).iter().fold(block, |all, sum| all ^ sum);
    u16::try_from(all % 65_535 + 1).expect("it is at most 65535")
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Lsn = Lsn(0x200_0028);

    /// A page that was last written at this position.
    fn page(block: u32, written: u64) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(u64::from(block));
        let mut page: Vec<u8> = (0..8192).map(|_| random.u8(..)).collect();
        page[..4].copy_from_slice(&u32::try_from(written >> 32).unwrap().to_le_bytes());
        page[4..8].copy_from_slice(&u32::try_from(written & 0xFFFF_FFFF).unwrap().to_le_bytes());
        let sum = checksum(&page, block);
        page[8..10].copy_from_slice(&sum.to_le_bytes());
        page
    }

    #[test]
    fn any_byte_that_differs_is_found_and_so_is_a_page_in_anothers_place() {
        let whole = page(7, 1000);
        assert_eq!(judge(&whole, 7, START), Verdict::Good);
        assert_eq!(judge(&whole, 8, START), Verdict::Bad);
        for at in (0..8192).step_by(61) {
            let mut changed = whole.clone();
            changed[at] ^= 0x40;
            // The first bytes say when it was written.
            if at >= 8 {
                assert_eq!(judge(&changed, 7, START), Verdict::Bad, "byte {at}");
            } else {
                assert_ne!(judge(&changed, 7, START), Verdict::Good, "byte {at}");
            }
        }
    }

    #[test]
    fn a_page_that_is_being_written_is_no_damage() {
        let mut torn = page(7, START.0 + 8);
        torn[8000] ^= 1;
        assert_eq!(judge(&torn, 7, START), Verdict::WrittenSince(Lsn(START.0 + 8)));
        assert_eq!(judge(&torn, 7, Lsn(START.0 + 9)), Verdict::Bad);
    }

    #[test]
    fn a_page_that_was_never_used_has_only_zeros() {
        assert_eq!(judge(&[0; 8192], 7, START), Verdict::Good);
        let mut page = [0; 8192];
        page[4096] = 1;
        assert_eq!(judge(&page, 7, START), Verdict::Bad);
    }
}
