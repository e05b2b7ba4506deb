//! `spilo backup verify [ID]`: whether backups are what was written.

use std::time::Instant;

use jiff::Timestamp;
use serde::Serialize;

use crate::{
    backup::{
        Archive, ArchiveError, BackupId,
        archived_wal::ArchivedWal,
        catalog::Catalog,
        manifest::Header,
        problem::Findings,
        verdict::{Depth, Recorded, Verdict, record},
        verify::{Look, verify},
    },
    cli::{
        CommandError, Context, ErrorKind, Exit,
        cluster_store::ClusterStoreArgs,
        inside::Inside,
        interrupt::{Interrupt, run_async},
        output::{Shown, table},
        which_archive::{WhichBackup, Whose},
    },
    model::ClusterName,
    storage::Store,
};

/// What something that is damaged ends with, as in `spilo status`.
const DAMAGED: Exit = Exit(21);

const EXAMPLES: &str = "\
Examples:
  spilo backup verify orders                       the newest: is everything there?
  spilo backup verify orders --all --deep          read every byte of every backup
  spilo backup verify --store s3://backups/pg --cluster orders --backup 20261121T204500Z-1a2b3c4d

Exit code: 0 all of it is whole, 21 something is damaged or missing, 1 the store could not be asked, 4 no such backup, or not any more.";

/// Check whether backups are whole, and the WAL there that makes them consistent
///
/// What is damaged is named, down to the pages of the database that are lost with it. The verdict is kept in the store.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Which.
    #[command(flatten)]
    which: WhichBackup,
    /// All backups
    #[arg(long, conflicts_with_all = ["id", "backup"])]
    all: bool,
    /// Read every byte and compare it with its digest, instead of only looking whether everything is there
    #[arg(long)]
    deep: bool,
    /// So many packs are read at the same time, each of which takes 32 MiB of memory
    #[arg(long, value_name = "NUMBER", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=64))]
    lanes: u8,
}

/// What was found, as data.
#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Verified(Vec<Line>);

/// One backup.
#[derive(Debug, Serialize)]
struct Line {
    id: BackupId,
    depth: Depth,
    ok: bool,
    at: Timestamp,
    seconds: f64,
    #[serde(flatten)]
    findings: Findings,
    /// Pages that were damaged in the database already when it was backed up.
    bad_pages: u64,
}

impl Shown for Verified {
    const KIND: &'static str = "BackupVerification";

    fn text(&self, _: bool) -> String {
        let rows = self.0.iter().map(|line| {
            let result = if line.ok { "whole".to_owned() } else { format!("{} problems", line.findings.count) };
            let how = if line.depth == Depth::Presence { "presence" } else { "every byte" };
            [line.id.to_string(), how.to_owned(), result, format!("{:.1}s", line.seconds)]
        });
        let mut text = table(["BACKUP", "LOOKED AT", "RESULT", "TIME"], rows);
        for line in &self.0 {
            line.findings.problems.iter().for_each(|problem| text += &format!("{}: {problem}\n", line.id));
            let unnamed = line.findings.count - line.findings.problems.len() as u64;
            if unnamed > 0 {
                text += &format!("{}: and {unnamed} more\n", line.id);
            }
            if line.bad_pages > 0 {
                text += &format!("{}: {} pages were damaged in the database already when it was backed up\n", line.id, line.bad_pages);
            }
        }
        text
    }
}

/// Looks at the backups.
pub fn run(context: &Context, args: &Args) -> Result<Exit, CommandError> {
    let place = match args.which.archive.whose()? {
        Whose::InStore(place) => place,
        Whose::OfCluster(cluster) => return run_async(|interrupt| inside(context, args, cluster, interrupt)),
    };
    let (found, failure) = run_async(|_| look(context, args, &place))?;
    // Whatever went wrong besides: what was found is told.
    context.show(&found)?;
    if let Some(failure) = failure {
        return Err(failure);
    }
    Ok(if found.0.iter().all(|line| line.ok) { Exit::OK } else { DAMAGED })
}

/// Has a node of the cluster look.
async fn inside(context: &Context, args: &Args, cluster: ClusterName, interrupt: Interrupt) -> Result<Exit, CommandError> {
    let inside = Inside::of(&cluster).await?;
    let mut more = args.which.option();
    more.push(format!("--lanes={}", args.lanes));
    more.extend(args.all.then(|| "--all".to_owned()));
    more.extend(args.deep.then(|| "--deep".to_owned()));
    let command = inside.look_into(context, &["backup", "verify"], more);
    inside.run_attached(inside.node_at_leisure()?, &command, &interrupt).await
}

/// What was found, and what failed besides.
async fn look(context: &Context, args: &Args, place: &ClusterStoreArgs) -> Result<(Verified, Option<CommandError>), CommandError> {
    let archive = place.opened(args.which.archive.system).await?;
    let catalog = Catalog::read(&archive).await.map_err(failed)?;
    let chosen = choose(&catalog, args, place)?;
    for unreadable in &catalog.unreadable {
        context.ui.warn(format_args!("'{}' cannot be read: {}", unreadable.object, unreadable.why));
    }
    let (mut lines, mut failure) = (Vec::new(), None);
    for header in chosen {
        let (line, kept) = one(context, args, &archive, header).await?;
        match kept {
            Ok(Recorded::Gone) if args.all => {
                context.ui.warn(args.which.removed_meanwhile(&header.id));
                continue;
            }
            Ok(Recorded::Gone) => return Err(args.which.removed_meanwhile(&header.id)),
            Ok(Recorded::Kept) => {}
            Err(error) => {
                failure.get_or_insert(
                    failed(error).hint("what was found is true, but nobody else will know of it: the store did not take it"),
                );
            }
        }
        lines.push(line);
    }
    // A manifest that nobody can read is a backup that nobody can restore, and may be the newest.
    if failure.is_none() && args.which.id().is_none() && !catalog.unreadable.is_empty() {
        let told = format!("{} manifests cannot be read", catalog.unreadable.len());
        failure = Some(CommandError::new(ErrorKind::Failed, told));
    }
    Ok((Verified(lines), failure))
}

fn choose<'a>(catalog: &'a Catalog, args: &Args, place: &ClusterStoreArgs) -> Result<Vec<&'a Header>, CommandError> {
    let none = |what: String| CommandError::new(ErrorKind::NotFound, what).hint(args.which.archive.command("backup list", None, ""));
    match args.which.id() {
        Some(id) => match catalog.find(id) {
            Some(header) => Ok(vec![header]),
            None => match catalog.unreadable.iter().find(|found| found.object.as_str().contains(id.as_str())) {
                Some(found) => Err(CommandError::new(ErrorKind::Failed, format!("'{}' cannot be read: {}", found.object, found.why))),
                None => Err(none(format!("there is no backup '{id}' of '{}'", place.cluster))),
            },
        },
        None if catalog.backups.is_empty() => Err(none(format!("there is no backup of '{}' that can be read", place.cluster))),
        None if args.all => Ok(catalog.backups.iter().collect()),
        None => Ok(catalog.backups.last().into_iter().collect()),
    }
}

/// What was found, and whether the store has the verdict.
async fn one(
    context: &Context,
    args: &Args,
    archive: &Archive<Store>,
    header: &Header,
) -> Result<(Line, Result<Recorded, ArchiveError>), CommandError> {
    let step = context.ui.step(format!("verifying backup {}", header.id));
    let depth = if args.deep { Depth::Read } else { Depth::Presence };
    let begun = Instant::now();
    let progress = |done: u64, total: u64| {
        let seconds = begun.elapsed().as_secs_f64().max(0.001);
        step.note(&format!("{} of {} MB, {:.0} MB/s", done >> 20, total >> 20, done as f64 / 1_048_576.0 / seconds));
    };
    let wal = ArchivedWal::read(archive, Some(header.segment_size)).await.map_err(failed)?;
    let look = Look { depth, lanes: usize::from(args.lanes), progress: &progress };
    let findings = verify(archive, header, &wal.graph, &look).await.map_err(failed)?;
    let (at, seconds) = (Timestamp::now(), begun.elapsed().as_secs_f64());
    let kept = record(archive, &header.id, Verdict::new(depth, &findings, at, seconds)).await;
    let ok = findings.is_empty();
    if ok && !matches!(kept, Ok(Recorded::Gone)) {
        step.done()
    } else {
        step.failed()
    }
    Ok((Line { id: header.id.clone(), depth, ok, at, seconds, findings, bad_pages: header.bad_page_count }, kept))
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> CommandError {
    CommandError::new(ErrorKind::Failed, error)
}
