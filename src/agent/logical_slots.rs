//! What a member's server needs so that logical slots survive a failover: PostgreSQL 17 and later take them over from the primary, by a worker on
//! each standby that asks it over SQL.

use std::collections::BTreeMap;

use super::{
    shell::Shell,
    view::{Local, View},
};
use crate::{
    api::NodeStatus,
    dcs::tags,
    spec::slots::{self, FAILOVER_SLOTS},
};

/// The slots of standbys that readers of logical slots wait for. Who waits for a slot of its own would wait for ever.
const WAITED_FOR: &str = "synchronized_standby_slots";

impl Shell {
    /// Notes what the running server can do; what it could, when it does not answer.
    pub(super) fn note_decoding(&mut self, local: &Local) {
        self.decodes = match local {
            Local::Primary(facts) | Local::Standby(facts) => Some(facts.decodes),
            Local::Silent { .. } => self.decodes,
            Local::Empty | Local::Unusable { .. } | Local::Stopped(_) => None,
        };
    }

    /// The configuration asks for logical slots, and this PostgreSQL can keep them.
    pub(super) fn keeps_logical_slots(&self) -> bool {
        let settings = &self.settings;
        let can = self.major().is_some_and(|major| major >= FAILOVER_SLOTS) && settings.use_slots && settings.standby_cluster.is_none();
        can && !settings.logical_slots.is_empty()
    }

    fn major(&self) -> Option<u32> {
        self.major_version.as_deref()?.parse().ok()
    }

    /// Adds to the parameters what taking over slots needs. The worker is not asked for before `wal_level` lets it run: the postmaster itself would
    /// end for that.
    pub(super) fn add_slot_parameters(&self, parameters: &mut BTreeMap<String, String>) {
        if let Some(list) = parameters.get_mut(WAITED_FOR) {
            *list = without(list, &self.config.name.slot_name());
        }
        if !self.keeps_logical_slots() {
            return;
        }
        parameters.insert("hot_standby_feedback".to_owned(), "on".to_owned());
        let decodes = self.decodes.unwrap_or_else(|| parameters.get("wal_level").is_some_and(|level| level == "logical"));
        // A standby of a standby cannot: its upstream has no slots to give.
        let from_primary = tags::replicatefrom(&self.config.tags).is_none() && !tags::nostream(&self.config.tags);
        if decodes && from_primary {
            parameters.insert("sync_replication_slots".to_owned(), "on".to_owned());
        }
    }

    /// Says which slots are not kept, to whoever wrote them past the REST API.
    pub(super) fn warn_of_slots(&self) {
        let (Some(config), Some(major)) = (&self.cluster.config, self.major()) else { return };
        if self.last_config.last() == Some(config) {
            return;
        }
        let found = slots::too_old(config, major).into_iter().chain(slots::conditions(config));
        found.for_each(|mistake| tracing::warn!("this slot is not kept: {mistake}"));
    }
}

/// What an operator has to see to: slots that did not survive, and why they are not made anew.
pub(super) fn trouble(view: &View) -> Option<String> {
    let lost: Vec<String> = super::decide::lost_slots(view).into_iter().map(|(name, at)| format!("'{name}' (last at {at})")).collect();
    let anew =
        "made anew, they would hide what their consumers have missed: create them by hand, or take them out of 'slots' and put them back";
    (!lost.is_empty()).then(|| format!("logical slots that did not survive a failover: {}; {anew}", lost.join(", ")))
}

/// The status with that trouble, if there is no other.
pub(super) fn with_trouble(status: NodeStatus, view: &View) -> NodeStatus {
    let trouble = status.trouble.clone().or_else(|| trouble(view));
    NodeStatus { trouble, ..status }
}

/// The list of names without this one.
fn without(list: &str, own: &str) -> String {
    let others: Vec<&str> = list.split(',').map(str::trim).filter(|name| !name.is_empty() && name.trim_matches('"') != own).collect();
    others.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_for_a_slot_of_its_own() {
        assert_eq!(without("orders_1, orders_2,\"orders_3\"", "orders_2"), "orders_1,\"orders_3\"");
        assert_eq!(without("orders_1", "orders_1"), "");
    }
}
