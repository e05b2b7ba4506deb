//! The steps that remove everything of a cluster, in the reverse order of making it.

use crate::provisioner::{
    error::ProvisionError,
    observe::{Form, Inventory, Object, ObjectKind, StoredSpec},
    plan::{Plan, Untouched},
    platform::docker::{action::DockerAction, archive, names},
    step::Step,
};

/// First it is written down that the cluster goes: a half-deleted one must not be continued as if it were half-created.
const MARK: u8 = 1;
/// Containers go before what they use.
const CONTAINERS: u8 = 2;
/// What containers used.
const GROUND: u8 = 3;
/// The spec goes last: as long as anything is left, the cluster is listed and can be deleted by name.
const SPEC: u8 = 4;

/// The plan that leaves nothing, or nothing but the backups.
pub(super) fn plan(inventory: &Inventory, backups: bool) -> Result<Plan<DockerAction>, ProvisionError> {
    let in_bucket = inventory.stored.as_ref().and_then(archive::bucket);
    if let Some(store) = in_bucket.clone().filter(|_| backups) {
        return Err(ProvisionError::BackupsInBucket { cluster: inventory.cluster.clone(), store });
    }
    let mut untouched: Vec<Untouched> = in_bucket.into_iter().map(|store| kept(format!("store '{store}'"))).collect();
    let (removed, left): (Vec<&Object>, Vec<&Object>) = inventory.objects.iter().partition(|object| backups || !object.is_archive());
    if removed.is_empty() {
        return Err(ProvisionError::NoCluster(inventory.cluster.clone()));
    }
    untouched.extend(left.iter().map(|object| kept(described(object))));
    let mut steps = Vec::new();
    let marked = inventory.stored.as_ref().filter(|stored| !stored.deleting).map(mark_of);
    steps.extend(marked.as_ref().map(mark_step));
    let of = |form: Form| removed.iter().copied().filter(move |object| object.form == form);
    steps.extend(of(Form::Container).map(container_step));
    steps.extend(of(Form::Volume).filter(|volume| volume.kind != ObjectKind::Spec).map(volume_step));
    steps.extend(of(Form::Network).map(network_step));
    let mut specs: Vec<String> =
        of(Form::Volume).filter(|volume| volume.kind == ObjectKind::Spec).map(|volume| volume.name.clone()).collect();
    specs.extend(marked.map(|stored| names::spec(&inventory.cluster, stored.generation)));
    steps.extend(specs.into_iter().map(spec_step));
    Ok(Plan { cluster: inventory.cluster.clone(), spec: None, steps, removes_backups: backups, untouched, waits_for: Vec::new() })
}

fn kept(object: String) -> Untouched {
    Untouched { object, note: "the backups in it stay".to_owned() }
}

fn mark_of(stored: &StoredSpec) -> StoredSpec {
    StoredSpec { generation: stored.generation + 1, deleting: true, ..stored.clone() }
}

fn mark_step(stored: &StoredSpec) -> Step<DockerAction> {
    let action = DockerAction::EnsureSpec { stored: Box::new(stored.clone()) };
    Step::new(MARK, "mark", "mark the cluster as going", "so that a deletion that is interrupted can only be continued", action)
}

fn container_step(container: &Object) -> Step<DockerAction> {
    let action = DockerAction::RemoveContainer { id: container.id.clone() };
    removal(CONTAINERS, container, action)
}

fn volume_step(volume: &Object) -> Step<DockerAction> {
    let step = removal(GROUND, volume, DockerAction::RemoveVolume { name: volume.name.clone() });
    if matches!(volume.kind, ObjectKind::Node | ObjectKind::Etcd | ObjectKind::Config | ObjectKind::Archive) {
        step.destroying_data()
    } else {
        step
    }
}

fn network_step(network: &Object) -> Step<DockerAction> {
    removal(GROUND, network, DockerAction::RemoveNetwork { id: network.id.clone() })
}

fn spec_step(volume: String) -> Step<DockerAction> {
    let described = format!("volume '{volume}'");
    let action = DockerAction::RemoveVolume { name: volume };
    Step::new(SPEC, described.clone(), format!("remove {described}"), "the cluster shall be gone", action).removing([described])
}

fn removal(stage: u8, object: &Object, action: DockerAction) -> Step<DockerAction> {
    let described = described(object);
    Step::new(stage, described.clone(), format!("remove {described}"), "the cluster shall be gone", action).removing([described])
}

fn described(object: &Object) -> String {
    format!("{} '{}'", object.form, object.name)
}
