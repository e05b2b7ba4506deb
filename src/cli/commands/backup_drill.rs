//! `spilo backup drill [ID]`: the proof that a backup can be restored.

use std::{path::PathBuf, time::Duration};

use jiff::Timestamp;
use serde::Serialize;

use crate::{
    backup::{
        BackupId,
        drill::{self, DrillError, Report, Request},
        restore::Limits,
        verdict::{Verdict, record},
    },
    cli::{
        CommandError, Context, ErrorKind, Exit,
        cluster_store::ClusterStoreArgs,
        interrupt::{interrupted, run_async},
        output::Shown,
        ui::in_words,
    },
    model::SystemId,
    sys::priority,
};

/// What something that cannot be restored ends with, as in `spilo status`.
const BROKEN: Exit = Exit(21);

/// How long recovery may take, if nobody says otherwise.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// Bytes of data in memory at the same time.
const MEMORY: u64 = 64 << 20;

const EXAMPLES: &str = "\
Examples:
  spilo backup drill --store file:///archive --cluster orders --bin-dir /usr/lib/postgresql/17/bin
  spilo backup drill --store file:///archive --cluster orders --to-end --database shop --check 'select count(*) > 0 from orders'

Exit code: 0 it can be restored, 21 it cannot, 1 it could not be tried, 4 no such backup, 6 not on this machine.";

/// Restore a backup into a throw-away directory, start PostgreSQL there, and look at everything in it
///
/// The server listens on a socket in that directory only, archives nothing, loads no libraries, and is removed in the end. The running server is
/// not disturbed. The verdict, with the time that recovery took, is kept in the store. Run it as the user that runs PostgreSQL.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Where the backups are.
    #[command(flatten)]
    archive: ClusterStoreArgs,
    /// Which database cluster of this name, by its system identifier
    #[arg(long, value_name = "NUMBER")]
    system: Option<SystemId>,
    /// The backup; without it, the newest
    #[arg(value_name = "ID")]
    id: Option<BackupId>,
    /// Directory of PostgreSQL's programs, of the version that was backed up
    #[arg(long, value_name = "DIR", default_value = "")]
    bin_dir: PathBuf,
    /// Directory in which the throw-away one is made [default: that of temporary files]
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
    if rustix::process::geteuid().is_root() {
        let refused = CommandError::new(ErrorKind::Refused, "PostgreSQL does not run as root");
        return Err(refused.hint("run this as the user that runs PostgreSQL"));
    }
    // Before any thread is there: all of them, and PostgreSQL, take it over.
    priority::run_last();
    let drilled = run_async(|interrupt| async move {
        tokio::select! {
            drilled = try_it(context, args) => drilled,
            () = interrupt.requested() => Err(interrupted()),
        }
    })?;
    context.show(&drilled)?;
    Ok(if drilled.ok { Exit::OK } else { BROKEN })
}

async fn try_it(context: &Context, args: &Args) -> Result<Drilled, CommandError> {
    let store = args.archive.open().await?;
    let system = args.archive.system(&store, args.system).await?;
    let archive = args.archive.archive(store, system)?;
    let begun = std::time::Instant::now();
    let step = context.ui.step("test restore");
    let tell = |line: &str| step.note(line);
    let report = drill::drill(&archive, &request(args)?, &tell).await.map_err(told)?;
    let (at, seconds) = (Timestamp::now(), begun.elapsed().as_secs_f64());
    record(&archive, &report.backup.id, verdict(&report, at, seconds))
        .await
        .map_err(|error| CommandError::new(ErrorKind::Failed, error))?;
    if report.problems.is_empty() {
        step.done()
    } else {
        step.failed()
    }
    Ok(Drilled {
        id: report.backup.id.clone(),
        ok: report.problems.is_empty(),
        at,
        seconds,
        restore_seconds: report.restored_in.map(|took| took.as_secs_f64()),
        recovery_seconds: report.recovery.map(|took| took.as_secs_f64()),
        problems: report.problems,
        notes: report.notes,
    })
}

fn verdict(report: &Report, at: Timestamp, seconds: f64) -> Verdict {
    let recovery = report.recovery.map(|took| took.as_secs_f64());
    Verdict::of_restore(&report.problems, &report.notes, recovery, at, seconds)
}

fn request(args: &Args) -> Result<Request, CommandError> {
    Ok(Request {
        backup: args.id.clone(),
        scratch: args.scratch.clone().unwrap_or_else(std::env::temp_dir),
        bin_dir: args.bin_dir.clone(),
        restore_command: restore_command(&args.archive)?,
        to_end: args.to_end,
        user: args.user.clone(),
        database: args.database.clone(),
        checks: args.check.clone(),
        count_rows: !args.no_count,
        patience: PATIENCE,
        limits: Limits { threads: 1, memory: MEMORY },
    })
}

/// This program, without the node's service: whose cache is not to be filled with what only a test needs.
fn restore_command(archive: &ClusterStoreArgs) -> Result<String, CommandError> {
    let failed = |why: String| CommandError::new(ErrorKind::Failed, why);
    let program = std::env::current_exe().map_err(|error| failed(format!("this program's file is not known: {error}")))?;
    let program = program.to_string_lossy().into_owned();
    // The file may have been replaced under us; then another version lies in its place.
    let program = program.strip_suffix(" (deleted)").unwrap_or(&program).to_owned();
    let words = [program, "wal".to_owned(), "fetch".to_owned()].into_iter().chain(archive.words());
    let quoted: Result<Vec<String>, _> = words.map(|word| shlex::try_quote(&word).map(|word| word.replace('%', "%%"))).collect();
    let quoted = quoted.map_err(|error| failed(format!("no command can be made of the options: {error}")))?;
    Ok(format!("{} \"%f\" \"%p\"", quoted.join(" ")))
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
