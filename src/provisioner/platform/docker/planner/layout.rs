//! The steps that lay a cluster out, or put right what is not as it should be.

use crate::{
    model::counted,
    provisioner::{
        error::ProvisionError,
        image::ImageSource,
        observe::{Condition, Form, Inventory, Object, ObjectKind, StoredSpec, Surroundings},
        plan::{Plan, Untouched},
        platform::docker::{
            action::DockerAction,
            archive,
            definition::{Definition, definitions},
            names,
        },
        step::Step,
        store_secrets::StoreSecret,
    },
};

type DockerStep = Step<DockerAction>;

/// The stages: what a stage needs is complete when it begins.
const IMAGE: u8 = 1;
/// New secrets are tried out before anything is changed.
const SECRETS: u8 = 2;
/// The spec is stored before anything else of the cluster, so that whoever continues knows what was begun.
const SPEC: u8 = 3;
/// Containers need the network and complete configuration.
const GROUND: u8 = 4;
/// The archive, whose key is in the configuration, is begun beside it, before anybody has something to archive.
/// etcd starts first: until it answers it mostly waits for its own election, and the engine starts the others meanwhile.
const DCS: u8 = 5;
/// Nodes and router start together: they wait for etcd by themselves.
const CONTAINERS: u8 = 6;
/// From here on one node is retired per stage, so that never two leave at once.
const RETIRE: u8 = 7;

/// What is to be done about one container.
struct Need {
    title: String,
    why: String,
    replace: bool,
    creates: bool,
}

/// The plan that makes the cluster what is wanted.
pub(super) fn plan(
    wanted: &StoredSpec,
    image: &ImageSource,
    inventory: &Inventory,
    surroundings: &Surroundings,
) -> Result<Plan<DockerAction>, ProvisionError> {
    let definitions = definitions(wanted);
    refuse_foreign(inventory, &definitions)?;
    refuse_lost_secrets(inventory)?;
    let mut plan = Plan {
        cluster: inventory.cluster.clone(),
        spec: Some(wanted.spec.clone()),
        removes_backups: false,
        steps: Vec::new(),
        untouched: Vec::new(),
        waits_for: Vec::new(),
    };
    let ground = ground_steps(wanted, inventory);
    let archive = archive_step(wanted, inventory, &mut plan.untouched);
    let containers = container_steps(wanted, inventory, definitions, &mut plan.untouched);
    let secrets = secrets_step(wanted, surroundings);
    let needs_image = secrets.is_some()
        || ground.iter().any(|step| matches!(step.action, DockerAction::EnsureConfig { .. }))
        || containers.iter().any(|step| step.creates.iter().any(|object| object.starts_with("container")));
    if needs_image && !surroundings.images.contains(&wanted.image) {
        plan.steps.push(image_step(image));
    }
    plan.steps.extend(secrets);
    plan.steps.extend(spec_step(wanted, inventory, needs_image));
    plan.steps.extend(ground);
    plan.steps.extend(archive);
    plan.steps.extend(containers);
    plan.steps.extend(retirements(wanted, inventory));
    if !plan.is_empty() {
        plan.waits_for = vec!["a primary that accepts writes".to_owned()];
        if wanted.members.len() > 1 {
            plan.waits_for.push(format!("{} streaming from it", counted(wanted.members.len() as u64 - 1, "replica")));
        }
    }
    Ok(plan)
}

/// A name that we need and that somebody else has is theirs.
fn refuse_foreign(inventory: &Inventory, definitions: &[Definition]) -> Result<(), ProvisionError> {
    let cluster = &inventory.cluster;
    let ground = [names::network(cluster), names::config(cluster), names::config_writer(cluster)];
    let archives = |name: &String| definitions.iter().flat_map(|definition| &definition.archives).any(|mount| mount.volume == *name);
    let needed = |form: Form, name: &String| match form {
        Form::Network => *name == ground[0],
        Form::Volume => {
            *name == ground[1] || definitions.iter().any(|definition| definition.keeps_data && definition.name == *name) || archives(name)
        }
        Form::Container => {
            *name == ground[2] || *name == names::archive_starter(cluster) || definitions.iter().any(|definition| definition.name == *name)
        }
    };
    match inventory.foreign.iter().find(|foreign| needed(foreign.form, &foreign.name)) {
        None => Ok(()),
        Some(foreign) => Err(ProvisionError::Foreign {
            form: foreign.form.to_string(),
            name: foreign.name.clone(),
            cluster: cluster.clone(),
            owner: foreign.cluster.as_ref().map(|owner| format!(" but to cluster '{owner}'")).unwrap_or_default(),
        }),
    }
}

/// New passwords would not open the existing database.
fn refuse_lost_secrets(inventory: &Inventory) -> Result<(), ProvisionError> {
    let volume = names::config(&inventory.cluster);
    let initialized = inventory.stored.as_ref().is_some_and(|stored| stored.initialized);
    if initialized && !inventory.has_volume(&volume) {
        return Err(ProvisionError::SecretsLost { cluster: inventory.cluster.clone(), volume });
    }
    Ok(())
}

fn image_step(image: &ImageSource) -> DockerStep {
    let reference = image.reference();
    let (title, why) = match image {
        ImageSource::Finished(_) => (format!("pull image '{reference}'"), "it is not here"),
        ImageSource::Built(_) => (format!("build image '{reference}'"), "no image was built from these inputs yet"),
    };
    Step::new(IMAGE, "image", title, why, DockerAction::EnsureImage { image: image.clone() }).creating([format!("image '{reference}'")])
}

/// The plan says that a secret is another one, and nothing of what is in it.
fn secrets_step(wanted: &StoredSpec, surroundings: &Surroundings) -> Option<DockerStep> {
    let archive = wanted.spec.stored_archive();
    let changed: Vec<(StoreSecret, String)> = surroundings
        .changed_secrets
        .iter()
        .filter_map(|secret| Some((*secret, format!("'{}'", secret.path_in(&archive)?.display()))))
        .collect();
    let what: Vec<String> = changed.iter().map(|(secret, _)| secret.to_string()).collect();
    let paths: Vec<&str> = changed.iter().map(|(_, path)| path.as_str()).collect();
    let why = format!("the nodes have another content than {}", paths.join(" and "));
    let title = format!("try out the new {} and bring them to the nodes", what.join(" and "));
    let secrets = changed.iter().map(|(secret, _)| *secret).collect();
    let action = DockerAction::EnsureSecrets { stored: Box::new(wanted.clone()), secrets };
    (!changed.is_empty()).then(|| Step::new(SECRETS, "secrets", title, why, action))
}

fn spec_step(wanted: &StoredSpec, inventory: &Inventory, needs_image: bool) -> Option<DockerStep> {
    let volume = names::spec(&inventory.cluster, wanted.generation);
    let older: Vec<&Object> = inventory.objects.iter().filter(|object| object.kind == ObjectKind::Spec && object.name != volume).collect();
    let only_image_differs = inventory.stored.as_ref().is_some_and(|stored| {
        let same_but_image = StoredSpec { generation: stored.generation, image: stored.image.clone(), ..wanted.clone() };
        same_but_image == *stored && wanted.image != stored.image
    });
    // Another image is recorded when something is made from it, not because the old one was cleaned up.
    if only_image_differs && !needs_image {
        return None;
    }
    let why = if inventory.stored.is_none() {
        "the cluster is new"
    } else if !inventory.has_volume(&volume) {
        "it changes"
    } else if !older.is_empty() {
        "an older generation is left over"
    } else {
        return None;
    };
    let step = Step::new(SPEC, "spec", "store the spec", why, DockerAction::EnsureSpec { stored: Box::new(wanted.clone()) });
    let creates = (!inventory.has_volume(&volume)).then(|| format!("volume '{volume}'"));
    Some(step.creating(creates).removing(older.iter().map(|object| format!("volume '{}'", object.name))))
}

fn ground_steps(wanted: &StoredSpec, inventory: &Inventory) -> Vec<DockerStep> {
    let cluster = &inventory.cluster;
    let mut steps = Vec::new();
    let network = names::network(cluster);
    match inventory.objects.iter().filter(|object| object.form == Form::Network).count() {
        0 => {
            let step = Step::new(GROUND, "network", format!("create network '{network}'"), "it is missing", DockerAction::EnsureNetwork);
            steps.push(step.creating([format!("network '{network}'")]));
        }
        1 => {}
        _ => {
            let why = "an interrupted run made another of that name";
            steps.push(Step::new(GROUND, "network", format!("leave one network '{network}'"), why, DockerAction::EnsureNetwork));
        }
    }
    let config = names::config(cluster);
    let mounted = inventory
        .objects
        .iter()
        .any(|object| object.form == Form::Container && matches!(object.kind, ObjectKind::Etcd | ObjectKind::Node | ObjectKind::Router));
    // Containers are made only after the configuration is complete, so that any one of them proves it.
    if !mounted {
        let (why, creates) = if inventory.has_volume(&config) {
            ("it may be incomplete", None)
        } else {
            ("it is missing", Some(format!("volume '{config}'")))
        };
        let action = DockerAction::EnsureConfig { stored: Box::new(wanted.clone()) };
        steps.push(Step::new(GROUND, "config", "write configuration and passwords", why, action).creating(creates));
    } else if let Some(writer) = inventory.containers(ObjectKind::ConfigWriter).next() {
        let action = DockerAction::RemoveContainer { id: writer.id.clone() };
        let step = Step::new(GROUND, "config-writer", format!("remove container '{}'", writer.name), "it was left over", action);
        steps.push(step.removing([format!("container '{}'", writer.name)]));
    }
    steps
}

/// Begins the archive of a cluster that has no node yet, and never that of another: beside data, an empty archive would look as if it had what
/// has been lost with the old one, and nobody would hear of the loss.
fn archive_step(wanted: &StoredSpec, inventory: &Inventory, untouched: &mut Vec<Untouched>) -> Option<DockerStep> {
    let archive = archive::access(&wanted.spec.stored_archive());
    if archive.is_none() && wanted.spec.clone_of.is_none() {
        return None;
    }
    let volume = archive::volume(wanted);
    let there = volume.as_ref().is_some_and(|volume| inventory.has_volume(volume));
    let has_nodes = wanted.initialized || inventory.objects.iter().any(|object| object.kind == ObjectKind::Node);
    if has_nodes {
        untouched.extend(volume.filter(|_| !there).map(|volume| Untouched {
            object: format!("volume '{volume}'"),
            note: "it is gone with its backups, and nothing is archived: begin a new one by hand when you are sure".to_owned(),
        }));
        return leftover_starter(inventory);
    }
    if there {
        let note = "what an earlier cluster of this name left in it stays there, apart from what is new".to_owned();
        untouched.extend(volume.iter().map(|volume| Untouched { object: format!("volume '{volume}'"), note: note.clone() }));
    }
    let title = match (&volume, archive) {
        (None, Some(archive)) => format!("prepare the archive in '{}'", archive.url),
        (Some(_), _) => "prepare the archive for backups and WAL".to_owned(),
        (None, None) => "prepare what the cluster is begun with".to_owned(),
    };
    let action = DockerAction::EnsureArchive { stored: Box::new(wanted.clone()) };
    let creates = volume.filter(|_| !there).map(|volume| format!("volume '{volume}'"));
    Some(Step::new(DCS, "archive", title, "the cluster has no node yet", action).creating(creates))
}

fn leftover_starter(inventory: &Inventory) -> Option<DockerStep> {
    let starter = inventory.containers(ObjectKind::ArchiveStarter).next()?;
    let action = DockerAction::RemoveContainer { id: starter.id.clone() };
    let step = Step::new(GROUND, "archive-starter", format!("remove container '{}'", starter.name), "it was left over", action);
    Some(step.removing([format!("container '{}'", starter.name)]))
}

fn container_steps(
    wanted: &StoredSpec,
    inventory: &Inventory,
    definitions: Vec<Definition>,
    untouched: &mut Vec<Untouched>,
) -> Vec<DockerStep> {
    let mut steps = Vec::new();
    for definition in definitions {
        let object = inventory.container(&definition.name);
        let lost_volume = definition.keeps_data && !inventory.has_volume(&definition.name);
        if definition.kind == ObjectKind::Etcd && lost_volume && wanted.initialized && wanted.spec.etcd.get() > 1 {
            // A member that comes back empty under its old identity has forgotten votes that it gave.
            let note = "its volume is gone, and an etcd member must not come back empty; the others go on without it".to_owned();
            untouched.push(Untouched { object: format!("container '{}'", definition.name), note });
            continue;
        }
        match need(&definition, object, lost_volume) {
            Some(need) => steps.push(container_step(definition, need, lost_volume)),
            None => untouched.extend(object.and_then(|object| deviation(&definition, object))),
        }
    }
    steps
}

fn container_step(definition: Definition, need: Need, lost_volume: bool) -> DockerStep {
    let name = definition.name.clone();
    let volume = lost_volume.then(|| format!("volume '{name}'"));
    let container = need.creates.then(|| format!("container '{name}'"));
    let step_name = match definition.kind {
        ObjectKind::Router => "router".to_owned(),
        kind => format!("{kind} {}", definition.alias),
    };
    let stage = if definition.kind == ObjectKind::Etcd { DCS } else { CONTAINERS };
    let action = DockerAction::EnsureRunning { definition: Box::new(definition), replace: need.replace };
    let step = Step::new(stage, step_name, need.title, need.why, action).creating(volume.into_iter().chain(container));
    if need.replace { step.removing([format!("container '{name}'")]) } else { step }
}

/// What is to be done about a container; `None` when it runs and can be reached.
fn need(definition: &Definition, object: Option<&Object>, lost_volume: bool) -> Option<Need> {
    let what = format!("{} '{}'", definition.kind, definition.alias);
    let say = |verb: &str, why: &str| Some(Need { title: format!("{verb} {what}"), why: why.to_owned(), replace: false, creates: false });
    let Some(object) = object else {
        let why = if lost_volume { "it is missing" } else { "its container is missing; its data is there" };
        return say("start", why).map(|need| Need { creates: true, ..need });
    };
    let replace = |why: &str| say("re-create", why).map(|need| Need { replace: true, creates: true, ..need });
    match object.condition {
        Condition::Dead => replace("the engine failed to remove it"),
        Condition::Created if deviation(definition, object).is_some() => replace("it was made from other settings and has never run"),
        Condition::Created => say("start", "it was created and never started"),
        Condition::Stopped => say("start", "it is stopped"),
        Condition::Paused => say("unpause", "it is paused"),
        Condition::Running | Condition::Restarting | Condition::Present if !object.attached => {
            say("connect", "it is disconnected from the cluster's network")
        }
        Condition::Running | Condition::Restarting | Condition::Present => None,
    }
}

/// How a container differs from what would be made today. It goes on running as it is: replacing it is an operation of its own.
fn deviation(definition: &Definition, object: &Object) -> Option<Untouched> {
    let image = object.image.as_ref().filter(|image| **image != definition.image);
    let note = if let Some(image) = image {
        format!("it runs image '{image}' instead of '{}'", definition.image)
    } else if object.definition.as_deref() != Some(&definition.digest()) {
        "it was made from other settings".to_owned()
    } else {
        return None;
    };
    Some(Untouched { object: format!("container '{}'", object.name), note })
}

/// Nodes that are no longer wanted, by their containers and by volumes whose container is gone already. The highest goes first.
fn retirements(wanted: &StoredSpec, inventory: &Inventory) -> Vec<DockerStep> {
    let cluster = &inventory.cluster;
    let nodes = inventory.objects.iter().filter(|object| object.kind == ObjectKind::Node && object.form != Form::Network);
    let mut surplus: Vec<u16> = nodes
        .filter_map(|object| names::member_number(cluster, object.member.as_ref()?))
        .filter(|number| !wanted.members.contains(number))
        .collect();
    surplus.sort_unstable_by(|a, b| b.cmp(a));
    surplus.dedup();
    (RETIRE..).zip(surplus).map(|(stage, number)| retirement(stage, inventory, number)).collect()
}

fn retirement(stage: u8, inventory: &Inventory, number: u16) -> DockerStep {
    let member = names::member(&inventory.cluster, number);
    let name = names::object(member.as_str());
    let objects = inventory.objects.iter().filter(|object| object.name == name && object.kind == ObjectKind::Node);
    let removes: Vec<String> = objects.map(|object| format!("{} '{}'", object.form, object.name)).collect();
    let action = DockerAction::RetireNode { name };
    let title = format!("stop and remove node '{member}'");
    Step::new(stage, format!("retire {member}"), title, "the cluster shall have fewer nodes", action).removing(removes).destroying_data()
}
