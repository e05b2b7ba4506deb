//! An encrypted object: `spiloE1\n`, 8 bytes by which the archive's key is known, and frames. A frame has a byte that says whether it is the last
//! one, the 16 bytes of chance of this write, up to 64 KiB of ciphertext and a tag of 16 bytes.
//!
//! The key of a write is derived from the archive's key, the object's name and the chance; the nonce is the frame's number and whether it is
//! the last; the beginning of the object is authenticated with each frame. So frames can be read from anywhere without the rest, and
//! none can be moved, left out, repeated or taken from another object or another write without being found out. All nonces of a key are
//! different by counting, and two writes have different keys unless 128 bits of chance are the same.

use std::{
    fmt,
    fs::File,
    io::{self, BufWriter, Write as _},
};

use aws_lc_rs::aead::{Aad, LessSafeKey, Nonce};
use bytes::{Bytes, BytesMut};

use super::archive_key::{ArchiveKey, ID, SALT};
use crate::{model::ObjectName, sys::memory::MappedFile};

/// What every encrypted object begins with; the digit is the format's version.
pub const MAGIC: &[u8; 8] = b"spiloE1\n";

/// Bytes before the first frame.
pub const HEADER: usize = MAGIC.len() + ID;

/// Bytes of content in each frame but the last.
pub const FRAME: usize = 64 << 10;

/// Bytes of a frame before its ciphertext: whether it is the last, and the chance.
const BEFORE: usize = 1 + SALT;

const TAG: usize = 16;

/// Bytes that a frame has besides its content.
pub const EXTRA: usize = BEFORE + TAG;

/// Bytes of each frame but the last.
pub const WHOLE: usize = FRAME + EXTRA;

/// A larger content is not in memory as a whole, and its object is not to be either.
const LARGE: usize = 64 << 20;

/// The bytes that an object takes of which the content has so many.
pub fn sealed_size(content: u64) -> u64 {
    HEADER as u64 + content + content.div_ceil(FRAME as u64).max(1) * EXTRA as u64
}

/// The bytes that the content of an object has that takes so many.
pub fn content_size(object: u64) -> u64 {
    let frames = object.saturating_sub(HEADER as u64);
    frames.saturating_sub(frames.div_ceil(WHOLE as u64) * EXTRA as u64)
}

/// An object as it is to lie in the store under its name.
#[derive(Clone)]
pub struct Sealed {
    name: ObjectName,
    object: Bytes,
    size: u64,
}

impl Sealed {
    pub(super) fn plain(name: ObjectName, object: Bytes) -> Sealed {
        Sealed { size: object.len() as u64, name, object }
    }

    /// The only name under which it can be read.
    pub fn name(&self) -> &ObjectName {
        &self.name
    }

    /// How many bytes its content has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// How many bytes it takes.
    pub fn stored_size(&self) -> u64 {
        self.object.len() as u64
    }

    pub(in crate::backup) fn object(&self) -> &Bytes {
        &self.object
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed('{}', {} bytes)", self.name, self.object.len())
    }
}

/// The key of one write of an object.
struct ObjectKey {
    key: LessSafeKey,
    salt: [u8; SALT],
    header: [u8; HEADER],
}

impl ObjectKey {
    fn new(key: &ArchiveKey, name: &ObjectName) -> io::Result<ObjectKey> {
        let salt = super::chance().map_err(io::Error::other)?;
        Ok(ObjectKey { key: key.of_object(name, &salt), salt, header: header(key) })
    }

    /// Encrypts a frame where it lies: `frame` begins with room for what stands before the ciphertext. The tag has to follow it.
    fn close(&self, frame: &mut [u8], number: u64, last: bool) -> [u8; TAG] {
        frame[0] = u8::from(last);
        frame[1..BEFORE].copy_from_slice(&self.salt);
        let tag = self.key.seal_in_place_separate_tag(nonce(number, last), Aad::from(&self.header), &mut frame[BEFORE..]);
        let tag = tag.expect("a frame is far smaller than what AES-GCM encrypts at once");
        tag.as_ref().try_into().expect("a tag has 16 bytes")
    }
}

/// An object under construction, encrypted where it lies as soon as a frame is full: nothing is in memory twice.
pub struct Sealing {
    name: ObjectName,
    key: Option<ObjectKey>,
    out: Vec<u8>,
    /// Where the open frame begins.
    frame: usize,
    frames: u64,
    size: u64,
}

impl Sealing {
    /// Of an archive that is not encrypted.
    pub fn plain(name: ObjectName) -> Sealing {
        Sealing { name, key: None, out: Vec::new(), frame: 0, frames: 0, size: 0 }
    }

    pub(super) fn with(key: &ArchiveKey, name: ObjectName) -> io::Result<Sealing> {
        let key = ObjectKey::new(key, &name)?;
        let out = key.header.to_vec();
        let mut sealing = Sealing { name, key: Some(key), frame: out.len(), out, frames: 0, size: 0 };
        sealing.out.resize(sealing.frame + BEFORE, 0);
        Ok(sealing)
    }

    /// How many bytes the content has so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends to the content.
    pub fn write(&mut self, mut piece: &[u8]) {
        self.size += piece.len() as u64;
        if self.key.is_none() {
            return self.out.extend_from_slice(piece);
        }
        while !piece.is_empty() {
            let room = FRAME - (self.out.len() - self.frame - BEFORE);
            if room == 0 {
                self.close(false);
                self.out.resize(self.frame + BEFORE, 0);
                continue;
            }
            let (now, later) = piece.split_at(room.min(piece.len()));
            self.out.extend_from_slice(now);
            piece = later;
        }
    }

    fn close(&mut self, last: bool) {
        let Some(key) = &self.key else { return };
        let tag = key.close(&mut self.out[self.frame..], self.frames, last);
        self.out.extend_from_slice(&tag);
        self.frame = self.out.len();
        self.frames += 1;
    }

    /// The object, whole.
    pub fn finish(mut self) -> Sealed {
        self.close(true);
        Sealed { name: self.name, object: self.out.into(), size: self.size }
    }
}

/// The object of this content.
pub fn seal(key: &ArchiveKey, name: &ObjectName, content: &Bytes) -> io::Result<Sealed> {
    if content.len() > LARGE {
        return seal_in_a_file(key, name, content);
    }
    let mut sealing = Sealing::with(key, name.clone())?;
    sealing.out.reserve_exact(usize::try_from(sealed_size(content.len() as u64)).unwrap_or(0).saturating_sub(sealing.out.len()));
    sealing.write(content);
    Ok(sealing.finish())
}

/// The same in a file that is looked at as if it were memory: the manifest of a large database is.
fn seal_in_a_file(key: &ArchiveKey, name: &ObjectName, content: &Bytes) -> io::Result<Sealed> {
    let mut out = BufWriter::with_capacity(1 << 18, tempfile::tempfile()?);
    let key = ObjectKey::new(key, name)?;
    out.write_all(&key.header)?;
    let (mut frame, count) = (Vec::with_capacity(WHOLE), content.len().div_ceil(FRAME) as u64);
    for (number, piece) in (0..).zip(content.chunks(FRAME)) {
        frame.clear();
        frame.resize(BEFORE, 0);
        frame.extend_from_slice(piece);
        let tag = key.close(&mut frame, number, number + 1 == count);
        out.write_all(&frame)?;
        out.write_all(&tag)?;
    }
    let out: File = out.into_inner().map_err(io::Error::from)?;
    let object = Bytes::from_owner(MappedFile::new(&out)?);
    Ok(Sealed { name: name.clone(), object, size: content.len() as u64 })
}

/// The content of a whole object.
///
/// # Errors
/// What is wrong with it.
pub fn open(key: &ArchiveKey, name: &ObjectName, mut object: Bytes) -> Result<Bytes, String> {
    expect_header(key, &object)?;
    let frames = object.split_off(HEADER);
    // It may be decrypted where it lies only when nobody else looks at it.
    drop(object);
    open_frames(key, name, frames, 0, true)
}

/// The content of frames from this number on. With `to_the_end` the last of them has to be the object's last.
///
/// # Errors
/// What is wrong with them.
pub fn open_frames(key: &ArchiveKey, name: &ObjectName, frames: Bytes, first: u64, to_the_end: bool) -> Result<Bytes, String> {
    let mut frames = frames.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
    let Some(salt) = frames.get(1..BEFORE).and_then(|salt| <[u8; SALT]>::try_from(salt).ok()) else {
        return Err(format!("it ends within its frame {first}"));
    };
    let (cipher, header) = (key.of_object(name, &salt), header(key));
    let (mut from, mut to, mut number, mut ended) = (0, 0, first, false);
    while from < frames.len() {
        let length = WHOLE.min(frames.len() - from);
        let changed = || format!("its frame {number} is not what was stored: it was changed, cut off, or is another object's");
        let frame = &mut frames[from..from + length];
        if ended || length < EXTRA || frame[1..BEFORE] != salt || frame[0] > 1 || (frame[0] == 0 && length < WHOLE) {
            return Err(changed());
        }
        ended = frame[0] == 1;
        let opened = cipher.open_in_place(nonce(number, ended), Aad::from(&header), &mut frame[BEFORE..]);
        let content = opened.map_err(|_| changed())?.len();
        frames.copy_within(from + BEFORE..from + BEFORE + content, to);
        (from, to, number) = (from + length, to + content, number + 1);
    }
    if to_the_end && !ended {
        return Err(format!("it ends after its frame {}, which is not its last", number.saturating_sub(1)));
    }
    frames.truncate(to);
    Ok(frames.freeze())
}

/// Whether the object begins as one does that was encrypted with this key.
///
/// # Errors
/// What is wrong with it.
pub fn expect_header(key: &ArchiveKey, object: &[u8]) -> Result<(), String> {
    match object.get(..HEADER) {
        Some(found) if found == header(key) => Ok(()),
        Some(found) if found.starts_with(MAGIC) => {
            let (theirs, ours) = (hex::encode(&found[MAGIC.len()..]), hex::encode(key.id));
            Err(format!("it was encrypted in an archive whose key is '{theirs}', and this one's is '{ours}'"))
        }
        Some(_) => Err("it is not encrypted, although the archive is: spilo has not put it there".to_owned()),
        None => Err(format!("it ends after {} bytes", object.len())),
    }
}

fn header(key: &ArchiveKey) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..MAGIC.len()].copy_from_slice(MAGIC);
    header[MAGIC.len()..].copy_from_slice(&key.id);
    header
}

fn nonce(number: u64, last: bool) -> Nonce {
    let mut nonce = [0; 12];
    nonce[0] = u8::from(last);
    nonce[4..].copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

#[cfg(test)]
#[path = "frames_tests.rs"]
mod tests;
