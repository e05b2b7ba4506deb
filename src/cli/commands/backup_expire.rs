//! `spilo backup expire`: remove what retention does not keep; `spilo backup pin` and `unpin`: make exceptions.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::{
    backup::{
        BackupId,
        catalog::Catalog,
        expire::{ExpireError, carry_out, look},
        expire_plan::{self, Doubt, Plan, Refusal, Wish},
        marks,
        retention::Policy,
    },
    cli::{
        CommandError, Context, ErrorKind, Exit,
        bytes::bytes_in_words,
        cluster_store::ClusterStoreArgs,
        context::parse_duration,
        inside::Inside,
        interrupt::{Interrupt, run_async},
        output::{Shown, table},
        which_archive::{WhichArchive, WhichBackup, Whose},
    },
    model::{ClusterName, counted},
};

/// With less than this a restore that has just begun may find that its backup is gone.
const LEAST_GRACE: Duration = Duration::from_secs(3600);

const EXAMPLES: &str = "\
Examples:
  spilo backup expire orders                                   what would go
  spilo backup expire orders --keep 3 --window 14d --apply
  spilo backup expire --store file:///archive --cluster orders

A backup goes in two steps: it is marked, and a later run, after the grace, removes it with the packs and the WAL that no other backup needs.

Exit code: 0 done or nothing to do, 6 refused (the reason is told), 1 the store could not be asked.";

/// Remove backups that are not promised any more, and WAL that no backup needs
///
/// Without --apply only what would go is shown. A backup stays as long as no newer one has been verified.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Whose.
    #[command(flatten)]
    archive: WhichArchive,
    /// So many of the newest backups stay
    #[arg(long, value_name = "NUMBER", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    keep: u16,
    /// Every moment of so long ago can be gone back to; 0 for no such promise
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = parse_duration)]
    window: Duration,
    /// So long a backup that is to go can still be restored from: longer than any backup or restore takes
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = parse_duration)]
    grace: Duration,
    /// Do it
    #[arg(long)]
    apply: bool,
    /// Also when more than half of the backups would go, all that lead to the newest timeline, or after a grace of less than an hour
    #[arg(long)]
    force: bool,
}

/// Keep a backup, whatever retention says
#[derive(Debug, clap::Args)]
pub struct PinArgs {
    /// Which.
    #[command(flatten)]
    which: WhichBackup,
}

/// The plan, as data.
#[derive(Debug, Serialize)]
struct Expiry {
    /// Whether it was carried out.
    applied: bool,
    /// What becomes of each backup.
    backups: Vec<Line>,
    /// Packs that go.
    packs: usize,
    /// WAL files that go.
    wal: usize,
    /// Bytes that are freed.
    bytes: u64,
    /// What forbids it.
    refusals: Vec<String>,
}

/// One backup.
#[derive(Debug, Serialize)]
struct Line {
    id: BackupId,
    what: &'static str,
    why: String,
}

impl Shown for Expiry {
    const KIND: &'static str = "BackupExpiry";

    fn text(&self, _: bool) -> String {
        let rows = self.backups.iter().map(|line| [line.id.to_string(), line.what.to_owned(), line.why.clone()]);
        let done = if self.applied { "removed" } else { "would remove" };
        let amount = bytes_in_words(self.bytes);
        let (packs, wal) = (counted(self.packs as u64, "pack"), counted(self.wal as u64, "WAL file"));
        let mut text = table(["BACKUP", "WHAT", "WHY"], rows) + &format!("{done} {packs} and {wal}, {amount}\n");
        self.refusals.iter().for_each(|refusal| text += &format!("refused: {refusal}\n"));
        text
    }
}

/// Shows the plan, and carries it out when that is asked for.
pub fn run(context: &Context, args: &Args) -> Result<Exit, CommandError> {
    if args.apply && !args.force && args.grace < LEAST_GRACE {
        let told = "a backup that is to go could not be restored from for even an hour";
        return Err(
            CommandError::new(ErrorKind::Refused, told).hint("take a longer --grace, or --force when nothing is backed up or restored")
        );
    }
    let place = match args.archive.whose()? {
        Whose::InStore(place) => place,
        Whose::OfCluster(cluster) => return run_async(|interrupt| inside(context, args, cluster, interrupt)),
    };
    let (plan, outcome) = run_async(|_| expire(args, &place))?;
    let applied = args.apply && outcome.is_ok();
    context.show(&shown(&plan, applied))?;
    outcome.map(|()| Exit::OK).map_err(|error| match &error {
        ExpireError::Refused(refusals) => {
            let hints: Vec<String> = refusals.iter().map(|refusal| hint(args, refusal)).collect();
            hints.into_iter().fold(CommandError::new(ErrorKind::Refused, error), CommandError::hint)
        }
        ExpireError::Archive(_) => failed(error).hint("what was done so far is sound: run it again"),
    })
}

fn hint(args: &Args, refusal: &Refusal) -> String {
    match refusal {
        Refusal::NewestUnproven(id, Doubt::Unverified) => args.archive.command("backup verify", Some(id), "--deep"),
        Refusal::NewestUnproven(id, Doubt::BadPages(_)) => {
            let show = args.archive.command("backup show", Some(id), "");
            format!("which pages? {show}; when they are repaired, take another backup")
        }
        other => other.hint(),
    }
}

/// Has a node of the cluster do it.
async fn inside(context: &Context, args: &Args, cluster: ClusterName, interrupt: Interrupt) -> Result<Exit, CommandError> {
    let inside = Inside::of(&cluster).await?;
    let seconds = |time: Duration| format!("{}s", time.as_secs_f64());
    let mut more =
        vec![format!("--keep={}", args.keep), format!("--window={}", seconds(args.window)), format!("--grace={}", seconds(args.grace))];
    more.extend(args.apply.then(|| "--apply".to_owned()));
    more.extend(args.force.then(|| "--force".to_owned()));
    let command = inside.look_into(context, &["backup", "expire"], more);
    inside.run_attached(inside.node()?, &command, &interrupt).await
}

async fn expire(args: &Args, place: &ClusterStoreArgs) -> Result<(Plan, Result<(), ExpireError>), CommandError> {
    let archive = place.opened(args.archive.system).await?;
    let now = Timestamp::now();
    let seen = look(&archive, now).await.map_err(failed)?;
    let length = |time: Duration| SignedDuration::try_from(time).map_err(|error| CommandError::new(ErrorKind::Usage, error));
    let window = (!args.window.is_zero()).then(|| length(args.window)).transpose()?;
    let policy = Policy { keep: usize::from(args.keep), window };
    let plan = expire_plan::plan(&seen, Wish { policy, grace: length(args.grace)?, force: args.force }, now);
    let outcome = if args.apply { carry_out(&archive, &plan, now).await } else { Ok(()) };
    Ok((plan, outcome))
}

fn shown(plan: &Plan, applied: bool) -> Expiry {
    let line = |what, why: &'static str| move |id: &BackupId| Line { id: id.clone(), what, why: why.to_owned() };
    let kept = plan.keep.iter().map(|(id, why)| Line { id: id.clone(), what: "stays", why: why.to_string() });
    let mut backups: Vec<Line> = kept.collect();
    backups.extend(plan.condemn.iter().map(line("is to go", "no rule keeps it; it goes after the grace")));
    backups.extend(plan.wait.iter().map(line("is to go", "the grace is not over, or a backup is under way that may need it")));
    backups.extend(plan.remove.iter().map(line("goes", "no rule keeps it, and the grace is over")));
    backups.sort_by(|a, b| b.id.cmp(&a.id));
    let refusals = plan.refusals.iter().map(ToString::to_string).collect();
    Expiry { applied, backups, packs: plan.packs.len(), wal: plan.wal.len(), bytes: plan.bytes, refusals }
}

/// Pins the backup, or leaves it to retention again.
pub fn pin(context: &Context, args: &PinArgs, pinned: bool) -> Result<Exit, CommandError> {
    let which = &args.which;
    let Some(id) = which.id() else {
        return Err(CommandError::new(ErrorKind::Usage, "which backup?").hint(which.archive.command("backup list", None, "")));
    };
    run_async(async |_| {
        let place = match which.archive.whose()? {
            Whose::InStore(place) => place,
            Whose::OfCluster(cluster) => {
                let inside = Inside::of(&cluster).await?;
                let verb = if pinned { "pin" } else { "unpin" };
                return inside.run(&inside.look_into(context, &["backup", verb], which.option())).await;
            }
        };
        let archive = place.opened(which.archive.system).await?;
        let catalog = Catalog::read(&archive).await.map_err(failed)?;
        if catalog.find(id).is_none() && pinned {
            let none = format!("there is no backup '{id}' of '{}'", place.cluster);
            return Err(CommandError::new(ErrorKind::NotFound, none).hint(which.archive.command("backup list", None, "")));
        }
        let done = if pinned { marks::pin(&archive, id).await } else { marks::unpin(&archive, id).await };
        done.map(|()| Exit::OK).map_err(failed)
    })
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> CommandError {
    CommandError::new(ErrorKind::Failed, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_forbids_it_is_told_before_anybody_tries() {
        let refusals = vec![Refusal::TooMany(3, 4)];
        let text = shown(&Plan { refusals, ..Plan::default() }, false).text(false);
        assert!(text.ends_with("refused: 3 of 4 backups would go at once\n"), "{text}");
    }
}
