//! The checksum that PostgreSQL puts into each page, and what it says of a page that was read while the server goes on writing.

use crate::{backup::chunk, model::Lsn};

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

/// Bytes of a row of that table.
const ROW: usize = SUMS * 4;

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
///
/// The page is a table of 32 columns of words, each with a sum of its own. One half of the columns is summed after the other, four at a time: so the
/// sums stay in registers and the compiler makes vector instructions of it also where it is told to make little code.
pub fn checksum(page: &[u8], block: u32) -> u16 {
    let (rows, _) = page.as_chunks::<ROW>();
    let Some((first, rows)) = rows.split_first() else { return 0 };
    // The page is summed as if the checksum itself were zero.
    let mut first = *first;
    first[CHECKSUM..CHECKSUM + 2].fill(0);
    let mut all = block;
    for half in 0..2 {
        let mut sums: [Four; 4] = std::array::from_fn(|group| std::array::from_fn(|sum| BEGIN[half * 16 + group * 4 + sum]));
        let mut add = |row: &[u8; ROW]| {
            let (columns, _) = row[half * ROW / 2..].as_chunks::<16>();
            sums.iter_mut().zip(columns).for_each(|(four, words)| add_row(four, words));
        };
        add(&first);
        rows.iter().for_each(&mut add);
        add(&[0; ROW]);
        add(&[0; ROW]);
        all ^= sums.as_flattened().iter().fold(0, |all, sum| all ^ sum);
    }
    u16::try_from(all % 65_535 + 1).expect("it is at most 65535")
}

/// Sums of four columns.
type Four = [u32; 4];

#[inline(always)]
fn add_row(sums: &mut Four, words: &[u8; 16]) {
    let (words, _) = words.as_chunks::<4>();
    let mixed: Four = std::array::from_fn(|column| sums[column] ^ u32::from_le_bytes(words[column]));
    *sums = std::array::from_fn(|column| mixed[column].wrapping_mul(PRIME) ^ (mixed[column] >> 17));
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
