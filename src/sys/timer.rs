//! A pause that costs one wake-up. The runtime's own timers wake it at least twice for every pause that is longer than a few milliseconds, which
//! is most of what an idle agent does.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use rustix::{
    io::{Errno, read},
    time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime},
};
use tokio::io::{Interest, unix::AsyncFd};

/// A timer for one pause at a time. It goes on while the machine is suspended, as leases do.
pub struct Timer(AsyncFd<OwnedFd>);

impl Timer {
    /// One that is not running.
    pub fn new() -> io::Result<Timer> {
        let timer = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        // SAFETY: the descriptor is owned by what is registered, which always gives the same one, and is closed only after it.
        Ok(Timer(unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE) }?))
    }

    /// Waits that long. May be cancelled and begun again.
    pub async fn pause(&mut self, pause: Duration) {
        if self.elapse(pause).await.is_err() {
            tokio::time::sleep(pause).await;
        }
    }

    async fn elapse(&mut self, pause: Duration) -> io::Result<()> {
        // Nothing at all would stop the timer.
        let pause = pause.max(Duration::from_nanos(1));
        let tv_sec = i64::try_from(pause.as_secs()).unwrap_or(i64::MAX);
        let it_value = Timespec { tv_sec, tv_nsec: pause.subsec_nanos().into() };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value };
        timerfd_settime(self.0.as_fd(), TimerfdTimerFlags::empty(), &once)?;
        loop {
            let mut ready = self.0.readable().await?;
            match read(self.0.as_fd(), &mut [0; 8]) {
                Ok(_) => return Ok(()),
                // It was an earlier pause's end, which nobody waited for.
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[tokio::test]
    async fn a_pause_ends_when_it_is_over_whatever_became_of_the_one_before() {
        let mut timer = Timer::new().unwrap();
        let short = Duration::from_millis(20);
        let begun = Instant::now();
        timer.pause(short).await;
        assert!(begun.elapsed() >= short);
        timer.pause(Duration::ZERO).await;
        // Given up right after it was begun, however slow the machine is.
        tokio::select! {
            biased;
            () = timer.pause(Duration::from_millis(5)) => panic!("it did not wait"),
            () = std::future::ready(()) => {}
        }
        std::thread::sleep(short);
        let begun = Instant::now();
        timer.pause(short).await;
        assert!(begun.elapsed() >= short, "the end of a pause that was given up counted for the next one");
    }
}
