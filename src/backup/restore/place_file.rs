//! Making a file of its length, and finding out what of it is there already.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, ErrorKind},
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

use super::window::{Need, Target};
use crate::backup::chunk;

/// Opens a restored file, and never what a link leads to.
pub fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(no_follow()).open(path)
}

/// Makes the file, or takes the one that is there. What is right of it stays; returned is what has to be fetched, and how many bytes were right.
///
/// # Errors
/// When it cannot be made, read or written.
pub fn prepare(number: u32, target: &Target) -> io::Result<(Vec<Need>, u64)> {
    let (file, present) = make(target)?;
    let (mut needs, mut right, mut buffer) = (Vec::new(), 0, Vec::new());
    for (at, wanted) in target.chunks.iter().enumerate() {
        let length = target.length(at);
        let begin = target.begin(at);
        buffer.resize(length, 0);
        // What lies behind the old end is zero now, and need not be read to know that.
        let there = begin + length as u64 <= present;
        if there {
            file.read_exact_at(&mut buffer, begin)?;
        } else {
            buffer.fill(0);
        }
        let same = match wanted.place {
            Some(_) => there && chunk::digest(&buffer) == wanted.digest,
            None => chunk::is_zero(&buffer) && (there || begin >= present),
        };
        match wanted.place {
            _ if same => {
                target.has(at, &buffer);
                right += if there { length as u64 } else { 0 };
            }
            Some(place) => {
                let chunk = u32::try_from(at).map_err(|_| io::Error::other("it has too many chunks"))?;
                needs.push(Need { pack: place.pack, offset: place.offset, length: place.length, file: number, chunk });
            }
            None => {
                buffer.fill(0);
                file.write_all_at(&buffer, begin)?;
                target.has(at, &buffer);
            }
        }
    }
    Ok((needs, right))
}

/// The file with its length and permissions, and how many bytes it had.
fn make(target: &Target) -> io::Result<(File, u64)> {
    let path = &target.path;
    let present = match fs::symlink_metadata(path) {
        // One with several names belongs to somebody else too.
        Ok(found) if found.is_file() && found.nlink() == 1 => Some(found.len()),
        Ok(found) => {
            if found.is_dir() {
                fs::remove_dir_all(path)?
            } else {
                fs::remove_file(path)?
            }
            None
        }
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let file = match present {
        Some(_) => match open(path) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                fs::set_permissions(path, Permissions::from_mode(0o600))?;
                open(path)?
            }
            opened => opened?,
        },
        None => OpenOptions::new().read(true).write(true).create_new(true).mode(target.mode & 0o777).open(path)?,
    };
    file.set_len(target.size)?;
    file.set_permissions(Permissions::from_mode(target.mode & 0o777))?;
    Ok((file, present.unwrap_or(0).min(target.size)))
}

fn no_follow() -> i32 {
    libc::O_NOFOLLOW | libc::O_CLOEXEC
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::manifest::{Chunk, ChunkPlace, Entry, EntryKind};

    const SIZE: usize = 20_000;
    const CHUNK: usize = 8192;

    /// The first chunk has something in it, the second only zeros, the third is short.
    fn content() -> Vec<u8> {
        let mut content: Vec<u8> = (0..SIZE).map(|n| u8::try_from(n % 251).unwrap()).collect();
        content[CHUNK..2 * CHUNK].fill(0);
        content
    }

    fn target(path: &Path) -> Target {
        let place = |at: usize| ChunkPlace { pack: 0, offset: u32::try_from(at * 100).unwrap(), length: 100 };
        let content = content();
        let chunk = |(at, piece)| Chunk { digest: chunk::digest(piece), place: (!chunk::is_zero(piece)).then(|| place(at)) };
        let chunks = content.chunks(CHUNK).enumerate().map(chunk).collect();
        let kind = EntryKind::File { size: SIZE as u64, crc32c: crc32c::crc32c(&content), chunk_size: 8192, chunks };
        Target::new(Entry { path: b"f".to_vec(), mode: 0o640, modified: 0, kind }, path.to_owned()).unwrap()
    }

    /// Which chunks have to be fetched, and how many bytes were right, where `found` was there before.
    fn prepared(found: Option<&[u8]>) -> (Vec<u32>, u64) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        if let Some(found) = found {
            fs::write(&path, found).unwrap();
        }
        let target = target(&path);
        let (needs, right) = prepare(7, &target).unwrap();
        assert!(needs.iter().all(|need| need.file == 7 && need.offset == need.chunk * 100));
        let file = open(&path).unwrap();
        for need in &needs {
            let at = need.chunk as usize;
            let piece = &content()[at * CHUNK..][..target.length(at)];
            file.write_all_at(piece, target.begin(at)).unwrap();
            target.has(at, piece);
        }
        assert_eq!(fs::read(&path).unwrap(), content());
        assert!(target.is_whole());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        (needs.iter().map(|need| need.chunk).collect(), right)
    }

    #[test]
    fn only_what_is_not_there_is_fetched() {
        let mut first_changed = content();
        first_changed[5] ^= 1;
        let mut zeros_changed = content();
        zeros_changed[CHUNK + 5] = 1;
        let longer = [&content()[..], &[7; 5000]].concat();
        assert_eq!(prepared(None), (vec![0, 2], 0));
        assert_eq!(prepared(Some(&[])), (vec![0, 2], 0));
        assert_eq!(prepared(Some(&content())), (vec![], 20_000));
        assert_eq!(prepared(Some(&longer)), (vec![], 20_000));
        assert_eq!(prepared(Some(&first_changed)), (vec![0], 20_000 - 8192));
        assert_eq!(prepared(Some(&zeros_changed)), (vec![], 20_000 - 8192));
        assert_eq!(prepared(Some(&content()[..CHUNK + 100])), (vec![2], 8192));
        assert_eq!(prepared(Some(&zeros_changed[..CHUNK + 100])), (vec![2], 8192), "and what is left of wrong bytes is overwritten");
        assert_eq!(prepared(Some(&[0; 20_000])), (vec![0, 2], 8192));
    }

    #[test]
    fn nothing_is_written_through_a_link_or_to_a_file_of_two_names() {
        let dir = tempfile::tempdir().unwrap();
        let (elsewhere, path) = (dir.path().join("elsewhere"), dir.path().join("f"));
        fs::write(&elsewhere, "precious").unwrap();
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        prepare(0, &target(&path)).unwrap();
        assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "precious");
        fs::remove_file(&path).unwrap();
        fs::hard_link(&elsewhere, &path).unwrap();
        prepare(0, &target(&path)).unwrap();
        assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "precious");
        fs::remove_file(&path).unwrap();
        fs::create_dir_all(path.join("sub")).unwrap();
        prepare(0, &target(&path)).unwrap();
        assert!(path.is_file());
    }
}
