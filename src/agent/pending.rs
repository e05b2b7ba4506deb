//! Parameters that wait for a restart: noticed, shown, and taken in an order in which no standby stops replaying.

use std::{collections::BTreeMap, time::Duration};

use super::{
    shell::Shell,
    view::{Local, ServerFacts},
    wish::Pending,
};
use crate::{
    dcs::snapshot::MemberRole,
    postgres::{PostgresError, conf::ServerSettings, limits, sql::WaitingParameter},
    spec::settings::flag,
    sys::clock::Moment,
};

/// When to look after a change: at once, when a reload has most likely arrived, and once more.
const LOOKS: [Duration; 3] = [Duration::ZERO, Duration::from_millis(300), Duration::from_secs(2)];
/// When to look without a change: somebody may have used `ALTER SYSTEM`.
const PATROL: Duration = Duration::from_secs(30);

/// What is known of the parameters that wait.
#[derive(Default)]
pub(super) struct Waiting {
    /// Them.
    pub(super) parameters: BTreeMap<String, Pending>,
    /// Replay is paused because this standby has less of something than its primary.
    pub(super) blocks_replay: bool,
    /// For which server and which configuration this is known.
    known_for: Option<(String, BTreeMap<String, String>)>,
    changed: Option<Moment>,
    looked: Option<Moment>,
}

impl Waiting {
    /// When to look next.
    fn due(&self) -> Moment {
        let (Some(changed), Some(looked)) = (self.changed, self.looked) else { return Moment(0) };
        LOOKS.into_iter().map(|after| changed + after).find(|at| *at > looked).unwrap_or(looked + PATROL)
    }

    /// How long until the next look, while there is a server to look at.
    pub(super) fn until_look(&self, now: Moment) -> Option<Duration> {
        self.known_for.as_ref().map(|_| self.due().since(now)).filter(|left| !left.is_zero())
    }

    fn is_due(&mut self, server: &ServerFacts, wanted: &ServerSettings, now: Moment) -> bool {
        let known =
            self.known_for.as_ref().is_some_and(|(started, parameters)| *started == server.started && *parameters == wanted.parameters);
        if !known {
            self.known_for = Some((server.started.clone(), wanted.parameters.clone()));
            self.changed = Some(now);
        }
        !known || self.due() <= now
    }
}

impl Shell {
    /// Notices which parameters wait for a restart. A server that does not answer keeps what was known.
    pub(super) async fn look_for_waiting_parameters(&mut self, local: &Local) {
        let (Local::Primary(server) | Local::Standby(server)) = local else {
            self.waiting = Waiting::default();
            return;
        };
        let (wanted, now) = (self.base_settings(), Moment::now());
        if !self.waiting.is_due(server, &wanted, now) {
            return;
        }
        match self.find_waiting(server, &wanted).await {
            Ok((parameters, blocks_replay)) => {
                (self.waiting.parameters, self.waiting.blocks_replay) = (parameters, blocks_replay);
                self.waiting.looked = Some(now);
            }
            Err(error) => tracing::debug!("parameters that wait for a restart cannot be read: {error}"),
        }
    }

    async fn find_waiting(
        &self,
        server: &ServerFacts,
        wanted: &ServerSettings,
    ) -> Result<(BTreeMap<String, Pending>, bool), PostgresError> {
        let controlled = wanted.controlled();
        let names: Vec<&str> = controlled.keys().copied().collect();
        let shown = self.server.session().await?.waiting_parameters(&names).await?;
        let in_force: BTreeMap<String, String> = shown.iter().map(|p| (p.name.clone(), p.in_force.clone())).collect();
        let blocks = server.in_recovery
            && server.replay_paused
            && limits::blocks_replay(&in_force, &limits::recorded(&self.config.installation).await?);
        Ok((compared(&controlled, shown), blocks))
    }

    /// The settings with which the server can be started without any standby having less than its primary.
    pub(super) async fn with_limits(&self, mut settings: ServerSettings, standby: bool) -> Result<ServerSettings, PostgresError> {
        let recorded = limits::recorded(&self.config.installation).await?;
        let others = || self.cluster.members.iter().filter(|(name, _)| **name != self.config.name).map(|(_, data)| data);
        let is_short = |name: &str| others().any(|data| data.role != MemberRole::Primary && data.waits_for_restart(name));
        let kept = limits::for_start(&settings.controlled(), &recorded, standby, is_short);
        for (name, value) in &kept {
            let whom = if standby { "the primary still has as much" } else { "a standby has not got the new value yet" };
            tracing::info!("starting with {name} = {value}: {whom}");
        }
        settings.parameters.extend(kept);
        Ok(settings)
    }
}

/// What differs between the server and what is wanted of it.
fn compared(controlled: &BTreeMap<&str, String>, shown: Vec<WaitingParameter>) -> BTreeMap<String, Pending> {
    let waits = |parameter: WaitingParameter| {
        let WaitingParameter { name, in_force, waits, in_file } = parameter;
        match controlled.get(name.as_str()) {
            // On the command line: the file says nothing of it.
            Some(wanted) => (!means_the_same(&in_force, wanted)).then(|| (name, Pending { old: in_force, new: wanted.clone() })),
            None => waits.then_some((name, Pending { old: in_force, new: in_file })),
        }
    };
    shown.into_iter().filter_map(waits).collect()
}

fn means_the_same(one: &str, other: &str) -> bool {
    let plain = |text: &str| {
        let text = text.trim().to_lowercase();
        let switch = flag(&serde_json::Value::String(text.clone())).filter(|_| text.parse::<u64>().is_err());
        match (switch, text.as_str()) {
            (Some(on), _) => if on { "on" } else { "off" }.to_owned(),
            (None, "hot_standby" | "archive") => "replica".to_owned(),
            (None, _) => text,
        }
    };
    plain(one) == plain(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(name: &str, in_force: &str, waits: bool) -> WaitingParameter {
        WaitingParameter { name: name.into(), in_force: in_force.into(), waits, in_file: "16MB".into() }
    }

    #[test]
    fn what_the_command_line_holds_waits_when_another_value_is_wanted() {
        let wanted = BTreeMap::from([
            ("max_connections", "80".to_owned()),
            ("wal_level", "hot_standby".to_owned()),
            ("track_commit_timestamp", "FALSE".to_owned()),
            ("max_prepared_transactions", "1".to_owned()),
        ]);
        let found = compared(
            &wanted,
            vec![
                shown("max_connections", "50", false),
                shown("wal_level", "replica", true),
                shown("track_commit_timestamp", "off", false),
                shown("max_prepared_transactions", "1", false),
                shown("shared_buffers", "8MB", true),
            ],
        );
        let waits = |old: &str, new: &str| Pending { old: old.into(), new: new.into() };
        let expected = [("max_connections".to_owned(), waits("50", "80")), ("shared_buffers".to_owned(), waits("8MB", "16MB"))];
        assert_eq!(found, BTreeMap::from(expected));
    }

    #[test]
    fn after_a_change_it_is_looked_again_until_the_reload_has_arrived() {
        let start = Moment(1_000_000_000);
        let mut waiting = Waiting { changed: Some(start), looked: Some(start), ..Waiting::default() };
        assert_eq!(waiting.due(), start + LOOKS[1]);
        waiting.looked = Some(start + LOOKS[1]);
        assert_eq!(waiting.due(), start + LOOKS[2]);
        waiting.looked = Some(start + LOOKS[2]);
        assert_eq!(waiting.due(), start + LOOKS[2] + PATROL);
    }
}
