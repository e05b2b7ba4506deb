//! What the configuration says of a watchdog device, and what follows from it for a lease.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;

use crate::spec::settings::Settings;

/// Patroni's default for the part of the lease that the device leaves unused.
const SAFETY_MARGIN: u64 = 5;

/// How late the proof of a lease may come and still be early enough for the device.
const LATENESS: Duration = Duration::from_secs(1);

/// Whether a watchdog device is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Not at all.
    Off,
    /// Where there is one.
    Automatic,
    /// Without one this member does not lead.
    Required,
}

/// The section `watchdog` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watchdog {
    /// Whether.
    pub mode: Mode,
    /// Which.
    pub device: PathBuf,
    /// How long before the end of the lease the machine is reset; `None`: half a lease before.
    pub safety_margin: Option<Duration>,
}

impl Watchdog {
    /// Reads the section; every mistake is named.
    pub fn read(section: &Value) -> Result<Watchdog, Vec<String>> {
        let mut mistakes = Vec::new();
        let mode = match &section["mode"] {
            Value::Null if section.is_null() => Mode::Off,
            Value::Null => Mode::Automatic,
            Value::Bool(false) => Mode::Off,
            Value::String(text) if text == "off" => Mode::Off,
            Value::String(text) if text == "automatic" => Mode::Automatic,
            Value::String(text) if text == "required" => Mode::Required,
            other => {
                mistakes.push(format!("'watchdog.mode' is {other}: one of off, automatic, required is needed"));
                Mode::Off
            }
        };
        let device = match &section["device"] {
            Value::Null => "/dev/watchdog".to_owned(),
            Value::String(path) if path.starts_with('/') => path.clone(),
            other => {
                mistakes.push(format!("'watchdog.device' is {other}: the path of a device is needed, such as /dev/watchdog"));
                String::new()
            }
        };
        let safety_margin = match (&section["safety_margin"], section["safety_margin"].as_i64()) {
            (Value::Null, _) => Some(Duration::from_secs(SAFETY_MARGIN)),
            (_, Some(-1)) => None,
            (_, Some(seconds @ 0..)) => Some(Duration::from_secs(seconds.unsigned_abs())),
            (other, _) => {
                mistakes
                    .push(format!("'watchdog.safety_margin' is {other}: a number of seconds from 0 on is needed, or -1 for half the ttl"));
                None
            }
        };
        if mistakes.is_empty() { Ok(Watchdog { mode, device: device.into(), safety_margin }) } else { Err(mistakes) }
    }

    /// The timeout of the device under this lease; `None`: no device is used.
    pub fn wanted(&self, settings: &Settings) -> Result<Option<u32>, String> {
        if self.mode == Mode::Off { Ok(None) } else { self.timeout(settings).map(Some) }
    }

    /// After how many seconds the device is to reset the machine; an error when that leaves no time between two renewals of the lease.
    pub fn timeout(&self, settings: &Settings) -> Result<u32, String> {
        let ttl = settings.ttl;
        let timeout = self.safety_margin.map_or(ttl / 2, |margin| ttl.saturating_sub(margin.max(super::lease::margin(ttl) + LATENESS)));
        let seconds = u32::try_from(timeout.as_secs()).unwrap_or(u32::MAX);
        if Duration::from_secs(seconds.into()) <= settings.loop_wait {
            return Err(format!(
                "a ttl of {} s less 'watchdog.safety_margin' leaves {seconds} s, and 'loop_wait' is {} s: raise ttl, or set safety_margin to -1",
                ttl.as_secs(),
                settings.loop_wait.as_secs()
            ));
        }
        Ok(seconds)
    }
}

/// Whether the device could be armed, as far as can be seen without opening it: a device may run from then on and never stop.
pub fn usable(device: &Path) -> Result<(), String> {
    let found = rustix::fs::access(device, rustix::fs::Access::WRITE_OK);
    found.map_err(|error| format!("'{}' cannot be written to: {error}", device.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn patronis_defaults_hold_in_a_section_and_without_one_there_is_no_watchdog() {
        assert_eq!(Watchdog::read(&Value::Null).unwrap().mode, Mode::Off);
        let watchdog = Watchdog::read(&json!({})).unwrap();
        assert_eq!(watchdog.mode, Mode::Automatic);
        assert_eq!(watchdog.device, PathBuf::from("/dev/watchdog"));
        let settings = Settings::read(&json!({"ttl": 30, "loop_wait": 10, "retry_timeout": 10}));
        assert_eq!(watchdog.timeout(&settings), Ok(25));
    }

    #[test]
    fn every_mistake_is_named() {
        let mistakes = Watchdog::read(&json!({"mode": "on", "device": 7, "safety_margin": -2})).unwrap_err();
        for (mistake, key) in mistakes.iter().zip(["mode", "device", "safety_margin"]) {
            assert!(mistake.contains(key), "{mistake}");
        }
        assert_eq!(mistakes.len(), 3);
    }

    #[test]
    fn a_margin_that_leaves_no_time_is_an_error_and_half_the_ttl_is_not() {
        let settings = Settings::read(&json!({"ttl": 5, "loop_wait": 1, "retry_timeout": 2}));
        let watchdog = |margin: i64| Watchdog::read(&json!({"safety_margin": margin})).unwrap();
        assert!(watchdog(5).timeout(&settings).unwrap_err().contains("safety_margin to -1"));
        assert_eq!(watchdog(-1).timeout(&settings), Ok(2));
        assert_eq!(watchdog(0).timeout(&settings), Ok(3), "a proof needs time to come in");
    }
}
