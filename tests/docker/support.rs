//! A scratch cluster per test, with an image whose `spilo` only waits: what is laid out is tested here, not what runs in it.

use std::{
    collections::{BTreeSet, HashMap},
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    sync::atomic::{AtomicU32, Ordering},
};

use bollard::{
    Docker,
    query_parameters::{ListVolumesOptionsBuilder, RemoveVolumeOptions},
};
use spilo::{
    model::ClusterName,
    provisioner::{
        DockerPlatform, ImageRecipe, ImageSource, Inventory, Plan, Platform, ProvisionError, Silent, StoreSecrets, Wish, apply, make_plan,
    },
    spec::{ClusterSpec, NodeCount, PostgresVersion},
};

use crate::shared::ports::free_ports;

/// Stands for `spilo` in the image: answers `--version`, and otherwise waits until it is stopped.
const STAND_IN: &str = "#!/bin/sh\n[ \"$1\" = --version ] && echo stand-in && exit 0\n[ \"$1\" = wal ] && exit 0\ntrap 'exit 0' TERM\necho waiting \"$@\"\nsleep 1000000 &\nwait\n";

static NEXT_CLUSTER: AtomicU32 = AtomicU32::new(1);

pub type DockerPlan = Plan<<DockerPlatform as Platform>::Action>;

/// The engine, or `None` with a visible line where there is none.
pub async fn engine() -> Option<DockerPlatform> {
    match DockerPlatform::connect().await {
        Ok(platform) => Some(platform),
        Err(error) if std::env::var_os("CI").is_some() => panic!("CI has no Docker engine: {error}"),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "skipped: {error}");
            None
        }
    }
}

/// The engine's own client, for what somebody else might do to a cluster.
pub async fn client() -> Docker {
    Docker::connect_with_defaults().unwrap().negotiate_version().await.unwrap()
}

/// One cluster that is gone when the test ends, also when it fails. Only what carries its labels is removed.
pub struct Scratch {
    pub platform: DockerPlatform,
    pub name: ClusterName,
    pub spec: ClusterSpec,
    pub image: ImageSource,
}

impl Scratch {
    /// A cluster of its own name and ports with this many nodes; nothing of it exists yet.
    pub async fn new(nodes: u8) -> Option<Scratch> {
        let platform = engine().await?;
        let image = stand_in_image(&platform).await;
        let number = NEXT_CLUSTER.fetch_add(1, Ordering::Relaxed);
        let name: ClusterName = format!("tp{}x{number}", std::process::id()).parse().unwrap();
        let mut spec = ClusterSpec::named(name.clone());
        spec.nodes = NodeCount::try_from(nodes).unwrap();
        spec.port = Some(own_port());
        Some(Scratch { platform, name, spec, image })
    }

    pub fn create_wish(&self) -> Wish {
        Wish::Create { spec: self.spec.clone(), image: self.image.clone() }
    }

    pub fn apply_wish(&self) -> Wish {
        Wish::Apply { image: self.image.clone(), secrets: StoreSecrets::default() }
    }

    pub async fn plan(&self, wish: &Wish) -> Result<DockerPlan, ProvisionError> {
        make_plan(&self.platform, &self.name, wish).await
    }

    /// Plans and applies.
    pub async fn fulfil(&self, wish: &Wish) -> DockerPlan {
        let plan = self.plan(wish).await.unwrap();
        apply(&self.platform, &plan, &Silent).await.unwrap();
        plan
    }

    pub async fn create(&self) {
        self.fulfil(&self.create_wish()).await;
    }

    pub async fn observe(&self) -> Inventory {
        self.platform.observe(&self.name).await.unwrap()
    }

    pub async fn expect_settled(&self) {
        let plan = self.plan(&self.create_wish()).await.unwrap();
        assert!(plan.is_empty() && plan.untouched.is_empty(), "{plan}");
    }

    /// The container of a node or another part, such as `1` or `router`.
    pub fn container(&self, part: &str) -> String {
        format!("spilo-{}-{part}", self.name)
    }
}

impl Drop for Scratch {
    /// Deletes what the test made and did not delete itself, in a thread with a runtime of its own, because a test may end in a panic.
    fn drop(&mut self) {
        let name = self.name.clone();
        let cleaner = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(clean(&name));
        });
        assert!(cleaner.join().is_ok() || std::thread::panicking(), "cluster '{}' could not be cleaned up", self.name);
    }
}

/// Deletes whatever there is of a cluster, by its labels.
pub async fn clean(name: &ClusterName) {
    let platform = DockerPlatform::connect().await.unwrap();
    let plan = match make_plan(&platform, name, &Wish::Delete { backups: true }).await {
        // Its bucket is the test's, and goes with it.
        Err(ProvisionError::BackupsInBucket { .. }) => make_plan(&platform, name, &Wish::Delete { backups: false }).await,
        plan => plan,
    };
    match plan {
        Ok(plan) => drop(apply(&platform, &plan, &Silent).await.unwrap()),
        Err(ProvisionError::NoCluster(_)) => {}
        Err(error) => panic!("{error}"),
    }
    let client = client().await;
    let locks = vec![format!("io.spilo.cluster={name}"), "io.spilo.kind=lock".to_owned()];
    let options = ListVolumesOptionsBuilder::default().filters(&HashMap::from([("label", locks)])).build();
    for lock in client.list_volumes(Some(options)).await.unwrap().volumes.unwrap_or_default() {
        client.remove_volume(&lock.name, None::<RemoveVolumeOptions>).await.unwrap();
    }
}

/// What counts about an inventory when two are compared: not identifiers and times.
pub fn essence(inventory: &Inventory) -> BTreeSet<String> {
    let objects = inventory.objects.iter().map(|object| {
        format!(
            "{} {} {} {} {} {:?} {:?}",
            object.form, object.kind, object.name, object.condition, object.attached, object.image, object.definition
        )
    });
    objects.chain([format!("{:?}", inventory.stored)]).collect()
}

/// Three ports in a row, as a cluster needs them, that nobody else uses.
pub fn own_port() -> u16 {
    free_ports(3)
}

/// The recipe of an image with this script as `spilo`.
pub fn recipe_of_script(script: &str) -> (tempfile::TempDir, ImageRecipe) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("spilo");
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let recipe = ImageRecipe::of_binary(PostgresVersion::default(), path).unwrap();
    (directory, recipe)
}

/// The image with the stand-in. Tests that want it at the same time wait for one build.
async fn stand_in_image(platform: &DockerPlatform) -> ImageSource {
    static BUILD: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let (_directory, recipe) = recipe_of_script(STAND_IN);
    let image = ImageSource::Built(recipe);
    let _one_at_a_time = BUILD.lock().await;
    platform.ensure_image(&image, &|_| {}).await.unwrap();
    image
}
