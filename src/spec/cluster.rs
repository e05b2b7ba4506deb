//! The checked specification of a cluster.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{Deserialize, Serialize};

use super::{ArchiveSpec, CloneSource};
use crate::model::ClusterName;

/// How many PostgreSQL nodes: 1 to 9.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct NodeCount(u8);

/// How many etcd members the local platform runs: 1 or 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct EtcdCount(u8);

/// PostgreSQL's major version: 15 to 18.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct PostgresVersion(u8);

/// When a commit is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// When one replica has it too: losing any one node loses no acknowledged commit.
    #[default]
    Quorum,
    /// When the primary has it: a failover may lose the newest commits.
    Async,
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Durability::Quorum => "quorum",
            Durability::Async => "async",
        })
    }
}

/// Patroni's three timings. Invariant: `loop_wait + 2 * retry_timeout <= ttl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HaTimings {
    pub(super) ttl: u16,
    pub(super) loop_wait: u16,
    pub(super) retry_timeout: u16,
}

/// What a cluster should be. Stored with the cluster, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterSpec {
    /// The cluster's name, which is also its scope in the DCS.
    pub name: ClusterName,
    /// How many PostgreSQL nodes.
    pub nodes: NodeCount,
    /// PostgreSQL's major version.
    pub postgres: PostgresVersion,
    /// PostgreSQL parameters on top of the defaults.
    pub parameters: BTreeMap<String, String>,
    /// When a commit is acknowledged.
    pub durability: Durability,
    /// Lease and loop timings.
    pub timings: HaTimings,
    /// How many etcd members.
    pub etcd: EtcdCount,
    /// First of the three consecutive ports on 127.0.0.1 (read-write, read-only, health); `None`: the next free ones.
    pub port: Option<u16>,
    /// A finished image to use instead of building one.
    pub image: Option<String>,
    /// Where its backups and its WAL are kept; `None`: where nothing was said of it. A cluster that is stored so was made before there were
    /// archives, and has none.
    #[serde(default)]
    pub archive: Option<ArchiveSpec>,
    /// Whose backup it is begun with, instead of nothing. Only said when it is created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clone_of: Option<Box<CloneSource>>,
}

/// A number outside its allowed range; says what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value} is not possible: {allowed}")]
pub struct OutOfRange {
    value: u64,
    allowed: &'static str,
}

macro_rules! checked_number {
    ($name:ident, $allowed:literal, $test:expr, $default:expr) => {
        impl $name {
            /// The number.
            pub fn get(self) -> u8 {
                self.0
            }
        }

        impl TryFrom<u8> for $name {
            type Error = OutOfRange;

            fn try_from(value: u8) -> Result<$name, OutOfRange> {
                if $test(value) { Ok($name(value)) } else { Err(OutOfRange { value: value.into(), allowed: $allowed }) }
            }
        }

        impl From<$name> for u8 {
            fn from(value: $name) -> u8 {
                value.0
            }
        }

        impl Default for $name {
            fn default() -> $name {
                $name($default)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

checked_number!(NodeCount, "a cluster has 1 to 9 nodes", |n| (1..=9).contains(&n), 3);
checked_number!(EtcdCount, "etcd runs with 1 or 3 members", |n| n == 1 || n == 3, 1);
checked_number!(PostgresVersion, "PostgreSQL 15, 16, 17 and 18 are supported", |n| (15..=18).contains(&n), 17);

impl HaTimings {
    /// Checks Patroni's rule: `loop_wait + 2 * retry_timeout <= ttl`, all in whole seconds.
    pub fn new(ttl: u16, loop_wait: u16, retry_timeout: u16) -> Result<HaTimings, String> {
        if loop_wait == 0 || retry_timeout == 0 {
            return Err("'loop_wait' and 'retry_timeout' are at least 1 second".to_owned());
        }
        let needed = u32::from(loop_wait) + 2 * u32::from(retry_timeout);
        if needed > u32::from(ttl) {
            return Err(format!(
                "ttl {ttl} is too short: loop_wait {loop_wait} + 2 × retry_timeout {retry_timeout} = {needed} must not exceed it"
            ));
        }
        Ok(HaTimings { ttl, loop_wait, retry_timeout })
    }

    /// How long the leader's lease lasts.
    pub fn ttl(self) -> Duration {
        Duration::from_secs(self.ttl.into())
    }

    /// Longest sleep between two turns of the agent's loop.
    pub fn loop_wait(self) -> Duration {
        Duration::from_secs(self.loop_wait.into())
    }

    /// Budget of one DCS operation, retries included.
    pub fn retry_timeout(self) -> Duration {
        Duration::from_secs(self.retry_timeout.into())
    }
}

impl Default for HaTimings {
    fn default() -> HaTimings {
        HaTimings { ttl: 5, loop_wait: 1, retry_timeout: 2 }
    }
}

impl ClusterSpec {
    /// A cluster of this name with every default.
    pub fn named(name: ClusterName) -> ClusterSpec {
        ClusterSpec {
            name,
            nodes: NodeCount::default(),
            postgres: PostgresVersion::default(),
            parameters: BTreeMap::new(),
            durability: Durability::default(),
            timings: HaTimings::default(),
            etcd: EtcdCount::default(),
            port: None,
            image: None,
            archive: None,
            clone_of: None,
        }
    }

    /// The archive that a cluster which is stored so has.
    pub fn stored_archive(&self) -> ArchiveSpec {
        self.archive.clone().unwrap_or_else(ArchiveSpec::none)
    }
}
