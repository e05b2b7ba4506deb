//! Archives whose key is wrapped by a key in KMS: what is asked of it, and what becomes of an archive while it says no, or nothing.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use spilo::{
    backup::{
        ArchiveError,
        encryption::{Changed, KeyError, MasterKey, SealedStore},
    },
    model::KmsKey,
    storage::{Claim, FileStore, KmsError, ObjectStore as _, Store, StoreConfig},
};

use crate::{
    content,
    kms::{KEY, KmsDouble, Refusal, SECRET},
    name,
};

const OBJECT: &str = "orders/wal/1";

struct Place {
    directory: tempfile::TempDir,
    kms: KmsDouble,
    arn: String,
}

impl Place {
    fn new() -> Place {
        let (directory, kms) = (tempfile::tempdir().unwrap(), KmsDouble::start());
        std::fs::create_dir(directory.path().join("store")).unwrap();
        FileStore::init(&directory.path().join("store")).unwrap();
        let arn = kms.new_key("1234abcd");
        let place = Place { directory, kms, arn };
        place.write("orders.key", &place.arn);
        place
    }

    fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }

    /// A file that says that this is the key.
    fn write(&self, file: &str, arn: &str) {
        std::fs::write(self.path(file), format!("spilo-kms-1:{arn} endpoint={}\n", self.kms.endpoint())).unwrap();
    }

    async fn opened(&self, file: &str) -> Result<SealedStore<Store>, ArchiveError> {
        let url = format!("file://{}", self.path("store").display()).parse().unwrap();
        let (credentials_file, key_file) = (Some(self.kms.credentials_file()), Some(self.path(file)));
        SealedStore::open(&StoreConfig { credentials_file, key_file, ..StoreConfig::new(url) }, name("orders")).await
    }

    async fn begun(&self) -> SealedStore<Store> {
        let store = self.opened("orders.key").await.unwrap();
        assert_eq!(store.create(&name(OBJECT), content("salaries")).await.unwrap(), Claim::Won);
        store
    }

    fn objects(&self) -> Vec<String> {
        files(&self.path("store/orders"))
    }
}

fn files(folder: &std::path::Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path.display().to_string()] }).collect()
}

#[track_caller]
fn refused(error: &ArchiveError, parts: &[&str]) {
    let said = error.to_string();
    assert!(matches!(error, ArchiveError::Key(KeyError::Kms(KmsError::Refused { .. }))) && !error.is_unavailable(), "{said}");
    for part in parts.iter().chain(&["hint: "]) {
        assert!(said.contains(part), "'{part}' in: {said}");
    }
    assert!(said.lines().count() == 1 && !said.contains(KEY) && !said.contains(SECRET), "{said}");
}

#[tokio::test]
async fn an_archive_is_opened_by_asking_once_and_goes_on_while_the_kms_is_away() {
    let place = Place::new();
    let store = place.begun().await;
    let asked = place.kms.requests("Encrypt") + place.kms.requests("Decrypt");
    place.kms.close();
    for number in 2..10 {
        store.create(&name(&format!("orders/wal/{number}")), content("more")).await.unwrap();
    }
    assert_eq!(store.read(&name(OBJECT)).await.unwrap().unwrap(), "salaries");
    place.kms.open();
    assert_eq!(place.kms.requests("Encrypt") + place.kms.requests("Decrypt"), asked, "nothing was asked meanwhile");
    let other = place.opened("orders.key").await.unwrap();
    assert_eq!(other.read(&name(OBJECT)).await.unwrap().unwrap(), "salaries");
    other.create(&name("orders/wal/11"), content("more")).await.unwrap();
    assert_eq!(place.kms.requests("Encrypt") + place.kms.requests("Decrypt"), asked + 1);
    let secrets = place.kms.secrets();
    assert_eq!(secrets.len(), 1);
    for file in place.objects() {
        let found = std::fs::read(&file).unwrap();
        let (text, key) = (String::from_utf8_lossy(&found).into_owned(), hex::encode(&secrets[0]));
        assert!(!text.contains(&key) && !found.windows(32).any(|part| part == secrets[0]), "{file}");
    }
}

#[tokio::test]
async fn while_the_kms_is_away_nothing_is_begun_and_nothing_is_written_in_the_clear() {
    let place = Place::new();
    place.kms.close();
    let begun = Instant::now();
    // An archive that is not begun is known to have no key: only what would begin it asks.
    let error = place.opened("orders.key").await.unwrap().create(&name(OBJECT), content("salaries")).await.unwrap_err();
    assert!(error.is_unavailable() && error.to_string().contains(&place.arn), "{error}");
    assert!(error.to_string().contains("KMS is not available") && begun.elapsed() < Duration::from_secs(40), "{error}");
    assert_eq!(place.objects(), [""; 0]);
    place.kms.open();
    place.begun().await;
}

#[tokio::test]
async fn what_passes_is_asked_again() {
    let place = Place::new();
    place.kms.refuse("Encrypt", Refusal::throttled(), 2);
    place.kms.refuse("Decrypt", Refusal::broken(), 2);
    place.begun().await;
    assert_eq!(place.kms.requests("Encrypt"), 3);
}

#[tokio::test]
async fn what_somebody_has_to_change_is_told_at_once_with_what_to_do() {
    let place = Place::new();
    place.begun().await;
    let begun = Instant::now();
    for (refusal, part) in [
        (Refusal::denied(), "allow kms:Decrypt on 'arn:aws:kms:eu-central-1:111122223333:key/1234abcd'"),
        (Refusal::pending_deletion(&place.arn), "cancel-key-deletion"),
        (Refusal::new(400, "InvalidKeyUsageException", ""), "SYMMETRIC_DEFAULT"),
    ] {
        place.kms.refuse("Decrypt", refusal, 1);
        refused(&place.opened("orders.key").await.err().unwrap(), &[&place.arn, part]);
    }
    place.kms.disable(&place.arn);
    refused(&place.opened("orders.key").await.err().unwrap(), &["DisabledException", "enable-key"]);
    assert!(begun.elapsed() < Duration::from_secs(10), "nobody waits for it: {:?}", begun.elapsed());
    let fresh = Place::new();
    fresh.kms.refuse("Encrypt", Refusal::denied(), 1);
    let error = fresh.opened("orders.key").await.unwrap().create(&name(OBJECT), content("salaries")).await.unwrap_err();
    refused(&error, &["allow kms:Encrypt on"]);
    fresh.kms.refuse("Decrypt", Refusal::denied(), 1);
    let error = fresh.opened("orders.key").await.unwrap().create(&name(OBJECT), content("salaries")).await.unwrap_err();
    refused(&error, &["allow kms:Decrypt on"]);
    assert_eq!(fresh.objects(), [""; 0], "no archive is begun that nobody could open again");
}

#[tokio::test]
async fn a_wrapped_key_that_was_changed_or_is_another_archives_is_damage() {
    let place = Place::new();
    place.begun().await;
    let path = place.path("store/orders/key/00000001");
    let whole = std::fs::read_to_string(&path).unwrap();
    let id = whole.split("\"id\": \"").nth(1).unwrap()[..16].to_owned();
    let blob = whole.find("\"wrapped\": \"").unwrap() + 12;
    let digit = if &whole[blob..=blob] == "0" { "1" } else { "0" };
    let other = place.kms.new_key("another");
    place.write("another.key", &other);
    for (file, damaged) in [
        ("orders.key", whole.replace(&id, "0011223344556677")),
        ("orders.key", format!("{}{digit}{}", &whole[..blob], &whole[blob + 1..])),
        ("orders.key", whole.replace("AWS-KMS", "AES-256-GCM")),
        ("another.key", whole.replace(&place.arn, &other)),
    ] {
        std::fs::write(&path, damaged).unwrap();
        let error = place.opened(file).await.err().unwrap();
        assert!(
            matches!(&error, ArchiveError::Key(KeyError::Damaged { object, .. }) if object.as_str() == "orders/key/00000001"),
            "{error}"
        );
    }
    std::fs::write(&path, &whole).unwrap();
    place.opened("orders.key").await.unwrap();
    // The name of the archive is part of what KMS is asked for.
    std::fs::create_dir_all(place.path("store/invoices/key")).unwrap();
    std::fs::write(place.path("store/invoices/key/00000001"), whole.replace("\"orders\"", "\"invoices\"")).unwrap();
    let url = format!("file://{}", place.path("store").display()).parse().unwrap();
    let (credentials_file, key_file) = (Some(place.kms.credentials_file()), Some(place.path("orders.key")));
    let config = StoreConfig { credentials_file, key_file, ..StoreConfig::new(url) };
    let error = SealedStore::open(&config, name("invoices")).await.err().unwrap();
    assert!(matches!(error, ArchiveError::Key(KeyError::Damaged { .. })), "{error}");
}

#[tokio::test]
async fn an_archive_moves_from_a_key_in_kms_to_one_in_a_file_and_to_another_in_kms() {
    let place = Place::new();
    let running = place.begun().await;
    MasterKey::create(&place.path("file.key")).unwrap();
    let file_key = MasterKey::read(&place.path("file.key")).unwrap();
    assert_eq!(place.opened("orders.key").await.unwrap().add_master(&file_key).await.unwrap(), Changed::Now);
    let next = place.kms.new_key("5678");
    place.write("next.key", &next);
    let credentials = place.kms.credentials_file();
    let next_key = MasterKey::read(&place.path("next.key")).unwrap().with_credentials(Some(&credentials));
    place.kms.refuse("Encrypt", Refusal::denied(), 1);
    refused(&place.opened("file.key").await.unwrap().add_master(&next_key).await.unwrap_err(), &["allow kms:Encrypt", &next]);
    assert_eq!(place.opened("file.key").await.unwrap().add_master(&next_key).await.unwrap(), Changed::Now);
    let with_next = place.opened("next.key").await.unwrap();
    assert_eq!(with_next.remove_master(&place.arn).await.unwrap(), Changed::Now);
    place.kms.disable(&place.arn);
    for file in ["file.key", "next.key"] {
        assert_eq!(place.opened(file).await.unwrap().read(&name(OBJECT)).await.unwrap().unwrap(), "salaries", "{file}");
    }
    let error = place.opened("orders.key").await.err().unwrap().to_string();
    assert!(error.contains(&file_key.id()) && error.contains(&next) && error.contains(&place.arn), "{error}");
    running.create(&name("orders/wal/2"), content("still")).await.unwrap();
    assert_eq!(with_next.read(&name("orders/wal/2")).await.unwrap().unwrap(), "still");
}

#[tokio::test]
async fn a_file_names_a_key_only_when_it_can_be_used_and_by_its_own_name() {
    let place = Place::new();
    let (path, credentials) = (place.path("new.key"), place.kms.credentials_file());
    let endpoint = place.kms.endpoint();
    let key = |arn: &str| KmsKey::new(arn, Some(&endpoint)).unwrap();
    for action in ["Encrypt", "Decrypt"] {
        place.kms.refuse(action, Refusal::denied(), 1);
        let error = MasterKey::create_in_kms(&path, &key(&place.arn), Some(&credentials)).await.unwrap_err().to_string();
        assert!(error.contains(&format!("allow kms:{action} on")) && !path.exists(), "{error}");
    }
    let unknown = place.arn.replace("1234abcd", "no-such-key");
    let error = MasterKey::create_in_kms(&path, &key(&unknown), Some(&credentials)).await.unwrap_err().to_string();
    assert!(error.contains("NotFoundException") && error.contains(&unknown), "{error}");
    let alias = place.kms.new_alias("backups", &place.arn);
    let made = MasterKey::create_in_kms(&path, &key(&alias), Some(&credentials)).await.unwrap();
    assert_eq!((made.id(), MasterKey::read(&path).unwrap().id()), (place.arn.clone(), place.arn.clone()));
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(&format!("\nspilo-kms-1:{} endpoint={endpoint}\n", place.arn)), "{text}");
    let again = MasterKey::create_in_kms(&path, &key(&alias), Some(&credentials)).await.unwrap_err().to_string();
    assert!(again.contains("there already"), "{again}");
    assert!(!format!("{made:?}").contains(SECRET));
}

#[tokio::test]
async fn a_bucket_has_it_too() {
    let (place, double) = (Place::new(), crate::s3::S3Double::start());
    // One file of credentials is good for both.
    double.know_key(KEY);
    let config = StoreConfig {
        credentials_file: Some(place.kms.credentials_file()),
        key_file: Some(place.path("orders.key")),
        ..double.config("prod")
    };
    Store::init(&config).await.unwrap();
    let store = SealedStore::open(&config, name("orders")).await.unwrap();
    store.create(&name(OBJECT), content("salaries")).await.unwrap();
    let again = SealedStore::open(&config, name("orders")).await.unwrap();
    assert_eq!(again.read(&name(OBJECT)).await.unwrap().unwrap(), "salaries");
    assert!(Store::open(&config).await.unwrap().read(&name(OBJECT)).await.unwrap().unwrap().starts_with(b"spiloE1\n"));
}
