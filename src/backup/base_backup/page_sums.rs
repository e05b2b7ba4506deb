//! The sums from which the checksum of a page is made. A page is a table of 32 columns of words, and each column has a sum of its own, so that
//! processors can do many of them at once.
//!
//! The release is compiled for little code, for which the compiler makes few vector instructions, and this is done with every byte of a
//! database: where the processor has AVX2 they are written out here.

/// The sums that are kept side by side.
const SUMS: usize = 32;

/// Bytes of a row of the table.
pub const ROW: usize = SUMS * 4;

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

/// The sums of a page whose first row is `first` and whose others are `rows`.
pub fn of(first: &[u8; ROW], rows: &[[u8; ROW]]) -> [u32; SUMS] {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor was just found to have what the function is compiled for.
        return unsafe { avx2::of(first, rows) };
    }
    portable(first, rows)
}

/// One half of the columns is summed after the other, four at a time: so the sums stay in registers and the compiler makes vector instructions
/// of it also where it is told to make little code.
fn portable(first: &[u8; ROW], rows: &[[u8; ROW]]) -> [u32; SUMS] {
    let mut all = [0; SUMS];
    for (half, done) in all.chunks_exact_mut(SUMS / 2).enumerate() {
        let mut sums: [Four; 4] = std::array::from_fn(|group| std::array::from_fn(|sum| BEGIN[half * 16 + group * 4 + sum]));
        let mut add = |row: &[u8; ROW]| {
            let (columns, _) = row[half * ROW / 2..].as_chunks::<16>();
            sums.iter_mut().zip(columns).for_each(|(four, words)| add_row(four, words));
        };
        add(first);
        rows.iter().for_each(&mut add);
        add(&[0; ROW]);
        add(&[0; ROW]);
        done.copy_from_slice(sums.as_flattened());
    }
    all
}

/// Sums of four columns.
type Four = [u32; 4];

#[inline(always)]
fn add_row(sums: &mut Four, words: &[u8; 16]) {
    let (words, _) = words.as_chunks::<4>();
    let mixed: Four = std::array::from_fn(|column| sums[column] ^ u32::from_le_bytes(words[column]));
    *sums = std::array::from_fn(|column| mixed[column].wrapping_mul(PRIME) ^ (mixed[column] >> 17));
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        __m256i, _mm256_loadu_si256, _mm256_mullo_epi32, _mm256_set1_epi32, _mm256_srli_epi32, _mm256_storeu_si256, _mm256_xor_si256,
    };

    use super::{BEGIN, PRIME, ROW, SUMS};

    /// Bytes of a vector: eight words.
    const VECTOR: usize = 32;

    /// As [`portable`](super::portable), all 32 columns at once.
    #[target_feature(enable = "avx2")]
    pub fn of(first: &[u8; ROW], rows: &[[u8; ROW]]) -> [u32; SUMS] {
        let mut all = [0; SUMS];
        let prime = _mm256_set1_epi32(PRIME.cast_signed());
        let [mut a, mut b, mut c, mut d] = [0, 8, 16, 24].map(|column| {
            // SAFETY: the table has eight more words there.
            unsafe { _mm256_loadu_si256(BEGIN[column..column + 8].as_ptr().cast()) }
        });
        let mut add = |row: &[u8; ROW]| {
            a = added(a, &row[..VECTOR], prime);
            b = added(b, &row[VECTOR..2 * VECTOR], prime);
            c = added(c, &row[2 * VECTOR..3 * VECTOR], prime);
            d = added(d, &row[3 * VECTOR..], prime);
        };
        add(first);
        for row in rows {
            add(row);
        }
        add(&[0; ROW]);
        add(&[0; ROW]);
        for (eight, sum) in all.chunks_exact_mut(8).zip([a, b, c, d]) {
            // SAFETY: there is room for eight words.
            unsafe { _mm256_storeu_si256(eight.as_mut_ptr().cast(), sum) };
        }
        all
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn added(sum: __m256i, words: &[u8], prime: __m256i) -> __m256i {
        assert!(words.len() >= VECTOR);
        // SAFETY: there are as many bytes as a vector has.
        let mixed = _mm256_xor_si256(sum, unsafe { _mm256_loadu_si256(words.as_ptr().cast()) });
        _mm256_xor_si256(_mm256_mullo_epi32(mixed, prime), _mm256_srli_epi32::<17>(mixed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_lead_to_the_same_sums() {
        let mut random = fastrand::Rng::with_seed(7);
        for pages in [1, 2, 31, 64, 256] {
            let rows: Vec<[u8; ROW]> = (0..pages).map(|_| std::array::from_fn(|_| random.u8(..))).collect();
            let (first, rest) = rows.split_first().unwrap();
            assert_eq!(of(first, rest), portable(first, rest));
        }
    }

    /// Worked out word by word, as `checksum_impl.h` of PostgreSQL says it.
    #[test]
    fn the_sums_are_those_of_postgresql() {
        let page: Vec<u8> = (0..8192u32).map(|at| (at * 7 + at / 256).to_le_bytes()[0]).collect();
        let (rows, _) = page.as_chunks::<ROW>();
        let all = of(&rows[0], &rows[1..]).iter().fold(0, |all, sum| all ^ sum);
        assert_eq!(all, 0x1205_1AE1);
    }
}
