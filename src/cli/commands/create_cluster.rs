//! `spilo create cluster NAME`

use std::path::PathBuf;

use serde::Serialize;

use super::dsn::connection;
use crate::{
    cli::{
        CommandError, Context, ErrorKind, Exit,
        arrival::Arrival,
        change::{Consent, PlanArgs, carry_out, show_plan},
        clone_source::{Foreseen, Parent, expect_no_earlier_archive},
        connection::ConnectionParameters,
        engine::{connect, expect_fit_machine},
        goal_arguments::GoalArgs,
        interrupt::{Interrupt, run_async},
        output::Shown,
        spec_arguments::{ImageArgs, SpecArgs, expect_store_keys},
        status::{ClusterStatus, NodeRole},
        store_arguments::parse_file,
        wait::wait_until_healthy,
    },
    model::{ClusterName, SystemId},
    provisioner::{Platform, Wish, with_lock},
    spec::{CloneWish, ClusterSpec, SpecDocument},
};

const EXAMPLES: &str = "\
Examples:
  spilo create cluster orders                      three nodes, PostgreSQL 17, quorum durability
  spilo create cluster orders --nodes 1 --port 5432
  spilo create cluster -f orders.yaml --plan       what would be done
  spilo create cluster trial --clone-from orders   with the data of another cluster's backup

Repeating the command continues an interrupted creation; on a finished cluster it changes nothing.";

/// Create a cluster on this machine, and wait until it is healthy
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Name of the cluster; may be left out when the spec file has it
    name: Option<ClusterName>,

    #[command(flatten)]
    spec: SpecArgs,

    /// Begin with the newest backup of this cluster, and the WAL after it, instead of nothing
    #[arg(long, value_name = "CLUSTER")]
    clone_from: Option<ClusterName>,

    /// With --clone-from, where several database clusters had that name: which, by its system identifier [default: the one there is now]
    #[arg(long, value_name = "NUMBER", requires = "clone_from")]
    clone_system: Option<SystemId>,

    /// With --clone-from, where its backups are encrypted with another key than it knows of: the file with that key
    #[arg(long, value_name = "FILE", requires = "clone_from", value_parser = parse_file)]
    clone_key: Option<PathBuf>,

    #[command(flatten)]
    goal: GoalArgs,

    #[command(flatten)]
    plan: PlanArgs,
}

impl Args {
    /// Whose backup, by the options, else by the file.
    fn clone_wish(&self, of_file: Option<CloneWish>) -> Result<Option<CloneWish>, CommandError> {
        match (&self.clone_from, of_file) {
            (Some(_), Some(wish)) => {
                let twice = format!("the file says already that the cluster begins with a backup of '{}'", wish.cluster);
                Err(CommandError::new(ErrorKind::Usage, twice).hint("say it in one of the two places: --clone-from, or 'clone_from'"))
            }
            (Some(cluster), None) => Ok(Some(CloneWish {
                cluster: cluster.clone(),
                system: self.clone_system,
                key_file: self.clone_key.clone(),
                goal: self.goal.goal(),
            })),
            (None, _) if self.goal.is_given() => {
                let aimless = "the options that say where recovery ends are for a cluster that begins with another one's backup";
                Err(CommandError::new(ErrorKind::Usage, aimless).hint("whose? --clone-from CLUSTER"))
            }
            (None, wish) => Ok(wish),
        }
    }
}

/// What was created.
#[derive(Debug, Serialize)]
struct Created {
    uri: String,
    #[serde(flatten)]
    status: ClusterStatus,
    connection: ConnectionParameters,
    #[serde(skip_serializing_if = "Option::is_none")]
    restored: Option<Arrival>,
}

impl Shown for Created {
    const KIND: &'static str = "Cluster";

    fn text(&self, _wide: bool) -> String {
        self.uri.clone()
    }
}

/// Creates the cluster.
pub fn run(context: &Context, args: &Args) -> Result<Exit, CommandError> {
    let SpecDocument { spec, clone_from } = args.spec.spec(args.name.as_ref())?;
    let wish = args.clone_wish(clone_from)?;
    run_async(|interrupt| {
        create(context, interrupt, Birth { spec, wish, image: &args.spec.image, plan: &args.plan, verb: "create cluster" })
    })
}

/// What is created, and how.
pub struct Birth<'a> {
    /// What it should be.
    pub spec: ClusterSpec,
    /// Whose backup it begins with.
    pub wish: Option<CloneWish>,
    /// Where its image comes from.
    pub image: &'a ImageArgs,
    /// Whether it is only planned.
    pub plan: &'a PlanArgs,
    /// What was asked for, for whoever finds the cluster's lock taken.
    pub verb: &'static str,
}

/// Creates a cluster of this spec, and waits until it is healthy.
pub async fn create(context: &Context, interrupt: Interrupt, birth: Birth<'_>) -> Result<Exit, CommandError> {
    let platform = connect().await?;
    let Birth { mut spec, wish, image, plan, verb } = birth;
    let cluster = spec.name.clone();
    let inventory = platform.observe(&cluster).await?;
    let is_new = inventory.stored.is_none();
    let mut foreseen = None;
    if let Some(wish) = &wish {
        let parent = Parent::find(&platform, &spec, wish).await?;
        parent.farewell().iter().for_each(|gone| context.ui.say(gone));
        if is_new {
            expect_no_earlier_archive(&cluster, inventory.archive().is_some())?;
            parent.exposure(&spec).iter().for_each(|exposed| context.ui.warn(exposed));
            foreseen = parent.foresee(context, &platform).await?;
        }
        foreseen.iter().for_each(|foreseen| say_the_way(context, foreseen));
        spec.clone_of = Some(Box::new(parent.source));
    }
    if is_new {
        expect_store_keys(&spec)?;
    }
    let key = spec.archive.as_ref().and_then(|archive| archive.key_file.clone());
    let wish = Wish::Create { image: image.source(&spec)?, spec };
    if plan.plan {
        return show_plan(context, &platform, &cluster, &wish, plan.exit_code).await;
    }
    expect_fit_machine(context, &platform).await?;
    let command = format!("{verb} {cluster}");
    let (seen, connection) = with_lock(&platform, &cluster, &command, async {
        let plan = carry_out(context, &interrupt, &platform, &cluster, &wish, Consent::Ask).await?;
        if plan.is_empty() {
            context.ui.say(format_args!("all of cluster '{cluster}' is in place already"));
        }
        let seen = wait_until_healthy(context, &interrupt, &platform, &cluster).await?;
        let connection = connection(&platform, &seen.stored, false, false).await?;
        Ok::<_, CommandError>((seen, connection))
    })
    .await?;
    context.ui.say(format_args!("cluster '{cluster}' is healthy: {}", seen.status.reason));
    if let Some(key) = key {
        context.ui.say(format_args!("its backups are worth nothing without the key in '{}': keep a copy of that elsewhere", key.display()));
    }
    let restored = Arrival::ask(&platform, &seen, foreseen.as_ref()).await;
    restored.iter().for_each(|restored| context.ui.say(restored.sentence(&cluster)));
    let leader = seen.status.nodes.iter().find(|node| node.role == Some(NodeRole::Leader)).map(|node| node.name.to_string());
    context.show(&Created { uri: connection.uri(), status: seen.status, connection: connection.parameters(), restored })?;
    say_what_to_try(context, &cluster, leader.as_deref().unwrap_or("NODE"));
    Ok(Exit::OK)
}

fn say_the_way(context: &Context, foreseen: &Foreseen) {
    let Foreseen { backup, backup_time, timeline, wal_end, doubts } = foreseen;
    context.ui.say(format_args!(
        "backup {backup} of {backup_time:.0} leads there, along timeline {timeline}; archived WAL is whole to {wal_end}"
    ));
    doubts.iter().for_each(|doubt| context.ui.warn(doubt));
}

fn say_what_to_try(context: &Context, cluster: &ClusterName, leader: &str) {
    let spilo = std::env::args().next().unwrap_or_else(|| "spilo".to_owned());
    let commands = [
        (format!("{spilo} connect {cluster}"), "psql on its primary"),
        (format!("{spilo} status {cluster} -w"), "watch it"),
        (format!("{spilo} switchover {cluster}"), "hand over to a replica"),
        (format!("docker kill spilo-{leader}"), "lose the primary, and go on writing through the same port"),
        (format!("{spilo} apply {cluster}"), "bring back what was lost"),
        (format!("{spilo} delete cluster {cluster}"), "remove it with all its data, but not its backups"),
    ];
    let width = commands.iter().map(|(command, _)| command.len()).max().unwrap_or_default() + 3;
    let next: Vec<String> = commands.iter().map(|(command, what)| format!("  {command:width$}{what}")).collect();
    context.ui.say(format_args!("\nwhat to try next:\n{}", next.join("\n")));
}
