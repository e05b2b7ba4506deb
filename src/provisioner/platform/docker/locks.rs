//! A cluster's lock on Docker: a volume of a name of its own, whose labels say who holds it.
//!
//! The engine has no compare-and-swap, so each contender puts its own lock down first and looks around afterwards. Of two that do so at the
//! same time at least one sees the other; whoever sees another steps back.

use std::{io, time::Duration};

use bollard::{Docker, models::Volume};
use jiff::Timestamp;

use super::{labelled_volumes, names};
use crate::{
    model::ClusterName,
    provisioner::{
        error::ProvisionError,
        lock::{HeldLock, LEASE, LockRecord},
        observe::ObjectKind,
    },
};

/// How often somebody who came at the same time as another tries again.
const ATTEMPTS: u32 = 3;

/// A lock that was found.
struct Found {
    object: String,
    record: LockRecord,
}

/// Takes the lock, or says who holds it.
pub(super) async fn acquire(docker: &Docker, cluster: &ClusterName, command: &str) -> Result<HeldLock, ProvisionError> {
    let mut attempt = 1;
    loop {
        let mine = put(docker, cluster, LockRecord::of_this_process(command, Timestamp::now())).await?;
        match live_other(docker, &mine).await? {
            None => return Ok(mine),
            Some(holder) => {
                release(docker, &mine).await?;
                if attempt == ATTEMPTS {
                    return Err(ProvisionError::Busy { cluster: cluster.clone(), holder: Box::new(holder) });
                }
            }
        }
        attempt += 1;
        tokio::time::sleep(Duration::from_millis(50 + u64::from(random::<1>()?[0]))).await;
    }
}

/// A new lock that is good for longer takes the place of the old one; in between both are there.
pub(super) async fn renew(docker: &Docker, held: &HeldLock) -> Result<HeldLock, ProvisionError> {
    let known = list(docker, &held.cluster).await?;
    if !known.iter().any(|found| found.object == held.object) {
        return Err(ProvisionError::LockLost { cluster: held.cluster.clone() });
    }
    let renewed = put(docker, &held.cluster, held.record.renewed(Timestamp::now())).await?;
    labelled_volumes::remove(docker, &held.object).await?;
    Ok(renewed)
}

/// Gives the lock back.
pub(super) async fn release(docker: &Docker, held: &HeldLock) -> Result<(), ProvisionError> {
    labelled_volumes::remove(docker, &held.object).await
}

/// Somebody else's lock that is alive. Dead ones are removed on the way.
async fn live_other(docker: &Docker, mine: &HeldLock) -> Result<Option<LockRecord>, ProvisionError> {
    let mut live = None;
    for found in list(docker, &mine.cluster).await? {
        match found.record {
            _ if found.object == mine.object => {}
            record if record.is_dead_here(Timestamp::now()) => labelled_volumes::remove(docker, &found.object).await?,
            record => live = Some(record),
        }
    }
    Ok(live)
}

async fn put(docker: &Docker, cluster: &ClusterName, record: LockRecord) -> Result<HeldLock, ProvisionError> {
    let object = names::lock(cluster, &hex::encode(random::<8>()?));
    let mut labels = names::labels(cluster, ObjectKind::Lock, None);
    labels.insert(names::LOCK.to_owned(), serde_json::to_string(&record).expect("a lock's record is plain data"));
    labelled_volumes::put(docker, &object, labels).await?;
    Ok(HeldLock { cluster: cluster.clone(), object, record })
}

async fn list(docker: &Docker, cluster: &ClusterName) -> Result<Vec<Found>, ProvisionError> {
    let found = labelled_volumes::list(docker, cluster, ObjectKind::Lock).await?.into_iter();
    Ok(found.map(|volume| Found { record: record_of(&volume), object: volume.name }).collect())
}

/// What a lock says. One that cannot be read may be of a later version of this program: it is respected for one lease.
fn record_of(volume: &Volume) -> LockRecord {
    let written = volume.labels.get(names::LOCK).and_then(|text| serde_json::from_str(text).ok());
    let since = volume.created_at.as_ref().and_then(|time| time.parse().ok()).unwrap_or(Timestamp::UNIX_EPOCH);
    written.unwrap_or_else(|| LockRecord {
        owner: "unknown".to_owned(),
        pid: 0,
        machine: String::new(),
        process_start: 0,
        command: "unknown".to_owned(),
        since,
        expires: since + LEASE,
    })
}

fn random<const N: usize>() -> Result<[u8; N], ProvisionError> {
    let mut bytes = [0; N];
    let filled = getrandom::fill(&mut bytes);
    filled.map_err(|error| ProvisionError::Local { doing: "take random bytes".to_owned(), source: io::Error::other(error) })?;
    Ok(bytes)
}
