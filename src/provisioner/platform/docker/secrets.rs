//! New secrets of the archive for nodes that run. All nodes mount one volume, so that what is put there is with all of them at once; they look at
//! the files whenever they need them. What does not open the archive never gets there.

use std::collections::BTreeSet;

use bollard::Docker;

use super::{
    archive,
    config_volume::{self, ConfigFile},
    ensure,
};
use crate::provisioner::{
    error::ProvisionError,
    observe::{Inventory, ObjectKind, StoredSpec},
    store_secrets::{StoreSecret, StoreSecrets},
};

/// Which of these the nodes do not have as they are in the files now. Nothing of them is told.
///
/// # Errors
/// When a file cannot be read, or the engine does not answer.
pub(super) async fn changed(
    docker: &Docker,
    inventory: &Inventory,
    wanted: &StoreSecrets,
) -> Result<BTreeSet<StoreSecret>, ProvisionError> {
    let mut changed = BTreeSet::new();
    // Who has no node yet gets all secrets when its archive is begun.
    if !inventory.objects.iter().any(|object| object.kind == ObjectKind::Node) {
        return Ok(changed);
    }
    for secret in StoreSecret::ALL {
        let Some(path) = wanted.path(secret) else { continue };
        let file = config_volume::secret_of_store(secret, path)?;
        let there = match config_volume::mounting_container(inventory) {
            Some(container) => config_volume::read_file(docker, container, &file.path).await?,
            None => None,
        };
        if there.as_deref() != Some(file.content.expose().as_bytes()) {
            changed.insert(secret);
        }
    }
    Ok(changed)
}

/// The nodes have these secrets as they are in the files of the spec now, and the archive was opened, read and written with them before.
///
/// # Errors
/// When they do not open it: then nothing was changed.
pub(super) async fn ensure_brought(docker: &Docker, stored: &StoredSpec, secrets: &BTreeSet<StoreSecret>) -> Result<(), ProvisionError> {
    let archive = stored.spec.stored_archive();
    let named = secrets.iter().filter_map(|secret| Some((*secret, secret.path_in(&archive)?)));
    // Read once: what was tried out is what is brought.
    let files: Vec<ConfigFile> = named.map(|(secret, path)| config_volume::secret_of_store(secret, path)).collect::<Result<_, _>>()?;
    ensure::network(docker, &stored.spec.name).await?;
    archive::expect_opened(docker, stored, secrets, &files).await?;
    config_volume::bring(docker, stored, files).await
}
