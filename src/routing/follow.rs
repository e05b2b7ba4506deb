//! The router: follows the DCS and keeps haproxy in line with it, as the first process of its container.

use std::{path::Path, pin::pin, time::Duration};

use tokio::{
    select,
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use super::{Haproxy, Machine, RouterConfig, Routes, RoutingError, roster::Roster};
use crate::{
    dcs::{Dcs, Etcd},
    sys::clock::Moment,
};

/// Time for one reading of the DCS.
const BUDGET: Duration = Duration::from_secs(3);
/// The DCS is read this often although its watch says nothing.
const TICK: Duration = Duration::from_secs(2);
/// Pause before haproxy is started again; doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// What lived this long did not fail for the reason it failed before.
const SETTLED: Duration = Duration::from_secs(30);

/// Runs the router until it is told to stop.
pub fn run(path: &Path) -> Result<(), RoutingError> {
    let config = RouterConfig::read(path)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(RoutingError::Setup)?;
    runtime.block_on(serve(config))
}

async fn serve(config: RouterConfig) -> Result<(), RoutingError> {
    let listen = |kind| signal(kind).map_err(RoutingError::Setup);
    let (mut terminated, mut interrupted) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let mut children = listen(SignalKind::child())?;
    let etcd = Etcd::connect(&config.dcs, BUDGET).await.map_err(RoutingError::Dcs)?;
    let mut haproxy = Haproxy::new("haproxy", config, Machine::observe());
    // A haproxy that cannot even start for the first time is a matter for whoever made this container.
    haproxy.start().await?;
    let (sender, routes) = watch::channel(None);
    select! {
        () = follow(&etcd, &sender) => {}
        () = keep(&mut haproxy, routes, &mut children) => {}
        _ = terminated.recv() => tracing::info!("told to stop"),
        _ = interrupted.recv() => tracing::info!("interrupted"),
    }
    haproxy.stop().await;
    Ok(())
}

/// Reads the DCS whenever it changes. While it does not answer, the last routes stay.
async fn follow(dcs: &impl Dcs, routes: &watch::Sender<Option<Routes>>) {
    let mut roster = Roster::default();
    let mut reachable = None;
    let mut changed = pin!(dcs.changed());
    loop {
        let read = dcs.snapshot().await;
        if reachable != Some(read.is_ok()) {
            match &read {
                Ok(_) => tracing::info!("the DCS answers"),
                Err(error) => tracing::warn!(%error, "the DCS does not answer: the last known routes stay"),
            }
            reachable = Some(read.is_ok());
        }
        if let Ok(snapshot) = read {
            let now = roster.update(&snapshot, Moment::now());
            routes.send_replace(Some(now));
        }
        select! {
            () = &mut changed => changed.set(dcs.changed()),
            () = sleep(TICK) => {}
        }
    }
}

/// Keeps haproxy running and in line with the routes.
async fn keep(haproxy: &mut Haproxy, mut routes: watch::Receiver<Option<Routes>>, children: &mut Signal) {
    let mut pause = FIRST_PAUSE;
    let mut started = Instant::now();
    loop {
        select! {
            _ = children.recv() => drop(haproxy.reap()),
            Ok(()) = routes.changed() => {
                let Some(wanted) = routes.borrow_and_update().clone() else { continue };
                tracing::debug!(?wanted, "routes");
                if let Err(error) = haproxy.apply(wanted).await {
                    tracing::error!(%error, "haproxy is not in line with the DCS: trying again");
                }
            }
            // What is not in line yet is applied again with the next reading; a haproxy that is gone must not wait for that.
            () = sleep_until(started + pause), if !haproxy.is_running() => {
                pause = if started.elapsed() > SETTLED { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
                started = Instant::now();
                if let Err(error) = haproxy.start().await {
                    tracing::error!(%error, "haproxy does not start: trying again");
                }
            }
        }
    }
}
