//! The router: follows the DCS and keeps haproxy in line with it, as the first process of its container.

use std::{cell::RefCell, path::Path, pin::pin, time::Duration};

use tokio::{
    select,
    signal::unix::{Signal, SignalKind, signal},
    sync::{Notify, watch},
    time::{Instant, sleep, sleep_until},
};

use super::{Haproxy, Machine, RouterConfig, Routes, RoutingError, claim::Asker, roster::Roster};
use crate::{
    dcs::{Dcs, Etcd},
    sys::clock::Moment,
};

/// Time for one reading of the DCS.
const BUDGET: Duration = Duration::from_secs(3);
/// The DCS is read this often although its watch says nothing.
const TICK: Duration = Duration::from_secs(2);
/// Pause before a member is asked once more whether it leads.
const ASK_PAUSE: Duration = Duration::from_millis(250);
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
    let asker = Asker::new(&config.dcs.scope).map_err(|error| RoutingError::Setup(std::io::Error::other(error)))?;
    let mut haproxy = Haproxy::new("haproxy", config, Machine::observe());
    // A haproxy that cannot even start for the first time is a matter for whoever made this container.
    haproxy.start().await?;
    let (sender, routes) = watch::channel(None);
    let view = View { roster: RefCell::default(), routes: sender, unled: Notify::new() };
    select! {
        () = follow(&etcd, &view) => {}
        () = ask(&asker, &view) => {}
        () = keep(&mut haproxy, routes, &mut children) => {}
        _ = terminated.recv() => tracing::info!("told to stop"),
        _ = interrupted.recv() => tracing::info!("interrupted"),
    }
    haproxy.stop().await;
    Ok(())
}

/// What the DCS and the members say, and what follows from it.
struct View {
    roster: RefCell<Roster>,
    routes: watch::Sender<Option<Routes>>,
    /// The DCS names no leader.
    unled: Notify,
}

impl View {
    /// Takes something in and publishes what follows.
    fn take_in(&self, news: impl FnOnce(&mut Roster)) {
        news(&mut self.roster.borrow_mut());
        let routes = self.roster.borrow().routes();
        self.routes.send_replace(Some(routes));
    }
}

/// Reads the DCS whenever it changes. While it does not answer, what it said last counts.
async fn follow(dcs: &impl Dcs, view: &View) {
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
            view.take_in(|roster| roster.update(&snapshot, Moment::now()));
            view.unled.notify_one();
        }
        select! {
            () = &mut changed => changed.set(dcs.changed()),
            () = sleep(TICK) => {}
        }
    }
}

/// While nobody holds the leader key, asks whoever led last whether it still does. Beside the reading of the DCS, which may take its time.
async fn ask(asker: &Asker, view: &View) {
    let mut last = None;
    loop {
        let question = view.roster.borrow().question();
        let Some((name, member)) = question else {
            last = None;
            view.unled.notified().await;
            continue;
        };
        let claim = asker.ask(&name, &member).await;
        if last.replace((name.clone(), claim)) != Some((name.clone(), claim)) {
            tracing::info!(member = %name, ?claim, "nobody holds the leader key: who led last was asked whether it leads");
        }
        view.take_in(|roster| roster.hear(&name, claim, Moment::now()));
        sleep(ASK_PAUSE).await;
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
