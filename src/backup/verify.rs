//! Whether a base backup is what was written, and whether the WAL that it needs is there. What is wrong is named, down to the pages of the
//! database that are lost with it. A store that does not answer is an error and no finding.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    BackupId,
    archive::{Archive, ArchiveError},
    manifest::{Header, Pack},
    problem::{Findings, Problem},
    spooled_manifest::SpooledManifest,
    verdict::Depth,
    verify_packs::{PackReader, Whole, unlooked},
    wal_graph::WalGraph,
    wal_object,
};
use crate::{
    model::{ObjectName, WalFile, WalSegment},
    postgres::wal_header::WalHeader,
    storage::ObjectStore,
};

/// How a backup is looked at.
pub struct Look<'a> {
    /// [`Depth::Restored`] needs a server, and is as [`Depth::Read`] here.
    pub depth: Depth,
    /// So many packs are read and checked at the same time. Each takes 32 MiB.
    pub lanes: usize,
    /// Told how many bytes of how many were read.
    pub progress: &'a dyn Fn(u64, u64),
}

/// Looks at a backup. `wal` is what the archive has now.
///
/// # Errors
/// When the store does not answer.
pub async fn verify<S: ObjectStore>(
    archive: &Archive<S>,
    header: &Header,
    wal: &WalGraph,
    look: &Look<'_>,
) -> Result<Findings, ArchiveError> {
    let segments = segments(header, wal);
    let packs = PackStates::list(archive, header).await?;
    let object = archive.manifest(&header.id)?;
    let mut findings = Findings::default();
    if let Err(why) = &segments {
        findings.add(Problem::new(&object, why.clone()));
    }
    if look.depth == Depth::Presence && packs.all_whole() {
        return Ok(findings);
    }
    let mut manifest = match SpooledManifest::read(archive, &header.id).await {
        Ok(Some(manifest)) => manifest,
        Ok(None) => return Ok(Problem::new(&object, "it is missing").into()),
        Err(ArchiveError::Damaged { object, why }) => return Ok(Problem::new(&object, why).into()),
        Err(error) => return Err(error),
    };
    let segments = segments.unwrap_or_default();
    let total = header.packs.iter().map(|pack| pack.size).sum::<u64>() + segments.len() as u64 * u64::from(header.segment_size);
    let reader = PackReader::new(archive, &packs, look, total);
    findings.append(reader.read(&mut manifest).await?);
    if look.depth > Depth::Presence {
        for segment in segments {
            if let Some(problem) = wal_problem(archive, header, segment).await? {
                findings.add(problem);
            }
            reader.advance(u64::from(header.segment_size));
        }
    }
    Ok(findings)
}

/// The WAL that makes the backup consistent: from its start to its stop, along a way that leads on from there.
fn segments(header: &Header, wal: &WalGraph) -> Result<Vec<WalSegment>, String> {
    let (start, stop) = (&header.start, &header.stop);
    // Its own timeline may have been left in the segment in which it stops: then the next timeline's has what it needs of that.
    let ways = [stop.timeline, wal.newest_from(stop.timeline, stop.lsn)];
    let mut mistake = String::new();
    for timeline in ways {
        let path = match wal.path(timeline) {
            Ok(path) if path.contains(start.timeline, start.lsn) => path,
            Ok(_) => {
                mistake = format!("no history in the archive leads from timeline {}, on which it starts, to {timeline}", start.timeline);
                continue;
            }
            Err(error) => {
                mistake = error.to_string();
                continue;
            }
        };
        match wal.missing(&path, start.lsn, stop.lsn).as_slice() {
            [] => return Ok(wal.needed(&path, start.lsn, stop.lsn).collect()),
            [first, rest @ ..] if mistake.is_empty() => {
                let more = if rest.is_empty() { String::new() } else { format!(", and {} more stretches", rest.len()) };
                mistake = format!("WAL that it needs to become consistent is missing from the archive: {first}{more}");
            }
            _ => {}
        }
    }
    Err(mistake)
}

/// What is wrong with this segment, read whole, and a second time if something is: the way from the store may be what is damaged.
async fn wal_problem<S: ObjectStore>(archive: &Archive<S>, header: &Header, segment: WalSegment) -> Result<Option<Problem>, ArchiveError> {
    let object = archive.object(WalFile::Segment(segment))?;
    let (system, size) = (archive.system(), header.segment_size as usize);
    let mut problem = None;
    for _ in 0..2 {
        let packed = match archive.store().read(&object).await {
            Ok(Some(packed)) => packed,
            Ok(None) => return Ok(Some(Problem::new(&object, "it is missing, and the backup needs it to become consistent"))),
            Err(ArchiveError::Damaged { why, .. }) => {
                problem = Some(Problem::new(&object, why));
                continue;
            }
            Err(error) => return Err(error),
        };
        let look = move || match wal_object::unpack(&packed) {
            Err(why) => Some(why),
            Ok(content) if content.len() != size => Some(format!("it has {} bytes instead of {size}", content.len())),
            Ok(content) => WalHeader::mistake(&content, segment, system),
        };
        match tokio::task::spawn_blocking(look).await.map_err(|error| unlooked(&object, &error))? {
            None => return Ok(None),
            Some(why) => problem = Some(Problem::new(&object, why)),
        }
    }
    Ok(problem)
}

/// Which packs of a backup are there, as long as they should be.
pub struct PackStates {
    /// In the order of [`Header::packs`].
    states: Vec<Whole>,
}

impl PackStates {
    /// Lists them: one listing for each backup that has stored some.
    async fn list<S: ObjectStore>(archive: &Archive<S>, header: &Header) -> Result<PackStates, ArchiveError> {
        let owners: BTreeSet<&BackupId> = header.packs.iter().map(|pack| &pack.backup).collect();
        let mut sizes: BTreeMap<ObjectName, u64> = BTreeMap::new();
        for owner in owners {
            let objects = archive.store().list(&archive.packs(owner)?).await?;
            sizes.extend(objects.into_iter().map(|object| (object.name, object.size)));
        }
        let state = |pack: &Pack| {
            let found = sizes.get(&archive.pack(&pack.backup, pack.number)?);
            Ok(match found {
                None => Err("it is missing".to_owned()),
                Some(size) if *size != pack.size => Err(format!("it has {size} bytes instead of {}", pack.size)),
                Some(_) => Ok(()),
            })
        };
        Ok(PackStates { states: header.packs.iter().map(state).collect::<Result<_, ArchiveError>>()? })
    }

    fn all_whole(&self) -> bool {
        self.states.iter().all(Result::is_ok)
    }

    /// What is known of this one.
    pub fn state(&self, pack: u32) -> Whole {
        usize::try_from(pack).ok().and_then(|pack| self.states.get(pack).cloned()).unwrap_or(Ok(()))
    }
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
