//! The cluster's archive: its volume, where the nodes find it, and the one moment at which it is begun.

use std::{collections::BTreeSet, path::PathBuf};

use bollard::{
    Docker,
    container::LogOutput,
    models::{ContainerCreateBody, HostConfig},
    query_parameters::{LogsOptionsBuilder, WaitContainerOptions},
};
use futures_util::{StreamExt as _, TryStreamExt as _};

use super::{
    config_volume::{self, ConfigFile},
    definition::{ArchiveMount, archive_mount, config_mount},
    engine::failed,
    ensure, names,
};
use crate::{
    model::{ClusterName, StoreConfig, StoreUrl},
    provisioner::{
        error::ProvisionError,
        observe::{ObjectKind, StoredSpec},
        store_secrets::StoreSecret,
    },
    spec::{ArchiveSpec, ArchiveStore, CloneSource, ClusterSpec},
    templates::{
        agent_config::{ARCHIVE_DIRECTORY, CLONE_CREDENTIALS, CLONE_KEY, Origin, STORE_CREDENTIALS, STORE_KEY},
        dockerfile::POSTGRES_UID,
    },
};

/// How a node gets to the archive.
pub(super) fn access(archive: &ArchiveSpec) -> Option<StoreConfig> {
    let url = match &archive.store {
        ArchiveStore::None => return None,
        ArchiveStore::Volume => StoreUrl::File(ARCHIVE_DIRECTORY.into()),
        ArchiveStore::S3(url) => url.clone(),
    };
    Some(StoreConfig {
        url,
        endpoint: archive.endpoint.clone(),
        region: archive.region.clone(),
        credentials_file: archive.credentials_file.is_some().then(|| STORE_CREDENTIALS.into()),
        key_file: archive.key_file.is_some().then(|| STORE_KEY.into()),
    })
}

/// What a node of the cluster mounts.
pub(super) fn mounts(stored: &StoredSpec) -> Vec<ArchiveMount> {
    let cluster = &stored.spec.name;
    let own =
        volume(stored).map(|volume| ArchiveMount { volume, of: cluster.clone(), target: ARCHIVE_DIRECTORY.to_owned(), read_only: false });
    // Only who may begin the cluster needs the other's backups.
    let others = stored.spec.clone_of.as_ref().filter(|source| !stored.initialized && source.archive.store == ArchiveStore::Volume);
    let others = others.map(|source| ArchiveMount {
        volume: names::archive(&source.cluster),
        of: source.cluster.clone(),
        target: clone_directory(source),
        read_only: true,
    });
    own.into_iter().chain(others).collect()
}

/// How a node gets to the backup that the cluster is begun with.
pub(super) fn origin(source: &CloneSource) -> Option<Origin> {
    let access = access(&source.archive)?;
    let url = match access.url {
        StoreUrl::File(_) => StoreUrl::File(clone_directory(source).into()),
        s3 => s3,
    };
    let credentials_file = access.credentials_file.map(|_| CLONE_CREDENTIALS.into());
    let key_file = access.key_file.map(|_| CLONE_KEY.into());
    let archive = StoreConfig { url, credentials_file, key_file, ..access };
    Some(Origin { cluster: source.cluster.to_string(), archive, system: source.system, goal: source.goal.clone() })
}

fn clone_directory(source: &CloneSource) -> String {
    format!("/archive-of/{}", source.cluster)
}

/// The volume that holds the archive, where one does.
pub(super) fn volume(stored: &StoredSpec) -> Option<String> {
    let in_volume = stored.spec.stored_archive().store == ArchiveStore::Volume;
    in_volume.then(|| names::archive(&stored.spec.name))
}

/// The store is there and can be written to: a new one is begun, one that is there stays as it is. Whoever plans this knows that the cluster has
/// no data yet: beside data that exist, an empty archive would look as if it had what it has lost.
pub(super) async fn ensure_archive(docker: &Docker, stored: &StoredSpec) -> Result<(), ProvisionError> {
    let cluster = &stored.spec.name;
    if let Some(volume) = volume(stored) {
        ensure::volume(docker, cluster, &volume, names::labels(cluster, ObjectKind::Archive, None)).await?;
    }
    config_volume::ensure_store_credentials(docker, stored).await?;
    let Some(access) = access(&stored.spec.stored_archive()) else { return Ok(()) };
    let doing = format!("begin the archive in '{}'", access.url);
    match run(docker, stored, command("init", &access, cluster), &[], &doing).await? {
        Ended::Well => Ok(()),
        Ended::Failed(reason) => Err(ProvisionError::Archive { store: access.url.to_string(), reason }),
    }
}

/// The archive can be opened, read and written with these files instead of those that the nodes have. It is tried from where a node is, by a
/// container that keeps the files to itself.
///
/// # Errors
/// When it cannot.
pub(super) async fn expect_opened(
    docker: &Docker,
    stored: &StoredSpec,
    secrets: &BTreeSet<StoreSecret>,
    files: &[ConfigFile],
) -> Result<(), ProvisionError> {
    let Some(mut access) = access(&stored.spec.stored_archive()) else { return Ok(()) };
    for (secret, file) in secrets.iter().zip(files) {
        let path = Some(PathBuf::from(format!("/{}", file.path)));
        match secret {
            StoreSecret::Credentials => access.credentials_file = path,
            StoreSecret::Key => access.key_file = path,
        }
    }
    let doing = format!("try out the new secrets of '{}'", access.url);
    match run(docker, stored, command("probe", &access, &stored.spec.name), files, &doing).await? {
        Ended::Well => Ok(()),
        Ended::Failed(reason) => {
            let what: Vec<String> = secrets.iter().map(ToString::to_string).collect();
            Err(ProvisionError::UnfitSecrets { what: what.join(" or "), store: access.url.to_string(), reason })
        }
    }
}

/// How a command of ours ended.
enum Ended {
    Well,
    /// What it complained of.
    Failed(String),
}

/// Runs a command of ours with the rights and the ways of a node, and with these files at its root, which nobody else sees and which go with it.
async fn run(docker: &Docker, stored: &StoredSpec, words: Vec<String>, files: &[ConfigFile], doing: &str) -> Result<Ended, ProvisionError> {
    let cluster = &stored.spec.name;
    let name = names::archive_starter(cluster);
    if let Some(left) = ensure::inspect(docker, cluster, &name).await? {
        ensure::removed(docker, left.id.as_deref().unwrap_or(&name)).await?;
    }
    let id = ensure::created(docker, cluster, &name, request(stored, words, !files.is_empty())).await?;
    let ran = async {
        if !files.is_empty() {
            config_volume::upload(docker, &id, "/", files).await?;
        }
        ensure::start(docker, &name).await?;
        ended(docker, &id, doing).await
    };
    let ran = ran.await;
    // What it said is read by now.
    ensure::removed(docker, &id).await?;
    ran
}

/// The container that runs a command, with the rights and the ways of a node.
fn request(stored: &StoredSpec, words: Vec<String>, gets_files: bool) -> ContainerCreateBody {
    let cluster = &stored.spec.name;
    let own = mounts(stored).into_iter().filter(|mount| !mount.read_only);
    ContainerCreateBody {
        user: Some(format!("{POSTGRES_UID}:{POSTGRES_UID}")),
        image: Some(stored.image.clone()),
        cmd: Some(words),
        labels: Some(names::labels(cluster, ObjectKind::ArchiveStarter, None)),
        host_config: Some(HostConfig {
            network_mode: Some(names::network(cluster)),
            mounts: Some([config_mount(cluster, true)].into_iter().chain(own.map(archive_mount)).collect()),
            // The engine puts no file where nothing may be written.
            readonly_rootfs: Some(!gets_files),
            cap_drop: Some(vec!["ALL".to_owned()]),
            security_opt: Some(vec!["no-new-privileges".to_owned()]),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// `init` begins the archive in the store too: what an earlier cluster of this name has left there with another key, or without one, is told
/// before there are any data.
fn command(verb: &str, access: &StoreConfig, cluster: &ClusterName) -> Vec<String> {
    let words = ["spilo", "wal", verb].into_iter().map(str::to_owned);
    words.chain(access.options()).chain([format!("--cluster={cluster}")]).collect()
}

/// The options that tell a command inside a node where the archive of the cluster is.
pub(super) fn options(spec: &ClusterSpec) -> Option<Vec<String>> {
    let access = access(&spec.stored_archive())?;
    Some(access.options().into_iter().chain([format!("--cluster={}", spec.name)]).collect())
}

/// Waits for its end.
async fn ended(docker: &Docker, id: &str, doing: &str) -> Result<Ended, ProvisionError> {
    let waited = docker.wait_container(id, None::<WaitContainerOptions>).next().await;
    let code = match waited {
        Some(Ok(ended)) => ended.status_code,
        // How the client library tells of an exit code that is not 0.
        Some(Err(bollard::errors::Error::DockerContainerWaitError { code, .. })) => code,
        Some(Err(error)) => return Err(failed(doing)(error)),
        None => return Err(ProvisionError::Engine { doing: doing.to_owned(), reason: "it did not say how that ended".to_owned() }),
    };
    if code == 0 {
        return Ok(Ended::Well);
    }
    let options = LogsOptionsBuilder::default().stdout(true).stderr(true).build();
    let said: Vec<LogOutput> = docker.logs(id, Some(options)).try_collect().await.map_err(failed(doing))?;
    let said: String = said.iter().map(ToString::to_string).collect();
    Ok(Ended::Failed(sentence(&said, code)))
}

/// The error that a command of ours ended with, in one line.
fn sentence(said: &str, code: i64) -> String {
    let line = said.lines().map(str::trim).find(|line| line.starts_with("error:")).or_else(|| said.lines().next_back());
    match line {
        Some(line) => line.trim().trim_start_matches("error:").trim().to_owned(),
        None => format!("'spilo' ended with {code} there and said nothing"),
    }
}

/// The bucket that holds the archive, where one does.
pub(super) fn bucket(stored: &StoredSpec) -> Option<String> {
    match stored.spec.archive.as_ref()?.store {
        ArchiveStore::S3(ref url) => Some(url.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_the_key_inside_is_told_and_not_that_on_the_operators_machine() {
        let archive = ArchiveSpec {
            store: "s3://backups/prod".parse().unwrap(),
            endpoint: Some("http://s3:9000".into()),
            region: None,
            credentials_file: Some("/home/ann/key".into()),
            key_file: Some("/home/ann/orders.key".into()),
        };
        let command = command("init", &access(&archive).unwrap(), &"orders".parse().unwrap()).join(" ");
        let expected = "spilo wal init --store=s3://backups/prod --store-endpoint=http://s3:9000 \
            --store-credentials=/etc/spilo/secrets/store --store-key=/etc/spilo/secrets/archive-key --cluster=orders";
        assert_eq!(command, expected);
    }

    #[test]
    fn what_went_wrong_is_what_the_command_said() {
        assert_eq!(sentence("warn: x\nerror: 's3://b': no such bucket\nhint: make it\n", 1), "'s3://b': no such bucket");
        assert_eq!(sentence("", 127), "'spilo' ended with 127 there and said nothing");
    }
}
