//! Whether the parameters that the agent leads by are in force as it wrote them.

use std::time::Duration;

use super::{
    shell::Shell,
    view::{Local, View},
};
use crate::{postgres::PostgresError, sys::clock::Moment};

/// A reload that has not reached the server by then is not on its way.
const PATIENCE: Duration = Duration::from_secs(1);

impl Shell {
    /// A standby that follows somebody else than it was told to is of no use to the one it is counted on by. (Of a primary, the decisions see
    /// for themselves whom commits wait for.)
    pub(super) async fn enforce_conninfo(&mut self, view: &View) -> Result<(), PostgresError> {
        let (Local::Standby(facts), Some(configured)) = (&view.local, &self.configured) else {
            self.deviates_since = None;
            return Ok(());
        };
        if facts.primary_conninfo == configured.primary_conninfo.as_deref().unwrap_or_default() {
            self.deviates_since = None;
            return Ok(());
        }
        let since = *self.deviates_since.get_or_insert(view.now);
        if Moment::now().since(since) > PATIENCE {
            self.deviates_since = None;
            self.server.enforce("primary_conninfo").await?;
        }
        Ok(())
    }
}
