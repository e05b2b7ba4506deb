//! The checksum that PostgreSQL puts into each page, and what it says of a page that was read while the server goes on writing.

use crate::model::Lsn;

/// The sums that are kept side by side, so that processors can do them at once.
const SUMS: usize = 32;

/// What each begins with.
const BEGIN: [u32; SUMS] = [
    0x5B1F_36E9,
    0xB852_5960,
    0x02AB_50AA,
    0x1DE6_6D2A,
    0x79FF_467A,
    0x9BB9_F8A3,
    0x217E_7CD2,
    0x83E1_3D2C,
    0xF8D4_474F,
    0xE39E_B970,
    0x42C6_AE16,
    0x9932_16FA,
    0x7B09_3B5D,
    0x98DA_FF3C,
    0xF718_902A,
    0x0B1C_9CDB,
    0xE58F_764B,
    0x1876_36BC,
    0x5D7B_3BB1,
    0xE73D_E7DE,
    0x92BE_C979,
    0xCCA6_C0B2,
    0x304A_0979,
    0x85AA_43D4,
    0x7831_25BB,
    0x6CA8_EAA2,
    0xE407_EAC6,
    0x4B5C_FC3E,
    0x9FBF_8C76,
    0x15CA_20BE,
    0xF2CA_9FD3,
    0x959B_D756,
];

const PRIME: u32 = 16_777_619;

/// Where in a page its checksum stands, and how many bytes around it are taken as one word.
const CHECKSUM_WORD: usize = 8;

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
    if if never_used { super::super::chunk::is_zero(page) } else { checksum(page, block) == half(CHECKSUM_WORD) } {
        return Verdict::Good;
    }
    let written = Lsn((word(0) << 32) | word(4));
    if written >= start { Verdict::WrittenSince(written) } else { Verdict::Bad }
}

/// The checksum that this page has to have as the `block`th of its relation.
pub fn checksum(page: &[u8], block: u32) -> u16 {
    let mut sums = BEGIN;
    let (rows, _) = page.as_chunks::<{ SUMS * 4 }>();
    let mut rows = rows.iter();
    if let Some(first) = rows.next() {
        // The page is summed as if the checksum itself were zero.
        let mut first = *first;
        first[CHECKSUM_WORD..CHECKSUM_WORD + 2].fill(0);
        add(&mut sums, &first);
    }
    rows.for_each(|row| add(&mut sums, row));
    add(&mut sums, &[0; SUMS * 4]);
    add(&mut sums, &[0; SUMS * 4]);
    let all = sums.iter().fold(0, |all, sum| all ^ sum) ^ block;
    u16::try_from(all % 65_535 + 1).expect("it is at most 65535")
}

fn add(sums: &mut [u32; SUMS], row: &[u8; SUMS * 4]) {
    let (words, _) = row.as_chunks::<4>();
    for (sum, word) in sums.iter_mut().zip(words) {
        let mixed = *sum ^ u32::from_le_bytes(*word);
        *sum = mixed.wrapping_mul(PRIME) ^ (mixed >> 17);
    }
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
