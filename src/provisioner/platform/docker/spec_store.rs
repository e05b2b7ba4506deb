//! What a cluster should be, kept with it: an empty volume whose labels say it. That needs no container and survives all of them.
//!
//! A volume's labels cannot be changed, so that every change is a new generation: it is created, then the older ones are removed. Reading takes
//! the highest; a crash in between leaves both, and the next change or deletion removes the older.

use std::collections::HashMap;

use bollard::Docker;

use super::{labelled_volumes, names};
use crate::provisioner::{
    error::ProvisionError,
    observe::{ObjectKind, StoredSpec},
};

/// The spec of the highest generation among these volumes.
pub(super) fn newest<'a>(
    volumes: impl Iterator<Item = (&'a str, &'a HashMap<String, String>)>,
) -> Result<Option<StoredSpec>, ProvisionError> {
    let generation = |labels: &HashMap<String, String>| labels.get(names::GENERATION).and_then(|text| text.parse::<u64>().ok());
    let Some((volume, labels)) = volumes.max_by_key(|(_, labels)| generation(labels)) else { return Ok(None) };
    let unreadable = |reason: String| ProvisionError::UnreadableSpec { volume: volume.to_owned(), reason };
    let text = labels.get(names::SPEC).ok_or_else(|| unreadable(format!("it has no label '{}'", names::SPEC)))?;
    serde_json::from_str(text).map(Some).map_err(|error| unreadable(error.to_string()))
}

/// Makes sure that this generation is stored, and no older one.
pub(super) async fn ensure(docker: &Docker, stored: &StoredSpec) -> Result<(), ProvisionError> {
    let cluster = &stored.spec.name;
    let name = names::spec(cluster, stored.generation);
    let labels = labels_of(stored);
    let volume = labelled_volumes::put(docker, &name, labels.clone()).await?;
    if volume.labels != labels {
        return Err(ProvisionError::UnreadableSpec { volume: name, reason: "another spec has this generation".to_owned() });
    }
    for older in labelled_volumes::list(docker, cluster, ObjectKind::Spec).await?.into_iter().filter(|volume| volume.name != name) {
        labelled_volumes::remove(docker, &older.name).await?;
    }
    Ok(())
}

fn labels_of(stored: &StoredSpec) -> HashMap<String, String> {
    let mut labels = names::labels(&stored.spec.name, ObjectKind::Spec, None);
    labels.insert(names::GENERATION.to_owned(), stored.generation.to_string());
    labels.insert(names::INITIALIZED.to_owned(), stored.initialized.to_string());
    labels.insert(names::SPEC.to_owned(), serde_json::to_string(stored).expect("a stored spec is plain data"));
    labels
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::ClusterSpec;

    fn stored(generation: u64) -> StoredSpec {
        StoredSpec {
            generation,
            initialized: generation > 1,
            deleting: false,
            members: [1, 2, 3].into(),
            port_chosen: true,
            image: "spilo:pg17-0".into(),
            spec: ClusterSpec { port: Some(5432), ..ClusterSpec::named("orders".parse().unwrap()) },
        }
    }

    #[test]
    fn the_highest_generation_is_read_back_as_it_was_stored() {
        let (nine, ten) = (labels_of(&stored(9)), labels_of(&stored(10)));
        let volumes = [("spilo-orders-spec-10", &ten), ("spilo-orders-spec-9", &nine)];
        assert_eq!(newest(volumes.into_iter()).unwrap(), Some(stored(10)));
        assert_eq!(newest(std::iter::empty()).unwrap(), None);
    }

    #[test]
    fn labels_say_whether_the_cluster_has_once_been_healthy() {
        assert_eq!(labels_of(&stored(1))[names::INITIALIZED], "false");
        assert_eq!(labels_of(&stored(2))[names::INITIALIZED], "true");
    }

    #[test]
    fn a_volume_that_cannot_be_read_is_named() {
        let mut labels = labels_of(&stored(1));
        labels.insert(names::SPEC.to_owned(), "{".to_owned());
        let error = newest([("spilo-orders-spec-1", &labels)].into_iter()).unwrap_err();
        assert!(error.to_string().contains("'spilo-orders-spec-1'"), "{error}");
    }
}
