//! What a store has of a cluster's WAL: the listing and the histories, as a graph.

use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::{
    archive::{Archive, ArchiveError},
    catalog::Unreadable,
    wal_graph::WalGraph,
    wal_object,
};
use crate::{
    model::{HistoryLine, ObjectName, Timeline, WalFile, WalSegment, parse_history},
    postgres::wal_header::WalHeader,
    storage::{Object, ObjectStore},
};

/// How many histories are read at the same time.
const LANES: usize = 8;

/// A segment that is on its way to the store is there after this time, as a rule.
const ON_THE_WAY: Duration = Duration::from_secs(5);

/// A cluster's WAL in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchivedWal {
    /// What there is, and how it hangs together.
    pub graph: WalGraph,
    /// Histories that cannot be read, and objects whose names say nothing.
    pub unreadable: Vec<Unreadable>,
    /// Contents that came second under a name.
    pub conflicts: Vec<ObjectName>,
    /// Bytes that it takes.
    pub stored: u64,
}

impl ArchivedWal {
    /// Looks at all of it. `segment_size`: a power of two from 1 MiB on; `None`: a segment is asked. Of an empty archive it makes no
    /// difference.
    ///
    /// # Errors
    /// When the store does not say.
    pub async fn read<S: ObjectStore>(archive: &Archive<S>, segment_size: Option<u32>) -> Result<ArchivedWal, ArchiveError> {
        let objects = archive.store().list(&archive.wal()?).await?;
        ArchivedWal::of(archive, &objects, segment_size).await
    }

    /// The same, of WAL that was listed already.
    ///
    /// # Errors
    /// When the store does not say.
    pub async fn of<S: ObjectStore>(
        archive: &Archive<S>,
        objects: &[Object],
        segment_size: Option<u32>,
    ) -> Result<ArchivedWal, ArchiveError> {
        let (mut files, mut unreadable) = (Vec::new(), Vec::new());
        for object in objects {
            match object.name.last().strip_suffix(".zst").and_then(|name| name.parse::<WalFile>().ok()) {
                Some(file) => files.push(file),
                None => unreadable.push(Unreadable { object: object.name.clone(), why: "it is not named like a WAL file".to_owned() }),
            }
        }
        let histories = files.iter().filter_map(|file| if let WalFile::History(timeline) = file { Some(*timeline) } else { None });
        let histories = stream::iter(histories).map(|timeline| read_history(archive, timeline)).buffer_unordered(LANES);
        let mut known = Vec::new();
        for read in histories.try_collect::<Vec<_>>().await? {
            match read {
                Ok(history) => known.push(history),
                Err(error) => unreadable.push(error),
            }
        }
        let size = match segment_size {
            Some(size) => size,
            None => ask_segment(archive, &files, &mut unreadable).await?,
        };
        let conflicts = archive.store().list(&archive.conflicts()?).await?;
        Ok(ArchivedWal {
            graph: WalGraph::new(size, files, known),
            unreadable,
            conflicts: conflicts.into_iter().map(|object| object.name).collect(),
            stored: objects.iter().map(|Object { size, .. }| size).sum(),
        })
    }
}

/// Looks at all of it as [`ArchivedWal::read`] does, and once more where segments are missing that may be on their way: several are archived
/// at a time, and which of them is there first is chance. What is found is what the first look saw, without what had come by the second.
///
/// # Errors
/// When the store does not say.
pub async fn read_settled<S: ObjectStore>(archive: &Archive<S>, segment_size: Option<u32>) -> Result<ArchivedWal, ArchiveError> {
    let wal = ArchivedWal::read(archive, segment_size).await?;
    if !wal.graph.is_unsettled() {
        return Ok(wal);
    }
    tokio::time::sleep(ON_THE_WAY).await;
    let later = ArchivedWal::read(archive, segment_size).await?;
    Ok(ArchivedWal { graph: wal.graph.filled(&later.graph), ..wal })
}

/// What one history says, or what is wrong with it.
type History = Result<(Timeline, Vec<HistoryLine>), Unreadable>;

async fn read_history<S: ObjectStore>(archive: &Archive<S>, timeline: Timeline) -> Result<History, ArchiveError> {
    let (object, content) = read_listed(archive, WalFile::History(timeline)).await?;
    let lines = content.and_then(|text| {
        let text = String::from_utf8(text).map_err(|_| "it is no text".to_owned())?;
        parse_history(&text).ok_or_else(|| "it is no history of a timeline".to_owned())
    });
    Ok(lines.map(|lines| (timeline, lines)).map_err(|why| Unreadable { object, why }))
}

/// The content of what was listed, or what is wrong with it.
async fn read_listed<S: ObjectStore>(archive: &Archive<S>, file: WalFile) -> Result<(ObjectName, Result<Vec<u8>, String>), ArchiveError> {
    let object = archive.object(file)?;
    let content = match archive.store().read(&object).await {
        Ok(Some(packed)) => wal_object::unpack(&packed),
        Ok(None) => Err("it was listed and is gone".to_owned()),
        Err(ArchiveError::Damaged { why, .. }) => Err(why),
        Err(error) => return Err(error),
    };
    Ok((object, content))
}

/// The size that a segment says its kind has. PostgreSQL's default where there is none to ask.
async fn ask_segment<S: ObjectStore>(
    archive: &Archive<S>,
    files: &[WalFile],
    unreadable: &mut Vec<Unreadable>,
) -> Result<u32, ArchiveError> {
    const DEFAULT: u32 = 16 << 20;
    let newest: Option<WalSegment> =
        files.iter().filter_map(|file| if let WalFile::Segment(name) = file { Some(*name) } else { None }).max();
    let Some(segment) = newest else { return Ok(DEFAULT) };
    let (object, content) = read_listed(archive, WalFile::Segment(segment)).await?;
    let size = content.and_then(|content| match WalHeader::mistake(&content, segment, archive.system()) {
        Some(why) => Err(why),
        None => Ok(WalHeader::read(&content).map_or(DEFAULT, |header| header.segment_size)),
    });
    Ok(size.unwrap_or_else(|why| {
        unreadable.push(Unreadable { object, why });
        DEFAULT
    }))
}
