//! The machine's watchdog device: it resets the machine when nobody has written to it in time, whatever became of guard, agent and
//! PostgreSQL. It is written to only when the lease has just been proved, and disarmed when nothing of PostgreSQL is left or when the lease
//! is not what PostgreSQL runs on. Nothing is logged here: a log that hangs must not keep the guard from its work.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Guard, protocol::FromGuard};
use crate::{agent::watchdog::usable, sys::clock::Moment};

/// `WDIOC_SETTIMEOUT`: takes the wanted seconds, returns those that the device has made of them.
const SET_TIMEOUT: libc::Ioctl = 0xC004_5706_u32 as libc::Ioctl;

/// What a device is written before it is closed, or it takes the closing for a crash.
const MAGIC_CLOSE: &[u8] = b"V";

/// How a device is told its timeout; a test has another way.
type SetTimeout = fn(&File, u32) -> io::Result<u32>;

/// The device, armed or not.
pub(super) struct Watchdog {
    path: PathBuf,
    /// In whole seconds, as devices count.
    timeout: u32,
    armed: Option<Armed>,
    /// The last attempt to arm it or to tell it something failed.
    failed: bool,
    set_timeout: SetTimeout,
}

/// An open device.
struct Armed {
    device: File,
    /// The timeout that it has; the one that is wanted may be newer.
    timeout: u32,
}

impl Watchdog {
    /// The device at `path`, to reset the machine after `timeout` seconds.
    pub(super) fn new(path: PathBuf, timeout: u32) -> Watchdog {
        Watchdog { path, timeout, armed: None, failed: false, set_timeout: ask_device }
    }

    /// The lease lasts until `until`: arms the device and starts its time anew, unless it would then let the machine live beyond that.
    pub(super) fn ping(&mut self, until: Moment) -> Result<(), String> {
        let now = Moment::now();
        let fits = |timeout: u32| now + Duration::from_secs(timeout.into()) <= until;
        if fits(self.timeout) {
            self.arm()?;
        }
        match &mut self.armed {
            Some(armed) if fits(armed.timeout) => told(&self.path, &mut armed.device, b"1"),
            _ => Ok(()),
        }
    }

    /// Opens it if need be, and gives it the timeout that is wanted.
    fn arm(&mut self) -> Result<(), String> {
        let (path, timeout) = (&self.path, self.timeout);
        match &mut self.armed {
            Some(armed) if armed.timeout == timeout => Ok(()),
            Some(armed) => {
                let set = accepted(path, (self.set_timeout)(&armed.device, timeout), timeout);
                if set.is_ok() {
                    armed.timeout = timeout;
                } else {
                    // It would reset the machine at a time that suits no lease.
                    let _ = self.disarm();
                }
                set
            }
            None => {
                let device = open(path, timeout, self.set_timeout)?;
                self.armed = Some(Armed { device, timeout });
                Ok(())
            }
        }
    }

    /// The machine may live on.
    pub(super) fn disarm(&mut self) -> Result<(), String> {
        self.armed.take().map_or(Ok(()), |mut armed| told(&self.path, &mut armed.device, MAGIC_CLOSE))
    }

    /// The device it drives.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Guard {
    /// Takes note of the device that the agent wants used, and says whether it can be. A new timeout reaches an armed device with the first
    /// proof that is long enough for it.
    pub(super) fn use_watchdog(&mut self, device: PathBuf, timeout: u32) {
        match &mut self.watchdog {
            // An agent that was started again has to hear anew what fails.
            Some(known) if known.path() == device => (known.timeout, known.failed) = (timeout, false),
            _ => {
                self.disarm_watchdog();
                self.watchdog = Some(Watchdog::new(device, timeout));
            }
        }
        let trouble = self.watchdog.as_ref().and_then(|watchdog| usable(watchdog.path()).err());
        self.tell(&FromGuard::Watchdog { trouble });
    }

    /// No device is to be used.
    pub(super) fn use_no_watchdog(&mut self) {
        self.disarm_watchdog();
        self.watchdog = None;
    }

    /// The agent has proved the lease until then, or says that PostgreSQL runs on none. The device is told as long as the guard has not
    /// begun to end the server for a lease that had passed.
    pub(super) fn proved(&mut self, until: Option<Moment>) {
        match until {
            Some(until) if self.is_guarding() => self.ping_watchdog(until),
            None if self.running().is_none_or(|postmaster| !postmaster.fenced) => self.disarm_watchdog(),
            _ => {}
        }
    }

    fn ping_watchdog(&mut self, until: Moment) {
        let Some(watchdog) = &mut self.watchdog else { return };
        let trouble = watchdog.ping(until).err();
        let failed = trouble.is_some();
        // Whoever hears of it acts on it: what is new is told, once.
        if std::mem::replace(&mut watchdog.failed, failed) != failed {
            self.tell(&FromGuard::Watchdog { trouble });
        }
    }

    /// The machine may live on without a lease.
    pub(super) fn disarm_watchdog(&mut self) {
        if let Some(Err(why)) = self.watchdog.as_mut().map(Watchdog::disarm) {
            self.tell(&FromGuard::Watchdog { trouble: Some(why) });
        }
    }
}

fn told(path: &Path, device: &mut File, what: &[u8]) -> Result<(), String> {
    device.write_all(what).map_err(|error| format!("'{}' does not take what it is told: {error}", path.display()))
}

fn open(path: &Path, timeout: u32, set_timeout: SetTimeout) -> Result<File, String> {
    let opened = OpenOptions::new().write(true).open(path);
    let mut device = opened.map_err(|error| format!("'{}' cannot be opened: {error}", path.display()))?;
    let set = accepted(path, set_timeout(&device, timeout), timeout);
    if set.is_err() {
        // It runs since it was opened.
        let _ = device.write_all(MAGIC_CLOSE);
    }
    set.map(|()| device)
}

/// A device that rounds up would reset the machine after somebody else may lead.
fn accepted(path: &Path, answer: io::Result<u32>, wanted: u32) -> Result<(), String> {
    let path = path.display();
    match answer {
        Ok(seconds) if seconds <= wanted => Ok(()),
        Ok(seconds) => Err(format!("'{path}' makes {seconds} s of a timeout of {wanted} s")),
        Err(error) => Err(format!("'{path}' takes no timeout: {error}")),
    }
}

fn ask_device(device: &File, seconds: u32) -> io::Result<u32> {
    let mut value = i32::try_from(seconds).map_err(io::Error::other)?;
    // SAFETY: the device is open and the number lives through the call.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), SET_TIMEOUT, &raw mut value) };
    if result == -1 { Err(io::Error::last_os_error()) } else { u32::try_from(value).map_err(io::Error::other) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file in a device's place: what it was told can be read afterwards.
    fn stand_in(set_timeout: SetTimeout) -> (tempfile::TempDir, Watchdog) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("watchdog");
        std::fs::write(&path, "").unwrap();
        (dir, Watchdog { set_timeout, ..Watchdog::new(path, 5) })
    }

    fn heard(watchdog: &Watchdog) -> String {
        std::fs::read_to_string(watchdog.path()).unwrap()
    }

    fn in_seconds(seconds: u64) -> Moment {
        Moment::now() + Duration::from_secs(seconds)
    }

    #[test]
    fn it_is_told_of_every_proof_and_closed_with_the_magic_letter() {
        let (_dir, mut watchdog) = stand_in(|_, seconds| Ok(seconds));
        usable(watchdog.path()).unwrap();
        assert_eq!(heard(&watchdog), "", "looking at it does not start it");
        watchdog.ping(in_seconds(10)).unwrap();
        watchdog.ping(in_seconds(10)).unwrap();
        assert_eq!(heard(&watchdog), "11");
        watchdog.disarm().unwrap();
        watchdog.disarm().unwrap();
        assert_eq!(heard(&watchdog), "11V");
    }

    #[test]
    fn it_is_not_told_of_a_lease_that_ends_before_its_time() {
        let (_dir, mut watchdog) = stand_in(|_, seconds| Ok(seconds));
        watchdog.ping(in_seconds(3)).unwrap();
        assert_eq!(heard(&watchdog), "");
    }

    #[test]
    fn a_shorter_lease_shortens_its_time_and_a_longer_one_not_before_it_is_proved() {
        let (_dir, mut watchdog) = stand_in(|_, seconds| Ok(seconds));
        watchdog.ping(in_seconds(10)).unwrap();
        watchdog.timeout = 2;
        watchdog.ping(in_seconds(3)).unwrap();
        assert_eq!((heard(&watchdog), watchdog.armed.as_ref().unwrap().timeout), ("11".to_owned(), 2));
        watchdog.timeout = 20;
        watchdog.ping(in_seconds(3)).unwrap();
        assert_eq!((heard(&watchdog), watchdog.armed.as_ref().unwrap().timeout), ("111".to_owned(), 2));
        watchdog.ping(in_seconds(30)).unwrap();
        assert_eq!((heard(&watchdog), watchdog.armed.as_ref().unwrap().timeout), ("1111".to_owned(), 20));
    }

    #[test]
    fn an_armed_device_that_refuses_another_time_is_disarmed() {
        let (_dir, mut watchdog) = stand_in(|_, seconds| if seconds == 5 { Ok(5) } else { Err(io::Error::other("no")) });
        watchdog.ping(in_seconds(10)).unwrap();
        watchdog.timeout = 4;
        assert!(watchdog.ping(in_seconds(10)).unwrap_err().contains("takes no timeout"));
        assert_eq!(heard(&watchdog), "1V");
    }

    #[test]
    fn a_device_that_waits_longer_than_it_was_told_is_not_used() {
        let (_dir, mut watchdog) = stand_in(|_, _| Ok(60));
        assert!(watchdog.ping(in_seconds(10)).unwrap_err().contains("makes 60 s of a timeout of 5 s"));
        assert_eq!(heard(&watchdog), "V");
    }

    #[test]
    fn what_is_no_device_says_so() {
        let (dir, mut watchdog) = stand_in(ask_device);
        assert!(watchdog.ping(in_seconds(10)).unwrap_err().contains("takes no timeout"));
        let missing = Watchdog::new(dir.path().join("none"), 5);
        assert!(usable(missing.path()).unwrap_err().contains("cannot be written to"));
    }
}
