//! A copy of the control file that is whole, although the server may be writing it.

use std::{
    fs::{File, Metadata},
    io::{self, Read},
    path::Path,
    time::Duration,
};

/// The server writes it in one go, so that it is seldom read in between.
const ATTEMPTS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(10);

/// What PostgreSQL writes is never longer than a sector, of which the file has only zeros after it.
const MEANINGFUL: usize = 512;

/// No version's structure is shorter.
const SHORTEST: usize = 200;

/// Reads it until its checksum is right.
///
/// # Errors
/// When it cannot be read, and when it is damaged.
pub fn read(path: &Path) -> io::Result<(Vec<u8>, Metadata)> {
    for _ in 0..ATTEMPTS {
        let mut content = Vec::new();
        let mut file = File::open(path)?;
        let found = file.metadata()?;
        file.read_to_end(&mut content)?;
        if is_whole(&content) {
            return Ok((content, found));
        }
        std::thread::sleep(PAUSE);
    }
    Err(io::Error::other("its checksum is wrong each time it is read"))
}

/// Whether there is a place at which the checksum of everything before it stands. It depends on PostgreSQL's version, and chance finds none.
fn is_whole(content: &[u8]) -> bool {
    let places = (SHORTEST..content.len().min(MEANINGFUL).saturating_sub(3)).step_by(4);
    let mut places = places.filter_map(|at| Some((at, u32::from_le_bytes(content.get(at..at + 4)?.try_into().ok()?))));
    places.any(|(at, told)| told != 0 && crc32c::crc32c(&content[..at]) == told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_copy_is_not_taken_for_whole() {
        for length in [288, 292, 296] {
            let mut content: Vec<u8> = (0..length).map(|n| u8::try_from(n % 251).unwrap()).collect();
            content.extend_from_slice(&crc32c::crc32c(&content).to_le_bytes());
            content.resize(8192, 0);
            assert!(is_whole(&content));
            for at in 0..length {
                let mut torn = content.clone();
                torn[at] ^= 1;
                assert!(!is_whole(&torn), "byte {at}");
            }
        }
        assert!(!is_whole(&[]) && !is_whole(&[0; 8192]));
        let path = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(path.path(), [0; 8192]).unwrap();
        assert!(read(path.path()).unwrap_err().to_string().contains("checksum"));
    }
}
