//! What the local server's configuration is made from, and keeping it so.

use std::collections::BTreeMap;

use super::{
    archiver,
    shell::Shell,
    view::{Local, View},
};
use crate::postgres::{
    PostgresError,
    conf::{self, ServerSettings},
};

impl Shell {
    /// Settings of this member as neither primary nor standby in particular.
    pub(super) fn base_settings(&self) -> ServerSettings {
        let mut parameters: BTreeMap<String, String> = self.settings.parameters.clone();
        let own = self.config.parameters.iter().filter(|(name, _)| !conf::is_controlled(name));
        parameters.extend(own.map(|(name, value)| (name.clone(), value.clone())));
        // Whoever follows the other cluster; the others have their WAL from that one.
        if let Some(cluster) = self.settings.standby_cluster.as_ref().filter(|_| self.lease_until.is_some()) {
            parameters.extend(cluster.parameters.clone());
        }
        if self.config.archive.is_some() {
            archiver::set_parameters(&mut parameters);
        }
        self.add_slot_parameters(&mut parameters);
        ServerSettings {
            listen_addresses: self.config.listen_addresses.clone(),
            port: self.config.local.port,
            cluster_name: self.config.dcs.scope.clone(),
            parameters,
            hba: self.config.pg_hba.clone().or_else(|| self.settings.pg_hba.clone()),
            ident: self.config.pg_ident.clone().or_else(|| self.settings.pg_ident.clone()),
            ..ServerSettings::default()
        }
    }

    /// Brings parameters, pg_hba.conf and pg_ident.conf of the running server up to date with the configuration.
    pub(super) async fn refresh_configuration(&mut self, view: &View) -> Result<(), PostgresError> {
        let (Local::Primary(facts) | Local::Standby(facts)) = &view.local else { return Ok(()) };
        let present = self.configured.clone().unwrap_or_else(|| ServerSettings {
            // Adopted: what is in force stays in force.
            primary_conninfo: Some(facts.primary_conninfo.clone()).filter(|c| !c.is_empty()),
            primary_slot_name: self.slot_of_adopted(view),
            synchronous_standby_names: facts.synchronous_standby_names.clone(),
            ..self.base_settings()
        });
        let base = self.base_settings();
        let wanted = ServerSettings { parameters: base.parameters, hba: base.hba, ident: base.ident, ..present };
        if self.configured.as_ref() != Some(&wanted) {
            if self.server.configure(&wanted).await? {
                self.tell_of_reload();
            }
            self.configured = Some(wanted);
        }
        Ok(())
    }
}
