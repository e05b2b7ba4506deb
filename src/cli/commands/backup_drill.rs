//! `spilo backup drill [ID]`: the proof that a backup can be restored.

use std::{path::PathBuf, time::Duration};

use jiff::Timestamp;
use serde::Serialize;

use crate::{
    backup::{
        ArchiveError, BackupId,
        drill::{self, DrillError, Report, Request},
        restore::Limits,
        verdict::{Recorded, Verdict, record},
    },
    cli::{
        CommandError, Context, ErrorKind, Exit,
        cluster_store::ClusterStoreArgs,
        inside::Inside,
        interrupt::{Interrupt, interrupted, run_async},
        output::Shown,
        ui::in_words,
        which_archive::{WhichBackup, Whose},
    },
    model::ClusterName,
    sys::priority,
};

/// What something that cannot be restored ends with, as in `spilo status`.
const BROKEN: Exit = Exit(21);

/// How long recovery may take, if nobody says otherwise.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// Bytes of data in memory at the same time.
const MEMORY: u64 = 64 << 20;

/// Where the keeper of a node has its own.
const SCRATCH: &str = "/var/lib/spilo/data.drill";

const EXAMPLES: &str = "\
Examples:
  spilo backup drill orders                        the newest, on a replica where one runs
  spilo backup drill orders --to-end --database shop --check 'select count(*) > 0 from orders'
  spilo backup drill --store file:///archive --cluster orders --bin-dir /usr/lib/postgresql/17/bin

Exit code: 0 it can be restored, 21 it cannot, 1 it could not be tried, 4 no such backup, or not any more, 6 not on this machine.";

/// Restore a backup into a throw-away directory, start PostgreSQL there, and look at everything in it
///
/// The server listens on a socket in that directory only, archives nothing, loads no libraries, and is removed in the end. The running server is
/// not disturbed. The verdict, with the time that recovery took, is kept in the store. With --store, run it as the user that runs PostgreSQL.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Which.
    #[command(flatten)]
    which: WhichBackup,
    /// Directory of PostgreSQL's programs, of the version that was backed up [default: the node's; with --store: where programs are found]
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
    /// Directory in which the throw-away one is made [default: beside the node's data; with --store: that of temporary files]
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// Recover to the end of the archive, instead of only until the data are consistent
    #[arg(long)]
    to_end: bool,
    /// A superuser of the backed up cluster
    #[arg(long, value_name = "ROLE", default_value = "postgres")]
    user: String,
    /// The database that --check asks
    #[arg(long, value_name = "NAME", default_value = "postgres")]
    database: String,
    /// A query that has to answer true; may be given several times
    #[arg(long, value_name = "SQL")]
    check: Vec<String>,
    /// Do not count the rows of all tables
    #[arg(long)]
    no_count: bool,
}

/// What came of it, as data.
#[derive(Debug, Serialize)]
struct Drilled {
    id: BackupId,
    ok: bool,
    at: Timestamp,
    seconds: f64,
    restore_seconds: Option<f64>,
    recovery_seconds: Option<f64>,
    problems: Vec<String>,
    notes: Vec<String>,
}

impl Shown for Drilled {
    const KIND: &'static str = "BackupDrill";

    fn text(&self, _: bool) -> String {
        let seconds = |seconds: f64| in_words(Duration::from_secs_f64(seconds));
        let mut text = match (self.ok, self.recovery_seconds) {
            (true, Some(recovery)) => {
                let restore = self.restore_seconds.map_or(String::new(), |restore| format!(" (restore {})", seconds(restore)));
                format!("backup {} can be restored: a server answered after {}{restore}\n", self.id, seconds(recovery))
            }
            _ => format!("backup {} cannot be restored\n", self.id),
        };
        self.problems.iter().for_each(|problem| text += &format!("problem: {problem}\n"));
        self.notes.iter().for_each(|note| text += &format!("{note}\n"));
        text
    }
}

/// Tries it.
pub fn run(context: &Context, args: &Args) -> Result<Exit, CommandError> {
    let place = match args.which.archive.whose()? {
        Whose::InStore(place) => place,
        Whose::OfCluster(cluster) => return run_async(|interrupt| inside(context, args, cluster, interrupt)),
    };
    if rustix::process::geteuid().is_root() {
        let refused = CommandError::new(ErrorKind::Refused, "PostgreSQL does not run as root");
        return Err(refused.hint("run this as the user that runs PostgreSQL"));
    }
    // Before any thread is there: all of them, and PostgreSQL, take it over.
    priority::run_last();
    let (drilled, kept) = run_async(|interrupt| async move {
        tokio::select! {
            drilled = try_it(context, args, &place) => drilled,
            () = interrupt.requested() => Err(interrupted()),
        }
    })?;
    if matches!(kept, Ok(Recorded::Gone)) {
        return Err(args.which.removed_meanwhile(&drilled.id));
    }
    context.show(&drilled)?;
    kept.map_err(|error| CommandError::new(ErrorKind::Failed, error).hint("what was found is true, but the store did not take it"))?;
    Ok(if drilled.ok { Exit::OK } else { BROKEN })
}

/// Has a node of the cluster try it.
async fn inside(context: &Context, args: &Args, cluster: ClusterName, interrupt: Interrupt) -> Result<Exit, CommandError> {
    let inside = Inside::of(&cluster).await?;
    let command = inside.look_into(context, &["backup", "drill"], options(args, inside.seen.stored.spec.postgres.get()));
    inside.run_attached(inside.node_at_leisure()?, &command, &interrupt).await
}

/// What is asked for, as a node with PostgreSQL of that version is told.
fn options(args: &Args, version: u8) -> Vec<String> {
    let path = |said: &Option<PathBuf>, default: String| said.as_ref().map_or(default, |path| path.to_string_lossy().into_owned());
    let mut more = args.which.option();
    more.extend([
        format!("--bin-dir={}", path(&args.bin_dir, format!("/usr/lib/postgresql/{version}/bin"))),
        format!("--scratch={}", path(&args.scratch, SCRATCH.to_owned())),
        format!("--user={}", args.user),
        format!("--database={}", args.database),
    ]);
    more.extend(args.check.iter().map(|query| format!("--check={query}")));
    more.extend(args.to_end.then(|| "--to-end".to_owned()));
    more.extend(args.no_count.then(|| "--no-count".to_owned()));
    more
}

/// What came of it, and whether the store has the verdict.
async fn try_it(
    context: &Context,
    args: &Args,
    place: &ClusterStoreArgs,
) -> Result<(Drilled, Result<Recorded, ArchiveError>), CommandError> {
    let archive = place.opened(args.which.archive.system).await?;
    let begun = std::time::Instant::now();
    let step = context.ui.step("test restore");
    let tell = |line: &str| step.note(line);
    let report = drill::drill(&archive, &request(args, place)?, &tell).await.map_err(told)?;
    let (at, seconds) = (Timestamp::now(), begun.elapsed().as_secs_f64());
    let kept = record(&archive, &report.backup.id, verdict(&report, at, seconds)).await;
    if report.problems.is_empty() && !matches!(kept, Ok(Recorded::Gone)) {
        step.done()
    } else {
        step.failed()
    }
    let drilled = Drilled {
        id: report.backup.id.clone(),
        ok: report.problems.is_empty(),
        at,
        seconds,
        restore_seconds: report.restored_in.map(|took| took.as_secs_f64()),
        recovery_seconds: report.recovery.map(|took| took.as_secs_f64()),
        problems: report.problems,
        notes: report.notes,
    };
    Ok((drilled, kept))
}

fn verdict(report: &Report, at: Timestamp, seconds: f64) -> Verdict {
    let recovery = report.recovery.map(|took| took.as_secs_f64());
    Verdict::of_restore(&report.problems, &report.notes, recovery, at, seconds)
}

fn request(args: &Args, place: &ClusterStoreArgs) -> Result<Request, CommandError> {
    Ok(Request {
        backup: args.which.id().cloned(),
        scratch: args.scratch.clone().unwrap_or_else(std::env::temp_dir),
        bin_dir: args.bin_dir.clone().unwrap_or_default(),
        restore_command: place.restore_command()?,
        to_end: args.to_end,
        user: args.user.clone(),
        database: args.database.clone(),
        checks: args.check.clone(),
        count_rows: !args.no_count,
        patience: PATIENCE,
        limits: Limits { threads: 1, memory: MEMORY },
    })
}

fn told(error: DrillError) -> CommandError {
    match error {
        DrillError::Unfit { ref hint, .. } => {
            let hint = hint.clone();
            CommandError::new(ErrorKind::Refused, error).hint(hint)
        }
        DrillError::NoBackup(_) => CommandError::new(ErrorKind::NotFound, error),
        DrillError::Restore(error) => error.into(),
        error => CommandError::new(ErrorKind::Failed, error),
    }
}
