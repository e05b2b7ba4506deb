//! The planner against inventories as an engine would show them.

use std::collections::BTreeSet;

use super::*;
use crate::{
    model::{ClusterName, RecoveryGoal, SystemId},
    provisioner::{
        image::ImageSource,
        observe::{Condition, Foreign, Form, Object, ObjectKind, StoredSpec},
        platform::docker::{definition::definitions, names},
        store_secrets::{StoreSecret, StoreSecrets},
    },
    spec::{ArchiveSpec, CloneSource, ClusterSpec, NodeCount},
};

const IMAGE: &str = "spilo:pg17-0";

fn orders() -> ClusterName {
    "orders".parse().unwrap()
}

fn stored() -> StoredSpec {
    StoredSpec {
        generation: 1,
        initialized: false,
        deleting: false,
        members: [1, 2, 3].into(),
        port_chosen: true,
        image: IMAGE.into(),
        spec: ClusterSpec { port: Some(5432), archive: Some(ArchiveSpec::volume()), ..ClusterSpec::named(orders()) },
    }
}

fn initialized() -> StoredSpec {
    StoredSpec { generation: 2, initialized: true, ..stored() }
}

fn object(form: Form, kind: ObjectKind, name: String) -> Object {
    let condition = if form == Form::Container { Condition::Running } else { Condition::Present };
    Object {
        form,
        kind,
        id: format!("id of {name}"),
        name,
        member: None,
        condition,
        created: None,
        image: None,
        definition: None,
        attached: true,
    }
}

/// Everything of a cluster, as it should be.
fn complete(stored: StoredSpec) -> Inventory {
    let mut objects = vec![
        object(Form::Network, ObjectKind::Network, "spilo-orders".into()),
        object(Form::Volume, ObjectKind::Config, "spilo-orders-config".into()),
        object(Form::Volume, ObjectKind::Archive, "spilo-orders-archive".into()),
        object(Form::Volume, ObjectKind::Spec, names::spec(&orders(), stored.generation)),
    ];
    for definition in definitions(&stored) {
        if definition.keeps_data {
            let volume = object(Form::Volume, definition.kind, definition.name.clone());
            objects.push(Object { member: definition.member.clone(), ..volume });
        }
        objects.push(Object {
            member: definition.member.clone(),
            image: Some(definition.image.clone()),
            definition: Some(definition.digest()),
            ..object(Form::Container, definition.kind, definition.name)
        });
    }
    Inventory { cluster: orders(), stored: Some(stored), objects, foreign: Vec::new() }
}

fn nothing() -> Inventory {
    Inventory { cluster: orders(), stored: None, objects: Vec::new(), foreign: Vec::new() }
}

fn calm() -> Surroundings {
    Surroundings { images: [IMAGE.to_owned()].into(), free_port: Some(5500), ports_in_use: Vec::new(), changed_secrets: BTreeSet::new() }
}

fn image() -> ImageSource {
    ImageSource::Finished(IMAGE.into())
}

fn create() -> Wish {
    Wish::Create { spec: ClusterSpec::named(orders()), image: image() }
}

fn apply() -> Wish {
    Wish::Apply { image: image(), secrets: StoreSecrets::default() }
}

fn scale(nodes: u8, leader: Option<&str>) -> Wish {
    let leader = leader.map(|leader| leader.parse().unwrap());
    Wish::Scale { nodes: NodeCount::try_from(nodes).unwrap(), leader, image: image(), secrets: StoreSecrets::default() }
}

fn steps(plan: &Plan<DockerAction>) -> Vec<&str> {
    plan.steps.iter().map(|step| step.name.as_str()).collect()
}

fn change(inventory: &mut Inventory, container: &str, change: impl FnOnce(&mut Object)) {
    let found = inventory.objects.iter_mut().find(|object| object.form == Form::Container && object.name == container);
    change(found.expect("the container is there"));
}

fn lose(inventory: &mut Inventory, form: Form, name: &str) {
    inventory.objects.retain(|object| object.form != form || object.name != name);
}

#[test]
fn a_new_cluster_stores_its_spec_before_anything_else_and_etcd_before_those_who_wait_for_it() {
    let plan = plan(&create(), &nothing(), &calm()).unwrap();
    let expected =
        ["spec", "network", "config", "archive", "etcd orders-etcd-1", "node orders-1", "node orders-2", "node orders-3", "router"];
    assert_eq!(steps(&plan), expected);
    let stages: Vec<u8> = plan.steps.iter().map(|step| step.stage).collect();
    assert_eq!(stages, [3, 4, 4, 5, 5, 6, 6, 6, 6]);
    assert_eq!(plan.spec.as_ref().unwrap().port, Some(5500));
    assert_eq!(plan.waits_for.len(), 2);
}

#[test]
fn a_missing_image_is_made_first() {
    let plan = plan(&create(), &nothing(), &Surroundings { images: Default::default(), ..calm() }).unwrap();
    assert_eq!((plan.steps[0].name.as_str(), plan.steps[0].stage), ("image", 1));
}

#[test]
fn a_complete_cluster_needs_no_step_whatever_is_wished() {
    for stored in [stored(), initialized()] {
        for wish in [create(), apply(), scale(3, None)] {
            let plan = plan(&wish, &complete(stored.clone()), &calm()).unwrap();
            assert!(plan.is_empty() && plan.untouched.is_empty() && plan.waits_for.is_empty(), "{plan}");
        }
    }
}

#[test]
fn whatever_happened_to_a_container_is_put_right_by_one_step() {
    type Fault = fn(&mut Object);
    let faults: [(&str, Fault); 5] = [
        ("start", |object| object.condition = Condition::Stopped),
        ("start", |object| object.condition = Condition::Created),
        ("unpause", |object| object.condition = Condition::Paused),
        ("connect", |object| object.attached = false),
        ("re-create", |object| object.condition = Condition::Dead),
    ];
    for (verb, fault) in faults {
        for name in ["spilo-orders-2", "spilo-orders-etcd-1", "spilo-orders-router"] {
            let mut inventory = complete(initialized());
            change(&mut inventory, name, fault);
            let plan = plan(&apply(), &inventory, &calm()).unwrap();
            assert_eq!(plan.steps.len(), 1, "{plan}");
            assert!(plan.steps[0].title.starts_with(verb), "{plan}");
            assert!(!plan.steps[0].destroys_data);
        }
    }
}

#[test]
fn a_missing_container_is_made_again_and_then_only_joins() {
    let mut inventory = complete(initialized());
    lose(&mut inventory, Form::Container, "spilo-orders-2");
    let plan = plan(&apply(), &inventory, &calm()).unwrap();
    assert_eq!(steps(&plan), ["node orders-2"]);
    assert_eq!(plan.steps[0].creates, ["container 'spilo-orders-2'"]);
    let DockerAction::EnsureRunning { definition, .. } = &plan.steps[0].action else { panic!("{plan}") };
    assert!(definition.command.contains(&"--join-only".to_owned()));
}

#[test]
fn a_container_with_another_image_goes_on_and_is_mentioned() {
    let mut inventory = complete(initialized());
    change(&mut inventory, "spilo-orders-1", |object| object.image = Some("spilo:pg17-old".into()));
    change(&mut inventory, "spilo-orders-router", |object| object.definition = Some("other".into()));
    let plan = plan(&apply(), &inventory, &calm()).unwrap();
    assert!(plan.is_empty(), "{plan}");
    assert_eq!(plan.untouched.len(), 2);
    assert!(plan.to_string().contains("runs image 'spilo:pg17-old' instead of 'spilo:pg17-0'"), "{plan}");
}

#[test]
fn the_image_that_a_cluster_was_made_with_is_used_as_long_as_it_is_there() {
    let newer = Wish::Apply { image: ImageSource::Finished("spilo:pg17-new".into()), secrets: StoreSecrets::default() };
    let mut inventory = complete(initialized());
    lose(&mut inventory, Form::Container, "spilo-orders-2");
    let image_of = |plan: &Plan<DockerAction>| match &plan.steps.last().unwrap().action {
        DockerAction::EnsureRunning { definition, .. } => definition.image.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(image_of(&plan(&newer, &inventory, &calm()).unwrap()), IMAGE);
    let gone = plan(&newer, &inventory, &Surroundings { images: Default::default(), ..calm() }).unwrap();
    assert_eq!(image_of(&gone), "spilo:pg17-new");
    assert_eq!(steps(&gone), ["image", "spec", "node orders-2"]);
}

#[test]
fn a_name_that_is_somebody_elses_is_refused_only_when_it_is_needed() {
    let taken = |name: &str| Inventory {
        foreign: vec![Foreign { form: Form::Container, name: name.into(), cluster: Some("orders-etcd".into()) }],
        ..nothing()
    };
    let error = plan(&create(), &taken("spilo-orders-etcd-1"), &calm()).unwrap_err().to_string();
    assert!(error.contains("container 'spilo-orders-etcd-1'") && error.contains("cluster 'orders-etcd'"), "{error}");
    assert!(plan(&create(), &taken("spilo-orders-7"), &calm()).is_ok());
}

#[test]
fn ports_that_the_user_named_are_refused_when_they_are_taken() {
    let spec = ClusterSpec { port: Some(6000), ..ClusterSpec::named(orders()) };
    let wish = Wish::Create { spec, image: image() };
    let error = plan(&wish, &nothing(), &Surroundings { ports_in_use: vec![6001], ..calm() }).unwrap_err();
    assert!(error.to_string().contains("port 6001"), "{error}");
}

#[test]
fn a_creation_that_lost_its_chosen_ports_meanwhile_chooses_others_and_makes_the_router_anew() {
    let mut inventory = complete(stored());
    change(&mut inventory, "spilo-orders-router", |object| object.condition = Condition::Created);
    let plan = plan(&create(), &inventory, &Surroundings { ports_in_use: vec![5433], ..calm() }).unwrap();
    assert_eq!(steps(&plan), ["spec", "router"]);
    assert_eq!(plan.steps[1].removes, ["container 'spilo-orders-router'"]);
    assert_eq!(plan.spec.unwrap().port, Some(5500));
}

#[test]
fn creating_a_cluster_again_as_something_else_names_every_difference() {
    let spec = ClusterSpec { nodes: NodeCount::try_from(5).unwrap(), port: Some(6000), ..ClusterSpec::named(orders()) };
    let wish = Wish::Create { spec, image: image() };
    let error = plan(&wish, &complete(initialized()), &calm()).unwrap_err().to_string();
    assert!(error.contains("nodes is 3, not 5") && error.contains("port is 5432, not 6000"), "{error}");
}

#[test]
fn creating_a_cluster_again_with_another_way_to_its_archive_is_refused() {
    let archive = |endpoint: Option<&str>, key: Option<&str>| ArchiveSpec {
        store: "s3://backups".parse().unwrap(),
        endpoint: endpoint.map(str::to_owned),
        region: None,
        credentials_file: key.map(Into::into),
        key_file: None,
    };
    let with = |archive| ClusterSpec { archive: Some(archive), ..stored().spec };
    let inventory = complete(StoredSpec { spec: with(archive(Some("http://old:9000"), Some("/old"))), ..stored() });
    let again = |archive| plan(&Wish::Create { spec: with(archive), image: image() }, &inventory, &calm());
    let error = again(archive(Some("http://new:9000"), Some("/new"))).unwrap_err().to_string();
    assert!(error.contains("'archive.endpoint' is http://old:9000, not http://new:9000"), "{error}");
    assert!(error.contains("'archive.credentials_file' is /old, not /new"), "{error}");
    assert!(again(archive(None, None)).is_ok(), "what is left open agrees");
}

#[test]
fn creating_a_cluster_again_from_another_system_of_that_name_is_refused() {
    let with = |system: Option<u64>| {
        let (cluster, archive, goal) = ("old".parse().unwrap(), ArchiveSpec::volume(), RecoveryGoal::default());
        let source = CloneSource { cluster, archive, system: system.map(SystemId), goal };
        ClusterSpec { clone_of: Some(Box::new(source)), ..stored().spec }
    };
    let again = |is: Option<u64>, initialized, wanted: Option<u64>| {
        let inventory = complete(StoredSpec { spec: with(is), initialized, ..stored() });
        plan(&Wish::Create { spec: with(wanted), image: image() }, &inventory, &calm())
    };
    let error = again(None, false, Some(7)).unwrap_err().to_string();
    assert!(error.contains("clone-system is the only one, not 7"), "{error}");
    assert!(again(Some(8), true, Some(7)).is_err() && again(Some(7), true, Some(7)).is_ok());
    assert!(again(None, true, Some(7)).is_ok() && again(Some(7), false, None).is_ok());
}

fn in_a_bucket(initialized: StoredSpec) -> StoredSpec {
    let archive = ArchiveSpec {
        credentials_file: Some("/old".into()),
        key_file: Some("/old.key".into()),
        ..ArchiveSpec { store: "s3://backups".parse().unwrap(), ..ArchiveSpec::none() }
    };
    StoredSpec { spec: ClusterSpec { archive: Some(archive), ..initialized.spec }, ..initialized }
}

fn with_secrets(credentials: Option<&str>, key: Option<&str>) -> Wish {
    Wish::Apply { image: image(), secrets: StoreSecrets { credentials_file: credentials.map(Into::into), key_file: key.map(Into::into) } }
}

#[test]
fn new_secrets_are_tried_out_and_brought_before_anything_else_and_the_plan_tells_only_that() {
    let inventory = complete(in_a_bucket(initialized()));
    let changed = Surroundings { changed_secrets: [StoreSecret::Credentials].into(), ..calm() };
    let plan_for = |wish: &Wish, surroundings: &Surroundings| plan(wish, &inventory, surroundings).unwrap();
    let renewed = plan_for(&with_secrets(Some("/new"), None), &changed);
    assert_eq!(steps(&renewed), ["secrets", "spec"]);
    assert!(renewed.steps[0].stage < renewed.steps[1].stage);
    assert_eq!(renewed.steps[0].title, "try out the new credentials of the store and bring them to the nodes");
    assert_eq!(renewed.steps[0].why, "the nodes have another content than '/new'");
    assert_eq!(renewed.spec.unwrap().archive.unwrap().credentials_file, Some("/new".into()));
    // The same file with another content: the spec says nothing new.
    let both = Surroundings { changed_secrets: StoreSecret::ALL.into(), ..calm() };
    assert_eq!(steps(&plan_for(&with_secrets(Some("/old"), Some("/old.key")), &both)), ["secrets"]);
    // Another file with the content that the nodes have: interrupted, or moved.
    assert_eq!(steps(&plan_for(&with_secrets(Some("/new"), None), &calm())), ["spec"]);
    assert!(plan_for(&with_secrets(Some("/old"), Some("/old.key")), &calm()).is_empty());
}

#[test]
fn a_secret_that_the_archive_was_made_without_is_not_added() {
    let inventory = complete(initialized());
    for (wish, key) in [(with_secrets(Some("/new"), None), "credentials_file"), (with_secrets(None, Some("/key")), "key_file")] {
        let error = plan(&wish, &inventory, &calm()).unwrap_err();
        assert!(error.to_string().contains(&format!("'archive.{key}'")) && error.hint().is_some(), "{error}");
    }
}

#[test]
fn scaling_up_takes_the_lowest_free_numbers() {
    let with_gap = StoredSpec {
        members: [1, 3].into(),
        spec: ClusterSpec { nodes: NodeCount::try_from(2).unwrap(), ..stored().spec },
        ..initialized()
    };
    let plan = plan(&scale(4, None), &complete(with_gap), &calm()).unwrap();
    assert_eq!(steps(&plan), ["spec", "node orders-2", "node orders-4"]);
}

#[test]
fn scaling_down_spares_the_leader_and_retires_one_after_the_other() {
    let plan = plan(&scale(1, Some("orders-3")), &complete(initialized()), &calm()).unwrap();
    assert_eq!(steps(&plan), ["spec", "retire orders-2", "retire orders-1"]);
    assert!(plan.steps[1].stage < plan.steps[2].stage);
    assert!(plan.steps[1..].iter().all(|step| step.destroys_data));
    assert_eq!(plan.steps[1].removes, ["volume 'spilo-orders-2'", "container 'spilo-orders-2'"]);
}

#[test]
fn an_interrupted_scaling_down_is_completed_by_apply() {
    let mut inventory = complete(initialized());
    inventory.stored = Some(StoredSpec { members: [1, 2].into(), ..initialized() });
    lose(&mut inventory, Form::Container, "spilo-orders-3");
    let plan = plan(&apply(), &inventory, &calm()).unwrap();
    assert_eq!(steps(&plan), ["retire orders-3"]);
    assert_eq!(plan.steps[0].removes, ["volume 'spilo-orders-3'"]);
}

#[test]
fn without_a_leader_nobody_is_retired() {
    let error = plan(&scale(1, None), &complete(initialized()), &calm()).unwrap_err();
    assert!(error.to_string().contains("no leader"), "{error}");
}

#[test]
fn a_half_written_configuration_is_completed_before_any_node_is_made() {
    let mut inventory = complete(stored());
    inventory.objects.retain(|object| object.form != Form::Container);
    let plan = plan(&create(), &inventory, &calm()).unwrap();
    assert_eq!(plan.steps[0].name, "config");
    assert!(plan.steps[0].stage < plan.steps[1].stage);
}

#[test]
fn new_passwords_are_never_made_for_an_existing_database() {
    let mut inventory = complete(initialized());
    lose(&mut inventory, Form::Volume, "spilo-orders-config");
    let error = plan(&apply(), &inventory, &calm()).unwrap_err();
    assert!(error.to_string().contains("'spilo-orders-config'"), "{error}");
}

#[test]
fn an_etcd_member_does_not_come_back_empty_among_others() {
    let three = StoredSpec { spec: ClusterSpec { etcd: crate::spec::EtcdCount::try_from(3).unwrap(), ..stored().spec }, ..initialized() };
    let mut inventory = complete(three);
    lose(&mut inventory, Form::Container, "spilo-orders-etcd-2");
    lose(&mut inventory, Form::Volume, "spilo-orders-etcd-2");
    let plan = plan(&apply(), &inventory, &calm()).unwrap();
    assert!(plan.is_empty(), "{plan}");
    assert!(plan.untouched[0].note.contains("must not come back empty"), "{plan}");
}

#[test]
fn left_over_generations_networks_and_writers_are_tidied_up() {
    let mut inventory = complete(initialized());
    inventory.objects.push(object(Form::Volume, ObjectKind::Spec, "spilo-orders-spec-1".into()));
    inventory.objects.push(object(Form::Container, ObjectKind::ConfigWriter, "spilo-orders-config-writer".into()));
    inventory.objects.push(object(Form::Network, ObjectKind::Network, "spilo-orders".into()));
    let plan = plan(&apply(), &inventory, &calm()).unwrap();
    assert_eq!(steps(&plan), ["spec", "network", "config-writer"]);
}

#[test]
fn deleting_removes_everything_in_reverse_and_the_spec_last() {
    let inventory = complete(initialized());
    let plan = plan(&Wish::Delete { backups: true }, &inventory, &Surroundings::default()).unwrap();
    assert_eq!(plan.steps[0].name, "mark");
    for object in &inventory.objects {
        let described = format!("{} '{}'", object.form, object.name);
        assert!(plan.steps.iter().any(|step| step.removes.contains(&described)), "{described} is forgotten");
    }
    let stage_of = |name: &str| plan.steps.iter().find(|step| step.name == name).unwrap().stage;
    assert!(stage_of("container 'spilo-orders-1'") < stage_of("volume 'spilo-orders-1'"));
    assert!(stage_of("volume 'spilo-orders-1'") < stage_of("volume 'spilo-orders-spec-2'"));
    assert_eq!(plan.steps.last().unwrap().removes, ["volume 'spilo-orders-spec-3'"]);
    let destroying: Vec<&str> = plan.destroying_steps().map(|step| step.name.as_str()).collect();
    assert!(destroying.contains(&"volume 'spilo-orders-1'") && !destroying.contains(&"network 'spilo-orders'"));
}

fn kept_archive() -> Inventory {
    Inventory { objects: vec![object(Form::Volume, ObjectKind::Archive, "spilo-orders-archive".into())], ..nothing() }
}

#[test]
fn backups_stay_unless_somebody_asks_for_their_end() {
    let plan = plan(&Wish::Delete { backups: false }, &complete(initialized()), &Surroundings::default()).unwrap();
    assert!(!plan.to_string().contains("- volume 'spilo-orders-archive'"), "{plan}");
    assert!(plan.to_string().contains("left as it is: volume 'spilo-orders-archive': the backups in it stay"), "{plan}");
}

#[test]
fn the_backups_of_a_deleted_cluster_are_no_cluster_and_can_still_be_removed() {
    assert!(kept_archive().is_empty());
    assert!(matches!(plan(&Wish::Delete { backups: false }, &kept_archive(), &Surroundings::default()), Err(ProvisionError::NoCluster(_))));
    let plan = plan(&Wish::Delete { backups: true }, &kept_archive(), &Surroundings::default()).unwrap();
    assert_eq!(steps(&plan), ["volume 'spilo-orders-archive'"]);
    assert!(plan.steps[0].destroys_data);
}

#[test]
fn a_cluster_of_an_old_name_goes_on_with_the_archive_that_was_kept() {
    let plan = plan(&create(), &kept_archive(), &calm()).unwrap();
    let archive = plan.steps.iter().find(|step| step.name == "archive").unwrap();
    assert!(archive.creates.is_empty() && plan.untouched[0].note.contains("stays there"), "{plan}");
}

#[test]
fn what_is_in_a_bucket_is_never_removed() {
    let mut stored = initialized();
    stored.spec.archive = Some(ArchiveSpec { store: "s3://backups/prod".parse().unwrap(), ..ArchiveSpec::none() });
    let mut inventory = complete(stored);
    lose(&mut inventory, Form::Volume, "spilo-orders-archive");
    let error = plan(&Wish::Delete { backups: true }, &inventory, &Surroundings::default()).unwrap_err();
    assert!(error.to_string().contains("'s3://backups/prod'"), "{error}");
    let plan = plan(&Wish::Delete { backups: false }, &inventory, &Surroundings::default()).unwrap();
    assert!(plan.to_string().contains("left as it is: store 's3://backups/prod'"), "{plan}");
}

#[test]
fn an_archive_that_was_lost_is_told_and_never_begun_anew() {
    let mut inventory = complete(initialized());
    inventory.objects.retain(|object| object.form != Form::Container && object.kind != ObjectKind::Archive);
    let plan = plan(&apply(), &inventory, &calm()).unwrap();
    assert!(!steps(&plan).contains(&"archive"), "{plan}");
    assert!(plan.untouched[0].note.contains("gone with its backups"), "{plan}");
}

#[test]
fn a_creation_that_was_interrupted_before_it_had_nodes_begins_the_archive() {
    let mut inventory = complete(stored());
    inventory.objects.retain(|object| !matches!(object.kind, ObjectKind::Node | ObjectKind::Archive));
    assert!(steps(&plan(&create(), &inventory, &calm()).unwrap()).contains(&"archive"));
}

#[test]
fn a_cluster_without_an_archive_gets_none_by_itself() {
    let mut stored = initialized();
    stored.spec.archive = None;
    let mut inventory = complete(stored);
    lose(&mut inventory, Form::Volume, "spilo-orders-archive");
    for wish in [create(), apply()] {
        let plan = plan(&wish, &inventory, &calm()).unwrap();
        assert!(plan.is_empty() && plan.untouched.is_empty(), "{plan}");
    }
}

#[test]
fn a_half_deleted_cluster_can_only_be_deleted() {
    let going = complete(StoredSpec { deleting: true, ..initialized() });
    for wish in [create(), apply(), scale(4, None)] {
        assert!(matches!(plan(&wish, &going, &calm()), Err(ProvisionError::Deleting(_))));
    }
    let plan = plan(&Wish::Delete { backups: true }, &going, &calm()).unwrap();
    assert_ne!(plan.steps[0].name, "mark");
}

#[test]
fn what_does_not_exist_cannot_be_applied_scaled_or_deleted() {
    for wish in [apply(), scale(2, None), Wish::Delete { backups: true }] {
        assert!(matches!(plan(&wish, &nothing(), &calm()), Err(ProvisionError::NoCluster(_))));
    }
}

#[test]
fn a_plan_as_json_has_steps_with_reasons_and_no_secret() {
    let plan = plan(&create(), &nothing(), &calm()).unwrap();
    let json = serde_json::to_value(&plan).unwrap();
    assert_eq!(json["steps"][0]["name"], "spec");
    assert_eq!(json["steps"][0]["why"], "the cluster is new");
    assert_eq!(json["steps"][4]["action"]["do"], "ensure-running");
    assert!(!json.to_string().to_lowercase().contains("password="));
}
