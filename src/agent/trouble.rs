//! What keeps the server from working although its data are good.

use super::{shell::Shell, view::Local};
use crate::{
    postgres::{conf, start_check},
    sys::files,
};

impl Shell {
    /// Looks how much room there is, and why the last start failed.
    pub(super) async fn look_for_trouble(&mut self, local: &Local) {
        let data = &self.config.installation.data_dir;
        // pg_wal may lie on a disk of its own. A directory that is not there yet has its parent's room.
        let places = [data.join("pg_wal"), data.clone()];
        let room = places.iter().filter_map(|place| files::free_space(place).ok()).min();
        let room = room.or_else(|| files::free_space(data.parent()?).ok());
        let before = self.memory.trouble();
        if let Some(free) = room {
            self.memory.room_is(free);
        }
        if matches!(local, Local::Stopped(_)) && self.task.is_none() && self.memory.has_to_look_into_start() {
            let standby = conf::has_standby_signal(data);
            // What cannot be read does not count: it is the data that are to blame then.
            if let Ok(settings) = self.with_limits(self.base_settings(), standby).await {
                let fault = start_check::fault(&self.config.installation, &settings).await;
                self.memory.start_looked_into(fault);
            }
        }
        match self.memory.trouble() {
            Some(trouble) if before.as_ref() != Some(&trouble) => tracing::error!("PostgreSQL is in trouble: {trouble}"),
            None if before.is_some() => tracing::info!("what was wrong is over"),
            _ => {}
        }
    }
}
