//! Ctrl-C and SIGTERM: an operation is left between two steps, and says that the same command continues it.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::Notify,
    time::sleep,
};

use super::{CommandError, ErrorKind};

/// How long work may take to come to a good place after the first signal; a second signal ends it at once.
const GRACE: Duration = Duration::from_secs(2);

/// Tells long work that it shall end.
#[derive(Debug, Clone, Default)]
pub struct Interrupt {
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    requested: AtomicBool,
    notify: Notify,
}

impl Interrupt {
    /// Whether the end was asked for.
    pub fn is_requested(&self) -> bool {
        self.state.requested.load(Ordering::Relaxed)
    }

    /// Returns as soon as the end is asked for.
    pub async fn requested(&self) {
        let notified = self.state.notify.notified();
        if !self.is_requested() {
            notified.await;
        }
    }

    fn request(&self) {
        self.state.requested.store(true, Ordering::Relaxed);
        self.state.notify.notify_waiters();
    }
}

/// Runs asynchronous work to its end, or until a signal has ended it. Commands are synchronous up to here, because some of them (the
/// guard) must not run in a process with threads.
pub fn run_async<T, F, W>(work: W) -> Result<T, CommandError>
where
    F: Future<Output = Result<T, CommandError>>,
    W: FnOnce(Interrupt) -> F,
{
    let failed = |error: std::io::Error| CommandError::new(ErrorKind::Failed, format!("cannot start the asynchronous runtime: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let result = runtime.block_on(async {
        let mut signals = Signals::listen().map_err(failed)?;
        let interrupt = Interrupt::default();
        let mut work = std::pin::pin!(work(interrupt.clone()));
        tokio::select! {
            result = &mut work => return result,
            () = signals.next() => interrupt.request(),
        }
        tokio::select! {
            result = &mut work => result,
            () = signals.next() => Err(interrupted()),
            () = sleep(GRACE) => Err(interrupted()),
        }
    });
    // A question that nobody answered still blocks a thread of the runtime: it must not hold up the end.
    runtime.shutdown_background();
    result
}

/// The error of a command that a signal ended.
pub fn interrupted() -> CommandError {
    CommandError::new(ErrorKind::Interrupted, "interrupted").hint("run the same command again to continue")
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Signals> {
        Ok(Signals { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_gets_through_when_no_signal_comes() {
        assert_eq!(run_async(|_| async { Ok(7) }).unwrap(), 7);
    }

    #[test]
    fn an_interrupt_is_seen_before_and_after_somebody_waits_for_it() {
        let seen = run_async(|_| async {
            let interrupt = Interrupt::default();
            let waiting = interrupt.clone();
            tokio::join!(waiting.requested(), async { interrupt.request() });
            interrupt.requested().await;
            Ok(interrupt.is_requested())
        });
        assert!(seen.unwrap());
    }
}
