use std::collections::BTreeSet;

use super::*;
use crate::backup::encryption::Sealer;

fn name(text: &str) -> ObjectName {
    text.parse().unwrap()
}

fn noise(length: usize) -> Bytes {
    let mut random = fastrand::Rng::with_seed(length as u64);
    (0..length).map(|_| random.u8(..)).collect::<Vec<u8>>().into()
}

const LENGTHS: [usize; 8] = [0, 1, 100, FRAME - 1, FRAME, FRAME + 1, 2 * FRAME, 3 * FRAME + 77];

#[test]
fn a_content_comes_back_as_it_was_and_its_size_is_known_from_that_of_the_object() {
    let (key, name) = (ArchiveKey::new().unwrap(), name("orders/wal/1"));
    for length in LENGTHS {
        let content = noise(length);
        let sealed = seal(&key, &name, &content).unwrap();
        assert_eq!((sealed.size(), sealed.stored_size()), (length as u64, sealed_size(length as u64)));
        assert_eq!(content_size(sealed.stored_size()), length as u64);
        assert_eq!(open(&key, &name, sealed.object().clone()).unwrap(), content);
        // Byte by byte, in a file, or at once: the same.
        let mut sealing = Sealing::with(&key, name.clone()).unwrap();
        content.chunks(977).for_each(|piece| sealing.write(piece));
        assert_eq!(open(&key, &name, sealing.finish().object().clone()).unwrap(), content);
        if length > 0 {
            let in_a_file = seal_in_a_file(&key, &name, &content).unwrap();
            assert_eq!(open(&key, &name, in_a_file.object().clone()).unwrap(), content);
        }
    }
}

#[test]
fn nothing_of_the_content_can_be_seen() {
    let (key, name) = (ArchiveKey::new().unwrap(), name("orders/wal/1"));
    let secret = b"the salary of Ann is 4711";
    let object = seal(&key, &name, &secret.repeat(10_000).into()).unwrap();
    assert!(!object.object().windows(8).any(|part| part == &secret[..8]));
}

#[test]
fn no_two_frames_have_the_same_key_and_nonce() {
    let (key, content) = (ArchiveKey::new().unwrap(), noise(FRAME));
    let mut seen = BTreeSet::new();
    for number in 0..500 {
        // The same content under the same name, again and again, as two servers and many attempts write it.
        let sealed = seal(&key, &name(&format!("orders/wal/{}", number % 3)), &content).unwrap();
        let frame = &sealed.object()[HEADER..];
        assert!(seen.insert(frame[1..BEFORE].to_vec()), "a salt was used twice");
        assert!(seen.insert(frame[BEFORE..BEFORE + 32].to_vec()), "the same content looks the same");
    }
    let long = seal(&key, &name("orders/wal/1"), &vec![0; 4 * FRAME].into()).unwrap();
    let frames: BTreeSet<&[u8]> = long.object()[HEADER..].chunks(WHOLE).map(|frame| &frame[BEFORE..BEFORE + 32]).collect();
    assert_eq!(frames.len(), 4, "each frame has a nonce of its own");
}

#[test]
fn whatever_is_changed_moved_or_cut_off_is_found() {
    let (key, name) = (ArchiveKey::new().unwrap(), name("orders/wal/1"));
    let content = noise(3 * FRAME + 77);
    let object = seal(&key, &name, &content).unwrap().object().to_vec();
    let refused = |object: &[u8], what: &str| assert!(open(&key, &name, Bytes::copy_from_slice(object)).is_err(), "{what}");
    for at in (0..object.len()).step_by(4999).chain(0..HEADER + BEFORE + 3).chain(object.len() - TAG - 3..object.len()) {
        let mut changed = object.clone();
        changed[at] ^= 0x20;
        refused(&changed, &format!("byte {at}"));
    }
    for length in (0..object.len()).step_by(4999).chain([HEADER, HEADER + 1, HEADER + WHOLE, HEADER + 2 * WHOLE, HEADER + 3 * WHOLE]) {
        refused(&object[..length], &format!("{length} bytes"));
    }
    refused(&[&object[..], b"x"].concat(), "something behind it");
    refused(&[&object[..], &object[HEADER..]].concat(), "the same again behind it");
    let frame = |number: usize| &object[HEADER + number * WHOLE..object.len().min(HEADER + (number + 1) * WHOLE)];
    refused(&[&object[..HEADER], frame(1), frame(0), frame(2), frame(3)].concat(), "frames in another order");
    refused(&[&object[..HEADER], frame(0), frame(2), frame(3)].concat(), "a frame left out");
    refused(&[&object[..HEADER], frame(0), frame(0), frame(2), frame(3)].concat(), "a frame twice");
    let again = seal(&key, &name, &content).unwrap().object().to_vec();
    let other = &again[HEADER + WHOLE..HEADER + 2 * WHOLE];
    refused(&[&object[..HEADER], frame(0), other, frame(2), frame(3)].concat(), "a frame of another write of the same");
    assert!(open(&key, &name, Bytes::from(object)).is_ok());
}

#[test]
fn an_object_is_only_that_of_its_name_and_its_archive() {
    let (key, other) = (ArchiveKey::new().unwrap(), ArchiveKey::new().unwrap());
    let sealed = seal(&key, &name("orders/wal/1"), &noise(100)).unwrap();
    let swapped = open(&key, &name("orders/wal/2"), sealed.object().clone()).unwrap_err();
    assert!(swapped.contains("another object's"), "{swapped}");
    let elsewhere = open(&other, &name("orders/wal/1"), sealed.object().clone()).unwrap_err();
    assert!(elsewhere.contains(&hex::encode(key.id)) && elsewhere.contains(&hex::encode(other.id)), "{elsewhere}");
    // Somebody who renames the key gains nothing.
    let pretended = ArchiveKey::from_parts(key.id, *other.expose());
    assert!(open(&pretended, &name("orders/wal/1"), sealed.object().clone()).is_err());
    let plain = open(&key, &name("orders/wal/1"), noise(100)).unwrap_err();
    assert!(plain.contains("not encrypted"), "{plain}");
}

#[test]
fn names_tell_only_those_who_have_the_key_what_they_are_of() {
    let digest = *blake3::hash(b"content").as_bytes();
    let sealers = [0, 1].map(|_| Sealer::with(std::sync::Arc::new(ArchiveKey::new().unwrap())));
    let [one, other] = sealers.each_ref().map(|sealer| sealer.name_digest(&digest));
    assert!(one != digest && one != other && one == sealers[0].name_digest(&digest));
    assert_eq!(Sealer::default().name_digest(&digest), digest);
}
