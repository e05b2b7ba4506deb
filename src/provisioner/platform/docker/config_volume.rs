//! The volume mounted at `/etc/spilo`: configuration and passwords.
//!
//! Files get in and out through the engine's archives, by way of a container that is created and never started, so that no password passes
//! through a command line, an environment or a label.

use std::{
    io::{self, Read as _},
    path::Path,
    time::SystemTime,
};

use bollard::{
    Docker, body_try_stream,
    models::{ContainerCreateBody, HostConfig},
    query_parameters::{DownloadFromContainerOptionsBuilder, UploadToContainerOptionsBuilder},
};
use bytes::Bytes;
use futures_util::{TryStreamExt as _, stream};

use super::{
    archive,
    definition::{config_mount, etcd_hosts},
    engine::{failed, is_missing},
    ensure, inventory, names,
};
use crate::{
    model::{ClusterName, Secret},
    provisioner::{
        error::ProvisionError,
        observe::{Inventory, ObjectKind, StoredSpec},
        store_secrets::StoreSecret,
    },
    spec::Durability,
    templates::{
        agent_config::{AgentConfig, CONFIG_DIRECTORY, render_agent_config},
        dockerfile::POSTGRES_UID,
        router_config::{RouterConfig, render_router_config},
    },
};

/// Whose passwords are made.
const ROLES: [&str; 4] = ["replicator", "rewinder", "monitor", "app"];

/// The key to the archive's bucket.
const STORE_SECRET: &str = "secrets/store";

/// The key to the bucket with the backup that the cluster is begun with.
const CLONE_SECRET: &str = "secrets/clone-store";

/// The keys that the archive, and the backup that the cluster is begun with, are encrypted with.
const ARCHIVE_KEY: &str = "secrets/archive-key";
const CLONE_KEY: &str = "secrets/clone-key";

/// Written last: a volume without it was left half-written, and nothing has been made from it yet.
const COMPLETE: &str = "complete";

/// One file of the volume.
pub(super) struct ConfigFile {
    /// Where, from the volume's root.
    pub(super) path: String,
    mode: u32,
    /// What is in it.
    pub(super) content: Secret,
}

/// The volume holds a complete set of files. A complete set keeps its passwords, because a database may know them already.
pub(super) async fn ensure_config(docker: &Docker, stored: &StoredSpec) -> Result<(), ProvisionError> {
    let cluster = &stored.spec.name;
    let volume = names::config(cluster);
    ensure::volume(docker, cluster, &volume, names::labels(cluster, ObjectKind::Config, None)).await?;
    let writer = create_writer(docker, cluster, &stored.image).await?;
    if read_file(docker, &writer, COMPLETE).await?.is_none() {
        upload(docker, &writer, CONFIG_DIRECTORY, &config_files(stored)?).await?;
        let mark = ConfigFile { path: COMPLETE.to_owned(), mode: 0o640, content: Secret::new("") };
        upload(docker, &writer, CONFIG_DIRECTORY, &[mark]).await?;
    }
    ensure::removed(docker, &writer).await
}

/// The keys to buckets, and those of encrypted archives, are in the volume, as the files of whoever creates the cluster have them now.
pub(super) async fn ensure_store_credentials(docker: &Docker, stored: &StoredSpec) -> Result<(), ProvisionError> {
    let own = stored.spec.archive.as_ref().map(|archive| ([STORE_SECRET, ARCHIVE_KEY], archive));
    let others = stored.spec.clone_of.as_ref().map(|source| ([CLONE_SECRET, CLONE_KEY], &source.archive));
    let wanted = own.into_iter().chain(others);
    let files: Result<Vec<ConfigFile>, ProvisionError> = wanted
        .flat_map(|([store, key], archive)| [(store, &archive.credentials_file), (key, &archive.key_file)])
        .filter_map(|(file, path)| Some((file, path.as_ref()?)))
        .map(|(file, path)| secret_file(file, path))
        .collect();
    let files = files?;
    if files.is_empty() { Ok(()) } else { bring(docker, stored, files).await }
}

/// The volume holds these files, whatever it held before.
pub(super) async fn bring(docker: &Docker, stored: &StoredSpec, files: Vec<ConfigFile>) -> Result<(), ProvisionError> {
    let writer = create_writer(docker, &stored.spec.name, &stored.image).await?;
    upload(docker, &writer, CONFIG_DIRECTORY, &files).await?;
    ensure::removed(docker, &writer).await
}

/// A secret of the cluster's own archive, as it is in this file now.
pub(super) fn secret_of_store(secret: StoreSecret, path: &Path) -> Result<ConfigFile, ProvisionError> {
    let file = match secret {
        StoreSecret::Credentials => STORE_SECRET,
        StoreSecret::Key => ARCHIVE_KEY,
    };
    secret_file(file, path)
}

fn secret_file(file: &str, path: &Path) -> Result<ConfigFile, ProvisionError> {
    let content = std::fs::read_to_string(path).map_err(local(format!("read the key to a store, '{}'", path.display())))?;
    Ok(ConfigFile { path: file.to_owned(), mode: 0o600, content: Secret::new(content) })
}

/// Reads a role's password out of the volume, through any container that mounts it or, when there is none, one made for it.
pub(super) async fn read_secret(docker: &Docker, cluster: &ClusterName, role: &str) -> Result<Secret, ProvisionError> {
    let there = inventory::observe(docker, cluster).await?;
    let stored = there.stored.as_ref().ok_or_else(|| ProvisionError::NoCluster(cluster.clone()))?;
    let missing = |file: &str| ProvisionError::NoConfigFile { cluster: cluster.clone(), file: file.to_owned() };
    let file = format!("secrets/{role}");
    if !ROLES.contains(&role) || !there.has_volume(&names::config(cluster)) {
        return Err(missing(&file));
    }
    let content = match mounting_container(&there) {
        Some(container) => read_file(docker, container, &file).await?,
        None => {
            let writer = create_writer(docker, cluster, &stored.image).await?;
            let content = read_file(docker, &writer, &file).await;
            ensure::removed(docker, &writer).await?;
            content?
        }
    };
    let content = content.ok_or_else(|| missing(&file))?;
    String::from_utf8(content).map(Secret::new).map_err(|_| missing(&file))
}

/// A container that the volume can be read through.
pub(super) fn mounting_container(inventory: &Inventory) -> Option<&str> {
    let kinds = [ObjectKind::Router, ObjectKind::Node, ObjectKind::Etcd];
    kinds.into_iter().find_map(|kind| inventory.containers(kind).next()).map(|object| object.id.as_str())
}

/// A container that mounts the volume for writing. One that an interrupted run left behind is replaced.
async fn create_writer(docker: &Docker, cluster: &ClusterName, image: &str) -> Result<String, ProvisionError> {
    let name = names::config_writer(cluster);
    if let Some(left) = ensure::inspect(docker, cluster, &name).await? {
        ensure::removed(docker, left.id.as_deref().unwrap_or(&name)).await?;
    }
    let request = ContainerCreateBody {
        image: Some(image.to_owned()),
        cmd: Some(vec!["true".to_owned()]),
        labels: Some(names::labels(cluster, ObjectKind::ConfigWriter, None)),
        host_config: Some(HostConfig {
            network_mode: Some("none".to_owned()),
            mounts: Some(vec![config_mount(cluster, false)]),
            ..Default::default()
        }),
        ..Default::default()
    };
    ensure::created(docker, cluster, &name, request).await
}

fn config_files(stored: &StoredSpec) -> Result<Vec<ConfigFile>, ProvisionError> {
    let spec = &stored.spec;
    let agent = render_agent_config(&AgentConfig {
        scope: spec.name.as_str(),
        etcd_hosts: etcd_hosts(stored),
        postgres: spec.postgres.get(),
        ttl: spec.timings.ttl().as_secs(),
        loop_wait: spec.timings.loop_wait().as_secs(),
        retry_timeout: spec.timings.retry_timeout().as_secs(),
        quorum_commit: spec.durability == Durability::Quorum,
        parameters: &spec.parameters,
        archive: archive::access(&spec.stored_archive()),
        begin_from: spec.clone_of.as_deref().and_then(archive::origin),
    });
    let router = render_router_config(&RouterConfig { scope: spec.name.as_str(), etcd_hosts: etcd_hosts(stored) });
    let mut files = vec![
        ConfigFile { path: "agent.yml".to_owned(), mode: 0o640, content: Secret::new(agent) },
        ConfigFile { path: "router.yml".to_owned(), mode: 0o640, content: Secret::new(router) },
    ];
    for role in ROLES {
        let password = random_password()?;
        if role == "app" {
            files.push(ConfigFile { path: "secrets/pgpass".to_owned(), mode: 0o600, content: passfile(&password) });
        }
        files.push(ConfigFile { path: format!("secrets/{role}"), mode: 0o600, content: password });
    }
    Ok(files)
}

/// What libpq reads the password of `app` from, so that psql in the router needs it neither in its arguments nor in its environment.
fn passfile(password: &Secret) -> Secret {
    Secret::new(format!("*:*:app:app:{}\n", password.expose()))
}

/// 128 bits of the system's randomness in hexadecimal, which needs no quoting anywhere.
fn random_password() -> Result<Secret, ProvisionError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| local("make a password")(io::Error::other(error)))?;
    Ok(Secret::new(hex::encode(bytes)))
}

/// Puts the files below a directory of a container.
pub(super) async fn upload(docker: &Docker, container: &str, directory: &str, files: &[ConfigFile]) -> Result<(), ProvisionError> {
    let archive = pack(files).map_err(local("pack the configuration"))?;
    let options = UploadToContainerOptionsBuilder::default().path(directory).build();
    // As a stream, because the client library would show a body in one piece in its trace log.
    let body = body_try_stream(stream::iter([Ok::<_, io::Error>(Bytes::from(archive))]));
    docker.upload_to_container(container, Some(options), body).await.map_err(failed("write the configuration"))
}

fn pack(files: &[ConfigFile]) -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    if files.iter().any(|file| file.path.starts_with("secrets/")) {
        let mut header = header(0o700, 0);
        header.set_entry_type(tar::EntryType::Directory);
        archive.append_data(&mut header, "secrets/", io::empty())?;
    }
    for file in files {
        let content = file.content.expose().as_bytes();
        let mut header = header(file.mode, content.len() as u64);
        // By which who reads it again and again sees that it is another one: a new file may get the inode of the old one.
        header.set_mtime(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_secs()));
        archive.append_data(&mut header, &file.path, content)?;
    }
    archive.into_inner()
}

fn header(mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_uid(POSTGRES_UID.into());
    header.set_gid(POSTGRES_UID.into());
    header.set_size(size);
    header
}

/// The content of a file of the volume; `None` when it is not there.
pub(super) async fn read_file(docker: &Docker, container: &str, file: &str) -> Result<Option<Vec<u8>>, ProvisionError> {
    let options = DownloadFromContainerOptionsBuilder::default().path(&format!("{CONFIG_DIRECTORY}/{file}")).build();
    let chunks: Result<Vec<Bytes>, _> = docker.download_from_container(container, Some(options)).try_collect().await;
    match chunks {
        Ok(chunks) => unpack(&chunks.concat()).map(Some).map_err(local(format!("read '{file}' of the configuration"))),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(failed(format!("read '{file}' of the configuration"))(error)),
    }
}

fn unpack(archive: &[u8]) -> io::Result<Vec<u8>> {
    let mut archive = tar::Archive::new(archive);
    let mut entry = archive.entries()?.next().ok_or(io::ErrorKind::UnexpectedEof)??;
    let mut content = Vec::new();
    entry.read_to_end(&mut content)?;
    Ok(content)
}

fn local(doing: impl Into<String>) -> impl FnOnce(io::Error) -> ProvisionError {
    move |source| ProvisionError::Local { doing: doing.into(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_have_128_bits_and_are_never_the_same() {
        let (one, other) = (random_password().unwrap(), random_password().unwrap());
        assert_eq!(one.expose().len(), 32);
        assert!(one.expose().bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_ne!(one, other);
    }

    #[test]
    fn secrets_are_packed_for_their_owner_alone() {
        let file = ConfigFile { path: "secrets/app".into(), mode: 0o600, content: Secret::new("x") };
        let packed = pack(&[file]).unwrap();
        let mut archive = tar::Archive::new(packed.as_slice());
        let seen: Vec<(String, u32, u64)> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let path = entry.path().unwrap().display().to_string();
                (path, entry.header().mode().unwrap(), entry.header().uid().unwrap())
            })
            .collect();
        assert_eq!(seen, [("secrets/".to_owned(), 0o700, 10432), ("secrets/app".to_owned(), 0o600, 10432)]);
    }

    #[test]
    fn a_packed_file_is_unpacked_as_it_was() {
        let file = ConfigFile { path: "agent.yml".into(), mode: 0o640, content: Secret::new("scope: x") };
        assert_eq!(unpack(&pack(&[file]).unwrap()).unwrap(), b"scope: x");
    }
}
