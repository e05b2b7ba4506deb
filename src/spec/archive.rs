//! Where a cluster's base backups and its WAL are kept.

use std::{fmt, path::PathBuf, str::FromStr};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Mistake, raw::kind_of};
use crate::model::StoreUrl;

/// Every key of the section.
pub(super) const KEYS: &[&str] = &["store", "endpoint", "region", "credentials_file", "key_file"];

/// What holds the archive.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ArchiveStore {
    /// Nothing: there is no archive.
    None,
    /// A volume beside the nodes, of the cluster's own; it outlives the cluster.
    #[default]
    Volume,
    /// A bucket: always [`StoreUrl::S3`].
    S3(StoreUrl),
}

/// Where the archive is, and how one gets there. What is beside `store` is for S3 only, but for the key that it is encrypted with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArchiveSpec {
    /// What holds it.
    pub store: ArchiveStore,
    /// Where S3 answers; `None`: at Amazon's, in the region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The bucket's region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The file, on the machine of whoever creates the cluster, that holds the key to the bucket. What is in it goes to the nodes as a file, and
    /// nowhere else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_file: Option<PathBuf>,
    /// The file, on that machine too, with the key that the archive is encrypted with; `None`: it is not. It goes the same way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
}

impl ArchiveSpec {
    /// No archive.
    pub fn none() -> ArchiveSpec {
        ArchiveSpec { store: ArchiveStore::None, ..ArchiveSpec::default() }
    }

    /// In this cluster's own volume.
    pub fn volume() -> ArchiveSpec {
        ArchiveSpec::default()
    }
}

/// What was said of an archive, in a file or on the command line; nothing of it has to be there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ArchiveOptions {
    /// What holds it.
    pub store: Option<ArchiveStore>,
    /// Where S3 answers.
    pub endpoint: Option<String>,
    /// The bucket's region.
    pub region: Option<String>,
    /// Where the key to the bucket is.
    pub credentials_file: Option<PathBuf>,
    /// Where the key is that it is encrypted with.
    pub key_file: Option<PathBuf>,
}

impl ArchiveOptions {
    /// These over the `others`. Another store has another way to it: what the others say of theirs does not count then. The key does: whoever
    /// wants an archive encrypted does so wherever it is.
    #[must_use]
    pub fn over(self, others: ArchiveOptions) -> ArchiveOptions {
        let key_file = self.key_file.or(others.key_file);
        if self.store.is_some() {
            return ArchiveOptions { key_file, ..self };
        }
        ArchiveOptions {
            store: others.store,
            endpoint: self.endpoint.or(others.endpoint),
            region: self.region.or(others.region),
            credentials_file: self.credentials_file.or(others.credentials_file),
            key_file,
        }
    }

    /// The archive that they come to; `None` when nothing was said.
    ///
    /// # Errors
    /// The key that does not fit the store.
    pub fn archive(self) -> Result<Option<ArchiveSpec>, &'static str> {
        let given = [
            ("endpoint", self.endpoint.is_some()),
            ("region", self.region.is_some()),
            ("credentials_file", self.credentials_file.is_some()),
        ];
        match self.store {
            Some(store @ ArchiveStore::S3(_)) => {
                let ArchiveOptions { endpoint, region, credentials_file, key_file, .. } = self;
                Ok(Some(ArchiveSpec { store, endpoint, region, credentials_file, key_file }))
            }
            store => match (given.iter().find(|(_, given)| *given), store, self.key_file) {
                (Some((key, _)), ..) => Err(key),
                (None, Some(ArchiveStore::None), Some(_)) => Err("key_file"),
                (None, None, None) => Ok(None),
                (None, store, key_file) => Ok(Some(ArchiveSpec { store: store.unwrap_or_default(), key_file, ..ArchiveSpec::none() })),
            },
        }
    }
}

/// Reads the section `archive` of a spec file.
pub(super) fn read(section: &Map<String, Value>, mistakes: &mut Vec<Mistake>) -> ArchiveOptions {
    let mut text = |key: &str, check: fn(&str) -> Result<String, String>| {
        let value = section.get(key).filter(|value| !value.is_null())?;
        let read = match value {
            Value::String(text) => check(text),
            other => Err(format!("it is {}, expected a text", kind_of(other))),
        };
        read.map_err(|problem| {
            // An address that is refused may be refused for the password in it.
            let shown = (key != "endpoint").then(|| value.to_string());
            mistakes.push(Mistake { path: format!("archive.{key}"), value: shown, problem });
        })
        .ok()
    };
    let store = text("store", |store| store.parse::<ArchiveStore>().map(|store| store.to_string()));
    ArchiveOptions {
        store: store.and_then(|store| store.parse().ok()),
        endpoint: text("endpoint", check_endpoint),
        region: text("region", check_region),
        credentials_file: text("credentials_file", check_path).map(PathBuf::from),
        key_file: text("key_file", check_path).map(PathBuf::from),
    }
}

/// Checks the address of an S3 service.
///
/// # Errors
/// What is wrong with it, without repeating it.
pub fn check_endpoint(text: &str) -> Result<String, String> {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    match host {
        Some(host) if host.contains('@') => Err("it must hold no password: that belongs into the credentials file".to_owned()),
        Some(host) if !host.is_empty() && host.chars().all(|c| c.is_ascii_graphic()) => Ok(text.to_owned()),
        _ => Err("expected an address such as https://s3.example.com:9000".to_owned()),
    }
}

/// Checks the name of a region.
///
/// # Errors
/// What is wrong with it.
pub fn check_region(text: &str) -> Result<String, String> {
    let fits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if fits { Ok(text.to_owned()) } else { Err("expected the name of a region, such as eu-central-1".to_owned()) }
}

fn check_path(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("expected the path of a file".to_owned()) } else { Ok(text.to_owned()) }
}

impl FromStr for ArchiveStore {
    type Err = String;

    fn from_str(text: &str) -> Result<ArchiveStore, String> {
        match (text, text.parse::<StoreUrl>()) {
            ("none", _) => Ok(ArchiveStore::None),
            ("volume", _) => Ok(ArchiveStore::Volume),
            (_, Ok(url @ StoreUrl::S3 { .. })) => Ok(ArchiveStore::S3(url)),
            _ => Err("possible are: volume, s3://BUCKET/PREFIX, none".to_owned()),
        }
    }
}

impl TryFrom<String> for ArchiveStore {
    type Error = String;

    fn try_from(text: String) -> Result<ArchiveStore, String> {
        text.parse()
    }
}

impl From<ArchiveStore> for String {
    fn from(store: ArchiveStore) -> String {
        store.to_string()
    }
}

impl fmt::Display for ArchiveStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ArchiveStore::None => f.write_str("none"),
            ArchiveStore::Volume => f.write_str("volume"),
            ArchiveStore::S3(url) => url.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn section(section: &Value) -> (ArchiveOptions, Vec<String>) {
        let mut mistakes = Vec::new();
        let options = read(section.as_object().unwrap(), &mut mistakes);
        (options, mistakes.iter().map(Mistake::to_string).collect())
    }

    #[test]
    fn a_store_reads_back_as_it_is_written() {
        for text in ["none", "volume", "s3://backups/prod"] {
            assert_eq!(text.parse::<ArchiveStore>().unwrap().to_string(), text);
        }
        for text in ["", "file:///srv", "s3://", "S3", "/srv"] {
            assert!(text.parse::<ArchiveStore>().expect_err(text).contains("s3://BUCKET"), "{text}");
        }
    }

    #[test]
    fn an_archive_is_stored_and_read_back_with_the_path_of_the_key_and_not_the_key() {
        let options = json!({"store": "s3://b-b/p", "endpoint": "http://s3:9000", "region": "eu-1", "credentials_file": "/home/ann/s3",
            "key_file": "/home/ann/orders.key"});
        let (options, mistakes) = section(&options);
        assert_eq!(mistakes, [""; 0]);
        let archive = options.archive().unwrap().unwrap();
        let text = serde_json::to_string(&archive).unwrap();
        assert_eq!(serde_json::from_str::<ArchiveSpec>(&text).unwrap(), archive);
        assert_eq!(serde_json::to_string(&ArchiveSpec::volume()).unwrap(), r#"{"store":"volume"}"#);
    }

    #[test]
    fn mistakes_are_named_and_an_address_with_a_password_is_not_repeated() {
        let (_, mistakes) = section(&json!({"store": "s3:/x", "endpoint": "http://ann:geheim@s3", "region": "", "credentials_file": 7}));
        assert_eq!(mistakes.len(), 4, "{mistakes:?}");
        assert!(mistakes[0].contains("archive.store") && mistakes[0].contains("s3:/x"), "{mistakes:?}");
        assert!(mistakes[1].contains("password") && !mistakes[1].contains("geheim"), "{mistakes:?}");
    }

    #[test]
    fn what_is_for_s3_fits_no_other_store() {
        let options = ArchiveOptions { region: Some("eu-1".into()), ..ArchiveOptions::default() };
        assert_eq!(options.clone().archive(), Err("region"));
        assert_eq!(ArchiveOptions { store: Some(ArchiveStore::Volume), ..options }.archive(), Err("region"));
        assert_eq!(ArchiveOptions::default().archive(), Ok(None));
    }

    #[test]
    fn a_key_fits_every_store_and_is_forgotten_for_none() {
        let keyed = ArchiveOptions { key_file: Some("/orders.key".into()), ..ArchiveOptions::default() };
        let archive = keyed.clone().archive().unwrap().unwrap();
        assert_eq!((archive.store, archive.key_file), (ArchiveStore::Volume, Some("/orders.key".into())));
        for store in ["volume", "s3://backups/prod"] {
            let moved = ArchiveOptions { store: Some(store.parse().unwrap()), ..ArchiveOptions::default() }.over(keyed.clone());
            assert_eq!(moved.archive().unwrap().unwrap().key_file, Some("/orders.key".into()), "{store}");
        }
        let nowhere = ArchiveOptions { store: Some(ArchiveStore::None), ..keyed };
        assert_eq!(nowhere.archive(), Err("key_file"));
    }

    #[test]
    fn another_store_has_another_way_to_it() {
        let bucket = |name: &str| Some(format!("s3://{name}").parse::<ArchiveStore>().unwrap());
        let file = ArchiveOptions { store: bucket("old"), region: Some("eu-1".into()), ..ArchiveOptions::default() };
        let other = ArchiveOptions { store: bucket("new"), ..ArchiveOptions::default() };
        assert_eq!(other.clone().over(file.clone()), other);
        let key = ArchiveOptions { credentials_file: Some("/key".into()), ..ArchiveOptions::default() };
        let both = key.over(file);
        assert_eq!((both.store, both.region.as_deref(), both.credentials_file), (bucket("old"), Some("eu-1"), Some("/key".into())));
    }
}
