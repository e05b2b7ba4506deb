//! `spilo wal check`: whether the archived WAL is whole.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

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
        bytes::bytes_in_words,
        cluster_store::ClusterStoreArgs,
        inside::Inside,
        interrupt::run_async,
        output::{Shown, table},
        wal_client,
        which_archive::{WhichArchive, Whose},
    },
    model::{ClusterName, DiskForecast, SystemId, WalConflict, WalFile},
    storage::Store,
};

/// Tells a command that the leader's node runs where the data are. An earlier version does not listen.
const NODE_DATA: &str = "SPILO_NODE_DATA";

/// Where a node of a cluster has them.
const DATA: &str = "/var/lib/spilo/data";

/// How old the oldest WAL that waits may be, as for `spilo status`.
const PATIENCE: u64 = 300;

/// Check whether the archived WAL is whole: exit code 20 for a fault, 21 when the newest backup cannot be recovered to the end
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Where it is.
    #[command(flatten)]
    pub archive: WhichArchive,

    /// The data directory of the leader, on whose node this runs: how it archives is told too.
    #[arg(long, hide = true, env = NODE_DATA, hide_env = true, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
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
    /// How the leader archives; absent where it was not asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    leader: Option<Archiving>,
}

/// How a node archives, as its WAL service tells it.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all(serialize = "camelCase"))]
struct Archiving {
    waiting: Option<Waiting>,
    failing_since: Option<Timestamp>,
    last_error: Option<String>,
    free_bytes: Option<u64>,
    /// When the disk is full of what waits.
    #[serde(default)]
    disk: Option<DiskForecast>,
    /// What it cannot archive because the archive has another content.
    #[serde(default)]
    conflicts: Vec<WalConflict>,
}

/// What waits.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all(serialize = "camelCase"))]
struct Waiting {
    files: u64,
    bytes: u64,
    oldest_age_seconds: Option<u64>,
}

impl Archiving {
    /// The service of the node says.
    fn ask(data_dir: &Path) -> Result<Archiving, String> {
        let told = wal_client::state(data_dir, None)?;
        serde_json::from_str(&told).map_err(|error| format!("its WAL service is not understood: {error}"))
    }

    /// Something has to be done about how it archives.
    fn is_stuck(&self) -> bool {
        !self.conflicts.is_empty() || self.is_late()
    }

    fn is_late(&self) -> bool {
        self.waiting.as_ref().and_then(|waiting| waiting.oldest_age_seconds).is_some_and(|age| age > PATIENCE)
    }

    /// What there is to say, where it is more than "all is archived".
    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let (Some(since), Some(why)) = (self.failing_since, &self.last_error) {
            lines.push(format!("the leader cannot archive since {since}: {why}"));
        }
        for WalConflict { file, since, aside } in &self.conflicts {
            lines.push(format!(
                "conflict since {since}: '{file}' is archived with another content, and the leader's is kept as '{aside}': find the other server \
                 that archives here and stop it"
            ));
        }
        if let Some(Waiting { files, bytes, oldest_age_seconds: Some(age) }) = &self.waiting {
            let files = if *files == 1 { "1 file waits".to_owned() } else { format!("{files} files wait") };
            lines.push(format!("{files} on the leader ({}), the oldest for {}", bytes_in_words(*bytes), age_in_words(*age)));
        }
        if let Some(disk) = &self.disk {
            let (free, rate) = (bytes_in_words(disk.free_bytes), bytes_in_words(disk.bytes_per_second));
            lines.push(format!("{disk}: {free} are free, and {rate} more wait every second"));
        }
        lines
    }
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
        self.leader.iter().flat_map(Archiving::lines).for_each(&mut add);
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
    let leader = args.data_dir.as_deref().and_then(|data_dir| {
        let asked = Archiving::ask(data_dir);
        asked.inspect_err(|why| context.ui.warn(format_args!("how the leader archives is not known: {why}"))).ok()
    });
    let looked = run_async(|_| look(&args.archive, &place)).inspect_err(|_| {
        // A store that does not answer is why the leader's disk gets full.
        leader.iter().flat_map(Archiving::lines).for_each(|line| context.ui.warn(line));
    });
    let state = WalState { leader, ..looked? };
    context.show(&state)?;
    Ok(match state.report.verdict {
        Verdict::Healthy if state.leader.as_ref().is_some_and(Archiving::is_stuck) => Exit::DEGRADED,
        Verdict::Healthy => Exit::OK,
        Verdict::Degraded => Exit(20),
        Verdict::Critical => Exit(21),
    })
}

/// Has a node of the cluster look.
async fn inside(context: &Context, cluster: &ClusterName) -> Result<Exit, CommandError> {
    let inside = Inside::of(cluster).await?;
    let mut command = inside.look_into(context, &["wal", "check"], Vec::new());
    let node = inside.node()?;
    if node.member.is_some() && node.member == inside.seen.status.leader {
        // Behind `env`.
        command.insert(1, format!("{NODE_DATA}={DATA}"));
    }
    inside.run(&command).await
}

async fn look(which: &WhichArchive, place: &ClusterStoreArgs) -> Result<WalState, CommandError> {
    let archive = place.opened(which.system).await?;
    let failed = |error| CommandError::new(ErrorKind::Failed, error);
    let catalog = Catalog::read(&archive).await.map_err(failed)?;
    let segment_size = catalog.backups.last().map(|header| header.segment_size);
    let wal = read_settled(&archive, segment_size).await.map_err(failed)?;
    let newest = newest(&archive, &wal).await.map_err(failed)?;
    let pins = Marks::read_pins(&archive).await.map_err(failed)?;
    Ok(WalState {
        cluster: place.cluster.clone(),
        system: archive.system(),
        newest,
        report: wal_check::check(&wal, &catalog, &pins),
        leader: None,
    })
}

async fn newest(archive: &Archive<Store>, wal: &ArchivedWal) -> Result<Option<Newest>, ArchiveError> {
    let last = wal.graph.timelines().into_iter().rev().find_map(|timeline| timeline.last);
    let Some(segment) = last else { return Ok(None) };
    let archived = archive.store().written(&archive.object(WalFile::Segment(segment))?).await?;
    Ok(Some(Newest { segment: segment.to_string(), archived }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn archiving(more: &serde_json::Value) -> Archiving {
        let mut told = json!({"archived": 7, "waiting": {"files": 0, "bytes": 0, "oldest": null, "oldest_age_seconds": null}, "conflicts": [],
            "failing_since": null, "last_error": null, "free_bytes": 7, "growth_bytes_per_second": null, "hours_until_full": null});
        told.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(told).unwrap()
    }

    #[test]
    fn a_leader_that_archives_is_not_mentioned() {
        let well = archiving(&json!({}));
        assert!(well.lines().is_empty() && !well.is_stuck());
        assert!(archiving(&json!({"waiting": null})).lines().is_empty(), "what waits could not be seen");
    }

    #[test]
    fn a_conflict_of_the_leader_is_told_at_once() {
        let conflict = json!({"file": "000000010000000000000007", "since": "2026-11-21T20:45:00Z", "aside": "orders/conflict/7/x.zst"});
        let stuck = archiving(&json!({"conflicts": [conflict]}));
        assert!(stuck.is_stuck() && !stuck.is_late());
        assert!(stuck.lines()[0].starts_with("conflict since 2026-11-21T20:45:00Z: '000000010000000000000007' is archived with"));
        assert_eq!(serde_json::to_value(&stuck).unwrap()["conflicts"], json!([conflict]));
    }

    #[test]
    fn a_backlog_that_grows_is_told_with_the_time_that_is_left() {
        let late = archiving(&json!({
            "waiting": {"files": 7, "bytes": 7 << 24, "oldest": "x", "oldest_age_seconds": 400},
            "failing_since": "2026-11-21T20:45:00Z", "last_error": "no such bucket",
            "disk": DiskForecast::of(10 << 30, 1 << 20),
        }));
        assert!(late.is_late());
        let told = serde_json::to_value(&late).unwrap();
        assert_eq!((&told["waiting"]["oldestAgeSeconds"], &told["disk"]["secondsUntilFull"]), (&json!(400), &json!(10_240)), "{told}");
        assert_eq!(
            late.lines(),
            [
                "the leader cannot archive since 2026-11-21T20:45:00Z: no such bucket",
                "7 files wait on the leader (112 MB), the oldest for 6m",
                "at this rate the disk is full in 2 h: 10 GB are free, and 1 MB more wait every second",
            ]
        );
        let just_now = archiving(&json!({"waiting": {"files": 1, "bytes": 1 << 24, "oldest": "x", "oldest_age_seconds": 2}}));
        assert_eq!(
            (just_now.lines().join(""), just_now.is_late()),
            ("1 file waits on the leader (16 MB), the oldest for 2s".to_owned(), false)
        );
    }
}
