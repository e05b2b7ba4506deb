//! Where clusters can live. A platform observes by ownership label, plans purely, and performs repeatable steps.

mod docker;

use std::future::Future;

use serde::Serialize;

pub use docker::{Definition, DockerAction, DockerPlatform};

use super::{
    error::ProvisionError,
    image::{ImageInfo, ImageSource},
    lock::HeldLock,
    observe::{ClusterSummary, Inventory, Surroundings},
    plan::{Plan, Wish},
    progress::Say,
};
use crate::{
    model::{ClusterName, Secret},
    spec::ClusterSpec,
};

/// What a command printed and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecOutput {
    /// Its exit code.
    pub exit_code: i64,
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: Vec<u8>,
}

/// Which lines of a log are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogWish {
    /// Go on as new lines come.
    pub follow: bool,
    /// Only this many of the newest lines.
    pub tail: Option<u32>,
    /// Put the engine's timestamp before each line.
    pub timestamps: bool,
}

/// One line of a container's log, without its line end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Whether it was written to standard error.
    pub is_error: bool,
    /// The line.
    pub text: String,
}

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Good,
    /// It works, but somebody should know.
    Warning,
    /// Clusters cannot be made like this.
    Bad,
}

/// One thing that was looked at before work begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub subject: String,
    /// How it came out.
    pub verdict: Verdict,
    /// What was found.
    pub finding: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// A place where clusters live.
pub trait Platform {
    /// The platform's own instructions, one per step. Never holds a secret.
    type Action: Serialize + Clone + std::fmt::Debug;

    /// Looks at what clusters need of the machine. Never fails: what is wrong is a [`Check`].
    fn check_machine(&self) -> impl Future<Output = Vec<Check>>;

    /// What a command of ours inside a node is told so that it finds the archive of a cluster that is stored so; `None`: there is none.
    fn archive_options(spec: &ClusterSpec) -> Option<Vec<String>>;

    /// Every cluster on this platform.
    fn clusters(&self) -> impl Future<Output = Result<Vec<ClusterSummary>, ProvisionError>>;

    /// Everything there is of one cluster.
    fn observe(&self, cluster: &ClusterName) -> impl Future<Output = Result<Inventory, ProvisionError>>;

    /// What else a plan for this wish depends on.
    fn survey(&self, wish: &Wish, inventory: &Inventory) -> impl Future<Output = Result<Surroundings, ProvisionError>>;

    /// The steps from what is to what is wished for. Pure: the same arguments give the same plan.
    fn plan(wish: &Wish, inventory: &Inventory, surroundings: &Surroundings) -> Result<Plan<Self::Action>, ProvisionError>;

    /// Carries out one instruction; `say` takes lines about how it goes.
    fn perform(&self, cluster: &ClusterName, action: &Self::Action, say: Say<'_>) -> impl Future<Output = Result<(), ProvisionError>>;

    /// Takes the cluster's lock, or says who holds it.
    fn acquire_lock(&self, cluster: &ClusterName, command: &str) -> impl Future<Output = Result<HeldLock, ProvisionError>>;

    /// Makes a lock good for another lease.
    fn renew_lock(&self, lock: &HeldLock) -> impl Future<Output = Result<HeldLock, ProvisionError>>;

    /// Gives a lock back.
    fn release_lock(&self, lock: &HeldLock) -> impl Future<Output = Result<(), ProvisionError>>;

    /// Records that the cluster has once been healthy: from now on no new node initialises a new one. Repeating it changes nothing.
    fn record_initialized(&self, cluster: &ClusterName) -> impl Future<Output = Result<(), ProvisionError>>;

    /// Reads the password of `role` (`app`, `monitor`, …).
    fn read_secret(&self, cluster: &ClusterName, role: &str) -> impl Future<Output = Result<Secret, ProvisionError>>;

    /// Runs a command inside a running container and collects what it prints. `input` is its standard input.
    fn exec(&self, container: &str, command: &[String], input: Option<&[u8]>) -> impl Future<Output = Result<ExecOutput, ProvisionError>>;

    /// Runs a command inside a running container on this process's own terminal or pipes; returns its exit code.
    fn exec_attached(&self, container: &str, command: &[String]) -> impl Future<Output = Result<i64, ProvisionError>>;

    /// Hands a container's log to `sink` line by line.
    fn logs(&self, container: &str, wish: LogWish, sink: &mut dyn FnMut(LogLine)) -> impl Future<Output = Result<(), ProvisionError>>;

    /// Makes sure that an image is there; returns its name and tag.
    fn ensure_image(&self, image: &ImageSource, say: Say<'_>) -> impl Future<Output = Result<String, ProvisionError>>;

    /// The images that were built here, newest first.
    fn images(&self) -> impl Future<Output = Result<Vec<ImageInfo>, ProvisionError>>;
}
