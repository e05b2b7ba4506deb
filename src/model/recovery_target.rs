//! How far recovery goes, and on which timeline.

use std::{fmt, str::FromStr};

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use super::{Lsn, Timeline};

/// PostgreSQL cuts longer names of restore points.
const LONGEST_NAME: usize = 63;

/// Transactions with lower numbers are PostgreSQL's own.
const FIRST_XID: u32 = 3;

/// Where recovery ends.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum RecoveryTarget {
    /// Where the WAL ends.
    #[default]
    End,
    /// As soon as the data are consistent.
    Immediate,
    /// At the last commit before that time.
    Time(Timestamp),
    /// At a position.
    Lsn(Lsn),
    /// At the end of a transaction.
    Xid(u32),
    /// At a restore point, as `pg_create_restore_point` makes them.
    Name(String),
}

/// The timeline that recovery goes along.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TargetTimeline {
    /// The newest that the archive has.
    #[default]
    Latest,
    /// That of the backup.
    Current,
    /// This one.
    Number(Timeline),
}

/// The text does not say how far recovery is to go.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTarget {
    /// No time.
    #[error("'{0}' is not a time with a time zone (expected something like 2026-11-21T20:45:00Z or '2026-11-21 21:45:00+01')")]
    Time(String),
    /// A time that means another moment in each place.
    #[error("'{0}' does not say in which time zone: append 'Z' for UTC, or something like '+01:00'")]
    NoZone(String),
    /// No transaction.
    #[error("'{0}' is not the number of a transaction (from {FIRST_XID} to 4294967295)")]
    Xid(String),
    /// No restore point.
    #[error("'{0}' cannot name a restore point (1 to {LONGEST_NAME} bytes, no control characters)")]
    Name(String),
    /// No timeline.
    #[error("'{0}' is not a timeline (expected 'latest', 'current' or a number from 1 on)")]
    Timeline(String),
}

impl RecoveryTarget {
    /// The target of this time: RFC 3339, or with a blank between date and time; always with a time zone.
    ///
    /// # Errors
    /// When it is no time, or says no time zone.
    pub fn time(text: &str) -> Result<RecoveryTarget, InvalidTarget> {
        let text = text.trim();
        let utc = text.strip_suffix("UTC").or_else(|| text.strip_suffix("utc"));
        let zoned = utc.map_or_else(|| text.to_owned(), |local| format!("{}Z", local.trim_end()));
        match zoned.parse() {
            Ok(time) => Ok(RecoveryTarget::Time(time)),
            Err(_) if zoned.parse::<jiff::civil::DateTime>().is_ok() => Err(InvalidTarget::NoZone(text.to_owned())),
            Err(_) => Err(InvalidTarget::Time(text.to_owned())),
        }
    }

    /// The target of this transaction.
    ///
    /// # Errors
    /// When no transaction of a user can have this number.
    pub fn xid(text: &str) -> Result<RecoveryTarget, InvalidTarget> {
        let number = text.parse().ok().filter(|number| *number >= FIRST_XID);
        number.map(RecoveryTarget::Xid).ok_or_else(|| InvalidTarget::Xid(text.to_owned()))
    }

    /// The target of this restore point.
    ///
    /// # Errors
    /// When no restore point can be called so.
    pub fn name(text: &str) -> Result<RecoveryTarget, InvalidTarget> {
        let fits = (1..=LONGEST_NAME).contains(&text.len()) && !text.chars().any(char::is_control);
        if fits { Ok(RecoveryTarget::Name(text.to_owned())) } else { Err(InvalidTarget::Name(text.to_owned())) }
    }

    /// PostgreSQL's parameter of it, and its value. `None`: it takes none.
    pub fn setting(&self) -> Option<(&'static str, String)> {
        match self {
            RecoveryTarget::End => None,
            RecoveryTarget::Immediate => Some(("recovery_target", "immediate".to_owned())),
            RecoveryTarget::Time(time) => Some(("recovery_target_time", time.strftime("%Y-%m-%d %H:%M:%S%.6f+00").to_string())),
            RecoveryTarget::Lsn(lsn) => Some(("recovery_target_lsn", lsn.to_string())),
            RecoveryTarget::Xid(xid) => Some(("recovery_target_xid", xid.to_string())),
            RecoveryTarget::Name(name) => Some(("recovery_target_name", name.clone())),
        }
    }
}

impl fmt::Display for RecoveryTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecoveryTarget::End => f.write_str("the end of the archived WAL"),
            RecoveryTarget::Immediate => f.write_str("the end of the backup"),
            RecoveryTarget::Time(time) => write!(f, "{time}"),
            RecoveryTarget::Lsn(lsn) => write!(f, "position {lsn}"),
            RecoveryTarget::Xid(xid) => write!(f, "transaction {xid}"),
            RecoveryTarget::Name(name) => write!(f, "restore point '{name}'"),
        }
    }
}

impl Serialize for RecoveryTarget {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for TargetTimeline {
    type Err = InvalidTarget;

    fn from_str(text: &str) -> Result<TargetTimeline, InvalidTarget> {
        match text {
            "latest" => Ok(TargetTimeline::Latest),
            "current" => Ok(TargetTimeline::Current),
            number => match number.parse() {
                Ok(number @ 1..) => Ok(TargetTimeline::Number(Timeline(number))),
                _ => Err(InvalidTarget::Timeline(text.to_owned())),
            },
        }
    }
}

impl fmt::Display for TargetTimeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TargetTimeline::Latest => f.write_str("latest"),
            TargetTimeline::Current => f.write_str("current"),
            TargetTimeline::Number(timeline) => timeline.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_time_is_read_in_the_forms_that_people_and_programs_write() {
        let expected = RecoveryTarget::Time(time("2026-11-21T20:45:00Z"));
        for text in [
            "2026-11-21T20:45:00Z",
            "2026-11-21 20:45:00Z",
            "2026-11-21 20:45:00 UTC",
            "2026-11-21 20:45:00+00",
            "2026-11-21 21:45:00+01",
            "2026-11-21T15:15:00-05:30",
            " 2026-11-21 20:45:00.000+00:00 ",
        ] {
            assert_eq!(RecoveryTarget::time(text), Ok(expected.clone()), "{text}");
        }
    }

    #[test]
    fn a_time_without_a_zone_is_not_guessed() {
        for text in ["2026-11-21T20:45:00", "2026-11-21 20:45:00"] {
            let told = RecoveryTarget::time(text).unwrap_err().to_string();
            assert!(told.contains(text) && told.contains("time zone"), "{told}");
        }
        for text in ["", "yesterday", "2026-13-21T20:45:00Z", "20:45"] {
            assert!(matches!(RecoveryTarget::time(text), Err(InvalidTarget::Time(_))), "{text}");
        }
    }

    #[test]
    fn postgresql_is_told_the_same_moment_to_the_microsecond() {
        let setting = RecoveryTarget::time("2026-11-21 21:45:00.1234567+01").unwrap().setting().unwrap();
        assert_eq!(setting, ("recovery_target_time", "2026-11-21 20:45:00.123456+00".to_owned()));
        assert_eq!(RecoveryTarget::End.setting(), None);
        assert_eq!(RecoveryTarget::Immediate.setting().unwrap().1, "immediate");
        assert_eq!(RecoveryTarget::Lsn(Lsn(0x1_0000_00FF)).setting().unwrap().1, "1/FF");
    }

    #[test]
    fn nonsense_is_named_in_the_error() {
        for text in ["", "0", "2", "4294967296", "x"] {
            assert!(RecoveryTarget::xid(text).expect_err(text).to_string().contains(text));
        }
        for text in ["".to_owned(), "a\nb".to_owned(), "x".repeat(64)] {
            assert!(RecoveryTarget::name(&text).expect_err(&text).to_string().contains(&text));
        }
        for text in ["", "0", "-1", "newest"] {
            assert!(text.parse::<TargetTimeline>().expect_err(text).to_string().contains(text));
        }
        assert_eq!("12".parse(), Ok(TargetTimeline::Number(Timeline(12))));
        assert_eq!(TargetTimeline::Latest.to_string().parse(), Ok(TargetTimeline::Latest));
    }
}
