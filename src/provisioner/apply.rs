//! Carries out a plan: stage by stage, the steps of a stage at the same time. It makes no choices; those are in the plan.

use std::time::Instant;

use futures_util::future::join_all;

use super::{
    error::ProvisionError,
    plan::{Plan, Wish},
    platform::Platform,
    progress::Progress,
    step::Step,
};
use crate::model::ClusterName;

/// What applying a plan came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// How many steps were carried out.
    pub steps: usize,
}

/// Looks at the platform and plans the way to what is wished for. Changes nothing.
pub async fn make_plan<P: Platform>(platform: &P, cluster: &ClusterName, wish: &Wish) -> Result<Plan<P::Action>, ProvisionError> {
    let inventory = platform.observe(cluster).await?;
    let surroundings = platform.survey(wish, &inventory).await?;
    P::plan(wish, &inventory, &surroundings)
}

/// Carries out a plan. When a step fails, the others of its stage are completed and nothing further is begun.
pub async fn apply<P: Platform>(platform: &P, plan: &Plan<P::Action>, progress: &dyn Progress) -> Result<Applied, ProvisionError> {
    let mut done = 0;
    for stage in plan.steps.chunk_by(|a, b| a.stage == b.stage) {
        let allowed = stage.iter().take_while(|step| progress.may_start(&step.name)).count();
        let results = join_all(stage[..allowed].iter().map(|step| perform(platform, plan, step, progress))).await;
        let (completed, failed): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
        done += completed.len();
        if let Some((title, source)) = failed.into_iter().find_map(Result::err) {
            return Err(ProvisionError::Step { title, done, source: Box::new(source) });
        }
        if allowed < stage.len() {
            return Err(ProvisionError::Interrupted { done, steps: plan.steps.len() });
        }
    }
    if plan.spec.is_none() {
        expect_empty(platform, &plan.cluster).await?;
    }
    Ok(Applied { steps: done })
}

async fn perform<P: Platform>(
    platform: &P,
    plan: &Plan<P::Action>,
    step: &Step<P::Action>,
    progress: &dyn Progress,
) -> Result<(), (String, ProvisionError)> {
    let begin = Instant::now();
    progress.started(&step.name, &step.title);
    let result = platform.perform(&plan.cluster, &step.action, &|line| progress.line(&step.name, line)).await;
    let failure = result.as_ref().err().map(ToString::to_string);
    progress.finished(&step.name, begin.elapsed(), failure.as_deref());
    result.map_err(|error| (step.title.clone(), error))
}

/// Deleting is only done when the platform says that nothing is left.
async fn expect_empty<P: Platform>(platform: &P, cluster: &ClusterName) -> Result<(), ProvisionError> {
    let left = platform.observe(cluster).await?;
    if left.is_empty() {
        return Ok(());
    }
    let remains: Vec<String> = left.objects.iter().map(|object| format!("{} '{}'", object.form, object.name)).collect();
    Err(ProvisionError::Remains { cluster: cluster.clone(), remains: remains.join(", ") })
}
