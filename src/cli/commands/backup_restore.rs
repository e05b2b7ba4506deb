//! `spilo backup restore DIR`: a base backup, and how to recover from it, into a directory of this machine.

use std::{
    convert::Infallible,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use serde::Serialize;

use crate::{
    backup::{
        ArchiveError, BackupId,
        restore::{
            self, Limits, NoWay, Phase, Progress, Recovery, Report, Request, RestoreError, Seen, Space, Start, TargetAction, Way, Wish,
        },
    },
    cli::{
        CommandError, Context, ErrorKind, Exit,
        bytes::parse_bytes,
        cluster_store::ClusterStoreArgs,
        goal_arguments::GoalArgs,
        interrupt::{interrupted, run_async},
        output::Shown,
        ui::{Ui, UiStep, in_words},
    },
    model::{RecoveryGoal, RecoveryTarget, SystemId, counted},
    sys::process::Run,
};

/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// How often a line says how far it has come where nothing moves.
const LINE: Duration = Duration::from_secs(10);

/// With less than this there is no room for what one lane reads.
const LEAST_MEMORY: u64 = 16 << 20;

const EXAMPLES: &str = "\
Examples:
  spilo backup restore /srv/pg --store file:///archive --cluster orders                             all that was archived
  spilo backup restore /srv/pg --store file:///archive --cluster orders --at '2026-11-21 20:45:00+01'    as it was then
  spilo backup restore /srv/pg --store file:///archive --cluster orders --delta                     keep what is right of it

What was interrupted is continued by the same command; until it is finished PostgreSQL does not start in the directory.
Exit code: 0 restored, 1 failed, 4 no such backup, 6 refused before anything was changed.";

/// Restore a backup into a directory of this machine, ready to recover to a moment
///
/// Run it as the user that runs PostgreSQL. The WAL that recovery needs is checked before anything is written; PostgreSQL fetches it when it is
/// started. What the restored server writes is not archived, unless --keep-archiving is given.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The data directory: an empty one, unless --delta is given
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Where the backups are.
    #[command(flatten)]
    archive: ClusterStoreArgs,
    /// Which database cluster of this name, by its system identifier
    #[arg(long, value_name = "NUMBER")]
    system: Option<SystemId>,
    /// Where recovery ends.
    #[command(flatten)]
    goal: GoalArgs,
    /// What the server does when it is there
    #[arg(long, value_name = "ACTION", default_value = "promote", value_parser = parse_action)]
    action: TargetAction,
    /// Show from which backup it would be restored, and write nothing: DIR is not looked at
    #[arg(long, visible_alias = "dry-run")]
    plan: bool,
    /// Keep what is right of the data in the directory, and remove what does not belong to them
    #[arg(long)]
    delta: bool,
    /// Where a tablespace goes, instead of where it was; may be given several times
    #[arg(long, value_name = "OID=DIR", value_parser = parse_space)]
    tablespace: Vec<Space>,
    /// As a standby whose recovery an agent configures
    #[arg(long, conflicts_with_all = ["at", "lsn", "xid", "restore_point", "immediate", "exclusive", "action", "keep_archiving"])]
    standby: bool,
    /// The restored server archives as the backed up one did: only where that cannot be its parent's place
    #[arg(long)]
    keep_archiving: bool,
    /// Directory of the PostgreSQL programs that are to run there: their version is compared
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
    /// Threads that decompress, check and write [default: one for each processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Memory for data, such as 256M
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, default_value = "256M")]
    memory: u64,
}

/// What was restored, as data.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Restored {
    directory: PathBuf,
    backup: BackupId,
    system: SystemId,
    backup_time: Timestamp,
    consistent_at: String,
    target: RecoveryTarget,
    timeline: u32,
    wal_end: String,
    bytes: u64,
    kept: u64,
    fetched: u64,
    files: u64,
    removed: u64,
    seconds: f64,
}

impl Shown for Restored {
    const KIND: &'static str = "Restoration";

    fn text(&self, _: bool) -> String {
        let (directory, seconds) = (self.directory.display(), self.seconds.max(0.001));
        let rate = self.bytes as f64 / 1_048_576.0 / seconds;
        format!(
            "restored backup {} of {:.0} to '{directory}': {} MB in {} in {} ({rate:.0} MB/s)\n\
             {} MB were there already, {} MB were fetched, {} did not belong there\n\
             recovery goes along timeline {} to {}; archived WAL is whole to {}\n",
            self.backup,
            self.backup_time,
            self.bytes >> 20,
            counted(self.files, "file"),
            in_words(Duration::from_secs_f64(self.seconds)),
            self.kept >> 20,
            self.fetched >> 20,
            counted(self.removed, "file"),
            self.timeline,
            self.target,
            self.wal_end,
        )
    }
}

/// The way to the target, as data: whoever asks from outside reads it too.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Foreseen {
    backup: BackupId,
    system: SystemId,
    backup_time: Timestamp,
    target: RecoveryTarget,
    timeline: u32,
    wal_end: String,
    doubts: Vec<String>,
}

impl Shown for Foreseen {
    const KIND: &'static str = "RestorationPlan";

    fn text(&self, _: bool) -> String {
        let Foreseen { backup, backup_time, target, timeline, wal_end, .. } = self;
        format!(
            "backup {backup}, complete at {backup_time:.0}, leads along timeline {timeline} to {target}; archived WAL is whole to {wal_end}\n"
        )
    }
}

/// Restores it.
pub fn run(context: &Context, args: &Args) -> Result<Exit, CommandError> {
    if args.plan {
        context.show(&run_async(|_| foresee(context, args))?)?;
        return Ok(Exit::OK);
    }
    refuse_root()?;
    let restored = run_async(|interrupt| async move {
        tokio::select! {
            restored = restore(context, args) => restored,
            () = interrupt.requested() => Err(interrupted()),
        }
    })?;
    context.show(&restored)?;
    Ok(Exit::OK)
}

async fn foresee(context: &Context, args: &Args) -> Result<Foreseen, CommandError> {
    let archive = args.archive.opened(args.system).await?;
    let wish = wish(args);
    let way = restore::find_way(&archive, &wish).await?;
    way.doubts.iter().for_each(|doubt| context.ui.warn(doubt));
    compare_versions(args, &way).await?;
    Ok(Foreseen {
        backup: way.backup.id,
        system: way.backup.system,
        backup_time: way.backup.stop.time,
        target: wish.target,
        timeline: way.timeline.0,
        wal_end: way.end.to_string(),
        doubts: way.doubts,
    })
}

fn wish(args: &Args) -> Wish {
    let RecoveryGoal { target, timeline, backup, .. } = args.goal.goal();
    Wish { target, timeline, backup }
}

async fn restore(context: &Context, args: &Args) -> Result<Restored, CommandError> {
    if args.memory < LEAST_MEMORY {
        return Err(CommandError::new(ErrorKind::Usage, format!("a restore needs at least {} MB of memory", LEAST_MEMORY >> 20)));
    }
    let directory = std::path::absolute(&args.directory).map_err(|error| CommandError::new(ErrorKind::Usage, error))?;
    let archive = args.archive.opened(args.system).await?;
    let wish = wish(args);
    let step = context.ui.step("looking for the way to the target");
    let way = restore::find_way(&archive, &wish).await?;
    step.done();
    way.doubts.iter().for_each(|doubt| context.ui.warn(doubt));
    compare_versions(args, &way).await?;
    let start = start(args, &wish, &way)?;
    let request = Request { directory: directory.clone(), delta: args.delta, moved: args.tablespace.clone(), limits: limits(args) };
    let progress = Arc::new(Progress::default());
    let step = context.ui.step(format!("restoring backup {}", way.backup.id));
    let report = tokio::select! {
        report = restore::restore(&archive, &way, &start, &request, &progress) => report?,
        never = show(&context.ui, &step, &progress) => match never {},
    };
    step.done();
    Ok(summary(directory, &wish, &report))
}

/// Shows rate and time left, for ever.
async fn show(ui: &Ui, step: &UiStep, progress: &Progress) -> Infallible {
    let (begun, mut said) = (Instant::now(), Instant::now());
    loop {
        tokio::time::sleep(LOOK).await;
        let told = told(&progress.seen(), begun.elapsed());
        step.note(&told);
        // For who reads lines, such as an agent that makes a replica.
        if !ui.settings().interactive && said.elapsed() >= LINE {
            said = Instant::now();
            ui.say(format_args!("progress: {told}"));
        }
    }
}

fn told(seen: &Seen, elapsed: Duration) -> String {
    match seen.phase {
        Phase::Preparing => "reading the manifest".to_owned(),
        Phase::Sweeping => "removing what does not belong there".to_owned(),
        Phase::Finishing => "waiting for the disk".to_owned(),
        Phase::Writing => {
            let rate = seen.done as f64 / elapsed.as_secs_f64().max(0.001);
            let left = seen.total.saturating_sub(seen.done) as f64 / rate.max(1.0);
            let left = Duration::try_from_secs_f64(left).map_or_else(|_| "-".to_owned(), in_words);
            format!("{} of {} MB, {:.0} MB/s, {left} left", seen.done >> 20, seen.total >> 20, rate / 1_048_576.0)
        }
    }
}

fn summary(directory: PathBuf, wish: &Wish, report: &Report) -> Restored {
    Restored {
        directory,
        backup: report.backup.id.clone(),
        system: report.backup.system,
        backup_time: report.backup.stop.time,
        consistent_at: report.backup.stop.lsn.to_string(),
        target: wish.target.clone(),
        timeline: report.timeline.0,
        wal_end: report.wal_end.to_string(),
        bytes: report.backup.size,
        kept: report.seen.spared,
        fetched: report.seen.moved,
        files: report.seen.files,
        removed: report.removed,
        seconds: report.took.as_secs_f64(),
    }
}

fn start(args: &Args, wish: &Wish, way: &Way) -> Result<Start, CommandError> {
    if args.standby {
        return Ok(Start::Follows);
    }
    Ok(Start::Recovers(Recovery {
        target: wish.target.clone(),
        exclusive: args.goal.goal().exclusive,
        timeline: way.timeline,
        action: args.action,
        restore_command: args.archive.restore_command()?,
        keep_archiving: args.keep_archiving,
    }))
}

fn limits(args: &Args) -> Limits {
    let processors = || std::thread::available_parallelism().map_or(1, usize::from);
    Limits { threads: args.threads.map_or_else(processors, usize::from), memory: args.memory }
}

/// PostgreSQL of another major version does not start on these data.
async fn compare_versions(args: &Args, way: &Way) -> Result<(), CommandError> {
    let Some(bin_dir) = &args.bin_dir else { return Ok(()) };
    let told = Run::new(bin_dir.join("postgres")).arg("--version").output().await;
    let told = told.map_err(|error| CommandError::new(ErrorKind::Failed, error))?;
    let (found, wanted) = (major(&told), way.backup.server_version / 10_000);
    if found == Some(wanted) {
        return Ok(());
    }
    let told = format!("'{}' has '{}', and the backup is of PostgreSQL {wanted}", bin_dir.display(), told.trim());
    Err(CommandError::new(ErrorKind::Refused, told))
}

/// `postgres (PostgreSQL) 15.8 (Debian …)`.
fn major(told: &str) -> Option<u32> {
    let version = told.split_whitespace().nth(2)?;
    version.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok()
}

/// The files would belong to root, and PostgreSQL does not run as root.
fn refuse_root() -> Result<(), CommandError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let refused = CommandError::new(ErrorKind::Refused, "PostgreSQL does not run as root, and what root restores is root's");
    Err(refused.hint("run this as the user that runs PostgreSQL"))
}

fn parse_space(text: &str) -> Result<Space, String> {
    let wrong = || format!("'{text}' does not name a tablespace and its directory (expected OID=DIRECTORY)");
    let (oid, location) = text.split_once('=').ok_or_else(wrong)?;
    let location = Path::new(location);
    let oid = oid.parse().map_err(|_| wrong())?;
    if location.is_absolute() { Ok(Space { oid, location: location.to_owned() }) } else { Err(wrong()) }
}

fn parse_action(text: &str) -> Result<TargetAction, String> {
    [TargetAction::Promote, TargetAction::Pause, TargetAction::Shutdown]
        .into_iter()
        .find(|action| action.word() == text)
        .ok_or_else(|| format!("'{text}' is not 'promote', 'pause' or 'shutdown'"))
}

impl From<RestoreError> for CommandError {
    fn from(error: RestoreError) -> CommandError {
        let (kind, hint) = match &error {
            RestoreError::Refused { hint, .. } => (ErrorKind::Refused, hint.clone()),
            RestoreError::NoWay(NoWay::NoBackup(_) | NoWay::UnknownBackup { .. }) => {
                (ErrorKind::NotFound, "are --store, --cluster and --system right?".to_owned())
            }
            RestoreError::NoWay(NoWay::UnknownTimeline(_) | NoWay::NoneLeads { .. }) => {
                (ErrorKind::Refused, "which timelines there are says 'spilo wal check'; choose one with --timeline".to_owned())
            }
            RestoreError::NoWay(NoWay::BehindTheEnd { .. }) => {
                let hint = "what was written last is archived when its segment is full, or after archive_timeout: try again then";
                (ErrorKind::Refused, hint.to_owned())
            }
            RestoreError::NoWay(_) => (ErrorKind::Refused, "what there is says 'spilo wal check'; nothing was written".to_owned()),
            RestoreError::Archive(ArchiveError::Damaged { .. }) => {
                let hint = "choose another backup with --backup ID; what was begun cannot be started before a restore has come to its end";
                (ErrorKind::Failed, hint.to_owned())
            }
            RestoreError::Archive(error @ ArchiveError::Key(_)) if !error.is_unavailable() => {
                (ErrorKind::Failed, "whoever created the cluster knows where its key is; without it nothing can be restored".to_owned())
            }
            _ => (ErrorKind::Failed, "run the same command again to continue: what is right stays".to_owned()),
        };
        CommandError::new(kind, error).hint(hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tablespaces_are_read_as_people_write_them() {
        assert_eq!(parse_space("16384=/srv/x").unwrap(), Space { oid: 16_384, location: "/srv/x".into() });
        assert!(parse_space("16384").is_err() && parse_space("x=/srv").is_err() && parse_space("1=srv").is_err());
    }

    #[test]
    fn the_version_of_the_programs_is_found() {
        assert_eq!(major("postgres (PostgreSQL) 15.8 (Debian 15.8-1)\n"), Some(15));
        assert_eq!((major("postgres (PostgreSQL) 19beta1"), major("nonsense")), (Some(19), None));
    }

    #[test]
    fn progress_says_rate_and_time_left() {
        let seen = Seen { phase: Phase::Writing, total: 300 << 20, done: 100 << 20, ..Seen::default() };
        assert_eq!(told(&seen, Duration::from_secs(2)), "100 of 300 MB, 50 MB/s, 4.0s left");
    }
}
