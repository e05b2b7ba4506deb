//! What is wished for and the plan that leads there. Which steps a plan has is the platform's business; what a plan is, is said here.

use std::fmt;

use serde::Serialize;

use super::{image::ImageSource, step::Step, store_secrets::StoreSecrets};
use crate::{
    model::{ClusterName, MemberName, counted},
    spec::{ClusterSpec, NodeCount},
};

/// What somebody wants done with a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "there is one at a time")]
pub enum Wish {
    /// The cluster shall exist as this spec says.
    Create {
        /// What it should be.
        spec: ClusterSpec,
        /// The image its containers run.
        image: ImageSource,
    },
    /// The cluster shall again be as its stored spec says.
    Apply {
        /// The image to use when the one that the cluster was made with is gone.
        image: ImageSource,
        /// New secrets of its archive.
        secrets: StoreSecrets,
    },
    /// The cluster shall have this many nodes.
    Scale {
        /// How many.
        nodes: NodeCount,
        /// The member that leads now, which is never removed.
        leader: Option<MemberName>,
        /// The image to use when the one that the cluster was made with is gone.
        image: ImageSource,
        /// New secrets of its archive.
        secrets: StoreSecrets,
    },
    /// The cluster shall be gone, with everything that was made for it.
    Delete {
        /// Its backups too. They are never removed unless somebody asks for that.
        backups: bool,
    },
}

impl Wish {
    /// The image that this wish offers for new containers.
    pub fn image(&self) -> Option<&ImageSource> {
        match self {
            Wish::Create { image, .. } | Wish::Apply { image, .. } | Wish::Scale { image, .. } => Some(image),
            Wish::Delete { .. } => None,
        }
    }

    /// The secrets that an archive which is there shall be reached with.
    pub fn secrets(&self) -> Option<&StoreSecrets> {
        match self {
            Wish::Apply { secrets, .. } | Wish::Scale { secrets, .. } => Some(secrets),
            Wish::Create { .. } | Wish::Delete { .. } => None,
        }
    }
}

/// An object that a plan leaves as it is, and what there is to say about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Untouched {
    /// The object.
    pub object: String,
    /// Why nothing is done about it.
    pub note: String,
}

/// The ordered steps from what is to what should be, with reasons.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan<A> {
    /// The cluster.
    pub cluster: ClusterName,
    /// The cluster as it will be, with the ports it has; `None` when it will be gone.
    pub spec: Option<ClusterSpec>,
    /// Steps in the order of their stages.
    pub steps: Vec<Step<A>>,
    /// Whether the cluster's backups will be gone too.
    pub removes_backups: bool,
    /// What is left alone although it is not as a fresh cluster would have it.
    pub untouched: Vec<Untouched>,
    /// What has to happen after the last step before the wish is fulfilled; the cluster does it by itself.
    pub waits_for: Vec<String>,
}

impl<A> Plan<A> {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The steps that destroy data, which need consent.
    pub fn destroying_steps(&self) -> impl Iterator<Item = &Step<A>> {
        self.steps.iter().filter(|step| step.destroys_data)
    }
}

/// For people: one line per step, then what is left and what is waited for.
impl<A> fmt::Display for Plan<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            writeln!(f, "plan for cluster '{}': nothing to do", self.cluster)?;
        } else {
            writeln!(f, "plan for cluster '{}': {}", self.cluster, counted(self.steps.len() as u64, "step"))?;
        }
        for step in &self.steps {
            writeln!(f, "  {}. {} ({})", step.stage, step.title, step.why)?;
            for object in &step.creates {
                writeln!(f, "     + {object}")?;
            }
            for object in &step.removes {
                let loss = if step.destroys_data { "  (with its data)" } else { "" };
                writeln!(f, "     - {object}{loss}")?;
            }
        }
        for left in &self.untouched {
            writeln!(f, "  left as it is: {}: {}", left.object, left.note)?;
        }
        for awaited in &self.waits_for {
            writeln!(f, "  then waits for: {awaited}")?;
        }
        Ok(())
    }
}
