//! `spilo wal check`: whether the archived WAL is whole.

use jiff::Timestamp;
use serde::Serialize;

use super::status::age_in_words;
use crate::{
    backup::{
        Archive, ArchiveError,
        archived_wal::{ArchivedWal, read_settled},
        catalog::Catalog,
        marks::Marks,
        wal_check::{self, Verdict, WalReport},
    },
    cli::{
        CommandError, Context, ErrorKind, Exit,
        cluster_store::ClusterStoreArgs,
        inside::Inside,
        interrupt::run_async,
        output::{Shown, table},
        which_archive::{WhichArchive, Whose},
    },
    model::{ClusterName, SystemId, WalFile},
    storage::Store,
};

/// Check whether the archived WAL is whole: exit code 20 for a fault, 21 when the newest backup cannot be recovered to the end
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Where it is.
    #[command(flatten)]
    pub archive: WhichArchive,
}

/// The report as data.
#[derive(Debug, Serialize)]
struct WalState {
    cluster: ClusterName,
    system: SystemId,
    /// The last segment of the newest timeline that has one.
    newest: Option<Newest>,
    #[serde(flatten)]
    report: WalReport,
}

/// A segment and when it was archived.
#[derive(Debug, Serialize)]
struct Newest {
    segment: String,
    archived: Option<Timestamp>,
}

impl Shown for WalState {
    const KIND: &'static str = "ArchivedWal";

    fn text(&self, wide: bool) -> String {
        let report = &self.report;
        let or_dash = |text: &Option<String>| text.clone().unwrap_or("-".to_owned());
        let rows = report.timelines.iter().map(|line| {
            let parent = line.parent.map_or("-".to_owned(), |parent| parent.to_string());
            [line.timeline.to_string(), parent, or_dash(&line.fork), or_dash(&line.first), or_dash(&line.last), line.segments.to_string()]
        });
        let mut text = table(["TIMELINE", "PARENT", "FORK", "FIRST", "LAST", "SEGMENTS"], rows);
        let mut add = |line: String| text.push_str(&format!("{line}\n"));
        if let Some(reach) = &report.reach {
            let how = if reach.cut_short { "only to" } else { "to" };
            add(format!("\nbackup {} can be recovered {how} {} on timeline {}", reach.backup, reach.end, reach.timeline));
        }
        if let Some(Newest { segment, archived: Some(archived) }) = &self.newest {
            let age = u64::try_from(Timestamp::now().duration_since(*archived).as_secs()).unwrap_or(0);
            add(format!("the newest segment, {segment}, was archived {} ago", age_in_words(age)));
        }
        report.gaps.iter().for_each(|gap| add(format!("missing: {} to {} ({} segments)", gap.first, gap.last, gap.segments)));
        report.conflicts.iter().for_each(|object| add(format!("another content came second: {object}")));
        report.unreadable.iter().for_each(|found| add(format!("unreadable: '{}': {}", found.object, found.why)));
        if wide {
            report.partials.iter().for_each(|segment| add(format!("partial: {segment}")));
        }
        text
    }
}

/// Looks at it.
pub fn run(context: &Context, args: &Args) -> Result<Exit, CommandError> {
    let place = match args.archive.whose()? {
        Whose::InStore(place) => place,
        Whose::OfCluster(cluster) => return run_async(|_| inside(context, &cluster)),
    };
    let state = run_async(|_| look(&args.archive, &place))?;
    context.show(&state)?;
    Ok(match state.report.verdict {
        Verdict::Healthy => Exit::OK,
        Verdict::Degraded => Exit(20),
        Verdict::Critical => Exit(21),
    })
}

/// Has a node of the cluster look.
async fn inside(context: &Context, cluster: &ClusterName) -> Result<Exit, CommandError> {
    let inside = Inside::of(cluster).await?;
    inside.run(&inside.look_into(context, &["wal", "check"], Vec::new())).await
}

async fn look(which: &WhichArchive, place: &ClusterStoreArgs) -> Result<WalState, CommandError> {
    let archive = place.opened(which.system).await?;
    let failed = |error| CommandError::new(ErrorKind::Failed, error);
    let catalog = Catalog::read(&archive).await.map_err(failed)?;
    let segment_size = catalog.backups.last().map(|header| header.segment_size);
    let wal = read_settled(&archive, segment_size).await.map_err(failed)?;
    let newest = newest(&archive, &wal).await.map_err(failed)?;
    let pins = Marks::read_pins(&archive).await.map_err(failed)?;
    Ok(WalState { cluster: place.cluster.clone(), system: archive.system(), newest, report: wal_check::check(&wal, &catalog, &pins) })
}

async fn newest(archive: &Archive<Store>, wal: &ArchivedWal) -> Result<Option<Newest>, ArchiveError> {
    let last = wal.graph.timelines().into_iter().rev().find_map(|timeline| timeline.last);
    let Some(segment) = last else { return Ok(None) };
    let archived = archive.store().written(&archive.object(WalFile::Segment(segment))?).await?;
    Ok(Some(Newest { segment: segment.to_string(), archived }))
}
