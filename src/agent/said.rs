//! What the log has been told, so that it is told once.

use super::{reason::Reason, shell::Shell, view::Task};
use crate::{dcs::DcsError, postgres::PostgresError};

impl Shell {
    /// Logs a reason when it is a new one.
    pub(super) fn say(&mut self, reason: &Reason) {
        if self.said.as_ref() != Some(reason) {
            tracing::info!("{reason}");
            self.said = Some(reason.clone());
        }
    }

    /// Logs that a task failed: once, while it is tried again and fails in the same way.
    pub(super) fn say_failure(&mut self, kind: Task, error: &PostgresError) {
        let failure = (kind, error.to_string());
        if self.failure.as_ref() != Some(&failure) {
            tracing::warn!("{kind:?} failed: {error}");
            self.failure = Some(failure);
        }
    }

    /// Logs trouble with the DCS once, until it is another or gone.
    pub(super) fn complain(&mut self, error: &DcsError) {
        let text = error.to_string();
        if self.complaint.as_ref() != Some(&text) {
            tracing::warn!("{text}");
            self.complaint = Some(text);
        }
    }
}
