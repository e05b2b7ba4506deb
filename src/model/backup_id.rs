//! What a base backup is called.

use std::{fmt, str::FromStr};

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A base backup's name: when it was begun, in UTC, and some chance, so that names sort by time and two that were begun at once differ.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackupId(String);

/// The text is not the name of a base backup.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not the name of a backup (expected something like 20261121T204500Z-1a2b3c4d)")]
pub struct InvalidBackupId(String);

/// How the time is written.
const TIME: &str = "%Y%m%dT%H%M%SZ";

impl BackupId {
    /// The name of a backup that is begun at `time`.
    pub fn new(time: Timestamp, chance: u32) -> BackupId {
        BackupId(format!("{}-{chance:08x}", time.strftime(TIME)))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for BackupId {
    type Err = InvalidBackupId;

    fn from_str(text: &str) -> Result<BackupId, InvalidBackupId> {
        let digits = |part: &str, length| part.len() == length && part.bytes().all(|byte| byte.is_ascii_digit());
        let fits = text.split_once('-').is_some_and(|(time, chance)| {
            let (day, hour) = time.strip_suffix('Z').and_then(|time| time.split_once('T')).unwrap_or_default();
            let chance = chance.len() == 8 && chance.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            digits(day, 8) && digits(hour, 6) && chance
        });
        if fits { Ok(BackupId(text.to_owned())) } else { Err(InvalidBackupId(text.to_owned())) }
    }
}

impl Serialize for BackupId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for BackupId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<BackupId, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_by_time_and_read_back() {
        let at = |second: i64| BackupId::new(Timestamp::from_second(1_795_293_900 + second).unwrap(), 0x1a2b_3c4d);
        assert_eq!(at(0).as_str(), "20261121T204500Z-1a2b3c4d");
        assert!(at(0) < at(1) && at(59) < at(60) && at(0) < at(86_400));
        assert_eq!(at(0).as_str().parse(), Ok(at(0)));
    }

    #[test]
    fn nothing_else_is_a_name() {
        for text in ["", "20261121T204500Z", "20261121T204500Z-1A2B3C4D", "20261121T2045Z-1a2b3c4d", "../x", "20261121T204500Z-1a2b3c4d/x"]
        {
            assert!(text.parse::<BackupId>().expect_err(text).to_string().contains(text));
        }
    }
}
