//! Data that this agent does not lead with come up read-only, whoever starts them: a service manager, or somebody by hand.

use super::{
    shell::Shell,
    view::{Local, Lock, View},
};
use crate::{
    dcs::snapshot::Initialize,
    postgres::{bootstrap, conf},
};

impl Shell {
    /// Marks stopped data as a standby's, unless the leader key is ours: then they are about to be started as a primary again. Data that are
    /// not known to be this cluster's are nobody's to mark.
    pub(super) fn keep_read_only(&self, view: &View) {
        let ours = matches!(view.lock, Lock::Mine { .. } | Lock::Unknown { until: Some(_) });
        let Local::Stopped(data) = &view.local else { return };
        let known = view.cluster.initialize == Initialize::Done(data.control.system_id);
        if known && !ours && !data.standby_signal && view.task.is_none() && !view.memory.unrecorded_bootstrap {
            self.mark_read_only();
        }
    }

    /// The same, where nothing runs any more.
    pub(super) fn mark_read_only(&self) {
        let installation = &self.config.installation;
        if bootstrap::unrecorded_mark(installation).exists() || !installation.data_dir.join("PG_VERSION").exists() {
            return;
        }
        if let Err(error) = conf::set_standby_signal(&installation.data_dir, true) {
            tracing::warn!("started by hand, this server would accept writes: {error}");
        }
    }
}
