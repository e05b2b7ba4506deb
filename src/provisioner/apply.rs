//! Carries out a plan: stage by stage, the steps of a stage at the same time. It makes no choices; those are in the plan.

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::{
    error::ProvisionError,
    observe::Inventory,
    plan::{Plan, Wish},
    platform::Platform,
    progress::Progress,
    step::Step,
};
use crate::model::ClusterName;

/// How often a deletion looks for what came up late, and how long it waits before.
const DELETE_ROUNDS: u32 = 5;
const DELETE_PAUSE: Duration = Duration::from_millis(200);

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
    if plan.spec.is_none() { delete(platform, plan, progress).await } else { carry_out(platform, plan, progress).await }
}

/// Deleting is only done when the platform says that nothing is left. What a killed run had asked for may still come up while we delete, and
/// stand in the way of the rest: then what is there now is deleted in another round.
async fn delete<P: Platform>(platform: &P, plan: &Plan<P::Action>, progress: &dyn Progress) -> Result<Applied, ProvisionError> {
    let mut result = carry_out(platform, plan, progress).await;
    for _ in 1..DELETE_ROUNDS {
        let gone = is_gone(&platform.observe(&plan.cluster).await?, plan.removes_backups);
        if (gone && result.is_ok()) || matches!(result, Err(ProvisionError::Interrupted { .. })) {
            return result;
        }
        tokio::time::sleep(DELETE_PAUSE).await;
        result = match make_plan(platform, &plan.cluster, &Wish::Delete { backups: plan.removes_backups }).await {
            Ok(rest) => carry_out(platform, &rest, progress).await,
            Err(ProvisionError::NoCluster(_)) => Ok(Applied { steps: plan.steps.len() }),
            Err(error) => return Err(error),
        };
    }
    let left = platform.observe(&plan.cluster).await?;
    if result.is_ok() && !is_gone(&left, plan.removes_backups) { Err(remains(&left)) } else { result }
}

fn is_gone(left: &Inventory, backups: bool) -> bool {
    left.is_empty() && !(backups && left.archive().is_some())
}

fn remains(left: &Inventory) -> ProvisionError {
    let remains: Vec<String> = left.objects.iter().map(|object| format!("{} '{}'", object.form, object.name)).collect();
    ProvisionError::Remains { cluster: left.cluster.clone(), remains: remains.join(", ") }
}

async fn carry_out<P: Platform>(platform: &P, plan: &Plan<P::Action>, progress: &dyn Progress) -> Result<Applied, ProvisionError> {
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
    let result = platform.perform(&plan.cluster, &step.action, &|remark| progress.remark(&step.name, remark)).await;
    let failure = result.as_ref().err().map(ToString::to_string);
    progress.finished(&step.name, begin.elapsed(), failure.as_deref());
    result.map_err(|error| (step.title.clone(), error))
}
