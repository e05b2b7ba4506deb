//! What `apply` and `plan` wish for: a new cluster, the stored spec restored, or another number of nodes.

use std::path::{Path, PathBuf};

use super::{
    CommandError, Context, ErrorKind,
    clone_source::{Parent, expect_no_earlier_archive},
    look::{look, stored_spec},
    spec_arguments::{ImageArgs, SpecArgs, expect_store_keys, expect_usable},
};
use crate::{
    model::ClusterName,
    provisioner::{Platform, StoreSecret, StoreSecrets, StoredSpec, Wish},
    spec::{CloneWish, ClusterSpec, Difference, SpecDocument, differences},
};

/// What a command line asks for, before anything is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// The cluster as its stored spec says, with other secrets of its archive where some are named.
    AsStored(ClusterName, StoreSecrets),
    /// The cluster as this spec says.
    AsSpecified(Box<SpecDocument>),
}

impl Asked {
    /// By the spec if one is given, else by what is stored with the cluster.
    pub fn of(name: Option<&ClusterName>, args: &SpecArgs) -> Result<Asked, CommandError> {
        match name {
            Some(name) if !args.is_given() => Ok(Asked::AsStored(name.clone(), StoreSecrets::default())),
            // With those nothing is said of the store, nor of anything else.
            Some(name) if args.names_only_secrets() => Ok(Asked::AsStored(name.clone(), args.archive.secrets()?)),
            _ => Ok(Asked::AsSpecified(Box::new(args.spec(name)?))),
        }
    }

    /// The cluster that is meant.
    pub fn cluster(&self) -> &ClusterName {
        match self {
            Asked::AsStored(name, _) => name,
            Asked::AsSpecified(document) => &document.spec.name,
        }
    }

    /// The wish that it comes to, given what there is.
    pub async fn wish<P: Platform>(&self, context: &Context, platform: &P, image: &ImageArgs) -> Result<Wish, CommandError> {
        let inventory = platform.observe(self.cluster()).await?;
        let SpecDocument { spec, clone_from } = match (self, &inventory.stored) {
            (Asked::AsStored(_, secrets), _) => {
                let stored = stored_spec(&inventory)?;
                expect_usable(secrets)?;
                return Ok(Wish::Apply { image: image.source(&stored.spec)?, secrets: secrets.clone() });
            }
            (Asked::AsSpecified(document), None) => {
                let mut spec = document.spec.clone();
                if let Some(wish) = &document.clone_from {
                    expect_no_earlier_archive(&spec.name, inventory.archive().is_some())?;
                    let parent = Parent::find(platform, &spec, wish).await?;
                    parent.foresee(context, platform).await?;
                    spec.clone_of = Some(Box::new(parent.source));
                }
                expect_store_keys(&spec)?;
                return Ok(Wish::Create { image: image.source(&spec)?, spec });
            }
            (Asked::AsSpecified(document), Some(_)) => &**document,
        };
        let image = image.source(spec)?;
        let stored = stored_spec(&inventory)?;
        let changes = changes(stored, spec, clone_from.as_ref())?;
        let (secrets, kept) = secrets_here(&stored.spec, spec, |path| path.exists());
        kept.iter().for_each(|path| context.ui.warn(format_args!("'{}' is not here: the nodes keep what they have of it", path.display())));
        expect_usable(&secrets)?;
        match changes {
            Changes::None => Ok(Wish::Apply { image, secrets }),
            Changes::Nodes => {
                let leader = look(platform, &spec.name).await?.status.leader;
                Ok(Wish::Scale { nodes: spec.nodes, leader, image, secrets })
            }
        }
    }
}

/// The secrets that a file asks for, and the paths of those that it goes on to name, as when the cluster was created, and that are not on this machine
/// any more.
fn secrets_here(stored: &ClusterSpec, wanted: &ClusterSpec, exists: impl Fn(&Path) -> bool) -> (StoreSecrets, Vec<PathBuf>) {
    let before = StoreSecrets::of(stored.archive.as_ref());
    let mut secrets = StoreSecrets::of(wanted.archive.as_ref());
    let mut kept = Vec::new();
    for (file, before) in [(&mut secrets.credentials_file, before.credentials_file), (&mut secrets.key_file, before.key_file)] {
        kept.extend(file.take_if(|file| Some(&*file) == before.as_ref() && !exists(file)));
    }
    (secrets, kept)
}

/// Which changes of an existing cluster are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Changes {
    /// None.
    None,
    /// Its number of nodes.
    Nodes,
}

/// Only the number of nodes and the secrets of the archive can be changed; anything else is refused before anything is done. Which secrets are
/// others the content of their files tells, wherever these are.
fn changes(stored: &StoredSpec, wanted: &ClusterSpec, clone_from: Option<&CloneWish>) -> Result<Changes, CommandError> {
    let mut all = differences(&stored.spec, wanted);
    all.retain(|difference| StoreSecret::ALL.iter().all(|secret| secret.spec_key() != difference.path));
    let (nodes, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|difference| difference.path == "nodes");
    let begun = match (&stored.spec.clone_of, clone_from) {
        (Some(source), Some(wish)) => source.differences(wish),
        (None, Some(wish)) => vec![format!("it began with nothing, not with a backup of '{}'", wish.cluster)],
        // Of what it began with nobody has to speak for ever.
        (_, None) => Vec::new(),
    };
    if others.is_empty() && begun.is_empty() {
        return Ok(if nodes.is_empty() { Changes::None } else { Changes::Nodes });
    }
    let words: Vec<String> = others.iter().map(Difference::to_string).chain(begun).collect();
    let cluster = &wanted.name;
    Err(CommandError::new(ErrorKind::Refused, format!("cluster '{cluster}' exists with other settings: {}", words.join(", ")))
        .hint("only the number of nodes and the secrets of the archive can be changed yet")
        .hint(format!("to begin anew, without its data: spilo delete cluster {cluster}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{RecoveryGoal, RecoveryTarget},
        spec::{ArchiveSpec, CloneSource},
    };

    fn stored() -> StoredSpec {
        StoredSpec {
            generation: 1,
            initialized: true,
            deleting: false,
            members: [1, 2, 3].into(),
            port_chosen: true,
            image: "spilo:pg17-0".to_owned(),
            spec: ClusterSpec { port: Some(5432), ..ClusterSpec::named("orders".parse().unwrap()) },
        }
    }

    #[test]
    fn another_number_of_nodes_is_a_change_that_can_be_made() {
        let wanted = ClusterSpec { nodes: 5.try_into().unwrap(), ..stored().spec };
        assert_eq!(changes(&stored(), &wanted, None).unwrap(), Changes::Nodes);
        assert_eq!(changes(&stored(), &stored().spec, None).unwrap(), Changes::None);
    }

    #[test]
    fn other_changes_are_refused_with_what_differs() {
        let wanted = ClusterSpec { postgres: 16.try_into().unwrap(), nodes: 5.try_into().unwrap(), ..stored().spec };
        let error = changes(&stored(), &wanted, None).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Refused);
        assert_eq!(error.to_string(), "cluster 'orders' exists with other settings: 'postgres.version' is 17, not 16");
    }
    #[test]
    fn other_secrets_of_the_archive_are_a_change_that_can_be_made_and_another_store_is_none() {
        let archive = |store: &str, path: &str| ArchiveSpec {
            credentials_file: Some(path.into()),
            key_file: Some(path.into()),
            ..ArchiveSpec { store: store.parse().unwrap(), ..ArchiveSpec::none() }
        };
        let with = |archive| ClusterSpec { archive: Some(archive), ..stored().spec };
        let stored = StoredSpec { spec: with(archive("s3://backups", "/old")), ..stored() };
        assert_eq!(changes(&stored, &with(archive("s3://backups", "/new")), None).unwrap(), Changes::None);
        let error = changes(&stored, &with(archive("s3://others", "/new")), None).unwrap_err().to_string();
        assert_eq!(error, "cluster 'orders' exists with other settings: 'archive.store' is s3://backups, not s3://others");
    }

    #[test]
    fn a_file_may_go_on_naming_a_secret_that_is_not_on_this_machine_any_more() {
        let with = |path: &str| {
            let archive = ArchiveSpec { credentials_file: Some(path.into()), ..ArchiveSpec::volume() };
            ClusterSpec { archive: Some(archive), ..stored().spec }
        };
        let here = |wanted: &str, exists: bool| secrets_here(&with("/old"), &with(wanted), |_| exists);
        let named = |path: &str| StoreSecrets { credentials_file: Some(path.into()), key_file: None };
        assert_eq!(here("/old", true), (named("/old"), Vec::new()));
        assert_eq!(here("/old", false), (StoreSecrets::default(), vec!["/old".into()]));
        assert_eq!(here("/new", false), (named("/new"), Vec::new()), "who asks for another one has to have it");
    }

    #[test]
    fn secrets_alone_say_nothing_of_the_rest_of_the_cluster() {
        use crate::cli::spec_arguments::ArchiveArgs;
        let name = "orders".parse().unwrap();
        let of = |archive: ArchiveArgs| Asked::of(Some(&name), &SpecArgs { archive, ..SpecArgs::default() }).unwrap();
        let key = ArchiveArgs { store_key: Some("/key".into()), ..ArchiveArgs::default() };
        let secrets = StoreSecrets { key_file: Some("/key".into()), credentials_file: None };
        assert_eq!(of(key.clone()), Asked::AsStored(name.clone(), secrets));
        let elsewhere = ArchiveArgs { store: Some("volume".parse().unwrap()), ..key };
        assert!(matches!(of(elsewhere), Asked::AsSpecified(_)));
    }

    #[test]
    fn a_file_may_go_on_saying_what_the_cluster_began_with() {
        let goal = |text: &str| RecoveryGoal { target: RecoveryTarget::time(text).unwrap(), ..RecoveryGoal::default() };
        let wish = |text: &str| CloneWish { cluster: "old".parse().unwrap(), system: None, key_file: None, goal: goal(text) };
        let then = "2026-11-21T20:45:00Z";
        let source = CloneSource { cluster: "old".parse().unwrap(), archive: ArchiveSpec::volume(), system: None, goal: goal(then) };
        let cloned = StoredSpec { spec: ClusterSpec { clone_of: Some(Box::new(source)), ..stored().spec }, ..stored() };
        assert_eq!(changes(&cloned, &stored().spec, Some(&wish(then))).unwrap(), Changes::None);
        assert_eq!(changes(&cloned, &stored().spec, None).unwrap(), Changes::None);
        let error = changes(&cloned, &stored().spec, Some(&wish("2026-11-21T20:46:00Z"))).unwrap_err().to_string();
        assert!(error.contains("is 2026-11-21T20:45:00Z, not 2026-11-21T20:46:00Z"), "{error}");
        let error = changes(&stored(), &stored().spec, Some(&wish(then))).unwrap_err().to_string();
        assert!(error.contains("it began with nothing"), "{error}");
    }
}
