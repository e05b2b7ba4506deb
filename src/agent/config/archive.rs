//! The section `spilo.archive`: where this member's WAL goes.

use std::path::PathBuf;

use super::reader::Reader;
use crate::model::{ClusterName, RecoveryGoal, StoreConfig, StoreUrl, SystemId};

/// Whose backup a new cluster begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The other cluster's archive.
    pub archive: ArchiveSettings,
    /// Which database cluster of that name; `None`: there is only one.
    pub system: Option<SystemId>,
    /// How far it is recovered.
    pub goal: RecoveryGoal,
}

impl Origin {
    /// Reads the section `spilo.begin_from` of a cluster that has its `own` archive there. `None`: there is none, or one with mistakes.
    pub fn read(reader: &mut Reader<'_>, own: Option<&ArchiveSettings>) -> Option<Origin> {
        let archive = ArchiveSettings::read_at(reader, "spilo.begin_from")?;
        if own.is_some_and(|own| (&own.store.url, &own.cluster) == (&archive.store.url, &archive.cluster)) {
            // Both have one system identifier: they would write one archive.
            reader
                .mistakes
                .push("'spilo.begin_from' is the cluster's own archive: name it differently, or choose another store".to_owned());
            return None;
        }
        let system = reader.text("spilo.begin_from.system").and_then(|text| match text.parse() {
            Ok(system) => Some(system),
            Err(error) => {
                reader.mistakes.push(format!("'spilo.begin_from.system': {error}"));
                None
            }
        });
        Some(Origin { archive, system, goal: goal(reader)? })
    }
}

/// A mistake in it must not become "to the end": that moment may be the one to come before.
fn goal(reader: &mut Reader<'_>) -> Option<RecoveryGoal> {
    let read = reader.at("spilo.begin_from").as_object().map_or(Ok(RecoveryGoal::default()), RecoveryGoal::read);
    read.map_err(|wrong| reader.mistakes.extend(wrong.iter().map(|wrong| format!("'spilo.begin_from.{}': {}", wrong.key, wrong.problem))))
        .ok()
}

/// The archive, as the WAL service is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveSettings {
    /// The store.
    pub store: StoreConfig,
    /// Below which name the cluster's objects are.
    pub cluster: ClusterName,
}

impl ArchiveSettings {
    /// Reads the section `spilo.archive`. `None`: there is none, or one with mistakes.
    pub fn read(reader: &mut Reader<'_>) -> Option<ArchiveSettings> {
        ArchiveSettings::read_at(reader, "spilo.archive")
    }

    fn read_at(reader: &mut Reader<'_>, section: &str) -> Option<ArchiveSettings> {
        if reader.at(section).is_null() {
            return None;
        }
        if !reader.at(section).is_object() {
            reader.mistakes.push(format!("'{section}' is no section: 'store' is needed in it"));
            return None;
        }
        let url = reader.required(&format!("{section}.store"));
        let url = match url.parse::<StoreUrl>() {
            Ok(url) => Some(url),
            Err(error) if !url.is_empty() => {
                reader.mistakes.push(format!("'{section}.store': {error}"));
                None
            }
            Err(_) => None,
        };
        let cluster = cluster(reader, section);
        let mut of_s3 = |key: &str| of_s3(reader, url.as_ref(), &format!("{section}.{key}"));
        let (endpoint, region, credentials_file) = (of_s3("endpoint"), of_s3("region"), of_s3("credentials_file").map(PathBuf::from));
        let key_file = reader.text(&format!("{section}.key_file")).map(PathBuf::from);
        Some(ArchiveSettings { store: StoreConfig { url: url?, endpoint, region, credentials_file, key_file }, cluster: cluster? })
    }

    /// What the WAL service of this data directory is started with.
    pub fn arguments(&self, data_dir: &str) -> Vec<String> {
        let mut words = ["wal", "serve", "--data-dir", data_dir].map(str::to_owned).to_vec();
        words.extend(self.options());
        words
    }

    /// The options that say where the archive is.
    pub fn options(&self) -> Vec<String> {
        let mut words = self.store.options();
        words.push(format!("--cluster={}", self.cluster));
        words
    }
}

fn of_s3(reader: &mut Reader<'_>, store: Option<&StoreUrl>, path: &str) -> Option<String> {
    let value = reader.text(path)?;
    if let Some(StoreUrl::File(_)) = store {
        reader.mistakes.push(format!("'{path}' means nothing for a store in a directory: remove it"));
    }
    Some(value)
}

/// The scope, unless it is named: a scope may be what no cluster can be called.
fn cluster(reader: &mut Reader<'_>, section: &str) -> Option<ClusterName> {
    let named = format!("{section}.cluster");
    let (path, named) = match reader.text(&named) {
        Some(text) => (named.as_str(), text),
        None => ("scope", reader.at("scope").as_str().unwrap_or_default().to_owned()),
    };
    match named.parse() {
        Ok(cluster) => Some(cluster),
        // That there is no scope is told elsewhere.
        Err(_) if named.is_empty() => None,
        Err(error) if path == "scope" => {
            reader.mistakes.push(format!("'{section}.cluster' is missing, and the scope cannot take its place: {error}"));
            None
        }
        Err(error) => {
            reader.mistakes.push(format!("'{path}': {error}"));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(section: &Value, scope: &str) -> Result<Option<ArchiveSettings>, Vec<String>> {
        let root = json!({"scope": scope, "spilo": {"archive": section}});
        let mut reader = Reader { root: &root, mistakes: Vec::new() };
        let found = ArchiveSettings::read(&mut reader);
        if reader.mistakes.is_empty() { Ok(found) } else { Err(reader.mistakes) }
    }

    #[test]
    fn a_directory_is_enough() {
        assert_eq!(read(&Value::Null, "orders"), Ok(None));
        let archive = read(&json!({"store": "file:///archive"}), "orders").unwrap().unwrap();
        assert_eq!(archive.arguments("/data").join(" "), "wal serve --data-dir /data --store=file:///archive --cluster=orders");
    }

    #[test]
    fn a_bucket_is_told_with_all_that_it_needs() {
        let section = json!({"store": "s3://backups/prod", "endpoint": "http://minio:9000", "region": "eu", "credentials_file": "/k", "cluster": "x"});
        let words = read(&section, "no name of a cluster!").unwrap().unwrap().arguments("/data").join(" ");
        assert!(words.ends_with(
            "--store=s3://backups/prod --store-endpoint=http://minio:9000 --store-region=eu --store-credentials=/k --cluster=x"
        ));
    }

    #[test]
    fn a_cluster_begins_with_another_ones_backup_and_never_with_one_in_its_own_place() {
        let read = |from: Value| {
            let root = json!({"scope": "trial", "spilo": {"archive": {"store": "s3://backups"}, "begin_from": from}});
            let mut reader = Reader { root: &root, mistakes: Vec::new() };
            let own = ArchiveSettings::read(&mut reader);
            let found = Origin::read(&mut reader, own.as_ref());
            if reader.mistakes.is_empty() { Ok(found) } else { Err(reader.mistakes.join("\n")) }
        };
        assert_eq!(read(Value::Null), Ok(None));
        let origin =
            read(json!({"store": "s3://backups", "cluster": "orders", "system": "7710753353203642389", "at": "2026-11-21T20:00:00Z"}));
        let origin = origin.unwrap().unwrap();
        assert_eq!(
            (origin.system, origin.goal.options().join(" ").as_str()),
            (Some(SystemId(7_710_753_353_203_642_389)), "--at=2026-11-21T20:00:00Z")
        );
        let point = read(json!({"store": "s3://backups", "cluster": "orders", "restore_point": "before", "timeline": 2})).unwrap().unwrap();
        assert_eq!(point.goal.options(), ["--restore-point=before", "--timeline=2"]);
        let wrong = read(json!({"store": "s3://backups", "cluster": "orders", "at": "2026-11-21 20:00:00", "lsn": "7"})).unwrap_err();
        assert!(
            wrong.contains("'spilo.begin_from.at': ") && wrong.contains("time zone") && wrong.contains("'spilo.begin_from.lsn'"),
            "{wrong}"
        );
        assert!(read(json!({"store": "s3://backups", "cluster": "trial"})).unwrap_err().contains("own archive"));
        assert!(read(json!({"store": "s3://backups", "cluster": "orders", "system": "x"})).unwrap_err().contains("begin_from.system"));
    }

    #[test]
    fn every_mistake_is_told() {
        let mistakes = |section: Value, scope: &str| read(&section, scope).unwrap_err().join("\n");
        assert!(mistakes(json!("x"), "orders").contains("is no section"));
        assert!(mistakes(json!({}), "orders").contains("'spilo.archive.store' is missing"));
        let several = mistakes(json!({"store": "/archive", "cluster": "Orders", "region": 5}), "orders");
        assert!(several.contains("file:///DIRECTORY") && several.contains("'Orders'") && several.contains("'spilo.archive.region' is 5"));
        assert!(mistakes(json!({"store": "file:///a", "endpoint": "http://x"}), "orders").contains("means nothing"));
        assert!(mistakes(json!({"store": "file:///a"}), "My Scope").contains("'spilo.archive.cluster' is missing"));
    }
}
