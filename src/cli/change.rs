//! Changing a cluster: plan, show, ask, apply under the cluster's lock. Every command that changes something goes through here.

use std::{cell::RefCell, collections::HashMap, time::Duration};

use serde::Serialize;

use super::{
    CommandError, Context, ErrorKind, Exit,
    interrupt::{Interrupt, interrupted},
    output::Shown,
    ui::{Ui, UiStep},
};
use crate::{
    model::ClusterName,
    provisioner::{Plan, Platform, Progress, Remark, Wish, apply, make_plan},
};

/// Options of commands that can say what they would do.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct PlanArgs {
    /// Show what would be done, and do nothing
    #[arg(long, visible_alias = "dry-run")]
    pub plan: bool,

    /// With --plan: exit with 10 when there is something to do
    #[arg(long, requires = "plan")]
    pub exit_code: bool,
}

/// Shows the plan for a wish on standard output and does nothing.
pub async fn show_plan<P: Platform>(
    context: &Context,
    platform: &P,
    cluster: &ClusterName,
    wish: &Wish,
    exit_code: bool,
) -> Result<Exit, CommandError> {
    let plan = make_plan(platform, cluster, wish).await?;
    context.show(&PlanDocument { changes: !plan.is_empty(), plan: &plan })?;
    Ok(if exit_code && !plan.is_empty() { Exit::CHANGES } else { Exit::OK })
}

/// Plans the way to a wish and goes it. The caller holds the cluster's lock, so that what is planned is what is there.
pub async fn carry_out<P: Platform>(
    context: &Context,
    interrupt: &Interrupt,
    platform: &P,
    cluster: &ClusterName,
    wish: &Wish,
    consent: Consent,
) -> Result<Plan<P::Action>, CommandError> {
    let plan = make_plan(platform, cluster, wish).await?;
    context.ui.detail(&plan);
    consent.to(&context.ui, interrupt, &plan).await?;
    let progress = StepLines { ui: &context.ui, interrupt, running: RefCell::default() };
    apply(platform, &plan, &progress).await?;
    Ok(plan)
}

/// What the user has agreed to when a plan destroys data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consent {
    /// `--yes`, or a confirmation that came before.
    Given,
    /// Nothing yet: ask at a terminal, refuse elsewhere.
    Ask,
}

impl Consent {
    async fn to<A>(self, ui: &Ui, interrupt: &Interrupt, plan: &Plan<A>) -> Result<(), CommandError> {
        let lost: Vec<&str> = plan.destroying_steps().map(|step| step.title.as_str()).collect();
        if self == Consent::Given || lost.is_empty() {
            return Ok(());
        }
        let what = lost.join(", ");
        if !ui.can_ask() {
            let refused = format!("this destroys data of cluster '{}' ({what}), and nobody is here to agree", plan.cluster);
            return Err(CommandError::new(ErrorKind::Refused, refused).hint("to agree beforehand: --yes"));
        }
        let answer = ask(ui, interrupt, format!("this destroys data ({what}). Go on? [y/N]")).await?;
        match answer.as_deref() {
            Some("y" | "Y" | "yes") => Ok(()),
            _ => Err(CommandError::new(ErrorKind::Refused, "not agreed to; nothing was changed")),
        }
    }
}

/// Asks without holding up the runtime, so that Ctrl-C works at the question.
pub async fn ask(ui: &Ui, interrupt: &Interrupt, question: String) -> Result<Option<String>, CommandError> {
    let ui = ui.clone();
    let asked = tokio::task::spawn_blocking(move || ui.ask(&question));
    let answer = tokio::select! {
        answer = asked => answer.map_err(std::io::Error::other).and_then(|answer| answer),
        () = interrupt.requested() => return Err(interrupted()),
    };
    answer.map_err(|error| CommandError::new(ErrorKind::Failed, format!("cannot read the answer: {error}")))
}

#[derive(Serialize)]
struct PlanDocument<'p, A> {
    changes: bool,
    #[serde(flatten)]
    plan: &'p Plan<A>,
}

impl<A: Serialize> Shown for PlanDocument<'_, A> {
    const KIND: &'static str = "Plan";

    fn text(&self, _wide: bool) -> String {
        self.plan.to_string()
    }
}

/// One line per step.
struct StepLines<'u> {
    ui: &'u Ui,
    interrupt: &'u Interrupt,
    running: RefCell<HashMap<String, UiStep>>,
}

impl Progress for StepLines<'_> {
    fn may_start(&self, _name: &str) -> bool {
        !self.interrupt.is_requested()
    }

    fn started(&self, name: &str, title: &str) {
        self.running.borrow_mut().insert(name.to_owned(), self.ui.step(title));
    }

    fn remark(&self, name: &str, remark: Remark<'_>) {
        match (remark, self.running.borrow().get(name)) {
            (Remark::Passing(text), Some(step)) => step.note(text),
            (Remark::Passing(_), None) => {}
            (Remark::Lasting(text), _) => self.ui.say(text),
        }
    }

    fn finished(&self, name: &str, elapsed: Duration, failure: Option<&str>) {
        match (self.running.borrow_mut().remove(name), failure) {
            (Some(step), None) => step.done_after(elapsed),
            (Some(step), Some(_)) => step.failed(),
            (None, _) => tracing::debug!(name, "a step ended that never began"),
        }
    }
}
