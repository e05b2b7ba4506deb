//! The file with a master key, or with the name of one that is in a KMS. Whoever has the key can read the backups; whoever has lost it cannot.

use std::{fmt, fs, io, io::Write as _, os::unix::fs::OpenOptionsExt as _, path::Path};

use super::{
    KeyError,
    archive_key::{ID, KEY, derived},
    chance,
};
use crate::{
    model::{InvalidKmsKey, KmsKey},
    storage::Kms,
};

/// What the line with the key begins with; the digit is the format's version.
const FORMAT: &str = "spilo-key-1";

/// The same where the file says which key of AWS KMS it is.
const KMS_FORMAT: &str = "spilo-kms-1";

/// What a new file says to whoever finds it.
const COMMENT: &str = "\
# A key to backups made by spilo. Whoever has this file and the store can read them; without it nobody can, the makers of spilo included.
# Keep a copy where neither the loss of the cluster nor that of the store takes it along.
";
const KMS_COMMENT: &str = "\
# Which key of AWS KMS protects backups made by spilo. This is no secret. Whoever may use that key, and has the store, can read them; when it
# is deleted there, nobody can, the makers of spilo included.
";

/// A key that wraps the keys of archives.
pub struct MasterKey {
    kind: Kind,
    file: String,
}

/// Where the key itself is.
pub(super) enum Kind {
    /// In the file.
    Secret([u8; KEY]),
    /// In AWS KMS, which wraps and unwraps with it and never gives it away.
    Kms(Kms),
}

impl MasterKey {
    /// Reads it. Nothing is asked of a KMS.
    ///
    /// # Errors
    /// When the file cannot be read or holds no key.
    pub fn read(path: &Path) -> Result<MasterKey, KeyError> {
        let file = path.display().to_string();
        let unusable = |why: String| KeyError::File { file: file.clone(), why };
        let text = fs::read_to_string(path).map_err(|error| unusable(format!("the file cannot be read: {error}")))?;
        MasterKey::parse(&text, &file)
    }

    /// What the text of such a file says; `file` is where it comes from.
    ///
    /// # Errors
    /// When it holds no key.
    pub fn parse(text: &str, file: &str) -> Result<MasterKey, KeyError> {
        let kind = parse(text).map_err(|why| KeyError::File { file: file.to_owned(), why })?;
        Ok(MasterKey { kind, file: file.to_owned() })
    }

    /// Makes a new key in a file that must not be there yet: a key that is overwritten takes all backups with it.
    ///
    /// # Errors
    /// When the file is there, or cannot be written.
    pub fn create(path: &Path) -> Result<MasterKey, KeyError> {
        let secret = chance()?;
        let key = MasterKey { kind: Kind::Secret(secret), file: path.display().to_string() };
        write_new(path, &format!("{COMMENT}{FORMAT}:{}:{}\n", key.id(), hex::encode(secret)))?;
        Ok(key)
    }

    /// Says in a file that must not be there yet which key of a KMS it is, once that was seen to wrap and to unwrap. A name that can be given
    /// to another key is followed to the key: archives are opened by the key that they were wrapped with.
    ///
    /// # Errors
    /// When the file is there, or cannot be written, and when the key cannot be used.
    pub async fn create_in_kms(path: &Path, key: &KmsKey, credentials_file: Option<&Path>) -> Result<MasterKey, KeyError> {
        if path.symlink_metadata().is_ok() {
            return Err(is_there(path));
        }
        let purpose = [("spilo-archive", "none"), ("spilo-key", "trial")];
        let (named, trial) = (Kms::new(key.clone(), credentials_file), chance::<KEY>()?);
        let wrapped = named.wrap(&trial, &purpose).await?;
        let unusable = |why: String| KeyError::File { file: path.display().to_string(), why };
        let found = KmsKey::new(&wrapped.arn, key.endpoint()).ok().filter(|found| !found.is_alias());
        let found =
            found.ok_or_else(|| unusable(format!("KMS says that '{}' is '{}', which is no key's own name", key.arn(), wrapped.arn)))?;
        let kms = Kms::new(found, credentials_file);
        if kms.unwrap(&wrapped.content, &purpose).await? != trial {
            return Err(unusable(format!("what '{}' has wrapped comes back as something else", key.arn())));
        }
        write_new(path, &format!("{KMS_COMMENT}{KMS_FORMAT}:{}\n", kms.key()))?;
        Ok(MasterKey { kind: Kind::Kms(kms), file: path.display().to_string() })
    }

    /// The same key; a KMS is asked with the credentials of this file, or with what is found where the SDK always looks.
    #[must_use]
    pub fn with_credentials(self, file: Option<&Path>) -> MasterKey {
        let kind = match self.kind {
            Kind::Kms(kms) => Kind::Kms(Kms::new(kms.key().clone(), file)),
            secret @ Kind::Secret(_) => secret,
        };
        MasterKey { kind, ..self }
    }

    /// By which name it is known: of a key in a file something that follows from it, and from which it does not follow; of a key in KMS its ARN.
    pub fn id(&self) -> String {
        match &self.kind {
            Kind::Secret(secret) => id(secret),
            Kind::Kms(kms) => kms.key().arn().to_owned(),
        }
    }

    /// Where it was read from.
    pub fn file(&self) -> &str {
        &self.file
    }

    pub(super) fn kind(&self) -> &Kind {
        &self.kind
    }
}

/// With which keys of archives are wrapped.
pub(super) fn wrapping(secret: &[u8; KEY]) -> [u8; KEY] {
    derived(secret, &[], &[b"spilo wrapping"])
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MasterKey({}, …)", self.id())
    }
}

fn write_new(path: &Path, text: &str) -> Result<(), KeyError> {
    let unusable = |why: String| KeyError::File { file: path.display().to_string(), why };
    let opened = fs::File::options().write(true).create_new(true).mode(0o600).open(path);
    let mut opened = opened.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => is_there(path),
        _ => unusable(format!("the file cannot be made: {error}")),
    })?;
    let written = opened.write_all(text.as_bytes()).and_then(|()| opened.sync_all());
    written.map_err(|error| unusable(format!("the file cannot be written: {error}")))
}

fn is_there(path: &Path) -> KeyError {
    let why = "the file is there already, and may be the only copy of a key: choose another name".to_owned();
    KeyError::File { file: path.display().to_string(), why }
}

fn id(secret: &[u8; KEY]) -> String {
    hex::encode(&derived(secret, &[], &[b"spilo key id"])[..ID])
}

/// The key in the text. What is wrong with it is said without repeating any of it.
fn parse(text: &str) -> Result<Kind, String> {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let none = || {
        format!(
            "expected one line '{FORMAT}:ID:KEY', as 'spilo backup key new FILE' writes it, or '{KMS_FORMAT}:ARN', as it does with --kms ARN"
        )
    };
    let (Some(line), None) = (lines.next(), lines.next()) else { return Err(none()) };
    let (format, rest) = line.split_once(':').ok_or_else(none)?;
    match format {
        FORMAT => parse_secret(rest.split_once(':').ok_or_else(none)?).map(Kind::Secret),
        KMS_FORMAT => parse_kms(rest).map(|key| Kind::Kms(Kms::new(key, None))),
        newer if newer.starts_with("spilo-key-") || newer.starts_with("spilo-kms-") => {
            Err("a newer version of spilo has made it".to_owned())
        }
        _ => Err(none()),
    }
}

fn parse_secret((said, key): (&str, &str)) -> Result<[u8; KEY], String> {
    let mut secret = [0; KEY];
    hex::decode_to_slice(key, &mut secret).map_err(|_| format!("the key is not {} hexadecimal digits", 2 * KEY))?;
    if id(&secret) != said {
        return Err(format!("it says that its key is '{said}', and it is not: a digit was changed"));
    }
    Ok(secret)
}

fn parse_kms(text: &str) -> Result<KmsKey, String> {
    let key: KmsKey = text.parse().map_err(|error: InvalidKmsKey| error.to_string())?;
    if key.is_alias() {
        let why = "an alias can be given to another key, which opens none of the archives: 'spilo backup key new FILE --kms ALIAS' finds the key's own name";
        return Err(format!("'{}': {why}", key.arn()));
    }
    Ok(key)
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
        let secret_of = |key: &MasterKey| match key.kind {
            Kind::Secret(secret) => secret,
            Kind::Kms(_) => panic!("it is in the file"),
        };
        assert_eq!((read.id(), secret_of(&read)), (made.id(), secret_of(&made)));
        let text = fs::read_to_string(&path).unwrap();
        let error = MasterKey::create(&path).unwrap_err().to_string();
        assert!(error.contains("orders.key") && error.contains("there already"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        assert_ne!(MasterKey::create(&directory.path().join("other")).unwrap().id(), made.id());
        assert!(!format!("{made:?}").contains(&hex::encode(secret_of(&made))));
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
        assert!(told("spilo-kms-2:arn:aws:kms:eu-central-1:111122223333:key/1").contains("newer version"));
        assert!(told("spilo-kms-1:key/1").contains("expected arn:aws:kms"));
        assert!(told("spilo-kms-1:arn:aws:kms:eu-central-1:111122223333:key/1 endpoint=http://kms").contains("everybody on the way"));
        assert!(told("spilo-kms-1:arn:aws:kms:eu-central-1:111122223333:alias/x").contains("own name"));
        fs::remove_file(&path).unwrap();
        assert!(MasterKey::read(&path).unwrap_err().to_string().contains("cannot be read"));
    }

    #[test]
    fn a_key_in_kms_is_known_by_its_name() {
        let arn = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd";
        let key = MasterKey::parse(&format!("# x\n\nspilo-kms-1:{arn} endpoint=https://kms.example.com\n"), "orders.key").unwrap();
        assert_eq!((key.id(), key.file()), (arn.to_owned(), "orders.key"));
    }
}
