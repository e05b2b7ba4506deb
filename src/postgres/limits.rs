//! Parameters of which a standby must not have less than its primary. PostgreSQL writes them into the WAL, and a standby that has less stops
//! replaying. So they are raised on the standbys first, and lowered on the primary first.

use std::collections::BTreeMap;

use super::{Installation, PostgresError, control_data};

/// The parameters, each with its label in the output of `pg_controldata`.
const LIMITS: &[(&str, &str)] = &[
    ("max_connections", "max_connections setting"),
    ("max_locks_per_transaction", "max_locks_per_xact setting"),
    ("max_prepared_transactions", "max_prepared_xacts setting"),
    ("max_wal_senders", "max_wal_senders setting"),
    ("max_worker_processes", "max_worker_processes setting"),
];

/// What the control file says: on a primary what it last ran with, on a standby what its primary had where replay has come to.
pub async fn recorded(installation: &Installation) -> Result<BTreeMap<String, u64>, PostgresError> {
    let text = control_data::print(installation).await?;
    let value = |label: &str| {
        let found = text.lines().find_map(|line| line.strip_prefix(label)?.strip_prefix(':'));
        found.and_then(|text| text.trim().parse().ok())
    };
    Ok(LIMITS.iter().filter_map(|(name, label)| Some(((*name).to_owned(), value(label)?))).collect())
}

/// What to start with instead of `wanted`. A standby takes no less than is recorded. A primary takes no more than is recorded while
/// `is_short` says that a standby has not got the higher value yet.
pub fn for_start(
    wanted: &BTreeMap<&str, String>,
    recorded: &BTreeMap<String, u64>,
    standby: bool,
    is_short: impl Fn(&str) -> bool,
) -> BTreeMap<String, String> {
    let differs = |(name, recorded): (&String, &u64)| {
        let wanted: u64 = wanted.get(name.as_str())?.parse().ok()?;
        let kept = if standby { wanted < *recorded } else { wanted > *recorded && is_short(name) };
        kept.then(|| (name.clone(), recorded.to_string()))
    };
    recorded.iter().filter_map(differs).collect()
}

/// True when a standby has less than is recorded of one of them: it does not go on replaying.
pub fn blocks_replay(in_force: &BTreeMap<String, String>, recorded: &BTreeMap<String, u64>) -> bool {
    recorded.iter().any(|(name, recorded)| in_force.get(name).and_then(|v| v.parse::<u64>().ok()).is_some_and(|value| value < *recorded))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded() -> BTreeMap<String, u64> {
        [("max_connections", 50), ("max_wal_senders", 10)].map(|(n, v)| (n.to_owned(), v)).into()
    }

    fn started(connections: &str, standby: bool, short: bool) -> Option<String> {
        let wanted = BTreeMap::from([("max_connections", connections.to_owned()), ("max_wal_senders", "10".to_owned())]);
        for_start(&wanted, &recorded(), standby, |_| short).remove("max_connections")
    }

    #[test]
    fn a_standby_is_raised_at_once_and_lowered_after_its_primary() {
        assert_eq!(started("80", true, false), None);
        assert_eq!(started("30", true, false), Some("50".to_owned()));
        assert_eq!(started("50", true, false), None);
    }

    #[test]
    fn a_primary_is_lowered_at_once_and_raised_after_its_standbys() {
        assert_eq!(started("30", false, true), None);
        assert_eq!(started("80", false, true), Some("50".to_owned()));
        assert_eq!(started("80", false, false), None);
    }

    #[test]
    fn less_than_the_primary_has_blocks_replay() {
        let with = |value: &str| BTreeMap::from([("max_connections".to_owned(), value.to_owned())]);
        assert!(blocks_replay(&with("49"), &recorded()));
        assert!(!blocks_replay(&with("50"), &recorded()));
    }
}
