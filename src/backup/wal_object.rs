//! A WAL file as an object: compressed, with its length and digest before it, so that two contents are told apart by reading 48 bytes, and
//! nothing is restored that is not what was archived.

use bytes::Bytes;

use super::encryption::Sealer;

/// What every such object begins with; the digit is the format's version.
const MAGIC: &[u8; 8] = b"spiloW1\n";

/// How long the head is: the magic, a BLAKE3 digest, a length.
pub const HEAD: usize = 48;

/// The largest segment that PostgreSQL has.
const LARGEST: u64 = 1 << 30;

/// The level of zstd for who has time.
pub const LEVEL: i32 = 1;

/// What an object says of the file in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// BLAKE3 of the file: as good as SHA-256, which took a quarter of all the time that archiving a segment takes.
    digest: [u8; 32],
    /// Its length in bytes.
    length: u64,
}

impl Head {
    /// Of this file.
    pub fn of(file: &[u8]) -> Head {
        Head { digest: blake3::hash(file).into(), length: file.len() as u64 }
    }

    /// Reads it off an object's beginning.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(object: &[u8]) -> Result<Head, String> {
        let head = object.get(..HEAD).ok_or_else(|| format!("it ends after {} bytes", object.len()))?;
        if &head[..8] != MAGIC {
            return Err("it is no WAL file of ours".to_owned());
        }
        let length = u64::from_le_bytes(head[40..].try_into().expect("eight bytes"));
        if length > LARGEST {
            return Err(format!("it names an impossible length of {length} bytes"));
        }
        Ok(Head { digest: head[8..40].try_into().expect("32 bytes"), length })
    }

    /// The beginning of the digest, to name a content by. Where contents are encrypted it is one that tells nobody else anything of them.
    pub fn short(&self, sealer: &Sealer) -> String {
        hex::encode(&sealer.name_digest(&self.digest)[..8])
    }
}

/// The object of this file.
#[cfg(test)]
pub fn pack(head: &Head, file: &[u8]) -> std::io::Result<Bytes> {
    pack_at(LEVEL, head, file)
}

/// The object of this file, compressed at this level of zstd.
///
/// # Errors
/// When the compressor fails.
pub fn pack_at(level: i32, head: &Head, file: &[u8]) -> std::io::Result<Bytes> {
    let mut object = vec![0; HEAD + zstd::zstd_safe::compress_bound(file.len())];
    object[..8].copy_from_slice(MAGIC);
    object[8..40].copy_from_slice(&head.digest);
    object[40..HEAD].copy_from_slice(&head.length.to_le_bytes());
    let packed = zstd::bulk::compress_to_buffer(file, &mut object[HEAD..], level)?;
    object.truncate(HEAD + packed);
    object.shrink_to_fit();
    Ok(object.into())
}

/// The file in this object.
///
/// # Errors
/// What is wrong with the object.
pub fn unpack(object: &[u8]) -> Result<Vec<u8>, String> {
    let head = Head::read(object)?;
    let length = usize::try_from(head.length).map_err(|_| "it does not fit into memory".to_owned())?;
    let file = zstd::bulk::decompress(&object[HEAD..], length).map_err(|error| format!("it cannot be unpacked: {error}"))?;
    if Head::of(&file) != head {
        return Err("its content is not what was archived".to_owned());
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_comes_back_as_it_was() {
        for file in [vec![], vec![7], vec![0; 1 << 20], (0..=255).cycle().take(100_000).collect()] {
            let head = Head::of(&file);
            let object = pack(&head, &file).unwrap();
            assert_eq!(Head::read(&object[..HEAD]), Ok(head));
            assert_eq!(unpack(&object).unwrap(), file);
        }
    }

    #[test]
    fn whatever_is_changed_is_found() {
        let file: Vec<u8> = (0..50_000u32).flat_map(u32::to_le_bytes).collect();
        let object = pack(&Head::of(&file), &file).unwrap();
        for at in (0..HEAD).chain((HEAD..object.len()).step_by(977)) {
            let mut changed = object.to_vec();
            changed[at] ^= 0x10;
            match unpack(&changed) {
                Err(_) => {}
                // A bit that means nothing to the decompressor may be flipped: what counts is what comes out.
                Ok(found) => assert!(at >= HEAD && found == file, "byte {at}"),
            }
        }
        for length in [0, 10, HEAD - 1, HEAD, HEAD + 5, object.len() - 1] {
            assert!(unpack(&object[..length]).is_err(), "{length} bytes");
        }
    }
}
