//! What is done with WAL that only this member has, before coming back behind the leader discards it.

use jiff::Timestamp;

use super::{tasks::Tools, view::StoppedData};
use crate::{
    model::MemberName,
    postgres::{
        archive::archive_waiting,
        diverged_wal::{self, Kept},
        rewind::{self, Origin},
    },
};

impl Tools {
    /// Archives what still waits for it, then copies aside what has diverged. Neither keeps the member from coming back: in quorum mode no
    /// acknowledged commit is among it, and a member that stays away is a copy less.
    pub(super) async fn keep_what_diverged(&self, data: &StoppedData, origin: &Origin, leader: &str, archive: Option<&str>) {
        if data.half_rewound {
            // It was kept before the rewind began; what is here now is a mixture.
            return;
        }
        let installation = self.config.installation.clone();
        if let Some(command) = archive {
            match archive_waiting(&installation.data_dir, command).await {
                Ok(0) => {}
                Ok(count) => tracing::info!("archived {count} files that were still waiting for it"),
                Err(error) => tracing::warn!("WAL that waits to be archived is only copied aside: {error}"),
            }
        }
        let parting = rewind::parting(data.control.timeline(), data.past.as_deref(), origin);
        let story = story(data, origin, leader, &self.config.name, parting);
        let kept = tokio::task::spawn_blocking(move || diverged_wal::keep(&installation, parting, &story)).await;
        match kept {
            Ok(Ok(Kept::Nothing)) => {}
            Ok(Ok(Kept::In(place))) => tracing::warn!("WAL that '{leader}' does not have was copied to '{}'", place.display()),
            Ok(Ok(Kept::NoRoom { needs, free })) => {
                tracing::warn!("WAL that '{leader}' does not have is lost: copying it aside takes {needs} bytes, and {free} are free");
            }
            Ok(Err(error)) => tracing::warn!("WAL that '{leader}' does not have could not be copied aside: {error}"),
            Err(error) => tracing::warn!("WAL that '{leader}' does not have could not be copied aside: {error}"),
        }
    }
}

fn story(data: &StoppedData, origin: &Origin, leader: &str, me: &MemberName, parting: rewind::Parting) -> String {
    format!(
        "WAL of '{me}' that its leader '{leader}' does not have, and that '{me}' gave up to follow it.\n\n\
         written:            {}\n\
         system identifier:  {}\n\
         parted:             on timeline {} at {} at the latest\n\
         was on:             timeline {}, last checkpoint at {}\n\
         leader is on:       timeline {}\n\n\
         pg_waldump shows what is in the segments. The newest few such directories are kept; this one may be removed at any time.\n",
        Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ"),
        data.control.system_id,
        parting.timeline,
        parting.position,
        data.control.timeline(),
        data.control.checkpoint,
        origin.timeline,
    )
}
