//! From what is wished for and what there is to the steps between. Pure.

mod deletion;
mod layout;
#[cfg(test)]
mod tests;
mod wanted;

pub(super) use wanted::FIRST_PORT;

use super::action::DockerAction;
use crate::provisioner::{
    error::ProvisionError,
    observe::{Inventory, Surroundings},
    plan::{Plan, Wish},
};

/// The plan on Docker.
pub(super) fn plan(wish: &Wish, inventory: &Inventory, surroundings: &Surroundings) -> Result<Plan<DockerAction>, ProvisionError> {
    match wish {
        Wish::Delete { backups } => deletion::plan(inventory, *backups),
        Wish::Create { image, .. } | Wish::Apply { image, .. } | Wish::Scale { image, .. } => {
            let wanted = wanted::wanted(wish, image, inventory, surroundings)?;
            layout::plan(&wanted, image, inventory, surroundings)
        }
    }
}
