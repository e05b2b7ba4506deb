//! Waiting until a cluster is healthy.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::{
    CommandError, Context, ErrorKind,
    interrupt::{Interrupt, interrupted},
    look::{Look, look},
    status::Health,
    ui::in_words,
};
use crate::{model::ClusterName, provisioner::Platform};

/// How long to wait when the user does not say.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(120);

/// The same for a cluster that begins with a backup, which may be large.
const LONGEST_RESTORE: Duration = Duration::from_secs(6 * 3600);

/// Pause between two looks: short against the seconds that a bootstrap takes, long against the cost of a probe.
const PAUSE: Duration = Duration::from_millis(200);

/// Waits until the cluster is healthy. As soon as it has data that is recorded with it, so that no node made later starts a new
/// cluster beside the data that exists from then on.
pub async fn wait_until_healthy<P: Platform>(
    context: &Context,
    interrupt: &Interrupt,
    platform: &P,
    cluster: &ClusterName,
) -> Result<Look, CommandError> {
    let begun = Instant::now();
    let step = context.ui.step("wait until healthy");
    let mut recorded = false;
    let mut timeout = None;
    loop {
        let seen = look(platform, cluster).await?;
        let is_restored = seen.stored.spec.clone_of.is_some() && !seen.stored.initialized;
        let timeout = *timeout.get_or_insert(context.timeout_or(if is_restored { LONGEST_RESTORE } else { DEFAULT_TIMEOUT }));
        if seen.system.is_some() && !seen.stored.initialized && !recorded {
            platform.record_initialized(cluster).await?;
            recorded = true;
        }
        if seen.status.health == Health::Healthy {
            step.done();
            return Ok(seen);
        }
        step.note(&seen.status.reason);
        if begun.elapsed() >= timeout {
            step.failed();
            return Err(timed_out(cluster, timeout, &seen));
        }
        tokio::select! {
            () = sleep(PAUSE) => {}
            () = interrupt.requested() => return Err(interrupted()),
        }
    }
}

fn timed_out(cluster: &ClusterName, timeout: Duration, seen: &Look) -> CommandError {
    let message = format!("cluster '{cluster}' is {} after {}: {}", seen.status.health.as_str(), in_words(timeout), seen.status.reason);
    CommandError::new(ErrorKind::TimedOut, message)
        .hint(format!("it goes on by itself: spilo status {cluster} -w"))
        .hint(format!("what the nodes say: spilo logs {cluster}"))
}
