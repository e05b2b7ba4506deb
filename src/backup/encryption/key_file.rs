//! The file with a master key. Whoever has it can read the backups; whoever has lost it cannot.

use std::{fmt, fs, io, io::Write as _, os::unix::fs::OpenOptionsExt as _, path::Path};

use super::{
    KeyError,
    archive_key::{ID, KEY, derived},
    chance,
};

/// What the line with the key begins with; the digit is the format's version.
const FORMAT: &str = "spilo-key-1";

/// What a new file says to whoever finds it.
const COMMENT: &str = "\
# A key to backups made by spilo. Whoever has this file and the store can read them; without it nobody can, the makers of spilo included.
# Keep a copy where neither the loss of the cluster nor that of the store takes it along.
";

/// A key that wraps the keys of archives.
pub struct MasterKey {
    secret: [u8; KEY],
    file: String,
}

impl MasterKey {
    /// Reads it.
    ///
    /// # Errors
    /// When the file cannot be read or holds no key.
    pub fn read(path: &Path) -> Result<MasterKey, KeyError> {
        let file = path.display().to_string();
        let unusable = |why: String| KeyError::File { file: file.clone(), why };
        let text = fs::read_to_string(path).map_err(|error| unusable(format!("the file cannot be read: {error}")))?;
        let secret = parse(&text).map_err(unusable)?;
        Ok(MasterKey { secret, file })
    }

    /// Makes a new key in a file that must not be there yet: a key that is overwritten takes all backups with it.
    ///
    /// # Errors
    /// When the file is there, or cannot be written.
    pub fn create(path: &Path) -> Result<MasterKey, KeyError> {
        let file = path.display().to_string();
        let key = MasterKey { secret: chance()?, file: file.clone() };
        let unusable = |why: String| KeyError::File { file: file.clone(), why };
        let opened = fs::File::options().write(true).create_new(true).mode(0o600).open(path);
        let mut opened = opened.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => {
                unusable("the file is there already, and may be the only copy of a key: choose another name".to_owned())
            }
            _ => unusable(format!("the file cannot be made: {error}")),
        })?;
        let text = format!("{COMMENT}{FORMAT}:{}:{}\n", key.id(), hex::encode(key.secret));
        let written = opened.write_all(text.as_bytes()).and_then(|()| opened.sync_all());
        written.map_err(|error| unusable(format!("the file cannot be written: {error}")))?;
        Ok(key)
    }

    /// By which name it is known: something that follows from the key, and from which the key does not follow.
    pub fn id(&self) -> String {
        id(&self.secret)
    }

    /// Where it was read from.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The key with which keys of archives are wrapped.
    pub(super) fn wrapping(&self) -> [u8; KEY] {
        derived(&self.secret, &[], &[b"spilo wrapping"])
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MasterKey({}, …)", self.id())
    }
}

fn id(secret: &[u8; KEY]) -> String {
    hex::encode(&derived(secret, &[], &[b"spilo key id"])[..ID])
}

/// The key in the text. What is wrong with it is said without repeating any of it.
fn parse(text: &str) -> Result<[u8; KEY], String> {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let none = || format!("expected one line '{FORMAT}:ID:KEY', as 'spilo backup key new FILE' writes it");
    let (Some(line), None) = (lines.next(), lines.next()) else { return Err(none()) };
    let mut parts = line.split(':');
    let (Some(format), Some(said), Some(key), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else { return Err(none()) };
    if format != FORMAT {
        return Err(if format.starts_with("spilo-key-") { "a newer version of spilo has made it".to_owned() } else { none() });
    }
    let mut secret = [0; KEY];
    hex::decode_to_slice(key, &mut secret).map_err(|_| format!("the key is not {} hexadecimal digits", 2 * KEY))?;
    if id(&secret) != said {
        return Err(format!("it says that its key is '{said}', and it is not: a digit was changed"));
    }
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_is_read_as_it_was_made_and_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("orders.key");
        let made = MasterKey::create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let read = MasterKey::read(&path).unwrap();
        assert_eq!((read.id(), read.secret), (made.id(), made.secret));
        let text = fs::read_to_string(&path).unwrap();
        let error = MasterKey::create(&path).unwrap_err().to_string();
        assert!(error.contains("orders.key") && error.contains("there already"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        assert_ne!(MasterKey::create(&directory.path().join("other")).unwrap().id(), made.id());
        assert!(!format!("{made:?}").contains(&hex::encode(made.secret)));
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_without_the_key() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let secret = "5".repeat(64);
        let told = |text: &str| {
            fs::write(&path, text).unwrap();
            MasterKey::read(&path).unwrap_err().to_string()
        };
        assert!(told("").contains("backup key new"));
        assert!(told(&secret).contains("backup key new"));
        assert!(told(&format!("spilo-key-2:0:{secret}")).contains("newer version"));
        assert!(told(&format!("spilo-key-1:0011223344556677:{}", &secret[1..])).contains("64 hexadecimal"));
        let changed = told(&format!("spilo-key-1:0011223344556677:{secret}"));
        assert!(changed.contains("0011223344556677") && !changed.contains("5555"), "{changed}");
        fs::remove_file(&path).unwrap();
        assert!(MasterKey::read(&path).unwrap_err().to_string().contains("cannot be read"));
    }
}
