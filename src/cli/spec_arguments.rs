//! The options that describe a cluster, and the spec they come to together with a file.

use std::{
    fmt::Display,
    io::Read,
    path::{Path, PathBuf},
};

use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser},
};
use serde_json::Map;

use super::{CommandError, ErrorKind};
use crate::{
    backup::encryption::MasterKey,
    model::ClusterName,
    provisioner::{ImageRecipe, ImageSource, StoreSecrets},
    spec::{
        ArchiveOptions, ArchiveStore, ClusterSpec, Durability, EtcdCount, InvalidSpec, NodeCount, PostgresVersion, SpecDocument,
        SpecOverrides, check_endpoint, check_first_port, check_region, check_spec, parse_spec,
    },
};

/// Where backups are kept.
const ARCHIVE: &str = "Where backups and WAL are kept";
const CLUSTER: &str = "What the cluster should be";
const IMAGE: &str = "Where the image comes from";

/// Options that describe a cluster. What is not given comes from the file, else from the defaults.
#[derive(Debug, Clone, Default, Args)]
pub struct SpecArgs {
    /// Read the spec from this file, `-` for standard input (spilo help spec)
    #[arg(help_heading = CLUSTER, short, long, value_name = "SPEC")]
    pub file: Option<PathBuf>,

    /// Number of PostgreSQL nodes, 1 to 9 [default: 3]
    #[arg(help_heading = CLUSTER, long, value_name = "N", value_parser = parse_checked::<NodeCount>)]
    pub nodes: Option<NodeCount>,

    /// Major version of PostgreSQL, 15 to 18 [default: 17]
    #[arg(help_heading = CLUSTER, long, value_name = "VERSION", value_parser = parse_checked::<PostgresVersion>)]
    pub pg: Option<PostgresVersion>,

    /// When a commit is acknowledged: a replica has it too, or the primary alone [default: quorum]
    #[arg(help_heading = CLUSTER, long, value_parser = durability())]
    pub durability: Option<Durability>,

    /// Number of etcd members, 1 or 3 [default: 1]
    #[arg(help_heading = CLUSTER, long, value_name = "N", value_parser = parse_checked::<EtcdCount>)]
    pub etcd: Option<EtcdCount>,

    /// First of three ports on 127.0.0.1: read-write, read-only, health [default: the next free ones]
    #[arg(help_heading = CLUSTER, long, value_parser = parse_port)]
    pub port: Option<u16>,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub archive: ArchiveArgs,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub image: ImageArgs,
}

/// Where backups and WAL are kept.
#[derive(Debug, Clone, Default, Args)]
pub struct ArchiveArgs {
    /// A volume of the cluster's, s3://BUCKET/PREFIX, or none [default: volume]
    #[arg(help_heading = ARCHIVE, long, value_name = "STORE", value_parser = str::parse::<ArchiveStore>)]
    pub store: Option<ArchiveStore>,

    /// Where S3 answers, if that is not Amazon's
    #[arg(help_heading = ARCHIVE, long, value_name = "URL", value_parser = check_endpoint)]
    pub store_endpoint: Option<String>,

    /// The bucket's region
    #[arg(help_heading = ARCHIVE, long, value_name = "REGION", value_parser = check_region)]
    pub store_region: Option<String>,

    /// File with the key to the bucket; its content goes to the nodes as a file
    #[arg(help_heading = ARCHIVE, long, value_name = "FILE")]
    pub store_credentials: Option<PathBuf>,

    /// Encrypt all of it with the key in this file (spilo backup key new FILE); it goes to the nodes as a file
    #[arg(help_heading = ARCHIVE, long, value_name = "FILE")]
    pub store_key: Option<PathBuf>,
}

impl ArchiveArgs {
    fn options(&self) -> ArchiveOptions {
        ArchiveOptions {
            store: self.store.clone(),
            endpoint: self.store_endpoint.clone(),
            region: self.store_region.clone(),
            credentials_file: self.store_credentials.clone(),
            key_file: self.store_key.clone(),
        }
    }

    fn is_given(&self) -> bool {
        self.options() != ArchiveOptions::default()
    }

    /// The files with secrets that are named.
    pub fn secrets(&self) -> Result<StoreSecrets, CommandError> {
        let absolute = |path: &Option<PathBuf>| path.as_ref().map(std::path::absolute).transpose();
        let unfound = |error| CommandError::new(ErrorKind::Usage, error);
        Ok(StoreSecrets {
            credentials_file: absolute(&self.store_credentials).map_err(unfound)?,
            key_file: absolute(&self.store_key).map_err(unfound)?,
        })
    }
}

/// Where the image comes from.
#[derive(Debug, Clone, Default, Args)]
pub struct ImageArgs {
    /// Use this finished image instead of building one
    #[arg(help_heading = IMAGE, long, value_name = "IMAGE", conflicts_with = "from_source")]
    pub image: Option<String>,

    /// Compile the image's spilo from this checkout instead of using the binary that is running
    #[arg(help_heading = IMAGE, long, value_name = "DIRECTORY", num_args = 0..=1, default_missing_value = ".")]
    pub from_source: Option<PathBuf>,
}

impl SpecArgs {
    /// The spec: from the file where there is one, options over it, defaults below.
    pub fn spec(&self, name: Option<&ClusterName>) -> Result<SpecDocument, CommandError> {
        let overrides = SpecOverrides {
            name: name.cloned(),
            nodes: self.nodes,
            postgres: self.pg,
            durability: self.durability,
            etcd: self.etcd,
            port: self.port,
            image: self.image.image.clone(),
            archive: self.archive.options(),
        };
        let mut document = self.checked(name, &overrides)?;
        make_absolute(&mut document.spec)?;
        Ok(document)
    }

    /// The spec of a cluster like another one, options over it: of another name, on other ports, with an archive of its own at the same place.
    pub fn spec_like(&self, name: &ClusterName, other: &ClusterSpec) -> Result<ClusterSpec, CommandError> {
        // An image of another version, or instead of one that is to be compiled, is not meant.
        let same_image = self.image.from_source.is_none() && self.pg.is_none_or(|version| version == other.postgres);
        let there = other.stored_archive();
        let there = ArchiveOptions {
            store: Some(there.store),
            endpoint: there.endpoint,
            region: there.region,
            credentials_file: there.credentials_file,
            key_file: there.key_file,
        };
        let unfit = |key: &str| {
            let option = key.trim_end_matches("_file");
            let where_to = if option == "key" { "for an archive" } else { "for a store in S3" };
            CommandError::new(ErrorKind::Usage, format!("--store-{option} is {where_to} only: --store s3://BUCKET/PREFIX"))
        };
        let mut spec = ClusterSpec {
            name: name.clone(),
            nodes: self.nodes.unwrap_or(other.nodes),
            postgres: self.pg.unwrap_or(other.postgres),
            parameters: other.parameters.clone(),
            durability: self.durability.unwrap_or(other.durability),
            timings: other.timings,
            etcd: self.etcd.unwrap_or(other.etcd),
            port: self.port,
            image: self.image.image.clone().or_else(|| other.image.clone().filter(|_| same_image)),
            archive: self.archive.options().over(there).archive().map_err(unfit)?,
            clone_of: None,
        };
        make_absolute(&mut spec)?;
        Ok(spec)
    }

    fn checked(&self, name: Option<&ClusterName>, overrides: &SpecOverrides) -> Result<SpecDocument, CommandError> {
        match &self.file {
            Some(path) => parse_spec(&read(path)?, overrides).map_err(|invalid| invalid_spec(path, &invalid)),
            None if name.is_none() => Err(CommandError::new(ErrorKind::Usage, "a cluster needs a name")
                .hint("spilo create cluster NAME")
                .hint("or read it from a spec: spilo create cluster -f spec.yaml")),
            None => check_spec(&Map::new(), overrides).map_err(|invalid| CommandError::new(ErrorKind::Usage, invalid)),
        }
    }

    /// Whether any of the options was given.
    pub fn is_given(&self) -> bool {
        let values = [self.nodes.is_some(), self.pg.is_some(), self.durability.is_some(), self.etcd.is_some(), self.port.is_some()];
        self.file.is_some() || self.image.image.is_some() || self.archive.is_given() || values.contains(&true)
    }

    /// Whether files with secrets of an archive are all that was given.
    pub fn names_only_secrets(&self) -> bool {
        let archive = ArchiveArgs { store_credentials: None, store_key: None, ..self.archive.clone() };
        self.archive.is_given() && !SpecArgs { archive, ..self.clone() }.is_given()
    }
}

impl ImageArgs {
    /// The image for a cluster of this spec.
    pub fn source(&self, spec: &ClusterSpec) -> Result<ImageSource, CommandError> {
        match self.image.as_ref().or(spec.image.as_ref()) {
            Some(reference) => Ok(ImageSource::Finished(reference.clone())),
            None => Ok(ImageSource::Built(self.recipe(spec.postgres)?)),
        }
    }

    /// The recipe of an image that is built here.
    pub fn recipe(&self, postgres: PostgresVersion) -> Result<ImageRecipe, CommandError> {
        let recipe = match &self.from_source {
            Some(directory) => ImageRecipe::of_source(postgres, directory.clone()),
            None => ImageRecipe::of_running_binary(postgres),
        };
        recipe.map_err(CommandError::from)
    }
}

/// Whoever brings the cluster back may do so from another directory.
fn make_absolute(spec: &mut ClusterSpec) -> Result<(), CommandError> {
    let files = spec.archive.iter_mut().flat_map(|archive| [&mut archive.credentials_file, &mut archive.key_file]);
    for path in files.flatten() {
        *path = std::path::absolute(&*path).map_err(|error| CommandError::new(ErrorKind::Usage, error))?;
    }
    Ok(())
}

/// These files can be read, and what is to be a key is one.
pub fn expect_usable(secrets: &StoreSecrets) -> Result<(), CommandError> {
    if let Some(path) = &secrets.credentials_file {
        let unread = |error| CommandError::new(ErrorKind::Usage, format!("cannot read the key to a store, '{}': {error}", path.display()));
        std::fs::read_to_string(path).map(drop).map_err(unread)?;
    }
    if let Some(path) = &secrets.key_file {
        MasterKey::read(path).map(drop).map_err(|error| CommandError::new(ErrorKind::Usage, error))?;
    }
    Ok(())
}

/// The keys to the stores can be read. They are needed when half of a new cluster is there; that they are not is better known before.
pub fn expect_store_keys(spec: &ClusterSpec) -> Result<(), CommandError> {
    let archives = spec.archive.iter().chain(spec.clone_of.as_deref().map(|source| &source.archive));
    archives.map(|archive| StoreSecrets::of(Some(archive))).try_for_each(|secrets| expect_usable(&secrets))
}

fn read(path: &Path) -> Result<String, CommandError> {
    let text = if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().lock().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(path)
    };
    text.map_err(|error| CommandError::new(ErrorKind::Usage, format!("cannot read the spec '{}': {error}", path.display())))
}

fn invalid_spec(path: &Path, invalid: &InvalidSpec) -> CommandError {
    CommandError::new(ErrorKind::Usage, format!("'{}': {invalid}", path.display())).hint("spilo help spec")
}

/// Parses one of the spec's small numbers.
pub fn parse_checked<T: TryFrom<u8, Error: Display>>(text: &str) -> Result<T, String> {
    let number: u64 = text.parse().map_err(|_| "expected a whole number".to_owned())?;
    // What does not fit a byte is out of every range; the largest byte is too, and tells the range.
    T::try_from(u8::try_from(number).unwrap_or(u8::MAX)).map_err(|error| allowed_words(&error.to_string()))
}

fn allowed_words(out_of_range: &str) -> String {
    out_of_range.split_once(": ").map_or(out_of_range, |(_, allowed)| allowed).to_owned()
}

fn parse_port(text: &str) -> Result<u16, String> {
    check_first_port(text.parse().map_err(|_| "expected a port number".to_owned())?)
}

fn durability() -> impl TypedValueParser<Value = Durability> {
    PossibleValuesParser::new(["quorum", "async"]).map(|word| if word == "async" { Durability::Async } else { Durability::Quorum })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::ArchiveSpec;

    #[test]
    fn a_cluster_like_another_one_differs_in_its_name_its_ports_and_what_is_said() {
        let archive =
            ArchiveSpec { region: Some("eu-1".into()), ..ArchiveSpec { store: "s3://backups".parse().unwrap(), ..ArchiveSpec::volume() } };
        let old = ClusterSpec {
            nodes: 5.try_into().unwrap(),
            postgres: 16.try_into().unwrap(),
            parameters: [("work_mem".to_owned(), "8MB".to_owned())].into(),
            durability: Durability::Async,
            port: Some(5432),
            image: Some("mine:16".to_owned()),
            archive: Some(archive),
            ..ClusterSpec::named("orders".parse().unwrap())
        };
        let name = "trial".parse().unwrap();
        let like = SpecArgs::default().spec_like(&name, &old).unwrap();
        assert_eq!(like, ClusterSpec { name: name.clone(), port: None, ..old.clone() });
        let args = SpecArgs { nodes: 1.try_into().ok(), port: Some(6000), ..SpecArgs::default() };
        let other = args.spec_like(&name, &old).unwrap();
        assert_eq!((other.nodes.get(), other.port, other.postgres.get()), (1, Some(6000), 16));
        let elsewhere = ArchiveArgs { store: Some(ArchiveStore::Volume), ..ArchiveArgs::default() };
        let args = SpecArgs { archive: elsewhere, pg: 17.try_into().ok(), ..SpecArgs::default() };
        let other = args.spec_like(&name, &old).unwrap();
        assert_eq!((other.archive, other.image), (Some(ArchiveSpec::volume()), None));
    }

    #[test]
    fn a_key_that_cannot_be_read_is_known_before_anything_is_made() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let archive = ArchiveSpec { credentials_file: Some(path.clone()), ..ArchiveSpec::volume() };
        let spec = ClusterSpec { archive: Some(archive), ..ClusterSpec::named("orders".parse().unwrap()) };
        let error = expect_store_keys(&spec).unwrap_err();
        assert!(error.kind == ErrorKind::Usage && error.source.to_string().contains(&path.display().to_string()), "{}", error.source);
        std::fs::write(&path, "key").unwrap();
        assert!(expect_store_keys(&spec).is_ok());
        let archive = ArchiveSpec { key_file: Some(path.clone()), ..ArchiveSpec::volume() };
        let spec = ClusterSpec { archive: Some(archive), ..spec };
        assert!(expect_store_keys(&spec).unwrap_err().source.to_string().contains("backup key new"), "that is no key of ours");
        std::fs::remove_file(&path).unwrap();
        MasterKey::create(&path).unwrap();
        assert!(expect_store_keys(&spec).is_ok());
    }
}
