//! Telling the user's callbacks what has become of the local server. Nobody waits for them: one that is still running when the next is due
//! is out of date, and is ended.

use std::time::Duration;

use tokio::task::JoinHandle;

use super::{
    decide::notices::{self, Event, Told, ToldRole},
    memory::TaskEnd,
    shell::Shell,
    tasks::Tools,
    view::View,
};
use crate::{postgres::PostgresError, sys::process::Run};

/// How long the last callback may go on after everything else has ended.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// A day: no callback is meant to run that long, and none stands in anybody's way.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// How long `before_stop` may hold up a stop.
const BEFORE_STOP: Duration = Duration::from_secs(20);

/// The callbacks that run, and what was told.
#[derive(Default)]
pub(super) struct Callbacks {
    told: Told,
    running: Option<JoinHandle<()>>,
    /// A reload says nothing of the role: it neither ends another callback nor is ended by one.
    reload: Option<JoinHandle<()>>,
}

impl Drop for Callbacks {
    fn drop(&mut self) {
        for running in [self.running.take(), self.reload.take()].into_iter().flatten() {
            running.abort();
        }
    }
}

impl Shell {
    /// Runs the callback that is due, if any.
    pub(super) fn tell_callbacks(&mut self, view: &View) {
        let (due, told) = notices::due(&self.callbacks.told, view);
        self.callbacks.told = told;
        if let Some((event, role)) = due {
            self.call(event, role);
        }
    }

    /// The server was told to read its configuration again.
    pub(super) fn tell_of_reload(&mut self) {
        if let Some(role) = self.callbacks.told.role {
            self.call(Event::OnReload, role);
        }
    }

    fn call(&mut self, event: Event, role: ToldRole) {
        let Some(words) = self.config.hooks.callbacks.get(&event) else { return };
        let Some(run) = user_program(words, LONGEST) else { return };
        let run = run.args([event.name(), role.name(), &self.config.dcs.scope]);
        let name = event.name();
        let place = if event == Event::OnReload { &mut self.callbacks.reload } else { &mut self.callbacks.running };
        if let Some(outdated) = place.take().filter(|running| !running.is_finished()) {
            tracing::info!("the callback before {name} has not ended yet: ending it");
            outdated.abort();
        }
        tracing::info!("running {name} ({})", role.name());
        *place = Some(tokio::task::spawn_local(async move {
            if let Err(error) = run.lines(|line| tracing::info!("{name}: {line}")).await {
                tracing::warn!("{name}: {error}");
            }
        }));
    }

    /// Gives the last callback a moment, and ends it.
    pub(super) async fn finish_callbacks(&mut self) {
        if let Some(mut running) = self.callbacks.running.take()
            && tokio::time::timeout(LAST_WORDS, &mut running).await.is_err()
        {
            tracing::warn!("the last callback did not end within {LAST_WORDS:?}: ending it");
            running.abort();
            let _ = running.await;
        }
    }
}

impl Tools {
    /// Asks the user's program whether this member may be promoted. A no holds for `ttl`, so that somebody else has a chance.
    pub async fn pre_promote(self, ttl: Duration) -> Result<TaskEnd, PostgresError> {
        let Some(run) = self.config.hooks.pre_promote.as_ref().and_then(|words| user_program(words, ttl / 2)) else {
            return Ok(TaskEnd::MayPromote);
        };
        match run.lines(|line| tracing::info!("pre_promote: {line}")).await {
            Ok(()) => Ok(TaskEnd::MayPromote),
            Err(error) => {
                tracing::warn!("pre_promote: {error}");
                Ok(TaskEnd::MustNotPromote { back_off: ttl })
            }
        }
    }

    /// Runs the user's program that wants to know before PostgreSQL stops. Whatever becomes of it, the stop goes on.
    pub async fn before_stop(&self) {
        let Some(run) = self.config.hooks.before_stop.as_ref().and_then(|words| user_program(words, BEFORE_STOP)) else { return };
        if let Err(error) = run.lines(|line| tracing::info!("before_stop: {line}")).await {
            tracing::warn!("before_stop: {error}");
        }
    }

    /// Stops a standby in good order, after the user's program was told.
    pub async fn stop_standby(self) -> Result<TaskEnd, PostgresError> {
        self.before_stop().await;
        self.server.stop(super::guard::StopMode::Fast).await?;
        Ok(TaskEnd::Done)
    }
}

/// A program of the user's: without the variables that configure this agent, because passwords may be among them.
fn user_program(words: &[String], limit: Duration) -> Option<Run> {
    let (program, arguments) = words.split_first()?;
    Some(Run::new(program).args(arguments.to_vec()).without_env("PATRONI_").limit(limit))
}
