//! What operators wish of this member, and why they may not get it.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use super::view::Task;
pub use crate::api::request::{Request, Restart, Scheduled};
use crate::model::MemberName;

/// What operators wish, as far as decisions depend on it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Wishes {
    /// The time of day, in milliseconds since 1970: for what was scheduled, and for nothing else.
    pub wall_clock: i64,
    /// A request that waits for its answer.
    pub asked: Option<Request>,
    /// A restart that is to come.
    pub scheduled: Option<Scheduled>,
    /// Parameters that wait for a restart.
    pub pending: BTreeMap<String, Pending>,
    /// This standby does not replay, because it has less of something than its primary: a restart gives it as much.
    pub blocks_replay: bool,
}

/// A parameter that waits for a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// The value in force.
    #[serde(rename = "old_value")]
    pub old: String,
    /// The value after the restart.
    #[serde(rename = "new_value")]
    pub new: String,
}

impl Pending {
    /// True when a number grows.
    pub fn grows(&self) -> bool {
        matches!((self.old.parse::<u64>(), self.new.parse::<u64>()), (Ok(old), Ok(new)) if new > old)
    }
}

/// Why a request is not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "each variant's sentence is its documentation")]
pub enum Refusal {
    Ending,
    Busy { task: Task },
    Conditions,
    Starting,
    NoData,
    Unusable { why: String },
    NoLease,
    BeingPromoted,
    StandbyFirst { member: MemberName, parameter: String, wanted: String },
    Leads,
    NoLeader,
    NoHealthyCopy { leader: MemberName },
    Foreign,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use Refusal as R;
        match self {
            R::Ending => write!(f, "this agent is about to end"),
            R::Busy { task } => write!(f, "{} already in progress", task.name()),
            R::Conditions => write!(f, "restart conditions are not satisfied"),
            R::Starting => write!(f, "postgres is still starting"),
            R::NoData => write!(f, "there is no data directory yet"),
            R::Unusable { why } => write!(f, "the data directory cannot be used: {why}"),
            R::NoLease => write!(f, "the leader key is not mine at the moment: try again when the DCS answers"),
            R::BeingPromoted => write!(f, "promotion already in progress"),
            R::StandbyFirst { member, parameter, wanted } => {
                write!(
                    f,
                    "restart '{member}' first: a standby cannot replay while its {parameter} is below the primary's, and it has not taken "
                )?;
                write!(f, "{wanted} yet")
            }
            R::Leads => write!(f, "I am the leader, can not reinitialize"),
            R::NoLeader => write!(f, "Cluster has no leader, can not reinitialize"),
            R::NoHealthyCopy { leader } => {
                write!(f, "the leader '{leader}' is not running as a primary, can not reinitialize: mine may be the only good copy")
            }
            R::Foreign => write!(f, "the data directory is of another system, can not reinitialize: move it away yourself"),
        }
    }
}
